"""The one interface of all measurements ``Phi``, and their table of names.

A measurement takes n tokens to m rows that are linear in them: ``Y = Phi X``. It acts on the token axis of
``[..., n, d]`` or, for trajectories over time, on the frame axis of ``[..., T, d]``. Values are not looked at: as in
any matrix product, a token that is not a number makes the rows that read it so, and a sum that is too large for the
type of the tokens is infinite.

Shapes: n columns (tokens or frames), m rows, d width, k columns of a block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.errors import CompressionError
from csat_fusion.precision import without_autocast
from csat_fusion.tables import Entry, Table

__all__ = ["MEASUREMENTS", "Measurement", "make_measurement"]


class Measurement(nn.Module, ABC):
    """``Phi [m, n]``, applied without being written down where its structure allows.

    There may be more rows than columns; nothing is compressed then, and everything else holds.

    Args:
        rows: m, at least 1.
        columns: n, at least 1; ``None`` where columns can be made one by one without end (``endless``).

    Raises:
        CompressionError: a number is not a whole one or below 1.
    """

    #: column t depends on the seed and t alone, so a stream may go on without end
    endless: ClassVar[bool] = False
    #: rows are non-negative and sum to one: each measurement is a weighted mean of tokens
    averaging: bool = False

    def __init__(self, rows: int, columns: int | None) -> None:
        super().__init__()
        for name, value in (("rows", rows), ("columns", columns)):
            if value is None and name == "columns" and self.endless:
                continue
            check_size(name, value)
        self.rows = rows
        self.columns = columns

    def forward(self, tokens: Tensor) -> Tensor:
        """``Phi X``: ``[..., n, d]`` to ``[..., m, d]``, differentiable, in the type and on the device of ``tokens``.

        Half precision is summed in float32, under autocast too. No tokens at all (n = 0, where endless) measure zero.

        Raises:
            CompressionError: ``tokens`` is not floating point ``[..., n, d]`` with n as ``columns`` says.
        """
        tokens = self._checked(tokens, "tokens")
        if self.columns is not None and tokens.shape[-2] != self.columns:
            raise CompressionError(f"this measurement has {self.columns} columns, got {tokens.shape[-2]} tokens")
        with without_autocast(tokens.device):
            return self._apply_to(tokens.to(compute_dtype(tokens.dtype)), 0).to(tokens.dtype)

    def partial(self, tokens: Tensor, start: int) -> Tensor:
        """What tokens ``[..., k, d]`` at columns ``start`` to ``start + k`` add to the measurement: ``[..., m, d]``.

        The parts of any chunking sum to what ``forward`` gives for all, up to rounding: each column is the same
        whatever it is made with.

        Raises:
            CompressionError: ``tokens`` is not floating point ``[..., k, d]``, or a column is not there.
        """
        tokens = self._checked(tokens, "tokens")
        self._check_columns(start, start + tokens.shape[-2])
        with without_autocast(tokens.device):
            return self._apply_to(tokens.to(compute_dtype(tokens.dtype)), start).to(tokens.dtype)

    def adjoint(self, measured: Tensor, columns: int | None = None, start: int = 0) -> Tensor:
        """``Phi^T Y``: ``[..., m, d]`` to ``[..., n, d]``, differentiable, in the type of ``measured``.

        Attention over the rows of an averaging measurement becomes attention over the tokens by it.

        Args:
            measured: ``[..., m, d]``.
            columns: n where the measurement is endless, or fewer than it has: the first ``columns`` from ``start`` on.
            start: the column to begin at.

        Raises:
            CompressionError: ``measured`` has not m rows, or a column is not there.
        """
        measured = self._checked(measured, "measured rows")
        if measured.shape[-2] != self.rows:
            raise CompressionError(f"this measurement has {self.rows} rows, got {measured.shape[-2]}")
        if columns is None:
            if self.columns is None:
                raise CompressionError("the adjoint of an endless measurement needs columns, the number of tokens")
            columns = self.columns - start
        self._check_columns(start, start + columns)
        with without_autocast(measured.device):
            wide = measured.to(compute_dtype(measured.dtype))
            return self._apply_adjoint(wide, start, start + columns).to(measured.dtype)

    @abstractmethod
    def block(self, start: int, stop: int) -> Tensor:
        """Columns ``start`` to ``stop`` of Phi, ``[m, stop - start]`` in float64 on the CPU, made alone.

        Raises:
            CompressionError: there are no such columns.
        """

    def matrix(self) -> Tensor:
        """Phi, ``[m, n]`` in float64, for looking at and for tests.

        Raises:
            CompressionError: the measurement is endless and was made without ``columns``.
        """
        if self.columns is None:
            raise CompressionError("an endless measurement has no matrix; ask for a block of columns")
        return self.block(0, self.columns)

    @abstractmethod
    def _apply_to(self, tokens: Tensor, start: int) -> Tensor:
        """``Phi[:, start : start + k] X`` for checked float32 or float64 tokens ``[..., k, d]``."""

    @abstractmethod
    def _apply_adjoint(self, measured: Tensor, start: int, stop: int) -> Tensor:
        """``Phi[:, start : stop]^T Y`` for checked float32 or float64 rows ``[..., m, d]``."""

    def _check_columns(self, start: int, stop: int) -> None:
        for name, value in (("first", start), ("last", stop)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise CompressionError(f"the {name} column must be a whole number, got {value!r}")
        if not 0 <= start <= stop or (self.columns is not None and stop > self.columns):
            there = "0, 1, 2, and so on" if self.columns is None else f"0 to {self.columns}, the last not counted"
            raise CompressionError(f"columns {start} to {stop} were asked for; there are {there}")

    def _checked(self, tokens: Tensor, what: str) -> Tensor:
        if not isinstance(tokens, Tensor) or not tokens.is_floating_point() or tokens.ndim < 2:
            got = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
            raise CompressionError(f"a measurement takes {what} that are floating point [.., n, d], got {got}")
        for part in (*self.parameters(), *self.buffers()):
            if part.device != tokens.device:
                raise CompressionError(f"this measurement is on {part.device}, the {what} are on {tokens.device}")
        return tokens

    def extra_repr(self) -> str:
        return f"rows={self.rows}, columns={self.columns}"


def check_size(name: str, value: int | None) -> None:
    """``rows`` or ``columns`` of a measurement must be a whole number, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CompressionError(f"{name} of a measurement must be a whole number, at least 1, got {value!r}")


def add_rows(total: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """``total [N, d]`` with ``rows [k, d]`` added to it in place at ``index [k]``; in the same order every time."""
    if total.is_cuda:
        return total.index_put_((index,), rows, accumulate=True)  # sorts; index_add_ would add in any order
    return total.index_add_(0, index, rows)


_HOME = "csat_fusion.measurements"

MEASUREMENTS = Table(
    "measurement",
    {
        "gaussian": Entry(f"{_HOME}.random", "GaussianMeasurement"),
        "rademacher": Entry(f"{_HOME}.random", "RademacherMeasurement"),
        "hadamard": Entry(f"{_HOME}.hadamard", "HadamardMeasurement"),
        "sparse-sign": Entry(f"{_HOME}.random", "SparseSignMeasurement"),
        "learned": Entry(f"{_HOME}.learned", "LearnedMeasurement"),
        "merging": Entry(f"{_HOME}.merging", "MergingMeasurement.make"),
    },
)


def make_measurement(name: str, rows: int, columns: int | None = None, *, seed: int = 0, **options: Any) -> Measurement:
    """The measurement of that name in ``MEASUREMENTS``, with ``options`` of its class.

    Raises:
        CompressionError: no measurement or option has that name, or a value is outside what is allowed.
    """
    entry = MEASUREMENTS.find(name)
    if columns is None and entry.parameters()["columns"].default is not None:
        raise CompressionError(f"{entry.name} needs columns, the number of tokens that it measures, got None")
    made: Measurement = entry.make(rows, columns, given=("rows", "columns", "seed"), seed=seed, **options)
    return made
