"""Streaming Ward merging of weighted tokens: the exact budget after every frame, merging only within a time gap.

The measurement of compressed sensing (CSAT, arXiv 2507.02957) with rows learnt from the stream: non-negative and
summing to one, so each kept token is the weighted mean of those it stands for. While there are more than m tokens, the
pair with the least increase of squared error is merged (J. H. Ward, "Hierarchical grouping to optimize an objective
function", 1963)::

    cost(i, j) = w_i w_j / (w_i + w_j) * |mean_i - mean_j|^2      infinite where their spans are too far apart

Only distances steer the merging, and those to a merged token follow from those to its two parts (the formula of Lance
and Williams, 1967). So a frame costs one matrix product on the device of the tokens; its merges are then chosen on the
host in a small matrix; one more product gives the new means. State: m tokens, and two matrices [m + P, m + P] of
float64 on the host.

Shapes: m budget, P patch tokens a frame, d width, S = m + P slots, R rows that changed in a frame.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor, compute_dtype
from csat_fusion.compressors.budget import Budget
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["WardCompressor"]

# Spans come from sums of floats: a gap of exactly gap_seconds must not depend on the last bit.
_ROUNDING_SECONDS = 1e-9
# Each column of the state and what a free slot holds; a free slot is infinitely far from everything in time.
_COLUMNS = {
    "_weight": 0.0,
    "_start": np.inf,
    "_end": -np.inf,
    "_patch": -1,
    "_node": -1,
    "_nearest": 0,
    "_nearest_cost": np.inf,
    "_nearest_version": 0,
    "_version": 0,
}
_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


class WardCompressor(Compressor):
    """Streaming Ward merging over all patches; see the module for the method.

    Args:
        budget: m, tokens to keep.
        gap_seconds: the most unseen time between the spans of two tokens that may merge. Only when no pair is left
            within it, the lightest token goes to its cheapest partner anywhere: the budget comes first.
        fast_path: a patch token that costs no more than half of what merging cost before goes straight into the token
            that took the same patch in the last frame. Much faster where little moves, and nearly the same result.
        keep_assignment: see :class:`Compressor`.
    """

    exact_budget = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        fast_path: bool = True,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._fast_path = fast_path
        # Finite even where the gap is not, because free slots are kept out by their infinite distance in time.
        self._limit_seconds = min(self._gap_seconds + _ROUNDING_SECONDS, 1e300)
        self._weight: _Floats
        self._start: _Floats
        self._end: _Floats
        self._patch: _Ints
        self._node: _Ints
        self._nearest: _Ints
        self._nearest_cost: _Floats
        self._nearest_version: _Ints
        self._version: _Ints
        self._clear()

    def _clear(self) -> None:
        self._mean: Tensor | None = None  # [S, d], less self._origin
        self._count = 0
        self._tau = 0.0
        # For the assignment: every inserted token is a node; merging gives one node the other as parent.
        self._parent: list[int] = []
        self._seen: list[_Ints] = []

    def _allocate(self, tokens: Tensor) -> None:
        slots = self._slots(len(tokens))
        dtype = compute_dtype(tokens.dtype)
        # Distances are differences of squares; taking a common origin away keeps their digits.
        self._origin = tokens.to(dtype).mean(dim=0)
        self._mean = torch.zeros(slots, tokens.shape[1], dtype=dtype, device=tokens.device)
        self._norm = torch.zeros(slots, dtype=dtype, device=tokens.device)  # |mean|^2
        for name, empty in _COLUMNS.items():
            setattr(self, name, np.full(slots, empty))
        self._square = np.zeros((slots, slots))  # |mean_i - mean_j|^2
        self._cost = np.full((slots, slots), np.inf)  # Ward's, infinite beyond the gap
        # A slot that changes looks for its nearest; others that pointed at it are stale (the version tells) until they
        # come up as the least. So each pair is seen by the one of the two that changed last, and the least is exact.
        self._current = np.full(len(tokens), -1, dtype=np.int64)  # the slot that took each patch of the last frame

    def _slots(self, patches: int) -> int:
        """Room for what is kept and one frame more; twice that where the limit grows."""
        seen = (self._frames_seen + 1) * patches
        return self._budget + patches if isinstance(self._budget, int) else 2 * (self._limit(seen) + patches)

    def _grow(self, slots: int) -> None:
        """Room for ``slots`` in all."""
        assert self._mean is not None
        more = slots - len(self._weight)
        self._mean = torch.cat([self._mean, self._mean.new_zeros(more, self._mean.shape[1])])
        self._norm = torch.cat([self._norm, self._norm.new_zeros(more)])
        for name, empty in _COLUMNS.items():
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.full(more, empty, dtype=column.dtype)]))
        self._square = np.pad(self._square, (0, more))
        self._cost = np.pad(self._cost, (0, more), constant_values=np.inf)

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        if self._mean is None:
            self._allocate(tokens)
        assert self._mean is not None
        limit = self._limit((self._frames_seen + 1) * len(tokens))
        if self._count + len(tokens) > len(self._weight):
            self._grow(2 * (limit + len(tokens)))
        frame = tokens.to(self._mean.dtype) - self._origin
        absorbed = self._absorb(frame, start_seconds, end_seconds, weight, self._count + len(frame) - limit)
        fresh = np.flatnonzero(~absorbed)
        touched = np.unique(self._current[absorbed])
        slots = np.flatnonzero(self._weight == 0)[: len(fresh)]
        if len(fresh):
            index = torch.from_numpy(slots).to(frame.device)
            self._mean[index] = frame if len(fresh) == len(frame) else frame[torch.from_numpy(fresh).to(frame.device)]
            self._weight[slots] = weight
            self._start[slots] = start_seconds
            self._end[slots] = end_seconds
            self._patch[slots] = fresh
            self._current[fresh] = slots
            self._count += len(fresh)
        if self._keep_assignment:
            self._node[slots] = np.arange(len(self._parent), len(self._parent) + len(fresh))
            self._parent.extend(self._node[slots].tolist())
            self._seen.append(self._node[self._current])
        self._measure(np.concatenate([touched, slots]))
        if self._count > limit:
            self._shrink(limit)

    def _absorb(
        self, frame: Tensor, start_seconds: float, end_seconds: float, weight: float, most: int
    ) -> npt.NDArray[np.bool_]:
        """The fast path: which patches ``[P]``, at most ``most``, went into the token that took them a frame ago."""
        if not self._fast_path or self._tau <= 0 or most <= 0:
            return np.zeros(len(frame), dtype=np.bool_)
        assert self._mean is not None
        current = self._current
        difference = frame - self._mean[torch.from_numpy(current).to(frame.device)]
        square = (difference * difference).sum(dim=1).double().cpu().numpy()
        held = self._weight[current]
        near = start_seconds - self._end[current] <= self._limit_seconds
        cost = held * weight / (held + weight) * square
        taken: npt.NDArray[np.bool_] = (cost <= self._tau) & near
        if taken.sum() > most:  # a growing limit leaves room for some
            taken[np.argsort(np.where(taken, cost, np.inf), kind="stable")[most:]] = False
        patches = np.flatnonzero(taken)
        if not len(patches):
            return taken
        slots, position, members = np.unique(current[patches], return_inverse=True, return_counts=True)
        # mean += sum of weight / (new weight) * (token - mean), as a product so that a GPU gives the same every time
        share = np.zeros((len(slots), len(patches)))
        share[position, np.arange(len(patches))] = weight / (self._weight[slots] + weight * members)[position]
        index = torch.from_numpy(slots).to(frame.device)
        if len(patches) < len(frame):
            difference = difference[torch.from_numpy(patches).to(frame.device)]
        self._mean[index] += torch.from_numpy(share).to(frame) @ difference
        self._weight[slots] += weight * members
        self._end[slots] = np.maximum(self._end[slots], end_seconds)
        return taken

    def _measure(self, rows: _Ints) -> None:
        """Distances and costs of the slots ``rows [R]``, whose means or weights are new, to all others."""
        assert self._mean is not None
        index = torch.from_numpy(rows).to(self._mean.device)
        mean = self._mean[index]
        norm = (mean * mean).sum(dim=1)
        self._norm[index] = norm
        gram = mean @ self._mean.T
        square = (norm[:, None] + self._norm).sub_(gram, alpha=2).clamp_(min=0).double().cpu().numpy()
        self._square[rows] = square
        self._square[:, rows] = square.T
        weight = self._weight[rows, None]
        cost = square * (weight * self._weight / (weight + self._weight))
        cost[self._start > self._end[rows, None] + self._limit_seconds] = np.inf
        cost[self._end < self._start[rows, None] - self._limit_seconds] = np.inf
        cost[np.arange(len(rows)), rows] = np.inf
        self._cost[rows] = cost
        self._cost[:, rows] = cost.T
        self._version[rows] += 1
        nearest = cost.argmin(axis=1)
        self._nearest[rows] = nearest
        self._nearest_cost[rows] = cost[np.arange(len(rows)), nearest]
        self._nearest_version[rows] = self._version[nearest]

    def _shrink(self, limit: int) -> None:
        """Merge until the budget holds, then bring the means up to date in one product."""
        before = self._weight.copy()
        merged: list[tuple[int, int]] = []
        cost = 0.0
        nearest, nearest_cost = self._nearest, self._nearest_cost
        while self._count > limit:
            keep = int(nearest_cost.argmin())
            least = float(nearest_cost[keep])
            if math.isinf(least):
                keep, drop = self._lightest_pair()
            else:
                drop = int(nearest[keep])
                if self._nearest_version[keep] != self._version[drop]:
                    row = self._cost[keep]
                    drop = int(row.argmin())
                    nearest[keep] = drop
                    nearest_cost[keep] = row[drop]
                    self._nearest_version[keep] = self._version[drop]
                    continue
                cost = least
            self._merge(keep, drop)
            merged.append((keep, drop))
        if self._fast_path:
            self._tau = max(self._tau, 0.5 * cost)
        self._settle(merged, before)

    def _lightest_pair(self) -> tuple[int, int]:
        """The lightest token and its cheapest partner, whatever time lies between them."""
        held = np.where(self._weight > 0, self._weight, np.inf)
        light = int(held.argmin())
        cost = self._square[light] * (held[light] * self._weight / (held[light] + self._weight))
        cost[self._weight == 0] = np.inf
        cost[light] = np.inf
        return light, int(cost.argmin())

    def _merge(self, keep: int, drop: int) -> None:
        """Merge slot ``drop`` into ``keep``: everything but the mean itself, which ``_settle`` makes."""
        weight, start, end, square = self._weight, self._start, self._end, self._square
        total = float(weight[keep] + weight[drop])
        share, other = float(weight[keep]) / total, float(weight[drop]) / total
        row = square[keep] * share
        row += square[drop] * other
        row -= share * other * float(square[keep, drop])
        np.maximum(row, 0.0, out=row)
        row[keep] = 0.0
        square[keep] = row
        square[:, keep] = row
        weight[keep] = total
        weight[drop] = 0.0
        first = min(float(start[keep]), float(start[drop]))
        last = max(float(end[keep]), float(end[drop]))
        start[keep], end[keep] = first, last
        start[drop], end[drop] = np.inf, -np.inf
        if self._patch[keep] != self._patch[drop]:
            self._patch[keep] = -1
        if self._keep_assignment:
            self._parent[self._node[drop]] = int(self._node[keep])
        factor = weight + total
        np.divide(weight, factor, out=factor)
        factor *= total
        row *= factor
        row[(start > last + self._limit_seconds) | (end < first - self._limit_seconds)] = np.inf
        row[keep] = np.inf
        self._cost[keep] = row
        self._cost[:, keep] = row
        self._cost[:, drop] = np.inf
        version = self._version
        version[keep] += 1
        version[drop] += 1
        nearest = int(row.argmin())
        self._nearest[keep] = nearest
        self._nearest_cost[keep] = row[nearest]
        self._nearest_version[keep] = version[nearest]
        self._nearest_cost[drop] = np.inf
        self._count -= 1

    def _settle(self, merged: list[tuple[int, int]], before: _Floats) -> None:
        """The means of the merged slots from those of their members, weighted as ``before [S]`` the merging."""
        assert self._mean is not None
        root = np.arange(len(before))
        for keep, drop in reversed(merged):  # last merge first, so that a chain ends at its root
            root[drop] = root[keep]
        self._current = root[self._current]
        kept = np.unique(root[[keep for keep, _ in merged]])
        place = np.full(len(before), -1)
        place[kept] = np.arange(len(kept))
        members = np.flatnonzero(place[root] >= 0)
        members = members[before[members] > 0]
        group = place[root[members]]
        share = np.zeros((len(kept), len(members)))
        share[group, np.arange(len(members))] = before[members] / self._weight[root[members]]
        device = self._mean.device
        kept_index, member_index = torch.from_numpy(kept).to(device), torch.from_numpy(members).to(device)
        mean = torch.from_numpy(share).to(self._mean) @ self._mean[member_index]
        self._mean[kept_index] = mean
        self._norm[kept_index] = (mean * mean).sum(dim=1)

    def _order(self) -> _Ints:
        """Live slots in order of start, then end, then patch."""
        live = np.flatnonzero(self._weight > 0)
        order = np.lexsort((self._patch[live], self._end[live], self._start[live]))
        ordered: _Ints = live[order]
        return ordered

    def _read(self) -> TokenSet:
        if self._mean is None or self._like is None:
            raise CompressionError("no frame was given yet, so there are no tokens")
        order = self._order()
        device = self._mean.device
        tokens = self._mean[torch.from_numpy(order).to(device)] + self._origin
        return TokenSet(
            tokens=tokens.to(self._like.dtype),
            weight=torch.from_numpy(self._weight[order]).to(device=device, dtype=torch.float32),
            start_seconds=torch.from_numpy(self._start[order]).to(device),
            end_seconds=torch.from_numpy(self._end[order]).to(device),
            patch=torch.from_numpy(self._patch[order]).to(device),
        )

    def _assign(self) -> Tensor:
        parent = np.asarray(self._parent, dtype=np.int64)
        while not np.array_equal(up := parent[parent], parent):
            parent = up
        order = self._order()
        place = np.full(len(parent), -1, dtype=np.int64)
        place[self._node[order]] = np.arange(len(order))
        return torch.from_numpy(place[parent[np.concatenate(self._seen)]])
