"""The queue between reader and consumer, by itself and behind a stream that is faster than its consumer."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from pipeline.media import Frame
from pipeline.sources.live.waiting import FrameQueue
from tests.sources.live.watching import watch


def frame(number: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), number, 1, Fraction(1))


def drained(queue: FrameQueue[str]) -> list[int | str]:
    items: list[int | str] = []
    while (item := queue.get(0)) is not None:
        items.append(item.pts if isinstance(item, Frame) else item)
    return items


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop-oldest", ["a", 3, "b", 4, 5]), ("drop-newest", ["a", 0, 1, 2, "b"])]
)
def test_only_frames_are_dropped_by_the_policy(policy: str, kept: list[int | str]) -> None:
    queue: FrameQueue[str] = FrameQueue(policy, 3)
    queue.put("a")
    for number in range(4):
        queue.put(frame(number))
    queue.put("b")
    for number in (4, 5):
        queue.put(frame(number))
    assert queue.dropped == 3
    assert drained(queue) == kept


def test_waiting_ends_when_there_is_room() -> None:
    queue: FrameQueue[str] = FrameQueue("wait", 2)
    put = threading.Thread(target=lambda: [queue.put(frame(number)) for number in range(6)])
    put.start()
    got = [item.pts for _ in range(6) if isinstance(item := queue.get(5), Frame)]
    put.join(5)
    assert got == list(range(6))
    assert queue.dropped == 0


def test_closing_ends_all_waiting_and_keeps_what_is_there() -> None:
    queue: FrameQueue[str] = FrameQueue("wait", 1)
    answers: list[bool] = []
    put = threading.Thread(target=lambda: answers.extend([queue.put(frame(1)), queue.put(frame(2))]))
    put.start()
    while len(answers) == 0 and len(queue) == 0:
        time.sleep(0.001)
    queue.close()
    put.join(5)
    assert not put.is_alive()
    assert answers == [True, False]
    assert not queue.put(frame(3))
    assert drained(queue) == [1]


def test_nothing_comes() -> None:
    assert FrameQueue[str]("wait", 1).get(0.01) is None


PICTURES = "device:lavfi:testsrc=size=64x48:rate=100"


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest"])
def test_frames_dropped_behind_a_slow_consumer_are_counted(policy: str) -> None:
    with watch(PICTURES, policy=policy, queue_frames=4) as watched:
        watched.until(lambda w: w.frames)
        counts = watched.stream.counts
        while counts.frames_dropped < 20:
            time.sleep(0.01)
        watched.until(lambda w: len(w.frames) >= 10)
        watched.stream.stop()
        watched.to_the_end()
        steps = sorted(step // 10_000 for step in watched.steps)
        assert steps[-1] > 1  # where they are missing
        if policy == "drop-newest":
            assert [frame.pts for frame in watched.frames[:4]] == [0, 10_000, 20_000, 30_000]
        # Whoever came and was not dropped was given, but for one that came while it was stopped.
        assert 0 <= counts.frames_received - counts.frames_dropped - len(watched.frames) <= 1


def test_waiting_for_a_slow_consumer_drops_nothing() -> None:
    with watch(PICTURES, policy="wait", queue_frames=4) as watched:
        watched.until(lambda w: w.frames)
        time.sleep(0.3)
        watched.until(lambda w: len(w.frames) >= 60)
        assert watched.stream.counts.frames_dropped == 0
        assert set(watched.steps) == {10_000}


def test_frames_that_nobody_wants_never_wait() -> None:
    with watch(PICTURES, queue_frames=4, wants=lambda frame: frame.pts % 100_000 == 0) as watched:
        watched.until(lambda w: len(w.frames) >= 4)
        assert [b.pts - a.pts for a, b in pairwise(watched.frames)] == [100_000] * 3
        assert watched.stream.counts.frames_received > 30
        assert watched.stream.counts.frames_dropped == 0


def test_large_pictures_wait_in_smaller_numbers() -> None:
    with watch("device:lavfi:testsrc=size=640x480:rate=100", queue_frames=100, queue_bytes=640 * 480 * 9) as watched:
        watched.until(lambda w: w.frames)
        while watched.stream.counts.frames_dropped < 3:
            time.sleep(0.01)
        assert watched.stream._queue.capacity == 6
        assert len(watched.stream._queue) <= 7


@pytest.mark.parametrize(("policy", "kept"), [("drop-oldest", [4, 5]), ("drop-newest", [0, 1, 2, 3])])
def test_a_capacity_that_falls_is_kept_to(policy: str, kept: list[int]) -> None:
    """As when the pictures grow: what waits shall not take more memory than is allowed."""
    queue: FrameQueue[str] = FrameQueue(policy, 4)
    for number in range(4):
        queue.put(frame(number))
    queue.capacity = 2
    queue.put(frame(4))
    queue.put(frame(5))
    assert drained(queue) == kept
    assert queue.dropped == 6 - len(kept)
