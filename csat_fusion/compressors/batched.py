"""Ward merging for accelerators: many pairs a round, batched, on the device of the tokens.

The method is that of :mod:`csat_fusion.compressors.ward` without its fast path, the merging that of
:mod:`csat_fusion.compressors.rounds`: one wait for the device a round of merges instead of one a merge.
Frame by frame on a CPU the exact form is several times as fast, and the results are nearly always the same.

Shapes: B batch, n tokens, P patch tokens a frame, d width, m budget, S = m + P.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor, compute_dtype, gap, share_of
from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.rounds import merge_in_rounds, squared_distances
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet, time_order

__all__ = ["BatchedWardCompressor", "ward_assignment"]


def ward_assignment(
    tokens: Tensor,
    budget: int,
    *,
    weight: Tensor | None = None,
    start_seconds: Tensor | None = None,
    end_seconds: Tensor | None = None,
    gap_seconds: float = math.inf,
    share: float = 0.1,
    chunk: int | None = None,
) -> Tensor:
    """Which of ``min(n, budget)`` groups each token goes to: ``[B, n]`` int64.

    Tokens are taken in their order, ``chunk`` at a time, and merged until ``budget`` groups are left; so memory and
    time grow with n, not with its square. Nothing is differentiable here; take the means of the groups to pass
    gradients.

    Args:
        tokens: ``[B, n, d]`` floating point.
        budget: m, at least 1. Where n is not more, each token is its own group.
        weight: ``[B, n]``, at least 0, how many tokens each stands for; 1 where None. A token of weight 0 (padding)
            goes to group 0 and counts for nothing; groups are numbered from 0, so a row with fewer than m other
            tokens leaves the last groups empty.
        start_seconds, end_seconds: ``[B, n]``, half-open spans, needed where ``gap_seconds`` is finite.
        gap_seconds: the most unseen time between the spans of two tokens that merge, while another pair is left.
        share: see :func:`csat_fusion.compressors.rounds.merge_in_rounds`.
        chunk: how many tokens to take at once; twice the budget, at least 256, where None.

    Raises:
        CompressionError: a shape, type, device or value is not as said.
    """
    batch, n = _check(tokens, budget, weight, start_seconds, end_seconds, gap_seconds, share, chunk)
    device = tokens.device
    if n <= budget:
        return torch.arange(n, device=device).expand(batch, n).clone()
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        wide = tokens.to(compute_dtype(tokens.dtype))
        mass = torch.ones(batch, n, dtype=wide.dtype, device=device) if weight is None else weight.to(wide.dtype)
        if weight is not None:
            wide = torch.where((weight > 0)[:, :, None], wide, 0.0)  # padding must not cost the others their digits
        times: list[Tensor] = []
        if start_seconds is not None and end_seconds is not None and math.isfinite(gap_seconds):
            times = [start_seconds.double(), end_seconds.double()]
        step = max(2 * budget, 256) if chunk is None else chunk
        assigned = torch.empty(batch, 0, dtype=torch.int64, device=device)
        kept, held, spans = wide[:, :0], mass[:, :0], [time[:, :0] for time in times]
        for at in range(0, n, step):
            rows = torch.cat([kept, wide[:, at : at + step]], dim=1)
            held = torch.cat([held, mass[:, at : at + step]], dim=1)
            spans = [torch.cat([span, time[:, at : at + step]], dim=1) for span, time in zip(spans, times, strict=True)]
            group = merge_in_rounds(
                squared_distances(rows),
                held,
                budget,
                start_seconds=spans[0] if spans else None,
                end_seconds=spans[1] if spans else None,
                gap_seconds=gap_seconds,
                share=share,
            )
            before = kept.shape[1]
            kept, held = group_sums(rows, held, group, min(budget, rows.shape[1]))
            spans = _unite(spans, group, kept.shape[1])
            moved = group[:, :before].gather(1, assigned) if before else assigned
            assigned = torch.cat([moved, group[:, before:]], dim=1)
    return assigned


class BatchedWardCompressor(Compressor):
    """Streaming Ward merging over all patches, on the device of the tokens; see the module.

    Args:
        budget: a number or a ratio.
        gap_seconds: see :class:`csat_fusion.compressors.ward.WardCompressor`.
        share: see :func:`csat_fusion.compressors.rounds.merge_in_rounds`.
        keep_assignment: see :class:`Compressor`.
    """

    exact_budget = True

    def __init__(
        self, budget: Budget | str, *, gap_seconds: float = 1.0, share: float = 0.1, keep_assignment: bool = False
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._share = share_of("share", share)
        self._clear()

    def _clear(self) -> None:
        self._mean: Tensor | None = None  # [k, d], less self._origin; k is at most m
        self._moves: list[Tensor] = []  # for each frame, where its slots and then its patches went

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        wide = tokens.to(compute_dtype(tokens.dtype))
        patches, device = len(tokens), tokens.device
        if self._mean is None:
            self._origin = wide.mean(dim=0)
            self._mean = wide[:0]
            self._weight = torch.empty(0, dtype=torch.float64, device=device)
            self._start = self._end = self._weight
            self._patch = torch.empty(0, dtype=torch.int64, device=device)
        self._mean = torch.cat([self._mean, wide - self._origin])
        self._weight = _append(self._weight, weight, patches)
        self._start = _append(self._start, start_seconds, patches)
        self._end = _append(self._end, end_seconds, patches)
        self._patch = torch.cat([self._patch, torch.arange(patches, device=device)])
        slots, limit = len(self._mean), self._limit((self._frames_seen + 1) * patches)
        if slots <= limit:
            self._note(torch.arange(slots, device=device))
            return
        group = merge_in_rounds(
            squared_distances(self._mean[None]),
            self._weight[None],
            limit,
            start_seconds=self._start[None],
            end_seconds=self._end[None],
            gap_seconds=self._gap_seconds,
            share=self._share,
        )
        mean, mass = group_sums(self._mean[None], self._weight[None], group, limit)
        self._mean, self._weight = mean[0], mass[0]
        start, end = _unite([self._start[None], self._end[None]], group, limit)
        self._start, self._end = start[0], end[0]
        low = torch.full((limit,), patches, device=device).scatter_reduce(0, group[0], self._patch, "amin")
        high = torch.full((limit,), -1, device=device).scatter_reduce(0, group[0], self._patch, "amax")
        self._patch = torch.where(low == high, low, -1)
        self._note(group[0])

    def _note(self, group: Tensor) -> None:
        if self._keep_assignment:
            self._moves.append(group)

    def _read(self) -> TokenSet:
        assert self._mean is not None
        assert self._like is not None
        order = time_order(self._start, self._end, self._patch)
        return TokenSet(
            tokens=(self._mean[order] + self._origin).to(self._like.dtype),
            weight=self._weight[order].to(torch.float32),
            start_seconds=self._start[order],
            end_seconds=self._end[order],
            patch=self._patch[order],
        )

    def _assign(self) -> Tensor:
        order = time_order(self._start, self._end, self._patch)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        assigned = []
        for group in reversed(self._moves):  # from the last frame back: where each slot has gone by now
            place = place[group]
            assigned.append(place[len(place) - self._patches :])
            place = place[: len(place) - self._patches]
        return torch.cat(assigned[::-1]).cpu()


def _append(column: Tensor, value: float, times: int) -> Tensor:
    return torch.cat([column, column.new_full((times,), value)])


def group_sums(tokens: Tensor, weight: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The weighted means ``[B, groups, d]`` and weights ``[B, groups]``; zero where a group is empty."""
    # A product, not an addition at an index: the same every time on a GPU.
    numbers = torch.arange(groups, device=group.device)
    share = torch.where(group[:, None, :] == numbers[:, None], weight[:, None, :], 0.0)
    total = share.sum(dim=2)
    return (share / torch.where(total > 0, total, 1.0)[:, :, None]).to(tokens.dtype) @ tokens, total


def _unite(spans: list[Tensor], group: Tensor, groups: int) -> list[Tensor]:
    """The united spans ``[B, groups]`` of the groups."""
    if not spans:
        return []
    start, end = spans
    first = start.new_full((len(start), groups), math.inf).scatter_reduce(1, group, start, "amin")
    last = end.new_full((len(end), groups), -math.inf).scatter_reduce(1, group, end, "amax")
    return [first, last]


def _check(
    tokens: Tensor,
    budget: int,
    weight: Tensor | None,
    start_seconds: Tensor | None,
    end_seconds: Tensor | None,
    gap_seconds: float,
    share: float,
    chunk: int | None,
) -> tuple[int, int]:
    if not tokens.is_floating_point() or tokens.ndim != 3 or 0 in tokens.shape:
        raise CompressionError(
            f"tokens must be floating point [B, n, d], each at least 1, got {tokens.dtype} {list(tokens.shape)}"
        )
    for name, number in (("budget", budget), ("chunk", chunk)):
        if isinstance(number, bool) or not isinstance(number, int | None) or (number is not None and number < 1):
            raise CompressionError(f"the {name} must be a whole number of tokens, at least 1, got {number!r}")
    if budget is None:
        raise CompressionError("the budget must be a whole number of tokens, at least 1, got None")
    gap("gap_seconds", gap_seconds)
    share_of("share", share)
    if math.isfinite(gap_seconds) and (start_seconds is None or end_seconds is None):
        raise CompressionError(f"a gap of {gap_seconds} s needs start_seconds and end_seconds")
    parts = (("weight", weight), ("start_seconds", start_seconds), ("end_seconds", end_seconds))
    for name, part in parts:
        if part is None:
            continue
        if part.shape != tokens.shape[:2] or part.device != tokens.device or part.dtype == torch.bool:
            raise CompressionError(
                f"{name} must be numbers {list(tokens.shape[:2])} on {tokens.device}, "
                f"got {part.dtype} {list(part.shape)} on {part.device}"
            )
    finite = [torch.isfinite(part).all() for part in (tokens, weight, start_seconds, end_seconds) if part is not None]
    if not bool(torch.stack(finite).all()):
        raise CompressionError("tokens, weights and times must be finite, got NaN or infinity")
    if weight is not None and not bool((weight >= 0).all()):
        raise CompressionError(f"weights must be at least 0, got {float(weight.min())}")
    return tokens.shape[0], tokens.shape[1]
