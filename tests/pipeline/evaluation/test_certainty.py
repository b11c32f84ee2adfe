"""What few queries can tell: intervals and paired differences against figures worked out by hand or known."""

from __future__ import annotations

import pytest

from pipeline.errors import InputError
from pipeline.evaluation.certainty import Difference, interval, peaks_compared
from pipeline.evaluation.moments import Prediction, TruthMoment
from pipeline.evaluation.scores import MomentScores, score_moments
from pipeline.media import Span


def test_wilsons_interval_is_the_published_one() -> None:
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    for right, of, low, high in (
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
    ):
        assert interval(right, of) == pytest.approx((low, high), abs=0.01)
    assert interval(1, 1)[1] == 100
    assert interval(7, 59) == pytest.approx((5.9, 22.5), abs=0.05)


@pytest.mark.parametrize(("right", "of"), [(0, 0), (-1, 3), (4, 3)])
def test_no_interval_of_what_cannot_be(right: int, of: int) -> None:
    with pytest.raises(InputError, match=f"{right} right of {of}"):
        interval(right, of)


@pytest.mark.parametrize(
    ("first", "second", "luck"),
    [(0, 3, 0.25), (3, 0, 0.25), (0, 0, 1.0), (1, 0, 1.0), (2, 2, 1.0), (1, 9, 22 / 1024), (0, 10, 2 / 1024)],
)
def test_luck_is_that_of_a_fair_coin(first: int, second: int, luck: float) -> None:
    assert Difference(first, second).luck == pytest.approx(luck)


def test_luck_of_many_is_no_overflow() -> None:
    assert 0 < Difference(3000, 3200).luck < 0.02


def scored(**peaks: float) -> MomentScores:
    truth = [TruthMoment(name, name, "gate", (Span(0, 10),)) for name in peaks]
    return score_moments(truth, [Prediction(name, "gate", 0, 20, 1.0, peak) for name, peak in peaks.items()])


def test_queries_are_paired_by_name() -> None:
    first, second = scored(a=5, b=5, c=15, d=5), scored(d=15, c=5, b=5, a=15)
    assert peaks_compared(first, second) == Difference(2, 1)
    assert peaks_compared(second, first) == Difference(1, 2)
    assert peaks_compared(first, first).to_dict() == {"alone": 0, "other_alone": 0, "luck": 1.0}
    with pytest.raises(InputError, match="of 4 and of 1 queries"):
        peaks_compared(first, scored(a=5))
