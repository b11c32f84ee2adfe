"""The subsampled randomised Hadamard transform: random signs, a fast transform, some of its rows.

N. Ailon, B. Chazelle, "Approximate nearest neighbors and the fast Johnson-Lindenstrauss transform" (2006); J. A. Tropp,
"Improved analysis of the subsampled randomized Hadamard transform" (2011, arXiv 1011.1595)::

    Phi = R H D / sqrt(m)     D random signs, H the Hadamard matrix of entries 1 and -1, R picks m of its N rows

so that the expectation of ``|Phi x|^2`` over seeds is ``|x|^2``. The transform costs ``N log N`` for each of the d
channels, N being n rounded up to a power of two (the tokens missing are zero); H is never written down.

Shapes: n columns (tokens or frames), N the power of two that holds them, m rows, d width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement, add_rows
from csat_fusion.measurements.hashing import checked_seed, hash_bits, sign

__all__ = ["HadamardMeasurement", "walsh_hadamard"]

_SIGN_KEY, _ROW_KEY = 0, 1  # two independent streams of one seed


class HadamardMeasurement(Measurement):
    """The subsampled randomised Hadamard transform; see the module.

    Args:
        rows: m, at most N.
        columns: n.
        seed: whole number from 0 to 2^63 - 1.

    Raises:
        CompressionError: m is above N, the number of rows that the transform has.
    """

    def __init__(self, rows: int, columns: int, *, seed: int = 0) -> None:
        super().__init__(rows, columns)
        self.seed = checked_seed(seed)
        self.length = 1 << (columns - 1).bit_length()
        if rows > self.length:
            raise CompressionError(
                f"a Hadamard measurement of {columns} columns has at most {self.length} rows, got {rows}"
            )

    def block(self, start: int, stop: int) -> Tensor:
        self._check_columns(start, stop)
        column = torch.arange(start, stop)
        cpu = torch.device("cpu")
        return _hadamard_entries(self._picked(cpu)[:, None], column) * self._signs(start, stop, cpu)

    def _signs(self, start: int, stop: int, device: torch.device) -> Tensor:
        """The diagonal of D at ``start`` to ``stop``, over ``sqrt(m)``; float64."""
        key = torch.full((), _SIGN_KEY, device=device)
        return sign(hash_bits(self.seed, key, torch.arange(start, stop, device=device))) * (1.0 / math.sqrt(self.rows))

    def _picked(self, device: torch.device) -> Tensor:
        """The m rows of H ``[m]``: those whose hashes are least, in order."""
        key = torch.full((), _ROW_KEY, device=device)
        order = hash_bits(self.seed, key, torch.arange(self.length, device=device)).argsort(stable=True)
        return order[: self.rows].sort().values

    def _apply_to(self, tokens: Tensor, start: int) -> Tensor:
        count = tokens.shape[-2]
        signed = tokens * self._signs(start, start + count, tokens.device).to(tokens.dtype)[:, None]
        padded = pad(signed, (0, 0, start, self.length - start - count))
        return walsh_hadamard(padded).index_select(-2, self._picked(tokens.device))

    def _apply_adjoint(self, measured: Tensor, start: int, stop: int) -> Tensor:
        lead, width = measured.shape[:-2], measured.shape[-1]
        flat = measured.movedim(-2, 0).reshape(self.rows, -1)
        spread = add_rows(flat.new_zeros(self.length, flat.shape[1]), self._picked(measured.device), flat)
        spread = spread.reshape(self.length, *lead, width).movedim(0, -2)
        signs = self._signs(start, stop, measured.device).to(measured.dtype)[:, None]
        return walsh_hadamard(spread)[..., start:stop, :] * signs

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, seed={self.seed}"


def walsh_hadamard(tokens: Tensor) -> Tensor:
    """``H X`` for ``[..., N, d]``, H ``[N, N]`` of entries 1 and -1 in the natural order; N a power of two.

    H of ``2^a`` is a Kronecker product of small ones, so each pass multiplies one digit of the row number by the matrix
    of 16 (or what is left): ``log16 N`` passes through memory where butterflies take ``log2 N``.

    Raises:
        CompressionError: N is no power of two.
    """
    length = tokens.shape[-2]
    if length < 1 or length & (length - 1):
        raise CompressionError(f"the Hadamard transform takes a power of two of rows, got {length}")
    lead, width = tokens.shape[:-2], tokens.shape[-1]
    done = 1  # product of the digits that are transformed
    while done < length:
        radix = min(16, length // done)
        number = torch.arange(radix, device=tokens.device)
        small = _hadamard_entries(number[:, None], number).to(tokens.dtype)
        digits = tokens.reshape(*lead, length // (done * radix), radix, done * width)
        tokens = (small @ digits).reshape(*lead, length, width)
        done *= radix
    return tokens


def _hadamard_entries(row: Tensor, column: Tensor) -> Tensor:
    """Entries of H in float64: 1 where row and column share an even number of bits, else -1."""
    shared = row & column
    for by in (32, 16, 8, 4, 2, 1):
        shared = shared ^ (shared >> by)
    return (1 - 2 * (shared & 1)).to(torch.float64)
