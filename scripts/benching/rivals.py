"""Attention rivals that keep no tokens, each given the state of m tokens: m * d numbers.

A token set keeps four numbers more a token (weight, span, patch), which are not counted.

Shapes: T frames, P patches a frame, n = T * P tokens, d width, m tokens of the budget, q queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benching.queries import exact_answer

__all__ = ["RIVALS", "THRESHOLDS", "Rival", "sparse_decoded"]

# Scaled queries [q, d] to contexts [q, d], or to several candidates [c, q, d] of which the best counts.
Answer = Callable[[Tensor], Tensor]
THRESHOLDS = (0.1, 1.0, 10.0)  # of sparse decoding, in root mean squares of the centred tokens' parts


@dataclass(frozen=True)
class Rival:
    """``build(tokens [T, P, d], m, seed)`` gives the answering function, or None where m tokens are too few for it."""

    build: Callable[[Tensor, int, int], Answer | None]
    causal: bool
    seeded: bool


def _centred(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``[n, d]`` less their mean, and the mean. Softmax attention allows it (all keys move by one vector, and so
    does the context), and every random projection does better with it."""
    flat = tokens.flatten(0, 1)
    mean = flat.mean(dim=0)
    return flat - mean, mean


def _nystrom(tokens: Tensor, budget: int, seed: int) -> Answer | None:
    """Landmarks are segment means of the keys, and serve for the queries too, in the queries' scale. As published, the
    queries have landmarks of their own, and all n keys are read again for new queries: that is no state that a stream
    could keep, and exact as soon as there are as many landmarks as queries. Kept here: landmarks and their answers, m /
    2 of each, with the published pseudo-inverse."""
    from csat_fusion.attention.nystrom import iterative_pinv

    keys, mean = _centred(tokens)
    landmarks = min(budget // 2, len(keys))
    if landmarks < 1:
        return None
    run = torch.arange(len(keys)) * landmarks // len(keys)
    marks = torch.zeros(landmarks, keys.shape[1]).index_add_(0, run, keys) / run.bincount()[:, None]

    def answer(query: Tensor) -> Tensor:
        asked = marks * (query.norm(dim=1).median() / marks.norm(dim=1).median().clamp_min(1e-12))
        middle = (asked @ marks.mT).softmax(dim=-1).double()
        kept = iterative_pinv(middle).to(keys.dtype) @ exact_answer(asked, keys)
        return (query @ marks.mT).softmax(dim=-1) @ kept + mean

    return answer


def _performer(tokens: Tensor, budget: int, seed: int) -> Answer | None:
    """Sums of features times values, and of features: r * (d + 1) numbers. Queries and keys are brought to one length,
    which leaves their products alone and is where the estimate varies least."""
    from csat_fusion.attention.performer import orthogonal_features, performer_attention

    keys, mean = _centred(tokens)
    width = keys.shape[1]
    omega = orthogonal_features(max(1, budget * width // (width + 1)), width, seed=seed)

    def answer(query: Tensor) -> Tensor:
        balance = (query.norm(dim=1).mean() / keys.norm(dim=1).mean().clamp_min(1e-12)).sqrt().clamp_min(1e-12)
        return performer_attention(query / balance, keys * balance, keys, omega, scale=1.0) + mean

    return answer


def _csat_feature(tokens: Tensor, budget: int, seed: int) -> Answer | None:
    """All n tokens, which are keys and values at once, in d * m / n measured features."""
    from csat_fusion.attention.csat import csat_attention
    from csat_fusion.measurements.base import make_measurement

    keys, mean = _centred(tokens)
    rows = keys.shape[1] * budget // len(keys)
    if rows < 1:
        return None
    phi = make_measurement("gaussian", rows, keys.shape[1], seed=seed)
    return lambda query: csat_attention(query, keys, keys, phi, reading="feature", scale=1.0) + mean


def _csat_published(independent: bool, decoded: bool) -> Callable[[Tensor, int, int], Answer | None]:
    """As printed, untrained. Keys and values are the same tokens here: with one Phi for both, its m rows are kept once;
    with two, there are m / 2 of each. ``decoded``: contexts go through ISTA over a DCT of the features, as the paper
    has it, once for each of :data:`THRESHOLDS`; the best of these counts, cell by cell."""

    def build(tokens: Tensor, budget: int, seed: int) -> Answer | None:
        from csat_fusion.attention.csat import csat_attention
        from csat_fusion.measurements.base import make_measurement

        keys, mean = _centred(tokens)
        rows = budget // 2 if independent else budget
        if rows < 1:
            return None
        phi = make_measurement("gaussian", rows, len(keys), seed=seed)
        other = make_measurement("gaussian", rows, len(keys), seed=seed + 1_000_003) if independent else phi
        size = float(keys.square().mean().sqrt())

        def answer(query: Tensor) -> Tensor:
            context = csat_attention(query, keys, keys, (phi, other), reading="published", scale=1.0)
            if decoded:
                context = torch.stack([sparse_decoded(context, share * size) for share in THRESHOLDS])
            return context + mean

        return answer

    return build


def sparse_decoded(context: Tensor, threshold: float) -> Tensor:
    """``context [q, d]`` by ISTA over the DCT of its features: over an orthonormal basis its first step is its last."""
    from csat_fusion.dictionaries.base import make_dictionary
    from csat_fusion.recovery.proximal import soft_threshold

    psi = make_dictionary("dct", context.shape[-1]).matrix().to(context.dtype)
    return soft_threshold(context @ psi, threshold) @ psi.mT


def _sketch(tokens: Tensor, budget: int, seed: int) -> Answer | None:
    """Every trajectory over time measured by one Gaussian Phi, ``Y = Phi X``; recovered for all patches and channels
    together by simultaneous OMP in a Haar basis, half as many atoms as rows; then exact attention to what came back."""
    from csat_fusion.dictionaries.base import make_dictionary
    from csat_fusion.measurements.base import make_measurement
    from csat_fusion.recovery.pursuit import simultaneous_omp

    frames, patches, width = tokens.shape
    rows = budget // patches
    if rows < 1:
        return None
    signal = tokens.flatten(1).double()  # [T, P * d]
    phi = make_measurement("gaussian", rows, frames, seed=seed)
    psi = make_dictionary("haar", frames)
    operator = phi.matrix() @ psi.matrix().double()
    found = simultaneous_omp(phi(signal), operator, max(1, rows // 2))
    back = psi.synthesize(found.code).view(frames * patches, width).to(tokens.dtype)
    return lambda query: exact_answer(query, back)


def _coefficients(name: str) -> Callable[[Tensor, int, int], Answer | None]:
    """Exact attention to what m coefficient vectors of the transform over time give back."""

    def build(tokens: Tensor, budget: int, seed: int) -> Answer | None:
        from csat_fusion.compressors.transform import dct_lowpass, haar_topk

        back = {"dct": dct_lowpass, "haar": haar_topk}[name](tokens, budget).flatten(0, 1)
        return lambda query: exact_answer(query, back)

    return build


RIVALS: dict[str, Rival] = {
    "Nystrom, landmarks of keys": Rival(_nystrom, causal=False, seeded=False),
    "Performer": Rival(_performer, causal=True, seeded=True),
    "csat, feature axis": Rival(_csat_feature, causal=True, seeded=True),
    "csat as published, two Phi, not decoded": Rival(_csat_published(True, False), causal=True, seeded=True),
    "csat as published, two Phi, ISTA": Rival(_csat_published(True, True), causal=True, seeded=True),
    "csat as published, one Phi, not decoded": Rival(_csat_published(False, False), causal=True, seeded=True),
    "csat as published, one Phi, ISTA": Rival(_csat_published(False, True), causal=True, seeded=True),
    "temporal sketch, Haar, joint recovery": Rival(_sketch, causal=True, seeded=True),
    "DCT coefficients": Rival(_coefficients("dct"), causal=False, seeded=False),
    "Haar coefficients": Rival(_coefficients("haar"), causal=False, seeded=False),
}
