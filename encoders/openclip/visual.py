"""What a caption decoder attends to: token sets of one batch, side by side.

Shapes: B windows, m tokens of the longest, d their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from csat_fusion.tokens import TokenSet
from encoders.errors import EncoderInputError

__all__ = ["VisualTokens", "padded"]


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """``tokens [B, m, d]`` floating point, and what is known of each.

    Attributes:
        weights: ``[B, m]``, how many tokens each stands for, when a compressor made them; ``None``: raw tokens of
            frames, which the decoder's attention may still merge.
        start_seconds, end_seconds: ``[B, m]`` float64, the half-open span of each.
        padding: ``[B, m]`` bool, true where there is no token.
        span: ``[B, 2]`` float64, start and end of each window's segment; NaN for a still picture. ``None``: all stills.

    Raises:
        EncoderInputError: shapes disagree, or there is a span without times.
    """

    tokens: Tensor
    weights: Tensor | None = None
    start_seconds: Tensor | None = None
    end_seconds: Tensor | None = None
    padding: Tensor | None = None
    span: Tensor | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or 0 in self.tokens.shape or not self.tokens.is_floating_point():
            raise EncoderInputError(
                f"visual tokens must be floating point [B, m, d], each at least 1, "
                f"got {self.tokens.dtype} {list(self.tokens.shape)}"
            )
        each = self.tokens.shape[:2]
        for name, shape in (
            ("weights", each),
            ("start_seconds", each),
            ("end_seconds", each),
            ("padding", each),
            ("span", (each[0], 2)),
        ):
            part: Tensor | None = getattr(self, name)
            if part is not None and part.shape != shape:
                raise EncoderInputError(
                    f"{name} must be {list(shape)} for tokens {list(self.tokens.shape)}, got {list(part.shape)}"
                )
        if self.padding is not None and self.padding.dtype != torch.bool:
            raise EncoderInputError(f"padding must be bool, got {self.padding.dtype}")
        if (self.start_seconds is None) != (self.end_seconds is None):
            raise EncoderInputError("start_seconds and end_seconds belong together; one of them is missing")
        if self.span is not None and self.start_seconds is None:
            raise EncoderInputError("a span of the segment needs start_seconds and end_seconds of the tokens")

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> VisualTokens:
        """The same on another device, or with ``tokens`` in another type."""
        rest = (self.weights, self.start_seconds, self.end_seconds, self.padding, self.span)
        return VisualTokens(
            self.tokens.to(device=device, dtype=dtype), *(None if part is None else part.to(device) for part in rest)
        )


def padded(token_sets: Sequence[TokenSet], spans: Sequence[tuple[float, float] | None] | None = None) -> VisualTokens:
    """Token sets side by side, filled up to the longest.

    Args:
        spans: start and end in seconds of each set's segment; ``None``: a still picture, of which no time is told.

    Raises:
        EncoderInputError: no sets, sets of unlike width, type or device, or spans that do not fit.
    """
    if not token_sets:
        raise EncoderInputError("there must be at least one token set")
    kinds = {(one.width, one.dtype, one.device) for one in token_sets}
    if len(kinds) > 1:
        widths = ", ".join(str(one) for one in sorted({one.width for one in token_sets}))
        raise EncoderInputError(f"token sets of one batch must agree in width, type and device; widths are {widths}")
    if spans is not None and len(spans) != len(token_sets):
        raise EncoderInputError(f"there must be a span for each of the {len(token_sets)} token sets, got {len(spans)}")
    for span in spans or ():
        if span is not None and not -torch.inf < span[0] < span[1] < torch.inf:
            raise EncoderInputError(f"a segment's span must be finite and end after it starts, got {tuple(span)}")
    longest = max(len(one) for one in token_sets)
    first = token_sets[0]

    def side_by_side(parts: list[Tensor], filler: float) -> Tensor:
        out = parts[0].new_full((len(parts), longest, *parts[0].shape[1:]), filler)
        for row, part in zip(out, parts, strict=True):
            row[: len(part)] = part
        return out

    lengths = torch.tensor([len(one) for one in token_sets], device=first.device)
    padding = torch.arange(longest, device=first.device) >= lengths[:, None]
    still = (torch.nan, torch.nan)
    return VisualTokens(
        side_by_side([one.tokens for one in token_sets], 0.0),
        side_by_side([one.weight for one in token_sets], 0.0),
        side_by_side([one.start_seconds for one in token_sets], 0.0),
        side_by_side([one.end_seconds for one in token_sets], 1.0),
        padding if bool(padding.any()) else None,
        torch.tensor([span or still for span in spans], dtype=torch.float64, device=first.device) if spans else None,
    )
