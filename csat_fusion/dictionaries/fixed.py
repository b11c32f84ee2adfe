"""Dictionaries that nothing has to be learnt for: identity, cosines, steps.

Shapes: L length of the signal, K atoms, d channels that share the axis.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.dictionaries.base import Dictionary, check_basis
from csat_fusion.errors import CompressionError

__all__ = ["DctDictionary", "IdentityDictionary", "StepDictionary"]


class IdentityDictionary(Dictionary):
    """The signal is its own code.

    Args:
        length: L.
        atoms: L or None.
    """

    orthonormal: ClassVar[bool] = True

    def __init__(self, length: int, atoms: int | None = None) -> None:
        super().__init__(length, length if atoms is None else atoms)
        if atoms is not None and atoms != length:
            raise CompressionError(f"an identity dictionary of length {length} has {length} atoms, got {atoms}")

    def matrix(self) -> Tensor:
        return torch.eye(self.length, dtype=torch.float64)

    def _synthesize(self, code: Tensor) -> Tensor:
        return code

    def _analyze(self, signal: Tensor) -> Tensor:
        return signal


class DctDictionary(Dictionary):
    """The orthonormal cosine transform of the second kind, low frequencies first; ``L log L`` for each channel.

    N. Ahmed, T. Natarajan, K. R. Rao, "Discrete cosine transform" (1974), through one Fourier transform of the same
    length as J. Makhoul, "A fast cosine transform in one and two dimensions" (1980), does it.

    Args:
        length: L.
        atoms: K, at most L, the lowest frequencies; ``None``: L.
    """

    orthonormal: ClassVar[bool] = True

    def __init__(self, length: int, atoms: int | None = None) -> None:
        super().__init__(length, check_basis("DCT", length, atoms))

    def matrix(self) -> Tensor:
        time = torch.arange(self.length, dtype=torch.float64)[:, None] + 0.5
        frequency = torch.arange(self.atoms, dtype=torch.float64)
        return torch.cos(math.pi / self.length * time * frequency) * self._scale(torch.zeros(0, dtype=torch.float64))

    def _scale(self, like: Tensor) -> Tensor:
        """What makes cosines of unit norm, ``[K]``."""
        scale = like.new_full((self.atoms,), math.sqrt(2.0 / self.length))
        scale[0] = math.sqrt(1.0 / self.length)
        return scale

    def _twiddle(self, like: Tensor) -> Tensor:
        """``exp(i pi k / 2L)`` for k from 0 to L - 1, ``[L, 1]``."""
        angle = torch.arange(self.length, dtype=torch.float64, device=like.device) * (math.pi / (2 * self.length))
        return torch.polar(torch.ones_like(angle), angle)[:, None].to(_complex(like.dtype))

    def _analyze(self, signal: Tensor) -> Tensor:
        folded = torch.cat([signal[..., ::2, :], signal[..., 1::2, :].flip(-2)], dim=-2)
        turned = (torch.fft.fft(folded, dim=-2) * self._twiddle(signal).conj()).real
        low: Tensor = turned[..., : self.atoms, :]
        return low * self._scale(signal)[:, None]

    def _synthesize(self, code: Tensor) -> Tensor:
        cosine = code / self._scale(code)[:, None]
        missing = code.new_zeros(*code.shape[:-2], self.length - self.atoms, code.shape[-1])
        cosine = torch.cat([cosine, missing], dim=-2)
        mirrored = torch.cat([torch.zeros_like(cosine[..., :1, :]), cosine[..., 1:, :].flip(-2)], dim=-2)
        folded = torch.fft.ifft(torch.complex(cosine, -mirrored) * self._twiddle(code), dim=-2).real
        # even places, then odd ones from the end
        place = torch.arange(self.length, device=code.device)
        half = torch.where(place % 2 == 0, place // 2, self.length - 1 - place // 2)
        signal: Tensor = folded.index_select(-2, half)
        return signal


class StepDictionary(Dictionary):
    """Steps: atom k is 0 before its start, then constant. A piecewise constant signal takes one for each jump.

    Neighbouring atoms are nearly alike (their product is ``sqrt((L - k - 1) / (L - k))``), so a greedy recovery finds
    jumps a frame or so aside.

    Args:
        length: L.
        atoms: K, at most L, starts spread evenly; ``None``: L, one start at each place.
    """

    def __init__(self, length: int, atoms: int | None = None) -> None:
        super().__init__(length, check_basis("step", length, atoms))

    def _starts(self, device: torch.device | None = None) -> Tensor:
        return torch.arange(self.atoms, device=device) * self.length // self.atoms

    def _heights(self, like: Tensor) -> Tensor:
        """``[K, 1]``: what gives each atom unit norm."""
        return (self.length - self._starts(like.device)).to(like.dtype).rsqrt()[:, None]

    def matrix(self) -> Tensor:
        on = torch.arange(self.length)[:, None] >= self._starts()
        return on * self._heights(torch.zeros(0, dtype=torch.float64)).mT

    def _synthesize(self, code: Tensor) -> Tensor:
        jumps = code.new_zeros(*code.shape[:-2], self.length, code.shape[-1])
        jumps = jumps.index_copy(-2, self._starts(code.device), code * self._heights(code))
        return jumps.cumsum(dim=-2)

    def _analyze(self, signal: Tensor) -> Tensor:
        after = signal.flip(-2).cumsum(dim=-2).flip(-2)  # the sum of all from each place on
        started: Tensor = after.index_select(-2, self._starts(signal.device))
        return started * self._heights(signal)


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype == torch.float64 else torch.complex64
