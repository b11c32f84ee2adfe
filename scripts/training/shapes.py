"""Plain shapes as contours around (0, 0), reach about 1, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from scripts.training.brush import Points

__all__ = ["SHAPES", "Shape", "disc"]


@dataclass(frozen=True)
class Shape:
    """A shape: its contours, the nouns for it, and how far (radians) it may be turned and still be called so."""

    name: str
    nouns: tuple[str, ...]
    contours: tuple[Points, ...]
    tilt: float = 0.0


def _points(*pairs: tuple[float, float]) -> Points:
    return np.array(pairs, dtype=np.float64)


def _box(wide: float, high: float) -> Points:
    return _points((-wide, -high), (wide, -high), (wide, high), (-wide, high))


@lru_cache(maxsize=64)
def disc(wide: float = 1.0, high: float = 1.0, x: float = 0.0, y: float = 0.0, corners: int = 28) -> Points:
    """An ellipse as a polygon."""
    turns = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([x + wide * np.cos(turns), y + high * np.sin(turns)], axis=1)


def _regular(corners: int, inner: float | None = None) -> Points:
    """A regular polygon that stands on its point's opposite; with ``inner`` a star."""
    count = corners if inner is None else 2 * corners
    turns = np.arange(count) * (2 * np.pi / count) - np.pi / 2
    reach = np.ones(count)
    if inner is not None:
        reach[1::2] = inner
    return np.stack([reach * np.cos(turns), reach * np.sin(turns)], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, (y + 2) / 17], axis=1)


def _crescent() -> Points:
    a = np.linspace(0.3 * np.pi, 1.7 * np.pi, 24)
    outer = np.stack([np.cos(a), np.sin(a)], axis=1)
    inner = np.stack([0.29 + 0.86 * np.cos(a[::-1]), 0.86 * np.sin(a[::-1])], axis=1)
    return np.concatenate([outer, inner])


_HALF = np.linspace(np.pi, 2 * np.pi, 20)
_CAP = np.stack([np.cos(_HALF), np.sin(_HALF)], axis=1)
_PLUS = [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)]
_ARCH = np.concatenate(
    [
        _CAP + np.array([0, 0.2]),
        _points((1, 0.9), (0.55, 0.9)),
        0.55 * _CAP[::-1] + np.array([0, 0.2]),
        _points((-0.55, 0.9), (-1, 0.9)),
    ]
)

SHAPES: tuple[Shape, ...] = (
    Shape("circle", ("circle", "circle", "disc", "dot"), (disc(),)),
    Shape("square", ("square",), (_box(0.85, 0.85),), 0.12),
    Shape("triangle", ("triangle",), (_regular(3) + np.array([0, 0.2]),), 0.3),
    Shape("star", ("star",), (_regular(5, 0.42),), 0.4),
    Shape("ring", ("ring", "ring", "circle with a hole"), (disc(), disc(0.58, 0.58))),
    Shape("cross", ("cross", "plus sign"), (_points(*_PLUS, *((-x, -y) for x, y in _PLUS)),), 0.1),
    Shape("bar", ("bar", "rectangle"), (_box(1.1, 0.36),), 0.1),
    Shape("post", ("upright bar", "tall rectangle"), (_box(0.34, 1.1),), 0.1),
    Shape("diamond", ("diamond",), (_points((0, -1.05), (0.72, 0), (0, 1.05), (-0.72, 0)),), 0.1),
    Shape("heart", ("heart",), (_heart(),), 0.2),
    Shape("oval", ("oval", "ellipse"), (disc(1.1, 0.66),), 0.15),
    Shape("hexagon", ("hexagon",), (_regular(6),), 0.5),
    Shape("crescent", ("crescent", "half moon"), (_crescent(),), 0.3),
    Shape("half circle", ("half circle", "semicircle"), (_CAP + np.array([0, 0.45]),), 0.1),
    Shape("arch", ("arch",), (_ARCH,)),
)
