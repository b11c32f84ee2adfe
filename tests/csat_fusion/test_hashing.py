from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from csat_fusion.measurements.hashing import choose, hash_bits, normal_pair, sign, uniform


def splitmix64(state: int, count: int) -> list[int]:
    """The generator as its authors give it, in whole numbers of any size."""
    out = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        bits = state
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
        out.append(bits ^ (bits >> 31))
    return out


def test_the_reference_is_splitmix64() -> None:
    # the check value that ports of the generator are tested with
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("seed", [0, 42, 2**63 - 1])
def test_a_hash_is_splitmix64_begun_at_the_hash_of_what_comes_before(seed: int) -> None:
    first = splitmix64(splitmix64(seed, 1)[0], 5)
    got = hash_bits(seed, torch.arange(5))
    assert [bits % 2**64 for bits in got.tolist()] == first
    second = hash_bits(seed, torch.tensor([[3]]), torch.arange(4))
    assert [bits % 2**64 for bits in second[0].tolist()] == splitmix64(first[3], 4)


def test_the_bits_of_a_hash_are_fair_and_neighbours_independent() -> None:
    bits = hash_bits(7, torch.arange(300)[:, None], torch.arange(400))
    signs = torch.stack([sign(bits, k) for k in range(64)])
    assert float(signs.mean(dim=(1, 2)).abs().max()) < 5 / math.sqrt(120_000)
    for other in (signs.roll(1, 0), signs.roll(1, 1), signs.roll(1, 2)):
        assert float((signs * other).mean(dim=(1, 2)).abs().max()) < 5 / math.sqrt(120_000)


def test_numbers_from_hashes_have_their_distributions() -> None:
    bits = hash_bits(3, torch.arange(100_000))
    even = uniform(bits)
    assert 0 <= float(even.min()) <= float(even.max()) < 1
    assert scipy.stats.kstest(even.numpy(), "uniform").pvalue > 0.01
    assert scipy.stats.chisquare(torch.bincount(choose(bits, 7), minlength=7).numpy()).pvalue > 0.01
    first, second = normal_pair(bits)
    for numbers in (first, second, (first + second) / math.sqrt(2)):
        assert scipy.stats.kstest(numbers.numpy(), "norm").pvalue > 0.01
    assert abs(float(np.corrcoef(first.abs(), second.abs())[0, 1])) < 5 / math.sqrt(100_000)


def test_normal_numbers_are_box_muller_of_the_halves_of_a_hash() -> None:
    bits = torch.cat([hash_bits(1, torch.arange(2000)), torch.tensor([0, -1, 2**32 - 1, -(2**32), 2**29, 3 << 29])])
    high = torch.tensor([(b % 2**64) >> 32 for b in bits.tolist()], dtype=torch.float64)
    low = torch.tensor([b % 2**32 for b in bits.tolist()], dtype=torch.float64)
    radius, angle = (-2 * ((high + 0.5) / 2**32).log()).sqrt(), 2 * math.pi * low / 2**32
    first, second = normal_pair(bits)
    torch.testing.assert_close(first, radius * angle.cos(), rtol=0, atol=1e-9)
    torch.testing.assert_close(second, radius * angle.sin(), rtol=0, atol=1e-9)
    assert bool(torch.isfinite(first).all())
