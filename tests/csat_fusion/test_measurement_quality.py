from __future__ import annotations

import math

import pytest
import torch

from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import make_measurement
from csat_fusion.measurements.quality import mutual_coherence, restricted_isometry


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_coherence_of_known_matrices() -> None:
    assert mutual_coherence(torch.eye(5)) == 0
    assert mutual_coherence(torch.tensor([[3.0], [4.0]])) == 0
    assert mutual_coherence(torch.tensor([[1.0, 1.0], [0.0, 1.0]])) == pytest.approx(math.sqrt(0.5))
    assert mutual_coherence(torch.tensor([[1.0, 0.0, -7.0], [2.0, 1.0, -14.0]])) == pytest.approx(1.0)
    turned = torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3  # three directions of a plane, as far apart as can be
    assert mutual_coherence(torch.stack([turned.cos(), turned.sin()])) == pytest.approx(0.5, abs=1e-6)
    wide = normal(6, 2500)
    unit = wide / wide.norm(dim=0)
    product = (unit.T @ unit).abs().fill_diagonal_(0)
    assert mutual_coherence(wide.float()) == pytest.approx(float(product.max()), abs=1e-6)
    with pytest.raises(CompressionError, match="column 1 is zero"):
        mutual_coherence(torch.tensor([[1.0, 0.0]]))


def test_restricted_isometry_of_known_matrices() -> None:
    assert restricted_isometry(torch.eye(9), 3) == pytest.approx(0, abs=1e-12)
    assert restricted_isometry(2 * torch.eye(9), 3) == pytest.approx(3)
    assert restricted_isometry(0.5 * torch.eye(9), 3) == pytest.approx(0.75)
    assert restricted_isometry(normal(2, 9), 3) >= 1  # three columns of a plane depend on each other
    matrix = normal(8, 6)
    unit = matrix / matrix.norm(dim=0)
    # Of order 1: how far lengths of columns are from one. Of order 2, columns of length one: the coherence.
    assert restricted_isometry(matrix, 1) == pytest.approx(float((matrix.norm(dim=0) ** 2 - 1).abs().max()))
    assert restricted_isometry(unit, 2) == pytest.approx(mutual_coherence(unit))
    stretch = torch.linalg.svdvals(unit) ** 2
    assert restricted_isometry(unit, 6, trials=1) == pytest.approx(float((stretch - 1).abs().max()))


def test_the_estimate_of_restricted_isometry_grows_with_trials_and_order_and_shrinks_with_rows() -> None:
    matrix = make_measurement("gaussian", 64, 256).matrix()
    assert restricted_isometry(matrix, 8, seed=3) == restricted_isometry(matrix, 8, seed=3)
    assert restricted_isometry(matrix, 8, 50) <= restricted_isometry(matrix, 8, 150)
    assert restricted_isometry(matrix, 4) < restricted_isometry(matrix, 16)
    taller = make_measurement("gaussian", 512, 256).matrix()
    assert restricted_isometry(taller, 8) < 0.5 * restricted_isometry(matrix, 8)


def test_bad_questions_about_quality_are_refused() -> None:
    for sparsity in (0, 4, 1.0, True):
        with pytest.raises(CompressionError, match=f"sparsity must be a whole number from 1 to 3, got {sparsity!r}"):
            restricted_isometry(torch.eye(3), sparsity)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match="trials must be a whole number at least 1, got 0"):
        restricted_isometry(torch.eye(3), 2, 0)
    with pytest.raises(CompressionError, match="seed"):
        restricted_isometry(torch.eye(3), 2, seed=-1)
    for measure in (mutual_coherence, lambda matrix: restricted_isometry(matrix, 1)):
        with pytest.raises(CompressionError, match=r"\[m, K\], m and K at least 1, got torch\.float32 \[3\]"):
            measure(torch.ones(3))
        with pytest.raises(CompressionError, match="finite, got nan"):
            measure(torch.tensor([[1.0, math.nan]]))
