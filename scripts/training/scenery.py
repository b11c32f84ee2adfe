"""What drawn places are made of: the sky at three times of the day, hills, and who may be where.

Shapes: pictures ``[S, S, 3]`` uint8; places in shares of the side, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.training.brush import RGB, Picture, between, fill, mix, pick
from scripts.training.parts import poly
from scripts.training.shapes import disc

__all__ = ["AT", "SKY_HUES", "Role", "Scene", "a_time", "fading", "hills", "shade", "sky", "titled"]


@dataclass(frozen=True)
class Role:
    """Who may be in one part of a scene: names of things, where their feet (or middles) are, in which size, the words.

    ``against`` are names of the colours there.
    """

    things: tuple[str, ...]
    level: tuple[float, float]
    radius: tuple[float, float]
    words: tuple[str, ...]
    against: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """A painted place.

    ``the`` is its name in a sentence, ``words`` what the picture is called when nobody is there; ``time`` is day,
    evening or night; ``horizon`` is where the sky ends, 0 where that is no level line.
    """

    name: str
    the: str
    picture: Picture
    words: tuple[str, ...]
    roles: tuple[Role, ...]
    horizon: float = 0.0
    time: str = "day"


_SKIES: dict[str, tuple[tuple[RGB, RGB], ...]] = {
    "day": (((70, 146, 226), (196, 226, 246)), ((120, 184, 240), (226, 240, 248)), ((150, 170, 188), (214, 220, 226))),
    "evening": (((96, 70, 150), (252, 170, 96)), ((216, 96, 90), (255, 214, 140)), ((60, 60, 130), (236, 120, 110))),
    "night": (((6, 8, 32), (28, 34, 84)), ((12, 12, 26), (44, 44, 70)), ((16, 24, 60), (52, 50, 104))),
}
SKY_HUES = {
    "day": ("light blue", "white", "grey"),
    "evening": ("orange", "pink", "purple", "red"),
    "night": ("black", "dark blue"),
}
AT = {"day": "", "evening": "at sunset", "night": "at night"}
_DIM = {"day": 0.0, "evening": 0.18, "night": 0.6}


def sky(image: Picture, until: float, time: str, generator: np.random.Generator) -> None:
    """The sky down to ``until``; stars at night, clouds at times by day."""
    size = image.shape[0]
    rows = max(1, round(until * size))
    top, low = pick(_SKIES[time], generator)
    share = np.linspace(0, 1, rows)[:, None]
    image[:rows] = np.round(np.asarray(top) * (1 - share) + np.asarray(low) * share).astype(np.uint8)[:, None, :]
    if time == "night":
        for _ in range(int(between(8, 26, generator))):
            row, column = int(generator.random() * rows * 0.9), int(generator.random() * size)
            image[row, column] = mix((120, 120, 160), (255, 252, 236), float(generator.random()))
    elif time == "day" and generator.random() < 0.5:
        for _ in range(1 + int(generator.random() * 3)):
            x, y, wide = between(0, 1, generator), between(0.06, until * 0.6, generator), between(0.05, 0.12, generator)
            for step in (-0.6, 0.0, 0.6):
                fill(image, [disc(0.7, 0.42, corners=14) * wide + (x + step * wide, y)], (244, 246, 248))


def shade(rgb: RGB, time: str) -> RGB:
    """A colour of the day as it looks at another time."""
    return mix(rgb, (8, 10, 30), _DIM[time])


def hills(image: Picture, level: float, high: float, rgb: RGB, generator: np.random.Generator) -> None:
    x = np.linspace(-0.02, 1.02, 26)
    y = level - high * (0.5 + 0.5 * np.sin(x * between(4, 8, generator) + between(0, 6, generator)))
    fill(image, [np.concatenate([np.stack([x, y], 1), poly((1.02, 1.02), (-0.02, 1.02))])], rgb)


def a_time(generator: np.random.Generator) -> str:
    return ("day", "day", "day", "evening", "night")[int(generator.random() * 5)]


def titled(time: str, *words: str) -> tuple[str, ...]:
    return tuple(f"{each} {AT[time]}".strip() for each in words)


def fading(near: tuple[str, ...], time: str) -> tuple[str, ...]:
    """Names of colours that do not show: those of a ground, and at night all the dark ones."""
    return (*near, "black", "dark blue") if time == "night" else near
