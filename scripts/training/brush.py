"""Drawing with smooth edges into small square pictures: polygons at fractions of a pixel, named colours, grounds.

Coordinates are shares of the picture's side: x to the right, y down, both from 0 to 1. A shape is a list of contours
``[K, 2]`` around (0, 0) with a reach of about 1; where contours overlap is a hole. OpenCV draws them in integers of a
sixteenth of a pixel, so that the same numbers give the same picture on every machine.

Shapes: S side of a picture in pixels, K points of a contour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "COLOURS",
    "RGB",
    "Picture",
    "Points",
    "apart",
    "area",
    "between",
    "blend",
    "colour_of",
    "differs",
    "fill",
    "fitting_colours",
    "mix",
    "other_colour",
    "pick",
    "stroke",
    "turned",
]

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
RGB = tuple[int, int, int]
T = TypeVar("T")

_SHIFT = 4  # bits after the point in OpenCV's coordinates
_ALIKE = 104.0  # colours nearer than this (RGB) are not put on each other: one could not tell the thing from its ground

COLOURS: dict[str, RGB] = {
    "red": (214, 38, 38),
    "orange": (245, 138, 28),
    "yellow": (246, 216, 48),
    "green": (46, 150, 62),
    "turquoise": (44, 196, 186),
    "blue": (38, 82, 204),
    "purple": (132, 58, 172),
    "pink": (246, 140, 184),
    "brown": (118, 74, 38),
    "black": (18, 18, 20),
    "white": (246, 246, 244),
    "grey": (130, 130, 132),
    "light blue": (146, 204, 242),
    "dark green": (18, 78, 34),
    "dark blue": (16, 26, 88),
}
_NAMES = tuple(COLOURS)


def pick(items: Sequence[T], generator: np.random.Generator) -> T:
    """One of the items, each as likely; quicker than ``generator.choice``."""
    return items[int(generator.random() * len(items))]


def between(low: float, high: float, generator: np.random.Generator) -> float:
    """A number from ``low`` to ``high``."""
    return low + (high - low) * float(generator.random())


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour ``share`` (0 to 1) of the way from ``a`` to ``b``."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def apart(a: Sequence[float], b: Sequence[float]) -> float:
    """How far two colours are from each other, 0 to about 441."""
    return float(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2) ** 0.5)


_FAR = {a: tuple(b for b in _NAMES if apart(COLOURS[a], COLOURS[b]) > _ALIKE) for a in _NAMES}


def differs(a: str, b: str) -> bool:
    """Whether two named colours can be told apart at a glance."""
    return b in _FAR[a]


def fitting_colours(against: Sequence[str], among: Sequence[str] = _NAMES) -> list[str]:
    """The named colours of ``among`` that differ from all of ``against``."""
    return [name for name in among if all(name in _FAR[other] for other in against)]


def other_colour(against: Sequence[str], generator: np.random.Generator) -> str:
    """The name of a colour that differs from all of ``against``.

    Raises:
        ValueError: no colour does.
    """
    left = fitting_colours(against)
    if not left:
        raise ValueError(f"no named colour differs from all of {tuple(against)}")
    return pick(left, generator)


def colour_of(name: str, generator: np.random.Generator, spread: int = 11) -> RGB:
    """The named colour, up to ``spread`` levels off in each channel."""
    r, g, b = COLOURS[name]
    off = generator.random(3) * (2 * spread + 1) - spread
    return (
        min(max(r + int(off[0]), 0), 255),
        min(max(g + int(off[1]), 0), 255),
        min(max(b + int(off[2]), 0), 255),
    )


def turned(points: Points, angle: float, stretch: float = 1.0) -> Points:
    """Points turned by ``angle`` (radians, clockwise as seen), stretched in width before that."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    out: Points = (points * (stretch, 1.0)) @ np.array([[cos, sin], [-sin, cos]])
    return out


def _fixed(points: Points, size: int) -> npt.NDArray[np.int32]:
    """Shares of the side to OpenCV's fixed point, where 0 is the middle of the first pixel."""
    fixed: npt.NDArray[np.int32] = np.round((points * size - 0.5) * 2**_SHIFT).astype(np.int32)
    return fixed


def fill(image: Picture, contours: Sequence[Points], colour: RGB, soft: float = 0.0) -> None:
    """Fill contours (shares of the side) in the picture ``[S, S, 3]``; ``soft`` is the width of a blurred edge."""
    size = image.shape[0]
    fixed = [_fixed(points, size) for points in contours]
    if soft <= 0:
        cv2.fillPoly(image, fixed, colour, cv2.LINE_AA, _SHIFT)
        return
    mask: Any = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, _SHIFT)
    wide = 2 * max(1, round(soft * size)) + 1
    mask = cv2.GaussianBlur(mask, (wide, wide), 0)
    blend(image, mask, colour)


def blend(image: Picture, mask: Picture, colour: RGB) -> None:
    """Lay a colour over the picture as far as the mask ``[S, S]`` (0 to 255) says."""
    share = mask[:, :, None].astype(np.uint16)
    image[:] = ((image * (255 - share) + np.asarray(colour, np.uint16) * share + 127) // 255).astype(np.uint8)


def stroke(image: Picture, points: Points, colour: RGB, width: float, closed: bool = False) -> None:
    """A line of ``width`` (share of the side) through points ``[K, 2]``."""
    size = image.shape[0]
    thick = max(1, round(width * size))
    cv2.polylines(image, [_fixed(points, size)], closed, colour, thick, cv2.LINE_AA, _SHIFT)


def area(contours: Sequence[Points]) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) around contours."""
    low = np.min([points.min(axis=0) for points in contours], axis=0)
    high = np.max([points.max(axis=0) for points in contours], axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
