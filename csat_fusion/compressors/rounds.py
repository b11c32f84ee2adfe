"""Ward merging in rounds: all pairs that are each other's nearest at once, then a cut. The core of the batched form.

Ward's cost is reducible: merging a and b never brings a third token nearer than the nearer of the two was. So two
tokens that are each other's nearest are merged sooner or later whatever happens to the rest, and all such pairs can be
merged at once (the nearest-neighbour chains of F. Murtagh, "A survey of recent advances in hierarchical clustering
algorithms", The Computer Journal 26, 1983). Some of these merges come later in the greedy order than the last one
wanted. They are undone: every merge keeps its height (the cost at which it happened, or that of a merge below it if
that is more), and of all merges the k lowest are those that the greedy algorithm makes. A round merges only pairs that
are among the k lowest known so far, so little is done in vain, and the rounds end when no pair is.

With no limit in time the result is that of the greedy algorithm, up to ties and rounding. A limit makes costs infinite,
and merging may bring two tokens within it: then the order of merging counts, and the result is near, not the same.

Shapes: B batch, S slots (tokens to merge), K the most pairs of one round.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FORCED", "Merges", "merge_in_rounds", "squared_distances"]

#: no merge within the limit in time is as high: costs are of values of size 1
FORCED = 1e30

# Spans come from sums of floats: a gap of exactly gap_seconds must not depend on the last bit.
ROUNDING_SECONDS = 1e-9


def squared_distances(tokens: Tensor, peak: Tensor | None = None) -> Tensor:
    """``|x_i - x_j|^2`` of ``[B, S, d]``, times a factor for each of B: ``[B, S, S]``, symmetric to the last bit.

    The factor is 1 over the square of the largest value less the mean, or of ``peak [B, 1, 1]`` where given. It keeps
    squares within the type and changes no choice. Equal distances are parted by a hash of the two indices, at the size
    of a rounding: a still picture would else have one mutual pair a round.
    """
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    if peak is None:
        peak = centred.abs().amax(dim=(1, 2), keepdim=True)
    centred = centred / torch.where(peak > 0, peak, 1.0)
    norm = centred.square().sum(dim=2)
    gram = centred @ centred.mT
    square = (norm[:, :, None] + norm[:, None, :]).sub_(gram + gram.mT).clamp_(min=0)
    slots = torch.arange(tokens.shape[1], device=tokens.device)
    low, high = torch.minimum(slots[:, None], slots), torch.maximum(slots[:, None], slots)
    mixed = (low * 40503 + high * 30011 + 12345) & 0xFFFF
    mixed = (mixed * 25173 + 13849) & 0xFFFF
    scale = norm.mean(dim=1)
    scale = torch.where(scale > 0, scale, 1.0) * torch.finfo(tokens.dtype).eps
    return square.add_(scale[:, None, None] * (mixed.to(square.dtype) / 65536))


def merge_in_rounds(
    square: Tensor,
    weight: Tensor,
    keep: int,
    *,
    start_seconds: Tensor | None = None,
    end_seconds: Tensor | None = None,
    gap_seconds: float = math.inf,
    share: float = 0.1,
) -> Tensor:
    """The group of each token, ``[B, S]`` int64 from 0 to at most ``keep - 1``, in order of their first members.

    Args:
        square: ``[B, S, S]`` from :func:`squared_distances`; changed in place.
        weight: ``[B, S]``, at least 0; a token of weight 0 stands for nothing, it goes to group 0.
        keep: how many groups to leave; exactly that many of a row with as many tokens of some weight.
        start_seconds, end_seconds: ``[B, S]``, needed where ``gap_seconds`` is finite.
        gap_seconds: tokens with more unseen time than this between their spans are not merged while another pair is
            left. When none is, the lightest go to their cheapest partners anywhere: the number comes first.
        share: how much of what is still to merge may go that last way in one round.
    """
    merges = Merges(square, weight, keep, start_seconds, end_seconds, gap_seconds)
    merges.run(share)
    return merges.groups()


class Merges:
    """Slots while they merge: a merged slot is dead, its parent is the slot that took it.

    After ``run``, ``height [B, S]`` is that of the merge that ended each slot, infinite where none did, and at least
    ``FORCED`` where time should have kept the two apart.
    """

    def __init__(
        self,
        square: Tensor,
        weight: Tensor,
        keep: int,
        start_seconds: Tensor | None,
        end_seconds: Tensor | None,
        gap_seconds: float,
    ) -> None:
        batch, slots = weight.shape
        self.square = square
        self.given = weight > 0
        self.weight = weight.to(square.dtype, copy=True)
        self.live = self.given.clone()
        self.wanted = (self.live.sum(dim=1) - keep).clamp_(min=0)  # [B] merges
        self.limited = math.isfinite(gap_seconds) and start_seconds is not None and end_seconds is not None
        if self.limited:
            assert start_seconds is not None
            assert end_seconds is not None
            self.start, self.end = start_seconds.clone(), end_seconds.clone()
            self.limit_seconds = gap_seconds + ROUNDING_SECONDS
        self.slots = torch.arange(slots, device=weight.device).expand(batch, slots)
        self.parent = self.slots.clone()
        self.height = torch.full_like(self.weight, math.inf)  # of the merge that ended a slot
        self.level = torch.full_like(self.weight, -math.inf)  # the highest merge that made a slot
        self.round = torch.zeros_like(self.parent)
        self.rounds = 0
        self.cost = self._cost(self.slots)

    def _cost(self, rows: Tensor) -> Tensor:
        """Ward's cost ``[B, K, S]`` of the slots ``rows [B, K]`` to all, infinite where they may not merge."""
        square = self.square.gather(1, rows[:, :, None].expand(-1, -1, self.square.shape[2]))
        inverse = torch.where(self.live, 1 / self.weight, 1.0)
        cost = square.div_(inverse.gather(1, rows)[:, :, None] + inverse[:, None, :])
        dead = torch.where(self.live, 0.0, math.inf).to(cost.dtype)
        cost += dead[:, None, :] + dead.gather(1, rows)[:, :, None]
        if self.limited:
            late = self.start[:, None, :] > self.end.gather(1, rows)[:, :, None] + self.limit_seconds
            late |= self.end[:, None, :] < self.start.gather(1, rows)[:, :, None] - self.limit_seconds
            cost.masked_fill_(late, math.inf)
        return cost.scatter_(2, rows[:, :, None], math.inf)

    def run(self, share: float = 0.1) -> None:
        """Merge until the wanted number of lowest merges is known."""
        while self._merge_round(share):
            pass

    def _merge_round(self, share: float) -> bool:
        """Merge the mutual pairs of one round; False where nothing was left to merge."""
        least, nearest = self.cost.min(dim=2)
        pair = self._mutual(least, nearest)
        done = torch.where(self.live, math.inf, self.height)
        height = torch.maximum(least, torch.maximum(self.level, self.level.gather(1, nearest)))
        known = torch.where(pair, height, done)
        # Only pairs among the lowest wanted merges, those made already before new ones of the same height.
        place = _places(torch.where(pair, 1, 0), known)
        chosen = pair & (place < self.wanted[:, None])
        if self.limited:
            stuck = ~pair.any(dim=1) & ((done < math.inf).sum(dim=1) < self.wanted)
            if bool(stuck.any()):
                nearest, height, chosen = self._anywhere(stuck, share, nearest, height, chosen)
        most = int(chosen.sum(dim=1).max()) if chosen.numel() else 0
        if most == 0:
            return False
        self._merge(nearest, height, chosen, most)
        return True

    def _mutual(self, least: Tensor, nearest: Tensor) -> Tensor:
        """Whether a slot is the later one of a pair of mutual nearest, ``[B, S]``."""
        mutual = (nearest.gather(1, nearest) == self.slots) & (least < math.inf)
        return mutual & (nearest < self.slots)

    def _anywhere(
        self, stuck: Tensor, share: float, nearest: Tensor, height: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For the rows ``stuck [B]``, whose pairs are all too far apart in time: the lightest tokens, anywhere."""
        left = self.wanted - (self.given & ~self.live).sum(dim=1)
        quota = (left * share).ceil().clamp(min=1)
        light = _places(self.slots, torch.where(self.live, self.weight, math.inf)) < quota[:, None]
        limited, self.limited = self.limited, False
        cost = self._cost(self.slots)
        self.limited = limited
        cost.masked_fill_(~(light[:, :, None] | light[:, None, :]), math.inf)
        least, other = cost.min(dim=2)
        pair = self._mutual(least, other)  # each holds one of the lightest, so they are no more than are wanted
        # They come after all merges within the limit, and so does what is then merged with what they made.
        above = torch.maximum(self.level, self.level.gather(1, other)).clamp(min=FORCED)
        row = stuck[:, None]
        return torch.where(row, other, nearest), torch.where(row, above, height), torch.where(row, pair, chosen)

    def _merge(self, nearest: Tensor, height: Tensor, chosen: Tensor, most: int) -> None:
        """Merge each chosen slot ``[B, S]`` into its nearest; rows with fewer pairs merge some with themselves."""
        # Those are none that takes part in a pair, or two would write to one place. There are enough: S >= 2 most.
        taking = torch.zeros_like(self.parent).scatter_add_(1, nearest, chosen.long())
        order = torch.where(chosen, 0, torch.where(taking > 0, 2, 1))
        drop = torch.argsort(order, dim=1, stable=True)[:, :most]
        real = chosen.gather(1, drop)
        keep = torch.where(real, nearest.gather(1, drop), drop)
        self.rounds += 1
        self.parent.scatter_(1, drop, torch.where(real, keep, self.parent.gather(1, drop)))
        self.height.scatter_(1, drop, torch.where(real, height.gather(1, drop), self.height.gather(1, drop)))
        self.round.scatter_(1, drop, torch.where(real, self.rounds, self.round.gather(1, drop)))
        self.level.scatter_(1, keep, torch.where(real, height.gather(1, drop), self.level.gather(1, keep)))
        mass, other = self.weight.gather(1, keep), self.weight.gather(1, drop)
        total = torch.where(real, mass + other, 1.0)
        first, second = torch.where(real, mass / total, 1.0), torch.where(real, other / total, 0.0)
        self._move(keep, drop, first, second)
        self.weight.scatter_(1, keep, torch.where(real, total, mass))
        self.live.scatter_(1, drop, self.live.gather(1, drop) & ~real)
        if self.limited:
            start = torch.minimum(self.start.gather(1, keep), self.start.gather(1, drop))
            end = torch.maximum(self.end.gather(1, keep), self.end.gather(1, drop))
            self.start.scatter_(1, keep, start)
            self.end.scatter_(1, keep, end)
        cost = self._cost(keep)
        wide = keep[:, :, None].expand(-1, -1, self.cost.shape[2])
        self.cost.scatter_(1, wide, cost)
        self.cost.scatter_(2, wide.mT, cost.mT)
        gone = torch.where(self.live, 0.0, math.inf).to(cost.dtype)
        self.cost += gone[:, None, :]
        self.cost += gone[:, :, None]

    def _move(self, keep: Tensor, drop: Tensor, first: Tensor, second: Tensor) -> None:
        """Squared distances to the weighted means: linear in rows and in columns, less what lies within each pair."""
        square, slots = self.square, self.square.shape[2]
        wide = keep[:, :, None].expand(-1, -1, slots)
        within = first * second * square.gather(1, wide).gather(2, drop[:, :, None])[:, :, 0]
        rows = square.gather(1, wide) * first[:, :, None]
        rows += square.gather(1, drop[:, :, None].expand(-1, -1, slots)) * second[:, :, None]
        rows -= within[:, :, None]
        across = keep[:, None, :].expand(-1, keep.shape[1], -1)
        block = rows.gather(2, across) * first[:, None, :]
        block += rows.gather(2, drop[:, None, :].expand(-1, keep.shape[1], -1)) * second[:, None, :]
        block -= within[:, None, :]
        rows.scatter_(2, across, (block + block.mT) / 2)
        square.scatter_(1, wide, rows)
        square.scatter_(2, wide.mT, rows.mT)

    def groups(self, wanted: Tensor | None = None) -> Tensor:
        """Cut after the lowest ``wanted [B]`` merges, as many as were asked for where None, and number what remains."""
        wanted = self.wanted if wanted is None else wanted
        place = _places(self.round, torch.where(self.live | ~self.given, math.inf, self.height))
        root = torch.where(place < wanted[:, None], self.parent, self.slots)
        for _ in range(max(1, root.shape[1].bit_length())):
            root = root.gather(1, root)
        # A merge goes from the later slot to the earlier, so a root is the first of its members.
        heads = (root == self.slots) & self.given
        number = heads.cumsum(dim=1) - 1
        return torch.where(self.given, number.gather(1, root), 0).clamp_(min=0)


def _places(second: Tensor, first: Tensor) -> Tensor:
    """The place of each of ``[B, S]`` in order of ``first``, then ``second``, then index."""
    order = torch.argsort(second, dim=1, stable=True)
    order = order.gather(1, torch.argsort(first.gather(1, order), dim=1, stable=True))
    place = torch.empty_like(order)
    return place.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
