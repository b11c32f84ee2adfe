"""How much a compressor may keep: a number of tokens, a share of those seen, or a fidelity.

Shapes: n tokens seen so far.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from csat_fusion.errors import CompressionError

__all__ = ["Budget", "Cosine", "Ratio", "parse_budget"]

_ALLOWED = (
    "a whole number of tokens, at least 1, got {!r} "
    "(a share of the tokens is Ratio(1/16) or '1/16', a fidelity Cosine(0.95) or 'cosine 0.95')"
)


@dataclass(frozen=True)
class Ratio:
    """Keep this share of the tokens seen, rounded up: ``0 < share <= 1``. The number kept grows with the stream."""

    share: float

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise CompressionError(f"the ratio of a budget must be above 0 and at most 1, got {self.share!r}")

    def limit(self, seen: int) -> int:
        """The most tokens to keep of ``seen``; at least 1."""
        return max(1, math.ceil(seen * self.share * (1 - 1e-12)))  # 160 * 0.1 is 16.000000000000004 at times


@dataclass(frozen=True)
class Cosine:
    """Keep as few tokens as leave every token's cosine to the one that stands for it at ``least`` or above.

    ``0 < least <= 1``, up to rounding. A token of zero norm may be represented only by one of zero norm.
    """

    least: float

    def __post_init__(self) -> None:
        if isinstance(self.least, bool) or not isinstance(self.least, int | float) or not 0 < self.least <= 1:
            raise CompressionError(f"the cosine of a budget must be above 0 and at most 1, got {self.least!r}")


Budget: TypeAlias = "int | Ratio | Cosine | None"


def parse_budget(budget: int | str | Ratio | Cosine | None) -> Budget:
    """``64`` or ``"64"``: tokens; ``"1/16"`` or ``"6.25%"``: a :class:`Ratio`; ``"cosine 0.95"``: a :class:`Cosine`;
    ``None``: no limit.

    Raises:
        CompressionError: none of these, or outside what is allowed.
    """
    if isinstance(budget, str):
        text = budget.strip().lower()
        if re.fullmatch(r"\d+", text):
            return parse_budget(int(text))
        if match := re.fullmatch(r"(\d+)\s*/\s*(\d+)", text):
            if int(match[2]) == 0:
                raise CompressionError(f"the ratio of a budget must be above 0 and at most 1, got {budget!r}")
            return Ratio(float(Fraction(int(match[1]), int(match[2]))))
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
            return Ratio(float(match[1]) / 100)
        if match := re.fullmatch(r"cosine\s*(?:>=|=)?\s*(\d*\.?\d+)", text):
            return Cosine(float(match[1]))
        raise CompressionError(f"the budget must be {_ALLOWED.format(budget)}")
    if budget is None or isinstance(budget, Ratio | Cosine):
        return budget
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise CompressionError(f"the budget must be {_ALLOWED.format(budget)}")
    return budget
