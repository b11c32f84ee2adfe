"""CoCa's caption decoder over the compressed tokens of many frames.

CoCa: Contrastive Captioners are Image-Text Foundation Models, J. Yu and others, 2022, arXiv 2205.01917, as open_clip
has it: a text tower reads the words so far; a decoder attends to them and, in turn, to the tokens of one picture. Here
its cross-attention is one of :data:`csat_fusion.attention.base.ATTENTIONS` with the same weights, and the tokens may be
those of a whole segment, each with its weight and its time.

Shapes: B windows, m visual tokens, d width, L words (text tokens), V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from csat_fusion.attention.base import CrossAttention, Held, make_attention
from csat_fusion.attention.csat_module import CSATCrossAttention
from csat_fusion.attention.merge import merge_rows, row_masses, ward_rows
from csat_fusion.compressors.budget import Budget
from csat_fusion.tokens import TokenSet
from encoders.errors import CaptionerUnavailable, EncoderInputError
from encoders.openclip.times import add_times
from encoders.openclip.visual import VisualTokens, padded

__all__ = ["CocaDecoder", "attend_to", "held_by", "merged_tokens", "onward", "read_held"]

_PROJECTIONS = (
    *("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"),
    *("out_proj.weight", "out_proj.bias"),
)


class CocaDecoder(nn.Module):
    """Writes what token sets show: a CoCa model whose caption decoder attends through another attention.

    The cross-attentions of ``model`` are replaced in place and keep their weights; those of other names (mixtures,
    LISTA) are the attention's own. The model stays usable as it was, and its state dict keeps its names.

    With up to ``budget`` tokens of equal weight and no times it is the original. Tokens without weights are raw ones:
    an attention that merges does so once, before times are added, for all layers; weighted ones are merged already and
    are attended to as they are, however many.

    Args:
        model: open_clip's ``CoCa``.
        attention: a name of ``ATTENTIONS``.
        budget, tokens, options: as for :func:`csat_fusion.attention.base.make_attention`.
        seed: of what is random in the attentions; each layer has another.

    Raises:
        CaptionerUnavailable: a model without a caption decoder.
        CompressionError: an attention or option that is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        attention: str = "csat",
        budget: Budget | str = 256,
        tokens: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        decoder = getattr(model, "text_decoder", None)
        if decoder is None or not hasattr(decoder, "cross_attn"):
            raise CaptionerUnavailable(f"{type(model).__name__} has no caption decoder; CoCa models have one")
        self.model: Any = model
        self.attention = attention
        layers = len(decoder.cross_attn)
        for i, block in enumerate(decoder.cross_attn):
            block.attn = _same_weights(
                block.attn, attention, budget=budget, tokens=tokens, seed=(seed * layers + i) % 2**63, **options
            )

    @property
    def width(self) -> int:
        """d, of the visual tokens that it reads."""
        return int(self.model.text_decoder.cross_attn[0].ln_1_kv.normalized_shape[0])

    @property
    def context_length(self) -> int:
        """How many text tokens it reads and writes at most, start and end marks included."""
        return min(int(self.model.text_decoder.context_length), int(self.model.text.context_length))

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.text_decoder.ln_final.weight.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Of the visual tokens that it takes."""
        found: torch.dtype = self.model.text_decoder.cross_attn[0].attn.out_proj.weight.dtype
        return found

    def logits(self, visual: VisualTokens | list[TokenSet], text_ids: Tensor) -> Tensor:
        """Scores of the next text token after each of ``text_ids [B, L]``: ``[B, L, V]``.

        Token sets in a list are taken as stills; :func:`encoders.openclip.visual.padded` takes their spans too.

        Raises:
            EncoderInputError: shapes disagree, or more words than the context holds.
        """
        if text_ids.ndim != 2 or not 1 <= text_ids.shape[1] <= self.context_length:
            raise EncoderInputError(f"text_ids must be [B, 1 to {self.context_length}], got {list(text_ids.shape)}")
        _, words = self.model._encode_text(text_ids)
        return self.read(visual, words)

    def read(self, visual: VisualTokens | list[TokenSet], words: Tensor) -> Tensor:
        """As :meth:`logits`, for the text tower's token embeddings ``[B, L, d]``, where they are known already."""
        if not isinstance(visual, VisualTokens):
            visual = padded(visual)
        decoder = self.model.text_decoder
        if words.ndim != 3 or len(words) != len(visual):
            raise EncoderInputError(f"there are {len(visual)} windows, and text of shape {list(words.shape)}")
        visual = self.prepared(visual)
        length = words.shape[1]
        causal = decoder.attn_mask[:length, :length]
        again = decoder.grad_checkpointing and torch.is_grad_enabled()
        x = words
        for own, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
            if again:
                x = checkpoint(own, x, None, None, causal, use_reentrant=False)
                x = checkpoint(attend_to, cross, x, cross.ln_1_kv(visual.tokens), visual, use_reentrant=False)
            else:
                x = own(x, attn_mask=causal)
                x = attend_to(cross, x, cross.ln_1_kv(visual.tokens), visual)
        return self.scores(x)

    def prepared(self, visual: VisualTokens) -> VisualTokens:
        """The tokens as the layers attend to them: merged where they are raw and too many, with their times added.

        Raises:
            EncoderInputError: tokens of another width than the decoder reads.
        """
        if visual.tokens.shape[-1] != self.width:
            raise EncoderInputError(f"the decoder reads tokens of width {self.width}, got {visual.tokens.shape[-1]}")
        attention = self.model.text_decoder.cross_attn[0].attn
        if (
            isinstance(attention, CSATCrossAttention)
            and attention.reading == "merged"
            and attention.measurement is None
        ):
            visual = merged_tokens(visual, attention)
        if visual.span is None:
            return visual
        assert visual.start_seconds is not None
        assert visual.end_seconds is not None
        timed = add_times(visual.tokens, visual.start_seconds, visual.end_seconds, visual.span)
        return replace(visual, tokens=timed)

    def scores(self, x: Tensor) -> Tensor:
        """What comes out of the last layer ``[B, L, d]`` as scores over the vocabulary ``[B, L, V]``."""
        decoder = self.model.text_decoder
        out: Tensor = decoder.ln_final(x)
        return out if decoder.text_projection is None else out @ decoder.text_projection


def attend_to(block: Any, x: Tensor, keys: Tensor, visual: VisualTokens, looked: list[Tensor] | None = None) -> Tensor:
    """One cross-attention block: ``x [B, L, d]`` reads ``keys [B, m, d]``, the visual tokens after the block's norm.

    Where each word looked, ``[B, L, m]``, the mean of the heads, is put at the end of ``looked``.
    """
    seen, weights = block.attn(
        block.ln_1(x),
        keys,
        keys,
        key_padding_mask=visual.padding,
        need_weights=looked is not None,
        weights=visual.weights,
        start_seconds=visual.start_seconds,
        end_seconds=visual.end_seconds,
    )
    if looked is not None:
        looked.append(weights)
    return onward(block, x, seen)


def held_by(block: Any, visual: VisualTokens) -> Held:
    """The visual tokens as a cross-attention block reads them, for :func:`read_held`."""
    keys = block.ln_1_kv(visual.tokens)
    held: Held = block.attn.hold(
        keys,
        keys,
        visual.padding,
        weights=visual.weights,
        start_seconds=visual.start_seconds,
        end_seconds=visual.end_seconds,
    )
    return held


def read_held(block: Any, x: Tensor, held: Held) -> Tensor:
    """As :func:`attend_to`, of tokens that are held."""
    return onward(block, x, block.attn.read(block.ln_1(x), held))


def onward(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    """What leaves a block ``[B, L, d]`` whose attention gave ``seen`` for ``x``."""
    x = x + block.ls_1(seen)
    out: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out


def merged_tokens(visual: VisualTokens, attention: CSATCrossAttention) -> VisualTokens:
    """Raw tokens merged to the attention's budget, before any time is added to them; others as they are.

    A window's result does not depend on those beside it: where they differ in length, each is merged alone.
    """
    if visual.weights is not None:
        return visual
    if visual.padding is not None:
        return _side_by_side([_merged(one, attention) for one in _apart(visual)], visual.span)
    return _merged(visual, attention)


def _merged(visual: VisualTokens, attention: CSATCrossAttention) -> VisualTokens:
    tokens, start, end = visual.tokens, visual.start_seconds, visual.end_seconds
    count = tokens.shape[1]
    m = attention.rows(count)
    if m >= count:
        return visual
    if start is None and attention.gap_seconds < torch.inf:
        raise EncoderInputError(f"gap_seconds={attention.gap_seconds} needs start_seconds and end_seconds")
    row = ward_rows(
        tokens,
        m,
        start_seconds=start,
        end_seconds=end,
        gap_seconds=attention.gap_seconds,
        share=attention.share,
    )
    mass, share = row_masses(row, tokens.new_ones(tokens.shape[:2], dtype=torch.float32), m)
    if start is not None and end is not None:
        # a row that took nothing weighs nothing, and has any finite time
        start = start.new_zeros(len(tokens), m).scatter_reduce(1, row, start, "amin", include_self=False)
        end = end.new_ones(len(tokens), m).scatter_reduce(1, row, end, "amax", include_self=False)
    return replace(visual, tokens=merge_rows(tokens, row, share, m), weights=mass, start_seconds=start, end_seconds=end)


def _apart(visual: VisualTokens) -> list[VisualTokens]:
    """Each window alone, without its padding."""
    assert visual.padding is not None
    parts = []
    for i, gone in enumerate(visual.padding):
        kept = ~gone
        times = (None if t is None else t[i : i + 1, kept] for t in (visual.start_seconds, visual.end_seconds))
        parts.append(VisualTokens(visual.tokens[i : i + 1, kept], None, *times))
    return parts


def _side_by_side(parts: list[VisualTokens], span: Tensor | None) -> VisualTokens:
    """Windows of unlike length in one batch again."""
    longest = max(one.tokens.shape[1] for one in parts)

    def joined(rows: list[Tensor], filler: float) -> Tensor:
        filled = []
        for row in rows:
            missing = longest - row.shape[1]
            tail = row.new_full((1, missing, *row.shape[2:]), filler)
            filled.append(torch.cat([row, tail], dim=1))
        return torch.cat(filled)

    weights = [one.tokens.new_ones(1, one.tokens.shape[1]) if one.weights is None else one.weights for one in parts]
    starts = [one.start_seconds for one in parts if one.start_seconds is not None]
    ends = [one.end_seconds for one in parts if one.end_seconds is not None]
    mass = joined(weights, 0.0)
    return VisualTokens(
        joined([one.tokens for one in parts], 0.0),
        mass,
        joined(starts, 0.0) if starts else None,
        joined(ends, 1.0) if ends else None,
        mass <= 0,
        span,
    )


def _same_weights(given: nn.Module, name: str, **options: Any) -> CrossAttention:
    """The attention of that name with the projections of ``given``."""
    if not isinstance(given, nn.MultiheadAttention | CrossAttention):
        raise CaptionerUnavailable(
            f"the decoder's cross-attention is a {type(given).__name__}, which is not known here"
        )
    if isinstance(given, nn.MultiheadAttention):
        for what, bad in (
            ("add_bias_kv", given.bias_k is not None),
            ("add_zero_attn", given.add_zero_attn),
            ("batch_first=False", not given.batch_first),
        ):
            if bad:
                raise CaptionerUnavailable(f"the decoder's cross-attention has {what}, which is not known here")
    like = given.out_proj.weight
    made = make_attention(
        name,
        given.embed_dim,
        given.num_heads,
        dropout=given.dropout,
        bias=given.in_proj_bias is not None,
        kdim=given.kdim,
        vdim=given.vdim,
        device=like.device,
        dtype=like.dtype,
        **options,
    )
    own = dict(made.named_parameters())
    with torch.no_grad():
        for key, parameter in given.named_parameters():
            if key in _PROJECTIONS:
                own[key].copy_(parameter)
                own[key].requires_grad_(parameter.requires_grad)
    return made.train(given.training)
