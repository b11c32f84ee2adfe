"""The random choice: even, seeded, and the others at the nearest kept token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion.compressors.random import RandomCompressor
from csat_fusion.errors import CompressionError

# [frame, patch] of the five tokens that seed 3 chooses of 36: the same on every machine
PINNED = [[0, 0], [5, 2], [6, 1], [7, 3], [8, 0]]


def filled(budget: int, frames: int, patches: int, **options: Any) -> RandomCompressor:
    compressor = RandomCompressor(budget, keep_assignment=True, **options)
    for t in range(frames):
        place = torch.stack([torch.full((patches,), float(t)), torch.arange(float(patches))], dim=1)
        compressor.update(place, t * (1 + 0.1 * t), t * (1 + 0.1 * t) + 1)
    return compressor


def test_every_token_is_as_likely_as_another() -> None:
    count = torch.zeros(6, 4)
    for seed in range(600):
        frame, patch = filled(6, 6, 4, seed=seed).result().tokens.long().T
        count[frame, patch] += 1
    # 600 draws of a quarter: mean 150, standard deviation 10.6
    assert float(count.sum()) == 3600
    assert float(count.min()) > 150 - 5 * 10.6
    assert float(count.max()) < 150 + 5 * 10.6


def test_the_seed_alone_decides_and_the_global_state_stays() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    chosen = filled(5, 9, 4, seed=3).result().tokens
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert torch.equal(chosen, filled(5, 9, 4, seed=3).result().tokens)
    assert not torch.equal(chosen, filled(5, 9, 4, seed=4).result().tokens)
    assert sorted(chosen.tolist()) == PINNED


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 10), rows=st.integers(1, 3), columns=st.integers(1, 3), m=st.integers(1, 12))
def test_the_others_go_to_the_nearest(frames: int, rows: int, columns: int, m: int) -> None:
    patches = rows * columns
    m = min(m, frames * patches)
    compressor = filled(m, frames, patches, seed=m, grid=(rows, columns))
    got, assignment = compressor.result(), compressor.assignment().reshape(frames, patches)
    kept = [(int(t), int(p)) for t, p in got.tokens]

    def far(t: int, p: int, other: tuple[int, int]) -> tuple[int, int, float, int]:
        s, q = other
        square = (p // columns - q // columns) ** 2 + (p % columns - q % columns) ** 2
        return square, q, abs(t * (1 + 0.1 * t) - s * (1 + 0.1 * s)), s

    for t in range(frames):
        for p in range(patches):
            assert kept[int(assignment[t, p])] == min(kept, key=lambda other: far(t, p, other))


def test_bad_seeds_are_named() -> None:
    for seed in (-1, 1.5, True, 2**63):
        with pytest.raises(CompressionError, match=f"from 0 to 2\\*\\*63 - 1, got {seed}"):
            RandomCompressor(4, seed=seed)  # type: ignore[arg-type]
