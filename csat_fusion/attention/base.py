"""The one interface of all cross-attentions, usable in place of ``torch.nn.MultiheadAttention``, and their table.

Every attention holds the same parameters, under the names of ``nn.MultiheadAttention``, and beside them what its method
needs. A subclass says how heads attend (``_attend``) and, where it merges the tokens first, how (``_compress``).

Shapes: B batch, q queries, n tokens given, m tokens attended to, E embedding width, H heads, dh = E / H.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from csat_fusion.attention.core import check_like, is_symbol, join_heads, split_heads
from csat_fusion.attention.maps import AttentionMap
from csat_fusion.attention.masks import pair_bias, token_ends, token_masses
from csat_fusion.compressors.budget import Budget
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.hashing import checked_seed
from csat_fusion.recovery.base import fraction
from csat_fusion.tables import Entry, Table

__all__ = ["ATTENTIONS", "Attended", "AttentionMap", "CrossAttention", "Held", "Memory", "make_attention"]


@dataclass(frozen=True, eq=False)
class Memory:
    """What is attended to: inputs ``key [B, n, kdim]``, ``value [B, n, vdim]``, how many tokens each stands for
    (``weight [B, n]``, ``None``: one each), until when each lasts (``end [B, n]``, for causal use only), and, where
    tokens were merged, the row of each original one (``assignment [B, n]``) with its share in it (``share [B, n]``).
    ``ready``: the caller gave weights, so the tokens are merged ones already. ``carry``: each row holds something of
    every token, so no mask over tokens can be kept to; this takes attention ``[B, H?, q, m]`` to ``[B, H?, q, n]``."""

    key: Tensor
    value: Tensor
    weight: Tensor | None
    ready: bool = False
    end: Tensor | None = None
    assignment: Tensor | None = None
    share: Tensor | None = None
    carry: Callable[[Tensor], Tensor] | None = None


class Attended(NamedTuple):
    """``context [B, H, q, dh]``; where asked for, the attention over ``measurements [B, H, q, m]`` and over the
    ``tokens [B, H, q, n]`` that they were made of inside ``_attend`` (``None``: they are the same)."""

    context: Tensor
    measurements: Tensor | None = None
    tokens: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Held:
    """Tokens ready to be read: ``key`` and ``value`` ``[B, H, m, dh]``, ``weight [B, m]`` (``None``: one each)."""

    key: Tensor
    value: Tensor
    weight: Tensor | None


class CrossAttention(nn.Module, ABC):
    """Queries attend to a memory of tokens, each of which may stand for several (``weights``).

    Parameters, their names and their initial distribution are those of ``nn.MultiheadAttention(batch_first=True)``, so
    a state dict of one fits the other where the method has no parameters of its own. It may stand as ``self_attn`` or
    ``multihead_attn`` in torch's transformer layers; give ``nn.TransformerEncoder`` ``enable_nested_tensor=False``.

    Args:
        embed_dim: E, the width of queries and of the output.
        num_heads: H, divides E.
        dropout: share of attention that is dropped in training.
        bias: projections have one.
        kdim, vdim: widths of keys and values, E where None.
        seed: of the initial values, from 0 to 2^63 - 1; drawn on the CPU by a generator of their own: layers of one
            seed start equal.
    """

    #: read by torch's transformer layers
    batch_first: bool = True
    # Must be False: where it is True, those layers call a kernel of exact attention on in_proj_weight instead of
    # forward (in eval mode, without gradient), and any method here would silently be another one.
    _qkv_same_embed_dim: bool = False

    #: a mask for each query and token (``attn_mask``, ``is_causal``) can be kept to
    takes_pair_masks: bool = True

    in_proj_weight: nn.Parameter | None
    q_proj_weight: nn.Parameter | None
    k_proj_weight: nn.Parameter | None
    v_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None
    out_proj: nn.Linear

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kdim, vdim = (embed_dim if width is None else width for width in (kdim, vdim))
        widths = {"embed_dim": embed_dim, "num_heads": num_heads, "kdim": kdim, "vdim": vdim}
        for name, number in widths.items():
            whole_number(name, number)
        if embed_dim % num_heads:
            raise CompressionError(f"num_heads must divide embed_dim {embed_dim}, got {num_heads}")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim, self.dropout = kdim, vdim, fraction("dropout", dropout)
        generator = torch.Generator().manual_seed(checked_seed(seed))
        like = {"device": device, "dtype": dtype}
        joint = kdim == vdim == embed_dim
        shapes = {
            "in_proj_weight": (3 * embed_dim, embed_dim) if joint else None,
            "q_proj_weight": None if joint else (embed_dim, embed_dim),
            "k_proj_weight": None if joint else (embed_dim, kdim),
            "v_proj_weight": None if joint else (embed_dim, vdim),
            "in_proj_bias": (3 * embed_dim,) if bias else None,
        }
        for name, shape in shapes.items():
            values = None if shape is None else seeded(shape, generator, math.sqrt(6 / sum(shape)), **like)
            self.register_parameter(name, values)
        # nn.Linear would draw from the global generator
        self.out_proj = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, embed_dim, embed_dim, bias=bias, device=device or torch.get_default_device(), dtype=dtype
        )
        self.out_proj.weight = seeded((embed_dim, embed_dim), generator, embed_dim**-0.5, **like)
        if bias:
            with torch.no_grad():
                for part in (self.in_proj_bias, self.out_proj.bias):
                    assert part is not None
                    part.zero_()

    @abstractmethod
    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None, need: bool
    ) -> Attended:
        """Heads attend: ``query [B, H, q, dh]``, ``key`` and ``value`` ``[B, H, m, dh]``.

        ``weight [B, m]`` says how many tokens each key stands for (0: masked), ``None`` one each. ``bias``
        ``[B or 1, H or 1, q, m]`` is added to the scores, and given only where ``takes_pair_masks``.
        """

    @abstractmethod
    def state_numbers(self, tokens: int) -> int:
        """Numbers kept of a memory of n ``tokens``, for each head: what a stream has to hold between queries."""

    def _compress(self, memory: Memory, start: Tensor | None, end: Tensor | None) -> Memory:
        """Fewer tokens instead of those given, made before the projections; the same ones unless a subclass says so."""
        return memory

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool | Literal["map"] = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        weights: Tensor | None = None,
        start_seconds: Tensor | None = None,
        end_seconds: Tensor | None = None,
        query_seconds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | AttentionMap | None]:
        """Attend; the masks mean what they mean to ``nn.MultiheadAttention``.

        Args:
            query: ``[B, q, E]``; key: ``[B, n, kdim]``; value: ``[B, n, vdim]``; or all three without B. In the type
                and on the device of the parameters, unless autocast is on.
            key_padding_mask: ``[B, n]``, bool (true: ignored, a weight of 0) or floating point (added to the scores).
            need_weights: ``True`` for the attention over the n tokens ``[B, q, n]``; ``"map"`` for an
                :class:`AttentionMap` with measurements and times. Takes as much memory as it says, for each head, and
                keeps the fused kernel from serving; so it is off unless asked for, other than in torch.
            attn_mask: ``[q, n]`` or ``[B * H, q, n]``, bool (true: not attended to) or added to the scores. Where the
                call merges tokens, a merged one is not attended to if any of its members is not, as its mean holds
                them all; finite numbers of its members become the log of the weighted mean of their exponentials.
                Only true and ``-inf`` keep a token out: a very low number beside others does not.
            average_attn_weights: the mean over heads instead of each head's.
            is_causal: a query at time t sees the tokens, merged ones too, that ended by t (``query_seconds`` and
                ``end_seconds``). Without ``query_seconds``, positions stand for times: query i sees the tokens up to
                and with position i, and merged ones whose last member is among these; q must be n then.
            weights: ``[B, n]``, how many tokens each key stands for.
            start_seconds, end_seconds: ``[B, n]``, the half-open span of each token.
            query_seconds: ``[B, q]``, the time of each query, for ``is_causal``.

        A query that may attend to nothing gets a context of zero: its output is the bias of ``out_proj``, never NaN.
        Tokens are not looked at: what is not finite makes the outputs that read it so (merging refuses it).

        Returns:
            ``[B, q, E]``, and the attention or ``None``.

        Raises:
            CompressionError: shapes or types disagree, a value is not allowed, or the method cannot keep to a mask.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            raise CompressionError(
                "attention takes no nested tensors; make nn.TransformerEncoder with enable_nested_tensor=False"
            )
        if query.ndim == key.ndim == value.ndim == 2:
            rows = (None if t is None else t[None] for t in (weights, start_seconds, end_seconds, query_seconds))
            padding = None if key_padding_mask is None else key_padding_mask[None]
            need: Any = "map" if need_weights else False
            out, seen = self._forward(
                query[None], key[None], value[None], padding, need, attn_mask, average_attn_weights, is_causal, *rows
            )
            if isinstance(seen, AttentionMap):
                parts = (seen.measurements, seen.tokens, seen.start_seconds, seen.end_seconds)
                seen = AttentionMap(*(None if part is None else part[0] for part in parts))  # type: ignore[arg-type]
                return out[0], seen if need_weights == "map" else seen.tokens
            return out[0], None
        return self._forward(
            query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal,
            weights, start_seconds, end_seconds, query_seconds,
        )  # fmt: skip

    def hold(
        self,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        start_seconds: Tensor | None = None,
        end_seconds: Tensor | None = None,
    ) -> Held:
        """Tokens that many queries will read one after the other, compressed and projected once; see :meth:`forward`
        for what they are. For a decoder that writes word by word; it lives as long as who made it wants.

        Raises:
            CompressionError: as :meth:`forward`.
        """
        self._check(key.new_zeros(*key.shape[:1], 1, self.embed_dim), key, value)
        self._check_rows(key, weights=weights, start_seconds=start_seconds, end_seconds=end_seconds)
        memory = Memory(key, value, token_masses(key, weights, key_padding_mask), ready=weights is not None)
        memory = self._compress(memory, start_seconds, end_seconds)
        return Held(self._heads(1, memory.key), self._heads(2, memory.value), memory.weight)

    def read(self, query: Tensor, held: Held) -> Tensor:
        """What :meth:`forward` gives for ``query [B, q, E]`` and the tokens held, without masks of pairs."""
        seen = self._attend(self._heads(0, query), held.key, held.value, held.weight, None, False)
        out: Tensor = self.out_proj(join_heads(seen.context))
        return out

    def _forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        need_weights: bool | str,
        attn_mask: Tensor | None,
        average: bool,
        is_causal: bool,
        weights: Tensor | None,
        start: Tensor | None,
        end: Tensor | None,
        query_seconds: Tensor | None,
    ) -> tuple[Tensor, Tensor | AttentionMap | None]:
        if need_weights not in (True, False, "map"):
            raise CompressionError(f"need_weights must be True, False or 'map', got {need_weights!r}")
        self._check(query, key, value)
        self._check_rows(key, weights=weights, start_seconds=start, end_seconds=end)
        weight = token_masses(key, weights, key_padding_mask)
        memory = Memory(key, value, weight, ready=weights is not None)
        if is_causal:
            memory = replace(memory, end=token_ends(query, key, end, query_seconds))
        memory = self._compress(memory, start, end)
        heads = (self._heads(0, query), self._heads(1, memory.key), self._heads(2, memory.value))
        if (memory.carry or not self.takes_pair_masks) and (attn_mask is not None or is_causal):
            raise CompressionError(f"{self._called()} mixes the tokens, so it cannot keep to attn_mask or is_causal")
        merged = None
        if memory.assignment is not None and memory.share is not None:
            merged = (memory.assignment, memory.share)
        pairs = pair_bias(heads[0], heads[1], attn_mask, memory.end, query_seconds, merged)
        seen = self._attend(*heads, memory.weight, pairs, bool(need_weights))
        out: Tensor = self.out_proj(join_heads(seen.context))
        if not need_weights or seen.measurements is None:
            return out, None
        measurements = seen.measurements.mean(dim=1) if average else seen.measurements
        tokens = measurements if seen.tokens is None else seen.tokens.mean(dim=1) if average else seen.tokens
        if merged is not None:
            at, share = ((t if average else t[:, None])[..., None, :] for t in merged)
            tokens = tokens.gather(-1, at.expand(*tokens.shape[:-1], at.shape[-1])) * share.to(tokens)
        elif memory.carry is not None:
            tokens = memory.carry(tokens)
        if need_weights == "map":
            return out, AttentionMap(measurements, tokens, start, end)
        return out, tokens

    def _heads(self, which: int, tokens: Tensor) -> Tensor:
        """Tokens by the projection of queries (0), keys (1) or values (2), in heads ``[B, H, n, dh]``."""
        weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        bias = None if self.in_proj_bias is None else self.in_proj_bias.chunk(3)[which]
        return split_heads(_projected(tokens, weights[which], bias), self.num_heads)

    def _called(self) -> str:
        return type(self).__name__

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        shapes = f"query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
        expected = f"query [B, q, {self.embed_dim}], key [B, n, {self.kdim}], value [B, n, {self.vdim}]"
        if not query.ndim == key.ndim == value.ndim == 3:
            raise CompressionError(f"expected {expected}, all with or all without B; got {shapes}")
        if (query.shape[2], key.shape[2], value.shape[2]) != (self.embed_dim, self.kdim, self.vdim):
            raise CompressionError(f"expected {expected}; got {shapes}")
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            raise CompressionError(f"expected {expected}; got {shapes}")
        if key.shape[1] == 0:
            raise CompressionError(f"attention needs at least one token to attend to, got {shapes}")
        if not (query.is_floating_point() and key.is_floating_point() and value.is_floating_point()):
            raise CompressionError(
                f"query, key and value must be floating point, got {query.dtype}, {key.dtype}, {value.dtype}"
            )
        check_like(self.out_proj.weight, query=query, key=key, value=value)

    def _check_rows(self, key: Tensor, **rows: Tensor | None) -> None:
        for name, row in rows.items():
            if row is not None and row.shape != key.shape[:2]:
                raise CompressionError(f"{name} must be {list(key.shape[:2])}, one a token, got {list(row.shape)}")

    @classmethod
    def from_multihead(cls, attention: nn.MultiheadAttention, **options: Any) -> CrossAttention:
        """The same projections as a trained ``nn.MultiheadAttention`` has, with ``options`` of this class.

        Raises:
            CompressionError: it has what no attention here has (``add_bias_kv``, ``add_zero_attn``), or is not
                ``batch_first``.
        """
        for name, bad in (
            ("add_bias_kv", attention.bias_k is not None),
            ("add_zero_attn", attention.add_zero_attn),
            ("batch_first=False", not attention.batch_first),
        ):
            if bad:
                raise CompressionError(f"an attention with {name} cannot be taken over")
        made = cls(
            attention.embed_dim,
            attention.num_heads,
            dropout=attention.dropout,
            bias=attention.in_proj_bias is not None,
            kdim=attention.kdim,
            vdim=attention.vdim,
            device=attention.out_proj.weight.device,
            dtype=attention.out_proj.weight.dtype,
            **options,
        )
        names, _ = made.load_state_dict(attention.state_dict(), strict=False)
        assert not set(names) & set(attention.state_dict())
        return made.train(attention.training)


def whole_number(name: str, number: object, least: int = 1) -> int:
    """``number`` where it is a whole one of at least ``least``."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise CompressionError(f"{name} must be a whole number, at least {least}, got {number!r}")
    return number


def seeded(shape: tuple[int, ...], generator: torch.Generator, bound: float, **like: Any) -> nn.Parameter:
    """A parameter uniform in ``[-bound, bound]``, equal on every device and in every type up to rounding."""
    return nn.Parameter((torch.rand(shape, generator=generator, device="cpu") * (2 * bound) - bound).to(**like))


def _projected(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not is_symbol(tokens.shape[1]):
        return linear(tokens, weight, bias)
    # linear folds B and the tokens into one; torch.export cannot show that all m of a ratio allow that
    out = torch.bmm(tokens, weight.mT.expand(tokens.shape[0], -1, -1))
    return out if bias is None else out + bias


_HOME = "csat_fusion.attention"
_CSAT = (f"{_HOME}.csat_module", "CSATCrossAttention")

ATTENTIONS = Table(
    "attention",
    {
        "exact": Entry(f"{_HOME}.exact", "ExactCrossAttention"),
        "linformer": Entry(f"{_HOME}.linformer", "LinformerCrossAttention"),
        "performer": Entry(f"{_HOME}.performer", "PerformerCrossAttention"),
        "nystrom": Entry(f"{_HOME}.nystrom", "NystromCrossAttention"),
        "csat": Entry(*_CSAT, {"reading": "merged"}),
        "csat-published": Entry(*_CSAT, {"reading": "published"}),
        "csat-feature": Entry(*_CSAT, {"reading": "feature"}),
    },
)


def make_attention(
    name: str,
    embed_dim: int,
    num_heads: int,
    *,
    budget: Budget | str = None,
    tokens: int | None = None,
    seed: int = 0,
    **options: Any,
) -> CrossAttention:
    """The attention of that name in ``ATTENTIONS``, with ``options`` of its class.

    Args:
        budget: m, how many tokens to attend to, or a share of them; methods of another kind of state keep as many
            numbers as m keys and values are. Exact attention has no use for it.
        tokens: n, where the method must know it beforehand.
        seed: of the parameters and of what is random in the method.

    Raises:
        CompressionError: no attention or option has that name, or a value is outside what is allowed.
    """
    entry = ATTENTIONS.find(name)
    given = {"budget": budget, "tokens": tokens}
    options |= {key: value for key, value in given.items() if key in entry.parameters()}
    face = ("embed_dim", "num_heads", "seed")
    made: CrossAttention = entry.make(embed_dim, num_heads, given=face, seed=seed, **options)
    return made
