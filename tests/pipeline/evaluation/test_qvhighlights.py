"""The QVHighlights evaluator's figures: worked by hand, recorded from it, and against its definitions in fractions."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PredictionError, TruthError
from pipeline.evaluation.moments import Prediction, TruthMoment
from pipeline.evaluation.qvhighlights import evaluate_qvhighlights
from pipeline.evaluation.scores import score_moments
from pipeline.media import Span

Windows = list[tuple[float, float]]
Scored = list[tuple[float, float, float]]

NAMES = [
    "MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mAP", "MR-full-mAP@0.5", "MR-full-mAP@0.75", "MR-long-mAP",
    "MR-middle-mAP", "MR-short-mAP",
]  # fmt: skip
THRESHOLDS = ["0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9", "0.95"]


def judged(*queries: tuple[Windows, Scored]) -> dict[str, Any]:
    truth = [
        TruthMoment(str(i), "q", "v", tuple(Span(*window) for window in right)) for i, (right, _) in enumerate(queries)
    ]
    answers = [Prediction(str(i), "v", *window) for i, (_, found) in enumerate(queries) for window in found]
    return evaluate_qvhighlights(truth, answers, answered=[str(i) for i in range(len(queries))])


def test_its_names_in_its_order() -> None:
    result = judged(([(0, 10), (20, 40), (50, 100)], [(0, 10, 1.0)]))
    assert list(result) == ["brief", "full", "long", "middle", "short"]
    assert list(result["brief"]) == NAMES
    for name in ("full", "long", "middle", "short"):
        assert list(result[name]["MR-mAP"]) == [*THRESHOLDS, "average"]
        assert list(result[name]["MR-R1"]) == THRESHOLDS


def test_by_hand() -> None:
    result = judged(
        # IoU 0.8, then one that finds its window taken, then 1: AP 5/6 up to 0.8, then 1/3 * 1/2
        ([(0, 40), (60, 64)], [(0, 32, 0.9), (0, 40, 0.8), (60, 64, 0.7)]),
        # IoU 0.6: right up to there
        ([(100, 120)], [(108, 120, 0.4)]),
        # a miss
        ([(2, 6)], [(10, 14, 0.3)]),
    )
    first = 5 / 6
    # At 0.85 and above the first answer is wrong, the second right, the third right: (2/3 + 2/3) / 2.
    high = 2 / 3
    full = [first + 1] * 3 + [first] * 4 + [high] * 3
    expected = [round(100 * value / 3, 2) for value in full]
    assert [result["full"]["MR-mAP"][x] for x in THRESHOLDS] == expected
    assert result["brief"]["MR-full-mAP"] == round(100 * sum(full) / 30, 2)
    assert result["brief"]["MR-full-R1@0.5"] == 66.67
    assert result["brief"]["MR-full-R1@0.7"] == 33.33
    # long: the window (0, 40) alone: AP 1 up to 0.8, then 1/2; middle: the second query; short: (60, 64) and (2, 6).
    assert result["brief"]["MR-long-mAP"] == 85.0
    assert result["brief"]["MR-middle-mAP"] == 30.0
    assert result["brief"]["MR-short-mAP"] == round(100 * (1 / 3 + 0) / 2, 2)
    assert result["short"]["MR-R1"]["0.5"] == 0.0  # the first answer is that for the long window


def test_recall_takes_the_window_listed_first_whatever_its_score() -> None:
    result = judged(([(0, 10)], [(50, 60, 0.1), (0, 10, 0.9)]))
    assert result["full"]["MR-R1"]["0.5"] == 0.0
    assert result["full"]["MR-mAP"]["average"] == 100.0  # that goes by score


def test_ten_listed_windows_count() -> None:
    wrong: Scored = [(50, 60, 0.1)] * 9
    assert judged(([(0, 10)], [*wrong, (0, 10, 0.9)]))["brief"]["MR-full-mAP"] == 100.0
    assert judged(([(0, 10)], [(50, 60, 0.1), *wrong, (0, 10, 0.9)]))["brief"]["MR-full-mAP"] == 0.0


def test_equal_scores_stay_as_listed() -> None:
    assert judged(([(0, 10)], [(50, 60, 0.5), (0, 10, 0.5)]))["brief"]["MR-full-mAP"] == 50.0


@pytest.mark.parametrize(
    ("length", "name"), [(0.5, "short"), (10, "short"), (10.5, "middle"), (30, "middle"), (31, "long"), (150, "long")]
)
def test_ranges_include_their_upper_end(length: float, name: str) -> None:
    result = judged(([(0, length)], [(0, length, 1.0)]))
    for each in ("short", "middle", "long"):
        assert result["brief"][f"MR-{each}-mAP"] == (100.0 if each == name else None)
        assert result[each]["MR-R1"]["0.5"] == (100.0 if each == name else None)
    assert result["brief"]["MR-full-mAP"] == 100.0


def test_beyond_every_range_only_the_full_one_counts() -> None:
    result = judged(([(0, 151)], [(0, 151, 1.0)]))
    assert (result["brief"]["MR-full-mAP"], result["brief"]["MR-long-mAP"]) == (100.0, None)


def test_answers_are_not_filtered_by_length() -> None:
    # The long answer, right elsewhere, is a wrong one that comes first among the short windows.
    result = judged(([(0, 8), (20, 80)], [(20, 80, 0.9), (0, 8, 0.8)]))
    assert result["brief"]["MR-short-mAP"] == 50.0
    assert result["brief"]["MR-long-mAP"] == 100.0
    assert result["brief"]["MR-full-mAP"] == 100.0


def test_windows_that_are_empty_or_outside_are_answers() -> None:
    result = judged(([(0, 10)], [(5, 5, 0.9), (-10, 10, 0.8)]))
    assert result["full"]["MR-mAP"]["0.5"] == 50.0
    assert result["full"]["MR-R1"]["0.5"] == 0.0


def test_no_window_is_a_miss() -> None:
    result = judged(([(0, 10)], []), ([(0, 10)], [(0, 10, 1.0)]))
    assert result["brief"]["MR-full-mAP"] == 50.0
    assert result["brief"]["MR-full-R1@0.5"] == 50.0
    assert judged(([(0, 10)], []))["brief"]["MR-full-R1@0.5"] == 0.0


def test_both_must_have_the_same_queries() -> None:
    truth = [TruthMoment(str(i), "q", "v", (Span(0, 1),)) for i in range(8)]
    answers = [Prediction(str(i), "v", 0, 1, 1) for i in range(8)]
    with pytest.raises(PredictionError, match="qid 2, 3, 4, 5, 6 and 1 more: in the truth, and not in the predictions"):
        evaluate_qvhighlights(truth, answers[:2])
    with pytest.raises(PredictionError, match="query 7, which the truth does not ask"):
        evaluate_qvhighlights(truth[:7], answers)
    with pytest.raises(PredictionError, match="qid 9: in the predictions, and not in the truth"):
        evaluate_qvhighlights(truth, answers, answered=[*map(str, range(8)), "9"])
    with pytest.raises(PredictionError, match="qid 0: answered for vid 'w', but asked of 'v'"):
        evaluate_qvhighlights(truth, [Prediction("0", "w", 0, 1, 1), *answers[1:]])
    with pytest.raises(TruthError, match="twice"):
        evaluate_qvhighlights([*truth, truth[0]], answers)


# -- recorded --------------------------------------------------------------------------------------------------------


def many(seed: int, queries: int) -> list[tuple[Windows, Scored]]:
    """Windows on the grid of two seconds as in QVHighlights, apart from each other; answers near them, and others."""
    source = random.Random(seed)
    drawn = []
    for _ in range(queries):
        right: Windows = []
        at = 2 * source.randint(0, 20)
        for _ in range(source.choice([1, 1, 1, 2, 3])):
            end = at + 2 * source.choice([1, 2, 4, 5, 7, 12, 15, 20, 40])
            right.append((at, end))
            at = end + 2 * source.randint(1, 8)
        found: Scored = []
        for _ in range(source.randint(1, 14)):
            if source.random() < 0.6:
                start, end = source.choice(right)
                start = max(0, start + source.randint(-3, 3))
                end = max(start, end + source.randint(-4, 4))
            else:
                start = source.randint(0, 140)
                end = start + source.randint(0, 30)
            found.append((start, end, source.randint(0, 9) / 10))
        if source.random() < 0.5:
            found.sort(key=lambda window: -window[2])
        drawn.append((right, found))
    return drawn


# What a transcription of the published program (moment_detr, standalone_eval) gives for these.
RECORDED = {
    1: [52.5, 36.67, 40.61, 59.66, 42.17, 47.24, 48.93, 21.57],
    2: [57.5, 44.17, 41.01, 60.22, 41.35, 55.57, 47.66, 18.41],
    3: [49.17, 34.17, 39.31, 57.79, 41.79, 48.24, 40.38, 22.86],
}


@pytest.mark.parametrize("seed", RECORDED)
def test_recorded_figures(seed: int) -> None:
    assert judged(*many(seed, 120))["brief"] == dict(zip(NAMES, RECORDED[seed], strict=True))


# -- its definitions, in fractions -----------------------------------------------------------------------------------


def exact_overlap(a: tuple[float, ...], b: tuple[float, ...]) -> Fraction:
    shared = max(Fraction(0), Fraction(min(a[1], b[1])) - Fraction(max(a[0], b[0])))
    return shared / (Fraction(a[1]) - Fraction(a[0]) + Fraction(b[1]) - Fraction(b[0]) - shared)


def exact_ap(found: Scored, right: Windows, threshold: Fraction) -> Fraction:
    free, hits, points = set(range(len(right))), 0, []
    for rank, window in enumerate(sorted(found[:10], key=lambda w: -w[2]), 1):
        able = [(exact_overlap(window, right[m]), m) for m in free if exact_overlap(window, right[m]) >= threshold]
        if able:
            free.remove(max(able)[1])
            hits += 1
        points.append((hits, Fraction(hits, rank)))
    best = [max((p for h, p in points if h >= level), default=Fraction(0)) for level in range(1, len(right) + 1)]
    return sum(best, Fraction(0)) / len(right)


span = st.tuples(st.integers(0, 120), st.integers(1, 50)).map(lambda pair: (float(pair[0]), float(pair[0] + pair[1])))
scored = st.tuples(span, st.integers(0, 5)).map(lambda pair: (*pair[0], pair[1] / 8))
queries = st.lists(
    st.tuples(st.lists(span, min_size=1, max_size=3, unique=True), st.lists(scored, max_size=12)),
    min_size=1,
    max_size=4,
)
laws = settings(deadline=None, max_examples=40)


@given(queries)
@laws
def test_every_figure_is_what_it_says(drawn: list[tuple[Windows, Scored]]) -> None:
    result = judged(*drawn)
    for name, (low, high) in {"short": (0, 10), "middle": (10, 30), "long": (30, 150), "full": (0, 1000)}.items():
        kept = [([w for w in right if low < w[1] - w[0] <= high], found) for right, found in drawn]
        kept = [(right, found) for right, found in kept if right]
        for text in THRESHOLDS:
            ap, recall = result[name]["MR-mAP"][text], result[name]["MR-R1"][text]
            if not kept:
                assert ap is recall is None
                continue
            x = Fraction(text)
            assert ap == pytest.approx(float(100 * sum(exact_ap(f, r, x) for r, f in kept) / len(kept)), abs=0.0051)
            hits = sum(bool(f) and max(exact_overlap(f[0], w) for w in r) >= x for r, f in kept)
            assert recall == pytest.approx(100 * hits / len(kept), abs=0.0051)


@given(queries)
@laws
def test_with_answers_in_the_order_of_their_scores_ours_agree(drawn: list[tuple[Windows, Scored]]) -> None:
    drawn = [(right, sorted(found, key=lambda window: -window[2])) for right, found in drawn]
    truth = [TruthMoment(str(i), "q", "v", tuple(Span(*w) for w in right)) for i, (right, _) in enumerate(drawn)]
    answers = [Prediction(str(i), "v", *window) for i, (_, found) in enumerate(drawn) for window in found]
    ours, theirs = score_moments(truth, answers), judged(*drawn)["full"]
    for text in THRESHOLDS:
        assert math.isclose(ours.map[float(text)], theirs["MR-mAP"][text], abs_tol=0.0051)
    for text in ("0.5", "0.7"):
        assert math.isclose(ours.r1[float(text)], theirs["MR-R1"][text], abs_tol=0.0051)
    assert math.isclose(ours.map_mean, theirs["MR-mAP"]["average"], abs_tol=0.0051)
