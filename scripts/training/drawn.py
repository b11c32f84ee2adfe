"""Drawn pictures with sentences that are true of them: shapes, colours, sizes, places, grounds.

The pictures are the same for the same generator. A sentence may name a place (left, top), so a trainer must not mirror
or turn these pictures.

Shapes: n pictures, S their side in pixels; pictures are uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import OptionError
from scripts.training.brush import COLOURS, RGB, Picture, between, colour_of, mix, other_colour, pick
from scripts.training.props import PROPS
from scripts.training.scenes import enter_scene, scene
from scripts.training.things import FORMS, Actor, Thing, a, cast

__all__ = ["Ground", "drawn_picture", "drawn_pictures", "ground", "in_cell"]

_PLACES: dict[tuple[int, int], tuple[str, ...]] = {
    (-1, 0): ("on the left", "on the left side", "at the left", "at the left edge"),
    (1, 0): ("on the right", "on the right side", "at the right", "at the right edge"),
    (0, -1): ("at the top", "at the top edge", "in the upper middle"),
    (0, 1): ("at the bottom", "at the bottom edge", "in the lower middle"),
    (0, 0): ("in the middle", "in the centre", "in the center"),
    (-1, -1): ("in the top left corner", "at the top left", "in the upper left"),
    (1, -1): ("in the top right corner", "at the top right", "in the upper right"),
    (-1, 1): ("in the bottom left corner", "at the bottom left", "in the lower left"),
    (1, 1): ("in the bottom right corner", "at the bottom right", "in the lower right"),
}
_CELLS = tuple(_PLACES)


@dataclass(frozen=True)
class Ground:
    """What lies behind: the names of its colours, and what it is called ("a plain blue background")."""

    colours: tuple[str, ...]
    words: tuple[str, ...]


# -- grounds ---------------------------------------------------------------------------------------------------------


def ground(image: Picture, generator: np.random.Generator, plain: bool = False) -> Ground:
    """Paint a ground over the whole picture ``[S, S, 3]``; ``plain`` for one colour only."""
    first = pick(tuple(COLOURS), generator)
    a_rgb = colour_of(first, generator)
    kind = generator.random()
    if plain or kind < 0.4:
        image[:] = a_rgb
        return Ground((first,), (f"{first} background", f"plain {first} background", f"{first} ground"))
    size = image.shape[0]
    if kind < 0.55:  # grain
        image[:] = a_rgb
        strength = between(6, 26, generator)
        grain = generator.integers(-128, 128, (size, size), dtype=np.int16) * strength / 128
        np.clip(image + grain[:, :, None], 0, 255, out=image, casting="unsafe")
        return Ground((first,), (f"noisy {first} background", f"grainy {first} background", f"{first} background"))
    second = other_colour((first,), generator)
    b_rgb = colour_of(second, generator)
    across = generator.random() < 0.5
    if kind < 0.7:  # from one colour to another
        share = np.linspace(0, 1, size)[:, None]
        line = np.round(np.asarray(a_rgb) * (1 - share) + np.asarray(b_rgb) * share).astype(np.uint8)
        image[:] = line[None, :, :] if across else line[:, None, :]
        way = "from left to right" if across else "from top to bottom"
        fades = (f"background that fades from {first} to {second}", f"{first} to {second} gradient")
        return Ground((first, second), (*fades, f"background that goes from {first} to {second} {way}"))
    if kind < 0.82:  # two halves
        half = int(size * between(0.42, 0.58, generator))
        image[:] = a_rgb
        if across:
            image[:, half:] = b_rgb
            return Ground(
                (first, second), (f"background half {first} and half {second}", f"{first} and {second} background")
            )
        image[half:] = b_rgb
        words = (f"background {first} above and {second} below", f"{first} and {second} background")
        return Ground((first, second), words)
    return _pattern(image, generator, first, second, a_rgb, b_rgb, across)


def _pattern(
    image: Picture, generator: np.random.Generator, first: str, second: str, a_rgb: RGB, b_rgb: RGB, across: bool
) -> Ground:
    """Stripes, checks or dots of two colours brought nearer to each other, so that a thing on top still shows."""
    size = image.shape[0]
    b_rgb = mix(a_rgb, b_rgb, between(0.55, 1.0, generator))
    wide = max(3, int(size * between(0.06, 0.14, generator)))
    y, x = np.ogrid[:size, :size]
    kind = generator.random()
    if kind < 0.4:
        band = (x if across else y) // wide % 2
        mask = np.broadcast_to(band == 1, (size, size))
        name, extra = "striped", "stripes"
    elif kind < 0.7:
        mask = (x // wide + y // wide) % 2 == 1
        name, extra = "checkered", "squares"
    else:
        step = 2 * wide
        mask = (x % step - wide) ** 2 + (y % step - wide) ** 2 < (0.55 * wide) ** 2
        name, extra = "dotted", "dots"
    image[:] = a_rgb
    image[mask] = b_rgb
    of = f"background of {first} and {second} {extra}" if name != "dotted" else f"{first} background with {second} dots"
    return Ground((first, second), (f"{name} {first} and {second} background", of, f"{name} background"))


# -- shapes on a ground ----------------------------------------------------------------------------------------------


def in_cell(actor: Actor, cell: tuple[int, int], generator: np.random.Generator) -> Actor:
    """The actor in one of nine cells (-1, 0, 1 across and down), all of it in the picture."""
    reach = min(0.3, 0.47 - actor.radius)
    wander = 0.05 if reach > 0.2 else 0.03
    x = 0.5 + cell[0] * reach + between(-wander, wander, generator)
    y = 0.5 + cell[1] * reach + between(-wander, wander, generator)
    return actor.at(x, y)


def _one(image: Picture, generator: np.random.Generator, things: tuple[Thing, ...]) -> str:
    under = ground(image, generator)
    cell = pick(_CELLS, generator)
    actor = in_cell(cast(generator, things, against=under.colours), cell, generator)
    soft = between(0.015, 0.04, generator) if things is FORMS and generator.random() < 0.25 else 0.0
    actor.draw(image, soft=soft)
    what = actor.words
    if soft and generator.random() < 0.4:
        what = f"{pick(('blurred', 'blurry', 'soft'), generator)} {what}"
    what, where, behind = a(what), pick(_PLACES[cell], generator), a(pick(under.words, generator))
    return pick(
        (
            f"{what} {where} of {behind}" if "edge" not in where and "corner" not in where else f"{what} {where}",
            f"{what} {where} on {behind}",
            f"{what} on {behind}",
            f"{what} {where}",
            f"there is {what} {where}",
            f"{behind} with {what} {where}",
            f"a drawing of {what}",
            f"a picture of {what} on {behind}",
            what,
        ),
        generator,
    )


def relation(one: Actor, two: Actor, generator: np.random.Generator) -> str:
    """One of the ways to say where two things are to each other."""
    dx, dy = two.x - one.x, two.y - one.y
    said: tuple[str, ...]
    first, second = a(one.words), a(two.words)
    if abs(dx) > 1.7 * abs(dy):
        near, far = (first, second) if dx > 0 else (second, first)
        said = (
            f"{near} to the left of {far}",
            f"{near} left of {far}",
            f"{far} to the right of {near}",
            f"{near} on the left and {far} on the right",
            f"{first} next to {second}",
            f"{first} beside {second}",
        )
    elif abs(dy) > 1.7 * abs(dx):
        high, low = (first, second) if dy > 0 else (second, first)
        said = (
            f"{high} above {low}",
            f"{low} below {high}",
            f"{low} under {high}",
            f"{high} over {low}",
            f"{high} at the top and {low} at the bottom",
        )
    else:
        said = (f"{first} and {second}", f"{second} and {first}", f"there are {first} and {second}")
    return pick(said, generator)


_PAIRS = (((-1, 0), (1, 0)), ((0, -1), (0, 1)), ((-1, -1), (1, 1)), ((1, -1), (-1, 1)))
_NUMBERS = ("two", "three", "four", "five")


def _on(said: str, under: Ground, generator: np.random.Generator) -> str:
    """What is said, at times with the ground, unless that makes it long."""
    behind = a(pick(under.words, generator))
    long = len(said.split()) + len(behind.split()) > 20
    return said if long or generator.random() < 0.55 else f"{said} on {behind}"


def _several(image: Picture, generator: np.random.Generator, things: tuple[Thing, ...]) -> str:
    under = ground(image, generator)
    cells = pick(_PAIRS, generator)
    order = cells if generator.random() < 0.5 else cells[::-1]
    one = in_cell(cast(generator, things, against=under.colours, sizes=("small", "")), order[0], generator)
    two = cast(generator, things, against=under.colours, unlike=(one,), sizes=("small", ""))
    two = in_cell(two, order[1], generator)
    actors = [one, two]
    if cells == _PAIRS[0] and generator.random() < 0.5:
        third = cast(generator, things, against=under.colours, unlike=actors, sizes=("small",))
        third = in_cell(third, (0, pick((-1, 0, 1), generator)), generator)
        actors.append(third)
    for actor in actors:
        actor.draw(image)
    if len(actors) == 3:
        row = [a(actor.words) for actor in sorted(actors, key=lambda actor: actor.x)]
        mixed = [row[i] for i in generator.permutation(3)]
        said = pick(
            (
                f"{mixed[0]}, {mixed[1]} and {mixed[2]}",
                f"from left to right: {row[0]}, {row[1]} and {row[2]}",
                f"{row[0]} on the left, {row[1]} in the middle and {row[2]} on the right",
                f"three things: {mixed[0]}, {mixed[1]} and {mixed[2]}",
            ),
            generator,
        )
    else:
        said = relation(one, two, generator)
    return _on(said, under, generator)


def _row(image: Picture, generator: np.random.Generator, things: tuple[Thing, ...]) -> str:
    """As many of one kind as the word says, in a row, in a column or here and there."""
    under = ground(image, generator, plain=generator.random() < 0.5)
    count = 2 + int(generator.random() * 4)
    actor = cast(generator, things, against=under.colours, sizes=("small",))
    kind = int(generator.random() * 3)
    radius = min(actor.radius, 0.32 / count)
    at = (np.arange(count) + 0.5) / count
    level = between(0.25, 0.75, generator)
    if kind == 2:
        spots = [pick(_CELLS, generator)] if count == 1 else [_CELLS[i] for i in generator.permutation(9)[:count]]
        places = [(0.5 + 0.31 * i, 0.5 + 0.31 * j) for i, j in spots]
    else:
        places = [(float(p), level) if kind == 0 else (level, float(p)) for p in at]
    for x, y in places:
        actor.draw(image, x, y, scale=radius / actor.radius)
    what = f"{_NUMBERS[count - 2]} {replace(actor, size='').plural}"
    line = (
        (f"{what} in a row", f"a row of {what}") if kind == 0 else (f"{what} in a column", f"{what} above each other")
    )
    said = pick((what, f"there are {what}", *(line if kind < 2 else (f"{what} here and there",))), generator)
    return _on(said, under, generator)


def _bare(image: Picture, generator: np.random.Generator) -> str:
    under = ground(image, generator)
    words = pick(under.words, generator)
    return pick((a(words), f"{a(words)} with nothing on it", f"nothing but {a(words)}"), generator)


def _inhabited(image: Picture, generator: np.random.Generator) -> str:
    """A drawn place: empty, or with one or two in it."""
    place = scene(image, generator)
    empty = pick(place.words, generator)
    chance = generator.random()
    if chance < 0.2:
        return pick((empty, f"a view of {empty}", f"a drawing of {empty}"), generator)
    role = pick(place.roles, generator)
    one = enter_scene(role, generator)
    where = pick(role.words, generator)
    if chance < 0.75:
        one = replace(one, left=generator.random() < 0.5)
        one.draw(image, between(0.22, 0.78, generator), phase=float(generator.random()))
        who = a(one.words)
        return pick(
            (f"{who} {where}", f"{who} {where}", f"there is {who} {where}", f"a drawing of {who} {where}"), generator
        )
    if one.thing.name in ("moon", "crescent moon", "clock", "lighthouse"):
        one.draw(image)
        return f"{a(one.words)} {where}"
    if chance < 0.85:  # two of a kind
        for x in (between(0.2, 0.3, generator), between(0.7, 0.8, generator)):
            one.draw(image, x, phase=float(generator.random()))
        return f"two {one.plural} {where}"
    two = enter_scene(role, generator, unlike=(one,))
    one.draw(image, between(0.2, 0.3, generator))
    two.draw(image, between(0.7, 0.8, generator))
    first, second = a(one.words), a(two.words)
    return pick(
        (f"{first} and {second} {where}", f"{second} and {first} {where}", f"{first} to the left of {second} {where}",
         f"{first} on the left and {second} on the right {where}"),
        generator,
    )  # fmt: skip


def drawn_picture(image: Picture, generator: np.random.Generator) -> str:
    """Draw something into the picture ``[S, S, 3]``, all of it; returns the sentence."""
    kind = generator.random()
    if kind < 0.3:
        return _one(image, generator, FORMS if kind < 0.18 else PROPS)
    if kind < 0.56:
        return _several(image, generator, FORMS if kind < 0.48 else PROPS)
    if kind < 0.68:
        return _row(image, generator, FORMS if kind < 0.63 else PROPS)
    return _bare(image, generator) if kind < 0.7 else _inhabited(image, generator)


def drawn_pictures(count: int, size: int, generator: np.random.Generator) -> tuple[Picture, list[str]]:
    """``count`` drawn pictures ``[n, S, S, 3]`` and a true sentence for each.

    Raises:
        OptionError: a count below 0, or a size below 16 pixels.
    """
    if count < 0 or size < 16:
        raise OptionError(f"{count} pictures of {size} pixels: a count from 0 and a size from 16 are allowed")
    pictures = np.empty((count, size, size, 3), np.uint8)
    return pictures, [drawn_picture(picture, generator) for picture in pictures]
