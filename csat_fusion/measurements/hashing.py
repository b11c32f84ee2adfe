"""Random numbers without a state: each is a hash of a seed and its place, so any part of a matrix can be made alone.

The hash is the output function of SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), run over the seed and the keys one after the other. It works in whole numbers that wrap
around, so it is the same on every machine and device. What follows from it uses only additions, multiplications,
divisions and square roots, one at a time, which IEEE 754 rounds in one way only; a library's ``log`` or ``cos`` may
differ in the last bit between machines, and would change the matrix with them.

Shapes: keys are int64 tensors that broadcast; results have the shape that they broadcast to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError

__all__ = ["checked_seed", "choose", "hash_bits", "normal_pair", "sign", "uniform"]

_LARGEST = 2**63 - 1


def _signed(value: int) -> int:
    """64 bits as the whole number with a sign that int64 holds."""
    value &= 2**64 - 1
    return value - 2**64 if value > _LARGEST else value


_STEP = _signed(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def checked_seed(seed: int) -> int:
    """``seed`` where it is a whole number from 0 to 2^63 - 1.

    Raises:
        CompressionError: it is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _LARGEST:
        raise CompressionError(f"a seed must be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return seed


def hash_bits(seed: int, *keys: Tensor) -> Tensor:
    """64 random bits as int64 for each element of the keys, which broadcast; the order of the keys matters."""
    if not keys:
        raise CompressionError("a hash needs at least one key, got none")
    state = _mix(torch.full((), _signed(seed + _STEP), dtype=torch.int64, device=keys[0].device))
    for key in keys:
        state = _mix(state + (key + 1) * _STEP)
    return state


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift(bits, 30)) * _MIX_1
    bits = (bits ^ _shift(bits, 27)) * _MIX_2
    return bits ^ _shift(bits, 31)


def _shift(bits: Tensor, by: int) -> Tensor:
    """A shift to the right that fills with zeros, which int64 by itself does not."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def sign(bits: Tensor, position: Tensor | int = 0) -> Tensor:
    """1 or -1 in float64, from the bit at ``position`` (0 to 63); the bits of one hash are independent."""
    return (1 - 2 * ((bits >> position) & 1)).to(torch.float64)


def uniform(bits: Tensor) -> Tensor:
    """A number in ``[0, 1)`` in float64, from the upper 53 bits."""
    return _shift(bits, 11).to(torch.float64) * 2.0**-53


def choose(bits: Tensor, count: int) -> Tensor:
    """A whole number from 0 to ``count - 1``; the bias is below ``count / 2^63``."""
    return _shift(bits, 1) % count


def normal_pair(bits: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normal numbers in float64 from one hash, no larger than 6.7 in size.

    The transform of G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates" (1958), with
    logarithm and circle computed to 1e-10 from the four basic operations; the uniform numbers have 32 bits each.
    """
    radius = (-2.0 * _log((_shift(bits, 32).to(torch.float64) + 0.5) * 2.0**-32)).sqrt()
    cosine, sine = _circle((bits & 0xFFFFFFFF).to(torch.float64) * 2.0**-32)
    return radius * cosine, radius * sine


def _log(value: Tensor) -> Tensor:
    """The natural logarithm of numbers above 0, to 1e-10: ``2 artanh((x - 1) / (x + 1))`` with x near 1."""
    fraction, exponent = torch.frexp(value)  # exact: fraction in [0.5, 1)
    low = (fraction < 0.7071067811865476).to(torch.float64)  # as a factor: torch.where is slow on random choices
    fraction = fraction * (1.0 + low)
    power = exponent.to(torch.float64) - low
    ratio = (fraction - 1.0) / (fraction + 1.0)  # at most 0.172 in size
    square = ratio * ratio
    series = _polynomial(square, [1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0])
    return power * 0.6931471805599453 + 2.0 * (ratio * series)


def _circle(turn: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``turn`` in [0, 1) of a full turn, to 1e-10: a series, then symmetry."""
    quarter = torch.floor(turn * 4.0 + 0.5)
    angle = (turn - quarter * 0.25) * 6.283185307179586  # at most pi / 4 in size
    square = angle * angle
    sine = angle * _polynomial(square, [-1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0])
    cosine = _polynomial(square, [1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0])
    quarter = quarter.to(torch.int64)
    odd = (quarter & 1).to(torch.float64)
    even = 1.0 - odd
    along, across = cosine * even + sine * odd, sine * even + cosine * odd
    return along * sign(quarter + 1, 1), across * sign(quarter, 1)


def _polynomial(value: Tensor, coefficients: list[float]) -> Tensor:
    """Horner's scheme, the highest power first; each step rounds by itself, never fused."""
    result = torch.full_like(value, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * value + coefficient
    return result
