"""A memory of m merged tokens in which recent time is fine and old time is coarse.

Every frame's tokens go in with weight 1; while there are more than m, the pair with the least cost is merged. The cost
is Ward's increase of squared error, made smaller by age::

    cost(i, j) = w_i w_j / (w_i + w_j) * |mean_i - mean_j|^2 / (1 + age / fine_seconds)^decay

``age`` is the time since the newer of the two ended. Tokens that drift at random differ by a square proportional to the
time between them, so a run of length l costs about l^2, and at the default ``decay`` of 2 runs of equal cost are as
long as ``1 + age / fine_seconds``: twice the age, half the resolution. The time that may lie unseen between two tokens
that merge grows in the same way. Runs that do not change stay whole at any age, and changes outlive their neighbours.

Everything is approximate but the spans, which are always those of all members, and the total weight. Merging two
memories re-merges the union of their tokens. State: m tokens; a frame also takes two matrices [m + P, m + P] of
float64 on the host for the time of the call.

Shapes: P patch tokens a frame, d width, m tokens kept, S tokens before merging, R rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from csat_fusion.compressors.base import finite, gap
from csat_fusion.errors import CompressionError
from csat_fusion.memory.base import Memory, check_span
from csat_fusion.recovery.base import size_of
from csat_fusion.tokens import TokenSet

__all__ = ["AdaptiveMemory"]

# Spans come from sums of floats: a gap of exactly gap_seconds must not depend on the last bit.
_ROUNDING_SECONDS = 1e-9
_PARTS = ("mean", "weight", "start", "end", "patch")


@dataclass(eq=False)
class _Tokens:
    """``mean [S, d]`` on the device of the stream; the rest ``[S]`` on the host, where merges are chosen."""

    mean: Tensor
    weight: Tensor
    start: Tensor
    end: Tensor
    patch: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def at(self, index: Tensor) -> _Tokens:
        return _Tokens(
            self.mean[index.to(self.mean.device)],
            self.weight[index],
            self.start[index],
            self.end[index],
            self.patch[index],
        )

    def with_more(self, *more: _Tokens) -> _Tokens:
        return _Tokens(*(torch.cat([getattr(t, name) for t in (self, *more)]) for name in _PARTS))

    def as_set(self, dtype: torch.dtype) -> TokenSet:
        """In order of start, then end, then patch."""
        order = torch.arange(len(self))
        for key in (self.patch, self.end, self.start):
            order = order[key[order].argsort(stable=True)]
        ordered, device = self.at(order), self.mean.device
        return TokenSet(
            tokens=ordered.mean.to(dtype),
            weight=ordered.weight.to(device=device, dtype=torch.float32),
            start_seconds=ordered.start.to(device),
            end_seconds=ordered.end.to(device),
            patch=ordered.patch.to(device),
        )


class AdaptiveMemory(Memory):
    """m merged tokens, fewer for the same time the older it is; see the module for the method.

    Args:
        budget: m, at least 1.
        fine_seconds: the age up to which time is kept at nearly full resolution, finite and above 0.
        decay: the power of age by which costs fall, finite and at least 0; 0 treats all ages alike.
        gap_seconds: the most unseen time between two tokens of age 0 that may merge, at least 0. Only when no pair is
            left within it, the cheapest pair merges whatever lies between: the budget comes first.
    """

    def __init__(self, budget: int, *, fine_seconds: float = 8.0, decay: float = 2.0, gap_seconds: float = 1.0) -> None:
        super().__init__()
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
            raise CompressionError(f"the budget must be a whole number of tokens, at least 1, got {budget!r}")
        if not (finite(fine_seconds) and fine_seconds > 0):
            raise CompressionError(f"fine_seconds must be finite and above 0, got {fine_seconds!r}")
        if not (finite(decay) and decay >= 0):
            raise CompressionError(f"decay must be finite and at least 0, got {decay!r}")
        self._budget = budget
        self._fine_seconds, self._decay = float(fine_seconds), float(decay)
        self._gap_seconds = gap("gap_seconds", gap_seconds)
        self._held: _Tokens | None = None

    @property
    def budget(self) -> int:
        return self._budget

    @property
    def state_bytes(self) -> int:
        if self._held is None:
            return 0
        one = self._held
        rest = sum(part.element_size() for part in (one.weight, one.start, one.end, one.patch))
        return self._budget * (one.mean.shape[1] * one.mean.element_size() + rest)

    def __len__(self) -> int:
        return 0 if self._held is None else len(self._held)

    def recover(self, start_seconds: float, end_seconds: float) -> TokenSet:
        """The tokens whose span overlaps ``[start_seconds, end_seconds)``, clipped to it.

        A token's weight is taken to be spread evenly over its span, so the part outside takes its share away.

        Raises:
            CompressionError: the span is not one, or no token overlaps it.
        """
        check_span(start_seconds, end_seconds)
        like = self._like_known()
        held = self._overlapping(start_seconds, end_seconds)
        return _clipped(held, start_seconds, end_seconds).as_set(like.dtype)

    def forget(self, start_seconds: float, end_seconds: float) -> TokenSet:
        """Drop the tokens inside ``[start_seconds, end_seconds)``, clip those that cross its edges.

        A token that crosses keeps its mean, which the forgotten time took part in, and the share of its weight that
        lies outside; one that reaches over both edges becomes two tokens, and the cheapest pair on one side of the
        hole then merges if the budget asks for it (with a budget of 1, the lighter part is dropped too). So afterwards
        no span claims the forgotten time, but means are clean of it only where tokens did not cross: a
        ``SketchMemory`` that is given the frames forgets exactly.

        Gives the parts taken out, with their weights.

        Raises:
            CompressionError: the span is not one, or no token overlaps it; the state is as before the call.
        """
        check_span(start_seconds, end_seconds)
        like = self._like_known()
        gone = _clipped(self._overlapping(start_seconds, end_seconds), start_seconds, end_seconds)
        assert self._held is not None
        held = self._held
        apart = held.at(((held.end <= start_seconds) | (held.start >= end_seconds)).nonzero()[:, 0])
        before = held.at(((held.start < start_seconds) & (held.end > start_seconds)).nonzero()[:, 0])
        after = held.at(((held.start < end_seconds) & (held.end > end_seconds)).nonzero()[:, 0])
        left = apart.with_more(_clipped(before, -math.inf, start_seconds), _clipped(after, end_seconds, math.inf))
        if self._budget == 1 and len(left) > 1:
            left = left.at(left.weight.argmax()[None])
        with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
            self._held = self._shrunk(left, hole=(start_seconds, end_seconds))
        return gone.as_set(like.dtype)

    def _overlapping(self, start_seconds: float, end_seconds: float) -> _Tokens:
        held = self._held
        assert held is not None
        index = ((held.start < end_seconds) & (held.end > start_seconds)).nonzero()[:, 0]
        if not len(index):
            raise CompressionError(
                f"nothing of [{start_seconds}, {end_seconds}) s is held; this memory saw [{self._span[0]}, "
                f"{self._span[1]}) s"
            )
        return held.at(index)

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float) -> None:
        count = len(tokens)
        frame = _Tokens(
            # float32 at least: means in half precision would drift
            tokens.to(torch.promote_types(tokens.dtype, torch.float32)).clone(),
            torch.ones(count, dtype=torch.float64),
            torch.full((count,), start_seconds, dtype=torch.float64),
            torch.full((count,), end_seconds, dtype=torch.float64),
            torch.arange(count),
        )
        self._held = self._shrunk(frame if self._held is None else self._held.with_more(frame))

    def _take_in(self, other: AdaptiveMemory) -> None:
        assert other._held is not None
        self._held = self._shrunk(other._held if self._held is None else self._held.with_more(other._held))

    def _costs(
        self,
        square: Tensor,
        tokens: _Tokens,
        rows: Tensor,
        hole: tuple[float, float] | None,
        *,
        gaps: bool = True,
    ) -> Tensor:
        """Costs ``[R, S]`` of merging ``rows [R]`` with others, infinite where they must not. Free slots weigh 0."""
        weight, start, end = tokens.weight, tokens.start, tokens.end
        mine_start, mine_end = start[rows, None], end[rows, None]
        # The newer of a pair is the less coarse one, so powers are taken once a token, not once a pair.
        coarse = 1 + (end.max() - end) / self._fine_seconds
        precision = coarse**-self._decay
        cost = weight / (weight[rows, None] + weight)
        cost.mul_(weight[rows, None]).mul_(square).mul_(torch.maximum(precision[rows, None], precision))
        apart = weight == 0
        if gaps and self._gap_seconds < math.inf:
            unseen = torch.maximum(mine_start, start).sub_(torch.minimum(mine_end, end))
            allowed = torch.minimum(coarse[rows, None], coarse).mul_(self._gap_seconds).add_(_ROUNDING_SECONDS)
            apart = apart | (unseen > allowed)
        if hole is not None:
            apart = apart | ((mine_end <= hole[0]) != (end <= hole[0]))
        cost.masked_fill_(apart, math.inf)
        cost[torch.arange(len(rows)), rows] = math.inf
        return cost

    def _shrunk(self, tokens: _Tokens, hole: tuple[float, float] | None = None) -> _Tokens:
        """At most m tokens that stand for these."""
        count = len(tokens)
        if count <= self._budget:
            return tokens
        device = tokens.mean.device
        # Distances are differences of squares; taking a common origin away keeps their digits.
        # The unit does not change which pair is cheapest, and in this one no square overflows or vanishes.
        rows = tokens.mean - tokens.mean.mean(dim=0)
        rows = rows / size_of(rows, (0, 1))
        norm = (rows * rows).sum(dim=1)
        square = (norm[:, None] + norm - 2 * rows @ rows.T).clamp_min(0).to(device="cpu", dtype=torch.float64)
        work = _Tokens(
            tokens.mean, tokens.weight.clone(), tokens.start.clone(), tokens.end.clone(), tokens.patch.clone()
        )
        everything = torch.arange(count)
        cost = self._costs(square, work, everything, hole)
        # Merging never makes a pair cheaper, so an outdated least cost is a bound from below: it is looked up again
        # only when it comes first.
        least, near = cost.min(dim=1)
        root = list(range(count))
        while count > self._budget:
            keep = int(least.argmin())
            value = float(least[keep])
            if math.isinf(value):
                pair = int(self._costs(square, work, everything, hole, gaps=False).argmin())
                keep, drop = divmod(pair, len(work))
            else:
                drop = int(near[keep])
                if float(cost[keep, drop]) != value:
                    least[keep], near[keep] = cost[keep].min(dim=0)
                    continue
            one, two = float(work.weight[keep]), float(work.weight[drop])
            total = one + two
            row = (one * square[keep] + two * square[drop]) / total - one * two / total**2 * float(square[keep, drop])
            row.clamp_min_(0)
            square[keep], square[:, keep] = row, row
            work.weight[keep], work.weight[drop] = total, 0.0
            work.start[keep] = min(float(work.start[keep]), float(work.start[drop]))
            work.end[keep] = max(float(work.end[keep]), float(work.end[drop]))
            if work.patch[keep] != work.patch[drop]:
                work.patch[keep] = -1
            root[drop] = keep
            costs = self._costs(row[None], work, torch.tensor([keep]), hole)[0]
            cost[keep], cost[:, keep] = costs, costs
            cost[drop], cost[:, drop] = math.inf, math.inf
            least[drop] = math.inf
            least[keep], near[keep] = costs.min(dim=0)
            count -= 1
        for slot in range(len(root)):  # a chain ends at the slot that is still held
            end = slot
            while root[end] != end:
                end = root[end]
            root[slot] = end
        roots = torch.tensor(root)
        live = (work.weight > 0).nonzero()[:, 0]
        kept = work.at(live)
        place = torch.full((len(root),), -1)
        place[live] = torch.arange(len(live))
        merged = torch.bincount(roots, minlength=len(root))[live] > 1
        # The means of merged tokens from their members in one product; the others stay bit for bit.
        share = torch.zeros(len(live), len(root), dtype=torch.float64)
        share[place[roots], everything] = tokens.weight / work.weight[roots]
        changed = merged.nonzero()[:, 0]
        kept.mean[changed.to(device)] = share[changed].to(tokens.mean) @ tokens.mean
        return kept

    def _config(self) -> dict[str, Any]:
        return {
            "budget": self._budget,
            "fine_seconds": self._fine_seconds,
            "decay": self._decay,
            "gap_seconds": self._gap_seconds,
        }

    def _parts(self) -> dict[str, Tensor]:
        assert self._held is not None
        return {name: getattr(self._held, name) for name in _PARTS}

    @classmethod
    def _restored(cls, about: dict[str, Any], parts: dict[str, Tensor]) -> AdaptiveMemory:
        memory = cls(
            about["budget"],
            fine_seconds=about["fine_seconds"],
            decay=about["decay"],
            gap_seconds=about["gap_seconds"],
        )
        memory._held = _Tokens(*(parts[name] for name in _PARTS))
        return memory


def _clipped(tokens: _Tokens, start_seconds: float, end_seconds: float) -> _Tokens:
    """The parts of the tokens inside a span that they overlap, with their share of the weight."""
    start, end = tokens.start.clamp_min(start_seconds), tokens.end.clamp_max(end_seconds)
    return _Tokens(tokens.mean, tokens.weight * (end - start) / (tokens.end - tokens.start), start, end, tokens.patch)
