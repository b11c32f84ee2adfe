"""The one interface of all dictionaries ``Psi``, in which signals are sparse, and their table of names.

A dictionary acts on the second last axis: a trajectory over T frames ``[..., T, d]``, or, transposed, the features of
a context vector.

Shapes: L length of the signal (T frames, or d features), K atoms, d channels that share the axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.errors import CompressionError
from csat_fusion.precision import without_autocast
from csat_fusion.tables import Entry, Table

__all__ = ["DICTIONARIES", "Dictionary", "make_dictionary"]


class Dictionary(nn.Module, ABC):
    """``Psi [L, K]``; a signal is ``x = Psi z`` with few entries of ``z`` other than zero.

    Args:
        length: L, at least 1.
        atoms: K, at least 1.

    Raises:
        CompressionError: a number is not a whole one or below 1.
    """

    #: ``Psi^T Psi = 1``: analysis gives back the code that synthesis took; with K = L every signal is reached
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
        """Psi, ``[L, K]``; atoms have unit norm.

        Where it is learnt, differentiable, on the device of the parameters and in their type (float32 where that is
        half precision); else in float64 on the CPU, or where its data is.
        """

    def synthesize(self, code: Tensor) -> Tensor:
        """``Psi z``: ``[..., K, d]`` to ``[..., L, d]``, differentiable, in the type and on the device of ``code``.

        Raises:
            CompressionError: ``code`` is not floating point ``[..., K, d]``.
        """
        code = self._checked(code, "a code", self.atoms)
        with without_autocast(code.device):
            return self._synthesize(code.to(compute_dtype(code.dtype))).to(code.dtype)

    def analyze(self, signal: Tensor) -> Tensor:
        """``Psi^T x``: ``[..., L, d]`` to ``[..., K, d]``; the code itself where Psi is orthonormal.

        Raises:
            CompressionError: ``signal`` is not floating point ``[..., L, d]``.
        """
        signal = self._checked(signal, "a signal", self.length)
        with without_autocast(signal.device):
            return self._analyze(signal.to(compute_dtype(signal.dtype))).to(signal.dtype)

    def _synthesize(self, code: Tensor) -> Tensor:
        """For a checked code in float32 or float64; a faster way than the product goes here."""
        return self.matrix().to(code) @ code

    def _analyze(self, signal: Tensor) -> Tensor:
        return self.matrix().to(signal).mT @ signal

    def _checked(self, value: Tensor, what: str, rows: int) -> Tensor:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2 or value.shape[-2] != rows:
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise CompressionError(f"{what} must be floating point [.., {rows}, d], got {got}")
        for part in (*self.parameters(), *self.buffers()):
            if part.device != value.device:
                raise CompressionError(f"this dictionary is on {part.device}, {what} is on {value.device}")
        return value

    def extra_repr(self) -> str:
        return f"length={self.length}, atoms={self.atoms}"


def check_basis(kind: str, length: int, atoms: int | None) -> int:
    """K of a basis, which has no more atoms than its length; ``None``: all of them."""
    if isinstance(atoms, int) and isinstance(length, int) and atoms > length:
        raise CompressionError(f"a {kind} dictionary of length {length} has at most {length} atoms, got {atoms}")
    return length if atoms is None else atoms


_HOME = "csat_fusion.dictionaries"

DICTIONARIES = Table(
    "dictionary",
    {
        "identity": Entry(f"{_HOME}.fixed", "IdentityDictionary"),
        "dct": Entry(f"{_HOME}.fixed", "DctDictionary"),
        "haar": Entry(f"{_HOME}.wavelets", "HaarDictionary"),
        "learnable-haar": Entry(f"{_HOME}.wavelets", "LearnableHaarDictionary"),
        "steps": Entry(f"{_HOME}.fixed", "StepDictionary"),
        "spectral": Entry(f"{_HOME}.spectral", "SpectralDictionary"),
        "graph": Entry(f"{_HOME}.graph", "GraphWaveletDictionary"),
        "learned": Entry(f"{_HOME}.learned", "LearnedDictionary"),
    },
)


def make_dictionary(name: str, length: int, atoms: int | None = None, **options: Any) -> Dictionary:
    """The dictionary of that name in ``DICTIONARIES``, with ``options`` of its class; ``atoms`` None: as many as usual.

    Raises:
        CompressionError: no dictionary or option has that name, or a value is outside what is allowed.
    """
    made: Dictionary = DICTIONARIES.find(name).make(length, atoms, given=("length", "atoms"), **options)
    return made
