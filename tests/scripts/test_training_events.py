"""What happens to drawn actors: the sentences are true of the frames, and the foils of the frames backwards."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.training.brush import COLOURS, apart
from scripts.training.events import OPPOSITE, SAYINGS, make_event
from scripts.training.plots import PLOTS, Stage, Told
from scripts.training.props import PROPS_BY_NAME
from scripts.training.things import cast
from tests.scripts.pixels import NAMES, Array, middle, name_of, new, of_colour

# -- events ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(SAYINGS)), seed=st.integers(0, 10**6), share=st.floats(0, 1).filter(lambda s: s != 0.5)
)
def test_backwards_is_the_same_from_the_end(kind: str, seed: int, share: float) -> None:
    generator = new(seed)
    actor = cast(generator, against=("grey",))
    event = make_event(kind, actor, generator, level=0.4, against=("grey",))
    back = event.backwards()
    assert back.kind == OPPOSITE[kind]
    assert back.backwards() == event
    one, two = event.state(share), back.state(1 - share)
    assert (one.x, one.y, one.scale) == pytest.approx((two.x, two.y, two.scale))
    assert np.abs(np.subtract(one.rgb, two.rgb)).max() <= 1
    assert one.shown == two.shown
    assert len(SAYINGS[kind]) == len(SAYINGS[OPPOSITE[kind]]) >= 4
    for number in range(4):
        assert event.say(number) != back.say(number)


GREY = 130


def played(kind: str, seed: int, frames: int) -> tuple[Array, Told]:
    """A plot on plain grey: frames and what is told."""
    generator = new(seed)
    stage = Stage(np.full((64, 64, 3), GREY, np.uint8), ("grey",), ())
    out = np.empty((frames, 64, 64, 3), np.uint8)
    shares = (np.arange(frames) + 0.5) / frames
    return out, PLOTS[kind](out, shares, stage, generator)


def masks(frames: Array) -> Array:
    """Where each frame shows what is not in all of them."""
    shown = np.abs(frames.astype(int) - GREY).max(-1) > 30
    return shown & ~shown.all(0)


def reads_move(text: str, frames: Array) -> bool:
    seen = [middle(mask) for mask in masks(frames) if mask.sum() > 3]
    dx, dy = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
    way = re.search(r"(?:to the|to) (left|right|top|bottom)\b|\b(up|down)\b", text)
    assert way, text
    left, right, up, down = dx < -0.15, dx > 0.15, dy < -0.15, dy > 0.15
    reads = {"left": left, "right": right, "up": up, "top": up, "down": down, "bottom": down}
    return reads[way[1] or way[2]]


def reads_enter(text: str, frames: Array) -> bool:
    shown = masks(frames)
    comes = re.search(r"enters|comes in|into", text) is not None
    if not comes:
        shown = shown[::-1]
    side = re.findall(r"left|right|top|bottom", text)[0]
    if shown[0].sum() > 2 or not shown[-1].any():
        return False
    x, y = middle(next(mask for mask in shown if mask.sum() > 2))
    return {"left": x < 0.35, "right": x > 0.65, "top": y < 0.35, "bottom": y > 0.65}[side]


def reads_appear(text: str, frames: Array) -> bool:
    first, last = masks(frames)[[0, -1]].any((1, 2))
    return bool(last and not first) == bool(re.search(r"\bappears|shows up|is there|into sight", text))


def reads_size(text: str, frames: Array) -> bool:
    shown = (np.abs(frames.astype(int) - GREY).max(-1) > 30).sum((1, 2))
    grows = re.search(r"grows(?! smaller)|bigger|larger", text) is not None
    return bool(shown[-1] > 1.5 * shown[0]) if grows else bool(shown[0] > 1.5 * shown[-1])


def reads_colour(text: str, frames: Array) -> bool:
    named = re.findall(rf"\b({NAMES})\b", text)
    shown = masks_of_change(frames)
    first, last = (name_of(np.median(frame[shown], axis=0)) for frame in frames[[0, -1]])
    return (first, last) == (named[0], named[1])


def masks_of_change(frames: Array) -> Array:
    return np.abs(frames[0].astype(int) - frames[-1]).max(-1) > 40


def reads_path(text: str, frames: Array) -> bool:
    shown = [middle(mask) for mask in np.abs(frames.astype(int) - GREY).max(-1) > 30]
    steps = np.diff(np.array(shown), axis=0)
    times = np.arange(len(steps))
    when = {}
    for axis, (less, more) in enumerate((("left", "right"), ("up", "down"))):
        moved = np.abs(steps[:, axis])
        when[less if steps[:, axis].sum() < 0 else more] = float((times * moved).sum() / moved.sum())
    return re.findall(r"left|right|up|down", text)[:2] == sorted(when, key=lambda way: when[way])


def reads_meet(text: str, frames: Array) -> bool:
    shown = np.abs(frames.astype(int) - GREY).max(-1) > 30
    spread = [np.stack(np.nonzero(mask)).std(1).max() for mask in shown[[0, -1]]]
    return (spread[-1] < spread[0]) == bool(re.search(r"together|towards|closer|meet", text))


def reads_one_by_one(text: str, frames: Array) -> bool:
    shown = (np.abs(frames.astype(int) - GREY).max(-1) > 30).sum((1, 2))
    return bool(shown[-1] > shown[0]) == bool(re.search(r"(?<!dis)appear|show up|more and more", text))


def reads_two(text: str, frames: Array) -> bool:
    """Whether what is named first happens first; told by the colours, where these differ and stay."""
    named = list(dict.fromkeys(re.findall(rf"\b({NAMES})\b", text)))
    when = []
    for name in named:
        shown = np.stack([of_colour(frame, name) for frame in frames])
        changed = (shown[1:] ^ shown[:-1]).sum((1, 2)).astype(float)
        when.append((np.arange(len(changed)) * changed).sum() / changed.sum())
    return bool(when[0] < when[1])


READS: dict[str, Callable[[str, Array], bool]] = {
    "move": reads_move, "enter": reads_enter, "appear": reads_appear, "size": reads_size, "colour": reads_colour,
    "path": reads_path, "meet": reads_meet, "one by one": reads_one_by_one, "two": reads_two,
}  # fmt: skip


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("kind", READS)
def test_sentences_are_true_and_foils_true_backwards(kind: str, count: int) -> None:
    reads, tried = READS[kind], 0
    for seed in range(30):
        frames, told = played(kind, seed, count)
        if kind == "two":
            colours = re.findall(rf"\b({NAMES})\b", told.sentences[0])
            if len(colours) != 2 or len(set(colours)) != 2 or apart(*(COLOURS[name] for name in colours)) < 90:
                continue
        if kind == "colour" and len(told.sentences[0].split(" turns ")[0].split()) > 4:
            continue
        tried += 1
        assert told.foil is not None
        for text in told.sentences:
            if kind != "colour" or len(re.findall(rf"\b({NAMES})\b", text)) == 2:
                assert reads(text, frames), (seed, text)
        if kind != "colour" or len(re.findall(rf"\b({NAMES})\b", told.foil)) == 2:
            assert reads(told.foil, frames[::-1]), (seed, told.foil)
            assert not reads(told.foil, frames), (seed, told.foil)
    assert tried >= 8


@pytest.mark.parametrize("kind", ["still", "dance"])
def test_what_has_no_direction_has_no_foil(kind: str) -> None:
    for seed in range(10):
        frames, told = played(kind, seed, 8)
        assert told.foil is None
        assert bool(masks(frames).any()) == (kind == "dance")


def test_who_shows_its_way_has_no_foil() -> None:
    generator = new(5)
    car = PROPS_BY_NAME["car"]
    stage = Stage(np.full((64, 64, 3), GREY, np.uint8), ("grey",), (), (car,))
    out, shares = np.empty((6, 64, 64, 3), np.uint8), (np.arange(6) + 0.5) / 6
    seen = set()
    for _ in range(40):
        told = PLOTS["move"](out, shares, stage, generator)
        sideways = re.search(r"left|right", told.sentences[0].split(",")[0].split(" and ")[0]) is not None
        assert (told.foil is None) == sideways, told
        seen.add(sideways)
    assert seen == {True, False}
