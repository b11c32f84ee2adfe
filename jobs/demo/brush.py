"""A canvas for drawn scenes: everything is drawn at twice the size and scaled down, so that edges are smooth and slow
motion moves by less than a pixel.

Coordinates are in pixels of the finished picture (640 x 360), floats, y down. Colours are RGB from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["HEIGHT", "WIDTH", "Canvas", "Colour", "Point", "clouds", "gradient", "mix", "smooth"]

WIDTH, HEIGHT = 640, 360
_SCALE = 2
_SHIFT = 4  # bits after the point in OpenCV's coordinates

Colour = tuple[float, float, float]
Point = tuple[float, float]
Picture = npt.NDArray[np.uint8]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour ``share`` (0 to 1) of the way from ``a`` to ``b``."""
    s = min(max(share, 0.0), 1.0)
    return (a[0] + (b[0] - a[0]) * s, a[1] + (b[1] - a[1]) * s, a[2] + (b[2] - a[2]) * s)


def smooth(t: float, start: float, end: float) -> float:
    """0 before ``start``, 1 after ``end``, an easy curve between."""
    x = min(max((t - start) / (end - start), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def gradient(stops: Sequence[tuple[float, Colour]], height: int = HEIGHT) -> Picture:
    """A large picture ``[2 height, 2 WIDTH, 3]`` that runs through the stops (y from 0 to 1, colour) from top to bottom."""
    rows = height * _SCALE
    y = np.linspace(0, 1, rows)
    places = [place for place, _ in stops]
    column = np.stack([np.interp(y, places, [colour[c] for _, colour in stops]) for c in range(3)], axis=1)
    full = np.repeat(column[:, None, :], WIDTH * _SCALE, axis=1).astype(np.float32)
    # A grain of one grey level, so that slow gradients show no steps.
    grain = np.random.default_rng(rows).uniform(-0.8, 0.8, (rows, WIDTH * _SCALE, 1)).astype(np.float32)
    return np.asarray(np.clip(full + grain, 0, 255), dtype=np.uint8)


def clouds(seed: int, height: int, stretch: float = 2.5, cover: float = 0.5) -> npt.NDArray[np.float32]:
    """Soft random shapes ``[2 height, 4 WIDTH]`` from 0 to 1 that join at their left and right edge."""
    rng = np.random.default_rng(seed)
    rows, columns = height * _SCALE, 2 * WIDTH * _SCALE
    total = np.zeros((rows, columns), np.float32)
    for octave in range(5):
        cells = 4 * 2**octave
        grid = rng.random((max(2, int(cells * stretch * height / WIDTH) + 2), cells), dtype=np.float32)
        wide = np.concatenate([grid[:, -2:], grid, grid[:, :2]], axis=1)  # so that the edges join
        margin = columns * 2 // cells
        large = cv2.resize(wide, (columns + 2 * margin, rows), interpolation=cv2.INTER_CUBIC)
        total += large[:, margin : margin + columns] * np.float32(0.5**octave)
    total = (total - total.min()) / (total.max() - total.min())
    return np.asarray(np.clip((total - (1 - cover)) / 0.35, 0, 1), dtype=np.float32)


class Canvas:
    """One picture in work; ``background`` is a large picture from :func:`gradient` or :meth:`large`, copied."""

    def __init__(self, background: Picture) -> None:
        self.image: Picture = background.copy()

    def large(self) -> Picture:
        """The picture at the size it is drawn in, to be the background of others."""
        return self.image.copy()

    def finish(self) -> Picture:
        """The finished picture ``[HEIGHT, WIDTH, 3]``."""
        return np.asarray(cv2.resize(self.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    # -- shapes ------------------------------------------------------------------------------------------------------

    def polygon(self, points: Sequence[Point] | npt.NDArray[Any], colour: Colour) -> None:
        fixed = np.round(np.asarray(points, dtype=np.float64) * _SCALE * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, _SHIFT)

    def rectangle(self, left: float, top: float, width: float, height: float, colour: Colour) -> None:
        self.polygon([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], colour)

    def rounded(self, left: float, top: float, width: float, height: float, radius: float, colour: Colour) -> None:
        """A rectangle with round corners."""
        turn = np.linspace(0, np.pi / 2, 7)
        r = min(radius, width / 2, height / 2)
        corners = [
            (left + width - r, top + height - r, 0.0),
            (left + r, top + height - r, 0.5),
            (left + r, top + r, 1.0),
            (left + width - r, top + r, 1.5),
        ]
        points = [(x + r * np.cos(a + k * np.pi), y + r * np.sin(a + k * np.pi)) for x, y, k in corners for a in turn]
        self.polygon(points, colour)

    def circle(self, centre: Point, radius: float, colour: Colour) -> None:
        self.ellipse(centre, (radius, radius), colour)

    def ellipse(self, centre: Point, radii: Point, colour: Colour, angle: float = 0.0) -> None:
        """A filled ellipse, turned by ``angle`` degrees."""
        scale = _SCALE * 2**_SHIFT
        middle = (round(centre[0] * scale), round(centre[1] * scale))
        axes = (max(0, round(radii[0] * scale)), max(0, round(radii[1] * scale)))
        cv2.ellipse(self.image, middle, axes, angle, 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)

    def line(self, points: Sequence[Point] | npt.NDArray[Any], colour: Colour, width: float = 1.0) -> None:
        fixed = np.round(np.asarray(points, dtype=np.float64) * _SCALE * 2**_SHIFT).astype(np.int32)
        thick = max(1, round(width * _SCALE))
        cv2.polylines(self.image, [fixed], False, colour, thick, cv2.LINE_AA, _SHIFT)

    def lines(self, ends: npt.NDArray[Any], colour: Colour, width: float = 1.0) -> None:
        """Many lines ``[N, 2, 2]``: both ends of each."""
        fixed = np.round(ends * _SCALE * 2**_SHIFT).astype(np.int32)
        cv2.polylines(self.image, list(fixed), False, colour, max(1, round(width * _SCALE)), cv2.LINE_AA, _SHIFT)

    # -- light -------------------------------------------------------------------------------------------------------

    @contextmanager
    def translucent(self, alpha: float) -> Iterator[None]:
        """What is drawn inside covers only to ``alpha`` (0 to 1)."""
        before = self.image.copy()
        yield
        self.image = np.asarray(cv2.addWeighted(self.image, alpha, before, 1 - alpha, 0), dtype=np.uint8)

    def glow(self, centre: Point, radius: float, colour: Colour, strength: float = 1.0) -> None:
        """Light that falls off from ``centre`` to nothing at ``radius``, added."""
        cx, cy, r = centre[0] * _SCALE, centre[1] * _SCALE, radius * _SCALE
        height, width = self.image.shape[:2]
        left, right = max(0, int(cx - r)), min(width, int(cx + r) + 1)
        top, bottom = max(0, int(cy - r)), min(height, int(cy + r) + 1)
        if left >= right or top >= bottom:
            return
        y, x = np.ogrid[top:bottom, left:right]
        fall = np.clip(1 - np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / r, 0, 1).astype(np.float32) ** 2 * strength
        light = fall[..., None] * np.asarray(colour, np.float32)
        area = self.image[top:bottom, left:right]
        self.image[top:bottom, left:right] = cv2.add(area, np.clip(light, 0, 255).astype(np.uint8))

    def dim(self, tint: Colour, top: float = 0.0) -> None:
        """Multiply everything below ``top`` by a colour: (255, 255, 255) changes nothing."""
        rows = self.image[int(top * _SCALE) :]
        table = (np.arange(256)[:, None] * np.asarray(tint) / 255).clip(0, 255).astype(np.uint8)
        rows[:] = cv2.LUT(rows, table[:, None, :])

    def veil(self, alpha: npt.NDArray[np.float32], colour: Colour, top: float = 0.0, shift: float = 0.0) -> None:
        """Lay a colour over the rows from ``top`` on, as much as ``alpha`` (from :func:`clouds`) says, moved by ``shift``."""
        first, rows = round(top * _SCALE), alpha.shape[0]
        start = round(shift * _SCALE) % alpha.shape[1]
        columns = np.arange(start, start + WIDTH * _SCALE) % alpha.shape[1]
        area = self.image[first : first + rows].astype(np.float32)
        share = alpha[:, columns, None][: area.shape[0]]
        area += (np.asarray(colour, np.float32) - area) * share
        self.image[first : first + rows] = area.astype(np.uint8)
