"""The moment retrieval figures of the QVHighlights evaluator, under its own names.

J. Lei, T. L. Berg, M. Bansal, "QVHighlights: Detecting Moments and Highlights in Videos via Natural Language Queries",
2021, arXiv 2107.09609; definitions after the ``standalone_eval`` that they publish with Moment-DETR. Written anew:
where that program gives a figure, this gives the same one. What it does, where one could think otherwise:

- ``R1`` judges the window that a line lists *first*, whatever its score, by the right window with the highest IoU.
- ``mAP`` takes the first ten windows that a line *lists*, and only then sorts them by score, equal scores as listed.
- A length range (short: up to 10 s, middle: 10 to 30, long: 30 to 150, the upper end included) keeps the right windows
  of such a length, and the queries that have any; answers are not filtered by length. The full range keeps everything,
  longer windows too.
- Windows are not cut to the video. One of length zero is an answer, and a miss.
- Every figure is in percent, rounded to two decimals where it is made; the average is that of unrounded ones.

Where that program stops with an error:

- queries that are in one file only: :class:`PredictionError`, as there;
- a query with an empty list of windows: a miss in R1 and mAP (it stops, as R1 finds no first window);
- a range in which no right window falls: ``None`` for its figures (it stops).

``pred_saliency_scores`` (highlight detection) are not judged. Shapes: Q queries, N windows, M right ones, K thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PredictionError
from pipeline.evaluation.moments import Prediction, TruthMoment
from pipeline.evaluation.scores import ANSWERS, AP_IOU, average_precision, by_query, iou
from pipeline.media import Span

__all__ = ["RANGES", "evaluate_qvhighlights", "in_range"]

Array = npt.NDArray[np.float64]

RANGES: dict[str, tuple[float, float] | None] = {
    # name: windows longer than the first and at most as long as the second, in seconds; None: all
    "short": (0.0, 10.0),
    "middle": (10.0, 30.0),
    "long": (30.0, 150.0),
    "full": None,
}
_NAMED = 5  # queries that a message names


def evaluate_qvhighlights(
    truth: Sequence[TruthMoment], predictions: Iterable[Prediction], *, answered: Iterable[str] | None = None
) -> dict[str, Any]:
    """The evaluator's result: ``brief`` with its headline figures, then each range with ``MR-mAP`` and ``MR-R1``.

    Args:
        predictions: the order in which a query's answers come matters, see the top of the file.
        answered: ids of the queries that the submission has a line for, which may hold no window; by default those
            that have an answer.

    Raises:
        TruthError: no truth, or a query id twice.
        PredictionError: a query that only one side has, or an answer of another video than its query's.
    """
    predictions = list(predictions)
    answers = by_query(truth, predictions)
    # The order of the submission is the order in which the evaluator adds up: the last bit can decide a rounding.
    named = list(dict.fromkeys((p.query_id for p in predictions) if answered is None else answered))
    _check(truth, answers, named)
    windows = {qid: _windows(answers[qid]) for qid in named}
    scores = {qid: [a.score for a in answers[qid][:ANSWERS]] for qid in named}
    right = {moment.query_id: moment.spans for moment in truth}
    result: dict[str, Any] = {}
    for name in sorted(RANGES):
        kept = {qid: np.array(in_range(right[qid], name), dtype=np.float64).reshape(-1, 2) for qid in named}
        kept = {qid: spans for qid, spans in kept.items() if len(spans)}
        result[name] = {
            "MR-mAP": _mean_ap([(windows[qid][:ANSWERS], scores[qid], spans) for qid, spans in kept.items()]),
            "MR-R1": _recall([(windows[qid][:1], spans) for qid, spans in kept.items()]),
        }
    full = result["full"]
    brief = {
        "MR-full-R1@0.5": full["MR-R1"]["0.5"],
        "MR-full-R1@0.7": full["MR-R1"]["0.7"],
        "MR-full-mAP": full["MR-mAP"]["average"],
        "MR-full-mAP@0.5": full["MR-mAP"]["0.5"],
        "MR-full-mAP@0.75": full["MR-mAP"]["0.75"],
        "MR-long-mAP": result["long"]["MR-mAP"]["average"],
        "MR-middle-mAP": result["middle"]["MR-mAP"]["average"],
        "MR-short-mAP": result["short"]["MR-mAP"]["average"],
    }
    return {"brief": brief, **result}


def in_range(spans: Sequence[Span], name: str) -> list[tuple[float, float]]:
    """The right windows of a length range, as ``(start, end)`` in their order."""
    bounds = RANGES[name]
    pairs = [(span.start_seconds, span.end_seconds) for span in spans]
    return pairs if bounds is None else [(start, end) for start, end in pairs if bounds[0] < end - start <= bounds[1]]


def _check(truth: Sequence[TruthMoment], answers: dict[str, list[Prediction]], named: list[str]) -> None:
    unknown = [qid for qid in named if qid not in answers]
    if unknown:
        raise PredictionError(f"{_listed(unknown)}: in the predictions, and not in the truth; both must have the same")
    have = set(named)
    lacking = [qid for qid in answers if qid not in have]
    if lacking:
        raise PredictionError(
            f"{_listed(lacking)}: in the truth, and not in the predictions; both must have the same (a query without "
            "an answer has a line with an empty list of windows)"
        )
    for moment in truth:
        for answer in answers[moment.query_id]:
            if answer.video not in ("", moment.video):
                raise PredictionError(
                    f"qid {moment.query_id}: answered for vid {answer.video!r}, but asked of {moment.video!r}"
                )


def _listed(qids: list[str]) -> str:
    more = f" and {len(qids) - _NAMED} more" if len(qids) > _NAMED else ""
    return f"qid {', '.join(qids[:_NAMED])}{more}"


def _windows(answers: list[Prediction]) -> Array:
    return np.array([(a.start_seconds, a.end_seconds) for a in answers], dtype=np.float64).reshape(-1, 2)


def _percent(share: float) -> float:
    return float(f"{100 * share:.2f}")


def _mean_ap(queries: list[tuple[Array, list[float], Array]]) -> dict[str, float | None]:
    """mAP by threshold and ``average``; each query is its windows ``[N, 2]``, their scores, and the right ones."""
    names = [f"{x:g}" for x in AP_IOU]
    if not queries:
        return dict.fromkeys([*names, "average"])
    rows = []
    for windows, scores, right in queries:
        order = sorted(range(len(scores)), key=lambda n: -scores[n])
        rows.append(average_precision(iou(windows[order], right), AP_IOU))
    mean = np.array(rows).mean(axis=0)  # [K]
    result: dict[str, float | None] = {name: _percent(float(x)) for name, x in zip(names, mean, strict=True)}
    return {**result, "average": _percent(float(mean.mean()))}


def _recall(queries: list[tuple[Array, Array]]) -> dict[str, float | None]:
    """R1 by threshold; each query is its first window ``[1, 2]``, or ``[0, 2]``, and the right ones ``[M, 2]``."""
    if not queries:
        return dict.fromkeys([f"{x:g}" for x in AP_IOU])
    best = np.array([_first_iou(first, right) for first, right in queries])
    return {f"{x:g}": _percent(float(np.mean(best >= x))) for x in AP_IOU}


def _first_iou(first: Array, right: Array) -> float:
    """IoU of the first window with the right one that fits best. The union is the hull of both, as the evaluator takes
    it here: the same wherever they overlap, but for the last bit, which decides at a threshold.
    """
    if not len(first):
        return 0.0
    start, end = first[0]
    near_start, near_end = right[int(np.argmax(iou(first, right)[0]))]
    shared = max(0.0, min(end, near_end) - max(start, near_start))
    return float(shared / (max(end, near_end) - min(start, near_start)))
