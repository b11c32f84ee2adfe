"""Sparse decoding of a context vector: ISTA as printed, and LISTA that learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from csat_fusion.attention.decoder import ContextDecoder
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import make_measurement
from csat_fusion.recovery.proximal import ista


def test_an_untrained_denoiser_is_ista_and_over_an_orthonormal_dictionary_a_soft_threshold() -> None:
    context = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    learned = ContextDecoder(8, steps=4, threshold=0.2).double()
    steps = ContextDecoder(8, steps=4, threshold=0.2, learned=False).double()
    torch.testing.assert_close(learned(context), steps(context), atol=1e-6, rtol=1e-6)
    psi = steps.dictionary.matrix().double()
    code = context @ psi
    want = (code.sign() * (code.abs() - 0.2).clamp(min=0)) @ psi.mT
    torch.testing.assert_close(steps(context), want, atol=1e-5, rtol=1e-5)
    with pytest.raises(CompressionError, match="for 5 features, a head has 8"):
        ContextDecoder(8, dictionary=ContextDecoder(5).dictionary)


class Named(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dictionary", ["dct", "haar", "learnable-haar", "identity", "steps", "learned"])
@pytest.mark.parametrize("measured", [False, True])
def test_without_learning_it_is_ista_and_nothing_waits_for_the_device(dictionary: str, measured: bool) -> None:
    phi = make_measurement("gaussian", 5, 8, seed=3) if measured else None
    decoder = ContextDecoder(8, dictionary=dictionary, measurement=phi, steps=6, threshold=0.1, learned=False)
    context = torch.randn(2, 3, 5 if measured else 8, generator=torch.Generator().manual_seed(0))
    psi = decoder.dictionary.matrix().detach().float()
    operator = psi if phi is None else phi(psi)
    code = ista(context.mT, operator, 0.1, steps=6, tolerance=0.0).code
    with Named() as seen, torch.no_grad():
        got = decoder(context)
    torch.testing.assert_close(got, (psi @ code).mT, atol=1e-5, rtol=1e-5)
    assert not any("_local_scalar_dense" in name for name in seen.names)  # what .item() and bool() become
    learns = any(True for _ in decoder.parameters())
    assert any("eigvalsh" in name or "linalg_eigh" in name for name in seen.names) == (
        learns and not (decoder.dictionary.orthonormal and phi is None)
    )


def test_an_orthonormal_operator_takes_one_step() -> None:
    whole = make_measurement("hadamard", 8, 8)  # orthonormal, as all rows are there
    for phi in (None, whole):
        short = ContextDecoder(8, measurement=phi, steps=1, threshold=0.2, learned=False)
        long = ContextDecoder(8, measurement=phi, steps=50, threshold=0.2, learned=False)
        context = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(short(context), long(context))
        counts = []
        for decoder in (short, long):
            with Named() as seen, torch.no_grad():
                decoder(context)
            counts.append(len(seen.names))
        assert counts[0] == counts[1]


def test_bad_options_are_named() -> None:
    for options, message in (
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"threshold": -1.0}, r"threshold must be a finite number, at least 0, got -1\.0"),
        ({"threshold": float("nan")}, "threshold must be a finite number, at least 0, got nan"),
    ):
        for learned in (False, True):
            with pytest.raises(CompressionError, match=message):
                ContextDecoder(8, learned=learned, **options)


def test_a_denoiser_learns() -> None:
    """Sparse contexts under noise: trained for a moment, LISTA is nearer to the clean ones than ISTA."""
    decoder = ContextDecoder(16, steps=3, threshold=0.05)
    psi = decoder.dictionary.matrix().float()
    generator = torch.Generator().manual_seed(0)
    code = torch.randn(512, 16, generator=generator) * (torch.rand(512, 16, generator=generator) < 0.15)
    clean = code @ psi.mT
    noisy = clean + 0.3 * torch.randn(512, 16, generator=generator)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = (decoder(noisy[:256]) - clean[:256]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        with torch.no_grad():
            losses.append(float((decoder(noisy[256:]) - clean[256:]).square().mean()))
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]
