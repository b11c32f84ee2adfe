"""How far a figure of few queries can be trusted, and whether two ways of answering the same queries really differ.

An interval is Wilson's (E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927). Of
two ways only the queries count that one of them alone answers right; ``luck`` is how often a fair coin would split
those as unevenly or more: the exact form of the test of Q. McNemar, "Note on the sampling error of the difference
between correlated proportions or percentages", 1947. Both take queries for independent of each other. Those of one
video are not quite, so intervals are rather too narrow and luck is rather understated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError
from pipeline.evaluation.scores import MomentScores

__all__ = ["Difference", "interval", "peaks_compared"]

_Z = 1.959964  # two-sided 95 % of a normal distribution


def interval(right: int, of: int) -> tuple[float, float]:
    """Percent between which the true rate lies, at 95 %, where ``right`` of so many queries were answered right.

    Raises:
        InputError: no queries, or more right ones than there are.
    """
    if not 0 <= right <= of or of < 1:
        raise InputError(f"{right} right of {of}: there must be a query, and no more right ones than there are")
    rate, z2 = right / of, _Z**2
    middle = (rate + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z * math.sqrt(rate * (1 - rate) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


@dataclass(frozen=True)
class Difference:
    """Two ways of answering the same queries: how many each alone answers right."""

    first_alone: int
    second_alone: int

    @property
    def luck(self) -> float:
        """How likely, 0 to 1, a fair coin splits so many queries as unevenly; 1 where none differs."""
        differ = self.first_alone + self.second_alone
        fewer = min(self.first_alone, self.second_alone)
        return min(1.0, 2 * sum(math.comb(differ, k) for k in range(fewer + 1)) / (1 << differ))

    def to_dict(self) -> dict[str, Any]:
        return {"alone": self.first_alone, "other_alone": self.second_alone, "luck": round(self.luck, 4)}

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Difference:
        """Of which queries ``first`` and ``second`` were right, in the same order."""
        pairs = list(zip(first, second, strict=True))
        return cls(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))


def peaks_compared(first: MomentScores, second: MomentScores) -> Difference:
    """Whose first answer's peak lies in a right span, by query.

    Raises:
        InputError: they are not of the same queries.
    """
    mine, theirs = ({score.query_id: score.peak_inside for score in each.per_query} for each in (first, second))
    if mine.keys() != theirs.keys():
        raise InputError(f"scores of {len(mine)} and of {len(theirs)} queries that are not the same have no difference")
    return Difference.of(list(mine.values()), [theirs[query] for query in mine])
