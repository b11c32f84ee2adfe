"""A library whose right answers are known is judged as it deserves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.errors import TextTooLong
from pipeline.errors import InputError, OptionError, TruthError, UnknownVideo
from pipeline.evaluation.certainty import Difference
from pipeline.evaluation.library import Latency, evaluate_library, match_videos
from pipeline.evaluation.moments import TruthMoment
from pipeline.evaluation.scores import score_moments
from pipeline.library import Library
from pipeline.media import Span
from tests.pipeline.test_library import Colours, add_vectors, filled


def moment(query: str, video: str, *spans: tuple[float, float]) -> TruthMoment:
    return TruthMoment(f"{video}/{query}", query, video, tuple(Span(*span) for span in spans), None)


TRUTH = [moment("blue", "a.mp4", (20, 30)), moment("green", "b.mp4", (0, 20)), moment("red", "a", (0, 10), (30, 40))]


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """a.mp4: red 10 s, green, blue, red; b.mp4: green 20 s, then nothing with a name."""
    with filled(tmp_path / "library") as opened:
        yield opened


def test_right_answers_give_a_hundred(library: Library) -> None:
    told = []
    scores = evaluate_library(library, TRUTH, progress=lambda *at: told.append(at))
    assert told == [("asking", i, 3) for i in (1, 2, 3)]
    for way in (scores.in_video, scores.in_library):
        assert way.scores.r1 == {0.3: 100, 0.5: 100, 0.7: 100}
        assert way.scores.peak_inside == 100
        assert way.scores.mean_iou == pytest.approx(100)
        assert way.latency.p50_ms is not None
        assert 0 < way.latency.p50_ms <= (way.latency.p95_ms or 0)
    assert {video: s.queries for video, s in scores.in_video.scores.per_video.items()} == {
        "a.mp4": 1,
        "b.mp4": 1,
        "a": 1,
    }
    # Of 40 s each: 10, 20 and 20 are right; in the library, of 80 s.
    assert scores.in_video.chance.peak_inside == pytest.approx(100 * (10 + 20 + 20) / 40 / 3)
    assert scores.in_library.chance.peak_inside == pytest.approx(scores.in_video.chance.peak_inside / 2)
    assert 0 < scores.in_video.chance.r1[0.3] < 100
    # Windows of 10 s are pure here; of 20 s, those of the first segment are half red, half green.
    assert scores.in_video.baseline.r1[0.3] == 100
    assert (scores.videos, scores.hours, scores.vectors) == (2, pytest.approx(80 / 3600), 16)
    assert scores.vectors_per_hour == pytest.approx(720)
    coarse = evaluate_library(library, TRUTH, baseline_seconds=20.0)
    assert coarse.in_video.baseline.r1[0.7] < 100
    assert coarse.in_video.scores == scores.in_video.scores


def test_an_answer_in_another_video_is_wrong(library: Library) -> None:
    truth = [moment("green", "a.mp4", (10, 20))]
    with library.writing("test") as catalog:  # green in a.mp4, only nearly
        library.catalog.remove_video(library.video("a.mp4").id)
        nearly = np.eye(8)[[0, 1, 2, 0]]
        nearly[1, 3] = 0.5
        add_vectors(catalog, "/v/a.mp4", np.repeat(nearly, 2, axis=0), tag="a")
    scores = evaluate_library(library, truth, limit=1)
    assert scores.in_video.scores.r1[0.7] == 100
    assert [answer.video for answer in scores.in_library.predictions] == ["b.mp4"]
    assert (scores.in_library.scores.r1[0.3], scores.in_library.scores.peak_inside) == (0, 0)
    assert evaluate_library(library, truth, limit=5).in_library.scores.r5[0.7] == 100


def test_what_so_few_queries_can_tell_is_said(library: Library) -> None:
    way = evaluate_library(library, TRUTH).in_library
    assert way.peak_interval == pytest.approx((43.85, 100), abs=0.01)
    windows = [p for p in way.predictions if p.query_id != TRUTH[0].query_id]  # as if blue were not found by them
    plain = replace(way, baseline=score_moments(TRUTH, windows))
    assert plain.beside_baseline == Difference(1, 0)
    told = plain.to_dict()
    assert told["peak_inside_95"] == [43.85, 100.0]
    assert told["peak_inside_beside_baseline"] == {"alone": 1, "other_alone": 0, "luck": 1.0}


def test_two_videos_of_one_name_are_told_apart(library: Library) -> None:
    with library.writing("test") as catalog:
        add_vectors(catalog, "/other/a.mp4", np.repeat(np.eye(8)[[4, 4, 2, 4]], 2, axis=0), tag="x")
    with pytest.raises(UnknownVideo, match=r"'a\.mp4' names 2 videos"):
        evaluate_library(library, TRUTH)
    mine = [replace(m, video=f"/v/{m.video}") for m in TRUTH[:2]]
    scores = evaluate_library(library, mine, limit=2)
    blues = [p.video for p in scores.in_library.predictions if p.query_id == mine[0].query_id]
    assert sorted(blues) == ["/v/a.mp4", "a.mp4"]  # the other is named by its own name, which the truth does not mean
    other = library.video("/other/a.mp4").id
    with library.writing("test") as catalog:
        catalog.describe_video(other, "/v/a.mp4")  # a name that is the address of the first
    scores = evaluate_library(library, mine[:1], limit=2)
    assert sorted(p.video for p in scores.in_library.predictions) == sorted(["/v/a.mp4", other])
    named = [replace(mine[0], video=library.video("/v/a.mp4").id)]
    assert evaluate_library(library, named, limit=2).in_video.scores.r1[0.7] == 100


def test_all_that_is_missing_is_named_at_once(library: Library) -> None:
    truth = [moment("red", "aa.mp4", (0, 1)), *TRUTH, moment("red", "zebra", (0, 1))]
    with pytest.raises(UnknownVideo, match=r"2 of the 5 videos of the truth: no video 'aa\.mp4' .*near: 'a\.mp4'.*'z"):
        evaluate_library(library, truth)
    assert match_videos(library, TRUTH)["a"].name == "a.mp4"  # without its ending


def test_truth_that_cannot_be(library: Library) -> None:
    with pytest.raises(TruthError, match="no right moments"):
        evaluate_library(library, [])
    with pytest.raises(TruthError, match=r"a\.mp4: the right span \[41, 45\) of 'red' .* lasts 40 s"):
        evaluate_library(library, [moment("red", "a.mp4", (41, 45))])
    with pytest.raises(TruthError, match=r"\[30, 42\)"):
        evaluate_library(library, [moment("red", "a.mp4", (30, 42))])
    evaluate_library(library, [moment("red", "a.mp4", (30, 40.9))])  # durations are rounded
    with pytest.raises(OptionError, match="limit"):
        evaluate_library(library, TRUTH, limit=0)
    with library.writing("test") as catalog:
        catalog.fail_video("0" * 16, "/v/broken.mp4", "broken.mp4", InputError("broken"))
    with pytest.raises(InputError, match=r"nothing is stored of 'broken\.mp4' \(failed\)"):
        evaluate_library(library, [moment("red", "broken.mp4", (0, 1))])


def test_a_query_that_the_model_does_not_take_is_missed_and_told(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Colours.encode_query

    def picky(self: Any, texts: list[str]) -> Any:
        if texts == ["blue"]:
            raise TextTooLong("77 tokens")
        return encode(self, texts)

    monkeypatch.setattr(Colours, "encode_query", picky)
    scores = evaluate_library(library, TRUTH)
    assert scores.refused == ("blue",)
    assert scores.in_video.scores.r1[0.3] == pytest.approx(100 * 2 / 3)
    assert scores.in_video.scores.answered == 2
    nothing = evaluate_library(library, TRUTH[:1])
    assert nothing.in_video.latency == Latency(None, None)
    assert nothing.in_video.chance.r1[0.3] == 0.0


def test_what_is_written_is_json(library: Library) -> None:
    value = json.loads(json.dumps(evaluate_library(library, TRUTH).to_dict(), allow_nan=False))
    assert value["in_video"]["R1@0.3"] == 100
    assert value["in_video"]["chance"]["peak_inside"] == pytest.approx(41.67)
    assert value["in_video"]["baseline"]["R1@0.3"] == 100
    assert set(value["in_library"]["per_video"]) == {"a.mp4", "b.mp4", "a"}
    assert value["vectors_per_hour"] == 720
    assert value["random_weights"] is False
