"""Compressed-sensing cross-attention as a module, usable in place of ``torch.nn.MultiheadAttention``.

CS-VLM: Compressed Sensing Attention for Efficient Vision-Language Representation Learning, Kiruluta, Raju and Burity,
2025, arXiv 2507.02957, in the readings of :mod:`csat_fusion.attention.csat`.

Shapes: B batch, q queries, n tokens given, m rows attended to, H heads, dh width of a head.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from csat_fusion.attention.base import Attended, CrossAttention, Memory
from csat_fusion.attention.core import attend, is_symbol
from csat_fusion.attention.csat import (
    READINGS,
    Reading,
    carried,
    check_averaging,
    feature,
    feature_matrix,
    inverse,
    measured_means,
    published,
)
from csat_fusion.attention.decoder import ContextDecoder
from csat_fusion.attention.linformer import rows_kept
from csat_fusion.attention.masks import combined
from csat_fusion.attention.merge import merge_rows, row_masses, ward_rows
from csat_fusion.compressors.budget import Budget, Ratio, parse_budget
from csat_fusion.dictionaries.base import Dictionary
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement, make_measurement
from csat_fusion.measurements.merging import MergingMeasurement

__all__ = ["CSATCrossAttention"]


class CSATCrossAttention(CrossAttention):
    """Attend to m measurements of n tokens.

    In the ``merged`` reading the keys' inputs decide which tokens are merged, inside each call and without gradient;
    the means of keys and values are taken before the projections and pass gradients. Tokens given with ``weights`` are
    merged ones already, of a compressor, and are attended to as they are. With n up to m it is exact attention.

    Args:
        embed_dim, num_heads: as :class:`csat_fusion.attention.base.CrossAttention`, as are the ``shared`` ones.
        budget: m, or a :class:`Ratio` of n. In the ``feature`` reading, which keeps all n tokens, a number is r, a
            ratio that of dh; with ``tokens`` a number is m there too, and r the share ``m / tokens`` of dh: equal
            state.
        reading: see :mod:`csat_fusion.attention.csat`.
        measurement: a measurement, or the name of one; ``None``: in the ``merged`` reading, merging of the tokens
            given; in the ``published`` one "gaussian", one for keys and one for values; in the ``feature`` one
            "hadamard".
        denoiser: ``None``, "lista" (a trained sparse decoder), or a module from context to context, ``[B, H, q, dh]``
            (``[B, H, q, r]`` to ``dh`` in the ``feature`` reading). ``None`` decodes by ISTA in the ``published``
            reading, as printed, which :func:`csat_fusion.attention.csat.csat_attention` does not; by the pseudo-inverse
            of Phi in the ``feature`` one; not at all in the ``merged`` one.
        tokens: n, where a measurement has to know it.
        dictionary, steps, threshold: of the sparse decoding.
        gap_seconds: tokens with more unseen time than this between their spans are not merged; needs spans in the call.
        share: of the surplus, that one round of merging closes.

    A random measurement is not in the state dict, but what it is (kind, rows, columns, seed; ``measurement_record``, as
    text in bytes), and a state with another one is refused.

    With ``is_causal`` a query sees no merged token with a member that ended after it, so no value of a later token
    reaches it. But which tokens were merged was decided knowing all, and a merged token that reaches far into the
    future hides its past too: of 40 random tokens that attend to each other merged to 8, 23 see nothing at all and get
    the bias of the output. So merge causally instead, frame by frame with a
    :class:`csat_fusion.compressors.base.Compressor`, and give its tokens with ``weights``, ``end_seconds`` and
    ``query_seconds``; or bound by ``gap_seconds`` what is merged.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        budget: Budget | str,
        reading: Reading = "merged",
        measurement: Measurement | str | None = None,
        denoiser: Literal["lista"] | nn.Module | None = None,
        tokens: int | None = None,
        dictionary: Dictionary | str = "dct",
        steps: int = 8,
        threshold: float = 0.01,
        gap_seconds: float = math.inf,
        share: float = 0.1,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(embed_dim, num_heads, seed=seed, **shared)
        limit = parse_budget(budget)
        if not isinstance(limit, int | Ratio):
            raise CompressionError(f"CSAT needs a budget of tokens or a ratio, got {budget!r}")
        if reading not in READINGS:
            raise CompressionError(f"reading must be one of {', '.join(READINGS)}, got {reading!r}")
        for name, number in (("gap_seconds", gap_seconds), ("share", share)):
            real = isinstance(number, int | float) and not isinstance(number, bool)
            if not real or not number >= 0 or (name == "share" and not 0 < number <= 1):
                raise CompressionError(f"{name} must be at least 0 (a share above 0, at most 1), got {number!r}")
        self.budget: int | Ratio = limit
        self.reading: Reading = reading
        self.gap_seconds, self.share = float(gap_seconds), float(share)
        self.takes_pair_masks = reading != "published"
        self.measurement, self.value_measurement = self._measurements(measurement, tokens, seed)
        decode: dict[str, Any] = {"dictionary": dictionary, "steps": steps, "threshold": threshold}
        over = self.measurement if reading == "feature" else None
        if denoiser == "lista" or (denoiser is None and reading == "published"):
            denoiser = ContextDecoder(self.head_dim, measurement=over, learned=denoiser == "lista", **decode)
        if denoiser is not None and not isinstance(denoiser, nn.Module):
            raise CompressionError(f"denoiser must be None, 'lista' or a module, got {denoiser!r}")
        like = self.out_proj.weight
        self.denoiser: nn.Module | None = None if denoiser is None else denoiser.to(like.device, like.dtype)
        self._record = _described(self.measurement, self.value_measurement)
        if self.measurement is not None:
            record = torch.tensor(list(self._record.encode()), dtype=torch.uint8, device=like.device)
            self.register_buffer("measurement_record", record)
            if not isinstance(measurement, Measurement):  # one's own is where one put it
                self.measurement.to(like.device, like.dtype)
                if self.value_measurement is not None:
                    self.value_measurement.to(like.device, like.dtype)

    def _measurements(
        self, given: Measurement | str | None, tokens: int | None, seed: int
    ) -> tuple[Measurement | None, Measurement | None]:
        """Phi of keys and, in the published reading, another of values."""
        if self.reading == "merged" and given is None:
            return None, None
        if self.reading == "feature":
            columns: int | None = self.head_dim
            rows = self._features(tokens)
        else:
            columns = tokens
            if isinstance(self.budget, int):
                rows = self.budget
            elif tokens is not None:
                rows = self.budget.limit(tokens)
            elif not isinstance(given, Measurement):
                raise CompressionError(f"a measurement of the ratio {self.budget.share} needs tokens, the number n")
        if isinstance(given, Measurement):
            if self.reading == "merged":
                check_averaging(given)
            return given, given if self.reading == "published" else None
        name = given or ("gaussian" if self.reading == "published" else "hadamard")
        options = {"averaging": True} if self.reading == "merged" and name == "learned" else {}
        # far from each other: the projections draw from the seed itself
        seeds = [(2 * seed + i) % 2**63 for i in (1, 2)]
        first = make_measurement(name, rows, columns, seed=seeds[0], **options)
        if self.reading == "merged":
            check_averaging(first)
        if self.reading != "published":
            return first, None
        return first, make_measurement(name, rows, columns, seed=seeds[1], **options)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        held = state_dict.get(f"{prefix}measurement_record")
        if held is not None and not held.is_meta and self._record:
            other = bytes(held.tolist()).decode(errors="replace")
            if other != self._record:
                raise CompressionError(f"the state is that of an attention with {other}; this one has {self._record}")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _features(self, tokens: int | None) -> int:
        """r, of the feature reading."""
        if isinstance(self.budget, Ratio):
            return self.budget.limit(self.head_dim)
        if tokens is not None:
            return Ratio(min(1.0, self.budget / tokens)).limit(self.head_dim)
        return min(self.budget, self.head_dim)

    def rows(self, tokens: int) -> int:
        """m, what is attended to of n ``tokens``."""
        if self.reading == "feature":
            return tokens
        if self.measurement is not None:
            return self.measurement.rows
        return rows_kept(self.budget, tokens)

    def state_numbers(self, tokens: int) -> int:
        """``m (2 dh + 1)`` merged (keys, values, a weight for all heads is counted for each), ``2 m dh`` published,
        ``2 n r`` over features, which grows with the stream."""
        if self.reading == "feature":
            assert self.measurement is not None
            return 2 * tokens * self.measurement.rows
        return self.rows(tokens) * (2 * self.head_dim + (self.reading == "merged"))

    def _compress(self, memory: Memory, start: Tensor | None, end: Tensor | None) -> Memory:
        n = memory.key.shape[1]
        if self.reading != "merged" or memory.ready:
            return memory
        if self.measurement is not None:
            if memory.end is not None:
                raise CompressionError("is_causal needs tokens merged by time; a measurement given mixes them all")
            given = memory.weight
            key, value, mass = measured_means(memory.key, memory.value, memory.weight, self.measurement)
            memory = replace(memory, key=key, value=value, weight=mass)
            phi = self.measurement
            if not isinstance(phi, MergingMeasurement):
                return replace(memory, carry=lambda seen: carried(seen, given, phi))
            assignment, share = (t.expand(key.shape[0], n) for t in (phi.assignment.clamp(min=0), phi.share))
            if given is not None:
                _, share = row_masses(assignment, share * given, phi.rows)
            return replace(memory, assignment=assignment, share=share)
        m = self.rows(n)
        # A share of one merges nothing either; where n is a symbol, the question would fix it.
        if not is_symbol(n) and m == n:
            return memory
        if self.gap_seconds < math.inf and (start is None or end is None):
            raise CompressionError(f"gap_seconds={self.gap_seconds} needs start_seconds and end_seconds in the call")
        weight = memory.weight
        if weight is None:
            weight = memory.key.new_ones(memory.key.shape[:2], dtype=torch.float32)
        assignment = ward_rows(
            memory.key,
            m,
            weight=memory.weight,
            start_seconds=start,
            end_seconds=end,
            gap_seconds=self.gap_seconds,
            share=self.share,
        )
        mass, share = row_masses(assignment, weight, m)
        key = merge_rows(memory.key, assignment, share, m)
        value = key if memory.value is memory.key else merge_rows(memory.value, assignment, share, m)
        last = memory.end
        if last is not None:
            least = torch.full((), -math.inf if last.is_floating_point() else 0, dtype=last.dtype, device=last.device)
            last = torch.where(weight > 0, last, least)  # padding is put somewhere, and lasts no one longer
            last = least.expand(last.shape[0], m).scatter_reduce(1, assignment, last, "amax")
        return replace(memory, key=key, value=value, weight=mass, end=last, assignment=assignment, share=share)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None, need: bool
    ) -> Attended:
        options: Any = {"dropout": self.dropout if self.training else 0.0, "need_weights": need}
        if self.reading == "published":
            assert self.measurement is not None
            assert self.value_measurement is not None
            seen = published(query, key, value, weight, (self.measurement, self.value_measurement), **options)
        elif self.reading == "feature":
            assert self.measurement is not None
            phi = feature_matrix(self.measurement, query)
            seen = feature(query, key, value, weight, bias, phi, **options)
            if self.denoiser is None:
                return seen._replace(context=seen.context @ inverse(phi).mT)
        else:
            seen = Attended(*attend(query, key, value, combined(weight, bias, query.dtype), **options))
        return seen if self.denoiser is None else seen._replace(context=self.denoiser(seen.context))


def _described(*measurements: Measurement | None) -> str:
    """What decides the entries of each measurement that has one kind of them."""
    return ", ".join(
        " ".join([type(one).__name__, *(f"{name}={vars(one)[name]}" for name in _DECIDING if name in vars(one))])
        for one in measurements
        if one is not None
    )


_DECIDING = ("rows", "columns", "seed", "nonzeros", "averaging")
