"""Sparse decoding of a context vector: ISTA as printed, and LISTA that learns."""

from __future__ import annotations

import pytest
import torch

from csat_fusion.attention.decoder import ContextDecoder
from csat_fusion.errors import CompressionError


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
