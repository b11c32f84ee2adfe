"""Our measures: worked by hand, against definitions written out plainly, and the laws that they must obey."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OptionError, PredictionError, TruthError
from pipeline.evaluation.moments import Prediction, TruthMoment
from pipeline.evaluation.scores import AP_IOU, average_precision, iou, score_moments
from pipeline.media import Span

Pair = tuple[float, float]


def asked(query_id: str, *spans: Pair, video: str = "gate") -> TruthMoment:
    return TruthMoment(query_id, f"what is {query_id}?", video, tuple(Span(*span) for span in spans))


def answered(query_id: str, *spans: Pair, video: str = "gate", peak: float | None = None) -> list[Prediction]:
    """Answers from best to worst."""
    return [Prediction(query_id, video, start, end, 1 - i / 100, peak) for i, (start, end) in enumerate(spans)]


def overlap(a: Pair, b: Pair) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / ((a[1] - a[0]) + (b[1] - b[0]) - shared)


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_one_query_by_hand() -> None:
    # IoU with the right spans: 8 of 10; 8 of 12 with the first, which is taken; 8 of 10 with the second.
    scores = score_moments([asked("q", (10, 20), (40, 50))], answered("q", (10, 18), (12, 22), (42, 50)))
    assert scores.figures() == {
        "R1@0.3": 100.0, "R1@0.5": 100.0, "R1@0.7": 100.0, "R5@0.3": 100.0, "R5@0.5": 100.0, "R5@0.7": 100.0,
        "mAP@0.5": 83.33,  # right, wrong, right: (1 + 2/3) / 2
        "mAP@0.75": 83.33,
        "mAP": 58.33,  # up to 0.8 as before, nothing at 0.85, 0.9 and 0.95
        "mean_iou": 80.0,
        "peak_inside": 100.0,
    }  # fmt: skip
    assert scores.per_query[0].overlaps == pytest.approx((0.8, 2 / 3, 0.8))


def test_several_queries_by_hand() -> None:
    truth = [asked("a", (0, 10)), asked("b", (0, 10), video="door"), asked("c", (0, 10), video="door")]
    answers = [
        *answered("a", (50, 60), (60, 70), (70, 80), (80, 90), (0, 10)),  # right as the fifth
        *answered("b", (5, 15), (0, 9), video="door", peak=12.0),  # a third, with its peak outside; then nine tenths
    ]
    scores = score_moments(truth, answers)
    assert (scores.queries, scores.answered) == (3, 2)
    assert scores.r1 == pytest.approx({0.3: 100 / 3, 0.5: 0, 0.7: 0})
    assert scores.r5 == pytest.approx({0.3: 200 / 3, 0.5: 200 / 3, 0.7: 200 / 3})
    assert scores.map[0.5] == pytest.approx(100 * (1 / 5 + 1 / 2) / 3)
    assert scores.map[0.95] == pytest.approx(100 * (1 / 5) / 3)
    assert scores.mean_iou == pytest.approx(100 * (1 / 3) / 3)
    assert scores.peak_inside == 0
    assert list(scores.per_video) == ["gate", "door"]
    assert scores.per_video["door"].queries == 2
    assert scores.per_video["door"].map[0.5] == pytest.approx(25)


def test_an_answer_may_be_right_only_once() -> None:
    scores = score_moments([asked("q", (0, 10))], answered("q", (20, 30), (0, 10), (0, 10)))
    assert scores.map[0.5] == pytest.approx(50)


def test_a_taken_span_leaves_the_next_best() -> None:
    # The second answer fits (0, 10) better, but that is taken; it is right for (4, 14) at 0.5 and not at 0.75.
    scores = score_moments([asked("q", (0, 10), (4, 14))], answered("q", (0, 10), (1, 11)))
    assert scores.map[0.5] == pytest.approx(100)
    assert scores.map[0.75] == pytest.approx(50)


def test_precision_is_the_best_at_any_higher_recall() -> None:
    scores = score_moments(
        [asked("q", (0, 10), (20, 30), (40, 50))], answered("q", (90, 99), (0, 10), (20, 30), (40, 50))
    )
    assert scores.map[0.5] == pytest.approx(75)  # 1/2, 2/3, 3/4 would be 63.9 without


def test_peaks() -> None:
    truth = [asked("q", (10, 20), (30, 40))]
    inside = {
        (10, 20): True, (0, 21): True, (0, 20): True, (20, 40): True, (20, 39): False, (0, 19): False, (15, 25): False,
    }  # fmt: skip
    for span, right in inside.items():
        assert bool(score_moments(truth, answered("q", span)).peak_inside) is right, span
    assert score_moments(truth, answered("q", (90, 99), peak=10)).peak_inside == 100
    assert score_moments(truth, answered("q", (10, 20), peak=40)).peak_inside == 0


def test_answers_of_another_video_are_wrong() -> None:
    truth = [asked("q", (0, 10))]
    elsewhere = answered("q", (0, 10), video="door")
    assert score_moments(truth, elsewhere).figures() == score_moments(truth, []).figures()
    first_elsewhere = [*elsewhere, *answered("q", (0, 10), (0, 10))[1:]]
    scores = score_moments(truth, first_elsewhere)
    assert (scores.r1[0.3], scores.r5[0.3], scores.map[0.5]) == (0, 100, 50)
    assert score_moments(truth, answered("q", (0, 10), video="")).map_mean == 100  # not said: the query's own


def test_equal_scores_stay_in_their_order() -> None:
    answers = [Prediction("q", "gate", start, start + 10, 0.5) for start in (50, 0)]
    assert score_moments([asked("q", (0, 10))], answers).r1[0.5] == 0
    assert score_moments([asked("q", (0, 10))], answers[::-1]).r1[0.5] == 100


def test_what_counts_is_limited() -> None:
    truth = [asked("q", (0, 10))]
    answers = answered("q", *[(50, 60)] * 3, (0, 10))
    assert score_moments(truth, answers, limit=3).r5[0.3] == 0
    assert score_moments(truth, answers, limit=4).map[0.5] == 25
    far = answered("q", *[(50, 60)] * 10, (0, 10))
    assert score_moments(truth, far).map[0.5] == 0
    assert score_moments(truth, far, limit=11).map[0.5] == pytest.approx(100 / 11)


def test_thresholds_of_recall_are_chosen() -> None:
    scores = score_moments([asked("q", (0, 10))], answered("q", (0, 8)), thresholds=(0.8, 0.81))
    assert scores.r1 == {0.8: 100, 0.81: 0}
    assert "R1@0.81" in scores.figures()


def test_json() -> None:
    value = score_moments([asked("q", (0, 3))], answered("q", (0, 1))).to_dict()
    assert (value["queries"], value["answered"], value["mean_iou"]) == (1, 1, 33.33)
    assert list(value["per_video"]) == ["gate"]
    assert "per_video" not in value["per_video"]["gate"]


# -- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    truth = [asked("dog 1", (0, 10))]
    with pytest.raises(TruthError, match="no right moments"):
        score_moments([], [])
    with pytest.raises(TruthError, match=r"query dog 1 .* is in the truth twice"):
        score_moments([*truth, *truth], [])
    with pytest.raises(PredictionError, match=r"query dog 2, which the truth does not ask; did you mean dog 1\?"):
        score_moments(truth, answered("dog 2", (0, 10)))
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(OptionError, match="an IoU threshold"):
            score_moments(truth, [], thresholds=[wrong])
    with pytest.raises(OptionError, match="limit of answers must be 1 or more, got 0"):
        score_moments(truth, [], limit=0)


# -- laws ------------------------------------------------------------------------------------------------------------

laws = settings(deadline=None, max_examples=60)
span = st.tuples(st.integers(0, 60), st.integers(1, 40)).map(lambda pair: (float(pair[0]), float(pair[0] + pair[1])))
right_spans = st.lists(span, min_size=1, max_size=4, unique=True)
some_spans = st.lists(span, max_size=8)
cases = st.lists(st.tuples(right_spans, some_spans), min_size=1, max_size=4)


def case(drawn: Sequence[tuple[list[Pair], list[Pair]]]) -> tuple[list[TruthMoment], list[Prediction]]:
    truth = [asked(str(i), *sorted(right), video=f"video {i % 2}") for i, (right, _) in enumerate(drawn)]
    answers = [a for i, (_, found) in enumerate(drawn) for a in answered(str(i), *found, video=f"video {i % 2}")]
    return truth, answers


@given(span, span)
@laws
def test_overlap_is_what_it_says(a: Pair, b: Pair) -> None:
    there, back = float(iou(np.array([a]), np.array([b]))[0, 0]), float(iou(np.array([b]), np.array([a]))[0, 0])
    assert there == back == overlap(a, b)
    assert 0 <= there <= 1
    assert (there == 1) == (a == b)
    assert (there == 0) == (a[1] <= b[0] or b[1] <= a[0])
    moved = iou(np.array([a]) * 4 + 100, np.array([b]) * 4 + 100)[0, 0]
    assert moved == there


def plain_average_precision(found: list[Pair], right: list[Pair], threshold: float) -> float:
    """By the definition: at each recall, the best precision at that recall or above it; the mean over recalls."""
    free, hits, points = set(range(len(right))), 0, []
    for rank, answer in enumerate(found, 1):
        able = [(overlap(answer, right[m]), m) for m in free if overlap(answer, right[m]) >= threshold]
        if able:
            free.remove(max(able)[1])
            hits += 1
        points.append((hits, hits / rank))
    levels = range(1, len(right) + 1)
    return sum(max((p for h, p in points if h >= level), default=0.0) for level in levels) / len(right)


@given(some_spans, right_spans)
@laws
def test_average_precision_is_what_it_says(found: list[Pair], right: list[Pair]) -> None:
    table = iou(np.array(found).reshape(-1, 2), np.array(right))
    plain = [plain_average_precision(found, right, x) for x in AP_IOU]
    assert average_precision(table, AP_IOU) == pytest.approx(plain, abs=1e-12)


@given(cases)
@laws
def test_recall_is_what_it_says(drawn: list[tuple[list[Pair], list[Pair]]]) -> None:
    truth, answers = case(drawn)
    scores = score_moments(truth, answers)
    for first, recall in ((1, scores.r1), (5, scores.r5)):
        for threshold, value in recall.items():
            found = sum(any(overlap(a, r) >= threshold for a in f[:first] for r in right) for right, f in drawn)
            assert value == pytest.approx(100 * found / len(drawn))
    best = [max(overlap(found[0], r) for r in right) if found else 0.0 for right, found in drawn]
    assert scores.mean_iou == pytest.approx(100 * sum(best) / len(best))


@given(cases)
@laws
def test_overall_is_the_mean_over_videos_by_queries(drawn: list[tuple[list[Pair], list[Pair]]]) -> None:
    scores = score_moments(*case(drawn))
    videos = scores.per_video.values()
    assert sum(video.queries for video in videos) == scores.queries == len(drawn)
    assert sum(v.map_mean * v.queries for v in videos) / scores.queries == pytest.approx(scores.map_mean)
    assert sum(v.peak_inside * v.queries for v in videos) / scores.queries == pytest.approx(scores.peak_inside)


@given(st.lists(right_spans, min_size=1, max_size=4))
@laws
def test_what_is_right_scores_a_hundred(rights: list[list[Pair]]) -> None:
    truth, answers = case([(right, right) for right in rights])
    assert set(score_moments(truth, answers).figures().values()) == {100.0}


@given(cases, st.integers(0, 99))
@laws
def test_the_order_of_lines_does_not_matter(drawn: list[tuple[list[Pair], list[Pair]]], seed: int) -> None:
    truth, answers = case(drawn)
    mixed, mixed_answers = list(truth), list(answers)
    random.Random(seed).shuffle(mixed)
    random.Random(seed).shuffle(mixed_answers)
    assert score_moments(mixed, mixed_answers).to_dict() == score_moments(truth, answers).to_dict()


@given(cases, st.sampled_from([0.25, 2.0, 1024.0]))
@laws
def test_the_unit_of_time_does_not_matter(drawn: list[tuple[list[Pair], list[Pair]]], factor: float) -> None:
    def scaled(spans: list[Pair]) -> list[Pair]:
        return [(start * factor, end * factor) for start, end in spans]

    longer = [(scaled(right), scaled(found)) for right, found in drawn]
    assert score_moments(*case(longer)).to_dict() == score_moments(*case(drawn)).to_dict()


@given(cases, span)
@laws
def test_a_worse_answer_after_all_others_takes_nothing_away(
    drawn: list[tuple[list[Pair], list[Pair]]], extra: Pair
) -> None:
    truth, answers = case(drawn)
    before = score_moments(truth, answers)
    wrong = score_moments(truth, [*answers, Prediction("0", truth[0].video, 500.0, 600.0, -1.0)])
    assert wrong.map == before.map
    other = score_moments(truth, [*answers, Prediction("0", truth[0].video, *extra, -1.0)])
    assert all(other.map[x] >= before.map[x] for x in AP_IOU)
    assert all(other.r5[x] >= before.r5[x] for x in before.r5)


@given(cases)
@laws
def test_a_wrong_answer_before_all_others_never_helps(drawn: list[tuple[list[Pair], list[Pair]]]) -> None:
    truth, answers = case(drawn)
    before = score_moments(truth, answers, limit=20)
    after = score_moments(truth, [*answers, Prediction("0", truth[0].video, 500.0, 600.0, 2.0)], limit=20)
    assert all(after.map[x] <= before.map[x] for x in AP_IOU)
    assert all(after.r1[x] <= before.r1[x] for x in before.r1)


@given(st.lists(st.booleans(), min_size=1, max_size=8))
@laws
def test_a_query_without_an_answer_is_a_miss(given_answer: list[bool]) -> None:
    truth, answers = case([([(0.0, 10.0)], [(0.0, 10.0)] if given else []) for given in given_answer])
    scores = score_moments(truth, answers)
    assert scores.answered == sum(given_answer)
    assert set(scores.figures().values()) == {round(100 * sum(given_answer) / len(given_answer), 2)}
