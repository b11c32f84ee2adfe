"""Things that can be drawn anywhere, at any size, in a colour: what the pictures and the clips are peopled with.

A thing faces to the right and reaches about 1 from its middle; ``phase`` (turns, from 0) moves legs, wings and hands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scripts.training.brush import COLOURS, RGB, Picture, Points, between, colour_of, fill, fitting_colours, mix, pick
from scripts.training.shapes import SHAPES

__all__ = ["FORMS", "SIZES", "SIZE_WORDS", "Actor", "Part", "Thing", "a", "cast", "plural"]

SIZES = {"small": (0.085, 0.115), "": (0.14, 0.2), "big": (0.26, 0.34)}
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "": ("",), "big": ("big", "big", "large")}


@dataclass(frozen=True)
class Part:
    """Contours of one colour: "main" (the thing's own), "dark" or "light" (shades of it), or a colour of its own."""

    contours: tuple[Points, ...]
    tone: str | RGB = "main"


@dataclass(frozen=True)
class Thing:
    """What can be drawn and what it is called.

    ``words`` is how colour and noun go together. ``colours`` are those it comes in; empty: its parts have their own
    and none is said, ``hues`` then names those that it shows most of (none where it shows on everything).
    ``faces``: a single picture shows which way it goes.
    ``rests`` is how far below its middle it stands on the ground, None for what flies, floats or has no below.
    """

    name: str
    nouns: tuple[str, ...]
    parts: Callable[[float], tuple[Part, ...]]
    colours: tuple[str, ...] = tuple(COLOURS)
    hues: tuple[str, ...] = ()
    words: str = "{size} {colour} {noun}"
    verb: str = "moves"
    faces: bool = False
    tilt: float = 0.0
    rests: float | None = None


def _still(part: Part) -> Callable[[float], tuple[Part, ...]]:
    parts = (part,)
    return lambda phase: parts


FORMS: tuple[Thing, ...] = tuple(
    Thing(shape.name, shape.nouns, _still(Part(shape.contours)), tilt=shape.tilt) for shape in SHAPES
)


@dataclass(frozen=True)
class Actor:
    """A thing as it appears in one picture or clip: its words, its colour, where and how large (shares of the side)."""

    thing: Thing
    noun: str
    colour: str  # "" where none is said
    rgb: RGB
    size: str
    radius: float
    x: float = 0.5
    y: float = 0.5
    angle: float = 0.0
    left: bool = False  # faces left

    @property
    def words(self) -> str:
        """Size, colour and noun, without an article."""
        hue = a(self.colour) if self.colour else ""
        said = self.thing.words.format(size=self.size, colour=self.colour, a_colour=hue, noun=self.noun)
        return " ".join(said.split())

    @property
    def plural(self) -> str:
        """Size, colour and noun of several."""
        noun = _IRREGULAR.get(self.noun) or plural(self.noun)
        said = self.thing.words.format(size=self.size, colour=self.colour, a_colour=self.colour, noun=noun)
        if not said.endswith(noun):  # "men in red shirts"
            said = plural(said)
        return " ".join(said.split())

    @property
    def hues(self) -> tuple[str, ...]:
        """Names of the colours that it mostly shows."""
        return (self.colour,) if self.colour else self.thing.hues

    def at(self, x: float, y: float) -> Actor:
        return replace(self, x=x, y=y)

    def draw(
        self,
        image: Picture,
        x: float | None = None,
        y: float | None = None,
        *,
        scale: float = 1.0,
        phase: float = 0.0,
        rgb: RGB | None = None,
        soft: float = 0.0,
    ) -> None:
        """Draw it into the picture ``[S, S, 3]``, elsewhere, larger or in another colour where these are given."""
        main = rgb or self.rgb
        reach = self.radius * scale
        cos, sin = float(np.cos(self.angle)) * reach, float(np.sin(self.angle)) * reach
        turn = np.array([[cos, sin], [-sin, cos]])
        if self.left:
            turn[0] *= -1
        middle = np.array([self.x if x is None else x, self.y if y is None else y])
        for part in self.thing.parts(phase):
            tone = part.tone
            if tone == "main":
                colour = main
            elif tone == "dark":
                colour = mix(main, (0, 0, 0), 0.3)
            elif tone == "light":
                colour = mix(main, (255, 255, 255), 0.5)
            else:
                assert not isinstance(tone, str), tone
                colour = tone
            fill(image, [points @ turn + middle for points in part.contours], colour, soft)


def cast(
    generator: np.random.Generator,
    things: tuple[Thing, ...] = FORMS,
    *,
    against: tuple[str, ...] = (),
    unlike: Sequence[Actor] = (),
    sizes: tuple[str, ...] = ("small", "", "big"),
) -> Actor:
    """An actor in a colour that differs from those it is seen against, of another kind or colour than ``unlike``.

    Raises:
        ValueError: nothing of ``things`` fits.
    """
    size = pick(sizes, generator)
    radius = between(*SIZES[size], generator)
    for number in range(20 + len(things)):  # by chance, and if that finds none, in turn
        thing = pick(things, generator) if number < 20 else things[number - 20]
        taken = [other.colour for other in unlike if other.thing is thing]
        fitting = [name for name in fitting_colours(against, thing.colours) if name not in taken]
        if thing.colours and not fitting:
            continue
        if not thing.colours and (taken or (thing.hues and not fitting_colours(against, thing.hues))):
            continue
        colour = pick(fitting, generator) if fitting else ""
        rgb = colour_of(colour, generator) if colour else (0, 0, 0)
        angle = between(-thing.tilt, thing.tilt, generator) if thing.tilt else 0.0
        word = pick(SIZE_WORDS[size], generator)
        return Actor(thing, pick(thing.nouns, generator), colour, rgb, word, radius, angle=angle)
    raise ValueError(f"none of {[thing.name for thing in things]} can be told from {against} and {len(unlike)} others")


def a(words: str) -> str:
    """The words with their article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "person": "people",
    "fish": "fish",
    "puppy": "puppies",
    "lorry": "lorries",
    "circle with a hole": "circles with holes",
}


def plural(words: str) -> str:
    """The regular plural of a noun, or of the last of several words."""
    return words + ("es" if words.endswith(("s", "ch")) else "s")
