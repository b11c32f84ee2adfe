"""Nystrom attention: softmax attention of rank m through landmarks.

Nystromformer: A Nystrom-Based Algorithm for Approximating Self-Attention, Y. Xiong, Z. Zeng, R. Chakraborty, M. Tan,
G. Fung, Y. Li and V. Singh, 2021, arXiv 2102.03902. Landmarks ``Q~`` and ``K~`` are means of m segments of neighbouring
queries and keys::

    out = softmax(Q K~^T / sqrt d)  pinv(softmax(Q~ K~^T / sqrt d))  softmax(Q~ K^T / sqrt d) V

with the pseudo-inverse by the third-order iteration of Razavi et al., 2014. The paper has q = n; here queries have
``min(m, q)`` landmarks and keys ``min(m, n)``. With q up to m every query is a landmark of its own: the first factor
and the pseudo-inverse cancel, and the result is exact attention to all n keys (nearly, with few iterations), at the
cost of exact attention. So with few queries this is no compression, and its fidelity says nothing of one. Entries of
the product may be negative, and rows sum to one only nearly.

Shapes: q queries, n tokens, m landmarks, d and dv widths of keys and values, H heads, dh width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from csat_fusion.attention.base import Attended, CrossAttention, whole_number
from csat_fusion.attention.core import attend, check_inputs, check_weights, join_heads, log_weight, split_all
from csat_fusion.attention.linformer import rows_kept, rows_of
from csat_fusion.compressors.budget import Budget, Ratio, parse_budget
from csat_fusion.measurements.base import add_rows
from csat_fusion.precision import without_autocast

__all__ = ["NystromCrossAttention", "iterative_pinv", "nystrom_attention"]


def iterative_pinv(matrix: Tensor, iterations: int = 6) -> Tensor:
    """The pseudo-inverse ``[..., b, a]`` of ``[..., a, b]`` by iteration, in the type of ``matrix``.

    ``Z <- Z (13 - A Z (15 - A Z (7 - A Z))) / 4`` from ``Z = A^T / (|A|_1 |A|_inf)``, which always converges; each step
    roughly cubes the error, once near.

    Raises:
        CompressionError: ``iterations`` is not a whole number, at least 1.
    """
    whole_number("iterations", iterations)
    norms = matrix.abs().sum(dim=-2).amax(dim=-1) * matrix.abs().sum(dim=-1).amax(dim=-1)
    z = matrix.mT / torch.where(norms > 0, norms, 1.0)[..., None, None]
    eye = torch.eye(matrix.shape[-2], dtype=matrix.dtype, device=matrix.device)
    for _ in range(iterations):
        az = matrix @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z


def nystrom_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    landmarks: int,
    *,
    iterations: int | None = 6,
    heads: int = 1,
    scale: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Softmax attention through landmarks.

    Args:
        query: ``[..., q, d]``; key: ``[..., n, d]``; value: ``[..., n, dv]``.
        landmarks: m, the most segments of queries and of keys.
        iterations: of the pseudo-inverse; ``None``: the exact one (by singular values).
        heads, scale: as :func:`csat_fusion.attention.exact.exact_attention`.
        weights: ``[..., n]``, how many tokens each key stands for: landmarks are weighted means, and count as much.

    Returns:
        ``[..., q, dv]``.

    Raises:
        CompressionError: shapes, types or devices disagree, or a number is not allowed.
    """
    lead = check_inputs(query, key, value, heads, scale)
    whole_number("landmarks", landmarks)
    if weights is not None:
        check_weights(weights, key)
    parts = split_all(query, key, value, heads, lead)
    return join_heads(_through_landmarks(*parts, weights, landmarks, iterations, scale, 0.0, need=False).context)


class NystromCrossAttention(CrossAttention):
    """Attention through m landmarks; no parameters of its own.

    Args:
        embed_dim, num_heads: as :class:`csat_fusion.attention.base.CrossAttention`, as are the ``shared`` ones.
        budget: m, or a share of the tokens of each call.
        iterations: of the pseudo-inverse; ``None``: the exact one.
    """

    takes_pair_masks = False

    def __init__(
        self, embed_dim: int, num_heads: int, *, budget: Budget | str, iterations: int | None = 6, **shared: Any
    ) -> None:
        super().__init__(embed_dim, num_heads, **shared)
        limit = parse_budget(budget)
        self.budget = limit if isinstance(limit, Ratio) else rows_of("Nystrom", budget, None)
        self.iterations = iterations if iterations is None else whole_number("iterations", iterations)

    def landmarks(self, tokens: int) -> int:
        """m for n ``tokens``."""
        return rows_kept(self.budget, tokens)

    def state_numbers(self, tokens: int) -> int:
        """``2 m dh``: landmarks, and the values they sum. New queries move their landmarks, and then all n keys are
        needed again: a stream cannot do with this state alone, nor can a call with q up to m."""
        return 2 * self.landmarks(tokens) * self.head_dim

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None, need: bool
    ) -> Attended:
        dropout = self.dropout if self.training else 0.0
        m = self.landmarks(key.shape[-2])
        return _through_landmarks(query, key, value, weight, m, self.iterations, None, dropout, need=need)


def _through_landmarks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | None,
    landmarks: int,
    iterations: int | None,
    scale: float | None,
    dropout: float,
    *,
    need: bool,
) -> Attended:
    if query.shape[-2] == 0:  # no queries, no landmarks of theirs
        empty = query.new_zeros(*query.shape[:-1], key.shape[-2])
        return Attended(query.new_zeros(*query.shape[:-1], value.shape[-1]), *((empty, empty) if need else ()))
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    q_marks, _ = _segment_means(query, None, landmarks)
    k_marks, mass = _segment_means(key, weight, landmarks)
    wide = torch.promote_types(query.dtype, torch.float32)
    with without_autocast(query.device):  # the iteration would not converge in half precision
        log_mass = log_weight(mass, wide)[..., None, None, :]
        first = _softmax(query.to(wide) @ k_marks.to(wide).mT * factor + log_mass)
        middle = _softmax(q_marks.to(wide) @ k_marks.to(wide).mT * factor + log_mass)
        inverse = torch.linalg.pinv(middle) if iterations is None else iterative_pinv(middle, iterations)
        coefficients = first @ inverse  # [..., q, query landmarks]
        coefficients = torch.nn.functional.dropout(coefficients, dropout)
    bias = None if weight is None else log_weight(weight, query.dtype)[..., None, None, :]
    gathered, last = attend(q_marks.to(query.dtype), key, value, bias, scale=factor, need_weights=need)
    context = (coefficients @ gathered.to(wide)).to(value.dtype)
    if last is None:
        return Attended(context)
    return Attended(context, coefficients.to(value.dtype), (coefficients @ last.to(wide)).to(value.dtype))


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over rows, zeros where all of a row is ``-inf``."""
    alive = (scores > -torch.inf).any(dim=-1, keepdim=True)
    return torch.where(alive, torch.softmax(torch.where(alive, scores, 0.0), dim=-1), 0.0)


def _segment_means(tokens: Tensor, weight: Tensor | None, segments: int) -> tuple[Tensor, Tensor]:
    """Means of ``min(segments, t)`` runs of ``tokens [..., H, t, w]``, their lengths equal up to one, and the mass
    ``[..., s]`` of each."""
    count = tokens.shape[-2]
    segments = min(segments, count)
    run = torch.arange(count, device=tokens.device) * segments // max(count, 1)
    wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    if weight is None:
        weight = wide.new_ones(count)
    weight = weight.to(wide.dtype)
    each = weight[..., None] if weight.ndim == 1 else weight[..., None, :, None]  # one for all heads
    mass = _run_sums(weight[..., None], run, segments)[..., 0]
    whole = mass[..., None] if weight.ndim == 1 else mass[..., None, :, None]
    means = _run_sums(wide * each, run, segments) / torch.where(whole > 0, whole, 1.0)
    return means.to(tokens.dtype), mass


def _run_sums(tokens: Tensor, run: Tensor, segments: int) -> Tensor:
    """``[..., s, w]``: the tokens ``[..., t, w]`` of each run summed, in the same order every time."""
    flat = tokens.movedim(-2, 0)
    total = add_rows(flat.new_zeros(segments, flat[:1].numel()), run, flat.flatten(1))
    return total.view(segments, *flat.shape[1:]).movedim(0, -2)
