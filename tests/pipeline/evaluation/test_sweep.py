"""The dial: each video is decoded and encoded once, less is kept at every turn, and what is lost shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import DigestOptions, TokenOptions
from pipeline.errors import OptionError
from pipeline.evaluation.moments import TruthMoment
from pipeline.evaluation.runs import Judge
from pipeline.evaluation.sweep import sweep_tape
from pipeline.evaluation.tape import Tape, record
from pipeline.ingest import IngestOptions
from pipeline.segments import SegmentOptions
from pipeline.sources import find_sources
from tests.pipeline.evaluation.colours import BLIND, ColourModel, draw_library_of_films

OPTIONS = IngestOptions(segments=SegmentOptions(detector="none", max_seconds=30.0))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TruthMoment]]:
    folder = tmp_path_factory.mktemp("films")
    return folder, draw_library_of_films(folder)


def taped(folder: Path, films: Path, encoder: ColourModel, tokens: bool = True) -> Tape:
    folder.mkdir()
    return record(encoder, find_sources([str(films)]), OPTIONS, folder, tokens=tokens)


def test_both_dials(films: tuple[Path, list[TruthMoment]], tmp_path: Path) -> None:
    encoder = ColourModel()
    said: list[str] = []
    judge = Judge(films[1], tmp_path / "work", progress=lambda what, *_: said.append(what))
    judge.folder.mkdir()
    with taped(tmp_path / "tape", films[0], encoder) as tape:
        frames = encoder.frames
        sweep = sweep_tape(judge, tape, encoder, DigestOptions(), token_budgets=(None, 16, 1))
        assert encoder.frames == frames == len(tape)  # nothing was encoded again
    assert list(judge.folder.iterdir()) == []
    counts = [point.scores.vectors for point in sweep.vectors]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == len(counts)  # it ends where a turn changes nothing
    assert counts[-1] == 2  # one for each film, which is one segment
    assert sweep.vectors[0].scores.in_video.scores.r1[0.3] == 100
    assert sweep.vectors[-1].scores.in_video.scores.r1[0.3] < 100
    per_hour = [point.tokens_per_hour for point in sweep.tokens]
    assert per_hour == sorted(per_hour, reverse=True)
    every, some, one = sweep.tokens
    assert every.tokens == 4 * len(tape)
    assert (some.tokens, one.tokens) == (32, 2)
    assert (every.compressor, some.compressor, one.budget) == ("identity", "ward", 1)
    assert every.readout_cosine > 0.98
    assert every.scores.in_video.scores.r1[0.3] == some.scores.in_video.scores.r1[0.3] == 100
    assert one.scores.in_video.scores.r1[0.3] < 100
    assert said[0] == "1 frames a vector: merging and indexing"
    assert "16 tokens a segment: asking" in said
    value = json.loads(json.dumps(sweep.to_dict(), allow_nan=False))
    assert [point["frames_per_vector"] for point in value["vectors"]][:2] == [1, 2]
    assert [point["budget"] for point in value["tokens"]] == [None, 16, 1]
    assert value["tokens"][0]["in_video"]["R1@0.3"] == 100


def test_a_model_without_tokens_has_one_dial(films: tuple[Path, list[TruthMoment]], tmp_path: Path) -> None:
    encoder = ColourModel(BLIND, tokens=False)
    with taped(tmp_path / "tape", films[0], encoder, tokens=False) as tape:
        sweep = sweep_tape(Judge(films[1], tmp_path), tape, encoder, DigestOptions(), frames_per_vector=(2, 4))
    assert [point.frames_per_vector for point in sweep.vectors] == [2, 4]
    assert sweep.tokens == ()
    assert "gives no patch tokens" in sweep.notes[0]


def test_settings_are_checked_before_anything_is_made(films: tuple[Path, list[TruthMoment]], tmp_path: Path) -> None:
    encoder = ColourModel()
    digest = DigestOptions()
    with taped(tmp_path / "tape", films[0], encoder) as tape:
        judge = Judge(films[1], tmp_path / "absent")
        with pytest.raises(OptionError, match=r"frames_per_vector is 0\.5"):
            sweep_tape(judge, tape, encoder, digest, frames_per_vector=(2, 0.5))
        with pytest.raises(OptionError, match=r"tokens\.budget"):
            sweep_tape(judge, tape, encoder, digest, token_budgets=(8, -1))
        keeps = replace(digest, tokens=TokenOptions(compressor="identity", budget=None))
        with pytest.raises(OptionError, match="keeps everything"):
            sweep_tape(judge, tape, encoder, keeps)
    assert not judge.folder.exists()
