"""``longreel submit --dry-run``: what it says, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.settings import load_settings
from pipeline.catalog.records import CaptionRecord
from pipeline.library import Library
from tests.jobs.running import QUICK, Ran, draw_film, draw_sound, longreel, settings, tiny_model

DECODER = settings("ingest.decode.decoder=tests.jobs.doubles:by_name", "workers.decoders=1")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return tmp_path / "films"


def dry_run(folder: Path, films: Path, *arguments: str, code: int = 0) -> Ran:
    ran = longreel(
        "submit", films, "--store", folder / "store", "--model", tiny_model(folder), "--dry-run", *DECODER, *arguments
    )
    assert ran.code == code, ran.err
    assert not (folder / "store").exists(), "nothing is written"
    return ran


def test_for_people_and_for_programs(tmp_path: Path, films: Path) -> None:
    draw_film(films / "long.mp4", 30, seed=1)
    draw_film(films / "short.mp4", 4, seed=2)
    told: dict[str, Any] = dry_run(tmp_path, films, "--json").value
    assert (told["dry_run"], told["todo"], told["skipped"], told["failed"]) == (True, 2, 0, 0)
    assert [(Path(item["uri"]).name, item["state"], item["parts"]) for item in told["items"]] == [
        ("long.mp4", "todo", 1),
        ("short.mp4", "todo", 1),
    ]
    estimate = told["estimate"]
    assert Path(estimate["sampled_uri"]).name == "long.mp4"
    assert estimate["sampled_seconds"] == pytest.approx(20, abs=0.5)
    assert estimate["media_hours"] == pytest.approx(34 / 3600, rel=0.01)
    assert min(estimate["decode_seconds_per_hour"], estimate["encode_seconds_per_hour"], estimate["work_hours"]) > 0
    assert estimate["disk_bytes"] > 1000
    more = dry_run(tmp_path, films, "--json", "--set", "workers.decoders=5", "--set", "workers.encoders=2").value
    each = more["estimate"]["memory_bytes"] - estimate["memory_bytes"]
    assert each > 4 * 150e6, "four more decoders, each with a process of its own, and one more model"
    assert 1e9 < estimate["memory_bytes"] < 8e9
    said = dry_run(tmp_path, films).out
    for words in ("todo  long.mp4  0:30, 1 part", "2 videos, 0.01 hours", "nothing was written", "of memory"):
        assert words in said


def test_a_sample_that_cannot_be_decoded_is_taken_from_the_next(tmp_path: Path, films: Path) -> None:
    draw_film(films / "crash.mp4", 30, seed=1)
    draw_film(films / "blank.mp4", 26, seed=2)
    draw_film(films / "good.mp4", 4, seed=3)
    draw_sound(films / "sound.mp4")
    told = dry_run(tmp_path, films, "--json", code=3).value
    assert {Path(item["uri"]).name: (item["error"] or {}).get("type") for item in told["items"]} == {
        "blank.mp4": None,
        "crash.mp4": "DecoderCrashed",
        "good.mp4": None,
        "sound.mp4": "NoVideoStream",
    }
    assert (told["todo"], told["failed"]) == (2, 2)
    estimate = told["estimate"]
    assert Path(estimate["sampled_uri"]).name == "blank.mp4", "its beginning has frames"
    assert estimate["disk_bytes"] > 0
    assert estimate["media_hours"] == pytest.approx(30 / 3600, rel=0.01)


def test_nothing_to_measure(tmp_path: Path, films: Path) -> None:
    draw_film(films / "crash.mp4", 4, seed=1)
    assert "nothing to do" in dry_run(tmp_path, films, code=3).out
    assert dry_run(tmp_path, films, "--json", code=3).value["estimate"] is None


def test_what_nobody_foresaw_costs_one_video(tmp_path: Path, films: Path) -> None:
    draw_film(films / "slip.mp4", 8, seed=1)
    draw_film(films / "good.mp4", 4, seed=2)
    told = dry_run(tmp_path, films, "--json", code=3).value
    assert {Path(item["uri"]).name: (item["error"] or {}).get("type") for item in told["items"]} == {
        "slip.mp4": "UnexpectedError",
        "good.mp4": None,
    }
    assert Path(told["estimate"]["sampled_uri"]).name == "good.mp4"


def test_what_would_be_captioned_is_told_where_it_is_known(tmp_path: Path) -> None:
    """Of five segments one has a caption already, and for one there were no words; another video is new."""
    films, store, model = tmp_path / "films", tmp_path / "store", tiny_model(tmp_path)
    recipe = ("ingest.segments.detector=none", "ingest.segments.max_seconds=2")
    captioner = "vlm:m@http://localhost:1/v1"
    draw_film(films / "old.mp4", 10, seed=1)
    with Library.open(store, model=model) as library:
        (added,) = library.add(films, options=load_settings("default", [*QUICK, *recipe]).ingest)
        assert (added.state, added.segments) == ("done", 5)
        video = library.video("old.mp4").id
        first, second, *_ = library.catalog.segments_of(video)
        with library.writing("test") as catalog:
            words = {first.id: CaptionRecord(video, captioner, "Words", first.span, None)}
            catalog.keep_captions(video, captioner, words, [second.id])

    def dry_run(*words: str) -> Ran:
        options = ("--model", model, "--store", store, "--dry-run", *settings(*recipe))
        ran = longreel("submit", films, *options, *words)
        assert ran.code == 0, ran.err
        return ran

    said = dry_run("--captions", captioner + "/").out
    assert "old.mp4  0:10, 1 part, 3 segments to caption" in said
    assert f"captions by {captioner}/: 3 segments of 1 videos that are indexed; not part of the estimate" in said
    assert "captions" not in dry_run().out
    (item,) = dry_run("--captions", captioner, "--json").value["items"]
    assert (item["state"], item["to_caption"]) == ("skipped", 3)
    draw_film(films / "new.mp4", 4, seed=2)
    said = dry_run("--captions", "tiny").out
    assert "5 segments of 1 videos that are indexed and all segments of the 1 videos to do, once" in said
    assert [one["to_caption"] for one in dry_run("--json").value["items"]] == [None, None]
