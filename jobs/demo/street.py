"""The street, by day and in a rainy night."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from jobs.demo.brush import WHITE, WIDTH, Canvas, Colour, Point, clouds, gradient, mix

__all__ = ["Street"]

Picture = npt.NDArray[np.uint8]


class Street:
    """A street where cars pass. By day a red bus passes from ``bus[0]`` to ``bus[1]``; at ``night`` it rains."""

    def __init__(self, *, night: bool = False, bus: tuple[float, float] = (-2.0, -1.0)) -> None:
        self._night, self._bus = night, bus
        rng = np.random.default_rng(21)
        stops = [(0.0, (236, 176, 104)), (0.6, (252, 226, 176)), (1.0, (250, 236, 206))]
        if night:
            stops = [(0.0, (90, 120, 190)), (1.0, (200, 190, 200))]
        canvas = Canvas(gradient(stops))
        canvas.veil(clouds(8, 140, cover=0.4), WHITE, 0, 90)
        facades: list[Colour] = [(226, 146, 84), (238, 196, 116), (196, 120, 74), (214, 106, 72), (240, 182, 130)]
        facades += [(206, 150, 96), (232, 206, 150)]
        self._windows: list[tuple[float, float, bool]] = []
        left = -20.0
        for k, colour in enumerate(facades):
            wide, top = float(rng.uniform(88, 118)), float(rng.uniform(34, 100))
            canvas.rectangle(left, top, wide, 240 - top, colour)
            canvas.rectangle(left + wide - 5, top, 5, 240 - top, mix(colour, (0, 0, 0), 0.16))
            canvas.rectangle(left - 3, top - 7, wide + 6, 8, mix(colour, (60, 40, 40), 0.45))
            rows, columns = int((196 - top) // 42), 3 if wide > 100 else 2
            for row in range(rows):
                for column in range(columns):
                    x, y = (
                        left + (wide - 26 * columns) / (columns + 1) * (column + 1) + 26 * column,
                        top + 16 + row * 42,
                    )
                    canvas.rectangle(x - 2, y - 2, 30, 34, mix(colour, WHITE, 0.5))
                    canvas.rectangle(x, y, 26, 30, (88, 116, 140))
                    canvas.polygon([(x, y + 17), (x, y + 5), (x + 6, y), (x + 19, y)], (150, 184, 206))
                    canvas.line([(x + 13, y), (x + 13, y + 30)], mix(colour, WHITE, 0.5), 1)
                    self._windows.append((x, y, bool(rng.random() < 0.55)))
            canvas.rectangle(left + wide * 0.3, 204, wide * 0.4, 34, mix(colour, (40, 30, 30), 0.6))
            canvas.polygon(
                [(left + 4, 196), (left + wide - 8, 196), (left + wide - 2, 208), (left - 2, 208)],
                (facades[(k + 3) % 7]),
            )
            left += wide
        canvas.rectangle(0, 236, WIDTH, 22, (186, 180, 172))
        canvas.rectangle(0, 256, WIDTH, 4, (130, 126, 122))
        canvas.rectangle(0, 260, WIDTH, 84, (84, 86, 92))
        canvas.rectangle(0, 342, WIDTH, 18, (170, 166, 160))
        for k in range(9):
            canvas.rectangle(10 + 76 * k, 300, 42, 4, (232, 226, 206))
        for x in (90.0, 330.0, 560.0):  # trees
            canvas.rectangle(x - 4, 176, 8, 66, (98, 72, 50))
            for dx, dy, r in ((0, 0, 30), (-20, 14, 22), (20, 12, 23), (4, -20, 22), (-8, 10, 24)):
                canvas.circle((x + dx, 158 + dy), r, mix((56, 122, 62), (116, 176, 84), (dx - dy + 40) / 90))
        if night:
            canvas.dim((52, 58, 98))
            for x, y, lit in self._windows:
                if lit:
                    canvas.rectangle(x, y, 26, 30, (255, 206, 116))
                    canvas.line([(x + 13, y), (x + 13, y + 30)], (150, 110, 70), 1)
            for x in (40.0, 220.0, 440.0, 610.0):
                canvas.rectangle(x - 2, 150, 4, 96, (34, 34, 44))
                canvas.ellipse((x, 148), (10, 5), (255, 240, 190))
                canvas.glow((x, 148), 92, (255, 190, 90), 0.8)
                canvas.glow((x, 330), 60, (150, 110, 60), 0.5)
        self._still = canvas.large()
        self._rain = rng.random((170, 3))

    def draw(self, t: float) -> Picture:
        canvas = Canvas(self._still)
        shown: list[tuple[float, float, float, Colour]] = [  # speed, offset, lane, colour
            (118, 40, 292, (54, 104, 190)),
            (118, 420, 292, (240, 190, 60)),
            (-150, 200, 334, (60, 150, 116)),
            (-150, 560, 334, (226, 230, 234)),
        ]
        share = (t - self._bus[0]) / (self._bus[1] - self._bus[0])
        for speed, offset, lane, colour in shown[:2]:
            if not -0.2 <= share <= 1.2:  # the bus has the far lane to itself
                self._car(canvas, (offset + speed * t) % 860 - 110, lane, colour, speed > 0)
        if 0 <= share <= 1:
            self._omnibus(canvas, -170 + (WIDTH + 340) * share)
        for speed, offset, lane, colour in shown[2:]:
            self._car(canvas, (offset + speed * t) % 860 - 110, lane, colour, speed > 0)
        if self._night:
            self._raining(canvas, t)
        return canvas.finish()

    def _raining(self, canvas: Canvas, t: float) -> None:
        drops = self._rain
        y = (drops[:, 1] * 420 + t * (560 + 240 * drops[:, 2])) % 420 - 40
        x = (drops[:, 0] * 760 - 0.16 * y) % 760 - 60
        ends = np.stack([np.stack([x, y], 1), np.stack([x - 3.4, y + 21], 1)], 1)
        with canvas.translucent(0.4):
            canvas.lines(ends, (186, 200, 226), 0.7)
        for k in range(14):  # rings where drops fall on the road
            age = (t * 2.2 + k * 0.37) % 1
            where = (k * 197 + math.floor(t * 2.2 + k * 0.37) * 131) % WIDTH
            with_x, with_y = float(where), 266 + (k * 53) % 78
            ring = np.linspace(0, 2 * math.pi, 14)
            points = np.stack([with_x + 10 * age * np.cos(ring), with_y + 3 * age * np.sin(ring)], 1)
            canvas.line(points, mix((150, 160, 190), (60, 62, 80), age), 0.5)

    def _car(self, canvas: Canvas, x: float, y: float, colour: Colour, right: bool) -> None:
        way = 1 if right else -1
        dark = mix(colour, (10, 10, 20), 0.62 if self._night else 0.0)

        def at(*points: Point) -> list[Point]:
            return [(x + px * way, y + py) for px, py in points]

        with canvas.translucent(0.35, y - 6, y + 12):
            canvas.ellipse((x, y + 3), (62, 5), (16, 16, 22))
        canvas.polygon(
            at((-58, -4), (-60, -22), (-50, -28), (-34, -30), (-18, -48), (18, -48), (36, -29), (56, -24), (60, -4)),
            dark,
        )
        glass = (150, 190, 214) if not self._night else (60, 76, 106)
        canvas.polygon(at((-28, -30), (-15, -44), (-2, -44), (-2, -30)), glass)
        canvas.polygon(at((2, -30), (2, -44), (15, -44), (28, -30)), glass)
        canvas.line(at((-58, -16), (58, -16)), mix(dark, WHITE, 0.25), 1)
        for wheel in (-36, 36):
            canvas.circle((x + wheel, y - 4), 11, (26, 26, 30))
            canvas.circle((x + wheel, y - 4), 5, (170, 172, 178))
        lamp, tail = at((57, -19))[0], at((-58, -19))[0]
        canvas.circle(tail, 3, (226, 40, 34))
        canvas.circle(lamp, 3, (255, 246, 206))
        if self._night:
            for reach, wide in ((250.0, 1.0), (190.0, 0.7), (130.0, 0.4)):  # the light of the lamps, fading
                with canvas.translucent(0.13, y - 60, y + 40):
                    canvas.polygon(
                        at((58, -21), (reach, -19 - 25 * wide), (reach, -19 + 34 * wide), (58, -16)), (255, 240, 180)
                    )
            canvas.glow(lamp, 46, (255, 236, 170), 1.0)
            canvas.glow(tail, 26, (255, 40, 30), 0.9)

    def _omnibus(self, canvas: Canvas, x: float) -> None:
        with canvas.translucent(0.35, 280, 310):
            canvas.ellipse((x, 296), (150, 7), (16, 16, 22))
        canvas.rounded(x - 140, 146, 280, 144, 12, (206, 30, 38))
        canvas.rectangle(x - 140, 210, 280, 7, (250, 236, 206))
        for deck, glass in ((162, (176, 212, 232)), (222, (150, 192, 216))):
            for k in range(6):
                canvas.rounded(x - 128 + 43.5 * k, deck, 37, 34, 4, glass)
                canvas.polygon(
                    [
                        (x - 126 + 43.5 * k, deck + 24),
                        (x - 126 + 43.5 * k, deck + 8),
                        (x - 114 + 43.5 * k, deck + 2),
                        (x - 104 + 43.5 * k, deck + 2),
                    ],
                    mix(glass, WHITE, 0.5),
                )
        canvas.rectangle(x - 60, 268, 120, 12, (250, 206, 60))
        for wheel in (-88, 84):
            canvas.circle((x + wheel, 286), 18, (26, 26, 30))
            canvas.circle((x + wheel, 286), 8, (176, 178, 184))
        canvas.circle((x + 134, 276), 4, (255, 246, 206))
