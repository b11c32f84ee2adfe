"""Clips of drawn actors: what happens, in which order, told in several ways, with the sentence of the clip backwards.

Each plot draws into frames at ``shares`` (how much of the clip is over in the middle of each frame's span, 0 to 1) on a
stage, and returns what is to be said. Whatever happens is still to come in the first frame and over in the last.

Shapes: frames ``[T, S, S, 3]`` uint8, shares ``[T]``; T frames (at least 4), S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scripts.training.brush import Picture, between, pick
from scripts.training.events import ACROSS, DOWN, OPPOSITE, STEPS, Event, State, make_event
from scripts.training.things import FORMS, Actor, Thing, a, cast

__all__ = [
    "PLOTS",
    "WORDINGS",
    "Plot",
    "Shares",
    "Stage",
    "Told",
    "facing",
    "joined",
    "play",
    "progress",
    "shows_its_way",
    "single",
    "turn_frame",
    "wordings",
]

WORDINGS = 3  # sentences for one clip

Shares = npt.NDArray[np.float64]


class Told(NamedTuple):
    """True sentences; and the opposite of the first, true of the clip backwards, where one picture cannot decide."""

    sentences: list[str]
    foil: str | None


@dataclass(frozen=True)
class Stage:
    """What actors are drawn on: the picture ``[S, S, 3]``, colours that would not show on it, words for the place."""

    picture: Picture
    against: tuple[str, ...]
    words: tuple[str, ...]
    things: tuple[Thing, ...] = FORMS


Plot = Callable[[Picture, Shares, Stage, np.random.Generator], Told]


def wordings(count: int, generator: np.random.Generator) -> list[int]:
    """Numbers of different sentences, in any order."""
    return [int(i) for i in generator.permutation(count)[:WORDINGS]]


def joined(*words: str) -> str:
    """Words with single spaces, no space before a comma."""
    return " ".join(" ".join(words).split()).replace(" ,", ",")


def progress(shares: Shares, first: int, last: int, generator: np.random.Generator) -> Shares:
    """How far an event is at each frame: 0 up to the frame ``first``, 1 from ``last`` on, with waits at both ends."""
    length = shares[last] - shares[first]
    start = shares[first] + length * between(0.0, 0.2, generator)
    end = shares[last] - length * between(0.0, 0.2, generator)
    out: Shares = np.clip((shares - start) / (end - start), 0.0, 1.0)
    return out


def play(frames: Picture, shares: Shares, stage: Stage, events: list[tuple[Event, Shares]], idle: list[Actor]) -> None:
    """Draw the stage, who does nothing, and the events as far as they are."""
    for t in range(len(frames)):
        frames[t] = stage.picture
        for actor in idle:
            actor.draw(frames[t])
        for event, far in events:
            event.draw(frames[t], float(far[t]), phase=float(shares[t]) * 4)


def _place(stage: Stage, generator: np.random.Generator, share: float) -> str:
    return pick(stage.words, generator) if stage.words and generator.random() < share else ""


def facing(actor: Actor, kind: str, generator: np.random.Generator) -> Actor:
    """The actor turned the way that it goes."""
    verb, _, way = kind.partition(" ")
    if not actor.thing.faces:
        return actor
    if way not in ("left", "right"):
        return replace(actor, left=generator.random() < 0.5)
    return replace(actor, left=(way == "right") if verb == "enter" else (way == "left"))


def shows_its_way(event: Event) -> bool:
    """Whether a single frame tells which way it goes."""
    return event.actor.thing.faces and event.kind.partition(" ")[2] in ("left", "right")


# -- one actor -------------------------------------------------------------------------------------------------------


def single(*kinds: str) -> Plot:
    """The plot of one event of one of these kinds, at times with somebody beside who does nothing."""

    def plot(frames: Picture, shares: Shares, stage: Stage, generator: np.random.Generator) -> Told:
        kind = pick(kinds, generator)
        scales = kind in ("grow", "shrink")
        things = FORMS if kind == "change" else stage.things
        actor = cast(generator, things, against=stage.against, sizes=("big", "") if scales else ("", "small"))
        if scales:
            actor = replace(actor, size="")  # it is small and big in one clip
        actor = facing(actor, kind, generator)
        low, high = (0.25, 0.42) if generator.random() < 0.5 else (0.58, 0.75)
        level = 0.5 if scales else between(low, high, generator)
        event = make_event(kind, actor, generator, level=level, against=stage.against)
        idle, extra = [], _place(stage, generator, 0.4)
        if not scales and generator.random() < 0.25:
            other, extra = _bystander(event, level, stage, generator)
            idle.append(other)
        play(frames, shares, stage, [(event, progress(shares, 0, len(shares) - 1, generator))], idle)
        numbers = wordings(4, generator)
        said = [joined(event.say(number), extra) for number in numbers]
        foil = None if shows_its_way(event) else joined(event.backwards().say(numbers[0]), extra)
        return Told(said, foil)

    return plot


def _bystander(event: Event, level: float, stage: Stage, generator: np.random.Generator) -> tuple[Actor, str]:
    """Somebody who does nothing, out of the way, and the words for it."""
    other = cast(generator, stage.things, against=stage.against, unlike=(event.actor,), sizes=("small",))
    off, along = (level + 0.4 if level < 0.5 else level - 0.4), between(0.2, 0.8, generator)
    down = event.kind.partition(" ")[2] in ("up", "down", "top", "bottom")
    words = a(other.words)
    extra = pick((f", {words} does not move", f", {words} stays where it is", f"and {words} stays"), generator)
    return (other.at(off, along) if down else other.at(along, off)), extra


_PATHS = (
    "{s} moves {one} and then {two}",
    "{s} first moves {one}, then {two}",
    "{s} goes {one}, then {two}",
    "{s} moves {one} before it moves {two}",
)
_TO = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
_BACK = {"left": "right", "right": "left", "up": "down", "down": "up"}


def _path(frames: Picture, shares: Shares, stage: Stage, generator: np.random.Generator) -> Told:
    """One actor goes one way, then another across it."""
    across, down = pick(("left", "right"), generator), pick(("up", "down"), generator)
    one, two = (across, down) if generator.random() < 0.5 else (down, across)
    actor = facing(cast(generator, against=stage.against, sizes=("", "small")), "", generator)
    far = min(0.27, 0.46 - actor.radius)
    steps = [np.array(STEPS[way]) * 2 * far for way in (one, two)]
    start = 0.5 - (steps[0] + steps[1]) / 2
    points = [start, start + steps[0], start + steps[0] + steps[1]]
    states = [State(float(p[0]), float(p[1]), 1.0, actor.rgb) for p in points]
    turn = turn_frame(len(shares), generator)
    colours = (actor.colour, actor.colour)
    first, second = (Event("path", actor, states[i], states[i + 1], colours) for i in range(2))
    far_one = progress(shares, 0, turn, generator)
    far_two = progress(shares, turn, len(shares) - 1, generator)
    for t in range(len(frames)):
        frames[t] = stage.picture
        leg, share = (first, far_one[t]) if t <= turn else (second, far_two[t])
        leg.draw(frames[t], float(share), phase=float(shares[t]) * 4)
    numbers, who = wordings(4, generator), a(actor.words)
    said = [_PATHS[i].format(s=who, one=_TO[one], two=_TO[two]) for i in numbers]
    return Told(said, _PATHS[numbers[0]].format(s=who, one=_TO[_BACK[two]], two=_TO[_BACK[one]]))


def turn_frame(count: int, generator: np.random.Generator) -> int:
    """A frame near the middle with at least one frame before it and two after."""
    return min(max(1, int(between(count * 0.3, count * 0.65, generator))), count - 3)


# -- several ---------------------------------------------------------------------------------------------------------

_ORDER = ("first {one}, then {two}", "{one}, then {two}", "{one} and then {two}", "{one}, after that {two}")


def _two(frames: Picture, shares: Shares, stage: Stage, generator: np.random.Generator) -> Told:
    """Two actors in two strips of the picture: something happens to one, then to the other."""
    kinds = ACROSS if generator.random() < 0.6 else DOWN
    levels = (0.27, 0.73) if generator.random() < 0.5 else (0.73, 0.27)
    events: list[Event] = []
    for level in levels:
        kind = pick(kinds, generator)
        cannot = [
            OPPOSITE[event.kind] for event in events
        ]  # backwards the sentence would be the same but for the actors
        while kind in cannot:
            kind = pick(kinds, generator)
        others = tuple(event.actor for event in events)
        actor = cast(generator, against=stage.against, unlike=others, sizes=("", "small"))
        if kind in ("grow", "shrink"):
            actor = replace(actor, size="")
        events.append(make_event(kind, actor, generator, level=level, against=stage.against))
    turn = turn_frame(len(shares), generator)
    far = [progress(shares, 0, turn, generator), progress(shares, turn, len(shares) - 1, generator)]
    play(frames, shares, stage, list(zip(events, far, strict=True)), [])
    orders, numbers = wordings(4, generator), [wordings(4, generator) for _ in events]
    said = [
        _ORDER[order].format(one=events[0].say(i), two=events[1].say(j))
        for order, i, j in zip(orders, *numbers, strict=True)
    ]
    back = [event.backwards().say(number[0]) for event, number in zip(events, numbers, strict=True)]
    return Told(said, _ORDER[orders[0]].format(one=back[1], two=back[0]))


_TOGETHER = (
    "{s} come together",
    "{s} move towards each other",
    "{s} come closer to each other",
    "{s} meet in the middle",
)
_APART = (
    "{s} move apart",
    "{s} move away from each other",
    "{s} go away from each other",
    "{s} part in the middle",
)


def _meet(frames: Picture, shares: Shares, stage: Stage, generator: np.random.Generator) -> Told:
    """Two actors come together or move apart."""
    one = cast(generator, against=stage.against, sizes=("small",))
    two = cast(generator, against=stage.against, sizes=("small",), unlike=(one,))
    if same := generator.random() < 0.4:
        two = one
    level, down, apart = between(0.3, 0.7, generator), generator.random() < 0.4, generator.random() < 0.5
    near = one.radius * 1.1
    events: list[tuple[Event, Shares]] = []
    far = progress(shares, 0, len(shares) - 1, generator)
    for actor, sign in ((one, -1), (two, 1)):
        ends = [0.5 + sign * 0.36, 0.5 + sign * near]
        states = [State(*((level, end) if down else (end, level)), 1.0, actor.rgb) for end in ends]
        if apart:
            states.reverse()
        events.append((Event("meet", actor, states[0], states[1], (actor.colour, actor.colour)), far))
    play(frames, shares, stage, events, [])
    who = f"two {one.plural}" if same else f"{a(one.words)} and {a(two.words)}"
    numbers, place = wordings(4, generator), _place(stage, generator, 0.3)
    true, false = (_APART, _TOGETHER) if apart else (_TOGETHER, _APART)
    return Told([joined(true[i].format(s=who), place) for i in numbers], joined(false[numbers[0]].format(s=who), place))


_NUMBERS = ("two", "three", "four")
_COME = (
    "{n} {s} appear one after the other",
    "{n} {s} appear one by one",
    "more and more {s} appear until there are {n}",
    "one after the other, {n} {s} show up",
)
_GO = (
    "{n} {s} disappear one after the other",
    "{n} {s} disappear one by one",
    "fewer and fewer of {n} {s} are left",
    "one after the other, {n} {s} vanish",
)


def _one_by_one(frames: Picture, shares: Shares, stage: Stage, generator: np.random.Generator) -> Told:
    """Several of one kind appear, or disappear, one after the other."""
    count = min(2 + int(generator.random() * 3), len(frames) - 1)
    actor = cast(generator, against=stage.against, sizes=("small",))
    spots = [(0.22 + 0.28 * (i % 3), 0.22 + 0.28 * (i // 3)) for i in generator.permutation(9)[:count]]
    comes = generator.random() < 0.5
    changes = np.sort(1 + generator.permutation(len(frames) - 1)[:count])  # the frames from which on one more is there
    for t in range(len(frames)):
        frames[t] = stage.picture
        for spot, change in zip(spots, changes, strict=True):
            if (t >= change) == comes:
                actor.draw(frames[t], *spot)
    who, numbers = actor.plural, wordings(4, generator)
    true, false = (_COME, _GO) if comes else (_GO, _COME)
    said = [true[i].format(n=_NUMBERS[count - 2], s=who) for i in numbers]
    return Told(said, false[numbers[0]].format(n=_NUMBERS[count - 2], s=who))


# -- what is the same backwards --------------------------------------------------------------------------------------


def _still(frames: Picture, shares: Shares, stage: Stage, generator: np.random.Generator) -> Told:
    """Nothing happens."""
    level = between(0.3, 0.7, generator)
    one = cast(generator, stage.things, against=stage.against, sizes=("", "small")).at(0.25, level)
    actors, words = [one], a(one.words)
    if generator.random() < 0.5:
        two = cast(generator, stage.things, against=stage.against, unlike=(one,), sizes=("", "small"))
        actors.append(two.at(0.75, 1 - level))
        words += f" and {a(two.words)}"
    else:
        actors = [one.at(between(0.3, 0.7, generator), level)]
    play(frames, shares, stage, [], actors)
    place = _place(stage, generator, 0.5)
    verb = "stay where they are" if len(actors) > 1 else "stays where it is"
    said = (f"{words} {place}, nothing moves", f"{words} {verb}", f"nothing happens: {words} {place}",
            f"a still picture of {words} {place}")  # fmt: skip
    return Told([joined(said[i]) for i in wordings(4, generator)], None)


_DANCES = {
    "jump": ("{s} jumps up and down", "{s} bounces up and down", "{s} moves up and down", "{s} keeps jumping"),
    "swing": ("{s} moves to and fro", "{s} swings from side to side", "{s} moves back and forth", "{s} sways"),
    "blink": ("{s} blinks", "{s} flashes", "{s} comes and goes", "{s} appears and disappears again and again"),
    "spin": ("{s} spins", "{s} turns round and round", "{s} rotates", "{s} whirls round"),
}
_TURNING = tuple(thing for thing in FORMS if thing.name not in ("circle", "ring"))


def _dance(frames: Picture, shares: Shares, stage: Stage, generator: np.random.Generator) -> Told:
    """One actor goes on doing the same."""
    kind = pick(tuple(_DANCES), generator)
    actor = cast(generator, _TURNING if kind == "spin" else FORMS, against=stage.against, sizes=("", "small"))
    x, y = between(0.3, 0.7, generator), between(0.35, 0.6, generator)
    beats, reach = between(1.6, 2.4, generator), between(0.12, 0.2, generator)
    for t, share in enumerate(shares):
        frames[t] = stage.picture
        wave = float(np.sin(2 * np.pi * beats * share))
        if kind == "jump":
            actor.draw(frames[t], x, y - abs(wave) * reach)
        elif kind == "swing":
            actor.draw(frames[t], 0.5 + wave * reach, y)
        elif kind == "spin":
            replace(actor, angle=actor.angle + t * 0.45).draw(frames[t], x, y)
        elif t % 2 == 0:
            actor.draw(frames[t], x, y)
    place = _place(stage, generator, 0.4)
    return Told([joined(_DANCES[kind][i].format(s=a(actor.words)), place) for i in wordings(4, generator)], None)


PLOTS: dict[str, Plot] = {
    "move": single("move left", "move right", "move up", "move down", "pass left", "pass right"),
    "enter": single(*(f"{verb} {side}" for verb in ("enter", "leave") for side in ("left", "right", "top", "bottom"))),
    "appear": single("appear", "disappear"),
    "size": single("grow", "shrink"),
    "colour": single("change"),
    "path": _path,
    "two": _two,
    "meet": _meet,
    "one by one": _one_by_one,
    "still": _still,
    "dance": _dance,
}
