"""The scenes inside: a playroom, an aquarium, a clock."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from jobs.demo.brush import HEIGHT, WHITE, WIDTH, Canvas, Colour, Point, clouds, gradient, mix

__all__ = ["Aquarium", "Clock", "Playroom"]

Picture = npt.NDArray[np.uint8]


class Playroom:
    """Balls bounce in a room; the light is out from ``dark[0]`` to ``dark[1]``."""

    def __init__(self, dark: tuple[float, float]) -> None:
        self._dark = dark
        canvas = Canvas(gradient([(0, (196, 160, 226)), (0.7, (178, 140, 212)), (1, (178, 140, 212))]))
        for k in range(20):
            canvas.rectangle(32 * k, 0, 15, 246, (186, 148, 218))
        canvas.rectangle(0, 238, WIDTH, 10, (250, 244, 234))
        canvas.rectangle(0, 248, WIDTH, 112, (132, 88, 106))
        for k in range(-8, 20):  # floor boards
            canvas.line([(320 + (k - 6) * 46, 248), (320 + (k - 6) * 120, 360)], (108, 68, 86), 1)
        canvas.rectangle(52, 40, 150, 122, (250, 246, 238))
        canvas.rectangle(60, 48, 134, 106, (150, 208, 244))
        canvas.ellipse((110, 96), (26, 11), WHITE)
        canvas.ellipse((132, 90), (22, 12), WHITE)
        canvas.polygon([(60, 154), (60, 132), (104, 116), (150, 136), (194, 122), (194, 154)], (116, 178, 96))
        canvas.rectangle(124, 48, 6, 106, (250, 246, 238))
        canvas.rectangle(60, 98, 134, 5, (250, 246, 238))
        canvas.polygon([(34, 28), (66, 28), (50, 172), (34, 176)], (206, 70, 76))
        canvas.polygon([(220, 28), (188, 28), (204, 172), (220, 176)], (206, 70, 76))
        canvas.rectangle(26, 24, 204, 6, (120, 80, 50))
        canvas.rectangle(452, 104, 156, 8, (140, 92, 58))  # a shelf
        books: list[Colour] = [
            (200, 70, 60),
            (66, 120, 160),
            (240, 190, 70),
            (90, 150, 100),
            (150, 90, 150),
            (230, 130, 70),
        ]
        for k in range(10):
            canvas.rectangle(460 + 11 * k, 62 + (k * 7) % 12, 9, 42 - (k * 7) % 12, books[k % 6])
        canvas.circle((590, 90), 14, (226, 160, 70))
        canvas.ellipse((330, 318), (190, 30), (96, 140, 170))
        canvas.ellipse((330, 318), (160, 24), (222, 228, 224))
        canvas.ellipse((330, 318), (128, 18), (96, 140, 170))
        canvas.rectangle(319, 0, 2, 30, (70, 60, 54))
        self._room = canvas.large()

    def draw(self, t: float) -> Picture:
        canvas = Canvas(self._room)
        dark = self._dark[0] <= t < self._dark[1]
        if not dark:
            canvas.glow((320, 56), 250, (84, 66, 30), 0.8)
        balls: list[tuple[float, float, float, float, Colour]] = [  # x speed, x offset, bounce, radius, colour
            (120, 30, 1.05, 25, (226, 58, 56)),
            (-94, 300, 1.3, 32, (50, 120, 216)),
            (76, 470, 0.9, 19, (250, 200, 50)),
            (-140, 120, 1.15, 22, (80, 176, 90)),
        ]
        for k, (speed, offset, bounce, radius, colour) in enumerate(balls):
            track = (offset + speed * t) % (2 * (WIDTH - 2 * radius))
            x = radius + min(track, 2 * (WIDTH - 2 * radius) - track)
            phase = (t / bounce + k * 0.3) % 1
            height = (150 + 20 * k) * 4 * phase * (1 - phase)
            ground = 306 + 12 * k
            squash = max(0.0, 1 - height / 12) * 0.18
            with canvas.translucent(0.3, ground - 12, ground + 14):
                canvas.ellipse((x, ground + 2), (radius * (1.15 - height / 500), radius * 0.24), (60, 36, 20))
            self._ball(canvas, (x, ground - radius - height + radius * squash), radius, squash, colour, t * speed / 30)
        if dark:
            canvas.dim((34, 84, 62))
            for k in range(34):  # stars that glow in the dark, stuck on wall and ceiling
                star = (240 + (k * 83) % 390, 14 + (k * 47) % 200)
                canvas.glow(star, 14, (120, 255, 150), 0.6)
                self._star(canvas, star, 3.5 + k % 3, (190, 255, 186))
            canvas.glow((127, 100), 120, (70, 150, 110), 0.7)
        else:
            canvas.glow((320, 58), 70, (255, 240, 180), 0.9)
        canvas.polygon([(284, 56), (304, 28), (336, 28), (356, 56)], (50, 60, 90) if dark else (240, 120, 80))
        canvas.ellipse((320, 57), (30, 6), (60, 66, 90) if dark else (255, 250, 224))
        return canvas.finish()

    def _ball(self, canvas: Canvas, at: Point, radius: float, squash: float, colour: Colour, turn: float) -> None:
        wide, high = radius * (1 + squash), radius * (1 - squash)
        canvas.ellipse(at, (wide, high), mix(colour, (0, 0, 0), 0.22))
        canvas.ellipse((at[0] - radius * 0.08, at[1] - radius * 0.1), (wide * 0.9, high * 0.88), colour)
        band = np.linspace(-1, 1, 9)
        cos, sin = math.cos(turn), math.sin(turn)
        points = [
            (
                at[0] + wide * 0.9 * (b * cos - 0.25 * (1 - b * b) * sin),
                at[1] + high * 0.9 * (b * sin + 0.25 * (1 - b * b) * cos),
            )
            for b in band
        ]
        canvas.line(points, WHITE, radius * 0.16)
        canvas.ellipse(
            (at[0] - radius * 0.36, at[1] - radius * 0.42), (radius * 0.2, radius * 0.13), mix(colour, WHITE, 0.8), -30
        )

    def _star(self, canvas: Canvas, at: Point, radius: float, colour: Colour) -> None:
        turns = np.arange(10) * math.pi / 5 - math.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, radius, radius * 0.42)
        canvas.polygon(np.stack([at[0] + reach * np.cos(turns), at[1] + reach * np.sin(turns)], 1), colour)


class Aquarium:
    """Fish over a reef; a shark passes from ``shark[0]`` to ``shark[1]``."""

    def __init__(self, shark: tuple[float, float]) -> None:
        self._shark = shark
        canvas = Canvas(gradient([(0, (96, 226, 176)), (0.4, (22, 160, 136)), (0.85, (6, 96, 96)), (1, (8, 82, 84))]))
        sand = [(float(x), 322 + 8 * math.sin(x / 70) + 4 * math.sin(x / 23)) for x in range(0, WIDTH + 20, 20)]
        canvas.polygon([*sand, (WIDTH, HEIGHT), (0, HEIGHT)], (214, 190, 136))
        rng = np.random.default_rng(9)
        for x, y in zip(rng.uniform(0, WIDTH, 260), rng.uniform(328, 358, 260), strict=True):
            canvas.circle((float(x), float(y)), 0.9, (186, 158, 108))
        corals: list[tuple[float, Colour]] = [(70, (240, 96, 110)), (470, (250, 150, 70)), (585, (190, 96, 190))]
        for x, colour in corals:  # branches that fork
            self._branch(canvas, (x, 332), -math.pi / 2, 34, 6, colour)
        for x, y, r in ((150, 334, 26), (182, 340, 18), (420, 338, 24), (540, 340, 17)):
            canvas.ellipse((x, y), (r, r * 0.7), (86, 92, 104))
            canvas.ellipse((x - r * 0.2, y - r * 0.2), (r * 0.6, r * 0.34), (116, 122, 132))
        self._water = canvas.large()
        self._light = clouds(31, 360, stretch=0.5, cover=0.45) * np.linspace(0.5, 0.0, 720, dtype=np.float32)[:, None]

    def _branch(self, canvas: Canvas, start: Point, angle: float, length: float, width: float, colour: Colour) -> None:
        end = (start[0] + length * math.cos(angle), start[1] + length * math.sin(angle))
        canvas.line([start, end], colour, width)
        if length < 9:
            canvas.circle(end, width * 0.8, mix(colour, WHITE, 0.35))
            return
        for turn in (-0.5, 0.08, 0.55):
            self._branch(canvas, end, angle + turn, length * 0.68, width * 0.68, colour)

    def draw(self, t: float) -> Picture:
        canvas = Canvas(self._water)
        canvas.veil(self._light, (200, 250, 220), 0, 30 * t)
        for k in range(7):  # sea grass
            base = 215 + 30 * k + 5 * (k % 3)
            up = np.linspace(0, 1, 9)
            sway = 22 * up**1.6 * np.sin(1.3 * t + k + 2.2 * up)
            stem = np.stack([base + sway, 336 - (84 + 14 * (k % 4)) * up], 1)
            canvas.line(stem, mix((26, 120, 70), (86, 180, 90), k / 7), 4.2 - 0.3 * (k % 3))
        share = (t - self._shark[0]) / (self._shark[1] - self._shark[0])
        scared = 0 <= share <= 1
        hues: list[Colour] = [(255, 140, 40), (255, 214, 60), (240, 80, 120), (250, 250, 250), (120, 226, 120)]
        for k in range(15):
            speed = (34 + 9 * (k % 5)) * (1 if k % 2 else -1)
            x = (k * 97 + speed * t) % (WIDTH + 90) - 45
            y = 50 + (k * 59) % 240 + 9 * math.sin(1.4 * t + k)
            if scared:  # they hide near the ground
                y = max(y, 286 + (k * 7) % 30)
            self._fish(canvas, (x, y), 11 + 3 * (k % 4), hues[k % 5], speed > 0, t * 9 + k)
        if scared:
            self._big(canvas, -190 + (WIDTH + 380) * share, 158 + 16 * math.sin(1.2 * t), t)
        for k in range(20):
            y = 340 - (t * (44 + 5 * (k % 4)) + k * 61) % 360
            x = 300 + 150 * (k % 3 - 1) + 7 * math.sin(3 * t + k) + k
            canvas.circle((x, y), 1.6 + k % 3, (206, 246, 250))
            canvas.circle((x + 0.5, y + 0.5), 1.0 + 0.7 * (k % 3), (96, 210, 180))
        return canvas.finish()

    def _fish(self, canvas: Canvas, at: Point, size: float, colour: Colour, right: bool, wag: float) -> None:
        way, tail = 1 if right else -1, 0.3 * math.sin(wag)

        def place(*points: Point) -> list[Point]:
            return [(at[0] + px * size * way, at[1] + py * size) for px, py in points]

        canvas.polygon(
            place((-0.8, 0), (-1.7, -0.6 + tail), (-1.45, tail), (-1.7, 0.6 + tail)), mix(colour, (120, 40, 20), 0.25)
        )
        canvas.polygon(place((-0.3, -0.4), (0.1, -1.0), (0.5, -0.4)), mix(colour, (120, 40, 20), 0.3))
        canvas.ellipse(at, (size * 1.1, size * 0.62), colour)
        canvas.polygon(place((0.1, -0.6), (0.32, -0.57), (0.32, 0.57), (0.1, 0.6)), mix(colour, WHITE, 0.75))
        canvas.circle(place((0.66, -0.12))[0], size * 0.15, WHITE)
        canvas.circle(place((0.7, -0.12))[0], size * 0.08, (20, 20, 30))

    def _big(self, canvas: Canvas, x: float, y: float, t: float) -> None:
        wag = 14 * math.sin(4 * t)

        def at(*points: Point) -> list[Point]:
            return [(x + px, y + py) for px, py in points]

        grey, pale = (92, 108, 124), (196, 208, 214)
        canvas.polygon(at((-130, 0), (-186, -54 + wag), (-168, wag), (-182, 36 + wag)), grey)
        back = np.linspace(0, 1, 16)
        upper = [(-140 + 310 * float(b), -52 * math.sin(math.pi * float(b) ** 0.8)) for b in back]
        lower = [(-140 + 310 * float(b), 40 * math.sin(math.pi * float(b) ** 0.75)) for b in back[::-1]]
        canvas.polygon(at(*upper, *lower), grey)
        canvas.polygon(at(*[(px, py * 0.25 + 6) for px, py in upper[4:]], *lower[:12]), pale)
        canvas.polygon(at((-6, -46), (-20, -104), (44, -44)), grey)
        canvas.polygon(at((20, 20), (-24, 80), (60, 28)), mix(grey, (0, 0, 0), 0.15))
        canvas.circle(at((122, -12))[0], 5, (16, 18, 26))
        canvas.line(at((104, 18), (130, 15), (150, 6)), (60, 66, 80), 2)
        for k in range(4):
            canvas.line(at((66 - 9 * k, -12), (62 - 9 * k, 2), (66 - 9 * k, 14)), (66, 80, 96), 1.6)


class Clock:
    """A station clock on a brick wall: it stands at ten to two, and from ``runs`` on its hands race."""

    def __init__(self, runs: float) -> None:
        self._runs = runs
        rng = np.random.default_rng(2)
        canvas = Canvas(gradient([(0, (120, 62, 48)), (1, (96, 48, 40))]))
        for row in range(19):
            for column in range(-1, 14):
                shade = float(rng.uniform(-0.18, 0.18))
                colour = mix((164, 84, 62), WHITE if shade > 0 else (60, 20, 20), abs(shade))
                canvas.rectangle(column * 50 + (25 if row % 2 else 0), row * 19.5, 47, 17, colour)
        with canvas.translucent(0.4):
            canvas.circle((326, 188), 118, (30, 14, 12))
        canvas.circle((320, 180), 118, (36, 40, 46))
        canvas.circle((320, 180), 110, (200, 204, 206))
        canvas.circle((320, 180), 105, (250, 248, 240))
        for k in range(60):
            turn = k * math.pi / 30
            inner, width = (82, 5.0) if k % 5 == 0 else (92, 1.6)
            ends = [(320 + r * math.sin(turn), 180 - r * math.cos(turn)) for r in (inner, 98)]
            canvas.line(ends, (24, 26, 32), width)
        self._face = canvas.large()

    def draw(self, t: float) -> Picture:
        canvas = Canvas(self._face)
        minutes = 110 + max(0.0, t - self._runs) * 75
        self._hand(canvas, minutes / 720 * 2 * math.pi, 56, 5.5, (24, 26, 32))
        self._hand(canvas, minutes / 60 * 2 * math.pi, 86, 4, (24, 26, 32))
        seconds = math.floor(t * 2) / 2 + 20  # it ticks twice a second
        turn = seconds / 60 * 2 * math.pi * 2
        self._hand(canvas, turn, 76, 1.4, (206, 34, 34))
        canvas.circle((320 + 76 * math.sin(turn), 180 - 76 * math.cos(turn)), 8, (206, 34, 34))
        canvas.circle((320, 180), 6, (206, 34, 34))
        return canvas.finish()

    def _hand(self, canvas: Canvas, turn: float, length: float, half: float, colour: Colour) -> None:
        cos, sin = math.cos(turn), math.sin(turn)
        points = [(-half, 18.0), (-half * 0.7, -length), (half * 0.7, -length), (half, 18.0)]
        canvas.polygon([(320 + px * cos - py * sin, 180 + px * sin + py * cos) for px, py in points], colour)
