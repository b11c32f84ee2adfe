"""Random measurements whose columns are made one by one, without end: Gaussian, Rademacher, sparse sign.

Gaussian and Rademacher matrices keep the lengths of sparse signals with high probability (E. J. Candes, T. Tao,
"Decoding by linear programming", 2005; R. Baraniuk et al., "A simple proof of the restricted isometry property for
random matrices", 2008). A sparse sign matrix has few entries a column, so a token is added to few rows (P.-G.
Martinsson, J. A. Tropp, "Randomized numerical linear algebra: foundations and algorithms", 2020, arXiv 2002.01387).
All are scaled so that the expectation of ``|Phi x|^2`` over seeds is ``|x|^2``.

Shapes: n columns (tokens or frames), m rows, d width, k columns of a block, s entries a column.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement, add_rows
from csat_fusion.measurements.hashing import checked_seed, choose, hash_bits, normal_pair, sign

__all__ = ["GaussianMeasurement", "RademacherMeasurement", "SparseSignMeasurement"]

# Entries of Phi that are made at once, whatever m and n: 0.5 MB of float64 stays in a cache, 32 MB keep a GPU busy.
_BLOCK_ENTRIES = {"cpu": 1 << 16}
_BLOCK_ENTRIES_ELSEWHERE = 1 << 22


def _block_entries(device: torch.device) -> int:
    return _BLOCK_ENTRIES.get(device.type, _BLOCK_ENTRIES_ELSEWHERE)


class _DenseRandomMeasurement(Measurement):
    """Every entry is a hash of the seed, its row and its column; blocks of columns are made, used and forgotten."""

    endless: ClassVar[bool] = True

    def __init__(self, rows: int, columns: int | None = None, *, seed: int = 0) -> None:
        super().__init__(rows, columns)
        self.seed = checked_seed(seed)

    def block(self, start: int, stop: int) -> Tensor:
        self._check_columns(start, stop)
        return self._entries(start, stop, torch.device("cpu"))

    @abstractmethod
    def _entries(self, start: int, stop: int, device: torch.device) -> Tensor:
        """``[m, stop - start]`` float64."""

    def _apply_to(self, tokens: Tensor, start: int) -> Tensor:
        if torch.is_grad_enabled() and tokens.requires_grad:
            return _result(_Apply.apply(tokens, self, start))
        return self._product(tokens, start)

    def _apply_adjoint(self, measured: Tensor, start: int, stop: int) -> Tensor:
        if torch.is_grad_enabled() and measured.requires_grad:
            return _result(_ApplyAdjoint.apply(measured, self, start, stop))
        return self._adjoint_product(measured, start, stop)

    def _spans(self, start: int, stop: int, device: torch.device) -> list[tuple[int, int]]:
        """Blocks of columns that are small enough to make at once; at least one, which may be empty."""
        step = max(1, _block_entries(device) // self.rows)
        return [(at, min(at + step, stop)) for at in range(start, max(stop, start + 1), step)]

    def _product(self, tokens: Tensor, start: int) -> Tensor:
        total: Tensor | None = None
        for at, end in self._spans(start, start + tokens.shape[-2], tokens.device):
            entries = self._entries(at, end, tokens.device).to(tokens.dtype)
            part = entries @ tokens[..., at - start : end - start, :]
            total = part if total is None else total + part
        assert total is not None
        return total

    def _adjoint_product(self, measured: Tensor, start: int, stop: int) -> Tensor:
        parts = [
            self._entries(at, end, measured.device).to(measured.dtype).mT @ measured
            for at, end in self._spans(start, stop, measured.device)
        ]
        return torch.cat(parts, dim=-2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, seed={self.seed}"


class _Apply(torch.autograd.Function):
    """``Phi X`` whose gradient makes Phi again, block by block, where autograd would have kept all of it."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, measurement: _DenseRandomMeasurement, start: int) -> Tensor:
        ctx.measurement, ctx.start, ctx.stop = measurement, start, start + tokens.shape[-2]
        return measurement._product(tokens, start)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.measurement._apply_adjoint(gradients[0], ctx.start, ctx.stop), None, None


class _ApplyAdjoint(torch.autograd.Function):
    """``Phi^T Y``, likewise."""

    @staticmethod
    def forward(ctx: Any, measured: Tensor, measurement: _DenseRandomMeasurement, start: int, stop: int) -> Tensor:
        ctx.measurement, ctx.start = measurement, start
        return measurement._adjoint_product(measured, start, stop)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.measurement._apply_to(gradients[0], ctx.start), None, None, None


def _result(value: Any) -> Tensor:
    """``Function.apply`` says nothing of its type."""
    assert isinstance(value, Tensor)
    return value


class GaussianMeasurement(_DenseRandomMeasurement):
    """Independent normal entries of mean 0 and variance 1/m.

    Args:
        rows: m.
        columns: n; ``None``: without end.
        seed: whole number from 0 to 2^63 - 1.
    """

    def _entries(self, start: int, stop: int, device: torch.device) -> Tensor:
        pairs = torch.arange((self.rows + 1) // 2, device=device)[:, None]  # one hash gives rows 2i and 2i + 1
        bits = hash_bits(self.seed, pairs, torch.arange(start, stop, device=device))
        entries = torch.stack(normal_pair(bits), dim=1).flatten(0, 1)[: self.rows]
        return entries * (1.0 / math.sqrt(self.rows))


class RademacherMeasurement(_DenseRandomMeasurement):
    """Independent entries ``1 / sqrt(m)`` or ``-1 / sqrt(m)``, equally likely.

    Args:
        rows: m.
        columns: n; ``None``: without end.
        seed: whole number from 0 to 2^63 - 1.
    """

    def _entries(self, start: int, stop: int, device: torch.device) -> Tensor:
        words = torch.arange((self.rows + 63) // 64, device=device)[:, None]  # one hash gives 64 rows
        bits = hash_bits(self.seed, words, torch.arange(start, stop, device=device))
        row = torch.arange(self.rows, device=device)
        return sign(bits[row // 64], (row % 64)[:, None]) * (1.0 / math.sqrt(self.rows))


class SparseSignMeasurement(Measurement):
    """s entries ``1 / sqrt(s)`` or ``-1 / sqrt(s)`` in each column, in distinct rows; every set of rows equally likely.

    Args:
        rows: m.
        columns: n; ``None``: without end.
        seed: whole number from 0 to 2^63 - 1.
        nonzeros: s, entries a column, 1 to m; ``None``: 8, or m where that is less.
    """

    endless: ClassVar[bool] = True

    def __init__(self, rows: int, columns: int | None = None, *, seed: int = 0, nonzeros: int | None = None) -> None:
        super().__init__(rows, columns)
        self.seed = checked_seed(seed)
        if nonzeros is None:
            nonzeros = min(8, rows)
        if isinstance(nonzeros, bool) or not isinstance(nonzeros, int) or not 1 <= nonzeros <= rows:
            raise CompressionError(f"nonzeros must be a whole number from 1 to {rows}, the rows, got {nonzeros!r}")
        self.nonzeros = nonzeros

    def block(self, start: int, stop: int) -> Tensor:
        self._check_columns(start, stop)
        rows, values = self._places(start, stop, torch.device("cpu"))
        return torch.zeros(self.rows, stop - start, dtype=torch.float64).scatter_(0, rows, values)

    def _places(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and values of the entries of columns ``start`` to ``stop``, each ``[s, stop - start]``.

        Distinct rows by R. W. Floyd's sampling (J. Bentley, "Programming pearls: a sample of brilliance", 1987): of the
        first ``j + 1`` rows one is drawn, and where it is taken already, row ``j`` is free.
        """
        column = torch.arange(start, stop, device=device)
        bits = hash_bits(self.seed, column, torch.arange(self.nonzeros, device=device)[:, None])
        rows: list[Tensor] = []
        for i in range(self.nonzeros):
            last = self.rows - self.nonzeros + i
            drawn = choose(bits[i], last + 1)
            taken = torch.zeros_like(drawn, dtype=torch.bool)
            for other in rows:
                taken = taken | (drawn == other)
            rows.append(torch.where(taken, last, drawn))
        # `choose` reads the upper 63 bits, the sign the lowest
        return torch.stack(rows), sign(bits) * (1.0 / math.sqrt(self.nonzeros))

    def _apply_to(self, tokens: Tensor, start: int) -> Tensor:
        lead, (count, width) = tokens.shape[:-2], tokens.shape[-2:]
        each = math.prod(lead) * width
        flat = tokens.movedim(-2, 0).reshape(count, each)  # the axis that is added over goes first
        total = flat.new_zeros(self.rows, each)
        step = max(1, _block_entries(tokens.device) // max(1, each))
        for at in range(0, count, step):
            end = min(at + step, count)
            rows, values = self._places(start + at, start + end, tokens.device)
            for row, value in zip(rows, values.to(tokens.dtype), strict=True):
                total = add_rows(total, row, value[:, None] * flat[at:end])
        return total.reshape(self.rows, *lead, width).movedim(0, -2)

    def _apply_adjoint(self, measured: Tensor, start: int, stop: int) -> Tensor:
        rows, values = self._places(start, stop, measured.device)
        total = measured.new_zeros(*measured.shape[:-2], stop - start, measured.shape[-1])
        for row, value in zip(rows, values.to(measured.dtype), strict=True):
            total = total + value[:, None] * measured[..., row, :]
        return total

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, seed={self.seed}, nonzeros={self.nonzeros}"
