"""Batches: results do not depend on them, and a full device halves them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders import Encoder, load_encoder
from encoders.batching import Batches, cpu_batch_size, cuda_batch_size
from encoders.errors import OutOfDeviceMemory
from tests.encoders.models import pictures, write_config

FRAMES = pictures(12, seed=3)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    path = write_config(tmp_path_factory.mktemp("models"), "vit")
    return load_encoder(f"openclip:{path}/random", device="cpu", precision=request.param)


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 12), max_size=4), size=st.integers(1, 16))
def test_any_chunking_gives_the_same(encoder: Encoder, cuts: list[int], size: int) -> None:
    whole = encoder.encode(FRAMES, tokens=True)
    encoder._batches.size = size  # type: ignore[attr-defined]
    edges = [0, *sorted(cuts), 12]
    parts = [encoder.encode(FRAMES[a:b], tokens=True) for a, b in itertools.pairwise(edges)]
    embedding = torch.cat([p.embedding for p in parts])
    tokens = torch.cat([p.tokens for p in parts if p.tokens is not None])
    assert whole.tokens is not None
    if encoder.info.precision == "fp32":
        torch.testing.assert_close(embedding, whole.embedding, atol=1e-5, rtol=0)
        torch.testing.assert_close(tokens, whole.tokens, atol=1e-4, rtol=0)
    else:
        assert float((embedding * whole.embedding).sum(-1).min()) >= 0.9999
        assert float(torch.nn.functional.cosine_similarity(tokens, whole.tokens, dim=-1).min()) >= 0.999


@settings(max_examples=50)
@given(count=st.integers(0, 200), size=st.integers(1, 64), room=st.integers(1, 64))
def test_every_frame_is_done_once_whatever_fits(count: int, size: int, room: int) -> None:
    batches, done = Batches(size), np.zeros(count, int)

    def step(start: int, stop: int) -> None:
        if stop - start > room:
            raise torch.cuda.OutOfMemoryError("full")
        done[start:stop] += 1

    batches.run(count, step)
    assert (done == 1).all()
    assert batches.size <= max(size, 1)
    if count > room:
        assert batches.size <= max(size, room)


def test_when_not_one_frame_fits_it_says_so() -> None:
    def step(start: int, stop: int) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfDeviceMemory, match="not even one frame"):
        Batches(16).run(4, step)


def test_automatic_sizes_stay_in_their_bounds() -> None:
    assert cpu_batch_size(49) == 16  # ViT-B-32
    assert cpu_batch_size(256) == 8
    assert cpu_batch_size(0) == 64
    assert cuda_batch_size(50e6, 80 * 10**9) == 512
    assert cuda_batch_size(50e6, 4 * 10**9) == 32
    assert cuda_batch_size(50e6, 10**6) == 1
