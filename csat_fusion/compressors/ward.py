"""Streaming Ward merging of weighted tokens: the exact budget after every frame, merging only within a time gap.

The measurement of compressed sensing (CSAT, arXiv 2507.02957) with rows learnt from the stream: non-negative and
summing to one, so each kept token is the weighted mean of those it stands for. While there are more than m tokens, the
pair with the least increase of squared error is merged (J. H. Ward, "Hierarchical grouping to optimize an objective
function", 1963)::

    cost(i, j) = w_i w_j / (w_i + w_j) * |mean_i - mean_j|^2      infinite where their spans are too far apart

A frame costs one matrix product on the device of the tokens; its merges are then chosen on the host in a small matrix
(:mod:`csat_fusion.compressors.ward_table`); one more product gives the new means. State: m tokens, and one matrix
[m + P, m + P] of float32 on the host (float64 for float64 tokens and for a fidelity).

Shapes: m budget, P patch tokens a frame, d width, S slots: m + P, or at most twice that where the limit grows.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor, compute_dtype
from csat_fusion.compressors.budget import Budget, Cosine
from csat_fusion.compressors.pooling import check_grid
from csat_fusion.compressors.ward_table import Bools, Floats, Ints, WardTable
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["WardCompressor"]


class WardCompressor(Compressor):
    """Streaming Ward merging over all patches; see the module for the method.

    Args:
        budget: tokens to keep, or a ratio: exactly that many of those seen are kept after every frame. With a fidelity
            the cheapest pairs merge while it surely holds for all their members, so the state grows with what the video
            shows; the bound is the triangle inequality of angles, and members are often nearer than it says.
        gap_seconds: the most unseen time between the spans of two tokens that may merge. Only when no pair is left
            within it (and the neighbourhood), the lightest token goes to its cheapest partner anywhere: a number or a
            ratio comes first.
        fast_path: ``"mean"``: a patch token that costs no more than half of what merging cost before goes straight into
            the token that took the same patch in the last frame. A frame costs up to a third less where little moves,
            and at small budgets the background is measurably worse (docs/benchmarks.md). ``"previous"`` compares with
            the same patch of the previous frame, which lets slow drift run away from the mean: there to be compared
            with. A fidelity does without.
        neighbourhood: merge only tokens whose boxes of patches are at most this many grid cells apart; None: any.
        grid: ``(rows, columns)`` of the patches; a square where None. Used with a neighbourhood.
        keep_assignment: see :class:`Compressor`.

    Raises:
        CompressionError: an option is not as said; ``update`` where the patches do not fill the grid.
    """

    exact_budget = True
    by_cosine = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        fast_path: Literal["mean", "previous"] | None = None,
        neighbourhood: int | None = None,
        grid: tuple[int, int] | None = None,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if fast_path not in (None, "mean", "previous"):
            raise CompressionError(f"fast_path must be None, 'mean' or 'previous', got {fast_path!r}")
        if neighbourhood is not None and (
            isinstance(neighbourhood, bool) or not isinstance(neighbourhood, int) or neighbourhood < 0
        ):
            raise CompressionError(f"neighbourhood must be a whole number of cells, at least 0, got {neighbourhood!r}")
        self._fidelity = self._budget if isinstance(self._budget, Cosine) else None
        self._fast_path = fast_path if self._fidelity is None else None
        self._neighbourhood = neighbourhood
        self._grid = check_grid(grid)
        self._clear()

    def _clear(self) -> None:
        self._mean: Tensor | None = None  # [S, d], less self._origin
        self._tau = 0.0
        # For the assignment: every inserted token is a node; merging gives one node the other as parent.
        self._parent: list[int] = []
        self._seen: list[Ints] = []

    def _allocate(self, tokens: Tensor, limit: int) -> None:
        # Angles near 0 are lost among float32 distances.
        dtype = torch.float64 if self._fidelity else compute_dtype(tokens.dtype)
        patches = len(tokens)
        slots = limit + patches if isinstance(self._budget, int) else 2 * (limit + patches)
        # Distances are differences of squares; taking a common origin away keeps their digits. Angles need the zero.
        origin = tokens.to(dtype).mean(dim=0)
        self._origin = torch.zeros_like(origin) if self._fidelity else origin
        self._table = WardTable(
            slots,
            np.float64 if dtype == torch.float64 else np.float32,
            gap_seconds=self._gap_seconds,
            least_cosine=None if self._fidelity is None else self._fidelity.least,
            cells=self._neighbourhood,
            columns=_columns(patches, self._grid) if self._neighbourhood is not None else 1,
        )
        self._mean = torch.zeros(slots, tokens.shape[1], dtype=dtype, device=tokens.device)
        self._norm = torch.zeros(slots, dtype=dtype, device=tokens.device)  # |mean|^2
        self._current = np.full(patches, -1, dtype=np.int64)  # the slot that took each patch of the last frame
        self._previous: Tensor | None = None  # the last frame, where it is the anchor

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        limit = self._limit((self._frames_seen + 1) * len(tokens))
        if isinstance(self._budget, int):
            limit = self._budget
        if self._mean is None:
            self._allocate(tokens, limit)
        assert self._mean is not None
        table = self._table
        if table.count + len(tokens) > len(table):
            self._grow(2 * (table.count + len(tokens)))
        frame = tokens.to(self._mean.dtype) - self._origin
        absorbed = self._absorb(frame, start_seconds, end_seconds, weight, table.count + len(frame) - limit)
        if self._fast_path == "previous":
            self._previous = frame
        fresh = np.flatnonzero(~absorbed)
        touched = np.unique(self._current[absorbed])
        rows = frame if len(fresh) == len(frame) else frame[torch.from_numpy(fresh).to(frame.device)]
        norm = torch.linalg.vector_norm(rows, dim=1).double().cpu().numpy() if self._fidelity else None
        slots = table.insert(fresh, weight, start_seconds, end_seconds, norm)
        self._mean[torch.from_numpy(slots).to(frame.device)] = rows
        self._current[fresh] = slots
        if self._keep_assignment:
            table.node[slots] = np.arange(len(self._parent), len(self._parent) + len(fresh))
            self._parent.extend(table.node[slots].tolist())
            self._seen.append(table.node[self._current])
        self._measure(np.concatenate([touched, slots]))
        if self._fidelity or table.count > limit:
            self._shrink(None if self._fidelity else limit)

    def _grow(self, slots: int) -> None:
        assert self._mean is not None
        more = slots - len(self._table)
        self._table.grow(slots)
        self._mean = torch.cat([self._mean, self._mean.new_zeros(more, self._mean.shape[1])])
        self._norm = torch.cat([self._norm, self._norm.new_zeros(more)])

    def _absorb(self, frame: Tensor, start_seconds: float, end_seconds: float, weight: float, most: int) -> Bools:
        """The fast path: which patches ``[P]``, at most ``most``, went into the token that took them a frame ago."""
        if not self._fast_path or self._tau <= 0 or most <= 0:
            return np.zeros(len(frame), dtype=np.bool_)
        assert self._mean is not None
        table, current = self._table, self._current
        difference = frame - self._mean[torch.from_numpy(current).to(frame.device)]
        moved = difference if self._previous is None else frame - self._previous
        square = (moved * moved).sum(dim=1).double().cpu().numpy()
        held = table.weight[current]
        cost = held * weight / (held + weight) * square
        taken: Bools = (cost <= self._tau) & (start_seconds - table.end[current] <= table.limit_seconds)
        if taken.sum() > most:  # a limit that grows leaves room for some
            taken[np.argsort(np.where(taken, cost, np.inf), kind="stable")[most:]] = False
        patches = np.flatnonzero(taken)
        if not len(patches):
            return taken
        slots, position, members = np.unique(current[patches], return_inverse=True, return_counts=True)
        # mean += sum of weight / (new weight) * (token - mean), as a product so that a GPU gives the same every time
        total = table.weight[slots] + weight * members
        share = np.zeros((len(slots), len(patches)))
        share[position, np.arange(len(patches))] = weight / total[position]
        index = torch.from_numpy(slots).to(frame.device)
        if len(patches) < len(frame):
            difference = difference[torch.from_numpy(patches).to(frame.device)]
        self._mean[index] += torch.from_numpy(share).to(frame) @ difference
        table.weight[slots] = table.mass[slots] = total
        table.end[slots] = np.maximum(table.end[slots], end_seconds)
        return taken

    def _measure(self, rows: Ints) -> None:
        """Distances of the slots ``rows [R]``, whose means or weights are new, to all others."""
        assert self._mean is not None
        index = torch.from_numpy(rows).to(self._mean.device)
        mean = self._mean[index]
        norm = (mean * mean).sum(dim=1)
        self._norm[index] = norm
        gram = mean @ self._mean.T
        square: npt.NDArray[np.floating] = (norm[:, None] + self._norm).sub_(gram, alpha=2).clamp_(min=0).cpu().numpy()
        self._table.measure(rows, square)

    def _shrink(self, limit: int | None) -> None:
        """Merge until the limit holds, then bring the means up to date in one product."""
        before = self._table.weight.copy()
        merged, cost = self._table.shrink(limit)
        if self._fast_path:
            self._tau = max(self._tau, 0.5 * cost)
        if merged:
            self._settle(merged, before)

    def _settle(self, merged: list[tuple[int, int]], before: Floats) -> None:
        """The means of the merged slots from those of their members, weighted as ``before [S]`` the merging."""
        assert self._mean is not None
        table = self._table
        root = np.arange(len(before))
        for keep, drop in reversed(merged):  # last merge first, so that a chain ends at its root
            root[drop] = root[keep]
        if self._keep_assignment:
            for keep, drop in merged:
                self._parent[table.node[drop]] = int(table.node[keep])
        self._current = root[self._current]
        kept = np.unique(root[[keep for keep, _ in merged]])
        place = np.full(len(before), -1)
        place[kept] = np.arange(len(kept))
        members = np.flatnonzero((place[root] >= 0) & (before > 0))
        group = place[root[members]]
        share = np.zeros((len(kept), len(members)))
        share[group, np.arange(len(members))] = before[members] / table.weight[root[members]]
        device = self._mean.device
        kept_index, member_index = torch.from_numpy(kept).to(device), torch.from_numpy(members).to(device)
        mean = torch.from_numpy(share).to(self._mean) @ self._mean[member_index]
        self._mean[kept_index] = mean
        self._norm[kept_index] = (mean * mean).sum(dim=1)

    def _read(self) -> TokenSet:
        if self._mean is None or self._like is None:
            raise CompressionError("no frame was given yet, so there are no tokens")
        table = self._table
        order = table.order()
        device = self._mean.device
        tokens = self._mean[torch.from_numpy(order).to(device)] + self._origin
        return TokenSet(
            tokens=tokens.to(self._like.dtype),
            weight=torch.from_numpy(table.weight[order]).to(device=device, dtype=torch.float32),
            start_seconds=torch.from_numpy(table.start[order]).to(device),
            end_seconds=torch.from_numpy(table.end[order]).to(device),
            patch=torch.from_numpy(table.patch[order]).to(device),
        )

    def _assign(self) -> Tensor:
        parent = np.asarray(self._parent, dtype=np.int64)
        while not np.array_equal(up := parent[parent], parent):
            parent = up
        order = self._table.order()
        place = np.full(len(parent), -1, dtype=np.int64)
        place[self._table.node[order]] = np.arange(len(order))
        return torch.from_numpy(place[parent[np.concatenate(self._seen)]])


def _columns(patches: int, grid: tuple[int, int] | None) -> int:
    """Patches in a row of the grid."""
    if grid is None:
        side = math.isqrt(patches)
        if side * side != patches:
            raise CompressionError(f"{patches} patches are no square; give grid=(rows, columns)")
        return side
    rows, columns = grid
    if rows * columns != patches:
        raise CompressionError(f"a grid of {rows} x {columns} must hold the {patches} patches of a frame")
    return columns
