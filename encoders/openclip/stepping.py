"""The caption decoder one word at a time: what was read stays, only the new word is computed.

Keys and values of the words so far are kept in the text tower and in the decoder. Those of the visual tokens are made
once a caption, and go with it: all beams of a window are queries to the same m tokens.

Shapes: B windows, K beams of each, N = B * K rows, t words so far, d width, H heads, dh = d / H, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from csat_fusion.attention.core import join_heads, split_heads
from encoders.errors import CaptionerUnavailable
from encoders.openclip.decoder import CocaDecoder, held_by, onward, read_held
from encoders.openclip.visual import VisualTokens

__all__ = ["Steps", "check_steps"]


def check_steps(decoder: CocaDecoder) -> None:
    """Whether this model's text side is of the kind whose words can be computed one by one.

    Raises:
        CaptionerUnavailable: it is another kind, such as a text tower of Hugging Face.
    """
    text = decoder.model.text
    if not hasattr(text, "token_embedding") or not hasattr(getattr(text, "transformer", None), "resblocks"):
        raise CaptionerUnavailable(f"the text tower {type(text).__name__} is not open_clip's own, and cannot caption")
    if text.attn_mask is None:
        raise CaptionerUnavailable("the text tower sees words that come later, and cannot caption")
    for block in _blocks(decoder):
        if not isinstance(getattr(block, "attn", None), nn.MultiheadAttention) or block.attn.in_proj_weight is None:
            raise CaptionerUnavailable(f"a text block {type(block).__name__} is of a kind that cannot caption")


class Steps:
    """Words of B windows with K beams each; begins with none. Use without gradient.

    Args:
        visual: what is captioned, as it comes from a compressor.
        beams: K.
    """

    def __init__(self, decoder: CocaDecoder, visual: VisualTokens, beams: int = 1) -> None:
        self._decoder = decoder
        self._visual = decoder.prepared(visual)
        self._beams = beams
        # the same for every word
        self._held = [held_by(block, self._visual) for block in decoder.model.text_decoder.cross_attn]
        self._kept: list[tuple[Tensor, Tensor] | None] = [None for _ in _blocks(decoder)]
        self.length = 0

    def next(self, ids: Tensor) -> Tensor:
        """Log-probabilities ``[N, V]`` float32 of the word after ``ids [N]``, which is the next one of each row."""
        model = self._decoder.model
        text, writer = model.text, model.text_decoder
        dtype = text.transformer.get_cast_dtype()
        x = text.token_embedding(ids[:, None]).to(dtype) + text.positional_embedding[self.length].to(dtype)
        place = 0
        for block in text.transformer.resblocks:
            x = self._read_words(block, x, place)
            place += 1
        if text.cls_emb is None:  # with it, open_clip's tower norms the summary only
            x = text.ln_final(x)
        for own, cross, held in zip(writer.resblocks, writer.cross_attn, self._held, strict=True):
            x = self._read_words(own, x, place)
            place += 1
            rows = x.view(len(self._visual), self._beams, -1)
            x = read_held(cross, rows, held).reshape(x.shape)
        self.length += 1
        return self._decoder.scores(x)[:, 0].float().log_softmax(dim=-1)

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what was row ``rows[i]``, of the same window."""
        self._kept = [
            None if kept is None else (kept[0].index_select(0, rows), kept[1].index_select(0, rows))
            for kept in self._kept
        ]

    def _read_words(self, block: Any, x: Tensor, place: int) -> Tensor:
        attention = block.attn
        given = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (split_heads(part, attention.num_heads) for part in given)
        kept = self._kept[place]
        if kept is not None:
            key, value = torch.cat([kept[0], key], dim=-2), torch.cat([kept[1], value], dim=-2)
        self._kept[place] = (key, value)
        seen = attention.out_proj(join_heads(scaled_dot_product_attention(query, key, value)))
        return onward(block, x, seen)


def _blocks(decoder: CocaDecoder) -> Iterator[Any]:
    yield from decoder.model.text.transformer.resblocks
    yield from decoder.model.text_decoder.resblocks
