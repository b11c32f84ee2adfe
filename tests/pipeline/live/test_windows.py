"""Windows of live streams: nothing of the time is lost, still scenes are not repeated, state does not grow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.digest import DigestOptions
from pipeline.errors import OptionError
from pipeline.live.digest import LiveDigest
from pipeline.live.options import MemoryOptions, WindowOptions
from pipeline.live.types import ClosedWindow, Connection, LiveBlock, LiveState, LiveWindow
from pipeline.media import Frame
from tests.pipeline.fakes import ToneEncoder
from tests.pipeline.live import playing
from tests.pipeline.live.playing import START, watched

SCRIPTS = st.lists(
    st.tuples(st.sampled_from(["still", "moving", "on", "gap"]), st.integers(1, 25)), min_size=1, max_size=5
)


def closed_of(blocks: list[LiveBlock]) -> list[ClosedWindow]:
    return [window for block in blocks for window in block.closed]


def committed(blocks: list[LiveBlock], **options: object) -> tuple[list[LiveWindow], LiveDigest]:
    digest = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions(), **options)  # type: ignore[arg-type]
    windows = [window for block in blocks for window in digest.take([("s", block)])[0].windows]
    return windows, digest


@settings(max_examples=15, deadline=None)
@given(SCRIPTS)
def test_windows_cover_the_time_with_a_picture_and_nothing_else(script: list[tuple[str, int]]) -> None:
    blocks = watched(script)
    closed = closed_of(blocks)
    expected: list[list[float]] = []
    second = 0.0
    for what, seconds in script:
        if what != "gap":
            if expected and expected[-1][1] == second:
                expected[-1][1] += seconds
            else:
                expected.append([second, second + seconds])
        second += seconds
    found: list[list[float]] = []
    for window in closed:
        span = window.span
        if found and found[-1][1] == pytest.approx(span.start_seconds, abs=1e-5):
            found[-1][1] = span.end_seconds
        else:
            found.append([span.start_seconds, span.end_seconds])
    assert [window.index for window in closed] == list(range(len(closed)))
    assert np.allclose(_joined(found), _joined(expected), atol=1e-4)
    counts = blocks[-1].counts
    assert counts.windows == len(closed)
    assert counts.frames_sampled >= counts.skipped_by_gate


def _joined(spans: list[list[float]]) -> list[list[float]]:
    """Neighbours as one: a gap of no length is none."""
    joined: list[list[float]] = []
    for span in spans:
        if joined and abs(joined[-1][1] - span[0]) < 1e-4:
            joined[-1][1] = span[1]
        else:
            joined.append(list(span))
    return joined


@settings(max_examples=15, deadline=None)
@given(SCRIPTS)
def test_vectors_partition_their_window(script: list[tuple[str, int]]) -> None:
    windows, digest = committed(watched(script))
    for window in windows:
        vectors = window.record.vectors
        assert vectors.start_seconds[0] == pytest.approx(window.span.start_seconds, abs=1e-5)
        assert vectors.end_seconds[-1] == pytest.approx(window.span.end_seconds, abs=1e-5)
        for end, start in pairwise(range(len(vectors))):
            assert vectors.end_seconds[end] == pytest.approx(vectors.start_seconds[start], abs=1e-5)
    final = [window.index for window in windows if window.closed]
    assert final == sorted(set(final)), "each window is complete once, in order"
    assert digest.state_bytes < 3e5


def test_a_window_ends_with_its_shot_and_at_its_limit() -> None:
    closed = closed_of(watched([("moving", 4), ("moving", 25)]))
    spans = [(w.span.start_seconds, round(w.span.end_seconds, 3), w.boundary) for w in closed]
    assert spans == [(0.0, 4.0, "shot"), (4.0, 14.0, "limit"), (14.0, 24.0, "limit"), (24.0, 29.0, "end")]
    assert not any(window.still for window in closed)


def test_a_still_scene_goes_on_and_news_begin_a_window() -> None:
    closed = closed_of(watched([("still", 60), ("moving", 6)]))
    assert closed[0].span.end_seconds == 10.0
    assert not closed[0].still, "its first window is captioned"
    assert closed[1].still
    assert (closed[1].span.start_seconds, closed[1].span.end_seconds) == (10.0, 60.0)
    assert not closed[2].still
    assert closed[2].span.start_seconds == 60.0


def test_news_after_a_still_stretch_of_one_scene_begin_where_they_happen() -> None:
    frames = list(playing.play([("still", 33)]))
    for message in frames:
        if getattr(message, "pts_seconds", 0.0) >= 26:
            object.__setattr__(message, "image", playing.picture(1, 40.0))
    watcher = playing.LiveWatcher(
        playing.SamplingOptions(),
        playing.GateOptions(),
        playing.SegmentOptions(detector="none"),
        WindowOptions(),
    )
    closed = closed_of(list(playing.blocks(watcher, frames)))
    assert [(w.span.start_seconds, w.boundary, w.still) for w in closed] == [
        (0.0, "limit", False),
        (10.0, "news", True),
        (26.0, "end", False),
    ]


def test_a_still_scene_is_bounded() -> None:
    closed = closed_of(watched([("still", 50)], WindowOptions(max_seconds=10, still_seconds=15)))
    assert [round(w.span.end_seconds, 3) for w in closed] == [10.0, 25.0, 40.0, 50.0]
    assert [w.still for w in closed] == [False, True, True, True]


def test_a_gap_is_no_time_of_any_window() -> None:
    closed = closed_of(watched([("moving", 3), ("gap", 7), ("moving", 3)]))
    assert [(w.span.start_seconds, w.span.end_seconds, w.boundary) for w in closed] == [
        (0.0, 3.0, "gap"),
        (10.0, 13.0, "end"),
    ]


def test_what_is_open_is_searchable_before_it_is_complete() -> None:
    windows, _ = committed(watched([("moving", 9)]))
    provisional = [window for window in windows if not window.closed]
    assert len(provisional) >= 3
    assert {window.index for window in provisional} == {0}
    ends = [window.span.end_seconds for window in provisional]
    assert ends == sorted(ends)
    assert all(right - left <= 3.0 for left, right in pairwise([0.0, *ends]))
    assert windows[-1].closed


def test_the_wall_clock_goes_with_each_block() -> None:
    blocks = watched([("moving", 3), ("gap", 7), ("moving", 3)])
    last = blocks[-1]
    assert last.captured_utc is not None
    assert (last.captured_utc - START).total_seconds() == pytest.approx(13.0, abs=1e-3)
    assert last.state is LiveState.ENDED


def test_state_does_not_grow_with_the_stream() -> None:
    memory = MemoryOptions(tokens=32)
    digest = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions(), memory, tokens=True)
    peaks: list[int] = []
    for block in watched([("moving", 30), ("still", 30)] * 12):
        digest.take([("s", block)])
        minute = int(block.until_seconds // 60)
        peaks += [0] * (minute + 1 - len(peaks))
        peaks[minute] = max(peaks[minute], digest.state_bytes)
    assert len(peaks) >= 12
    assert max(peaks[2:12]) <= 1.02 * peaks[1]


def test_streams_do_not_touch_each_other() -> None:
    one, two = watched([("moving", 12)]), watched([("still", 7), ("moving", 5)])
    together = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions())
    found: dict[str, list[LiveWindow]] = {"one": [], "two": []}
    for left, right in zip(one, two, strict=False):
        for name, taken in zip(found, together.take([("one", left), ("two", right)]), strict=True):
            found[name] += taken.windows
    for name, blocks in (("one", one), ("two", two)):
        alone, _ = committed(blocks[: min(len(one), len(two))])
        assert len(alone) == len(found[name])
        for a, b in zip(alone, found[name], strict=True):
            assert a.span == b.span
            assert np.allclose(a.record.vectors.embedding, b.record.vectors.embedding, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "what"),
    [({"max_seconds": 0}, "max_seconds"), ({"max_seconds": 9, "still_seconds": 8}, "still_seconds")],
)
def test_options_say_what_is_allowed(values: dict[str, float], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        WindowOptions(**values)


def test_a_shot_between_two_samples_takes_nothing_of_the_one_before() -> None:
    """The first look of the new shot is sampled later than it begins; until then there is none, and none of the old."""
    step = round(1 / 10 / playing.LIVE_TIME_BASE)
    messages: list[Any] = [Connection(0, 0.0, START)]
    for number in range(120):
        image = playing.picture(1 if number < 53 else 2, number * 9.0)
        messages.append(Frame(image, number * step, step, playing.LIVE_TIME_BASE))
    options = (playing.SamplingOptions(), playing.GateOptions(), playing.SegmentOptions(), WindowOptions())
    blocks = list(playing.blocks(playing.LiveWatcher(*options), messages))
    assert [w.span.start_seconds for w in closed_of(blocks)] == [0.0, 5.3]
    digest = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions())
    taken = [one for block in blocks for one in digest.take([("s", block)])]
    old, new = (content for one in taken for content in one.closed)
    darkest = min(look.image.mean() for look in old.looks)
    assert all(look.image.mean() < darkest - 5 for look in new.looks)
    forms = [window for one in taken for window in one.windows if window.index == 1]
    assert len(forms) > 1
    for form in forms:
        assert form.span.start_seconds == 5.3
        assert (form.record.vectors.end_seconds - form.record.vectors.start_seconds).min() > 0.1


def test_a_picture_that_the_model_cannot_take_costs_its_block_only() -> None:
    class Picky(ToneEncoder):
        def encode(self, images: Any, **options: Any) -> Any:
            seen = super().encode(images, **options)
            seen.embedding[(images == 77).all((1, 2, 3))] = np.nan
            return seen

    good, bad = watched([("moving", 12)]), watched([("moving", 12)])
    spoiled = next(number for number, block in enumerate(bad) if block.until_seconds > 3 and len(block))
    bad[spoiled] = replace(bad[spoiled], images=np.full_like(bad[spoiled].images, 77))
    digest = LiveDigest(Picky(), DigestOptions(), WindowOptions())
    taken = [digest.take([("good", one), ("bad", other)]) for one, other in zip(good, bad, strict=True)]
    assert [bool(other.failed) for _, other in taken] == [number == spoiled for number in range(len(taken))]
    assert not any(one.failed for one, _ in taken)
    for which in (0, 1):
        spans = [window.span for pair in taken for window in pair[which].windows if window.closed]
        assert [(span.start_seconds, span.end_seconds) for span in spans] == [(0, 10), (10, 12)]


def test_frames_that_were_dropped_are_a_gap() -> None:
    """Nothing claims the time between; what was seen before stands for nothing behind it."""
    step = round(1 / 4 / playing.LIVE_TIME_BASE)
    numbers = [*range(13), *range(70, 90)]  # up to 3.25 s, and from 17.5 s
    frames = [
        Frame(playing.picture(1 if number < 13 else 2), number * step, step, playing.LIVE_TIME_BASE)
        for number in numbers
    ]
    options = (playing.SamplingOptions(), playing.GateOptions(), playing.SegmentOptions(), WindowOptions())
    blocks = list(playing.blocks(playing.LiveWatcher(*options), [Connection(0, 0.0, START), *frames]))
    spans = [(w.span.start_seconds, w.span.end_seconds, w.boundary) for w in closed_of(blocks)]
    assert spans == [(0.0, 3.25, "gap"), (17.5, 22.5, "end")]
    windows, _ = committed(blocks)
    for window in windows:
        first, last = window.record.vectors.start_seconds[0], window.record.vectors.end_seconds[-1]
        assert (first, last) == (window.span.start_seconds, window.span.end_seconds)
        assert last <= 3.25 or first >= 17.5


def test_a_pause_of_an_hour_is_not_cut_into_windows() -> None:
    step = round(1 / playing.LIVE_TIME_BASE)
    frames = [Frame(playing.picture(1), at * step, step, playing.LIVE_TIME_BASE) for at in (0, 1, 400_000)]
    watcher = playing.LiveWatcher(
        playing.SamplingOptions(), playing.GateOptions(), playing.SegmentOptions(detector="none"), WindowOptions()
    )
    closed = closed_of(list(playing.blocks(watcher, [Connection(0, 0.0, START), *frames])))
    assert [(window.span.start_seconds, window.span.end_seconds) for window in closed] == [(0, 2), (400_000, 400_001)]
