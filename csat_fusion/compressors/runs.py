"""Runs: merging only what is adjacent in time, for embeddings of frames (P = 1) or for whole frames of patches.

Ward's cost (1963) between neighbours in time; a run's spans follow one another, so they partition the time covered.

Shapes: T frames, P patches a frame, D or d width, m vectors kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from csat_fusion.compressors.base import LARGEST_VALUE, Compressor, gap
from csat_fusion.compressors.budget import Budget
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

try:
    import numpy as np
    import numpy.typing as npt
except ModuleNotFoundError as missing:  # then what is here can be imported, and says so where it is called
    if missing.name != "numpy":
        raise
    _HAS_NUMPY = False
else:
    _HAS_NUMPY = True

__all__ = ["RunCompressor", "merge_runs"]

_ROUNDING_SECONDS = 1e-9
_Floats: TypeAlias = "npt.NDArray[np.float64]"
_Ints: TypeAlias = "npt.NDArray[np.int64]"


class _Chain:
    """Runs in order of time, a linked list in arrays: ``mean [capacity, D]``; ``cost[i]`` is that of i and its next."""

    def __init__(self, capacity: int, width: int, gap_seconds: float) -> None:
        self.mean = np.zeros((capacity, width))
        self.weight = np.zeros(capacity)
        self.start = np.zeros(capacity)
        self.end = np.zeros(capacity)
        self.frames = np.zeros(capacity, dtype=np.int64)
        self.cost = np.full(capacity, np.inf)
        self.live = np.zeros(capacity, dtype=np.bool_)
        self.next = np.full(capacity, -1, dtype=np.int64)
        self.previous = np.full(capacity, -1, dtype=np.int64)
        self.gap_seconds = gap_seconds
        self.free: list[int] = list(range(capacity - 1, -1, -1))
        self.first = -1
        self.last = -1
        self.count = 0

    def grow(self) -> None:
        """Twice the capacity."""
        capacity = len(self.weight)
        self.mean = np.concatenate([self.mean, np.zeros_like(self.mean)])
        for name, empty in (("weight", 0), ("start", 0), ("end", 0), ("frames", 0), ("cost", np.inf), ("live", False)):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.full(capacity, empty, dtype=column.dtype)]))
        self.next = np.concatenate([self.next, np.full(capacity, -1, dtype=np.int64)])
        self.previous = np.concatenate([self.previous, np.full(capacity, -1, dtype=np.int64)])
        self.free.extend(range(2 * capacity - 1, capacity - 1, -1))

    def append(self, mean: _Floats, weight: float, start_seconds: float, end_seconds: float) -> None:
        if not self.free:
            self.grow()
        i = self.free.pop()
        self.mean[i] = mean
        self.weight[i], self.start[i], self.end[i] = weight, start_seconds, end_seconds
        self.frames[i] = 1
        self.cost[i] = np.inf
        self.live[i] = True
        self.next[i] = -1
        self.previous[i] = self.last
        if self.last >= 0:
            self.next[self.last] = i
            self._price(self.last)
        else:
            self.first = i
        self.last = i
        self.count += 1

    def cheapest(self) -> tuple[int, float]:
        """The run that is cheapest to merge with its next, and that cost; infinite where a gap lies between all."""
        i = int(self.cost.argmin())
        return i, float(self.cost[i])

    def merge_cheapest(self) -> None:
        """Merge the cheapest neighbours; where a gap lies between all, the lightest run and its cheaper neighbour."""
        i, cost = self.cheapest()
        if math.isinf(cost):
            light = int(np.where(self.live, self.weight, np.inf).argmin())
            before, after = int(self.previous[light]), int(self.next[light])
            left = self._ward(before, light) if before >= 0 else math.inf
            right = self._ward(light, after) if after >= 0 else math.inf
            i = before if left <= right else light
        self._merge_with_next(i)

    def order(self) -> _Ints:
        """Live runs in order of time."""
        out, i = [], self.first
        while i >= 0:
            out.append(i)
            i = int(self.next[i])
        return np.asarray(out, dtype=np.int64)

    def _merge_with_next(self, i: int) -> None:
        j = int(self.next[i])
        total = float(self.weight[i] + self.weight[j])
        self.mean[i] += (self.mean[j] - self.mean[i]) * (float(self.weight[j]) / total)
        self.weight[i] = total
        self.end[i] = max(float(self.end[i]), float(self.end[j]))
        self.frames[i] += self.frames[j]
        after = int(self.next[j])
        self.next[i] = after
        if after >= 0:
            self.previous[after] = i
        else:
            self.last = i
        self.live[j] = False
        self.cost[j] = np.inf
        self.free.append(j)
        self.count -= 1
        self._price(i)
        if self.previous[i] >= 0:
            self._price(int(self.previous[i]))

    def _price(self, i: int) -> None:
        j = int(self.next[i])
        if j < 0 or self.start[j] - self.end[i] > self.gap_seconds + _ROUNDING_SECONDS:
            self.cost[i] = np.inf
        else:
            self.cost[i] = self._ward(i, j)

    def _ward(self, i: int, j: int) -> float:
        difference = self.mean[i] - self.mean[j]
        held, other = float(self.weight[i]), float(self.weight[j])
        return held * other / (held + other) * float(difference @ difference)


class RunCompressor(Compressor):
    """Keeps runs of whole frames, each patch the mean over its run; the cheapest neighbours in time are merged first.

    With P = 1 it keeps exactly ``min(T, budget)`` vectors; with more patches ``min(T, budget // P)`` runs of P tokens.
    ``update`` raises :class:`CompressionError` where a number of tokens is smaller than one frame; a ratio is never
    taken to mean less than one frame.
    """

    exact_budget = False

    def __init__(self, budget: Budget | str, *, gap_seconds: float = 1.0, keep_assignment: bool = False) -> None:
        _need_numpy(type(self).__name__)
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._clear()

    def _clear(self) -> None:
        self._chain: _Chain | None = None

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        limit = self._limit((self._frames_seen + 1) * len(tokens))
        if isinstance(self._budget, int) and len(tokens) > self._budget:
            raise CompressionError(
                f"runs keeps whole frames: a budget of {self._budget} is less than the {len(tokens)} tokens of a "
                f"frame; 'ward' can go below one frame"
            )
        runs = max(1, limit // len(tokens))
        if self._chain is None:
            self._chain = _Chain(2, tokens.numel(), self._gap_seconds)
        chain = self._chain
        chain.append(tokens.reshape(-1).double().cpu().numpy(), weight, start_seconds, end_seconds)
        if chain.count > runs:
            chain.merge_cheapest()

    def _read(self) -> TokenSet:
        assert self._chain is not None
        assert self._like is not None
        return _token_set(self._chain, self._patches, self._like)

    def _assign(self) -> Tensor:
        assert self._chain is not None
        runs = np.repeat(np.arange(self._chain.count), self._chain.frames[self._chain.order()])
        return torch.from_numpy((runs[:, None] * self._patches + np.arange(self._patches)).reshape(-1))


def merge_runs(
    embedding: Tensor | npt.NDArray[np.floating],
    weight: Tensor | npt.ArrayLike,
    start_seconds: Tensor | npt.ArrayLike,
    end_seconds: Tensor | npt.ArrayLike,
    budget: int,
    *,
    max_cost: float | None = None,
    gap_seconds: float = math.inf,
) -> TokenSet:
    """Merge frame embeddings, all known, into at most ``budget`` runs: the cheapest neighbours in time first.

    Args:
        embedding: ``[T, D]`` floating point, in order of time.
        weight: ``[T]``, how many sampled frames each stands for, above 0.
        start_seconds, end_seconds: ``[T]``, the half-open span of each; starts never go back.
        budget: the most runs to keep, at least 1; exactly ``min(T, budget)`` are kept where ``max_cost`` is None.
        max_cost: go on below the budget while the cheapest merge costs no more than this: ``w_a w_b / (w_a + w_b) *
            |a - b|^2``, which is ``w * (1 - cosine)`` for two vectors of unit length and equal weight w.
        gap_seconds: neighbours with more unseen time than this between them merge only where the budget demands it.

    Returns:
        The runs in order of time: weighted means (not normalised, so of unit length only where nothing was merged) in
        the type and on the device of ``embedding``, total weights, united spans; patch 0.

    Raises:
        CompressionError: there is no frame, lengths disagree, a value is outside what is allowed, or numpy is not
            installed.
    """
    _need_numpy("merge_runs")
    vectors = torch.as_tensor(embedding).detach()
    if vectors.ndim != 2 or 0 in vectors.shape or not vectors.is_floating_point():
        raise CompressionError(
            f"embedding must be floating point [T, D], T and D at least 1, got {vectors.dtype} {list(vectors.shape)}"
        )
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise CompressionError(f"the budget must be a whole number of vectors, at least 1, got {budget!r}")
    gap_seconds = gap("gap_seconds", gap_seconds)
    max_cost = None if max_cost is None else gap("max_cost", max_cost)
    weights, starts, ends = (
        _column(name, values, len(vectors))
        for name, values in (("weight", weight), ("start_seconds", start_seconds), ("end_seconds", end_seconds))
    )
    _check_columns(weights, starts, ends)
    host = vectors.double().cpu().numpy()
    if not float(np.abs(host).max()) <= LARGEST_VALUE:
        bad = int((~(np.abs(host).max(axis=1) <= LARGEST_VALUE)).argmax())
        raise CompressionError(
            f"embedding {bad} (at {starts[bad]} s) holds a value that is not finite or above {LARGEST_VALUE:g} in size"
        )
    chain = _Chain(len(host), host.shape[1], gap_seconds)
    for t in range(len(host)):
        chain.append(host[t], float(weights[t]), float(starts[t]), float(ends[t]))
    while chain.count > budget:
        chain.merge_cheapest()
    if max_cost is not None:
        while chain.count > 1 and math.isfinite(cost := chain.cheapest()[1]) and cost <= max_cost:
            chain.merge_cheapest()
    return _token_set(chain, 1, vectors[:0])


def _need_numpy(name: str) -> None:
    if not _HAS_NUMPY:
        raise CompressionError(f"{name} needs numpy, which is not installed: pip install numpy, or use 'ward-batched'")


def _token_set(chain: _Chain, patches: int, like: Tensor) -> TokenSet:
    order = chain.order()
    tokens = torch.from_numpy(chain.mean[order].reshape(len(order) * patches, -1))

    def each(values: Sequence[float] | _Floats, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.repeat(values, patches)).to(device=like.device, dtype=dtype)

    return TokenSet(
        tokens=tokens.to(like),
        weight=each(chain.weight[order], torch.float32),
        start_seconds=each(chain.start[order], torch.float64),
        end_seconds=each(chain.end[order], torch.float64),
        patch=torch.arange(patches, device=like.device).repeat(len(order)),
    )


def _column(name: str, values: Tensor | npt.ArrayLike, length: int) -> _Floats:
    host = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    column = np.asarray(host, dtype=np.float64)
    if column.shape != (length,):
        raise CompressionError(f"{name} must be [{length}] as there are {length} embeddings, got {list(column.shape)}")
    return column


def _check_columns(weights: _Floats, starts: _Floats, ends: _Floats) -> None:
    bad = ~(np.isfinite(weights) & (weights > 0))
    if bad.any():
        raise CompressionError(f"weight {int(bad.argmax())} must be finite and above 0, got {weights[bad.argmax()]}")
    bad = ~(np.isfinite(starts) & np.isfinite(ends) & (ends > starts))
    if bad.any():
        i = int(bad.argmax())
        raise CompressionError(f"the span {i} must be finite and end after it starts, got [{starts[i]}, {ends[i]})")
    back = np.diff(starts) < 0
    if back.any():
        i = int(back.argmax())
        raise CompressionError(f"embeddings must come in order of time: {starts[i + 1]} s after {starts[i]} s")
