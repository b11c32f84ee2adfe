"""DCT low-pass and Haar: reconstructions against scipy and dense bases, compressors against their definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct, idct
from torch import Tensor

from csat_fusion.compressors.base import Compressor, make_compressor
from csat_fusion.compressors.transform import dct_lowpass, haar_topk
from csat_fusion.errors import CompressionError

REBUILDS = pytest.mark.parametrize("rebuild", [dct_lowpass, haar_topk])
sizes = {"frames": st.integers(1, 20), "patches": st.integers(1, 4), "seed": st.integers(0, 99)}


def noise(frames: int, patches: int, seed: int, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, patches, width, generator=generator, dtype=torch.float64)


def filled(name: str, budget: int, tokens: Tensor, weight: float = 1.0) -> Compressor:
    compressor = make_compressor(name, budget, keep_assignment=True)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1, weight)
    return compressor


@REBUILDS
@settings(max_examples=30, deadline=None)
@given(**sizes)
def test_all_coefficients_rebuild_the_tokens_and_fewer_never_do_better(rebuild, frames, patches, seed) -> None:  # type: ignore[no-untyped-def]
    tokens = noise(frames, patches, seed)
    errors = [float((rebuild(tokens, keep) - tokens).square().sum()) for keep in range(1, frames * patches + 1)]
    assert errors[-1] == pytest.approx(0, abs=1e-20)
    assert all(more >= fewer - 1e-9 for more, fewer in pairwise(errors))
    # An orthonormal basis: what is kept and what is lost add up.
    kept = float(rebuild(tokens, 1).square().sum())
    assert kept + errors[0] == pytest.approx(float(tokens.square().sum()))


def test_the_low_pass_is_that_of_scipy() -> None:
    tokens = noise(17, 4, 0)
    spectrum = dct(tokens.numpy(), type=2, norm="ortho", axis=0)
    spectrum[5:] = 0
    np.testing.assert_allclose(
        dct_lowpass(tokens, 20).numpy(), idct(spectrum, type=2, norm="ortho", axis=0), atol=1e-12
    )


def test_the_rest_of_the_coefficients_goes_where_the_energy_is() -> None:
    time = torch.arange(8, dtype=torch.float64)
    tokens = torch.zeros(8, 3, 1, dtype=torch.float64)
    tokens[:, 1, 0] = torch.cos(math.pi * (time + 0.5) / 8)
    torch.testing.assert_close(dct_lowpass(tokens, 4), tokens)  # 3 constants, and the first wave of patch 1
    torch.testing.assert_close(dct_lowpass(tokens + 1, 4), tokens + 1)
    assert not torch.allclose(dct_lowpass(tokens + 1, 3), tokens + 1)


@settings(max_examples=30, deadline=None)
@given(
    frames=st.sampled_from([1, 2, 4, 8, 16]), patches=st.integers(1, 3), seed=st.integers(0, 99), share=st.floats(0, 1)
)
def test_the_largest_haar_coefficients_are_those_of_the_dense_basis(
    frames: int, patches: int, seed: int, share: float
) -> None:
    tokens, keep = noise(frames, patches, seed), max(1, round(share * frames * patches))
    rows = [torch.full((frames,), frames**-0.5, dtype=torch.float64)]
    length = frames
    while length > 1:
        for first in range(0, frames, length):
            row = torch.zeros(frames, dtype=torch.float64)
            row[first : first + length // 2], row[first + length // 2 : first + length] = -1, 1
            rows.append(row / length**0.5)
        length //= 2
    basis = torch.stack(rows)
    coefficients = torch.einsum("kt,tpd->kpd", basis, tokens)
    energy = coefficients.square().sum(dim=-1).flatten()
    kept = torch.zeros_like(energy)
    kept[energy.topk(keep).indices] = 1
    coefficients = coefficients * kept.reshape(frames, patches, 1)
    torch.testing.assert_close(haar_topk(tokens, keep), torch.einsum("kt,kpd->tpd", basis, coefficients))


@REBUILDS
def test_gradients_pass_and_types_are_kept(rebuild) -> None:  # type: ignore[no-untyped-def]
    tokens = noise(6, 2, 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rebuild(x, 5), [tokens])
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        got = rebuild(tokens.detach().to(dtype), 12)
        assert got.dtype == dtype
        torch.testing.assert_close(got, tokens.detach().to(dtype))
    large = torch.full((5, 1, 1), 65504.0, dtype=torch.float16)
    large[2:] = -65504.0
    for keep in range(1, 6):
        assert bool(torch.isfinite(rebuild(large, keep)).all())


@REBUILDS
def test_bad_input_is_named(rebuild) -> None:  # type: ignore[no-untyped-def]
    good = noise(4, 2, 0)
    for keep in (0, 9, 2.0, True):
        with pytest.raises(CompressionError, match=f"from 1 to 8, got {keep}"):
            rebuild(good, keep)
    with pytest.raises(CompressionError, match=r"\[T, P, d\], each at least 1, got torch\.float64 \[4, 2\]"):
        rebuild(good[..., 0], 1)
    with pytest.raises(CompressionError, match=r"got torch\.int64"):
        rebuild(good.long(), 1)
    with pytest.raises(CompressionError, match="got NaN or infinity"):
        rebuild(torch.where(good > 0, good, math.nan), 1)


@settings(max_examples=30, deadline=None)
@given(**sizes, budget=st.integers(1, 80))
def test_dct_tokens_are_the_coefficients_in_another_form(frames: int, patches: int, seed: int, budget: int) -> None:
    """A DCT of a patch's k tokens, filled up with zeros to T, is the low-passed signal."""
    tokens = noise(frames, patches, seed)
    budget = min(max(budget, patches), frames * patches)
    compressor = filled("dct", budget, tokens)
    got, expected = compressor.result(), dct_lowpass(tokens, budget)
    assignment = compressor.assignment().reshape(frames, patches)
    for p in range(patches):
        mine = got.tokens[torch.unique(assignment[:, p])].numpy()
        spectrum = np.zeros((frames, 3))
        spectrum[: len(mine)] = dct(mine, type=2, norm="ortho", axis=0) * math.sqrt(frames / len(mine))
        rebuilt = idct(spectrum, type=2, norm="ortho", axis=0)
        np.testing.assert_allclose(rebuilt, expected[:, p].numpy(), atol=1e-9)


def test_dct_tokens_fit_their_type() -> None:
    tokens = torch.full((12, 1, 1), 65504.0, dtype=torch.float16)
    tokens[6:] = -65504.0
    got = filled("dct", 4, tokens).result().tokens
    assert bool(torch.isfinite(got).all())
    assert got.amax() == 65504.0


def greedy(tokens: Tensor, budget: int) -> set[tuple[int, int, int]]:
    """Halving the piece ``(patch, first, last)`` with the largest squared error, one after the other."""
    frames, patches = tokens.shape[:2]

    def held(piece: tuple[int, int, int, int, int]) -> float:
        p, first, last, *_ = piece
        return float((tokens[first:last, p] - tokens[first:last, p].mean(dim=0)).square().sum())

    pieces = [(p, 0, frames, 0, 0) for p in range(patches)]  # level and number say where its middle is
    while len(pieces) < budget:
        worst = max((piece for piece in pieces if piece[2] - piece[1] > 1), key=held)
        pieces.remove(worst)
        p, first, last, level, number = worst
        while True:
            cut = (2 * number + 1) * frames // 2 ** (level + 1)
            if first < cut < last:
                break
            level, number = level + 1, 2 * number + (cut <= first)
        pieces += [(p, first, cut, level + 1, 2 * number), (p, cut, last, level + 1, 2 * number + 1)]
    return {piece[:3] for piece in pieces}


@settings(max_examples=40, deadline=None)
@given(**sizes, budget=st.integers(1, 80))
def test_haar_pieces_are_those_of_halving_the_worst(frames: int, patches: int, seed: int, budget: int) -> None:
    tokens = noise(frames, patches, seed)
    budget = min(max(budget, patches), frames * patches)
    got = filled("haar", budget, tokens).result()
    found = {
        (int(p), int(first), int(last))
        for p, first, last in zip(got.patch, got.start_seconds, got.end_seconds, strict=True)
    }
    assert found == greedy(tokens, budget)


def test_haar_finds_a_short_event_below_a_balanced_half() -> None:
    """The event and its opposite cancel in the coefficients above them; the energy below still leads there."""
    tokens = torch.zeros(16, 2, 1)
    tokens[5, 0], tokens[6, 0] = 3.0, -3.0
    got = filled("haar", 8, tokens).result()
    assert float(got.tokens.max()) == 3.0
    assert float(got.tokens.min()) == -3.0


def test_weights_of_frames_count_in_haar() -> None:
    tokens = torch.zeros(4, 2, 1)
    tokens[0, 0], tokens[2:, 1] = 1.0, 0.9
    even, heavy = make_compressor("haar", 3), make_compressor("haar", 3)
    for t in range(4):
        even.update(tokens[t], t, t + 1)
        heavy.update(tokens[t], t, t + 1, 100.0 if t == 0 else 1.0)
    assert sorted(even.result().patch.tolist()) == [0, 1, 1]
    assert sorted(heavy.result().patch.tolist()) == [0, 0, 1]
    assert heavy.result().tokens[heavy.result().patch == 0].flatten().tolist() == pytest.approx([100 / 101, 0.0])


@pytest.mark.parametrize("name", ["dct", "haar"])
def test_below_one_frame_patches_are_pooled(name: str) -> None:
    tokens = noise(5, 4, 1)
    got = filled(name, 2, tokens).result()
    columns = tokens.reshape(5, 2, 2, 3).mean(dim=(0, 1))
    torch.testing.assert_close(got.tokens, columns)
    assert got.weight.tolist() == [10.0, 10.0]
