"""Media time over connections, and time stamps of few bits: pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.live.types import utc_at
from pipeline.sources.live.timeline import Timeline
from pipeline.sources.live.unwrapping import Unwrapper

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
SECOND = 1_000_000


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_the_first_frame_is_zero_and_the_next_ones_follow_their_time_stamps() -> None:
    timeline = Timeline()
    connection = timeline.begin(7_000_000, NOON, None, None)
    assert (connection.number, connection.start_seconds, connection.utc) == (0, 0.0, NOON)
    assert timeline.place(7_000_000, 40_000, 0.0) == (0, 40_000)
    assert timeline.place(7_040_000, 40_000, 0.1) == (40_000, 40_000)
    assert timeline.end_seconds == pytest.approx(0.08)


def test_a_new_connection_lies_where_the_wall_clock_says() -> None:
    timeline = Timeline()
    timeline.begin(0, NOON, None, None)
    timeline.place(0, 2 * SECOND, 0.0)
    again = timeline.begin(500, at(60), None, "lost")
    assert (again.number, again.start_seconds, again.utc, again.reason) == (1, 60.0, at(60), "lost")
    assert timeline.place(500, 40_000, 60.0) == (60 * SECOND, 40_000)


@pytest.mark.parametrize("clock", [1.0, -3600.0])
def test_a_new_connection_never_lies_before_what_was_seen(clock: float) -> None:
    """The wall clock was set back, or frames came faster than it goes."""
    timeline = Timeline()
    timeline.begin(0, NOON, None, None)
    timeline.place(0, 5 * SECOND, 0.0)
    again = timeline.begin(0, at(clock), None, "lost")
    assert again.start_seconds == 5.0
    assert again.utc == at(clock)


def test_a_stream_that_was_watched_before_goes_on() -> None:
    timeline = Timeline(NOON, resume_seconds=100.0, number=3)
    connection = timeline.begin(0, at(86_400), None, None)
    assert (connection.number, connection.start_seconds) == (3, 86_400.0)


def test_frames_in_disorder_are_put_in_order() -> None:
    timeline = Timeline()
    timeline.begin(0, NOON, None, None)
    timeline.place(0, 40_000, 0.0)
    timeline.place(40_000, 40_000, 0.04)
    assert not timeline.jumps(20_000, 0.08)
    assert timeline.place(20_000, 40_000, 0.08)[0] == 40_001


@pytest.mark.parametrize(
    ("step", "waited", "live", "jumps"),
    [
        (0.04, 0.04, True, False),
        (9.0, 0.0, True, False),
        (11.0, 0.0, True, True),
        (11.0, 11.0, True, False),  # a pause that the wall clock knows of
        (3600.0, 3600.0, True, False),
        (3600.0, 20.0, True, True),
        (-0.5, 0.1, True, False),
        (-1.5, 0.1, True, True),
        (-0.5, 0.6, True, True),  # a server that began anew
        (3600.0, 0.0, False, False),  # a pause in a file
        (-0.5, 30.0, False, False),  # it was read slowly
        (-1.5, 0.0, False, True),
    ],
)
def test_what_is_another_clock(step: float, waited: float, live: bool, jumps: bool) -> None:
    timeline = Timeline()
    timeline.begin(0, NOON, None, None)
    for number in range(100):
        assert not timeline.jumps(number * 40_000, number * 0.04, live=live)
        timeline.place(number * 40_000, 40_000, number * 0.04)
    assert timeline.jumps(round(99 * 40_000 + step * SECOND), 99 * 0.04 + waited, live=live) is jumps


def test_a_change_of_format_keeps_the_clock() -> None:
    timeline = Timeline()
    timeline.begin(0, NOON, None, None)
    timeline.place(0, 40_000, 0.0)
    info = object()
    changed = timeline.reshape(40_000, info, "format")  # type: ignore[arg-type]
    assert (changed.start_seconds, changed.utc, changed.info) == (0.04, at(0.04), info)
    assert timeline.place(40_000, 40_000, 0.04)[0] == 40_000


@given(
    st.lists(
        st.tuples(st.sampled_from(["frame", "lost", "jump"]), st.floats(-100, 100), st.integers(0, 10_000_000)),
        max_size=40,
    )
)
def test_media_time_only_rises_whatever_happens(events: list[tuple[str, float, int]]) -> None:
    timeline = Timeline()
    connections = [timeline.begin(0, NOON, None, None)]
    own, wall, last = 0, 0.0, -1
    for kind, seconds, duration in events:
        wall += seconds
        own += duration
        if kind == "lost":
            own = 0
            connections.append(timeline.begin(own, at(wall), None, "lost"))
        elif kind == "jump":
            own += round(seconds * SECOND)
            connections.append(timeline.begin(own, at(wall), None, "clock"))
        pts, length = timeline.place(own, duration, wall)
        assert pts > last
        assert length >= 1
        assert pts / SECOND >= connections[-1].start_seconds - 1e-9
        last = pts
    assert [c.number for c in connections] == list(range(len(connections)))
    starts = [c.start_seconds for c in connections]
    assert starts == sorted(starts)
    assert utc_at(connections, starts[-1]) is not None


# -- time stamps -------------------------------------------------------------------------------------------------------


@given(
    bits=st.sampled_from([31, 32, 33]),
    clock=st.sampled_from([1000, 90_000]),
    steps=st.lists(st.integers(-90, 180), min_size=1, max_size=100),
    before=st.integers(0, 5000),
)
def test_a_wrap_around_does_not_show(bits: int, clock: int, steps: list[int], before: int) -> None:
    true = [(1 << bits) - before]
    for step in steps:
        true.append(max(true[0], true[-1] + step))
    unwrap = Unwrapper(Fraction(1, clock))
    assert [unwrap.to_continuous(value % (1 << bits)) for value in true] == [
        value - (true[0] - true[0] % (1 << bits)) for value in true
    ]


def test_many_wrap_arounds() -> None:
    unwrap = Unwrapper(Fraction(1, 90_000))
    period = 1 << 33
    true = range(0, 3 * period, 5 * 90_000)
    assert all(unwrap.to_continuous(value % period) == value for value in true)


def test_other_jumps_are_passed_on() -> None:
    unwrap = Unwrapper(Fraction(1, 90_000))
    assert [unwrap.to_continuous(value) for value in (0, 3600, 90_000 * 3600, 5)] == [0, 3600, 90_000 * 3600, 5]


def test_missing_time_stamps_follow_the_length_of_frames() -> None:
    unwrap = Unwrapper(Fraction(1, 90_000))
    unwrap.seed(1000, 3600)
    assert [unwrap.to_continuous(value, 3600) for value in (None, None, 8200)] == [1000, 4600, 8200]
    assert unwrap.peek(9000) == 9000
    assert unwrap.to_continuous(None) == 11_800
