"""What the rows say: differences from exact attention with their error over seeds, and the word for them.

A difference is taken seed by seed, as runs of one seed begin alike and see the same batches; its interval is Student's
at 95%. The word: "better" or "worse" where the interval leaves out zero; "equals" where it holds zero and lies within
the margin; "open" where these seeds cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Difference", "common_rate", "compared", "quantile"]

# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom.
_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """``mean``, its standard ``error`` over ``seeds`` (NaN for one), the ``margin`` of equality, and the ``word``."""

    mean: float
    error: float
    seeds: int
    margin: float
    word: str

    @property
    def half_width(self) -> float:
        """Of the interval at 95%."""
        return quantile(self.seeds - 1) * self.error if self.seeds > 1 else math.nan

    @property
    def at_least_equal(self) -> bool | None:
        """Whether it is equal or better; None where these seeds cannot tell."""
        if self.word == "open" and self.seeds > 1 and self.mean - self.half_width >= -self.margin:
            return True  # equal or better, whichever of them
        return {"better": True, "equals": True, "worse": False}.get(self.word)

    def __str__(self) -> str:
        if self.seeds < 2:
            return f"{self.mean:+.1f} (one seed): {self.word}"
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return f"{self.mean:+.1f} ± {self.error:.1f} ({low:+.1f} to {high:+.1f}): {self.word}"


def compared(ours: Mapping[int, float], base: Mapping[int, float], margin_share: float = 0.05) -> Difference | None:
    """The figure of one method against another's, by seed; None where no seed has both.

    ``margin_share``: two are equal within this share of the base's mean.
    """
    seeds = sorted(ours.keys() & base.keys())
    if not seeds:
        return None
    differences = [ours[seed] - base[seed] for seed in seeds]
    count = len(seeds)
    mean = math.fsum(differences) / count
    margin = margin_share * abs(math.fsum(base[seed] for seed in seeds) / count)
    if count < 2:
        return Difference(mean, math.nan, count, margin, "open")
    error = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (count - 1) / count)
    return Difference(mean, error, count, margin, _word(mean, quantile(count - 1) * error, margin))


def _word(mean: float, half_width: float, margin: float) -> str:
    low, high = mean - half_width, mean + half_width
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "equals" if -margin <= low and high <= margin else "open"


def quantile(freedom: int) -> float:
    """Student's t, two-sided at 95%; that of 30 degrees of freedom for more, which is a little too wide."""
    return _QUANTILES[min(freedom, len(_QUANTILES)) - 1]


def common_rate(losses: Mapping[str, Mapping[float, float | None]], tried: Sequence[float]) -> float | None:
    """The rate for all methods: the one with the lowest mean of their ``losses`` on held-out clips.

    A method votes where it was tried at every rate; one that did not stay finite (None) at a rate counts against that
    rate before any loss does. None where no method was tried at every rate, or none stayed finite at any.
    """
    voters = [own for own in losses.values() if all(rate in own for rate in tried)]
    ranked = []
    for rate in tried:
        known = [value for own in voters if (value := own[rate]) is not None and math.isfinite(value)]
        if known:
            ranked.append((len(voters) - len(known), math.fsum(known) / len(known), rate))
    return min(ranked)[2] if ranked else None
