"""Drawn places, and who may be in them where: the sea, a beach, a street, a field, a room, the sky at night and others.

Shapes: pictures ``[S, S, 3]`` uint8; places in shares of the side, y down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from scripts.training.brush import RGB, Picture, between, colour_of, fill, mix, pick, stroke
from scripts.training.parts import DARK, GLASS, WHITE, box, poly
from scripts.training.props import PROPS_BY_NAME
from scripts.training.scenery import SKY_HUES, Role, Scene, a_time, fading, hills, shade, sky, titled
from scripts.training.shapes import disc
from scripts.training.things import Actor, cast

__all__ = ["SCENES", "enter_scene", "scene"]

_FLYERS = ("bird", "plane", "hot air balloon", "balloon", "kite")
_COAST = ("by the sea", "on a rock in the sea", "at the sea")
_WALKERS = ("man", "woman", "dog", "cat")


def _sea(image: Picture, generator: np.random.Generator) -> Scene:
    time, horizon = a_time(generator), between(0.42, 0.56, generator)
    sky(image, horizon, time, generator)
    far, near = pick(
        (((84, 170, 206), (16, 86, 140)), ((60, 130, 170), (14, 62, 100)), ((96, 190, 190), (20, 110, 120))), generator
    )
    size = image.shape[0]
    top = round(horizon * size)
    share = np.linspace(0, 1, size - top)[:, None]
    water = np.asarray(shade(far, time)) * (1 - share) + np.asarray(shade(near, time)) * share
    image[top:] = np.round(water).astype(np.uint8)[:, None, :]
    for _ in range(10):  # crests
        x, y = between(0, 1, generator), between(horizon + 0.03, 1, generator)
        wide = 0.03 + 0.1 * (y - horizon)
        stroke(image, poly((x - wide, y), (x, y - 0.01), (x + wide, y)), mix(shade(far, time), WHITE, 0.35), 0.008)
    over = titled(time, "over the sea", "above the water", "over the water")
    on = titled(time, "on the sea", "at sea", "on the water")
    blues = ("blue", "turquoise", "light blue", "dark blue")
    roles = (
        Role(("boat", "boat", "ship"), (horizon + 0.1, horizon + 0.3), (0.12, 0.24), on, fading(blues, time)),
        Role(_FLYERS[:4], (0.14, horizon - 0.12), (0.08, 0.14), over, SKY_HUES[time]),
        Role(("lighthouse",), (horizon + 0.05, horizon + 0.12), (0.2, 0.27), titled(time, *_COAST), SKY_HUES[time]),
    )
    titles = titled(time, "the sea", "a view of the sea", "waves on the sea", "the open sea under the sky")
    return Scene("sea", "the sea", image, titles, roles, horizon, time)


def _beach(image: Picture, generator: np.random.Generator) -> Scene:
    time, horizon = ("day", "day", "evening")[int(generator.random() * 3)], between(0.34, 0.44, generator)
    sky(image, horizon, time, generator)
    size = image.shape[0]
    shore = horizon + between(0.1, 0.18, generator)
    image[round(horizon * size) :] = shade((38, 132, 180), time)
    x = np.linspace(-0.02, 1.02, 20)
    edge = np.stack([x, shore + 0.02 * np.sin(x * 9 + between(0, 6, generator))], 1)
    fill(image, [np.concatenate([edge, poly((1.02, 1.02), (-0.02, 1.02))])], shade((232, 210, 158), time))
    stroke(image, edge, (244, 246, 242), 0.015)
    sands = ("yellow", "white", "orange", "brown", "pink")
    on = titled(time, "on the beach", "on the sand", "on a beach")
    roles = (
        Role((*_WALKERS[:3], "ball", "umbrella", "man", "woman"), (0.8, 0.95), (0.12, 0.2), on, sands),
        Role(
            ("bird", "kite", "plane", "balloon"),
            (0.12, 0.24),
            (0.08, 0.12),
            ("over the beach", "above the beach"),
            SKY_HUES[time],
        ),
    )
    return Scene(
        "beach",
        "the beach",
        image,
        titled(time, "a beach", "a sandy beach by the sea", "an empty beach"),
        roles,
        horizon,
        time,
    )


_FACADES: tuple[RGB, ...] = (
    (214, 140, 90),
    (228, 196, 130),
    (180, 110, 80),
    (206, 206, 196),
    (160, 170, 186),
    (196, 120, 120),
)


def _street(image: Picture, generator: np.random.Generator) -> Scene:
    time = a_time(generator)
    sky(image, 0.5, time, generator)
    kerb = between(0.58, 0.66, generator)
    left = -0.05
    while left < 1.0:
        wide, top = between(0.18, 0.3, generator), between(0.1, 0.3, generator)
        fill(image, [box(left, top, left + wide, kerb)], shade(pick(_FACADES, generator), time))
        if generator.random() < 0.4:
            fill(
                image,
                [poly((left - 0.01, top), (left + wide / 2, top - 0.09), (left + wide + 0.01, top))],
                shade((140, 60, 50), time),
            )
        for row in range(int((kerb - top - 0.06) / 0.13)):
            for column in range(2):
                x, y = left + wide * (0.2 + 0.4 * column), top + 0.05 + 0.13 * row
                lit = time == "night" and generator.random() < 0.5
                fill(image, [box(x, y, x + 0.05, y + 0.07)], (255, 214, 120) if lit else shade((92, 120, 146), time))
        left += wide + between(0.0, 0.02, generator)
    fill(image, [box(-0.1, kerb, 1.1, kerb + 0.05)], shade((190, 186, 178), time))
    fill(image, [box(-0.1, kerb + 0.05, 1.1, 1.1)], shade((92, 94, 100), time))
    for k in range(6):
        x = 0.02 + 0.18 * k
        fill(image, [box(x, 0.82, x + 0.1, 0.835)], shade((226, 222, 206), time))
    ways = titled(time, "on the street", "on the road", "in the street", "on a street with houses")
    greys = fading(("grey",), time)
    roles = (
        Role(("car", "car", "bus", "truck", "bicycle"), (0.76, 0.96), (0.15, 0.24), ways, greys),
        Role(
            ("man", "woman", "dog", "cat"),
            (kerb + 0.1, kerb + 0.2),
            (0.12, 0.18),
            ways,
            fading(("grey", "orange", "brown"), time),
        ),
    )
    titles = titled(time, "an empty street", "a street with houses", "houses along a road", "a street in a town")
    return Scene("street", "the street", image, titles, roles, time=time)


def _field(image: Picture, generator: np.random.Generator) -> Scene:
    time, level = a_time(generator), between(0.55, 0.66, generator)
    sky(image, level + 0.02, time, generator)
    wheat = generator.random() < 0.25
    back, front = ((110, 140, 80), (222, 184, 84)) if wheat else ((96, 156, 96), (86, 160, 66))
    hills(image, level, between(0.02, 0.12, generator), shade(back, time), generator)
    hills(image, level + 0.06, between(0.0, 0.05, generator), shade(front, time), generator)
    names: tuple[str, ...] = ("in a green field", "on the grass", "in a meadow", "on a green meadow")
    titles: tuple[str, ...] = ("a green field", "a green meadow under the sky", "grass and hills")
    greens: tuple[str, ...] = ("green", "dark green", "turquoise")
    if wheat:
        names, greens = ("in a wheat field", "in a yellow field"), ("yellow", "orange", "brown")
        titles = ("a wheat field", "a yellow field under the sky")
    ways = titled(time, *names)
    over = titled(time, "over a field", "over the fields", "in the sky")
    skies = SKY_HUES[time]
    roles = (
        Role(("dog", "cat", "horse", "man", "woman", "flower"), (0.8, 0.94), (0.13, 0.2), ways, fading(greens, time)),
        Role(("tree", "house", "windmill"), (level + 0.1, level + 0.2), (0.16, 0.24), ways, skies),
        Role(_FLYERS, (0.14, level - 0.26), (0.08, 0.14), over, skies),
    )
    return Scene("field", "the field", image, titled(time, *titles), roles, time=time)


def _snow(image: Picture, generator: np.random.Generator) -> Scene:
    level = between(0.46, 0.58, generator)
    sky(image, level + 0.04, "day", generator)
    hills(image, level, between(0.02, 0.12, generator), (214, 224, 236), generator)
    for _ in range(int(generator.random() * 5)):
        x, high = between(0.02, 0.98, generator), between(0.08, 0.16, generator)
        for step in (0.0, 0.35, 0.65):
            y = level + 0.06 - step * high
            fill(
                image, [poly((x - 0.05 * (1 - step), y), (x, y - high * 0.6), (x + 0.05 * (1 - step), y))], (40, 84, 66)
            )
    hills(image, level + 0.12, between(0.0, 0.05, generator), (240, 244, 250), generator)
    whites = ("white", "light blue", "grey", "yellow", "pink")
    ways = ("in the snow", "on the snow", "in a snowy landscape")
    roles = (
        Role(("man", "woman", "dog", "dog", "horse", "fir tree", "house"), (0.8, 0.94), (0.13, 0.22), ways, whites),
    )
    return Scene("snow", "the snow", image, ("a snowy landscape", "snow under a pale sky", "a field of snow"), roles)


def _mountains(image: Picture, generator: np.random.Generator) -> Scene:
    time = a_time(generator)
    sky(image, 1.0, time, generator)
    for _ in range(2 + int(generator.random() * 3)):
        x, top, wide = between(0.0, 1.0, generator), between(0.36, 0.56, generator), between(0.3, 0.5, generator)
        rock = shade(pick(((110, 112, 124), (96, 92, 100), (128, 120, 116)), generator), time)
        fill(image, [poly((x - wide, 1.02), (x, top), (x + wide, 1.02))], rock)
        cap = 0.3
        snow = poly(
            (x - wide * cap * (1 - top), top + cap * (1.02 - top)),
            (x, top),
            (x + wide * cap * (1 - top), top + cap * (1.02 - top)),
        )
        fill(image, [snow], shade((240, 244, 248), time))
    over = titled(time, "over the mountains", "above the mountains", "over snowy mountains")
    titles = titled(time, "mountains with snow", "high mountains", "snowy mountains under the sky")
    roles = (Role(("bird", "plane", "hot air balloon", "kite"), (0.12, 0.3), (0.09, 0.15), over, SKY_HUES[time]),)
    return Scene("mountains", "the mountains", image, titles, roles, time=time)


def _desert(image: Picture, generator: np.random.Generator) -> Scene:
    time, level = ("day", "day", "evening")[int(generator.random() * 3)], between(0.5, 0.62, generator)
    sky(image, level + 0.02, time, generator)
    sand = pick(((226, 176, 104), (214, 150, 84), (236, 196, 128)), generator)
    hills(image, level, between(0.04, 0.12, generator), shade(mix(sand, (120, 70, 40), 0.25), time), generator)
    hills(image, level + 0.14, between(0.02, 0.08, generator), shade(sand, time), generator)
    ways = ("in the desert", "on the sand of a desert", "in a desert")
    hues = ("yellow", "orange", "brown", "pink", "grey")
    roles = (Role(("man", "woman", "horse", "car", "truck"), (0.8, 0.93), (0.12, 0.2), ways, hues),)
    return Scene(
        "desert",
        "the desert",
        image,
        titled(time, "a desert", "sand dunes in a desert", "dunes of sand"),
        roles,
        time=time,
    )


def _room(image: Picture, generator: np.random.Generator) -> Scene:
    wall = pick(("yellow", "green", "blue", "pink", "white", "grey", "light blue", "purple", "turquoise"), generator)
    rgb = mix(colour_of(wall, generator), (255, 255, 255), 0.25)
    floor = between(0.64, 0.74, generator)
    image[:] = rgb
    fill(image, [box(-0.1, floor, 1.1, 1.1)], pick(((132, 92, 60), (96, 70, 56), (160, 130, 100)), generator))
    fill(image, [box(-0.1, floor - 0.02, 1.1, floor)], mix(rgb, (255, 255, 255), 0.6))
    if generator.random() < 0.7:
        x, y, wide, high = (
            between(0.08, 0.6, generator),
            0.12,
            between(0.2, 0.3, generator),
            between(0.22, 0.3, generator),
        )
        fill(image, [box(x - 0.02, y - 0.02, x + wide + 0.02, y + high + 0.02)], (250, 248, 240))
        fill(image, [box(x, y, x + wide, y + high)], GLASS)
        fill(image, [box(x + wide / 2 - 0.01, y, x + wide / 2 + 0.01, y + high)], (250, 248, 240))
    ways = ("in a room", "on the floor of a room", f"in a room with {wall} walls", "in the room")
    stuff = ("ball", "ball", "cat", "dog", "chair", "table", "lamp", "man", "woman", "cup")
    roles = (Role(stuff, (0.82, 0.96), (0.13, 0.22), ways, ("brown", wall)),)
    titles = (
        f"an empty room with {wall} walls",
        f"a room with {wall} walls",
        "an empty room",
        "a room with nobody in it",
    )
    return Scene("room", "the room", image, titles, roles)


def _night(image: Picture, generator: np.random.Generator) -> Scene:
    sky(image, 1.0, "night", generator)
    sky(image, 0.86, "night", generator)
    hills(image, 0.9, between(0.03, 0.14, generator), (10, 12, 28), generator)
    ways = ("in the night sky", "in a dark sky with stars", "in the sky at night")
    roles = (
        Role(("moon", "crescent moon", "rocket", "plane", "moon"), (0.2, 0.55), (0.09, 0.17), ways, SKY_HUES["night"]),
    )
    titles = ("a night sky with stars", "stars in a dark sky", "hills at night", "the night sky")
    return Scene("night", "the hills", image, titles, roles, time="night")


def _underwater(image: Picture, generator: np.random.Generator) -> Scene:
    size = image.shape[0]
    top, low = pick(
        (((90, 214, 190), (8, 90, 100)), ((70, 160, 220), (10, 50, 110)), ((60, 190, 170), (6, 70, 90))), generator
    )
    share = np.linspace(0, 1, size)[:, None]
    image[:] = np.round(np.asarray(top) * (1 - share) + np.asarray(low) * share).astype(np.uint8)[:, None, :]
    hills(image, 0.93, 0.05, (206, 184, 132), generator)
    for _ in range(2 + int(generator.random() * 6)):
        x, high = between(0.02, 0.98, generator), between(0.12, 0.34, generator)
        up = np.linspace(0, 1, 7)
        stem = np.stack([x + 0.03 * np.sin(up * 5 + x * 20), 0.95 - high * up], 1)
        stroke(image, stem, pick(((30, 120, 70), (60, 150, 80), (180, 80, 100)), generator), 0.02)
    for _ in range(int(generator.random() * 8)):
        x, y = between(0, 1, generator), between(0, 0.85, generator)
        stroke(image, disc(0.012, 0.012, x, y, corners=8), (206, 240, 246), 0.005, closed=True)
    ways = ("under water", "in the water", "in an aquarium", "over the sea floor")
    roles = (
        Role(("fish", "fish", "shark"), (0.2, 0.72), (0.1, 0.2), ways, ("turquoise", "blue", "light blue", "green")),
    )
    return Scene(
        "underwater", "the water", image, ("sea grass under water", "an aquarium with plants", "the sea floor"), roles
    )


def _wall(image: Picture, generator: np.random.Generator) -> Scene:
    base, name = pick(
        (((164, 84, 62), "red brick"), ((150, 150, 152), "grey stone"), ((196, 160, 120), "brown brick")), generator
    )
    image[:] = mix(base, (40, 30, 30), 0.45)
    for row in range(13):
        for column in range(-1, 6):
            tone = mix(
                base, (255, 255, 255) if generator.random() < 0.5 else (40, 20, 20), float(generator.random()) * 0.16
            )
            x, y = column * 0.19 + (0.095 if row % 2 else 0), row * 0.08
            fill(image, [box(x, y, x + 0.175, y + 0.066)], tone)
    hues = ("grey",) if "grey" in name else ("red", "brown", "orange", "pink")
    front = (f"in front of a {name} wall", "in front of a wall", "by a wall")
    roles = (
        Role(("man", "woman", "cat", "dog", "bicycle", "ball", "flower"), (0.88, 0.96), (0.15, 0.26), front, hues),
        Role(("clock",), (0.4, 0.5), (0.22, 0.36), (f"on a {name} wall", "on a wall"), hues),
    )
    return Scene("wall", "the wall", image, (f"a {name} wall", f"an empty {name} wall", "a bare wall of stones"), roles)


def _forest(image: Picture, generator: np.random.Generator) -> Scene:
    image[:] = pick(((40, 84, 48), (58, 104, 60), (30, 66, 44)), generator)
    fill(image, [box(-0.1, 0.72, 1.1, 1.1)], pick(((96, 82, 52), (70, 96, 50)), generator))
    for _ in range(5 + int(generator.random() * 5)):
        x, wide = between(0, 1, generator), between(0.02, 0.05, generator)
        fill(
            image,
            [box(x - wide, -0.1, x + wide, between(0.7, 0.8, generator))],
            mix((84, 60, 40), DARK, float(generator.random()) * 0.5),
        )
    for _ in range(6):
        x, y, r = between(0, 1, generator), between(0, 0.2, generator), between(0.08, 0.18, generator)
        fill(image, [disc(r, r * 0.7, x, y, corners=14)], mix((48, 128, 58), (20, 70, 36), float(generator.random())))
    hues = ("green", "dark green", "brown", "black", "grey", "purple", "dark blue")
    ways = ("in a forest", "in the woods", "between the trees")
    roles = (Role(("man", "woman", "dog", "horse", "cat"), (0.86, 0.95), (0.14, 0.22), ways, hues),)
    return Scene("forest", "the forest", image, ("a forest", "trees in a forest", "tall trees"), roles)


SCENES: dict[str, Callable[[Picture, np.random.Generator], Scene]] = {
    "sea": _sea, "beach": _beach, "street": _street, "field": _field, "snow": _snow, "mountains": _mountains,
    "desert": _desert, "room": _room, "night": _night, "underwater": _underwater, "wall": _wall, "forest": _forest,
}  # fmt: skip


def scene(image: Picture, generator: np.random.Generator, names: tuple[str, ...] = tuple(SCENES)) -> Scene:
    """Paint one of the named scenes over the whole picture."""
    return SCENES[pick(names, generator)](image, generator)


def enter_scene(role: Role, generator: np.random.Generator, unlike: tuple[Actor, ...] = ()) -> Actor:
    """Somebody for a role, on its feet where it belongs, x in the middle of the picture; sizes are not said."""
    among = tuple(PROPS_BY_NAME[name] for name in role.things)
    actor = cast(generator, among, against=role.against, unlike=unlike, sizes=("",))
    radius = between(*role.radius, generator)
    level = between(*role.level, generator)
    rests = actor.thing.rests
    return replace(actor, radius=radius, x=0.5, y=level - (rests or 0.0) * radius)
