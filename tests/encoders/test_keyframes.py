"""Key frames: long and unlike ones first, in order of time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.keyframes import KeyFrame, cover


def frame(level: int, start: float, end: float, size: tuple[int, int] = (20, 30)) -> KeyFrame:
    return KeyFrame(np.full((*size, 3), level, np.uint8), start, start, end)


def test_unlike_pictures_are_chosen_before_more_of_the_same() -> None:
    frames = [frame(10, 0, 6), frame(12, 6, 11), frame(240, 11, 13), frame(11, 13, 18)]
    assert sorted(int(one.image.max()) > 100 for one in cover(frames, 2)) == [False, True]


def test_of_unlike_pictures_the_longest_are_chosen() -> None:
    frames = [frame(0, 0, 1), frame(90, 1, 9), frame(180, 9, 11), frame(255, 11, 20)]
    assert [one.start_seconds for one in cover(frames, 2)] == [1, 11]


@given(st.lists(st.tuples(st.integers(0, 255), st.floats(0.01, 9)), min_size=1, max_size=12), st.integers(1, 14))
def test_as_many_as_asked_for_in_order_of_time(shown: list[tuple[int, float]], count: int) -> None:
    frames, at = [], 0.0
    for level, seconds in shown:
        frames.append(frame(level, at, at + seconds))
        at += seconds
    chosen = cover(frames[::-1], count)
    assert len({id(one) for one in chosen}) == len(chosen) == min(count, len(frames))
    assert [one.start_seconds for one in chosen] == sorted(one.start_seconds for one in chosen)
    assert all(any(one is other for other in frames) for one in chosen)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (16, 16), (720, 1280)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    frames = [frame(level, level, level + 1, size) for level in (0, 100, 200)]
    assert len(cover(frames, 2)) == 2


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        cover([frame(0, 0, 1)], 0)
