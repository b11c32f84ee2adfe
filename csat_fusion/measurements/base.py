"""The one interface of all measurements ``Phi``, and their table of names.

A measurement takes n tokens to m rows that are linear in them: ``Y = Phi X``. It acts on the token axis of ``[..., n, d]``
or, for trajectories over time, on the frame axis of ``[..., T, d]``.

Shapes: n columns (tokens or frames), m rows, d width, k columns of a block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from csat_fusion.errors import CompressionError

__all__ = ["Measurement"]


class Measurement(nn.Module, ABC):
    """``Phi [m, n]``, applied without being written down where its structure allows.

    Args:
        rows: m, at least 1.
        columns: n, at least 1; ``None`` where columns can be made one by one without end (``endless``).
    """

    #: column t depends on the seed and t alone, so a stream may go on without end
    endless: ClassVar[bool] = False
    #: rows are non-negative and sum to one: each measurement is a weighted mean of tokens
    averaging: ClassVar[bool] = False

    def __init__(self, rows: int, columns: int | None) -> None:
        super().__init__()
        for name, value in (("rows", rows), ("columns", columns)):
            if value is None and name == "columns" and self.endless:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CompressionError(f"{name} of a measurement must be a whole number, at least 1, got {value!r}")
        self.rows = rows
        self.columns = columns

    def forward(self, tokens: Tensor) -> Tensor:
        """``Phi X``: ``[..., n, d]`` to ``[..., m, d]``, differentiable, in the type and on the device of ``tokens``."""
        return self._apply_to(self._checked(tokens))

    @abstractmethod
    def _apply_to(self, tokens: Tensor) -> Tensor: ...

    @abstractmethod
    def adjoint(self, measured: Tensor, columns: int | None = None) -> Tensor:
        """``Phi^T Y``: ``[..., m, d]`` to ``[..., n, d]``; ``columns`` says n where the measurement is endless."""

    @abstractmethod
    def block(self, start: int, stop: int) -> Tensor:
        """Columns ``start`` to ``stop`` of Phi, ``[m, stop - start]`` in float64 on the CPU, made alone."""

    def matrix(self) -> Tensor:
        """Phi, ``[m, n]`` in float64, for looking at and for tests."""
        if self.columns is None:
            raise CompressionError("an endless measurement has no matrix; ask for a block of columns")
        return self.block(0, self.columns)

    def _checked(self, tokens: Tensor) -> Tensor:
        if not tokens.is_floating_point() or tokens.ndim < 2:
            raise CompressionError(f"a measurement takes floating point [.., n, d], got {tokens.dtype} {list(tokens.shape)}")
        if self.columns is not None and tokens.shape[-2] != self.columns:
            raise CompressionError(f"this measurement has {self.columns} columns, got {tokens.shape[-2]} tokens")
        return tokens
