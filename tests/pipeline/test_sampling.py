"""Sampling: one frame for each time of the grid, whatever the frame rate, the same in parts as in the whole."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OptionError
from pipeline.media import Frame
from pipeline.sampling import Sampler, SamplingOptions

TIME_BASE = Fraction(1, 1000)


def frame(pts: int, keyframe: bool = False) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), pts, 1, TIME_BASE, keyframe)


def sampled(times: list[int], options: SamplingOptions) -> list[int]:
    sampler = Sampler(options)
    return [t for t in times if sampler.wants(frame(t))]


def test_two_of_twenty_five_frames_a_second() -> None:
    assert sampled(list(range(0, 3000, 40)), SamplingOptions()) == [0, 520, 1000, 1520, 2000, 2520]


def test_a_time_that_rounding_puts_just_below_the_grid_counts_as_on_it() -> None:
    sampler = Sampler(SamplingOptions(fps=3))
    base = Fraction(1, 3)
    picture = np.zeros((2, 2, 3), np.uint8)
    assert [sampler.wants(Frame(picture, i, 1, base)) for i in range(30)] == [True] * 30


times = st.lists(st.integers(0, 60_000), min_size=1, max_size=200, unique=True).map(sorted)


@given(times, st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.5]))
def test_each_grid_cell_that_has_frames_gives_its_first(pts: list[int], fps: float) -> None:
    chosen = sampled(pts, SamplingOptions(fps=fps))
    cells = {}
    for t in pts:
        cells.setdefault(int((t / 1000 + 1e-6) * fps), t)
    assert chosen == list(cells.values())


@given(times, st.integers(1, 59))
def test_parts_choose_as_the_whole_does(pts: list[int], border_seconds: int) -> None:
    border = border_seconds * 1000
    whole = sampled(pts, SamplingOptions())
    parts = sampled([t for t in pts if t < border], SamplingOptions())
    parts += sampled([t for t in pts if t >= border], SamplingOptions())
    assert parts == whole


def test_other_modes() -> None:
    assert sampled([0, 1, 2], SamplingOptions(mode="all")) == [0, 1, 2]
    sampler = Sampler(SamplingOptions(mode="keyframes"))
    assert [sampler.wants(frame(t, keyframe=t % 2 == 0)) for t in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("options", [{"mode": "some"}, {"fps": 0}, {"fps": float("nan")}, {"fps": 1e6}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        SamplingOptions(**options)  # type: ignore[arg-type]
