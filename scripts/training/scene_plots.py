"""Clips in drawn places: somebody comes, goes or passes; one after the other; light, weather and what goes on for long.

Shapes: frames ``[T, S, S, 3]`` uint8, shares ``[T]``, as in plots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from scripts.training.brush import RGB, Picture, between, mix, pick, stroke
from scripts.training.events import Event, make_event
from scripts.training.plots import Shares, Told, facing, joined, progress, shows_its_way, turn_frame, wordings
from scripts.training.scenery import Role, Scene
from scripts.training.scenes import SCENES, enter_scene, scene
from scripts.training.things import Actor, a
from scripts.training.weather import weather

__all__ = ["MOVERS", "SCENE_PLOTS", "ScenePlot"]

ScenePlot = Callable[[Picture, Shares, np.random.Generator], Told]

_ON_LAND = ("car", "bus", "truck", "bicycle", "man", "woman", "dog", "cat", "horse", "ball")
_ELSEWHERE = ("boat", "ship", "fish", "shark", "plane", "hot air balloon", "balloon", "rocket", "kite", "bird")
MOVERS = (*_ON_LAND, *_ELSEWHERE)


def _new(frames: Picture, generator: np.random.Generator, names: tuple[str, ...] = tuple(SCENES)) -> Scene:
    return scene(np.empty_like(frames[0]), generator, names)


def _moving(place: Scene, generator: np.random.Generator) -> Role | None:
    """One of the scene's roles with those alone who move by themselves."""
    role = pick(place.roles, generator)
    movers = tuple(name for name in role.things if name in MOVERS)
    return replace(role, things=movers) if movers else None


def _populated(frames: Picture, generator: np.random.Generator) -> tuple[Scene, Role]:
    """A scene, and a part of it where somebody moves."""
    while True:
        place = _new(frames, generator)
        role = _moving(place, generator)
        if role is not None:
            return place, role


_MOVES = (
    "move left",
    "move right",
    "pass left",
    "pass right",
    "enter left",
    "enter right",
    "leave left",
    "leave right",
)


def _come_and_go(frames: Picture, shares: Shares, generator: np.random.Generator) -> Told:
    """Somebody moves in a place, comes into it, leaves it, or is suddenly there."""
    place, role = _populated(frames, generator)
    kind = pick(_MOVES, generator)
    if generator.random() < 0.15:
        role = pick(place.roles, generator)
        kind = pick(("appear", "disappear"), generator)
    actor = facing(enter_scene(role, generator), kind, generator)
    event = make_event(kind, actor, generator, level=actor.y)
    far = progress(shares, 0, len(shares) - 1, generator)
    for t in range(len(frames)):
        frames[t] = place.picture
        event.draw(frames[t], float(far[t]), phase=float(shares[t]) * 4)
    where = pick(role.words, generator) if generator.random() < 0.8 else ""
    numbers = wordings(4, generator)
    foil = None if shows_its_way(event) else joined(event.backwards().say(numbers[0]), where)
    return Told([joined(event.say(i), where) for i in numbers], foil)


_ORDER = (
    "first {one} passes {place}, then {two}",
    "{one} passes {place}, then {two}",
    "{one} goes by {place}, and then {two}",
    "{one} comes by {place}, followed by {two}",
)


def _traffic(frames: Picture, shares: Shares, generator: np.random.Generator) -> Told:
    """Two pass one after the other, each in whichever direction."""
    place, role = _populated(frames, generator)
    one = enter_scene(role, generator)
    two = enter_scene(role, generator, unlike=(one,))
    turn = turn_frame(len(shares), generator)
    spans = (0, turn), (turn, len(shares) - 1)
    passing: list[tuple[Event, Shares]] = []
    for actor, (first, last) in zip((one, two), spans, strict=True):
        kind = pick(("pass left", "pass right"), generator)
        event = make_event(kind, facing(actor, kind, generator), generator, level=actor.y)
        length = shares[last] - shares[first]
        passing.append((event, np.clip((shares - shares[first] + 0.1 * length) / (1.2 * length), 0, 1)))
    for t in range(len(frames)):
        frames[t] = place.picture
        event, far = passing[0] if t <= turn else passing[1]
        event.draw(frames[t], float(far[t]), phase=float(shares[t]) * 4)
    where = pick(role.words, generator) if generator.random() < 0.7 else ""
    numbers, names = wordings(4, generator), (a(one.words), a(two.words))
    said = [joined(_ORDER[i].format(one=names[0], two=names[1], place=where)) for i in numbers]
    return Told(said, joined(_ORDER[numbers[0]].format(one=names[1], two=names[0], place=where)))


# -- what goes on ----------------------------------------------------------------------------------------------------

_BUSY: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("underwater",), ("fish", "shark", "fish")),
    (("street",), ("car", "bus", "truck", "bicycle")),
    (("sea", "beach", "mountains", "field"), ("bird", "plane")),
    (("sea",), ("boat", "ship")),
    (("street", "beach", "snow", "field", "forest"), ("man", "woman", "dog")),
)


def _busy(frames: Picture, shares: Shares, generator: np.random.Generator) -> Told:
    """Several move at once, each its own way."""
    places, names = pick(_BUSY, generator)
    while True:
        place = _new(frames, generator, places)
        roles = [role for role in place.roles if set(names) & set(role.things)]
        if roles:
            break
    role = replace(roles[0], things=tuple(name for name in roles[0].things if name in names))
    first = enter_scene(replace(role, things=(pick(role.things, generator),)), generator)
    actors: list[tuple[Actor, float, float]] = []
    count = 3 + int(generator.random() * 3)
    for number in range(count):
        actor = enter_scene(replace(role, things=(first.thing.name,)), generator)
        speed = between(0.6, 1.2, generator) * (1 if generator.random() < 0.5 else -1)
        actor = replace(actor, radius=actor.radius * 0.8, left=speed < 0)
        actors.append((actor, 1.4 * (number + between(0, 0.6, generator)) / count, speed))
    for t, share in enumerate(shares):
        frames[t] = place.picture
        for actor, start, speed in actors:
            x = (start + speed * float(share)) % 1.4 - 0.2
            actor.draw(frames[t], x, phase=float(share) * 4)
    # Without colours and what they wear, which differ.
    who = replace(first, noun=first.thing.nouns[0], thing=replace(first.thing, words="{noun}")).plural
    verb = "fly" if first.thing.verb == "flies" else first.thing.verb.removesuffix("s")
    where = pick(role.words, generator)
    said = (f"{who} {verb} {where}", f"several {who} {verb} {where}", f"some {who} {verb} past {where}",
            f"{who} {verb} to the left and to the right {where}")  # fmt: skip
    return Told([said[i] for i in wordings(3, generator)], None)


_GOING = {
    "balls": (
        "balls bounce {p}",
        "several balls bounce {p}",
        "balls jump up and down {p}",
        "some balls keep bouncing {p}",
    ),
    "ball": ("{s} bounces {p}", "{s} jumps up and down {p}", "{s} bounces up and down {p}", "{s} keeps bouncing {p}"),
    "windmill": (
        "a windmill turns {p}",
        "a turning windmill {p}",
        "the sails of a windmill turn {p}",
        "a mill {p}",
    ),
    "clock": ("the hands of {s} turn {p}", "the hands of {s} race {p}", "{s} {p}, its hands turn", "{s} {p} runs fast"),
    "boat": ("{s} rocks {p}", "{s} lies {p} and rocks", "{s} sways {p}", "{s} goes up and down {p}"),
}
_GOING_ON = {
    "balls": ("room", "beach"),
    "ball": ("room", "beach", "wall"),
    "windmill": ("field",),
    "clock": ("wall",),
    "boat": ("sea",),
}


def _goes_on(frames: Picture, shares: Shares, generator: np.random.Generator) -> Told:
    """One thing goes on doing what it does; or fireworks."""
    if generator.random() < 0.2:
        return _fireworks(frames, shares, generator)
    name = pick(tuple(_GOING), generator)
    role = None
    while role is None:
        place = _new(frames, generator, _GOING_ON[name])
        role = next((each for each in place.roles if name.removesuffix("s") in each.things), None)
    role = replace(role, things=(name.removesuffix("s"),))
    actor = enter_scene(role, generator)
    several = [enter_scene(role, generator) for _ in range(3)]
    x, beats = between(0.3, 0.7, generator), between(1.6, 2.6, generator)
    for t, share in enumerate(shares):
        frames[t] = place.picture
        wave = float(np.sin(2 * np.pi * beats * share))
        if name == "ball":
            actor.draw(frames[t], x, actor.y - 0.3 * abs(wave))
        elif name == "balls":
            for number, ball in enumerate(several):
                wave = float(np.sin(2 * np.pi * beats * (float(share) + 0.29 * number)))
                ball.draw(frames[t], 0.2 + 0.3 * number + 0.08 * float(share), ball.y - 0.3 * abs(wave), scale=0.8)
        elif name == "boat":
            replace(actor, angle=0.2 * wave).draw(frames[t], x, actor.y + 0.02 * wave)
        else:
            actor.draw(frames[t], x, phase=float(share) * beats)
    where = pick(role.words, generator)
    return Told([joined(_GOING[name][i].format(s=a(actor.words), p=where)) for i in wordings(4, generator)], None)


def _fireworks(frames: Picture, shares: Shares, generator: np.random.Generator) -> Told:
    place = _new(frames, generator, ("night",))
    colours: tuple[RGB, ...] = ((255, 90, 70), (120, 220, 255), (255, 220, 90), (150, 255, 140))
    bursts = [(generator.random(3), pick(colours, generator)) for _ in range(5)]
    turns = np.arange(14) * 2 * np.pi / 14
    rays = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for t, share in enumerate(shares):
        frames[t] = place.picture
        for (start, x, y), rgb in bursts:
            age = float(share - 0.8 * start) / 0.35
            if 0 <= age <= 1:
                inner, outer = rays * 0.22 * age**0.5, rays * 0.24 * (age + 0.15) ** 0.5
                for one, two in zip(inner, outer, strict=True):
                    stroke(
                        frames[t],
                        np.stack([one, two]) + np.array([0.2 + 0.6 * x, 0.15 + 0.35 * y + 0.05 * age * age]),
                        mix(rgb, (20, 24, 60), age * 0.7),
                        0.012,
                    )
    said = ("fireworks in the night sky", "there are fireworks at night", "fireworks go off in a dark sky",
            "coloured fireworks over hills at night")  # fmt: skip
    return Told([said[i] for i in wordings(4, generator)], None)


SCENE_PLOTS: dict[str, ScenePlot] = {
    "scene": _come_and_go,
    "traffic": _traffic,
    "weather": weather,
    "busy": _busy,
    "goes on": _goes_on,
}
