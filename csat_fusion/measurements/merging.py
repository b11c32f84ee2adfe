"""Measurement by merging: each row is the weighted mean of the tokens that were put together.

The rows come from where a compressor put each token, so the measurement is learnt from the tokens themselves. CSAT
(arXiv 2507.02957) leaves the rows open; that they are not negative and sum to one makes attention to them sound::

    Phi[i, t] = w_t / W_i   where token t went to row i, else 0;   W_i = sum of w_t over the tokens of row i

Shapes: n tokens, m rows, d width, B windows of a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement, add_rows, check_size

__all__ = ["MergingMeasurement", "segment_assignment"]


class MergingMeasurement(Measurement):
    """Weighted means of the tokens that share a row. A row that no token went to measures zero and has mass 0.

    Under ``torch.export`` and ``torch.compile`` shapes are static (m is ``rows``), and values are not looked at.

    Args:
        assignment: ``[n]`` int64, the row of each token, 0 to ``rows - 1``; -1: the token is left out. Or
            ``[..., n]``, one for each window; leading dimensions broadcast with those of the tokens.
        weight: ``[..., n]``, how many tokens each stands for, at least 0, differentiable; ``None``: 1 each.
        rows: m; ``None``: the largest row and one.
        check: look at the values; a GPU waits for that, so say False where a compressor made them.

    Raises:
        CompressionError: shapes, types or devices disagree, a row is out of range, a weight is negative or not finite.
    """

    averaging = True

    def __init__(
        self, assignment: Tensor, weight: Tensor | None = None, *, rows: int | None = None, check: bool = True
    ) -> None:
        _check(assignment, weight)
        if rows is None:
            rows = max(1, int(assignment.max()) + 1)
        super().__init__(rows, assignment.shape[-1])
        if check and not torch.compiler.is_compiling():
            _check_values(assignment, weight, rows)
        self.assignment: Tensor
        self.share: Tensor
        self.weight: Tensor
        kept = assignment >= 0
        if weight is None:
            weight = torch.ones(assignment.shape, dtype=torch.float32, device=assignment.device)
        dtype = compute_dtype(weight.dtype)
        weight = torch.where(kept, weight.double(), 0.0)
        lead = weight.shape[:-1]
        row = assignment.clamp(min=0).expand(weight.shape)
        mass = _add(weight[..., None], row, rows)[..., 0]
        share = weight / torch.where(mass > 0, mass, 1.0).gather(-1, row)
        self.register_buffer("assignment", assignment.expand(*lead, -1).clone())
        self.register_buffer("share", share)  # [..., n]: the entry of Phi that each token has
        self.register_buffer("weight", mass.to(dtype))  # [..., m]: W

    @classmethod
    def from_assignment(
        cls, assignment: Tensor, weight: Tensor | None = None, *, rows: int | None = None, check: bool = True
    ) -> MergingMeasurement:
        """The same as the constructor, by its full name."""
        return cls(assignment, weight, rows=rows, check=check)

    @classmethod
    def make(
        cls,
        rows: int,
        columns: int,
        *,
        seed: int = 0,
        assignment: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> MergingMeasurement:
        """For the table: without ``assignment``, runs of neighbouring tokens of equal length; ``seed`` is not used."""
        check_size("rows", rows)
        check_size("columns", columns)
        if assignment is None:
            assignment = segment_assignment(rows, columns)
        elif assignment.shape[-1:] != (columns,):
            raise CompressionError(f"assignment must be [.., {columns}], got {list(assignment.shape)}")
        return cls(assignment, weight, rows=rows)

    def block(self, start: int, stop: int) -> Tensor:
        """Columns ``start`` to ``stop``: ``[..., m, stop - start]`` in float64 on the CPU."""
        self._check_columns(start, stop)
        rows = torch.arange(self.rows, device=self.share.device)[:, None]
        here = self.assignment[..., None, start:stop] == rows
        return (here * self.share[..., None, start:stop].double()).cpu()

    def _apply_to(self, tokens: Tensor, start: int) -> Tensor:
        stop = start + tokens.shape[-2]
        share = self.share[..., start:stop].to(tokens.dtype)
        row = self.assignment[..., start:stop].clamp(min=0)
        return _add(share[..., None] * tokens, row, self.rows)

    def _apply_adjoint(self, measured: Tensor, start: int, stop: int) -> Tensor:
        share = self.share[..., start:stop].to(measured.dtype)[..., None]
        row = self.assignment[..., start:stop].clamp(min=0)
        if row.ndim == 1:
            return share * measured.index_select(-2, row)
        lead = torch.broadcast_shapes(measured.shape[:-2], row.shape[:-1])  # type: ignore[no-untyped-call]
        place = row[..., None].expand(*lead, row.shape[-1], measured.shape[-1])
        return share * measured.expand(*lead, *measured.shape[-2:]).gather(-2, place)


def segment_assignment(rows: int, columns: int) -> Tensor:
    """``[n]`` int64: runs of neighbouring tokens, their lengths equal up to one; rows beyond ``columns`` stay empty."""
    rows = min(rows, columns)
    return torch.arange(columns) * rows // columns


def _add(tokens: Tensor, row: Tensor, rows: int) -> Tensor:
    """``[..., m, d]``: ``tokens [..., n, d]`` summed over those of the same ``row [..., n]``; lead dims broadcast."""
    if row.ndim == 1:
        flat = tokens.movedim(-2, 0)
        each = math.prod(flat.shape[1:])
        total = add_rows(flat.new_zeros(rows, each), row, flat.reshape(row.shape[0], each))
        return total.reshape(rows, *flat.shape[1:]).movedim(0, -2)
    lead = torch.broadcast_shapes(tokens.shape[:-2], row.shape[:-1])  # type: ignore[no-untyped-call]
    count, width = tokens.shape[-2:]
    row = row.expand(*lead, count).reshape(-1, count)
    windows = torch.arange(row.shape[0], device=row.device)[:, None]
    total = tokens.new_zeros(row.shape[0] * rows, width)
    place = (row + windows * rows).flatten()
    return add_rows(total, place, tokens.expand(*lead, count, width).reshape(-1, width)).reshape(*lead, rows, width)


def _check(assignment: Tensor, weight: Tensor | None) -> None:
    if not isinstance(assignment, Tensor) or assignment.dtype != torch.int64 or not assignment.ndim:
        got = f"{assignment.dtype} {list(assignment.shape)}" if isinstance(assignment, Tensor) else f"{assignment!r}"
        raise CompressionError(f"assignment must be an int64 tensor [.., n], got {got}")
    if not assignment.numel():
        raise CompressionError(f"assignment must hold at least one token, got {list(assignment.shape)}")
    if weight is None:
        return
    if not weight.is_floating_point() or weight.device != assignment.device:
        raise CompressionError(
            f"weight must be floating point on {assignment.device}, got {weight.dtype} on {weight.device}"
        )
    if weight.shape[-1:] != assignment.shape[-1:] or weight.ndim < assignment.ndim:
        raise CompressionError(f"weight must be {list(assignment.shape)} as assignment is, got {list(weight.shape)}")


def _check_values(assignment: Tensor, weight: Tensor | None, rows: int) -> None:
    low, high = int(assignment.min()), int(assignment.max())
    if low < -1 or high >= rows:
        raise CompressionError(
            f"rows of an assignment must be 0 to {rows - 1}, or -1 where left out, got {low if low < -1 else high}"
        )
    if weight is not None:
        bad = weight[~(torch.isfinite(weight) & (weight >= 0))]
        if bad.numel():
            raise CompressionError(f"weights must be finite and at least 0, got {float(bad[0])}")
