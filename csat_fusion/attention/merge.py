"""Merging inside an attention: which tokens go together is decided without gradient, their means pass it.

The decision is one custom operation, ``csat_fusion::ward_assignment``, so that ``torch.export`` and ``torch.compile``
keep it as a whole instead of tracing its rounds.

Shapes: B batch, n tokens, d width, m rows kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csat_fusion.attention.core import is_symbol
from csat_fusion.measurements.base import add_rows
from csat_fusion.precision import without_autocast

__all__ = ["merge_bias", "merge_rows", "row_masses", "ward_rows"]


@torch.library.custom_op(
    "csat_fusion::ward_assignment",
    mutates_args=(),
    # written out: older torch cannot read it from postponed annotations
    schema="(Tensor tokens, SymInt budget, Tensor? weight, Tensor? start_seconds, Tensor? end_seconds, "
    "float gap_seconds, float share) -> Tensor",
)
def _ward(
    tokens: Tensor,
    budget: int,
    weight: Tensor | None,
    start_seconds: Tensor | None,
    end_seconds: Tensor | None,
    gap_seconds: float,
    share: float,
) -> Tensor:
    from csat_fusion.compressors.batched import ward_assignment

    if not tokens.shape[0]:  # an empty batch, which the compressor refuses
        return tokens.new_empty(tokens.shape[:2], dtype=torch.int64)
    with torch.no_grad(), without_autocast(tokens.device):
        assignment: Tensor = ward_assignment(
            tokens,
            budget,
            weight=weight,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            gap_seconds=gap_seconds,
            share=share,
        )
    return assignment.clone()


@_ward.register_fake
def _(
    tokens: Tensor,
    budget: int,
    weight: Tensor | None,
    start_seconds: Tensor | None,
    end_seconds: Tensor | None,
    gap_seconds: float,
    share: float,
) -> Tensor:
    return tokens.new_empty(tokens.shape[:2], dtype=torch.int64)


def ward_rows(
    tokens: Tensor,
    budget: int,
    *,
    weight: Tensor | None = None,
    start_seconds: Tensor | None = None,
    end_seconds: Tensor | None = None,
    gap_seconds: float = math.inf,
    share: float = 0.1,
) -> Tensor:
    """The row ``[B, n]`` int64, 0 to at most ``budget - 1``, that each token of ``[B, n, d]`` is merged into.

    Arguments and errors as :func:`csat_fusion.compressors.batched.ward_assignment`; distances in float32 at least.
    """
    tokens = tokens.detach()
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    if weight is not None:
        weight = weight.detach()
    rows: Tensor = _ward(tokens, budget, weight, start_seconds, end_seconds, float(gap_seconds), float(share))
    return rows


def row_masses(assignment: Tensor, weight: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The weight of each row, ``[B, m]``, and each token's share in its row, ``[B, n]`` (0 where it weighs nothing)."""
    mass = _sums(weight[..., None], assignment, rows)[..., 0]
    whole = mass.gather(-1, assignment)
    some = whole > 0
    return mass, torch.where(some, weight / torch.where(some, whole, 1.0), 0.0)


def merge_rows(tokens: Tensor, assignment: Tensor, share: Tensor, rows: int) -> Tensor:
    """The weighted means ``[B, m, d]`` of each row's tokens, summed in float32 at least; zeros where a row is empty."""
    wide = torch.promote_types(tokens.dtype, torch.float32)
    parts = tokens.to(wide) * share.to(wide)[..., None]
    return _sums(parts, assignment, rows).to(tokens.dtype)


def merge_bias(bias: Tensor, assignment: Tensor, share: Tensor, rows: int) -> Tensor:
    """What ``bias`` over tokens, ``[B or 1, h, q, n]``, is over the rows they were merged into: ``[B, h, q, m]``.

    ``log sum_i share_i exp(bias_i)`` over the tokens of a row: the bias itself where they have the same, and exact
    where their keys and values are equal. But ``-inf`` where any of them has it, as the row's mean would carry that
    token's value through the mask. Tokens of no weight have no say. In float32 at least.
    """
    wide = torch.promote_types(bias.dtype, torch.float32)
    lead, heads, queries, tokens = bias.shape
    flat = bias.to(wide).permute(0, 3, 1, 2).reshape(lead, tokens, heads * queries)
    flat = flat.expand(assignment.shape[0], tokens, heads * queries)
    at = assignment[..., None].expand(flat.shape)
    blocked = merge_rows((flat == -math.inf).to(wide), assignment, share, rows) > 0
    some = flat.masked_fill(share[..., None] <= 0, -math.inf)
    top = some.detach().new_full((assignment.shape[0], rows, heads * queries), -math.inf)
    top = top.scatter_reduce(1, at, some.detach(), "amax")
    top = torch.where(top > -math.inf, top, 0.0)  # taken out of each row, so that no exponential leaves the type
    mean = merge_rows((some - top.gather(1, at)).exp(), assignment, share, rows)
    blocked = blocked | (mean <= 0)  # a row without tokens, too
    merged = torch.where(blocked, -math.inf, torch.where(blocked, 1.0, mean).log() + top)
    return merged.view(assignment.shape[0], rows, heads, queries).permute(0, 2, 3, 1)


def _sums(tokens: Tensor, assignment: Tensor, rows: int) -> Tensor:
    """``[B, m, d]``: the tokens of each row summed, in the same order every time."""
    batch, _, width = tokens.shape
    window = torch.arange(batch, device=assignment.device)[:, None]
    if is_symbol(rows):  # a reshape would fix m in an exported program; twice as slow on a CPU
        return tokens.new_zeros(batch, rows, width).index_put((window, assignment), tokens, accumulate=True)
    place = assignment + window * rows
    total = add_rows(tokens.new_zeros(batch * rows, width), place.flatten(), tokens.flatten(0, 1))
    return total.view(batch, rows, width)
