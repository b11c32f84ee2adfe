"""What can happen to one drawn actor in a clip, the sentences for it, and what happens when the clip runs backwards.

Every event is a way from one state to another, so that backwards it is the event with the two exchanged; the sentences
of the two are matched word for word (the i-th of "move left" is the i-th of "move right" the other way round).

Shapes: T frames, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scripts.training.brush import RGB, Picture, between, colour_of, mix, other_colour
from scripts.training.things import Actor, a

__all__ = ["ACROSS", "DOWN", "EITHER", "OPPOSITE", "SAYINGS", "STEPS", "Event", "State", "make_event"]

_MOVE = (
    "{s} {verb} {way}",
    "{s} {verb} from {from_} to {to}",
    "{s} goes from {from_} to {to}",
    "{s} moves from the {from_} side to the {to} side",
)
_ENTER = (
    "{s} enters from the {side}",
    "{s} comes in from the {side}",
    "{s} {verb} into view from the {side}",
    "{s} {verb} into the picture from the {side}",
)
_LEAVE = (
    "{s} leaves {out}",
    "{s} goes out {out}",
    "{s} {verb} out of view {out}",
    "{s} {verb} out of the picture {out}",
)
_PASS = (
    "{s} passes from {from_} to {to}",
    "{s} crosses the picture from {from_} to {to}",
    "{s} goes by from {from_} to {to}",
    "{s} {verb} through the picture from {from_} to {to}",
)
_SIDES = {"left": "to the left", "right": "to the right", "top": "at the top", "bottom": "at the bottom"}
_WAYS = {
    "left": ("to the left", "right", "left"),
    "right": ("to the right", "left", "right"),
    "up": ("up", "bottom", "top"),
    "down": ("down", "top", "bottom"),
}
_UPRIGHT = ("up", "down", "top", "bottom")
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "top": (0, -1), "bottom": (0, 1)}


def _given(templates: tuple[str, ...], **words: str) -> tuple[str, ...]:
    """The templates with some of their gaps filled."""
    out = []
    for text in templates:
        for gap, word in words.items():
            text = text.replace("{" + gap + "}", word)
        out.append(text)
    return tuple(out)


SAYINGS: dict[str, tuple[str, ...]] = {
    **{f"move {d}": _given(_MOVE, way=w[0], from_=w[1], to=w[2]) for d, w in _WAYS.items()},
    **{f"pass {d}": _given(_PASS, from_=_WAYS[d][1], to=_WAYS[d][2]) for d in ("left", "right")},
    **{f"enter {side}": _given(_ENTER, side=side) for side in _SIDES},
    **{f"leave {side}": _given(_LEAVE, out=out) for side, out in _SIDES.items()},
    "grow": ("{s} grows", "{s} gets bigger", "{s} becomes larger", "{s} grows bigger and bigger"),
    "shrink": ("{s} shrinks", "{s} gets smaller", "{s} becomes smaller", "{s} grows smaller and smaller"),
    "appear": ("{s} appears", "{s} shows up", "suddenly {s} is there", "{s} comes into sight"),
    "disappear": ("{s} disappears", "{s} vanishes", "suddenly {s} is gone", "{s} goes out of sight"),
    "change": (
        "{bare} turns from {c0} to {c1}",
        "{s} turns {c1}",
        "{s} becomes {c1}",
        "{bare} changes colour from {c0} to {c1}",
    ),
}

OPPOSITE: dict[str, str] = {
    "move left": "move right",
    "move up": "move down",
    "pass left": "pass right",
    "grow": "shrink",
    "appear": "disappear",
    **{f"enter {side}": f"leave {side}" for side in _SIDES},
}
OPPOSITE |= {back: kind for kind, back in OPPOSITE.items()} | {"change": "change"}

# What can happen within a strip that lies across the picture, in one that goes down it, and in both.
EITHER = ("grow", "shrink", "appear", "disappear", "change")
ACROSS = ("move left", "move right", "enter left", "enter right", "leave left", "leave right", *EITHER)
DOWN = ("move up", "move down", "enter top", "enter bottom", "leave top", "leave bottom", *EITHER)


@dataclass(frozen=True)
class State:
    """How an actor is at one time: its place, its size beside its usual one, its colour, whether it is there."""

    x: float
    y: float
    scale: float
    rgb: RGB
    shown: bool = True


@dataclass(frozen=True)
class Event:
    """One thing that happens to one actor; ``colours`` are its colour's names before and after."""

    kind: str
    actor: Actor
    before: State
    after: State
    colours: tuple[str, str]
    sudden: bool = False

    def state(self, share: float) -> State:
        """How the actor is when ``share`` (0 to 1) of the event is over."""
        if self.sudden or self.before.shown != self.after.shown:
            share = float(share >= 0.5)
        one, two = self.before, self.after
        return State(
            one.x + (two.x - one.x) * share,
            one.y + (two.y - one.y) * share,
            one.scale + (two.scale - one.scale) * share,
            mix(one.rgb, two.rgb, share),
            two.shown if share >= 0.5 else one.shown,
        )

    def backwards(self) -> Event:
        """What happens when the clip runs backwards."""
        actor = self.actor
        if self.kind == "change":
            actor = replace(actor, colour=self.colours[1], rgb=self.after.rgb)
        kind = OPPOSITE[self.kind]
        return Event(kind, actor, self.after, self.before, (self.colours[1], self.colours[0]), self.sudden)

    def say(self, number: int) -> str:
        """The sentence of a number (modulo how many there are)."""
        actor = self.actor
        templates = SAYINGS[self.kind]
        return templates[number % len(templates)].format(
            s=a(actor.words),
            bare=a(replace(actor, colour="").words),
            verb=actor.thing.verb if not self.kind.endswith(_UPRIGHT) else "moves",
            c0=self.colours[0],
            c1=self.colours[1],
        )

    def draw(self, image: Picture, share: float, phase: float = 0.0) -> None:
        """Draw the actor as it is when ``share`` of the event is over."""
        now = self.state(share)
        if now.shown:
            self.actor.draw(image, now.x, now.y, scale=now.scale, phase=phase, rgb=now.rgb)


def make_event(
    kind: str,
    actor: Actor,
    generator: np.random.Generator,
    *,
    level: float = 0.5,
    against: tuple[str, ...] = (),
) -> Event:
    """An event for an actor whose strip of the picture (across or down) has its middle at ``level``.

    ``against`` are the colours that it must not turn to.

    Raises:
        KeyError: a kind that is not in SAYINGS.
    """
    verb, _, way = kind.partition(" ")
    down = way in _UPRIGHT
    reach = actor.radius * 1.1
    rest = between(0.35, 0.65, generator)
    here = (level, rest) if down else (rest, level)
    before = after = State(*here, 1.0, actor.rgb)
    colours = (actor.colour, actor.colour)
    sudden = False
    if verb == "move":
        far = between(0.2, 0.27, generator)
        far = min(far, max(0.12, 0.47 - reach))
        step = STEPS[way]
        middle = (level, 0.5) if down else (0.5, level)
        before = replace(before, x=middle[0] - far * step[0], y=middle[1] - far * step[1])
        after = replace(after, x=middle[0] + far * step[0], y=middle[1] + far * step[1])
    elif verb in ("enter", "leave"):
        step = STEPS[way]
        outside = 0.5 + reach + 0.02
        edge = [0.5 + outside * part if part else level for part in step]
        gone = replace(before, x=edge[0], y=edge[1])
        before, after = (gone, before) if verb == "enter" else (before, gone)
    elif verb == "pass":
        outside = 0.5 + reach
        before, after = replace(before, x=0.5 - outside), replace(after, x=0.5 + outside)
        if way == "left":
            before, after = after, before
    elif verb == "grow":
        before = replace(before, scale=between(0.35, 0.5, generator))
    elif verb == "shrink":
        after = replace(after, scale=between(0.35, 0.5, generator))
    elif verb == "appear":
        before = replace(before, shown=False)
    elif verb == "disappear":
        after = replace(after, shown=False)
    elif verb == "change":
        name = other_colour((actor.colour, *against), generator)
        after = replace(after, rgb=colour_of(name, generator))
        colours = (actor.colour, name)
        sudden = generator.random() < 0.5
    else:
        raise KeyError(kind)
    return Event(kind, actor, before, after, colours, sudden)
