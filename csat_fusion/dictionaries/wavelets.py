"""Haar wavelets for any length, and a form of them that learns: an orthonormal tree of rotations.

Bottom up, two neighbours at a time become one coarse number and one detail; where a level has an odd number, its last
goes up as it is. For neighbours that stand for l and r places::

    coarse = cos(a) first + sin(a) second        detail = sin(a) first - cos(a) second        tan(a) = sqrt(r / l)

With that angle a constant signal has no detail (A. Haar, 1910, for lengths that are powers of two). Any other angles
give an orthonormal basis too, which is what the learnable form uses.

Shapes: L length of the signal, K atoms, d channels that share the axis.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.dictionaries.base import Dictionary, check_basis

__all__ = ["HaarDictionary", "LearnableHaarDictionary"]


class HaarDictionary(Dictionary):
    """The orthonormal Haar basis, coarse to fine: the mean, then the widest wavelet, ..., then the narrowest.

    Args:
        length: L, any.
        atoms: K, at most L, the coarsest; ``None``: L.
    """

    orthonormal: ClassVar[bool] = True

    def __init__(self, length: int, atoms: int | None = None) -> None:
        super().__init__(length, check_basis("Haar", length, atoms))
        self._angles = _haar_angles(length)  # a plain list: it is the same for every copy, and no state

    def matrix(self) -> Tensor:
        return self._synthesize(torch.eye(self.atoms, dtype=torch.float64))

    def _rotations(self, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each level, finest first, cosine and sine of its pairs, each ``[pairs, 1]``."""
        levels = [angle.to(like.device) for angle in self._angles]
        return [(angle.cos().to(like.dtype)[:, None], angle.sin().to(like.dtype)[:, None]) for angle in levels]

    def _analyze(self, signal: Tensor) -> Tensor:
        details = []
        for cosine, sine in self._rotations(signal):
            pairs = len(cosine)
            first, second = signal[..., 0 : 2 * pairs : 2, :], signal[..., 1 : 2 * pairs : 2, :]
            details.append(sine * first - cosine * second)
            signal = torch.cat([cosine * first + sine * second, signal[..., 2 * pairs :, :]], dim=-2)
        return torch.cat([signal, *reversed(details)], dim=-2)[..., : self.atoms, :]

    def _synthesize(self, code: Tensor) -> Tensor:
        missing = code.new_zeros(*code.shape[:-2], self.length - self.atoms, code.shape[-1])
        code = torch.cat([code, missing], dim=-2)
        signal, at = code[..., :1, :], 1
        for cosine, sine in reversed(self._rotations(code)):
            pairs = len(cosine)
            coarse, odd = signal[..., :pairs, :], signal[..., pairs:, :]
            detail = code[..., at : at + pairs, :]
            at += pairs
            both = torch.stack([cosine * coarse + sine * detail, sine * coarse - cosine * detail], dim=-2)
            signal = torch.cat([both.flatten(-3, -2), odd], dim=-2)
        return signal


class LearnableHaarDictionary(HaarDictionary):
    """The same tree with angles that are learnt, beginning at Haar: orthonormal whatever they become.

    In the manner of A. Kiruluta, P. Burity, S. Williams, "Learnable multi-scale wavelet transformer: a novel
    alternative to self-attention" (2025, arXiv 2504.08801), where each scale learns its two coefficients; there
    they are free, here they lie on a circle, so that synthesis stays the inverse of analysis.

    Args:
        length: L.
        atoms: K, at most L, the coarsest; ``None``: L.
        shared: one learnt angle a level (about ``log2 L``); otherwise one for each pair (``L - 1``).
    """

    def __init__(self, length: int, atoms: int | None = None, *, shared: bool = True) -> None:
        super().__init__(length, atoms)
        self.shared = shared
        # What is added to Haar's angles, in radians.
        counts = [1 if shared else len(angle) for angle in self._angles]
        self._counts = counts
        self.turn = nn.Parameter(torch.zeros(sum(counts)))

    def matrix(self) -> Tensor:
        return self._synthesize(torch.eye(self.atoms, dtype=compute_dtype(self.turn.dtype), device=self.turn.device))

    def _rotations(self, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        turns = torch.split(self.turn.to(like), self._counts)
        angles = [angle.to(like) + turn for angle, turn in zip(self._angles, turns, strict=True)]
        return [(angle.cos()[:, None], angle.sin()[:, None]) for angle in angles]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, shared={self.shared}"


def _haar_angles(length: int) -> list[Tensor]:
    """Haar's angle for each pair of each level, finest first, in float64."""
    sizes, angles = [1] * length, []
    while len(sizes) > 1:
        firsts, seconds = sizes[0 : len(sizes) - 1 : 2], sizes[1::2]
        pairs = list(zip(firsts, seconds, strict=True))
        angles.append(
            torch.tensor([math.atan2(math.sqrt(right), math.sqrt(left)) for left, right in pairs], dtype=torch.float64)
        )
        sizes = [left + right for left, right in pairs] + sizes[2 * len(pairs) :]
    return angles
