"""A row of the efficiency tables, and the bytes that its method must hold.

``kept``: what must be kept of n tokens, once they are seen, to answer further queries. ``running``: what is held while
the stream runs, a method's own matrices and the table of costs of Ward counted.

Shapes: P patches a frame, n tokens, m kept tokens, q queries, H heads, dh width of a head, S slots of Ward: m + P.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "Bytes",
    "Row",
    "State",
    "all_tokens",
    "batched_ward",
    "features_of",
    "half",
    "measured_features",
    "mixed",
    "random_features",
    "ward",
    "width_of",
]

_SINGLE, _DOUBLE = 4, 8


@dataclass(frozen=True)
class Row:
    """One row of the table: a method at one n and q."""

    method: str
    tokens: int  # n
    queries: int  # q
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    heads: int = 8
    width: int = 64  # dh
    patches: int = 64  # P
    ratio: int = 16  # m = n / ratio
    device: str = "cpu"
    dtype: str = "float32"
    slow_seconds: float = 10.0  # calls slower than this are made fewer times

    @property
    def kept(self) -> int:
        """m."""
        return max(1, self.tokens // self.ratio)

    @property
    def size(self) -> int:
        """Bytes of one number of a token."""
        return _SINGLE if self.dtype == "float32" else 2


@dataclass(frozen=True)
class Bytes:
    kept: int
    running: int


State = Callable[[Row], Bytes]


def half(row: Row) -> int:
    """Rows where keys and values are kept apart: half as many of each in the state of m tokens."""
    return max(1, row.kept // 2)


def features_of(row: Row) -> int:
    """r of dh features, for all n tokens in the state of m whole ones."""
    return max(1, row.width // row.ratio)


def width_of(row: Row) -> int:
    return row.heads * row.width


def all_tokens(row: Row) -> Bytes:
    total = row.tokens * width_of(row) * row.size  # keys are values
    return Bytes(total, total)


def mixed(rows: Callable[[Row], int], matrix_size: Callable[[Row], int]) -> State:
    """``rows`` sums for keys and for values; their matrices ``[rows, n]`` of ``matrix_size`` bytes an entry (or 0)."""

    def state(row: Row) -> Bytes:
        count = min(rows(row), row.tokens)
        kept = 2 * count * width_of(row) * row.size
        return Bytes(kept, kept + 2 * count * row.tokens * matrix_size(row))

    return state


def random_features(features: Callable[[Row], int]) -> State:
    """A sum of values and one of weights for each feature and head; the directions of the features."""

    def state(row: Row) -> Bytes:
        kept = features(row) * row.heads * (row.width + 1) * row.size
        return Bytes(kept, kept + features(row) * row.width * row.size)

    return state


def measured_features(row: Row) -> Bytes:
    total = row.tokens * row.heads * features_of(row) * row.size
    return Bytes(total, total)


def ward(kept: Callable[[Row], int]) -> State:
    """Means and the table of costs of m + P slots, both float32; weight, span and thirteen columns more of each."""

    def state(row: Row) -> Bytes:
        slots = kept(row) + row.patches
        means = (slots + 1) * width_of(row) * _SINGLE  # one more, the origin
        columns = slots * (15 * _DOUBLE + 2 * _SINGLE) + row.patches * _DOUBLE
        return Bytes(_token_set(row, kept(row)), means + columns + slots * slots * _SINGLE)

    return state


def batched_ward(row: Row) -> Bytes:
    """m means with weight, span and patch between frames; a table of costs of m + P tokens while one is taken in."""
    slots = row.kept + row.patches
    means = (slots + 1) * width_of(row) * _SINGLE
    return Bytes(_token_set(row, row.kept), means + slots * 4 * _DOUBLE + slots * slots * _SINGLE)


def _token_set(row: Row, count: int) -> int:
    """Tokens, which are keys and values; weight (float32), start, end and patch."""
    return count * (width_of(row) * row.size + _SINGLE + 3 * _DOUBLE)
