"""A canvas for drawn scenes: everything is drawn at twice the size and scaled down, so that edges are smooth and slow
motion moves by less than a pixel.

Coordinates are in pixels of the finished picture (640 x 360), floats, y down. Colours are RGB from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["HEIGHT", "WHITE", "WIDTH", "Canvas", "Colour", "Point", "clouds", "gradient", "mix", "smooth"]

WIDTH, HEIGHT = 640, 360
_SCALE = 2
_SHIFT = 4  # bits after the point in OpenCV's coordinates

Colour = tuple[float, float, float]
Point = tuple[float, float]
Picture = npt.NDArray[np.uint8]

WHITE: Colour = (255, 255, 255)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour ``share`` (0 to 1) of the way from ``a`` to ``b``."""
    s = min(max(share, 0.0), 1.0)
    return (a[0] + (b[0] - a[0]) * s, a[1] + (b[1] - a[1]) * s, a[2] + (b[2] - a[2]) * s)


def smooth(t: float, start: float, end: float) -> float:
    """0 before ``start``, 1 after ``end``, an easy curve between."""
    x = min(max((t - start) / (end - start), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def gradient(stops: Sequence[tuple[float, Colour]], height: int = HEIGHT) -> Picture:
    """A large picture ``[2 height, 2 WIDTH, 3]`` that runs through the stops (y from 0 to 1, colour), downwards."""
    rows = height * _SCALE
    y = np.linspace(0, 1, rows)
    places = [place for place, _ in stops]
    column = np.stack([np.interp(y, places, [colour[c] for _, colour in stops]) for c in range(3)], axis=1)
    full = np.repeat(column[:, None, :], WIDTH * _SCALE, axis=1).astype(np.float32)
    # A grain of one grey level, so that slow gradients show no steps.
    grain = np.random.default_rng(rows).uniform(-0.8, 0.8, (rows, WIDTH * _SCALE, 1)).astype(np.float32)
    return np.asarray(np.clip(full + grain, 0, 255), dtype=np.uint8)


def clouds(seed: int, height: int, stretch: float = 2.5, cover: float = 0.5) -> npt.NDArray[np.float32]:
    """Soft random shapes from 0 to 1, for :meth:`Canvas.veil`: ``[2 height, 6 WIDTH]``, the last third as the first."""
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
    shapes = np.clip((total - (1 - cover)) / 0.35, 0, 1).astype(np.float32)
    return np.concatenate([shapes, shapes[:, : WIDTH * _SCALE]], axis=1)


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
    def translucent(self, alpha: float, top: float = 0, bottom: float = HEIGHT) -> Iterator[None]:
        """What is drawn inside, all of it between ``top`` and ``bottom``, covers only to ``alpha`` (0 to 1)."""
        rows = slice(max(0, int(top * _SCALE)), max(0, int(bottom * _SCALE)))
        before = self.image[rows].copy()
        yield
        cv2.addWeighted(self.image[rows], alpha, before, 1 - alpha, 0, dst=self.image[rows])

    def glow(self, centre: Point, radius: float, colour: Colour, strength: float = 1.0) -> None:
        """Light that falls off from ``centre`` to nothing at ``radius``, added."""
        r = max(1, round(radius * _SCALE))
        left, top = round(centre[0] * _SCALE) - r, round(centre[1] * _SCALE) - r
        height, width = self.image.shape[:2]
        x0, x1, y0, y1 = max(0, left), min(width, left + 2 * r + 1), max(0, top), min(height, top + 2 * r + 1)
        if x0 >= x1 or y0 >= y1:
            return
        fall = _falloff(r)[y0 - top : y1 - top, x0 - left : x1 - left]
        light = cv2.LUT(fall, _table(colour, strength))
        self.image[y0:y1, x0:x1] = cv2.add(self.image[y0:y1, x0:x1], light)

    def dim(self, tint: Colour, top: float = 0.0) -> None:
        """Multiply everything below ``top`` by a colour: (255, 255, 255) changes nothing."""
        rows = self.image[int(top * _SCALE) :]
        rows[:] = cv2.LUT(rows, _table(tint))

    def veil(self, alpha: npt.NDArray[np.float32], colour: Colour, top: float = 0.0, shift: float = 0.0) -> None:
        """Lay a colour over the rows from ``top``, as far as ``alpha`` (see :func:`clouds`) says, moved by a shift."""
        first = round(top * _SCALE)
        area = self.image[first : first + alpha.shape[0]]
        start = round(shift * _SCALE) % (2 * WIDTH * _SCALE)
        share = alpha[: len(area), start : start + WIDTH * _SCALE]
        self.image[first : first + len(area)] = cv2.blendLinear(
            _plain(colour)[: len(area)], area, np.ascontiguousarray(share), 1 - share
        )


@lru_cache(maxsize=16)
def _plain(colour: Colour) -> Picture:
    """A large picture of one colour."""
    return np.full((HEIGHT * _SCALE, WIDTH * _SCALE, 3), np.asarray(colour), dtype=np.uint8)


@lru_cache(maxsize=64)
def _falloff(radius: int) -> Picture:
    """``[2 r + 1, 2 r + 1, 3]``: 255 in the middle, 0 from the radius on, as the square of the way to it."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    share = np.clip(1 - np.sqrt(x * x + y * y) / radius, 0, 1) ** 2
    return np.repeat((share * 255).astype(np.uint8)[..., None], 3, axis=2)


def _table(colour: Colour, strength: float = 1.0) -> Picture:
    """A table ``[1, 256, 3]`` that scales each level by a colour."""
    scaled = np.arange(256)[None, :, None] * np.asarray(colour) * strength / 255
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)
