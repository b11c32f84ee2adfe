"""Real clips, a real model size: a frame of each clip finds the moment that it was taken from.

ViT-B-32 with random weights: nothing is learnt, so this shows that sampling, gate, merging, index and moments keep what
the model can tell apart, not how good a model is.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from pipeline import Library
from pipeline.search import Moment
from pipeline.sources import open_source
from tests.jobs.running import longreel

pytestmark = [pytest.mark.media, pytest.mark.ray]


@pytest.fixture(scope="module")
def store(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "store"
    ran = longreel(
        "submit", media / "clips", media / "long", "--store", folder, "--model", "openclip:ViT-B-32/random", "--json"
    )
    assert ran.code == 0, ran
    return folder


def middle_frame(clip: Path) -> tuple[float, Image.Image]:
    with open_source(str(clip), decoder="pyav", short_side=None) as source:
        assert source.info.duration_seconds is not None
        shown = None
        for frame in source.frames():
            if shown is not None and frame.pts_seconds > source.info.duration_seconds / 2:
                break
            shown = frame
        assert shown is not None
        return shown.pts_seconds, Image.fromarray(shown.image)


def altered(picture: Image.Image) -> Image.Image:
    """Cropped by a tenth and brightened by 15%."""
    w, h = picture.size
    cropped = picture.crop((round(w * 0.05), round(h * 0.05), round(w * 0.95), round(h * 0.95)))
    return ImageEnhance.Brightness(cropped).enhance(1.15)


def test_each_clip_is_found_by_its_middle_frame(media: Path, store: Path) -> None:
    lines = [json.loads(line) for line in (media / "long" / "moments.jsonl").read_text().splitlines()]
    placed = {line["shot"]: line["start"] for line in lines if "shot" in line}

    def right(moment: Moment, clip: Path, seconds: float) -> bool:
        if moment.name == "long_mix.mp4" and clip.name in placed:
            seconds += placed[clip.name]  # the same clip is cut in there
        elif moment.name != clip.name:
            return False
        return moment.start_seconds <= seconds < moment.end_seconds

    clips = sorted(path for path in (media / "clips").iterdir() if path.suffix in (".mp4", ".webm"))
    assert len(clips) == 12
    exact, rough = {}, {}
    with Library.open(store, create=False) as library:
        for clip in clips:
            seconds, picture = middle_frame(clip)
            exact[clip.name] = right(library.query(image=picture, limit=1)[0], clip, seconds)
            rough[clip.name] = right(library.query(image=altered(picture), limit=1)[0], clip, seconds)
    assert all(exact.values()), exact
    assert sum(rough.values()) >= 8, rough


def test_a_fixed_camera_keeps_an_eighth(store: Path) -> None:
    shown = longreel("videos", "show", "intel_one-by-one-person-detection.mp4", "--store", store, "--json").value
    assert shown["frames_sampled"] == 279
    assert shown["vectors"] <= 279 / 8
