"""The scenes of land and water: sea, lighthouse, night sky, field. A scene is drawn from the time alone, so that any
frame of it can be drawn again.
"""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from jobs.demo.brush import HEIGHT, WHITE, WIDTH, Canvas, Colour, Point, clouds, gradient, mix, smooth

__all__ = ["Field", "Lighthouse", "NightSky", "Scene", "Sea"]

Picture = npt.NDArray[np.uint8]


class Scene(Protocol):
    """Something that can be drawn at any time."""

    def draw(self, t: float) -> Picture:
        """The picture ``[360, 640, 3]`` (uint8 RGB) at ``t`` seconds after the scene's start."""


def _waves(
    canvas: Canvas, t: float, top: float, near: Colour, far: Colour, layers: int = 9, crest: float = 0.22
) -> None:
    """Water from ``top`` to the lower edge, in layers that roll faster the nearer they are."""
    x = np.linspace(-10, WIDTH + 10, 70)
    for i in range(layers):
        depth = i / (layers - 1)
        y0 = top + (HEIGHT - top) * depth**1.6
        height, length, speed = 1 + 6 * depth, 26 + 90 * depth, 9 + 26 * depth
        y = y0 + height * (np.sin((x + speed * t) / length * 2 * math.pi + i * 1.7))
        y += 0.4 * height * np.sin((x - 0.6 * speed * t) / length * 4.1 + i)
        colour = mix(far, near, depth)
        edge = list(zip(x, y, strict=True))
        canvas.polygon([*edge, (WIDTH + 10, HEIGHT + 10), (-10, HEIGHT + 10)], colour)
        canvas.line(edge, mix(colour, WHITE, crest * (0.4 + 0.6 * depth)), 0.6 + 0.9 * depth)


class Sea:
    """Noon at sea; a sailing boat crosses from ``enters`` to ``leaves``."""

    def __init__(self, enters: float, leaves: float) -> None:
        self._enters, self._leaves = enters, leaves
        canvas = Canvas(
            gradient([(0, (42, 126, 214)), (0.55, (170, 216, 246)), (0.6, (226, 240, 248)), (1, (255, 255, 255))])
        )
        canvas.glow((520, 60), 190, (255, 236, 170), 0.9)
        canvas.circle((520, 60), 26, (255, 250, 222))
        self._sky = canvas.large()
        self._clouds = clouds(3, 170, cover=0.42) * np.linspace(0.9, 0.35, 340, dtype=np.float32)[:, None]

    def draw(self, t: float) -> Picture:
        canvas = Canvas(self._sky)
        canvas.veil(self._clouds, WHITE, 4, 300 + 6 * t)
        canvas.polygon([(0, 206), (60, 190), (130, 199), (190, 184), (270, 206)], (120, 160, 176))  # a coast far away
        _waves(canvas, t, 204, (10, 84, 132), (74, 166, 200))
        for k in range(26):  # the sun on the water
            x = 520 + 90 * math.sin(k * 12.9) * (0.3 + k / 26)
            y = 210 + 5.4 * k
            if math.sin(t * 5 + k * 2.3) > 0.1:
                canvas.ellipse((x, y), (3 + k * 0.35, 0.8 + k * 0.04), (255, 250, 214))
        share = (t - self._enters) / (self._leaves - self._enters)
        if 0 <= share <= 1:
            self._boat(canvas, t, -110 + (WIDTH + 220) * share)
        for k in range(3):
            x, y = (90 + 130 * k + 34 * t) % (WIDTH + 60) - 30, 60 + 22 * k + 8 * math.sin(t + k * 2)
            wing = 6 * math.sin(t * 6 + k)
            canvas.line(
                [(x - 12, y - wing), (x - 5, y - 3), (x, y), (x + 5, y - 3), (x + 12, y - wing)], (60, 66, 80), 1.2
            )
        return canvas.finish()

    def _boat(self, canvas: Canvas, t: float, x: float) -> None:
        tilt, y = 0.05 * math.sin(t * 1.8), 272 + 4 * math.sin(t * 2.1)
        cos, sin = math.cos(tilt), math.sin(tilt)

        def at(*points: Point) -> list[Point]:
            return [(x + px * cos - py * sin, y + px * sin + py * cos) for px, py in points]

        with canvas.translucent(0.28, y - 10):  # its reflection
            canvas.polygon([(x - 62, y + 12), (x + 66, y + 12), (x + 30, y + 70), (x - 20, y + 78)], (244, 240, 232))
        canvas.polygon(at((-4, -8), (-4, -168), (0, -172), (0, -8)), (92, 60, 36))
        canvas.polygon(at((2, -160), (2, -22), (74, -22), (46, -76)), (250, 246, 236))
        canvas.polygon(at((2, -60), (2, -46), (64, -46), (56, -60)), (214, 52, 44))
        canvas.polygon(at((-8, -150), (-8, -22), (-58, -22)), (226, 64, 50))
        canvas.polygon(at((0, -172), (20, -166), (0, -160)), (250, 200, 50))
        canvas.polygon(at((-80, -14), (88, -14), (66, 16), (-58, 16)), (120, 40, 34))
        canvas.polygon(at((-80, -14), (88, -14), (84, -7), (-76, -7)), (250, 240, 226))
        for k in range(3):
            canvas.circle(at((-34 + 32 * k, 2))[0], 3.4, (250, 226, 150))
        canvas.ellipse((x - 6, y + 18), (84, 4), (196, 228, 238))


class Lighthouse:
    """Dusk on a cliff; the lamp is lit at ``lit``, and the night comes with it."""

    def __init__(self, lit: float) -> None:
        self._lit = lit
        self._day = gradient(
            [
                (0, (66, 56, 128)),
                (0.32, (206, 92, 120)),
                (0.52, (255, 166, 88)),
                (0.62, (255, 220, 150)),
                (1, (255, 220, 150)),
            ]
        )
        self._clouds = clouds(11, 190, stretch=5, cover=0.4) * np.float32(0.7)
        rng = np.random.default_rng(5)
        self._stars = [
            (float(x), float(y), float(r))
            for x, y, r in zip(
                rng.uniform(0, WIDTH, 90), rng.uniform(0, 180, 90), rng.uniform(0.5, 1.3, 90), strict=True
            )
        ]
        self._rock = [(640.0, 360.0), (640.0, 196.0), (600.0, 190.0), (548.0, 196.0), (470.0, 192.0), (436.0, 204.0)]
        self._rock += [(420.0 - 14 * k + float(rng.uniform(-9, 9)), 214.0 + 20 * k) for k in range(8)]

    def draw(self, t: float) -> Picture:
        canvas = Canvas(self._day)
        canvas.veil(self._clouds, (140, 70, 116), 10, 200 + 5 * t)
        night = smooth(t, self._lit - 1.2, self._lit + 0.4)
        sun = 206 + 5 * t
        if night < 1:
            canvas.glow((150, sun), 170, (255, 150, 60), 1 - night)
            canvas.circle((150, sun), 24, (255, 236, 180))
        _waves(canvas, t, 222, (52, 36, 84), (216, 128, 110), crest=0.16)
        canvas.polygon(self._rock, (58, 46, 60))
        canvas.polygon(
            [(436, 204), (470, 192), (548, 196), (600, 190), (640, 196), (640, 208), (545, 208), (470, 204)],
            (74, 92, 62),
        )
        canvas.polygon([(566, 196), (566, 168), (600, 152), (634, 168), (634, 196)], (206, 196, 186))
        canvas.polygon([(560, 170), (600, 146), (640, 170)], (140, 54, 46))
        for k in range(5):  # the tower, in stripes
            top, low = 64 + 27 * k, 64 + 27 * (k + 1)
            half, wide = 13 + 2.1 * k, 13 + 2.1 * (k + 1)
            canvas.polygon(
                [(510 - half, top), (510 + half, top), (510 + wide, low), (510 - wide, low)],
                (238, 232, 226) if k % 2 else (206, 52, 48),
            )
            canvas.polygon(
                [(510 + half * 0.3, top), (510 + half, top), (510 + wide, low), (510 + wide * 0.3, low)],
                (190, 184, 186) if k % 2 else (156, 34, 38),
            )
        canvas.rectangle(490, 58, 40, 6, (46, 42, 50))
        canvas.rectangle(498, 38, 24, 20, (120, 128, 140))
        canvas.polygon([(494, 38), (510, 22), (526, 38)], (46, 42, 50))
        if night > 0:
            canvas.dim(mix(WHITE, (62, 66, 110), night))
            for x, y, r in self._stars:
                canvas.circle((x, y), r, mix((70, 60, 110), (250, 246, 226), night * (0.7 + 0.3 * math.sin(3 * t + x))))
        if t >= self._lit:
            self._beam(canvas, t - self._lit)
        return canvas.finish()

    def _beam(self, canvas: Canvas, t: float) -> None:
        for side in (0.0, math.pi):
            angle = 1.5 * t + side + 2.4
            reach, lift = 620 * math.cos(angle), 36 * math.sin(angle)
            for wide, alpha in ((1.0, 0.2), (0.62, 0.24), (0.3, 0.3)):
                spread = (26 + 0.13 * abs(reach)) * wide
                with canvas.translucent(alpha * min(1.0, 3 * t + 0.2), 0, 240):
                    canvas.polygon(
                        [(510, 46), (510, 50), (510 + reach, 48 + lift + spread), (510 + reach, 48 + lift - spread)],
                        (255, 244, 190),
                    )
        canvas.glow((510, 48), 90, (255, 236, 160), 1.0)
        canvas.circle((510, 48), 9, (255, 252, 232))
        canvas.rectangle(580, 174, 12, 12, (255, 214, 120))
        canvas.rectangle(606, 174, 12, 12, (255, 214, 120))


class NightSky:
    """Hills by a lake at night: the moon rises, and from ``fireworks`` on there are fireworks."""

    def __init__(self, fireworks: float, ends: float) -> None:
        self._from, self._ends = fireworks, ends
        rng = np.random.default_rng(77)
        canvas = Canvas(gradient([(0, (6, 8, 34)), (0.5, (20, 26, 78)), (0.75, (48, 44, 104)), (1, (30, 30, 76))]))
        for x, y, r in zip(
            rng.uniform(0, WIDTH, 160), rng.uniform(0, 230, 160), rng.uniform(0.4, 1.1, 160), strict=True
        ):
            canvas.circle((float(x), float(y)), float(r), mix((80, 84, 140), (244, 240, 255), float(r)))
        self._sky = canvas.large()
        dusk = [(0.0, (24, 22, 74)), (0.45, (84, 50, 120)), (0.68, (196, 92, 112)), (0.75, (230, 130, 100))]
        self._dusk = gradient([*dusk, (1.0, (60, 40, 90))])
        across = np.linspace(0, WIDTH, 60)
        far = 236 - 26 * np.sin(across / 95 + 1) - 10 * np.sin(across / 31)
        near = 268 - 16 * np.sin(across / 120 + 4) - 6 * np.sin(across / 23 + 2)
        self._far = [*zip(across.tolist(), far.tolist(), strict=True), (WIDTH, 310), (0, 310)]
        self._near = [*zip(across.tolist(), near.tolist(), strict=True), (WIDTH, 320), (0, 320)]
        hues: list[Colour] = [
            (255, 110, 80),
            (255, 214, 90),
            (120, 220, 255),
            (150, 255, 140),
            (255, 130, 220),
            (200, 160, 255),
        ]
        self._bursts: list[tuple[float, Point, Colour, npt.NDArray[np.float64]]] = []
        start, k = fireworks, 0
        while start < ends - 0.5:
            turn, reach = rng.uniform(0, 2 * math.pi, 90), 120 * np.sqrt(rng.uniform(0.25, 1, 90))
            centre = (float(rng.uniform(110, 530)), float(rng.uniform(60, 130)))
            self._bursts.append((start, centre, hues[k % 6], np.stack([reach * np.cos(turn), reach * np.sin(turn)], 1)))
            start, k = start + 0.42, k + 1

    def draw(self, t: float) -> Picture:
        canvas = Canvas(self._sky)
        dusk = 1 - smooth(t, self._from - 1.6, self._from)
        if dusk > 0:
            cv2.addWeighted(self._dusk, dusk, canvas.image, 1 - 0.8 * dusk, 0, dst=canvas.image)
        moon = (170 + 9 * t, 250 - 20 * min(t, 9.0))
        canvas.glow(moon, 150, (150, 150, 190), 0.75)
        canvas.circle(moon, 30, (246, 240, 216))
        for dx, dy, r in ((-9, -8, 7), (10, 4, 5), (-4, 12, 4), (12, -12, 3)):
            canvas.circle((moon[0] + dx, moon[1] + dy), r, (222, 214, 192))
        live = [burst for burst in self._bursts if 0 <= t - burst[0] <= 1.7]
        for start, centre, colour, reach in live:
            self._burst(canvas, t - start, centre, colour, reach)
        canvas.polygon(self._far, (16, 20, 52))
        canvas.polygon(self._near, (9, 11, 30))
        canvas.rectangle(0, 290, WIDTH, 70, (18, 22, 62))
        for k in range(14):  # the lake: streaks of light below the moon and the bursts
            y = 294 + 4.8 * k
            wide = 10 + 2 * k + 6 * math.sin(2.2 * t + k * 1.9)
            canvas.line([(moon[0] - wide, y), (moon[0] + wide, y)], mix((190, 186, 190), (50, 54, 100), k / 14), 0.9)
            for start, centre, colour, _ in live:
                age = (t - start) / 1.7
                half = (30 + 3 * k) * (1 - age)
                sway = centre[0] + 9 * math.sin(3 * t + k * 2.1)
                canvas.line(
                    [(sway - half, y + 2), (sway + half, y + 2)],
                    mix(mix(colour, (18, 22, 62), 0.35), (18, 22, 62), age),
                    1.2,
                )
        return canvas.finish()

    def _burst(self, canvas: Canvas, age: float, centre: Point, colour: Colour, reach: npt.NDArray[np.float64]) -> None:
        if age < 0.25:
            canvas.glow(centre, 190, colour, 0.9 * (1 - age / 0.25) + 0.1)
        canvas.glow(centre, 150, colour, 0.45 * max(0.0, 1 - age / 1.5))
        grown, before = 1 - math.exp(-3.2 * age), 1 - math.exp(-3.2 * max(0.0, age - 0.13))
        fall = np.array([0.0, 42 * age * age])
        heads, tails = np.array(centre) + reach * grown + fall, np.array(centre) + reach * before + fall * 0.8
        fade = min(1.0, max(0.0, 1.7 - age) / 0.7)
        canvas.lines(np.stack([tails, heads], 1), mix((20, 24, 70), colour, fade), 1.1)
        for x, y in heads[::2]:
            canvas.circle((float(x), float(y)), 1.7 * fade, mix((20, 24, 70), mix(colour, WHITE, 0.6), fade))


class Field:
    """A wheat field with a windmill; from ``rain`` on it is under dark clouds, in the rain, with lightning."""

    def __init__(self, rain: float) -> None:
        self._from = rain
        self._sky = gradient(
            [(0, (86, 168, 236)), (0.5, (190, 226, 246)), (0.62, (246, 240, 214)), (1, (240, 226, 150))]
        )
        self._dark = gradient([(0, (46, 50, 62)), (0.45, (88, 94, 104)), (0.62, (120, 124, 126)), (1, (90, 94, 80))])
        self._white = clouds(14, 180, cover=0.45)
        self._grey = clouds(15, 200, cover=0.8)
        rng = np.random.default_rng(4)
        depth = np.sort(rng.random(1300)) ** 0.8
        self._stalks = np.stack(
            [rng.uniform(-10, WIDTH + 10, 1300), 226 + 136 * depth, depth, rng.uniform(0, 6, 1300)], 1
        )
        self._rain = rng.random((300, 3))

    def draw(self, t: float) -> Picture:
        wet = t >= self._from
        canvas = Canvas(self._dark if wet else self._sky)
        canvas.veil(self._grey if wet else self._white, (62, 64, 76) if wet else WHITE, 0, 120 + (30 if wet else 9) * t)
        flash = wet and any(0 <= t - self._from - at < 0.22 for at in (0.7, 1.6, 3.7))
        if flash:
            self._lightning(canvas, t)
        green: Colour = (86, 128, 70) if not wet else (52, 72, 56)
        canvas.polygon([(0, 214), (120, 196), (260, 210), (420, 190), (640, 212), (640, 250), (0, 250)], green)
        canvas.polygon(
            [(0, 226), (200, 216), (420, 224), (640, 214), (640, 360), (0, 360)],
            (214, 170, 66) if not wet else (128, 112, 60),
        )
        self._mill(canvas, t, wet)
        bend = 2.6 if wet else 1.0
        for low, high, tone in ((0.0, 0.3, 0.0), (0.3, 0.6, 0.4), (0.6, 1.01, 1.0)):
            rows = self._stalks[(self._stalks[:, 2] >= low) & (self._stalks[:, 2] < high)]
            sway = bend * (2 + 6 * rows[:, 2]) * (0.6 + np.sin(1.9 * bend * t + rows[:, 0] / 60 + rows[:, 3] * 0.25))
            tops = np.stack([rows[:, 0] + sway, rows[:, 1] - 6 - 26 * rows[:, 2]], 1)
            colour = mix((196, 150, 52), (250, 214, 106), tone) if not wet else mix((104, 92, 50), (162, 142, 78), tone)
            canvas.lines(np.stack([rows[:, :2], tops], 1), colour, 0.5 + 1.0 * tone)
        if wet:
            drops = self._rain
            y = (drops[:, 1] * 420 + t * (620 + 240 * drops[:, 2])) % 420 - 40
            x = (drops[:, 0] * 860 - 0.3 * y) % 860 - 60
            with canvas.translucent(0.42):
                canvas.lines(np.stack([np.stack([x, y], 1), np.stack([x - 8, y + 26], 1)], 1), (206, 214, 226), 0.7)
        return canvas.finish()

    def _lightning(self, canvas: Canvas, t: float) -> None:
        canvas.image = np.asarray(np.minimum(canvas.image.astype(np.uint16) + 20, 255), dtype=np.uint8)
        rng = np.random.default_rng(int((t - self._from) * 2))
        x, points = float(rng.uniform(90, 330)), []
        for k in range(9):
            points.append((x, 25.0 * k))
            x += float(rng.uniform(-24, 24))
        canvas.line(points, (214, 220, 255), 4)
        canvas.line(points, WHITE, 1.6)

    def _mill(self, canvas: Canvas, t: float, wet: bool) -> None:
        shade = 0.5 if wet else 0.0
        canvas.polygon([(440, 226), (452, 120), (500, 120), (512, 226)], mix((240, 232, 220), (60, 64, 76), shade))
        canvas.polygon([(480, 226), (482, 120), (500, 120), (512, 226)], mix((206, 196, 186), (50, 54, 66), shade))
        canvas.polygon([(446, 122), (476, 92), (506, 122)], mix((150, 66, 50), (50, 40, 46), shade))
        canvas.rounded(468, 196, 18, 32, 8, mix((110, 70, 46), (40, 36, 40), shade))
        turn = (2.6 if wet else 0.9) * t
        for k in range(4):
            cos, sin = math.cos(turn + k * math.pi / 2), math.sin(turn + k * math.pi / 2)

            def at(*points: Point, c: float = cos, s: float = sin) -> list[Point]:
                return [(474 + a * c - b * s, 122 + a * s + b * c) for a, b in points]

            canvas.polygon(at((18, 2), (92, 2), (92, 20), (18, 15)), mix((252, 246, 230), (96, 100, 110), shade))
            for rib in range(18, 93, 15):
                canvas.line(at((rib, 1), (rib, 18)), mix((150, 120, 90), (60, 60, 66), shade), 0.8)
            canvas.line(at((0, 0), (94, 0)), mix((96, 66, 44), (40, 36, 40), shade), 2)
        canvas.circle((474, 122), 5, (70, 50, 40))
