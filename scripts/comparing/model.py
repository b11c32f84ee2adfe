"""The model that every cross-attention is put into: a text tower, a caption decoder, and a pooler of clips.

CoCa's way (J. Yu and others, "CoCa: Contrastive Captioners are Image-Text Foundation Models", 2022, arXiv 2205.01917):
a decoder reads the words so far and, through the cross-attention compared, the tokens of a clip; learned queries pool
the same tokens, through another of the same kind, to the vector that is matched with the text's. All is drawn from one
seed and equal but for what a method brings along.

Shapes: B clips, n tokens, m attended to, D their width, d width of the model, Q queries of the pooler, L text tokens.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from scripts.comparing.methods import METHODS, kept

__all__ = ["Compared", "Sizes", "own_parameters", "tokenizer"]


@dataclass(frozen=True)
class Sizes:
    """Of the model; equal for all methods."""

    width: int = 128
    heads: int = 4
    text_layers: int = 1
    layers: int = 2
    queries: int = 8


@functools.cache
def tokenizer(context: int) -> Any:
    """The vocabulary of the bundled model, filled up or cut to ``context`` text tokens."""
    from open_clip.tokenizer import SimpleTokenizer

    from scripts.training.model import CONFIG

    return SimpleTokenizer(str(CONFIG.with_name("tiny.bpe.gz")), context_length=context)


class Compared(nn.Module):
    """See the module.

    Args:
        method: a name of ``METHODS``.
        tokens, token_width: n and D of the clips.
        ratio: m is n over it.
        context, vocabulary: of the texts.
    """

    def __init__(
        self, method: str, tokens: int, token_width: int, ratio: int, context: int, vocabulary: int, seed: int,
        sizes: Sizes,
    ) -> None:  # fmt: skip
        super().__init__()
        from csat_fusion.attention.base import make_attention
        from encoders.openclip.architecture import build
        from encoders.openclip.decoder import CocaDecoder

        way = METHODS[method]
        rows = kept(tokens, ratio)
        read = {"all": tokens, "mean": 1}.get(way.reads, rows)
        how: dict[str, Any] = {"budget": None if way.attention == "exact" else rows, "tokens": read}
        how |= dict(way.options)
        model: Any = build(_config(sizes, context, vocabulary), seed)
        model.visual = nn.Identity()  # clips come as tokens
        for block in (*model.text.transformer.resblocks, *model.text_decoder.resblocks, *model.text_decoder.cross_attn):
            nn.init.zeros_(block.mlp.c_proj.weight)
        model.requires_grad_(True)
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int, size: float) -> nn.Parameter:
            return nn.Parameter(size * torch.randn(shape, generator=generator))

        with torch.no_grad():
            model.text_decoder.text_projection.copy_(drawn(sizes.width, vocabulary, size=sizes.width**-0.5))
        self.decoder = CocaDecoder(model, attention=way.attention, seed=seed, **how)
        self.entry = drawn(sizes.width, token_width, size=token_width**-0.5)
        self.queries = drawn(sizes.queries, sizes.width, size=1.0)
        self.norm = nn.LayerNorm(sizes.width)
        self.pooler = make_attention(way.attention, sizes.width, sizes.heads, seed=2 * seed + 1, **how)
        self.out_norm = nn.LayerNorm(sizes.queries * sizes.width)
        self.out = drawn(sizes.width, sizes.queries * sizes.width, size=(sizes.queries * sizes.width) ** -0.5)
        self.rows, self.read_tokens = rows, read

    @property
    def coca(self) -> Any:
        """open_clip's model around the decoder: its text tower and its scale of cosines."""
        return self.decoder.model

    def prepared(self, visual: Any) -> Any:
        """Tokens in the width of the model, with their times; what :meth:`pool` and the decoder read."""
        narrow = replace(visual, tokens=nn.functional.linear(visual.tokens, self.entry))
        return replace(self.decoder.prepared(narrow), span=None)  # without a span, no time is added again

    def pool(self, prepared: Any) -> Tensor:
        """The vector ``[B, d]`` of each clip."""
        keys = self.norm(prepared.tokens)
        queries = self.queries.expand(len(keys), -1, -1)
        seen, _ = self.pooler(queries, keys, keys, weights=prepared.weights)
        return nn.functional.linear(self.out_norm(seen.flatten(1)), self.out)

    @property
    def attentions(self) -> list[Any]:
        """All cross-attentions."""
        return [*(block.attn for block in self.coca.text_decoder.cross_attn), self.pooler]


def own_parameters(model: Compared) -> int:
    """Numbers learnt that the method brings along, beyond the projections that every attention has."""
    from csat_fusion.attention.exact import ExactCrossAttention

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    return sum(count(one) - count(ExactCrossAttention(one.embed_dim, one.num_heads)) for one in model.attentions)


def _config(sizes: Sizes, context: int, vocabulary: int) -> dict[str, Any]:
    text = {"context_length": context, "vocab_size": vocabulary, "width": sizes.width, "heads": sizes.heads}
    return {
        "embed_dim": sizes.width,
        "custom_text": True,
        "init_logit_scale": 2.6593,
        "multimodal_cfg": {**text, "layers": sizes.layers},
        "vision_cfg": {"image_size": 8, "patch_size": 8, "width": 8, "layers": 1, "head_width": 8},
        "text_cfg": {**text, "layers": sizes.text_layers, "embed_cls": True, "output_tokens": True},
    }
