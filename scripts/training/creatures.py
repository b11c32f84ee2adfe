"""Drawn people and animals, all facing right, in a box from about (-1, -1) to (1, 1), y down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scripts.training.brush import RGB
from scripts.training.parts import DARK, GREY, SKIN, STUFF, WHITE, Parts, box, part, poly, quarters
from scripts.training.shapes import disc
from scripts.training.things import Thing

__all__ = ["CREATURES"]


def _walker(hair: RGB | None, skirt: bool) -> Callable[[float], Parts]:
    def parts(phase: float) -> Parts:
        step = 0.26 * float(np.sin(2 * np.pi * phase))
        legs = [poly((-0.14, 0.3), (0.14, 0.3), (s + 0.12, 1.0), (s - 0.12, 1.0)) for s in (step, -step)]
        arms = [poly((-0.1, -0.4), (0.1, -0.4), (s + 0.08, 0.28), (s - 0.08, 0.28)) for s in (-1.4 * step, 1.4 * step)]
        body = (
            poly((-0.22, -0.46), (0.22, -0.46), (0.44, 0.52), (-0.44, 0.52)) if skirt else box(-0.24, -0.46, 0.24, 0.36)
        )
        head = (
            part(hair or (60, 40, 30), disc(0.24, 0.26, -0.04, -0.76, corners=14)),
            part(SKIN, disc(0.2, 0.23, 0.03, -0.71, corners=14)),
        )
        tail = (part(hair, box(-0.26, -0.8, -0.1, -0.3)),) if hair and skirt else ()
        trousers = SKIN if skirt else (44, 48, 70)
        return (
            *(part(trousers, leg) for leg in legs),
            part("main", body),
            *tail,
            *head,
            *(part("dark", arm) for arm in arms[:1]),
        )

    return quarters(parts)


def _beast(neck: float, ears: str, tail_up: float) -> Callable[[float], Parts]:
    """A beast on four legs, its head ``neck`` above its back."""

    def parts(phase: float) -> Parts:
        step = 0.2 * float(np.sin(2 * np.pi * phase))
        legs = [(-0.6, step), (-0.42, -step), (0.4, -step), (0.58, step)]
        feet = [poly((x - 0.09, 0.1), (x + 0.09, 0.1), (x + s + 0.07, 0.8), (x + s - 0.07, 0.8)) for x, s in legs]
        top = -0.3 - neck
        head = disc(0.3, 0.22, 0.86, top, corners=14)
        throat = poly((0.4, -0.2), (0.62, top - 0.1), (0.94, top + 0.12), (0.7, 0.16))
        ear = {
            "long": poly((0.62, top - 0.16), (0.78, top - 0.16), (0.72, top + 0.26), (0.58, top + 0.2)),
            "sharp": poly(
                (0.62, top - 0.1), (0.68, top - 0.48), (0.84, top - 0.18), (0.96, top - 0.46), (1.02, top - 0.08)
            ),
            "mane": poly((0.28, -0.26), (0.44, top), (0.6, top - 0.2), (0.62, top + 0.1), (0.46, -0.16)),
        }[ears]
        if ears == "mane":
            head = poly((0.48, top + 0.1), (0.62, top - 0.3), (0.74, top - 0.12), (1.2, top + 0.24), (1.1, top + 0.42),
                        (0.66, top + 0.3))  # fmt: skip
        tail = poly((-0.66, -0.2), (-0.6, -0.06), (-1.08, -tail_up + 0.1), (-1.14, -tail_up))
        return (
            *(part("dark", foot) for foot in feet),
            part("main", tail),
            part("main", disc(0.74, 0.34, 0, -0.04)),
            part("main", throat),
            part("main", head),
            part("dark", ear),
            part(DARK, disc(0.06, 0.06, 1.14, top + (0.3 if ears == "mane" else 0.0), corners=8)),
            part(WHITE, disc(0.05, 0.05, 0.84, top, corners=8)),
        )

    return quarters(parts)


def _bird(phase: float) -> Parts:
    lift = float(np.cos(2 * np.pi * phase))
    wing = poly((-0.34, -0.04), (0.26, -0.06), (-0.12, -0.9 * lift), (-0.36, -0.8 * lift))
    return (
        part("main", poly((-0.6, 0.0), (-1.1, -0.2), (-1.05, 0.2))),
        part("main", disc(0.64, 0.3)),
        part("main", disc(0.26, 0.24, 0.66, -0.18, corners=14)),
        part((240, 160, 40), poly((0.86, -0.24), (1.16, -0.12), (0.86, -0.06))),
        part(DARK, disc(0.05, 0.05, 0.74, -0.24, corners=8)),
        part("dark", wing),
    )


def _fish(phase: float) -> Parts:
    wag = 0.3 * float(np.sin(2 * np.pi * phase))
    return (
        part("dark", poly((-0.6, 0), (-1.1, -0.5 + wag), (-0.96, wag), (-1.1, 0.5 + wag))),
        part("dark", poly((-0.3, -0.4), (0.1, -0.86), (0.4, -0.4))),
        part("main", disc(0.84, 0.5)),
        part("light", poly((0.08, -0.48), (0.3, -0.45), (0.3, 0.45), (0.08, 0.48))),
        part(WHITE, disc(0.13, 0.13, 0.52, -0.12, corners=10)),
        part(DARK, disc(0.07, 0.07, 0.55, -0.12, corners=8)),
    )


def _shark(phase: float) -> Parts:
    wag = 0.14 * float(np.sin(2 * np.pi * phase))
    back = np.linspace(0, np.pi, 14)
    upper = np.stack([-0.85 + 1.95 * back / np.pi, -0.32 * np.sin(back)], axis=1)
    lower = np.stack([1.1 - 1.95 * back / np.pi, 0.24 * np.sin(back)], axis=1)
    return (
        part(GREY, poly((-0.75, 0), (-1.2, -0.42 + wag), (-1.08, wag), (-1.16, 0.3 + wag))),
        part(GREY, np.concatenate([upper, lower])),
        part((206, 212, 216), lower),
        part(GREY, poly((-0.1, -0.26), (-0.16, -0.72), (0.24, -0.28))),
        part(GREY, poly((0.1, 0.16), (-0.2, 0.5), (0.34, 0.2))),
        part(DARK, disc(0.05, 0.05, 0.82, -0.06, corners=8)),
    )


_FUR = ("brown", "black", "white", "grey")
_CLOTH = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
_FEATHER = ("black", "white", "blue", "red", "brown", "yellow", "grey")

CREATURES: tuple[Thing, ...] = (
    Thing(
        "man",
        ("man", "person", "boy"),
        _walker(None, skirt=False),
        _CLOTH,
        words="{size} {noun} in {a_colour} shirt",
        verb="walks",
        faces=True,
        rests=1.0,
    ),
    Thing(
        "woman",
        ("woman", "girl", "person"),
        _walker((196, 150, 70), skirt=True),
        _CLOTH,
        words="{size} {noun} in {a_colour} dress",
        verb="walks",
        faces=True,
        rests=1.0,
    ),
    Thing("dog", ("dog", "dog", "puppy"), _beast(0.12, "long", 0.5), _FUR, verb="runs", faces=True, rests=0.8),
    Thing(
        "cat",
        ("cat", "cat", "kitten"),
        _beast(0.06, "sharp", 0.9),
        (*_FUR, "orange"),
        verb="walks",
        faces=True,
        rests=0.8,
    ),
    Thing("horse", ("horse",), _beast(0.44, "mane", -0.4), _FUR, verb="runs", faces=True, rests=0.8),
    Thing("bird", ("bird",), quarters(_bird), _FEATHER, verb="flies", faces=True),
    Thing("fish", ("fish",), quarters(_fish), STUFF, verb="swims", faces=True),
    Thing("shark", ("shark",), quarters(_shark), (), (), "{size} {noun}", "swims", True),
)
