"""Sinusoids whose frequencies are learnt.

In the manner of A. Kiruluta, "From attention to atoms: spectral dictionary learning for fast, interpretable language
models" (2025, arXiv 2505.00033), where each atom has a learnt frequency, phase and amplitude. Here a pair of cosine and
sine carries the phase, and the code the amplitude, so atoms keep unit norm.

Shapes: L length of the signal, K atoms, J pairs, d channels that share the axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.dictionaries.base import Dictionary
from csat_fusion.errors import CompressionError

__all__ = ["SpectralDictionary"]

# Frequencies stay this far from 0 and 1/2, where one of a pair would be zero everywhere.
_MARGIN = 1e-4


class SpectralDictionary(Dictionary):
    """A constant, then sine and cosine of each learnt frequency; where K is even, the last has the sine alone.

    Times are counted from the middle, so the two of a pair are orthogonal. Frequencies, in cycles a frame, lie between
    0 and 1/2 and begin at ``j / max(L, 2 J + 1)``: with K = L odd, that is the orthonormal Fourier basis. The sine is
    the one to stand alone, as a constant and cosines of every frequency would depend on each other.

    Args:
        length: L, at least 2 where there is more than one atom.
        atoms: K; may exceed L. ``None``: L.
    """

    def __init__(self, length: int, atoms: int | None = None) -> None:
        super().__init__(length, length if atoms is None else atoms)
        if length == 1 and self.atoms > 1:
            raise CompressionError(f"a spectral dictionary of length 1 has 1 atom, got {self.atoms}")
        pairs = self.atoms // 2
        first = torch.arange(1, pairs + 1, dtype=torch.float64) / max(length, 2 * pairs + 1)
        # what `frequency` undoes
        self.raw = nn.Parameter(torch.logit((first - _MARGIN) / (0.5 - 2 * _MARGIN)).float())

    @property
    def frequency(self) -> Tensor:
        """``[J]``, cycles a frame, between 0 and 1/2."""
        return _MARGIN + (0.5 - 2 * _MARGIN) * self.raw.to(compute_dtype(self.raw.dtype)).sigmoid()

    def matrix(self) -> Tensor:
        frequency = self.frequency
        time = torch.arange(self.length, dtype=frequency.dtype, device=frequency.device) - (self.length - 1) / 2
        angle = 2 * math.pi * time[:, None] * frequency
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, : self.atoms - 1]
        psi = torch.cat([torch.ones_like(time)[:, None], waves], dim=1)
        unit: Tensor = psi / torch.linalg.vector_norm(psi, dim=0)
        return unit
