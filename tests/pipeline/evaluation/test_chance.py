"""Chance is computed exactly: it agrees with drawing, and with what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.chance import Place, chance_of, overlap_chance, peak_chance
from pipeline.evaluation.scores import iou
from pipeline.media import Span

seconds = st.integers(0, 40).map(lambda n: n / 4)


@st.composite
def places(draw: st.DrawFn) -> Place:
    duration = draw(st.integers(4, 60)) / 2
    spans = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.floats(0, duration * 0.95))
        spans.append(Span(start, min(start + draw(st.floats(0.05, duration)), duration)))
    return Place(tuple(spans), duration)


def drawn(place: Place, lengths: list[float], threshold: float, count: int) -> float:
    """The same by trying evenly spaced starts."""
    right = np.array([(s.start_seconds, s.end_seconds) for s in place.spans])
    hits = []
    for length in lengths:
        length = min(length, place.duration_seconds)
        start = (np.arange(count) + 0.5) / count * (place.duration_seconds - length)
        hits.append((iou(np.stack([start, start + length], 1), right).max(axis=1) >= threshold).mean())
    return float(np.mean(hits))


@given(places(), st.lists(st.floats(0.2, 40), min_size=1, max_size=4), st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0]))
@settings(max_examples=50, deadline=None)
def test_it_agrees_with_trying_every_place(place: Place, lengths: list[float], threshold: float) -> None:
    exact = overlap_chance(place, lengths, threshold)
    assert 0 <= exact <= 1
    if threshold < 1:  # at 1 a single place is right, which no even grid has
        assert exact == pytest.approx(drawn(place, lengths, threshold, 1500), abs=0.005)


@given(places(), st.lists(st.floats(0.2, 40), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_a_higher_threshold_is_never_easier_and_time_has_no_unit(place: Place, lengths: list[float]) -> None:
    found = [overlap_chance(place, lengths, x) for x in (0.1, 0.3, 0.5, 0.9)]
    assert found == sorted(found, reverse=True)
    faster = Place(tuple(Span(s.start_seconds / 8, s.end_seconds / 8) for s in place.spans), place.duration_seconds / 8)
    assert overlap_chance(faster, [x / 8 for x in lengths], 0.3) == pytest.approx(found[1], abs=1e-9)
    assert peak_chance(faster) == pytest.approx(peak_chance(place))


def test_by_hand() -> None:
    place = Place((Span(4, 6),), 10.0)
    # A span of 2 s reaches IoU 1/3 when it shares 1 s: it starts from 3 to 5, of the 8 s where it can.
    assert overlap_chance(place, [2.0], 1 / 3) == pytest.approx(2 / 8)
    assert overlap_chance(place, [2.0, 2.0, 10.0], 1 / 3) == pytest.approx((2 / 8 + 2 / 8 + 0) / 3)
    assert overlap_chance(place, [10.0, 99.0], 0.2) == 1.0  # the whole video: IoU is 0.2 wherever
    assert overlap_chance(place, [10.0], 0.21) == 0.0
    assert overlap_chance(place, [], 0.3) == 0.0
    assert peak_chance(place) == pytest.approx(0.2)
    # Right spans may overlap: starts up to 5 - 30/13 reach the first, up to 6 - 30/13 the second, and count once.
    both = Place((Span(1, 6), Span(0, 5)), 10.0)
    assert overlap_chance(both, [5.0], 0.3) == pytest.approx((6 - 30 / 13) / 5)
    apart = Place((Span(0, 2), Span(6, 8)), 10.0)
    assert overlap_chance(apart, [2.0], 1 / 3) == pytest.approx((1 + 2) / 8)
    twice = Place((Span(2, 5), Span(4, 6), Span(4, 5)), 10.0)  # 4 s in all
    assert peak_chance(twice) == pytest.approx(0.4)
    assert peak_chance(Place((Span(0, 12),), 10.0)) == 1.0


def test_in_a_whole_library_the_right_video_has_to_be_hit_too() -> None:
    places = [Place((Span(4, 6),), 10.0), Place((Span(0, 30),), 30.0)]
    alone = chance_of(places, [2.0], (1 / 3,), scale=100)
    assert alone.peak_inside == pytest.approx(100 * (0.2 + 1.0) / 2)
    assert alone.r1[1 / 3] == pytest.approx(100 * (0.25 + 0) / 2)
    among = chance_of(places, [2.0], (1 / 3,), library_seconds=40.0)
    assert among.peak_inside == pytest.approx((0.2 * 0.25 + 1.0 * 0.75) / 2)
    assert among.r1[1 / 3] == pytest.approx(0.25 * 0.25 / 2)
