"""Types along the edges: what they refuse, and times that are rounded once."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media import Span, to_seconds


@given(st.integers(-(10**6), 10**13), st.fractions(Fraction(1, 10**7), 1))
def test_seconds_are_those_of_the_exact_fraction(pts: int, time_base: Fraction) -> None:
    assert to_seconds(pts, time_base) == float(pts * time_base)


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_span_ends_after_it_starts(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="span"):
        Span(start, end)
