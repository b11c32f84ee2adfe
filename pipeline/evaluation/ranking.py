"""How far down the right answers stand: recall at k, ranks, accuracy. Numbers only, no model.

Percentages are 0 to 100, as papers print them. A rank counts from 1. **Ties count against us**: what scores the same as
the right answer, to within :data:`TIE`, is ranked before it, so that a model that gives one vector to everything scores
nothing rather than everything.

Shapes: I pictures, T texts, D width of the joint space, C classes, Q queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import EncodingFailed, InputError

__all__ = [
    "RECALL_AT",
    "TIE",
    "ClassificationScores",
    "RankScores",
    "RetrievalScores",
    "classification_scores",
    "retrieval_scores",
]

RECALL_AT = (1, 5, 10)
TIE = 1e-9
"""Two scores closer than this are the same: what rounding in float64 may make of equal vectors, and no more."""

_CELLS = 4_000_000  # scores held at a time

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RankScores:
    """What Q queries found. ``recall`` and ``chance`` are percent by k; ``chance`` is that of a random order."""

    queries: int
    recall: dict[int, float]
    chance: dict[int, float]
    median_rank: float
    mean_reciprocal_rank: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            **{f"R@{k}": value for k, value in self.recall.items()},
            "median_rank": self.median_rank,
            "mean_reciprocal_rank": self.mean_reciprocal_rank,
            "chance": {f"R@{k}": value for k, value in self.chance.items()},
        }


@dataclass(frozen=True)
class RetrievalScores:
    """Both directions between I pictures and T texts; ``text_ranks [T]`` and ``image_ranks [I]`` are behind them.

    ``shortened`` counts the texts that were longer than the model reads and lost words at their end.
    """

    pictures: int
    texts: int
    text_to_image: RankScores
    image_to_text: RankScores
    shortened: int = 0
    text_ranks: Ints = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)
    image_ranks: Ints = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        return {
            "pictures": self.pictures,
            "texts": self.texts,
            "shortened": self.shortened,
            "text_to_image": self.text_to_image.to_dict(),
            "image_to_text": self.image_to_text.to_dict(),
        }


@dataclass(frozen=True)
class ClassificationScores:
    """Percent of I pictures whose right class is among the first 1 or 5 of C.

    ``mean_per_class`` is top-1 averaged over the classes that have pictures; ``per_class`` is top-1 by class index.
    """

    pictures: int
    classes: int
    top1: float
    top5: float
    mean_per_class: float
    per_class: dict[int, float] = field(default_factory=dict, repr=False)
    ranks: Ints = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)

    @property
    def chance(self) -> dict[str, float]:
        return {f"top{k}": 100.0 * min(k, self.classes) / self.classes for k in (1, 5)}

    def to_dict(self) -> dict[str, Any]:
        return {
            "pictures": self.pictures,
            "classes": self.classes,
            "top1": self.top1,
            "top5": self.top5,
            "mean_per_class": self.mean_per_class,
            "chance": self.chance,
        }


def retrieval_scores(image: Floats, text: Floats, owner: npt.NDArray[Any] | Sequence[int]) -> RetrievalScores:
    """Retrieval in both directions from vectors; scores are dot products, so unit vectors give cosines.

    ``owner [T]`` is the row of ``image [I, D]`` that each row of ``text [T, D]`` belongs to; every picture has at least
    one text. The usual protocol (Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task", JAIR
    47, 2013): in text to image every text is a query; in image to text every picture is one, and the best placed of its
    own texts counts, those of its own not standing in each other's way.

    Raises:
        InputError: shapes that disagree, an owner that is not there, a picture without text.
        EncodingFailed: a vector that is not finite.
    """
    image, text = _matrix("image", image), _matrix("text", text)
    owner = np.asarray(owner)
    if image.shape[1] != text.shape[1]:
        raise InputError(f"pictures are {image.shape[1]} wide, texts {text.shape[1]}: not of one model")
    owner = _indices("owner", owner, len(text), len(image))
    if len(without := np.setdiff1d(np.arange(len(image)), owner)):
        raise InputError(f"picture {without[0]} has no text ({len(without)} of {len(image)} have none)")
    text_ranks = np.empty(len(text), np.int64)
    best = np.full(len(image), -np.inf)
    step = max(1, _CELLS // len(image))
    for start in range(0, len(text), step):
        rows = slice(start, min(start + step, len(text)))
        scores, own = _scores_without_own(image, text[rows], owner[rows])
        text_ranks[rows] = 1 + (scores >= own[:, None] - TIE).sum(axis=1)
        np.maximum.at(best, owner[rows], own)
    image_ranks = np.ones(len(image), np.int64)
    for start in range(0, len(text), step):
        rows = slice(start, min(start + step, len(text)))
        scores, _ = _scores_without_own(image, text[rows], owner[rows])
        image_ranks += (scores >= best - TIE).sum(axis=0)
    each = np.bincount(owner, minlength=len(image))
    return RetrievalScores(
        pictures=len(image),
        texts=len(text),
        text_to_image=_rank_scores(text_ranks, {k: 100.0 * min(k, len(image)) / len(image) for k in RECALL_AT}),
        image_to_text=_rank_scores(image_ranks, {k: _chance_of_any(each, len(text), k) for k in RECALL_AT}),
        text_ranks=text_ranks,
        image_ranks=image_ranks,
    )


def classification_scores(
    image: Floats, classes: Floats, label: npt.NDArray[Any] | Sequence[int]
) -> ClassificationScores:
    """Top-1 and top-5 of pictures ``image [I, D]`` among class vectors ``classes [C, D]``.

    ``label [I]`` is the right row of ``classes`` for each picture.

    Raises:
        InputError: shapes that disagree, or a label that is not there.
        EncodingFailed: a vector that is not finite.
    """
    image, classes = _matrix("image", image), _matrix("classes", classes)
    if image.shape[1] != classes.shape[1]:
        raise InputError(f"pictures are {image.shape[1]} wide, classes {classes.shape[1]}: not of one model")
    label = _indices("label", np.asarray(label), len(image), len(classes))
    ranks = np.empty(len(image), np.int64)
    step = max(1, _CELLS // len(classes))
    for start in range(0, len(image), step):
        rows = slice(start, min(start + step, len(image)))
        scores, own = _scores_without_own(classes, image[rows], label[rows])
        ranks[rows] = 1 + (scores >= own[:, None] - TIE).sum(axis=1)
    per_class = {int(c): 100.0 * float((ranks[label == c] == 1).mean()) for c in np.unique(label)}
    return ClassificationScores(
        pictures=len(image),
        classes=len(classes),
        top1=100.0 * float((ranks <= 1).mean()),
        top5=100.0 * float((ranks <= 5).mean()),
        mean_per_class=float(np.mean(list(per_class.values()))),
        per_class=per_class,
        ranks=ranks,
    )


def _scores_without_own(keys: Floats, queries: Floats, own: Ints) -> tuple[Floats, Floats]:
    """Scores ``[Q, K]`` in float64 with that of each query's own key put to -inf, and those own scores ``[Q]``."""
    scores = queries.astype(np.float64) @ keys.astype(np.float64).T
    rows = np.arange(len(queries))
    right = scores[rows, own].copy()
    scores[rows, own] = -np.inf
    return scores, right


def _rank_scores(ranks: Ints, chance: dict[int, float]) -> RankScores:
    return RankScores(
        queries=len(ranks),
        recall={k: 100.0 * float((ranks <= k).mean()) for k in RECALL_AT},
        chance=chance,
        median_rank=float(np.median(ranks)),
        mean_reciprocal_rank=math.fsum(1.0 / ranks) / len(ranks),
    )


def _chance_of_any(each: Ints, texts: int, k: int) -> float:
    """Percent chance that one of a picture's own texts is among the first k of all in a random order, over pictures."""
    k = min(k, texts)
    whole = math.comb(texts, k)
    values, counts = np.unique(each, return_counts=True)
    missed = sum(int(n) * (math.comb(texts - int(c), k) / whole) for c, n in zip(values, counts, strict=True))
    return 100.0 * (1.0 - missed / len(each))


def _matrix(name: str, value: Floats) -> Floats:
    value = np.asarray(value)
    if value.ndim != 2 or 0 in value.shape or not np.issubdtype(value.dtype, np.floating):
        raise InputError(f"{name} must be floating point [n, D], n and D at least 1, got {value.dtype} {value.shape}")
    if len(bad := np.flatnonzero(~np.isfinite(value).all(axis=1))):
        raise EncodingFailed(f"row {bad[0]} of {name} is not finite ({len(bad)} of {len(value)} rows)")
    return value


def _indices(name: str, value: npt.NDArray[Any], count: int, limit: int) -> Ints:
    if value.shape != (count,) or not np.issubdtype(value.dtype, np.integer):
        raise InputError(f"{name} must be whole numbers [{count}], got {value.dtype} {list(value.shape)}")
    if len(bad := np.flatnonzero((value < 0) | (value >= limit))):
        raise InputError(f"{name}[{bad[0]}] is {value[bad[0]]}; allowed are 0 to {limit - 1}")
    return value.astype(np.int64)
