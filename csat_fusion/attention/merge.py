"""Merging inside an attention: which tokens go together is decided without gradient, their means pass it.

The decision is one custom operation, ``csat_fusion::ward_assignment``, so that ``torch.export`` and ``torch.compile``
keep it as a whole instead of tracing its rounds.

Shapes: B batch, n tokens, d width, m rows kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csat_fusion.measurements.base import add_rows

__all__ = ["merge_rows", "row_masses", "ward_rows"]


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

    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
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


def _sums(tokens: Tensor, assignment: Tensor, rows: int) -> Tensor:
    """``[B, m, d]``: the tokens of each row summed, in the same order every time."""
    batch, _, width = tokens.shape
    place = assignment + torch.arange(batch, device=assignment.device)[:, None] * rows
    total = add_rows(tokens.new_zeros(batch * rows, width), place.flatten(), tokens.flatten(0, 1))
    return total.view(batch, rows, width)
