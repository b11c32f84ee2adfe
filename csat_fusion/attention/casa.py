"""Fusion of text and video in which text attends, in one softmax, to its own window's text and visual tokens.

CASA: Cross-Attention via Self-Attention for Efficient Vision-Language Fusion, M. Boehle, A. Royer, J. Marrie, E. Grave
and P. Perez, 2025, arXiv 2512.19535. A window is what one image (here: one stretch of video) and the text up to the
next are. That text attends to text in the same layer gives it a way to not look: cross-attention alone has to spend
all its attention on the image. Visual tokens are never updated, so they cost nothing in later layers. Here they may be
merged ones, with the logarithm of their weights added to their scores.

Shapes: B batch, L text tokens, n visual tokens, k text tokens of a step, E width of text, H heads, dh = E / H.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from csat_fusion.attention.base import seeded, whole_number
from csat_fusion.attention.core import attend, check_like, check_weights, join_heads, log_weight, split_heads
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.hashing import checked_seed
from csat_fusion.recovery.base import fraction
from csat_fusion.tokens import TokenSet

__all__ = ["CASAFusion", "CASAStream"]


class CASAFusion(nn.Module):
    """Text ``[B, L, E]`` looks at the visual tokens of its window and at the text of its window that came before.

    Windows are given for each token: as whole numbers, or as seconds (floating point) when ``window_seconds`` cuts time
    into windows ``[i * window_seconds, (i + 1) * window_seconds)``. Seconds are float32 or float64; a time that is
    below an edge by no more than the rounding of its type is taken as the edge, so that 0.3 s begins a window of 0.1 s
    in either type. A merged token that spans several belongs to the one of the time that is given for it.

    Args:
        embed_dim: E. num_heads: H, divides E.
        visual_dim: width of visual tokens; ``None``: they have that of text, and share its projections of keys and
            values, as tokens inserted among the text would.
        window_seconds: the length of a window, for tokens that come with seconds.
        residual: the text is added to the output.
        gated: the output is multiplied by ``tanh(gate)``, which starts at 0: with ``residual``, the layer starts as
            identity.
        dropout: share of attention that is dropped in training. bias: projections have one.
        seed: of the initial values; layers of one seed start equal.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        visual_dim: int | None = None,
        window_seconds: float | None = None,
        residual: bool = True,
        gated: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        visual_width = embed_dim if visual_dim is None else visual_dim
        for name, number in (("embed_dim", embed_dim), ("num_heads", num_heads), ("visual_dim", visual_width)):
            whole_number(name, number)
        if embed_dim % num_heads:
            raise CompressionError(f"num_heads must divide embed_dim {embed_dim}, got {num_heads}")
        if window_seconds is not None:
            real = isinstance(window_seconds, int | float) and not isinstance(window_seconds, bool)
            if not real or not 0 < window_seconds < math.inf:
                raise CompressionError(f"window_seconds must be above 0 and finite, got {window_seconds!r}")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.visual_dim = visual_width
        self.window_seconds, self.residual, self.dropout = window_seconds, residual, fraction("dropout", dropout)
        generator = torch.Generator().manual_seed(checked_seed(seed))
        like: dict[str, Any] = {"device": device, "dtype": dtype}

        def made(rows: int, columns: int) -> nn.Parameter:
            return seeded((rows, columns), generator, math.sqrt(6 / (rows + columns)), **like)

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, **like))

        self.text_weight = made(3 * embed_dim, embed_dim)
        self.text_bias = zeros(3 * embed_dim) if bias else None
        self.visual_weight = None if visual_dim is None else made(2 * embed_dim, visual_dim)
        self.visual_bias = zeros(2 * embed_dim) if bias and visual_dim is not None else None
        self.out_weight = made(embed_dim, embed_dim)
        self.out_bias = zeros(embed_dim) if bias else None
        self.gate = zeros(1) if gated else None

    def forward(
        self,
        text: Tensor,
        visual: Tensor,
        text_window: Tensor,
        visual_window: Tensor,
        *,
        weights: Tensor | None = None,
        text_padding_mask: Tensor | None = None,
        visual_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Fuse a whole sequence; the mask takes ``L (L + n)`` numbers, so give long ones in pieces or as a stream.

        Args:
            text: ``[B, L, E]``, in order; visual: ``[B, n, visual_dim]``, n may be 0.
            text_window, visual_window: ``[B, L]`` and ``[B, n]``, int64 windows or floating-point seconds. A text token
                sees the visual tokens of its window, and the text tokens of its window up to and with itself.
            weights: ``[B, n]``, how many tokens each visual one stands for; 0 masks it.
            text_padding_mask, visual_padding_mask: ``[B, L]`` and ``[B, n]``, bool, true where there is no token.
                Padded text gets the output of a context of zero.

        Returns:
            ``[B, L, E]`` in the type of the projections.

        Raises:
            CompressionError: shapes or types disagree, or a value is not allowed.
        """
        self._check(text, visual, weights)
        at_text = self._windows("text_window", text_window, text)
        at_visual = self._windows("visual_window", visual_window, visual)
        query, key, value = self._text(text)
        seen_key, seen_value = self._visual(visual)
        length = text.shape[1]
        order = torch.arange(length, device=text.device)
        sees_text = (at_text[:, :, None] == at_text[:, None, :]) & (order[:, None] >= order)
        sees_visual = at_text[:, :, None] == at_visual[:, None, :]
        for name, mask, row in (("text", text_padding_mask, text), ("visual", visual_padding_mask, visual)):
            if mask is not None and (mask.dtype != torch.bool or mask.shape != row.shape[:2]):
                raise CompressionError(
                    f"{name}_padding_mask must be bool {list(row.shape[:2])}, got {mask.dtype} {list(mask.shape)}"
                )
        if text_padding_mask is not None:
            sees_text = sees_text & ~text_padding_mask[:, None, :] & ~text_padding_mask[:, :, None]
            sees_visual = sees_visual & ~text_padding_mask[:, :, None]
        if visual_padding_mask is not None:
            sees_visual = sees_visual & ~visual_padding_mask[:, None, :]
        bias = torch.zeros((), dtype=query.dtype, device=query.device)
        bias = bias.masked_fill(~torch.cat([sees_visual, sees_text], dim=-1), -math.inf)
        if weights is not None:
            logs = log_weight(weights, query.dtype)
            bias = bias + torch.cat([logs, logs.new_zeros(text.shape[:2])], dim=-1)[:, None, :]
        key, value = torch.cat([seen_key, key], dim=-2), torch.cat([seen_value, value], dim=-2)
        return self._fused(text, query, key, value, bias[:, None])

    def stream(self) -> CASAStream:
        """The same, one step of text after the other; it starts without a window."""
        return CASAStream(self)

    def _fused(self, text: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        context, _ = attend(query, key, value, bias, dropout=self.dropout if self.training else 0.0)
        out = linear(join_heads(context), self.out_weight, self.out_bias)
        if self.gate is not None:
            out = out * self.gate.tanh()
        return text + out if self.residual else out

    def _text(self, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = (split_heads(t, self.num_heads) for t in linear(text, self.text_weight, self.text_bias).chunk(3, -1))
        query, key, value = heads
        return query, key, value

    def _visual(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        if self.visual_weight is not None:
            both = linear(visual, self.visual_weight, self.visual_bias)
        else:  # keys and values of text: all rows but those of the queries
            bias = None if self.text_bias is None else self.text_bias[self.embed_dim :]
            both = linear(visual, self.text_weight[self.embed_dim :], bias)
        key, value = (split_heads(t, self.num_heads) for t in both.chunk(2, -1))
        return key, value

    def _windows(self, name: str, window: Tensor, tokens: Tensor) -> Tensor:
        if window.shape != tokens.shape[:2]:
            raise CompressionError(f"{name} must be {list(tokens.shape[:2])}, one a token, got {list(window.shape)}")
        if not window.is_floating_point():
            if window.dtype == torch.bool or window.is_complex():
                raise CompressionError(f"{name} must be whole numbers or seconds, got {window.dtype}")
            return window.to(torch.int64)
        if self.window_seconds is None:
            raise CompressionError(f"{name} in seconds needs window_seconds, the length of a window, in the layer")
        if window.dtype not in (torch.float32, torch.float64):  # half precision steps by 0.5 s at 1000 s
            raise CompressionError(f"{name} in seconds must be float32 or float64, got {window.dtype}")
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(window).all()):
            raise CompressionError(f"{name} must be finite, got {float(window[~torch.isfinite(window)][0])}")
        place = window.double() / self.window_seconds
        # A few roundings of the type: of the time, of the product that it came from; in float64, of a sum of thousands.
        slack = place.abs() * max(2 * torch.finfo(window.dtype).eps, 1e-12)
        edge = place.round()
        return torch.where((place - edge).abs() <= slack, edge, place.floor()).to(torch.int64)

    def _check(self, text: Tensor, visual: Tensor, weights: Tensor | None) -> None:
        shapes = f"text {text.dtype} {list(text.shape)}, visual {visual.dtype} {list(visual.shape)}"
        expected = f"floating-point text [B, L, {self.embed_dim}] and visual [B, n, {self.visual_dim}]"
        if text.ndim != 3 or visual.ndim != 3 or text.shape[0] != visual.shape[0]:
            raise CompressionError(f"expected {expected}, got {shapes}")
        if (text.shape[2], visual.shape[2]) != (self.embed_dim, self.visual_dim):
            raise CompressionError(f"expected {expected}, got {shapes}")
        if not text.is_floating_point() or not visual.is_floating_point():
            raise CompressionError(f"expected {expected}, got {shapes}")
        check_like(self.text_weight, text=text, visual=visual)
        if weights is not None:
            if weights.shape != visual.shape[:2]:
                raise CompressionError(f"weights must be {list(visual.shape[:2])}, got {list(weights.shape)}")
            check_weights(weights, visual, some=False)


class CASAStream:
    """A :class:`CASAFusion` over a stream: ``start_window``, then any number of ``step``; the next window forgets the
    last.

    What is kept are keys and values of the window's visual tokens and of its text so far, so that the state is bounded
    by the longest window, however long the stream. The outputs are those of the layer's ``forward`` over all of it.
    Text before the first window sees only text. What is kept is kept without its autograd graph, which would grow with
    the stream: gradients pass within a step, not to the tokens and the text before it; train with ``forward``. Not safe
    for several threads at once.
    """

    def __init__(self, fusion: CASAFusion) -> None:
        self._fusion = fusion
        self._key: Tensor | None = None  # [B, H, n + text so far, dh]
        self._value: Tensor | None = None
        self._bias: Tensor | None = None  # [B, n + text so far], log weights; None: all 1

    @property
    def state_bytes(self) -> int:
        """Bytes held between calls."""
        parts = (self._key, self._value, self._bias)
        return sum(part.untyped_storage().nbytes() for part in parts if part is not None)

    def start_window(self, visual: Tensor | TokenSet, weights: Tensor | None = None) -> None:
        """Forget the window before, and take the visual tokens of the next.

        Args:
            visual: ``[B, n, visual_dim]`` or ``[n, visual_dim]``, n may be 0; or a token set, which brings its weights.
            weights: ``[B, n]`` or ``[n]``, how many tokens each stands for; 0 masks it.

        Raises:
            CompressionError: shapes, types or values are not allowed; the state is as before the call.
        """
        if isinstance(visual, TokenSet):
            if weights is not None:
                raise CompressionError("a token set brings its own weights; give none beside it")
            weights = visual.weight
            visual = visual.tokens
        if visual.ndim == 2:
            visual, weights = visual[None], None if weights is None else weights[None]
        fusion = self._fusion
        fusion._check(visual.new_zeros(visual.shape[0], 0, fusion.embed_dim), visual, weights)
        key, value = fusion._visual(visual)
        self._key, self._value = key.detach().clone(), value.detach().clone()
        self._bias = None if weights is None else log_weight(weights.detach(), key.dtype)

    def step(self, text: Tensor) -> Tensor:
        """The output ``[B, k, E]`` for the next text tokens ``[B, k, E]`` of the window; ``[k, E]`` for ``[k, E]``.

        Raises:
            CompressionError: shapes or types are not allowed, or B is not that of the window.
        """
        if text.ndim == 2:
            return self.step(text[None])[0]
        fusion = self._fusion
        batch = text.shape[0] if self._key is None else self._key.shape[0]
        fusion._check(text, text.new_zeros(batch, 0, fusion.visual_dim), None)
        query, key, value = fusion._text(text)
        count = text.shape[1]
        if self._key is None or self._value is None:
            key, value = key.clone(), value.clone()  # not a view of the projection, which is larger
        else:
            key, value = torch.cat([self._key, key], dim=-2), torch.cat([self._value, value], dim=-2)
        order = torch.arange(key.shape[-2], device=text.device)
        now = order[key.shape[-2] - count :]
        bias = torch.zeros((), dtype=query.dtype, device=query.device).masked_fill(now[:, None] < order, -math.inf)
        bias = bias[None, None]
        kept = self._bias
        if kept is not None:
            kept = torch.cat([kept, kept.new_zeros(batch, count)], dim=-1)
            bias = bias + kept[:, None, None, :]
        out = fusion._fused(text, query, key, value, bias)
        self._key, self._value, self._bias = key.detach(), value.detach(), kept
        return out
