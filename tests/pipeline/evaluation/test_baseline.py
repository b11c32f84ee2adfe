"""Mean-pooled windows: they partition the segments, and each is the mean of what lies in it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OptionError
from pipeline.evaluation.baseline import PooledWindows, pool_video, windows_of
from pipeline.media import Span
from tests.pipeline.test_library import filled


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 80), min_size=1, max_size=6), st.floats(0.5, 40))
def test_windows_partition_the_segments(lengths: list[float], longest: float) -> None:
    edges = np.cumsum([0.0, *lengths])
    segments = [Span(a, b) for a, b in pairwise(edges.tolist())]
    windows = windows_of(segments, longest)
    assert all(w.duration_seconds <= longest * (1 + 1e-6) for w in windows)
    assert all(a.end_seconds == b.start_seconds for a, b in pairwise(windows))
    assert (windows[0].start_seconds, windows[-1].end_seconds) == (0.0, edges[-1])
    assert {s.start_seconds for s in segments} <= {w.start_seconds for w in windows}


def test_a_window_is_the_mean_of_what_lies_in_it(tmp_path: Path) -> None:
    with filled(tmp_path) as library:  # a.mp4: two segments of 20 s, red 10 s, green 10 s; blue, red
        video = library.video("a.mp4").id
        whole = pool_video(library.catalog, video, 20.0)
        assert whole.spans == (Span(0, 20), Span(20, 40))
        eye, half = np.eye(8), np.sqrt(0.5)
        np.testing.assert_allclose(whole.embedding, [half * (eye[0] + eye[1]), half * (eye[2] + eye[0])], atol=1e-3)
        # 8 s windows would cut at 6.67 and 13.33: the middle one holds a third of red, a third of green.
        thirds = pool_video(library.catalog, video, 8.0)
        np.testing.assert_allclose(thirds.embedding[1], half * (eye[0] + eye[1]), atol=1e-3)
        np.testing.assert_allclose(thirds.embedding[0], eye[0], atol=1e-3)
        asked = PooledWindows([whole, pool_video(library.catalog, library.video("b.mp4").id, 20.0)])
        best = asked.nearest(np.array([0, 2, 0, 0, 0, 0, 0, 0], np.float32), 2)
        assert [(name, span) for name, span, _ in best] == [
            (library.video("b.mp4").id, Span(0, 20)),
            (video, Span(0, 20)),
        ]
        assert best[0][2] == pytest.approx(1.0, abs=1e-3)
        assert asked.nearest(best_query := eye[1].astype(np.float32), 9, video)[0][1] == Span(0, 20)
        assert asked.nearest(best_query, 9, "no such") == []
        assert PooledWindows([]).nearest(best_query, 3) == []


def test_a_window_lasts_longer_than_nothing() -> None:
    with pytest.raises(OptionError, match="windows of 0"):
        windows_of([Span(0, 1)], 0.0)
