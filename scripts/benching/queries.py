"""Queries over a window of tokens, what exact attention answers, and how far another answer is from it.

Keys and values are the tokens themselves. A query is a token less the window's mean token, with a tenth of random noise
of the tokens' own covariance, so that it is no exact copy; ``random`` queries are that noise alone. Softmax attention
does not change when all keys move by one vector, so nothing else needs centring. Each query is scaled until exact
attention gives it about ``effective`` tokens (exponential of the entropy), where its scores allow it.

Shapes: n tokens of a window, d width, q queries of a kind, m kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benching.tokens import Stream
from csat_fusion.attention.weighted import weighted_attention

__all__ = ["QUERY_KINDS", "Probe", "effective_tokens", "make_probe", "sharpened"]

QUERY_KINDS = ("event", "background", "random")
_SPREAD = 60.0  # the most that scaled scores of a query may lie apart: beyond it, static tokens share what is left


def effective_tokens(scores: Tensor) -> Tensor:
    """``exp(entropy)`` of the softmax of ``scores [q, n]``: how many tokens each query attends to, ``[q]``."""
    logs = scores.log_softmax(dim=-1)
    return (-(logs.exp() * logs).sum(dim=-1)).exp()


def sharpened(query: Tensor, keys: Tensor, effective: float) -> Tensor:
    """``query [q, d]``, each scaled so that it attends to ``effective`` of the ``keys [n, d]``, by bisection.

    Where even equal scores give fewer keys than that, or scores as far apart as is allowed give more (many tokens
    alike), the scale ends there.
    """
    scores = query.double() @ keys.double().mT
    spread = (scores.amax(dim=-1) - scores.amin(dim=-1)).clamp_min(1e-12)
    high = (_SPREAD / spread).log()
    low = high - 16
    for _ in range(40):
        middle = (low + high) / 2
        many = effective_tokens(scores * middle.exp()[:, None]) > effective
        low, high = torch.where(many, middle, low), torch.where(many, high, middle)
    return (query.double() * ((low + high) / 2).exp()[:, None]).to(query.dtype)


@dataclass(frozen=True)
class Probe:
    """``query [q, d]`` of one kind, already scaled, the exact answer ``[q, d]`` and that of the mean token ``[d]``."""

    query: Tensor
    exact: Tensor
    mean: Tensor

    def error(self, answer: Tensor) -> float:
        """Root mean square distance to the exact answer; 1 is what the window's mean token gives. Of several answers
        ``[c, q, d]`` the least."""
        base = (self.mean - self.exact).square().sum().double()
        off = (answer - self.exact).square().sum(dim=(-2, -1)).double().min()
        return float((off / base.clamp_min(1e-30)).sqrt())


def exact_answer(query: Tensor, tokens: Tensor) -> Tensor:
    """Softmax attention of scaled ``query [q, d]`` over ``tokens [n, d]``."""
    return (query @ tokens.mT).softmax(dim=-1) @ tokens


def merged_answer(query: Tensor, tokens: Tensor, weight: Tensor | None) -> Tensor:
    """Attention of scaled ``query`` over kept ``tokens [m, d]``, with the logarithm of ``weight [m]`` or without."""
    weight = torch.ones(len(tokens)) if weight is None else weight
    return weighted_attention(query, tokens, tokens, weight, scale=1.0)


def make_probe(window: Stream, seed: int, count: int = 64, effective: float = 64.0) -> dict[str, Probe]:
    """A probe for each kind of query that the window has tokens for, the same for all methods."""
    generator = torch.Generator().manual_seed(seed)
    tokens = window.tokens.flatten(0, 1)
    mean = tokens.mean(dim=0)
    centred = tokens - mean

    def noise(number: int) -> Tensor:
        return torch.randn(number, len(tokens), generator=generator) @ centred / len(tokens) ** 0.5

    def draw(mask: Tensor) -> Tensor:
        places = mask.flatten().nonzero()[:, 0]
        chosen = places[torch.randint(len(places), (count,), generator=generator)] if len(places) else places
        return centred[chosen] + 0.1 * noise(len(chosen))

    makers: dict[str, Callable[[], Tensor]] = {
        "event": lambda: draw(window.event),
        "background": lambda: draw(window.background),
        "random": lambda: noise(count),
    }
    probes = {}
    for kind in QUERY_KINDS:
        query = makers[kind]()
        if not len(query):
            continue
        query = sharpened(query, tokens, effective)
        probes[kind] = Probe(query, exact_answer(query, tokens), mean)
    return probes
