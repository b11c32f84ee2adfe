"""Drawn things of everyday life: vehicles, plants, houses, what stands in a room, what is in the sky.

All face right and stand in a box from about (-1, -1) to (1, 1), y down; see :class:`scripts.training.things.Thing`.
"""

from __future__ import annotations

import numpy as np

from scripts.training.brush import RGB, Points
from scripts.training.creatures import CREATURES
from scripts.training.parts import (
    DARK,
    GLASS,
    GREY,
    LEAF,
    RED,
    STUFF,
    SUN,
    WHITE,
    WOOD,
    Parts,
    box,
    fixed,
    part,
    poly,
    quarters,
)
from scripts.training.shapes import SHAPES, disc
from scripts.training.things import Thing

__all__ = ["PROPS", "PROPS_BY_NAME"]


def _wheels(*places: float, y: float = 0.5, radius: float = 0.24) -> Parts:
    tyres = [disc(radius, radius, x, y, corners=14) for x in places]
    hubs = [disc(radius * 0.45, radius * 0.45, x, y, corners=10) for x in places]
    return (*(part(DARK, tyre) for tyre in tyres), *(part((176, 178, 182), hub) for hub in hubs))


_BALL = fixed(
    part("main", disc()),
    part(
        "dark",
        poly(
            (-0.96, -0.1),
            (-0.5, 0.14),
            (0.0, 0.2),
            (0.5, 0.14),
            (0.96, -0.1),
            (0.9, 0.2),
            (0.4, 0.42),
            (-0.4, 0.42),
            (-0.9, 0.2),
        ),
    ),
    part("light", disc(0.22, 0.16, -0.36, -0.44)),
)
_CAR = fixed(
    part(
        "main",
        poly((-1, 0.4), (-1, 0.0), (-0.72, -0.1), (-0.42, -0.52), (0.36, -0.52), (0.62, -0.1), (0.98, 0.04), (1, 0.4)),
    ),
    part(GLASS, poly((-0.56, -0.1), (-0.34, -0.42), (-0.04, -0.42), (-0.04, -0.1))),
    part(GLASS, poly((0.06, -0.1), (0.06, -0.42), (0.3, -0.42), (0.48, -0.1))),
    part((252, 240, 180), disc(0.07, 0.09, 0.95, 0.16, corners=10)),
    *_wheels(-0.55, 0.56, y=0.4),
)
_BUS = fixed(
    part("main", box(-1.1, -0.62, 1.1, 0.46)),
    *(part(GLASS, box(-1.0 + 0.4 * k, -0.48, -0.7 + 0.4 * k, -0.08)) for k in range(5)),
    part("light", box(-1.1, 0.04, 1.1, 0.12)),
    *_wheels(-0.65, 0.68, y=0.48, radius=0.2),
)
_TRUCK = fixed(
    part("main", box(-1.1, -0.66, 0.46, 0.36)),
    part("dark", poly((0.5, 0.4), (0.5, -0.3), (0.86, -0.3), (1.08, 0.06), (1.08, 0.4))),
    part(GLASS, poly((0.62, 0.02), (0.62, -0.2), (0.82, -0.2), (0.94, 0.02))),
    *_wheels(-0.7, -0.25, 0.76, y=0.42, radius=0.2),
)
_BOAT = fixed(
    part(WOOD, box(-0.05, -1.05, 0.02, 0.4)),
    part("main", poly((0.06, -1.0), (0.06, 0.28), (0.8, 0.28))),
    part("light", poly((-0.1, -0.8), (-0.1, 0.28), (-0.62, 0.28))),
    part("dark", poly((-0.95, 0.4), (0.98, 0.4), (0.7, 0.78), (-0.7, 0.78))),
)
_SHIP = fixed(
    part("light", box(-0.6, -0.24, 0.5, 0.14)),
    part("dark", box(-0.3, -0.72, -0.02, -0.24), box(0.14, -0.6, 0.34, -0.24)),
    part("main", poly((-1.1, 0.12), (1.15, 0.12), (0.85, 0.6), (-0.95, 0.6))),
    *(part(WHITE, disc(0.06, 0.06, x, 0.3, corners=8)) for x in (-0.6, -0.2, 0.2, 0.6)),
)
_PLANE = fixed(
    part(
        "main",
        poly(
            (-1.0, -0.1),
            (-1.1, -0.56),
            (-0.86, -0.56),
            (-0.58, -0.14),
            (0.7, -0.16),
            (1.08, 0.06),
            (0.7, 0.22),
            (-0.8, 0.18),
        ),
    ),
    part("dark", poly((-0.2, 0.06), (0.24, 0.06), (-0.26, 0.62), (-0.5, 0.62))),
    *(part(GLASS, disc(0.06, 0.06, x, -0.02, corners=8)) for x in (-0.3, -0.05, 0.2, 0.45)),
)
_BALLOON = fixed(
    part(WOOD, box(-0.2, 0.72, 0.2, 1.05)),
    part(
        DARK,
        poly((-0.2, 0.72), (-0.42, 0.3), (-0.38, 0.3), (-0.16, 0.72)),
        poly((0.2, 0.72), (0.42, 0.3), (0.38, 0.3), (0.16, 0.72)),
    ),
    part(
        "main",
        disc(0.78, 0.78, 0, -0.3),
    ),
    part("light", disc(0.28, 0.78, 0, -0.3)),
)
_TOY_BALLOON = fixed(
    part(GREY, box(-0.02, 0.4, 0.02, 1.1)),
    part("main", disc(0.6, 0.74, 0, -0.3), poly((-0.1, 0.5), (0, 0.4), (0.1, 0.5))),
    part("light", disc(0.13, 0.18, -0.22, -0.56)),
)
_TRAIN = fixed(
    part("main", box(-1.2, -0.36, -0.3, 0.3), box(-0.2, -0.1, 0.9, 0.3), box(-0.2, -0.5, 0.2, -0.1)),
    part(GLASS, box(-1.1, -0.24, -0.82, 0.0), box(-0.68, -0.24, -0.4, 0.0), box(-0.1, -0.4, 0.1, -0.2)),
    part("dark", box(0.55, -0.5, 0.75, -0.1), box(0.9, 0.0, 1.0, 0.3)),
    *_wheels(-1.0, -0.5, 0.0, 0.4, 0.8, y=0.38, radius=0.16),
)


def _cycle(phase: float) -> Parts:
    rings = [(disc(0.42, 0.42, x, 0.4, corners=18), disc(0.34, 0.34, x, 0.4, corners=18)) for x in (-0.6, 0.6)]
    bars = (
        poly((-0.6, 0.34), (-0.2, -0.24), (-0.1, -0.24), (-0.5, 0.4)),
        poly((-0.2, -0.3), (0.4, -0.3), (0.4, -0.2), (-0.2, -0.2)),
        poly((0.36, -0.52), (0.46, -0.52), (0.66, 0.4), (0.56, 0.4)),
        poly((0.0, 0.4), (0.3, -0.26), (0.4, -0.26), (0.1, 0.44)),
    )
    return (
        *(part(DARK, *ring) for ring in rings),
        *(part("main", bar) for bar in bars),
        part(DARK, box(-0.34, -0.4, -0.06, -0.3), box(0.22, -0.6, 0.5, -0.52)),
    )


_HOUSE = fixed(
    part("main", box(-0.8, -0.2, 0.8, 0.9)),
    part((150, 62, 50), poly((-1.0, -0.18), (0, -1.0), (1.0, -0.18))),
    part(WOOD, box(-0.18, 0.3, 0.18, 0.9)),
    *(part(GLASS, box(x, 0.0, x + 0.34, 0.34)) for x in (-0.64, 0.3)),
)
_TREE = fixed(
    part(WOOD, box(-0.13, 0.1, 0.13, 1.0)),
    *(part(LEAF, disc(r, r, x, y, corners=16)) for x, y, r in ((0, -0.5, 0.5), (-0.4, -0.1, 0.4), (0.4, -0.1, 0.4))),
    part((86, 160, 76), disc(0.24, 0.2, -0.16, -0.6, corners=14)),
)
_FIR = fixed(
    part(WOOD, box(-0.12, 0.6, 0.12, 1.0)),
    *(part((24, 92, 52), poly((-w, y), (0, y - 0.75), (w, y))) for w, y in ((0.72, 0.66), (0.56, 0.22), (0.4, -0.22))),
)
_FLOWER = fixed(
    part(LEAF, box(-0.06, 0.0, 0.06, 1.0), poly((0, 0.7), (0.46, 0.36), (0.3, 0.72))),
    *(
        part("main", disc(0.27, 0.27, 0.36 * np.cos(k), -0.4 + 0.36 * np.sin(k), corners=14))
        for k in np.arange(6) * np.pi / 3
    ),
    part(SUN, disc(0.22, 0.22, 0, -0.4, corners=14)),
)
_SUNNY = fixed(
    *(
        part(
            SUN,
            np.array(
                [[c * 1.0, s * 1.0], [0.66 * c - 0.1 * s, 0.66 * s + 0.1 * c], [0.66 * c + 0.1 * s, 0.66 * s - 0.1 * c]]
            ),
        )
        for c, s in [(np.cos(k), np.sin(k)) for k in np.arange(12) * np.pi / 6]
    ),
    part(SUN, disc(0.6, 0.6)),
)
_MOON_PALE: RGB = (240, 232, 200)
_CRESCENT = next(shape.contours for shape in SHAPES if shape.name == "crescent")
_MOON = fixed(
    part(_MOON_PALE, disc()),
    *(
        part((216, 208, 182), disc(r, r, x, y, corners=12))
        for x, y, r in ((-0.3, -0.3, 0.2), (0.3, 0.1, 0.16), (-0.1, 0.45, 0.13))
    ),
)
_CLOUD = fixed(
    *(
        part(WHITE, disc(r, r * 0.9, x, y, corners=16))
        for x, y, r in ((-0.6, 0.1, 0.4), (0, -0.14, 0.52), (0.6, 0.1, 0.4))
    ),
    part(WHITE, box(-0.6, 0.0, 0.6, 0.46)),
)


def _clock(phase: float) -> Parts:
    turn = 2 * np.pi * phase

    def hand(angle: float, length: float, half: float) -> Points:
        along, side = np.array([np.sin(angle), -np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)]) * half
        return np.array([side, along * length + side * 0.6, along * length - side * 0.6, -side])

    ticks = [hand(k, 0.8, 0.04) for k in np.arange(12) * np.pi / 6]
    return (
        part("main", disc()),
        part(WHITE, disc(0.84, 0.84)),
        *(part(DARK, tick) for tick in ticks),
        part(WHITE, disc(0.64, 0.64)),
        part(DARK, hand(turn / 12 + 5.2, 0.44, 0.09)),
        part(DARK, hand(turn + 1.0, 0.7, 0.06)),
    )


def _mill(phase: float) -> Parts:
    sails = []
    for k in range(4):
        angle = 2 * np.pi * phase / 4 + k * np.pi / 2 + 0.4
        c, s = float(np.cos(angle)), float(np.sin(angle))
        blade = np.array([[0.1, 0.0], [0.86, 0.0], [0.86, 0.22], [0.1, 0.16]])
        sails.append(blade @ np.array([[c, s], [-s, c]]) + (0, -0.4))
    return (
        part((206, 190, 170), poly((-0.28, -0.4), (0.28, -0.4), (0.46, 1.0), (-0.46, 1.0))),
        part((140, 66, 50), poly((-0.34, -0.4), (0, -0.76), (0.34, -0.4))),
        part(WOOD, box(-0.12, 0.56, 0.12, 1.0)),
        *(part((250, 244, 228), sail) for sail in sails),
        part(DARK, disc(0.08, 0.08, 0, -0.4, corners=8)),
    )


_LIGHTHOUSE = fixed(
    part((74, 68, 74), poly((-0.9, 1.05), (-0.55, 0.86), (0.5, 0.84), (0.95, 1.05))),
    *(
        part(
            RED if k % 2 == 0 else WHITE,
            poly(
                (-0.2 - 0.06 * k, -0.56 + 0.32 * k),
                (0.2 + 0.06 * k, -0.56 + 0.32 * k),
                (0.26 + 0.06 * k, -0.24 + 0.32 * k),
                (-0.26 - 0.06 * k, -0.24 + 0.32 * k),
            ),
        )
        for k in range(5)
    ),
    part((252, 226, 120), box(-0.18, -0.84, 0.18, -0.56)),
    part(DARK, poly((-0.26, -0.84), (0, -1.08), (0.26, -0.84))),
)
_UMBRELLA = fixed(
    part(DARK, box(-0.04, -0.1, 0.04, 1.0)),
    part(
        "main",
        poly(
            (-1, 0),
            (-0.86, -0.5),
            (-0.5, -0.84),
            (0, -0.96),
            (0.5, -0.84),
            (0.86, -0.5),
            (1, 0),
            (0.5, -0.12),
            (0, 0),
            (-0.5, -0.12),
        ),
    ),
    part("dark", poly((-0.5, -0.12), (-0.2, -0.9), (0.2, -0.9), (0.5, -0.12), (0, 0))),
)
_DOOR = fixed(
    part("dark", box(-0.62, -1.05, 0.62, 1.05)),
    part("main", box(-0.54, -0.97, 0.54, 1.05)),
    part("dark", box(-0.36, -0.78, 0.36, -0.1), box(-0.36, 0.1, 0.36, 0.86)),
    part(SUN, disc(0.08, 0.08, 0.42, 0.04, corners=8)),
)
_CHAIR = fixed(
    part("main", box(-0.56, -1.0, -0.38, 1.0), box(0.4, 0.16, 0.56, 1.0)),
    part("main", box(-0.56, 0.0, 0.56, 0.2)),
    part("main", box(-0.56, -1.0, -0.3, -0.2)),
)
_TABLE = fixed(
    part("main", box(-1.0, -0.2, 1.0, 0.0)), part("dark", box(-0.86, 0.0, -0.7, 0.8), box(0.7, 0.0, 0.86, 0.8))
)
_LAMP = fixed(
    part(GREY, box(-0.05, -0.2, 0.05, 0.9), box(-0.34, 0.86, 0.34, 1.0)),
    part("main", poly((-0.34, -0.9), (0.34, -0.9), (0.64, -0.1), (-0.64, -0.1))),
)
_CUP = fixed(
    part("dark", disc(0.34, 0.34, 0.62, 0.0, corners=16), disc(0.2, 0.2, 0.62, 0.0, corners=14)),
    part("main", poly((-0.7, -0.7), (0.62, -0.7), (0.5, 0.7), (-0.58, 0.7))),
    part("dark", disc(0.66, 0.12, -0.04, -0.7, corners=18)),
)
_KITE = fixed(
    part("main", poly((0, -1.0), (0.62, -0.2), (0, 0.6), (-0.62, -0.2))),
    part("light", poly((0, -1.0), (0.62, -0.2), (0, -0.2))),
    part(DARK, poly((0, 0.58), (0.12, 0.8), (-0.06, 1.1), (-0.02, 0.8))),
)
_ROCKET = fixed(
    part("dark", poly((-0.3, 0.2), (-0.62, 0.8), (-0.2, 0.62)), poly((0.3, 0.2), (0.62, 0.8), (0.2, 0.62))),
    part("main", poly((0, -1.1), (0.24, -0.7), (0.32, 0.0), (0.24, 0.64), (-0.24, 0.64), (-0.32, 0), (-0.24, -0.7))),
    part(GLASS, disc(0.14, 0.14, 0, -0.3, corners=12)),
    part((255, 170, 50), poly((-0.18, 0.66), (0.18, 0.66), (0, 1.1))),
)
_SNOWMAN = fixed(
    part(WHITE, disc(0.5, 0.46, 0, 0.56)),
    part(WHITE, disc(0.36, 0.34, 0, -0.12)),
    part(WHITE, disc(0.26, 0.25, 0, -0.62)),
    part(DARK, box(-0.3, -0.86, 0.3, -0.78), box(-0.2, -1.1, 0.2, -0.84)),
    part((240, 140, 40), poly((0.04, -0.64), (0.36, -0.58), (0.04, -0.54))),
)

_PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black", "grey", "turquoise")

PROPS: tuple[Thing, ...] = (
    *CREATURES,
    Thing("ball", ("ball",), _BALL, STUFF, verb="rolls", rests=1.0),
    Thing("car", ("car",), _CAR, _PAINT, verb="drives", faces=True, rests=0.62),
    Thing("bus", ("bus",), _BUS, _PAINT, verb="drives", faces=True, rests=0.68),
    Thing("truck", ("truck", "lorry"), _TRUCK, _PAINT, verb="drives", faces=True, rests=0.62),
    Thing("train", ("train",), _TRAIN, _PAINT, verb="rolls", faces=True, rests=0.54),
    Thing("bicycle", ("bicycle", "bike"), quarters(_cycle, 1), _PAINT, verb="rolls", faces=True, rests=0.82),
    Thing("boat", ("sailing boat", "boat", "sailboat"), _BOAT, STUFF, verb="sails", rests=0.66),
    Thing("ship", ("ship", "boat"), _SHIP, _PAINT, verb="sails", faces=True, rests=0.5),
    Thing("plane", ("plane", "airplane"), _PLANE, _PAINT, verb="flies", faces=True),
    Thing("hot air balloon", ("hot air balloon",), _BALLOON, STUFF, verb="floats"),
    Thing("balloon", ("balloon",), _TOY_BALLOON, STUFF, verb="floats"),
    Thing("rocket", ("rocket",), _ROCKET, _PAINT, verb="flies"),
    Thing("kite", ("kite",), _KITE, STUFF, verb="flies"),
    Thing("house", ("house",), _HOUSE, ("red", "yellow", "white", "blue", "pink", "green", "grey"), rests=0.9),
    Thing("tree", ("tree",), _TREE, (), ("green",), "{size} {noun}", rests=1.0),
    Thing("fir tree", ("fir tree", "pine tree"), _FIR, (), ("dark green",), "{size} {noun}", rests=1.0),
    Thing("flower", ("flower",), _FLOWER, ("red", "pink", "purple", "white", "orange", "blue"), rests=1.0),
    Thing("sun", ("sun",), _SUNNY, (), ("yellow",), "{size} {noun}"),
    Thing("moon", ("moon", "full moon"), _MOON, (), ("white",), "{size} {noun}"),
    Thing(
        "crescent moon",
        ("moon", "crescent moon"),
        fixed(part(_MOON_PALE, *_CRESCENT)),
        (),
        ("white",),
        "{size} {noun}",
    ),
    Thing("cloud", ("cloud", "white cloud"), _CLOUD, (), ("white",), "{size} {noun}"),
    Thing("clock", ("clock",), quarters(_clock, 48), ("red", "black", "blue", "brown", "green")),
    Thing("windmill", ("windmill",), quarters(_mill, 24), (), (), "{size} {noun}", rests=1.0),
    Thing("lighthouse", ("lighthouse",), _LIGHTHOUSE, (), ("red", "white"), "{size} {noun}", rests=1.0),
    Thing("umbrella", ("umbrella",), _UMBRELLA, STUFF, rests=1.0),
    Thing("door", ("door",), _DOOR, STUFF, rests=1.05),
    Thing("chair", ("chair",), _CHAIR, ("brown", "red", "white", "blue", "green", "black"), rests=1.0),
    Thing("table", ("table",), _TABLE, ("brown", "white", "black", "red"), rests=0.8),
    Thing("lamp", ("lamp",), _LAMP, ("yellow", "red", "white", "green", "blue"), rests=1.0),
    Thing("cup", ("cup", "mug"), _CUP, STUFF, rests=0.7),
    Thing("snowman", ("snowman",), _SNOWMAN, (), ("white",), "{size} {noun}", rests=1.0),
)

PROPS_BY_NAME: dict[str, Thing] = {thing.name: thing for thing in PROPS}
