"""Drawn pictures: their sentences are true of the pixels."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest

from scripts.training.drawn import drawn_pictures
from scripts.training.props import PROPS, PROPS_BY_NAME
from scripts.training.scenes import SCENES, enter_scene, scene
from scripts.training.things import FORMS, Actor, cast
from tests.scripts.pixels import NAMES, Array, check_wording, middle, name_of, new, of_colour


@pytest.fixture(scope="module")
def pictures() -> tuple[Array, list[str]]:
    return drawn_pictures(4000, 64, new(7))


def test_a_picture_has_its_place_and_colours(pictures: tuple[Array, list[str]]) -> None:
    thing = rf"an? (?:(?:small|little|tiny|big|large) )?(?P<colour>{NAMES}) [a-z ]+?"
    where = "(?:(?:top|bottom|upper|lower) )?(?:left|right|top|bottom|middle|centre|center)"
    place = rf"(?P<place>(?:on|at|in) the {where}[a-z ]*?)"
    pattern = re.compile(rf"^{thing} {place} (?:on|of) a plain (?P<ground>{NAMES}) background$")
    found = 0
    for picture, sentence in zip(*pictures, strict=True):
        match = pattern.match(sentence)
        if match is None or " and " in sentence:
            continue
        found += 1
        assert name_of(np.median(picture[::7, ::7].reshape(-1, 3), axis=0)) == match["ground"], sentence
        mask = of_colour(picture, match["colour"])
        assert mask.sum() > 15, sentence
        x, y = middle(mask)
        sides = {"left": x < 0.47, "right": x > 0.53, "top": y < 0.47, "bottom": y > 0.53}
        for word, true in {**sides, "upper": sides["top"], "lower": sides["bottom"]}.items():
            if word in match["place"]:
                assert true, f"{sentence}: {x:.2f}, {y:.2f}"
        if match["place"] in ("in the middle", "in the centre", "in the center"):
            assert abs(x - 0.5) < 0.12, sentence
            assert abs(y - 0.5) < 0.16, sentence
    assert found > 15


def test_relations_are_true(pictures: tuple[Array, list[str]]) -> None:
    thing = rf"an? (?:(?:small|little|tiny) )?({NAMES}) [a-z ]+?"
    ways = {
        "to the left of": lambda a, b: a[0] < b[0],
        "to the right of": lambda a, b: a[0] > b[0],
        "above": lambda a, b: a[1] < b[1],
        "over": lambda a, b: a[1] < b[1],
        "below": lambda a, b: a[1] > b[1],
        "under": lambda a, b: a[1] > b[1],
    }
    found = dict.fromkeys(ways, 0)
    for picture, sentence in zip(*pictures, strict=True):
        for words, holds in ways.items():
            match = re.match(rf"^{thing} {words} {thing} on an? (?:plain )?({NAMES}) (?:ground|background)$", sentence)
            if match is None or len(set(match.groups())) < 3:
                continue
            one, two = (of_colour(picture, name) for name in match.groups()[:2])
            if min(one.sum(), two.sum()) < 12:
                continue
            found[words] += 1
            assert holds(middle(one), middle(two)), sentence
    assert sum(found.values()) > 20, found


def test_counts_are_true(pictures: tuple[Array, list[str]]) -> None:
    numbers = {"two": 2, "three": 3, "four": 4, "five": 5}
    pattern = rf"({'|'.join(numbers)}) ({NAMES}) [a-z ]+ on an? (?:plain )?({NAMES}) (?:ground|background)$"
    found = 0
    for picture, sentence in zip(*pictures, strict=True):
        match = re.search(pattern, sentence)
        if match is None or not sentence.startswith((match[1], "there are", "a row")):
            continue
        ground = np.median(picture[::5, ::5].reshape(-1, 3), axis=0)
        if (np.abs(picture.astype(int) - ground).max(-1) > 40).mean() > 0.5:
            continue  # a grainy one
        mask = (np.abs(picture.astype(int) - ground).max(-1) > 40).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        found += 1
        assert (stats[1:, cv2.CC_STAT_AREA] >= 4).sum() >= numbers[match[1]], sentence
        assert of_colour(picture, match[2]).any(), sentence
    assert found > 10


def test_wording_of_pictures(pictures: tuple[Array, list[str]]) -> None:
    check_wording(pictures[1])
    assert len(set(pictures[1])) > 2500


@pytest.mark.parametrize("thing", [*FORMS, *PROPS], ids=lambda thing: thing.name)
def test_a_thing_shows_its_colour(thing: Any) -> None:
    actor = cast(new(3), (thing,), against=("grey",), sizes=("",))
    for left in (False, True):
        picture = np.full((96, 96, 3), 130, np.uint8)
        Actor(**{**actor.__dict__, "left": left}).draw(picture, 0.5, 0.5)
        mask = np.abs(picture.astype(int) - 130).max(-1) > 30
        assert 0.004 < mask.mean() < 0.3
        x, y = middle(mask)
        assert abs(x - 0.5) < 0.08, (x, y)
        assert abs(y - 0.5) < 0.12, (x, y)
        if actor.colour:
            assert of_colour(picture, actor.colour)[mask].mean() > 0.08


@pytest.mark.parametrize("name", SCENES)
def test_everybody_fits_into_a_scene(name: str) -> None:
    generator = new(11)
    for _ in range(12):
        picture = np.zeros((48, 48, 3), np.uint8)
        place = scene(picture, generator, (name,))
        assert place.name == name
        for role in place.roles:
            for thing in role.things:
                only = type(role)((thing,), role.level, role.radius, role.words, role.against)
                actor = enter_scene(only, generator)
                assert PROPS_BY_NAME[thing] is actor.thing
                assert 0 < actor.y < 1
