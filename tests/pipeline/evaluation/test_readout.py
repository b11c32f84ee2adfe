"""Embeddings come back out of token sets: exactly where nothing was lost, and worse the more was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from csat_fusion import TokenSet, make_compressor
from encoders import EncoderInfo
from pipeline.errors import InputError
from pipeline.evaluation.readout import TokenReadout, fit_readout, token_means
from pipeline.evaluation.tape import Tape
from pipeline.ingest import IngestOptions
from tests.pipeline.evaluation.colours import ColourModel


def tape_of(tokens: np.ndarray | None, embedding: np.ndarray, folder: Path = Path("nowhere")) -> Tape:
    info: EncoderInfo = ColourModel().info
    return Tape(info, IngestOptions(), folder, (), embedding.astype(np.float32), tokens)


def drawn(frames: int, width: int, dimension: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens ``[T, 4, d]`` and unit embeddings that are linear in their mean, but for ``noise``."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((frames, 4, width)).astype(np.float32) + 1
    embedding = tokens.mean(1) @ rng.standard_normal((width, dimension)) + 0.5
    embedding += noise * rng.standard_normal(embedding.shape)
    return tokens, embedding / np.linalg.norm(embedding, axis=1, keepdims=True)


def test_the_map_is_found_where_there_is_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((400, 4, 6)).astype(np.float32)
    matrix, offset = rng.standard_normal((6, 5)), rng.standard_normal(5)
    readout = fit_readout(tape_of(tokens, tokens.mean(1) @ matrix + offset))
    np.testing.assert_allclose(readout.matrix, matrix, atol=1e-3)
    np.testing.assert_allclose(readout.offset, offset, atol=1e-3)
    assert readout.cosine == pytest.approx(1.0, abs=1e-5)


def test_noise_is_not_learnt_by_heart() -> None:
    """With more numbers than frames a map without penalty would fit anything; the left-out frames decide."""
    tokens, embedding = drawn(60, 50, 8, noise=6.0)
    fresh_tokens, fresh = drawn(2000, 50, 8, noise=0.0)
    rng = np.random.default_rng(0)
    rng.standard_normal((60, 4, 50))
    matrix = rng.standard_normal((50, 8))  # that of the 60
    fresh = fresh_tokens.mean(1) @ matrix + 0.5
    fresh /= np.linalg.norm(fresh, axis=1, keepdims=True)
    chosen = fit_readout(tape_of(tokens, embedding))
    x = tokens.mean(1) - tokens.mean((0, 1))
    by_heart = np.linalg.lstsq(x.astype(np.float64), embedding - embedding.mean(0), rcond=None)[0]

    def right(matrix: np.ndarray) -> float:
        made = TokenReadout(matrix, embedding.mean(0) - tokens.mean((0, 1)) @ matrix, 0.0).embed(fresh_tokens.mean(1))
        return float((made * fresh).sum(1).mean())

    assert right(chosen.matrix) > right(by_heart) + 0.05


def test_a_tape_that_cannot_be_read() -> None:
    tokens, embedding = drawn(1, 3, 3, 0)
    for given in (tape_of(None, embedding), tape_of(tokens, embedding)):
        with pytest.raises(InputError, match="a tape with tokens of two frames or more"):
            fit_readout(given)


def test_constant_tokens_give_the_mean_embedding() -> None:
    embedding = np.eye(3)[[0, 1, 1, 1]]
    readout = fit_readout(tape_of(np.ones((4, 2, 5), np.float32), embedding))
    np.testing.assert_allclose(readout.embed(np.ones((1, 5)))[0], np.array([1, 3, 0]) / np.sqrt(10), atol=1e-6)


def test_all_tokens_give_the_means_of_their_frames() -> None:
    tokens = torch.from_numpy(drawn(6, 3, 3, 0)[0])
    start = np.array([0, 1, 2, 4, 4.5, 9.0])
    end = np.array([1, 2, 4, 4.5, 9, 10.0])
    weight = [2.0, 1, 3, 1, 8, 1]
    for name, budget in (("identity", None), ("ward", 24)):
        compressor = make_compressor(name, budget)
        for i in range(6):
            compressor.update(tokens[i], start[i], end[i], weight=weight[i])
        np.testing.assert_allclose(token_means(compressor.result(), start, end), tokens.mean(1), atol=1e-5)


def test_times_that_no_token_covers_take_the_nearest_and_weight_counts() -> None:
    kept = TokenSet(
        tokens=torch.tensor([[1.0], [3.0], [10.0]]),
        weight=torch.tensor([1.0, 3.0, 1.0]),
        start_seconds=torch.tensor([0.0, 0.0, 8.0], dtype=torch.float64),
        end_seconds=torch.tensor([2.0, 2.0, 9.0], dtype=torch.float64),
        patch=torch.tensor([-1, -1, -1]),
    )
    found = token_means(kept, np.array([0.0, 3, 6, 8]), np.array([2.0, 4, 8, 9]))
    assert found[:, 0].tolist() == pytest.approx([2.5, 2.5, 10, 10])
    # A token that stands for the same over twice the time says half as much at each time.
    longer = TokenSet(
        tokens=torch.tensor([[0.0], [3.0]]),
        weight=torch.tensor([2.0, 2.0]),
        start_seconds=torch.tensor([0.0, 0.0], dtype=torch.float64),
        end_seconds=torch.tensor([1.0, 2.0], dtype=torch.float64),
        patch=torch.tensor([-1, -1]),
    )
    assert token_means(longer, np.array([0.0]), np.array([1.0]))[0, 0] == pytest.approx(1.0)
