"""How often a random moment is right: what a score has to beat before it means anything.

The random answer, for a video of T seconds: a span whose length is drawn from the lengths that the judged system itself
answered with, placed uniformly where it fits into the video; and a peak uniform over the video. Its expected scores
are computed exactly, as shares of a line, not drawn.

Shapes: L lengths, S right spans of a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.media import Span

__all__ = ["Chance", "Place", "chance_of", "overlap_chance", "peak_chance"]


@dataclass(frozen=True)
class Place:
    """Where a query's right answers lie: ``spans`` of a video of ``duration_seconds``."""

    spans: tuple[Span, ...]
    duration_seconds: float


@dataclass(frozen=True)
class Chance:
    """Expected scores of a random answer: ``r1`` by IoU threshold and ``peak_inside``, in the unit of the scores."""

    r1: dict[float, float]
    peak_inside: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; thresholds become text."""
        return {"r1": {f"{level:g}": value for level, value in self.r1.items()}, "peak_inside": self.peak_inside}


def overlap_chance(place: Place, lengths_seconds: Sequence[float] | npt.NDArray[np.float64], threshold: float) -> float:
    """The probability that a span, its length one of ``lengths_seconds [L]`` (each as likely; at most the video's),
    uniformly placed inside the video, overlaps one of the right spans with an IoU of at least ``threshold``.

    A span ``[s, s + l)`` reaches it with a right one of length m exactly where they share at least
    ``threshold / (1 + threshold) * (l + m)``: an interval of s, so the probability is a length of the union of those.
    """
    if not len(lengths_seconds):
        return 0.0
    duration = place.duration_seconds
    length = np.minimum(np.asarray(lengths_seconds, dtype=np.float64), duration)[:, None]  # [L, 1]
    start = np.array([span.start_seconds for span in place.spans])  # [S]
    end = np.array([min(span.end_seconds, duration) for span in place.spans])
    shared = threshold / (1 + threshold) * (length + end - start)  # [L, S]
    room = duration - length  # [L, 1]: s lies in [0, room]
    first = np.maximum(start + shared - length, 0.0)
    last = np.minimum(end - shared, room)
    possible = (shared <= np.minimum(length, end - start) + 1e-12) & (last >= first)
    # The union of the intervals of each length: in order of their beginnings, what each adds beyond those before.
    order = np.argsort(first, axis=1)
    first, last = np.take_along_axis(first, order, 1), np.take_along_axis(last, order, 1)
    inside = np.take_along_axis(possible, order, 1)
    ends = np.maximum.accumulate(np.where(inside, last, -np.inf), axis=1)
    before = np.concatenate([np.full((len(length), 1), -np.inf), ends[:, :-1]], axis=1)
    added = np.where(inside, np.maximum(0.0, last - np.maximum(first, before)), 0.0).sum(axis=1)
    # A span as long as the video has one place only.
    fixed = room[:, 0] <= 0
    share = np.where(fixed, possible.any(axis=1), added / np.where(fixed, 1.0, room[:, 0]))
    return float(np.clip(share, 0.0, 1.0).mean())


def peak_chance(place: Place) -> float:
    """The share of the video that its right spans cover: how often a peak uniform over the video lies in one."""
    covered, reached = 0.0, 0.0
    for span in sorted(place.spans):
        end = min(span.end_seconds, place.duration_seconds)
        covered += max(0.0, end - max(span.start_seconds, reached))
        reached = max(reached, end)
    return min(1.0, covered / place.duration_seconds)


def chance_of(
    places: Sequence[Place],
    lengths_seconds: Sequence[float],
    thresholds: Sequence[float],
    *,
    library_seconds: float | None = None,
    scale: float = 1.0,
) -> Chance:
    """The mean over ``places``, one for each query, times ``scale``.

    Args:
        library_seconds: of all videos, where the answer may lie in any: the random one then lies in the right video as
            often as that is long.
    """
    odds = [1.0 if library_seconds is None else min(1.0, p.duration_seconds / library_seconds) for p in places]
    lengths = np.asarray(lengths_seconds, dtype=np.float64)

    def mean(values: list[float]) -> float:
        return scale * float(np.mean([value * o for value, o in zip(values, odds, strict=True)])) if values else 0.0

    return Chance(
        r1={level: mean([overlap_chance(place, lengths, level) for place in places]) for level in thresholds},
        peak_inside=mean([peak_chance(place) for place in places]),
    )
