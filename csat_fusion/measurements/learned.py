"""Measurements given as a matrix: one that is learnt by gradient, and one that stays as it is.

Shapes: n columns (tokens or frames), m rows, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import MEASUREMENTS, Measurement, make_measurement
from csat_fusion.measurements.merging import segment_assignment

__all__ = ["LearnedMeasurement", "MatrixMeasurement"]

# Share of a row that is spread over all tokens at first: a softmax cannot be zero, and near zero it would not learn.
_SPREAD = 0.05


class _DenseMeasurement(Measurement):
    """A measurement whose matrix is at hand."""

    def _phi(self) -> Tensor:
        raise NotImplementedError

    def block(self, start: int, stop: int) -> Tensor:
        self._check_columns(start, stop)
        return self._phi().detach()[:, start:stop].to(device="cpu", dtype=torch.float64)

    def _apply_to(self, tokens: Tensor, start: int) -> Tensor:
        return self._phi()[:, start : start + tokens.shape[-2]].to(tokens.dtype) @ tokens

    def _apply_adjoint(self, measured: Tensor, start: int, stop: int) -> Tensor:
        return self._phi()[:, start:stop].mT.to(measured.dtype) @ measured


class MatrixMeasurement(_DenseMeasurement):
    """A matrix that stays as it is: one's own, or another measurement written down, to be used often at one n::

        MatrixMeasurement(make_measurement("gaussian", 64, 4096).matrix().float())  # takes m * n numbers of memory

    Args:
        matrix: Phi, ``[m, n]`` floating point and finite; copied, no gradient passes.
    """

    def __init__(self, matrix: Tensor) -> None:
        _check_matrix(matrix)
        super().__init__(*matrix.shape)
        self.phi: Tensor
        self.register_buffer("phi", matrix.detach().clone())

    def _phi(self) -> Tensor:
        return self.phi


class LearnedMeasurement(_DenseMeasurement):
    """``Phi`` as a parameter.

    Args:
        rows: m.
        columns: n.
        seed: of the measurement to begin with, where that is random.
        init: what to begin with: a name in ``MEASUREMENTS``; "segments", the means of m runs of neighbouring tokens of
            equal length (needs m at most n); or a matrix ``[m, n]``. ``None``: "segments" where averaging, else
            "gaussian".
        averaging: the parameter goes through a softmax over each row, so rows stay non-negative and sum to one.
            It begins at 0.95 of ``init`` and 0.05 of the mean of all tokens, as a softmax has no zeros.

    Raises:
        CompressionError: no such ``init``, or one with negative entries where averaging.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        seed: int = 0,
        init: str | Tensor | None = None,
        averaging: bool = False,
    ) -> None:
        super().__init__(rows, columns)
        self.averaging = averaging
        if init is None:
            init = "segments" if averaging else "gaussian"
        phi = _initial(init, rows, columns, seed)
        if averaging:
            total = phi.sum(dim=1, keepdim=True)
            if bool((phi < 0).any()) or bool((total <= 0).any()):
                raise CompressionError(
                    f"an averaging measurement begins with rows that are not negative and not all zero; "
                    f"init {init if isinstance(init, str) else 'matrix'!r} has others; use 'segments' or 'merging'"
                )
            phi = ((1 - _SPREAD) * phi / total + _SPREAD / columns).log()
        self.parameter = nn.Parameter(phi.float())

    def _phi(self) -> Tensor:
        if not self.averaging:
            return self.parameter
        return self.parameter.softmax(dim=1, dtype=compute_dtype(self.parameter.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, averaging={self.averaging}"


def _initial(init: str | Tensor, rows: int, columns: int, seed: int) -> Tensor:
    """Phi to begin with, ``[m, n]`` float64."""
    if isinstance(init, Tensor):
        _check_matrix(init)
        if init.shape != (rows, columns):
            raise CompressionError(f"init must be [{rows}, {columns}], got {list(init.shape)}")
        return init.detach().double()
    if init == "segments":
        if rows > columns:
            raise CompressionError(f"{rows} segments of {columns} tokens would leave some empty; rows at most columns")
        mine = segment_assignment(rows, columns) == torch.arange(rows)[:, None]
        return mine.double() / mine.sum(dim=1, keepdim=True)
    if init not in MEASUREMENTS or init == "learned":
        allowed = ", ".join(["segments", *(name for name in MEASUREMENTS if name != "learned")])
        raise CompressionError(f"init of a learned measurement must be a matrix or one of {allowed}, got {init!r}")
    return make_measurement(init, rows, columns, seed=seed).matrix()


def _check_matrix(matrix: Tensor) -> None:
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point() or matrix.ndim != 2 or 0 in matrix.shape:
        got = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise CompressionError(f"a matrix must be floating point [m, n], m and n at least 1, got {got}")
    if not bool(torch.isfinite(matrix).all()):
        raise CompressionError(f"a matrix must be finite, got {float(matrix[~torch.isfinite(matrix)][0])}")
