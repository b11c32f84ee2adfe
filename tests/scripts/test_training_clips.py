"""Made-up clips of photographs and drawn places, and all kinds together."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OptionError
from scripts.training import clips as made
from scripts.training.brush import COLOURS
from scripts.training.camera import clean
from scripts.training.drawn import drawn_pictures
from scripts.training.plots import PLOTS
from scripts.training.scene_plots import SCENE_PLOTS
from tests.scripts.pixels import NAMES, Array, check_wording, new

# -- photographs -----------------------------------------------------------------------------------------------------


def ramp() -> Array:
    """A picture that gets redder to the right and greener downwards, with a blue middle."""
    x = np.linspace(0, 255, 64)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :, 0], picture[:, :, 1] = x[None, :], x[:, None]
    cv2.circle(picture, (32, 32), 12, (0, 0, 255), -1)
    return picture


@pytest.mark.parametrize("kind", ["pan", "zoom"])
def test_the_camera_moves_as_told(kind: str) -> None:
    photos = np.stack([ramp(), ramp()])
    clips = made.made_clips(photos, [["A ramp ."], ["Another ramp ."]], 24, 6, 48, new(2), kinds={kind: 1})

    def holds(text: str, frames: Array) -> bool:
        edges = frames[[0, -1]].astype(float)
        red, green, blue = (float(np.diff(edges[..., c].mean((1, 2)))[0]) for c in range(3))
        if kind == "zoom":
            return blue > 5 if re.search(r"\bin\b", text.replace("in the", "")) else blue < -5
        ways = {"left": red < -8, "right": red > 8, "up": green < -8, "down": green > 8}
        return ways[re.findall(r"left|right|up|down", text)[0]]

    for frames, said, foil in zip(clips.frames, clips.sentences, clips.foils, strict=True):
        assert foil is not None
        assert holds(said[0], frames), said
        assert holds(said[1], frames), said
        assert said[2] in ("a ramp", "another ramp")
        assert holds(foil, frames[::-1]), foil
        assert not holds(foil, frames), foil


@pytest.mark.parametrize("kind", ["cut", "fade"])
def test_what_is_named_first_comes_first(kind: str) -> None:
    photos = np.stack([np.full((32, 32, 3), 200, np.uint8), np.full((32, 32, 3), 30, np.uint8)])
    clips = made.made_clips(photos, [["Bright ."], ["Dark ."]], 20, 5, 32, new(4), kinds={kind: 1})
    for frames, said, foil in zip(clips.frames, clips.sentences, clips.foils, strict=True):
        bright = frames[0].mean() > frames[-1].mean()
        for text in said:
            assert (text.index("bright") < text.index("dark")) == bright, text
        assert foil is not None
        assert (foil.index("bright") < foil.index("dark")) != bright
        assert {int(frames[0].mean()), int(frames[-1].mean())} == {30, 200}


def test_drawn_things_on_photographs_and_stills() -> None:
    generator = new(8)
    photos = generator.integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    before = photos.copy()
    texts = [[f"A photo number {i} .", "Something else !"] for i in range(6)]
    clips = made.made_clips(photos, texts, 120, 5, 32, generator)
    assert (photos == before).all()
    assert any("over a photo" in text for said in clips.sentences for text in said)
    for kind, frames, said in zip(clips.kinds, clips.frames, clips.sentences, strict=True):
        assert said, kind
        if kind == "hold":
            assert (frames == frames[0]).all()


@given(st.text(alphabet="abc .,!?AB", max_size=30))
def test_cleaning_a_sentence_twice_changes_nothing_more(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not once.endswith((".", "!", " "))


def test_cleaned_sentences() -> None:
    assert clean("A dog runs , and a cat sits .") == "a dog runs, and a cat sits"
    assert clean("TV on a table .") == "TV on a table"


# -- light and weather -----------------------------------------------------------------------------------------------


def weather(pattern: str, seed: int) -> list[tuple[Array, str, str]]:
    generator, found = new(seed), []
    for _ in range(60):
        out, shares = np.empty((6, 48, 48, 3), np.uint8), (np.arange(6) + 0.5) / 6
        told = SCENE_PLOTS["weather"](out, shares, generator)
        assert told.foil is not None
        if re.search(pattern, told.sentences[0]):
            found.append((out, told.sentences[0], told.foil))
    assert len(found) > 4
    return found


def test_it_gets_dark_as_told() -> None:
    for frames, text, foil in weather(r"room|dark over|darker|bright|light over|night|day", 1):
        darker = frames[-1].mean() < frames[0].mean()
        assert darker == bool(re.search(r"dark|goes out|falls|ends", text)), text
        assert darker != bool(re.search(r"dark|goes out|falls|ends", foil)), foil


def test_it_rains_as_told() -> None:
    for frames, text, foil in weather(r"\brain|flakes|snow(?:ing| begins| stops| ends)|to snow", 2):
        motion = np.abs(np.diff(frames.astype(int), axis=0)).max(-1).astype(bool).sum((1, 2))
        assert (motion[-1] > motion[0]) == bool(re.search(r"start|begin", text)), text
        assert (motion[-1] > motion[0]) != bool(re.search(r"start|begin", foil)), foil


def test_the_lighthouse_shines_as_told() -> None:
    for frames, text, foil in weather(r"lighthouse", 5):
        brighter = frames[-1].mean() > frames[0].mean()
        assert brighter == bool(re.search(r"lit|goes on|begins", text)), text
        assert brighter != bool(re.search(r"lit|goes on|begins", foil)), foil


BODIES = ((252, 214, 60), (255, 236, 190), (240, 232, 200))  # of the sun by day and in the evening, of the moon


def test_the_sun_rises_as_told() -> None:
    for frames, text, foil in weather(r"\b(?:sun|moon)", 3):
        first, last = frames[0].astype(float), frames[-1].astype(float)
        changed = np.abs(last - first).max(-1) > 25
        off = [min(np.abs(frame[changed] - body).mean() for body in BODIES) for frame in (first, last)]
        rises = off[1] < off[0]
        assert rises == bool(re.search(r"rise|goes up|comes up", text)), text
        assert rises != bool(re.search(r"rise|goes up|comes up", foil)), foil


def test_traffic_passes_in_the_told_order() -> None:
    generator, tried = new(6), 0
    for _ in range(60):
        out, shares = np.empty((10, 64, 64, 3), np.uint8), (np.arange(10) + 0.5) / 10
        told = SCENE_PLOTS["traffic"](out, shares, generator)
        named = re.findall(
            rf"\b({NAMES})\b",
            re.sub(r"(with|red|grey|brown) \w+ walls?|yellow field|green (field|meadow)", "", told.sentences[0]),
        )
        if len(set(named)) != 2 or len(named) != 2 or "grey" in named:
            continue
        still = np.median(out, axis=0)
        halves = []
        for part in (out[:5], out[5:]):
            moving = np.abs(part - still).max(-1) > 30
            pixels = part[moving].astype(float)
            near = [(np.linalg.norm(pixels - COLOURS[name], axis=-1) < 40).sum() for name in named]
            halves.append(near[0] - near[1])
        if abs(halves[0] - halves[1]) > 60:
            tried += 1
            assert halves[0] > halves[1], told.sentences[0]
            assert told.foil is not None
            assert [w for w in re.findall(rf"\b({NAMES})\b", told.foil) if w in named][:2] == named[::-1]
    assert tried > 8


# -- all together ----------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_clips_and_leaves_others_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = (made.made_clips([], [], 40, 5, 32, new(9)) for _ in range(2))
    other = made.made_clips([], [], 40, 5, 32, new(10))
    assert (one.frames == two.frames).all()
    assert (one.sentences, one.foils, one.kinds) == (two.sentences, two.foils, two.kinds)
    assert (one.start_seconds == two.start_seconds).all()
    assert one.sentences != other.sentences
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_clips_agree_in_length_and_time() -> None:
    clips = made.made_clips([], [], 60, 6, 32, new(1))
    assert clips.frames.shape == (60, 6, 32, 32, 3)
    assert clips.frames.dtype == np.uint8
    assert len(clips) == len(clips.sentences) == len(clips.foils) == len(clips.kinds) == 60
    assert (clips.start_seconds[:, 0] == 0).all()
    assert (clips.end_seconds[:, :-1] == clips.start_seconds[:, 1:]).all()
    assert (clips.end_seconds > clips.start_seconds).all()
    assert 0.9 < clips.end_seconds[:, -1].min() < clips.end_seconds[:, -1].max() <= 16.001
    assert all(said and foil not in said for said, foil in zip(clips.sentences, clips.foils, strict=True))
    with pytest.raises(ValueError, match="60 clips"):
        made.Clips(clips.frames, clips.start_seconds, clips.end_seconds, clips.sentences[1:], clips.foils, clips.kinds)


def test_the_set_for_measuring_is_fixed() -> None:
    clips, fewer = made.test_clips(300, size=32), made.test_clips(30, size=32)
    assert clips.sentences[:30] == fewer.sentences
    assert (clips.frames[:30] == fewer.frames).all()
    assert set(clips.kinds) == {*PLOTS, *SCENE_PLOTS, "cut", "fade"}
    assert sum(foil is not None for foil in clips.foils) > 180
    check_wording([text for said in clips.sentences for text in said] + [foil for foil in clips.foils if foil])
    told = "\n".join(str([said, foil]) for said, foil in zip(clips.sentences, clips.foils, strict=True))
    # What was measured on another set is not comparable: raise DRAWING and measure anew when this changes.
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "51cd7bc99584a5a9"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 3}, "5 clips of 3 frames"),
        ({"size": 8}, "of 8 pixels"),
        ({"count": -1}, "-1 clips"),
        ({"kinds": {"pirouette": 1}}, "'pirouette'.*zoom"),
        ({"kinds": {"pan": 1}}, "no kind of clip to make of 0 photographs"),
        ({"kinds": {}}, "no kind"),
        ({"sentences": [["a"]]}, "0 photographs with sentences for 1"),
    ],
)
def test_what_cannot_be_made(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"photos": [], "sentences": [], "count": 5, "frames": 6, "size": 32, "generator": new(0)}
    with pytest.raises(OptionError, match=message):
        made.made_clips(**{**asked, **change})
    with pytest.raises(OptionError, match="-1 pictures"):
        drawn_pictures(-1, 32, new(0))


def test_the_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert made.main(["--out", str(out), "--count", "4", "--frames", "4", "--kind", "move", "--kind", "cut"]) == 0
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape[1] > 4 * 96 * 2
    assert picture.std() > 10
    assert made.main(["--out", str(tmp_path / "sheet.txt"), "--count", "1", "--test-set"]) == 1
    assert "sheet.txt" in capsys.readouterr().err
    assert made.main(["--out", str(out), "--photos", str(tmp_path / "none.npz")]) == 1
    assert "none.npz" in capsys.readouterr().err
