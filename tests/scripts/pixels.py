"""What tests of drawn pictures read from pixels, and what every sentence must keep to."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.training.brush import COLOURS, apart

Array = npt.NDArray[Any]
NAMES = "|".join(sorted(COLOURS, key=len, reverse=True))


def new(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def name_of(rgb: Array) -> str:
    """The palette's name nearest to a colour."""
    return min(COLOURS, key=lambda name: apart(COLOURS[name], rgb))


def middle(mask: Array) -> tuple[float, float]:
    """The middle (x, y) of a mask, in shares of the side."""
    y, x = np.nonzero(mask)
    return float((x.mean() + 0.5) / mask.shape[1]), float((y.mean() + 0.5) / mask.shape[0])


def of_colour(picture: Array, name: str) -> Array:
    """Where the picture has the named colour."""
    return np.linalg.norm(picture.astype(float) - COLOURS[name], axis=-1) < 40


def check_wording(texts: list[str]) -> None:
    for text in texts:
        assert text == " ".join(text.split()), text
        assert "{" not in text, text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text
        assert not re.search(r"\b(\w+) \1\b", text.replace("bigger and bigger", "")), text
        assert 1 < len(text.split()) <= 28, text
