"""Segments partition time, whatever the cuts; shot boundaries of a real edit are found to the frame."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OptionError
from pipeline.media import ClosedSegment
from pipeline.segments import Segmenter, SegmentOptions, ShotDetector
from pipeline.sources import open_source

steps = st.lists(st.tuples(st.integers(1, 200), st.booleans()), min_size=1, max_size=60)


@given(steps, st.integers(1, 40), st.integers(0, 50))
def test_segments_partition_the_time(frames: list[tuple[int, bool]], max_seconds: int, start: int) -> None:
    segmenter = Segmenter(SegmentOptions(min_seconds=0, max_seconds=max_seconds), float(start))
    closed: list[ClosedSegment] = []
    seconds, cuts = float(start), set()
    for step, is_cut in frames:
        seconds += step / 10
        closed += segmenter.advance(seconds, is_cut)
        if is_cut:
            cuts.add(seconds)
    end = seconds + 0.1
    closed += segmenter.finish(end, "end")

    assert closed[0].span.start_seconds == start
    assert closed[-1].span.end_seconds == end
    assert closed[-1].boundary == "end"
    for left, right in pairwise(closed):
        assert left.span.end_seconds == right.span.start_seconds
    assert [segment.index for segment in closed] == list(range(len(closed)))
    assert all(segment.span.duration_seconds <= max_seconds + 1e-9 for segment in closed)
    assert {s.span.end_seconds for s in closed if s.boundary == "shot"} >= {
        c for c in cuts if c in {s.span.end_seconds for s in closed}
    }
    assert cuts <= {s.span.end_seconds for s in closed}


def test_real_edit_is_cut_where_it_was_cut(media: Path) -> None:
    lines = [json.loads(line) for line in (media / "long" / "moments.jsonl").read_text().splitlines()]
    truth = [line["start"] for line in lines if "shot" in line][1:]
    with open_source(str(media / "long" / "long_mix.mp4"), short_side=72) as source:
        detector = ShotDetector(SegmentOptions(), source.info.average_fps)
        base = source.info.time_base
        found = [float(pts * base) for frame in source.frames() for pts in detector.push(frame)]
    missed = [cut for cut in truth if not any(abs(cut - f) < 0.021 for f in found)]  # half a frame
    assert missed == []
    # The clips themselves have cuts (a trailer, a cartoon), so more are right; but not one a second.
    assert len(found) < 40


@pytest.mark.parametrize("options", [{"detector": "magic"}, {"min_seconds": 40}, {"threshold": -1}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="segments"):
        SegmentOptions(**options)  # type: ignore[arg-type]
