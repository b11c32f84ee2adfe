"""Words for writing down a thing's parts briefly; see :class:`scripts.training.things.Thing`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from scripts.training.brush import RGB, Points
from scripts.training.things import Part

__all__ = [
    "DARK",
    "GLASS",
    "GREY",
    "LEAF",
    "RED",
    "SKIN",
    "STUFF",
    "SUN",
    "WHITE",
    "WOOD",
    "Parts",
    "box",
    "fixed",
    "part",
    "poly",
    "quarters",
]

DARK: RGB = (28, 28, 32)
GLASS: RGB = (168, 206, 226)
WOOD: RGB = (112, 72, 42)
LEAF: RGB = (48, 128, 58)
SKIN: RGB = (232, 186, 150)
WHITE: RGB = (246, 246, 242)
GREY: RGB = (104, 112, 122)
RED: RGB = (206, 46, 42)
SUN: RGB = (252, 214, 60)

STUFF = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "turquoise")

Parts = tuple[Part, ...]


def poly(*pairs: tuple[float, float]) -> Points:
    return np.array(pairs, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return poly((left, top), (right, top), (right, bottom), (left, bottom))


def part(tone: str | RGB, *contours: Points) -> Part:
    return Part(contours, tone)


def fixed(*parts: Part) -> Callable[[float], Parts]:
    return lambda phase: parts


def quarters(draw: Callable[[float], Parts], steps: int = 8) -> Callable[[float], Parts]:
    """The same parts for each of so many steps of a turn, worked out once."""
    kept = cache(lambda step: draw(step / steps))
    return lambda phase: kept(int(phase * steps) % steps)
