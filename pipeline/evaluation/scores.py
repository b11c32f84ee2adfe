"""How good answers are: overlap in time, recall of the first answers, average precision, peaks.

Definitions are those of the QVHighlights evaluator (J. Lei, T. L. Berg, M. Bansal, 2021, arXiv 2107.09609), whose
average precision is that of ActivityNet and the later Pascal VOC challenges (M. Everingham et al., "The Pascal Visual
Object Classes (VOC) Challenge", 2010); here for any thresholds and any video. For its own figures, to two decimals and
under its own names, see :mod:`pipeline.evaluation.qvhighlights`.

For each query, answers stand in the order of their score, equal scores in the order in which they came; the first ten
(``limit``) count. Answers of another video than the query's are wrong. A query without an answer is a miss everywhere.

- overlap: intersection over union (IoU) of two spans;
- R@k at IoU x: of the queries, how many have a right span with IoU >= x among their first k answers;
- average precision at IoU x: in order, an answer is right when a right span that no earlier answer took has IoU >= x
  with it, and it takes the one with the highest IoU; precision at each recall is the best at that or any higher recall;
  AP is the area below. mAP is its mean over queries, the mean mAP that over x = 0.5, 0.55 .. 0.95;
- mean IoU: of the first answer with the right span that fits best, over queries;
- peak inside: how often the first answer's peak (the middle where none is said) lies in a right span.

All are in percent. Shapes: N answers, M right spans, K thresholds, Q queries; a span is a row ``[start, end]``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import OptionError, PredictionError, TruthError
from pipeline.evaluation.moments import Prediction, TruthMoment

__all__ = [
    "ANSWERS",
    "AP_IOU",
    "RECALL_IOU",
    "MomentScores",
    "QueryScore",
    "average_precision",
    "by_query",
    "iou",
    "score_moments",
]

Array = npt.NDArray[np.float64]

RECALL_IOU = (0.3, 0.5, 0.7)
AP_IOU = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
ANSWERS = 10
_AP_SHOWN = (0.5, 0.75)


def iou(spans: Array, others: Array) -> Array:
    """Intersection over union ``[N, M]`` of each of ``spans [N, 2]`` with each of ``others [M, 2]``.

    Symmetric, 0 for spans that only touch and for one of length zero, 1 only for equal ones. Of each pair one must be
    longer than zero.
    """
    shared = np.minimum(spans[:, None, 1], others[None, :, 1]) - np.maximum(spans[:, None, 0], others[None, :, 0])
    shared = np.clip(shared, 0.0, None)
    lengths = (spans[:, 1] - spans[:, 0])[:, None] + (others[:, 1] - others[:, 0])[None, :]
    return np.asarray(shared / (lengths - shared), dtype=np.float64)


def average_precision(overlap: Array, thresholds: Sequence[float]) -> Array:
    """AP ``[K]``, each from 0 to 1, of answers in rank order whose IoU with the right spans is ``overlap [N, M]``.

    M must be 1 or more. Of right spans with the same IoU the later one is taken. The evaluator leaves that to a sort
    that is not stable; it matters only where right spans overlap or touch, which QVHighlights' do not.
    """
    answers, right = overlap.shape
    result = np.zeros(len(thresholds))
    if answers == 0:
        return result
    best_first = np.argsort(overlap, axis=1, kind="stable")[:, ::-1]
    rows = [
        [(value, m) for value, m in zip(values, order, strict=True) if value >= min(thresholds)]
        for values, order in zip(
            np.take_along_axis(overlap, best_first, axis=1).tolist(), best_first.tolist(), strict=True
        )
    ]  # for each answer, the right spans that it might take
    for k, threshold in enumerate(thresholds):
        taken: set[int] = set()
        hit = np.zeros(answers)
        for n, row in enumerate(rows):
            m = next((m for value, m in row if value >= threshold and m not in taken), None)
            if m is not None:
                taken.add(m)
                hit[n] = 1.0
        if taken:
            result[k] = _area(hit, right)
    return result


def _area(hit: Array, right: int) -> float:
    """Area below the precision-recall steps of ``hit [N]`` (1 right, 0 wrong), precision made falling.

    Recall steps are differences, not 1 / M: the evaluator's figures then agree in the last bit.
    """
    hits = np.cumsum(hit)
    precision = hits / np.arange(1, len(hit) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = hits / right
    step = np.diff(recall, prepend=0.0)
    risen = step != 0
    return float(np.sum(step[risen] * precision[risen]))


@dataclass(frozen=True)
class QueryScore:
    """One query: ``overlaps`` is the best IoU of each answer that counts, in rank order; ``average_precision [K]`` at
    the thresholds of :data:`AP_IOU`, from 0 to 1.
    """

    query_id: str
    query: str
    video: str
    overlaps: tuple[float, ...]
    peak_inside: bool
    average_precision: tuple[float, ...]

    @property
    def first_iou(self) -> float:
        """IoU of the first answer; 0 where there is none."""
        return self.overlaps[0] if self.overlaps else 0.0

    def recalled(self, first: int, threshold: float) -> bool:
        """Whether one of the ``first`` answers overlaps a right span by ``threshold`` or more."""
        return any(overlap >= threshold for overlap in self.overlaps[:first])


@dataclass(frozen=True)
class MomentScores:
    """What :func:`score_moments` found, in percent, not rounded.

    Attributes:
        queries, answered: how many were asked, and how many of them have an answer.
        r1, r5: recall of the first answer, and of the first five, by IoU threshold.
        map: mean average precision by IoU threshold; ``map_mean`` is the mean over all ten.
        mean_iou, peak_inside: of the first answers.
        per_video: the same for each video, in the order of the truth; empty inside of these.
        per_query: what each query contributed, in the order of the truth.
    """

    queries: int
    answered: int
    r1: dict[float, float]
    r5: dict[float, float]
    map: dict[float, float]
    map_mean: float
    mean_iou: float
    peak_inside: float
    per_video: dict[str, MomentScores] = field(default_factory=dict)
    per_query: tuple[QueryScore, ...] = field(default=(), repr=False)

    def figures(self) -> dict[str, float]:
        """The measures by name, rounded to two decimals: ``R1@0.5``, ``R5@0.5``, ``mAP@0.75``, ``mAP``..."""
        values = {f"R1@{x:g}": value for x, value in self.r1.items()}
        values |= {f"R5@{x:g}": value for x, value in self.r5.items()}
        values |= {f"mAP@{x:g}": self.map[x] for x in _AP_SHOWN}
        values |= {"mAP": self.map_mean, "mean_iou": self.mean_iou, "peak_inside": self.peak_inside}
        return {name: round(value, 2) for name, value in values.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``queries``, ``answered``, :meth:`figures`, and ``per_video`` by name where there is any."""
        value: dict[str, Any] = {"queries": self.queries, "answered": self.answered, **self.figures()}
        if self.per_video:
            value["per_video"] = {video: scores.to_dict() for video, scores in self.per_video.items()}
        return value


def score_moments(
    truth: Sequence[TruthMoment],
    predictions: Iterable[Prediction],
    *,
    thresholds: Sequence[float] = RECALL_IOU,
    limit: int = ANSWERS,
) -> MomentScores:
    """Judge answers by the right moments, overall and for each video.

    Args:
        thresholds: IoU thresholds of R@1 and R@5, above 0 and at most 1.
        limit: answers of a query that count; below 5 it bounds R@5 too.

    Raises:
        TruthError: no truth, or the same query id twice.
        PredictionError: an answer to a query that the truth does not ask; names it and the nearest one.
        OptionError: a threshold or limit outside what is allowed.
    """
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise OptionError(f"an IoU threshold must lie above 0 and at most at 1, got {threshold}")
    if limit < 1:
        raise OptionError(f"the limit of answers must be 1 or more, got {limit}")
    answers = by_query(truth, predictions)
    scored = [_score_query(moment, answers[moment.query_id], limit) for moment in truth]
    videos: dict[str, list[QueryScore]] = {}
    for score in scored:
        videos.setdefault(score.video, []).append(score)
    per_video = {video: _mean(scores, thresholds) for video, scores in videos.items()}
    return _mean(scored, thresholds, per_video)


def by_query(truth: Sequence[TruthMoment], predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """The answers of each query of the truth, in the order in which they came; an empty list where there are none.

    Raises:
        TruthError, PredictionError: as :func:`score_moments`.
    """
    if not truth:
        raise TruthError("no right moments to judge by")
    answers: dict[str, list[Prediction]] = {}
    for moment in truth:
        if moment.query_id in answers:
            raise TruthError(f"query {moment.query_id} ({moment.query!r}) is in the truth twice")
        answers[moment.query_id] = []
    for prediction in predictions:
        if prediction.query_id not in answers:
            near = difflib.get_close_matches(prediction.query_id, answers, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PredictionError(f"an answer to query {prediction.query_id}, which the truth does not ask{hint}")
        answers[prediction.query_id].append(prediction)
    return answers


def _score_query(moment: TruthMoment, answers: list[Prediction], limit: int) -> QueryScore:
    ranked = sorted(answers, key=lambda answer: -answer.score)[:limit]
    right = np.array([(span.start_seconds, span.end_seconds) for span in moment.spans], dtype=np.float64)
    found = np.array([(a.start_seconds, a.end_seconds) for a in ranked], dtype=np.float64).reshape(-1, 2)
    here = [answer.video in ("", moment.video) for answer in ranked]
    overlap = iou(found, right) * np.array(here, dtype=np.float64)[:, None]
    peak = bool(ranked) and here[0] and any(s.contains(ranked[0].peak_or_middle_seconds) for s in moment.spans)
    return QueryScore(
        moment.query_id,
        moment.query,
        moment.video,
        tuple(float(best) for best in overlap.max(axis=1)),
        peak,
        tuple(float(value) for value in average_precision(overlap, AP_IOU)),
    )


def _mean(
    scores: list[QueryScore], thresholds: Sequence[float], per_video: dict[str, MomentScores] | None = None
) -> MomentScores:
    def percent(values: Iterable[float]) -> float:
        return 100 * math.fsum(values) / len(scores)

    mean_ap = {x: percent(s.average_precision[k] for s in scores) for k, x in enumerate(AP_IOU)}
    return MomentScores(
        queries=len(scores),
        answered=sum(bool(s.overlaps) for s in scores),
        r1={x: percent(s.recalled(1, x) for s in scores) for x in thresholds},
        r5={x: percent(s.recalled(5, x) for s in scores) for x in thresholds},
        map=mean_ap,
        map_mean=math.fsum(mean_ap.values()) / len(mean_ap),
        mean_iou=percent(s.first_iou for s in scores),
        peak_inside=percent(s.peak_inside for s in scores),
        per_video=per_video or {},
        per_query=tuple(scores) if per_video else (),
    )
