"""The one interface of all dictionaries ``Psi``, in which signals are sparse, and their table of names.

A dictionary acts on the second last axis: a trajectory over T frames ``[..., T, d]``, or, transposed, the features of
a context vector.

Shapes: L length of the signal (T frames, or d features), K atoms, d channels that share the axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from csat_fusion.errors import CompressionError

__all__ = ["Dictionary"]


class Dictionary(nn.Module, ABC):
    """``Psi [L, K]``; a signal is ``x = Psi z`` with few entries of ``z`` other than zero.

    Args:
        length: L, at least 1.
        atoms: K, at least 1.
    """

    #: ``Psi^T Psi = 1``: analysis is exact, and synthesis its inverse
    orthonormal: ClassVar[bool] = False

    def __init__(self, length: int, atoms: int) -> None:
        super().__init__()
        for name, value in (("length", length), ("atoms", atoms)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CompressionError(f"{name} of a dictionary must be a whole number, at least 1, got {value!r}")
        self.length = length
        self.atoms = atoms

    @abstractmethod
    def matrix(self) -> Tensor:
        """Psi, ``[L, K]``; differentiable where it is learnt. Atoms have unit norm."""

    def synthesize(self, code: Tensor) -> Tensor:
        """``Psi z``: ``[..., K, d]`` to ``[..., L, d]``."""
        return self.matrix().to(code) @ code

    def analyze(self, signal: Tensor) -> Tensor:
        """``Psi^T x``: ``[..., L, d]`` to ``[..., K, d]``; the code itself where Psi is orthonormal."""
        return self.matrix().to(signal).mT @ signal
