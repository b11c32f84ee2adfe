"""Real clips and the bundled model: the figures are those of the clips' own moments. How good they are is for the
model's card to say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.evaluation.library import evaluate_library
from pipeline.evaluation.moments import read_truth
from pipeline.library import Library

pytestmark = pytest.mark.media

CLIPS = ("sam2_01_dog.mp4", "sam2_04_coffee.mp4", "ibm_baseball.mp4")


def test_three_clips_are_judged(media: Path, tmp_path: Path) -> None:
    truth = [moment for moment in read_truth(media / "clips" / "moments.jsonl") if moment.video in CLIPS]
    assert Counter(moment.video for moment in truth) == {CLIPS[0]: 5, CLIPS[1]: 2, CLIPS[2]: 4}
    with Library.open(tmp_path / "library", model="tiny") as library:
        library.add(*(media / "clips" / name for name in CLIPS))
        scores = evaluate_library(library, truth)
    assert (scores.model, scores.random_weights, scores.videos, scores.refused) == ("tiny", False, 3, ())
    shares = [
        sum(span.duration_seconds for span in moment.spans) / moment.duration_seconds
        for moment in truth
        if moment.duration_seconds is not None
    ]
    assert scores.in_video.chance.peak_inside == pytest.approx(100 * sum(shares) / len(truth), abs=1.0)
    assert scores.in_library.chance.peak_inside < scores.in_video.chance.peak_inside
    for way in (scores.in_video, scores.in_library):
        assert way.scores.answered == way.baseline.answered == len(truth)
        assert 0 <= way.chance.r1[0.7] <= way.chance.r1[0.5] <= way.chance.r1[0.3] <= 100
        assert 0 <= way.scores.r1[0.3] <= way.scores.r5[0.3] <= 100
    for moment in truth:
        spans = [p for p in scores.in_video.predictions if p.query_id == moment.query_id]
        assert {p.video for p in spans} == {moment.video}
        assert all(0 <= p.start_seconds < p.end_seconds <= (moment.duration_seconds or 0) + 0.1 for p in spans)
