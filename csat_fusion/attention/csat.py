"""Compressed-sensing attention: attend to measurements of the tokens instead of the tokens.

CS-VLM: Compressed Sensing Attention for Efficient Vision-Language Representation Learning, A. Kiruluta, P. Raju and
P. Burity, 2025, arXiv 2507.02957.

As printed, keys and values are measured over the token axis, ``K' = Phi_K K`` and ``V' = Phi_V V`` with random
``Phi [m, n]``, the softmax runs over the m mixed keys, ``z = softmax(Q K'^T / sqrt d) V'``, and the context is
recovered from z by sparse decoding over a dictionary ``Psi [d, d]``.

That is inconsistent in two ways. (1) Phi acts on tokens and Psi on features, so the operator ``Phi Psi`` that
compressed sensing would invert is defined only where n = d, and even there multiplies axes that have nothing to do with
each other. (2) ``softmax(Q (Phi K)^T)`` is no measurement of ``softmax(Q K^T)``: the softmax does not commute with
mixing, and a mixed key with random signs resembles no key. Three readings can be computed:

- ``published``: as printed, with z taken as the signal itself (``A = Psi``) in the decoding. For comparison and
  training.
- ``merged``: Phi's rows are weighted means of tokens that are alike; ``softmax(q k / sqrt d + log w)``, w their
  weights, is what the unmerged tokens give, exactly where they are equal.
- ``feature``: Phi ``[r, dh]`` measures features. ``(A V) Phi^T = A (V Phi^T)`` holds exactly, so the context of
  measured values is the measured context, and is recovered by the pseudo-inverse, or by sparse decoding. Keys and
  queries are measured too: ``q Phi^T Phi k`` estimates ``q k``. The softmax still runs over n tokens.

Shapes: q queries, n tokens, m rows, d and dv widths of keys and values, H heads, dh width of a head, r measured
features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from csat_fusion.attention.base import Attended
from csat_fusion.attention.core import attend, check_inputs, check_weights, join_heads, log_weight, split_heads
from csat_fusion.attention.masks import combined
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement

__all__ = ["READINGS", "Reading", "csat_attention", "measured_means"]

Reading: TypeAlias = Literal["published", "merged", "feature"]
READINGS = ("published", "merged", "feature")
Phi: TypeAlias = "Measurement | tuple[Measurement, Measurement] | None"


def csat_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    measurement: Measurement | tuple[Measurement, Measurement] | None,
    *,
    reading: Reading = "merged",
    heads: int = 1,
    scale: float | None = None,
    weights: Tensor | None = None,
    denoiser: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Attention of projected queries to measurements of projected keys and values.

    Args:
        query: ``[..., q, d]``; key: ``[..., n, d]``; value: ``[..., n, dv]``, of one type and device, leading
            dimensions broadcast.
        measurement: ``published``: Phi over n tokens, or a pair for keys and for values. ``merged``: one whose rows are
            averages (``averaging``), or ``None`` where key and value are merged tokens already. ``feature``: over the
            ``d / heads`` features of a head (dv must be d).
        reading: see the module.
        heads: d and dv are split into this many heads.
        scale: what scores are multiplied by; ``1 / sqrt(d / heads)`` where None.
        weights: ``[..., n]``, how many tokens each key stands for; 0 masks it. In the ``published`` reading, that
            counts a column of Phi w times, as nothing better is defined.
        denoiser: takes each head's context ``[..., H, q, w]`` to the one that is given back. For ``feature`` w is r and
            the pseudo-inverse of Phi is used where ``None``; otherwise ``None`` leaves the context alone. So the
            ``published`` reading is not decoded here unless a denoiser is given, where :class:`CSATCrossAttention
            <csat_fusion.attention.csat_module.CSATCrossAttention>` decodes by default; to have the same, give its
            :class:`csat_fusion.attention.decoder.ContextDecoder` with ``learned=False``.

    Returns:
        ``[..., q, dv]`` in the type of the query.

    Raises:
        CompressionError: shapes, types or devices disagree, a value or the kind of measurement is not allowed.
    """
    if reading not in READINGS:
        raise CompressionError(f"reading must be one of {', '.join(READINGS)}, got {reading!r}")
    lead = check_inputs(query, key, value, heads, scale)
    if weights is not None:
        check_weights(weights, key)
        weights = weights.expand(*lead, weights.shape[-1])
    query, key, value = (t.expand(*lead, *t.shape[-2:]) for t in (query, key, value))
    if reading == "merged" and measurement is not None:
        key, value, weights = measured_means(key, value, weights, single(measurement, reading))
    q, k, v = (split_heads(t, heads) for t in (query, key, value))
    bias = None if weights is None or reading == "published" else log_weight(weights, q.dtype)[..., None, None, :]
    if reading == "merged":
        context = attend(q, k, v, bias, scale=scale)[0]
    elif reading == "published":
        context = published(q, k, v, weights, measurement, scale=scale).context
    else:
        phi = feature_matrix(single(measurement, reading), q)
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        context = attend(q @ phi.mT, k @ phi.mT, v @ phi.mT, bias, scale=factor)[0]
        if denoiser is None:
            context = context @ inverse(phi).mT
    if denoiser is not None:
        context = denoiser(context)
    return join_heads(context)


def check_averaging(measurement: Measurement) -> None:
    """The rows of a measurement of the merged reading are averages.

    Raises:
        CompressionError: they are not.
    """
    if not measurement.averaging:
        raise CompressionError(
            f"the merged reading needs a measurement whose rows are averages (not negative, summing to one), "
            f"got {type(measurement).__name__}"
        )


def measured_means(
    key: Tensor, value: Tensor, weights: Tensor | None, measurement: Measurement
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted means of keys and values, ``[..., m, d]`` and ``[..., m, dv]``, and the weight of each, ``[..., m]``.

    A row of Phi that averages tokens of weight w averages ``w x / (Phi w)``; its own mass grows by ``Phi w``.

    Raises:
        CompressionError: the rows of the measurement are not averages.
    """
    check_averaging(measurement)
    wide = torch.promote_types(key.dtype, torch.float32)
    mass = getattr(measurement, "weight", None)
    if not isinstance(mass, Tensor):  # no rows are heavier than others: that all weigh the same changes nothing
        mass = torch.ones(measurement.rows, device=key.device)
    mass = mass.to(key.device, wide)
    if weights is None:
        return measurement(key), measurement(value), mass.expand(*key.shape[:-2], measurement.rows)
    each = weights.to(wide)[..., None]
    mean = measurement(each)
    some = torch.where(mean > 0, mean, 1.0)
    key, value = (measurement(t.to(wide) * each).div(some).to(t.dtype) for t in (key, value))
    return key, value, mass * mean.squeeze(-1)


def carried(attention: Tensor, weights: Tensor | None, measurement: Measurement) -> Tensor:
    """Attention ``[B, H?, q, m]`` to weighted means, over the tokens that they are of: ``[B, H?, q, n]``.

    Token j has the share ``Phi_ij w_j / (Phi w)_i`` in row i.
    """
    if weights is None:
        return measurement.adjoint(attention.mT).mT
    shape = (len(weights), *(1,) * (attention.ndim - 2), -1)
    mean = measurement(weights[..., None])[..., 0].view(shape)
    attention = attention / torch.where(mean > 0, mean, 1.0).to(attention.dtype)
    return measurement.adjoint(attention.mT).mT * weights.view(shape).to(attention.dtype)


def published(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, measurement: Phi, **options: Any
) -> Attended:
    """The softmax over mixed keys of the printed form: heads ``[..., H, n, dh]``, ``weight [..., n]``."""
    if isinstance(measurement, tuple):
        phi_k, phi_v = measurement
    else:
        phi_k = phi_v = single(measurement, "published")
    if weight is not None:
        each = weight[..., None, :, None].to(key.dtype)
        key, value = key * each, value * each
    context, measurements = attend(query, phi_k(key), phi_v(value), **options)
    if measurements is None:
        return Attended(context)
    tokens = phi_v.adjoint(measurements.mT, value.shape[-2]).mT
    if weight is not None:
        tokens = tokens * weight[..., None, None, :].to(tokens.dtype)
    return Attended(context, measurements, tokens)


def feature(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    phi: Tensor,
    *,
    dropout: float,
    need_weights: bool,
) -> Attended:
    """Attention over measured features: the context is ``[B, H, q, r]``, to be recovered."""
    bias = combined(weight, bias, query.dtype)
    scale = query.shape[-1] ** -0.5
    q, k, v = (t @ phi.mT for t in (query, key, value))
    return Attended(*attend(q, k, v, bias, scale=scale, dropout=dropout, need_weights=need_weights))


def feature_matrix(measurement: Measurement, like: Tensor) -> Tensor:
    """Phi ``[r, dh]`` in the type of ``like [..., dh]``, through which gradients reach a learned measurement."""
    width = like.shape[-1]
    if measurement.columns is not None and measurement.columns != width:
        raise CompressionError(
            f"the measurement is over {measurement.columns} features, a head has {width}; "
            f"the feature reading measures the features of one head"
        )
    eye = torch.eye(width, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    phi: Tensor = measurement(eye)
    return phi.to(like.dtype)


def inverse(phi: Tensor) -> Tensor:
    """The pseudo-inverse ``[dh, r]`` of Phi, found in float32 at least."""
    found: Tensor = torch.linalg.pinv(phi.to(torch.promote_types(phi.dtype, torch.float32)))
    return found.to(phi.dtype)


def single(measurement: Phi, reading: str) -> Measurement:
    if not isinstance(measurement, Measurement):
        raise CompressionError(f"the {reading} reading needs one measurement, got {type(measurement).__name__}")
    return measurement
