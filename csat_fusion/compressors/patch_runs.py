"""Closed-loop runs: each patch of the grid keeps the means of the runs of time in which it looked the same.

A token is compared with the mean of its patch's run, not with the frame before it (closed loop), so a slow drift does
end a run. Runs of a patch are neighbours in time; the cheapest neighbours are merged by Ward's cost (J. H. Ward,
"Hierarchical grouping to optimize an objective function", 1963), so the budget holds after every frame::

    cost(a, b) = w_a w_b / (w_a + w_b) * |mean_a - mean_b|^2

Always the cheapest pair goes first. Many are merged in one round where it is certain that merging one after the other
would do the same: unlike Ward's merging of any pair, that of neighbours can make a pair cheaper than both it came from
(0, 1, 0: once the 1 is taken in, the third is near), so what each merge would leave is priced before the round.

Shapes: P patches a frame, d width, m budget, R runs, S slots for runs.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor, compute_dtype, share_of
from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import Window, token_set
from csat_fusion.compressors.pooling import Grid, check_grid, grid_cells, grid_shape
from csat_fusion.tokens import TokenSet

__all__ = ["PatchRunCompressor"]

# Spans come from sums of floats: a gap of exactly gap_seconds must not depend on the last bit.
_ROUNDING_SECONDS = 1e-9
# Pairs to price in a round at most: few rounds merge more. It changes no result.
_MOST = 32


class PatchRunCompressor(Compressor):
    """Runs of each patch, as their means; exactly m tokens.

    A token joins its patch's current run where that costs at most ``nearness`` times what merging cost before; else it
    starts a run, and the cheapest neighbouring runs of one patch are merged until the budget holds. Neighbours with
    unseen time of more than ``gap_seconds`` between them are merged only when no others are left, the lightest first.
    Below one frame (m < P) one run a patch is held, and ``result`` pools these into m cells of the grid, which span all
    time. State: the tokens of the larger of budget and frame, and one frame more.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        nearness: 0 to 1; 0 merges strictly by cost, larger values spare work where little moves.
        grid: ``(rows, columns)`` of the patches, for pooling; None: as nearly square as P allows.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        nearness: float = 0.5,
        grid: Grid | None = None,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._nearness = share_of("nearness", nearness, zero=True)
        self._grid = check_grid(grid)
        self._clear()

    def _clear(self) -> None:
        self._mean: Tensor | None = None  # [S, d] on the device of the tokens; all else on the host
        self._tau = 0.0
        # For the assignment: every run that was started is a node; merging gives one node the other as parent.
        self._parent: list[int] = []
        self._seen: list[Tensor] = []

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        patches = len(tokens)
        frame = tokens.to(compute_dtype(tokens.dtype))
        if self._mean is None:
            self._allocate(frame)
        limit = max(patches, self._limit((self._frames_seen + 1) * patches))
        # Where the budget grows with the stream, as many tokens as it grew by must start a run.
        most = patches - max(0, limit - len(self._order))
        near = self._join(frame, start_seconds, end_seconds, weight, most)
        fresh = torch.nonzero(~near).squeeze(1)
        self._insert(frame, fresh, start_seconds, end_seconds, weight)
        if self._keep_assignment:
            self._seen.append(self._node[self._current])
        while len(self._order) > limit:
            self._merge_round(len(self._order) - limit)

    def _allocate(self, frame: Tensor) -> None:
        self._mean = frame.new_zeros(0, frame.shape[1])
        self._weight = torch.zeros(0, dtype=torch.float64)  # 0: a free slot
        self._start, self._end = self._weight.clone(), self._weight.clone()
        self._patch = torch.zeros(0, dtype=torch.int64)
        self._node = self._patch.clone()
        self._order = self._patch.clone()  # [R] slots by patch, then time
        self._cost = self._weight.clone()  # [R] of each run in that order with the next; infinite at a patch's last
        self._current = self._patch.clone()  # [P] the slot of each patch's last run

    def _grow(self, slots: int) -> None:
        assert self._mean is not None
        more = slots - len(self._weight)

        def longer(column: Tensor) -> Tensor:
            return torch.cat([column, column.new_zeros(more, *column.shape[1:])])

        self._mean, self._weight, self._start = longer(self._mean), longer(self._weight), longer(self._start)
        self._end, self._patch, self._node = longer(self._end), longer(self._patch), longer(self._node)

    def _join(self, frame: Tensor, start_seconds: float, end_seconds: float, weight: float, most: int) -> Tensor:
        """Which patches ``[P]`` were near the mean of their current run and went into it: at most ``most``."""
        none = torch.zeros(len(frame), dtype=torch.bool)
        if self._tau <= 0 or most <= 0:
            return none
        assert self._mean is not None
        current = self._current
        difference = frame - self._mean[current.to(frame.device)]
        square = difference.double().square().sum(dim=1).cpu()
        held = self._weight[current]
        cost = held * weight / (held + weight) * square
        cost[start_seconds - self._end[current] > self._gap_seconds + _ROUNDING_SECONDS] = torch.inf
        near = cost <= self._tau
        near[torch.argsort(cost, stable=True)[most:]] = False
        if not bool(near.any()):
            return none
        slots = current[near]
        share = (weight / (held[near] + weight)).to(device=frame.device, dtype=frame.dtype)
        self._mean[slots.to(frame.device)] += difference[near.to(frame.device)] * share[:, None]
        self._weight[slots] += weight
        self._end[slots] = self._end[slots].clamp(min=end_seconds)
        position = torch.empty(len(self._weight), dtype=torch.int64)
        position[self._order] = torch.arange(len(self._order))
        self._price(position[slots] - 1)  # a current run is its patch's last: only the pair before it has a new cost
        return near

    def _insert(self, frame: Tensor, fresh: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        """Start a run for each of the patches ``fresh``."""
        if not len(fresh):
            return
        assert self._mean is not None
        if len(self._order) + len(fresh) > len(self._weight):
            self._grow(max(len(self._order) + len(fresh), len(self._weight) * 3 // 2))
        slots = torch.nonzero(self._weight == 0).squeeze(1)[: len(fresh)]
        self._mean[slots.to(frame.device)] = frame[fresh.to(frame.device)]
        self._weight[slots] = weight
        self._start[slots] = start_seconds
        self._end[slots] = end_seconds
        self._patch[slots] = fresh
        if self._keep_assignment:
            self._node[slots] = torch.arange(len(self._parent), len(self._parent) + len(fresh))
            self._parent.extend(self._node[slots].tolist())
        if len(self._current):
            self._current[fresh] = slots
        else:
            self._current = slots
        order = torch.cat([self._order, slots])
        cost = torch.cat([self._cost, torch.full((len(fresh),), torch.inf, dtype=torch.float64)])
        rank = torch.argsort(self._patch[order], stable=True)  # the new run of a patch comes after its others
        self._order, self._cost = order[rank], cost[rank]
        self._price(torch.nonzero(rank >= len(order) - len(fresh)).squeeze(1) - 1)

    def _pairs(self, at: Tensor, gap: bool = True) -> Tensor:
        """The cost of merging the runs at these places of the order with the next: infinite for two patches, and
        across a gap unless ``gap`` is False."""
        assert self._mean is not None
        a, b = self._order[at], self._order[at + 1]
        device = self._mean.device
        square = (self._mean[a.to(device)] - self._mean[b.to(device)]).double().square().sum(dim=1).cpu()
        cost = self._weight[a] * self._weight[b] / (self._weight[a] + self._weight[b]) * square
        apart = self._patch[a] != self._patch[b]
        if gap:
            apart |= self._start[b] - self._end[a] > self._gap_seconds + _ROUNDING_SECONDS
        return cost.masked_fill(apart, torch.inf)

    def _price(self, at: Tensor) -> None:
        """Bring the costs at these places up to date."""
        at = at[(at >= 0) & (at < len(self._order) - 1)]
        if len(at):
            self._cost[at] = self._pairs(at)

    def _merge_round(self, surplus: int) -> None:
        """Merge pairs that merging one after the other, always the cheapest, would merge too; at least one."""
        cost = self._cost
        falls = cost[1:] < cost[:-1]
        # A strict order among equals: the earlier pair goes first. The last of the order has no next and is infinite.
        least = torch.zeros(len(cost), dtype=torch.bool)
        least[:1] = ~falls[:1] & torch.isfinite(cost[:1])
        torch.gt(falls[:-1], falls[1:], out=least[1:-1])
        at = torch.nonzero(least).squeeze(1)
        if not len(at):
            self._merge(self._lightest_pair())
            return
        price = cost[at]
        most = min(surplus, _MOST)
        if len(at) > most:
            low = price <= price.kthvalue(most).values
            at, price = at[low], price[low]
        rank = torch.argsort(price, stable=True)[:most]
        at, price = at[rank], price[rank]
        mean, left = self._if_merged(at)
        beside = torch.minimum(torch.minimum(cost[at - 1], cost[at + 1]), left.amin(dim=0))  # at -1: the infinite last
        taken: set[int] = set()
        bound = math.inf
        for place, own, uncovered in zip(at.tolist(), price.tolist(), beside.tolist(), strict=True):
            # It is this one's turn where the merges before it neither leave nor uncover a cheaper pair, and where none
            # of them is next door: what those two leave between them was not priced.
            if taken and (own > bound or place - 2 in taken or place + 2 in taken):
                break
            taken.add(place)
            bound = min(bound, uncovered)
        count = len(taken)
        self._tau = max(self._tau, self._nearness * float(price[count - 1]))
        at, rank = at[:count].sort()
        self._merge(at, mean[rank], left[:, rank])

    def _if_merged(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """For the pair at each of these places, were it alone merged: the mean ``[k, d]``, and the costs ``[2, k]`` of
        merging it with the run before and the run after."""
        assert self._mean is not None
        device = self._mean.device
        around = torch.stack([at - 1, at, at + 1, at + 2])
        slots = self._order[around.clamp(0, len(self._order) - 1)]
        held, start, end, patch = self._weight[slots], self._start[slots], self._end[slots], self._patch[slots]
        rows = self._mean[slots.to(device)]
        weight = held[1] + held[2]
        share = (held[2] / weight).to(device=device, dtype=rows.dtype)[:, None]
        mean = rows[1] + (rows[2] - rows[1]) * share
        square = (mean - rows[::3]).double().square().sum(dim=-1).cpu()
        other = held[::3]
        cost = weight * other / (weight + other) * square
        unseen = torch.stack([start[1] - end[0], start[3] - torch.maximum(end[1], end[2])])
        apart = unseen > self._gap_seconds + _ROUNDING_SECONDS
        apart |= (patch[::3] != patch[1]) | (around[::3] < 0) | (around[::3] >= len(self._order))
        return mean, cost.masked_fill(apart, torch.inf)

    def _lightest_pair(self) -> Tensor:
        """Only gaps are left: the place ``[1]`` of the lightest run that has a neighbour, or of the one before it."""
        cost = self._pairs(torch.arange(len(self._order) - 1), gap=False)
        edge = torch.full((1,), torch.inf, dtype=torch.float64)
        before, after = torch.cat([edge, cost]), torch.cat([cost, edge])
        alone = torch.isinf(torch.minimum(before, after))
        light = int(self._weight[self._order].masked_fill(alone, torch.inf).argmin())
        return torch.tensor([light - 1 if bool(before[light] <= after[light]) else light])

    def _merge(self, at: Tensor, mean: Tensor | None = None, left: Tensor | None = None) -> None:
        """Merge the run at each of these places, in order and no two adjacent, with the one after it.

        ``mean`` and ``left`` are what ``_if_merged`` says of them, where no two are next door either.
        """
        assert self._mean is not None
        if mean is None:
            mean = self._if_merged(at)[0]
        keep, drop = self._order[at], self._order[at + 1]
        self._mean[keep.to(self._mean.device)] = mean
        self._weight[keep] += self._weight[drop]
        self._weight[drop] = 0
        self._end[keep] = torch.maximum(self._end[keep], self._end[drop])
        patch = self._patch[keep]
        self._current[patch] = torch.where(self._current[patch] == drop, keep, self._current[patch])
        if self._keep_assignment:
            for stays, goes in zip(self._node[keep].tolist(), self._node[drop].tolist(), strict=True):
                self._parent[goes] = stays
        stay = torch.ones(len(self._order), dtype=torch.bool)
        stay[at + 1] = False
        stay = torch.nonzero(stay).squeeze(1)
        self._order = self._order[stay]
        # A dropped run had its own cost with the next; the merged one's stands at its place and is made anew.
        self._cost = self._cost[stay]
        place = at - torch.arange(len(at))
        if left is None:
            self._price(torch.cat([place - 1, place]))
        else:
            self._cost[place - 1], self._cost[place] = left  # at -1, the last: infinite as the first has none before
        self._cost[-1] = torch.inf

    def _compressed(self) -> tuple[TokenSet, Tensor]:
        """The runs as tokens, pooled where the budget is below one frame, and the token of each slot in use."""
        assert self._mean is not None
        assert self._like is not None
        device = self._mean.device
        slots, patches = self._order, self._patches
        patch = self._patch[slots]
        limit = self._limit(self._frames_seen * patches)
        group = torch.arange(len(slots))
        if limit < len(slots):  # one run a patch
            group = grid_cells(grid_shape(patches, self._grid), limit)[patch]
        window = Window(
            tokens=self._mean[slots.to(device)],
            weight=self._weight[slots].to(device),
            start_seconds=self._start[slots].to(device),
            end_seconds=self._end[slots].to(device),
            frame=torch.zeros(len(slots), dtype=torch.int64, device=device),
            patch=patch.to(device),
            shape=(1, patches),
        )
        kept, index = token_set(window, group.to(device), None, self._like.dtype)
        token = torch.full((len(self._weight),), -1, dtype=torch.int64)
        token[slots] = index.cpu()
        return kept, token

    def _read(self) -> TokenSet:
        return self._compressed()[0]

    def _assign(self) -> Tensor:
        parent = torch.tensor(self._parent, dtype=torch.int64)
        while not torch.equal(up := parent[parent], parent):
            parent = up
        of_node = torch.full((len(parent),), -1, dtype=torch.int64)
        of_node[self._node[self._order]] = self._compressed()[1][self._order]
        return of_node[parent[torch.cat(self._seen)]]
