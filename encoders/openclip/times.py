"""When a token was, told to a decoder that has no parameters for it: sinusoids added to the token.

Sinusoids of a position are those of A. Vaswani and others, "Attention Is All You Need", 2017, arXiv 1706.03762. A
merged token stands for a span, not for a moment, so each sinusoid is averaged over the span, much as J. Barron and
others do for volumes in space ("Mip-NeRF", 2021, arXiv 2103.13415): what lasts long keeps only the slow ones. The
average is also the mean of those that the members of a merged token would have had. Tokens are merged before time is
added, as those that differ only in their time should go together.

Shapes: B windows, m tokens, d their width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from encoders.errors import EncoderInputError

__all__ = ["AMPLITUDE", "add_times", "time_features"]

# Of a sinusoid, as a share of the token's root mean square. Half of the width has one, each with a mean square of half
# of this squared: a sixteenth of the token's own power. Less is learnt more slowly, and more drowns the content.
AMPLITUDE = 0.5

_PERIODS_SECONDS = (1.0, 128.0)  # of those that count seconds from the start of the segment: slowest last
_TURNS = (8.0, 0.25)  # of those that count shares of the segment; the last one tells early from late without doubt


def time_features(start_seconds: Tensor, end_seconds: Tensor, span: Tensor, width: int) -> Tensor:
    """Sinusoids of the tokens' times relative to their segment.

    The first quarter of the width counts seconds from the segment's start, the last quarter shares of the segment; the
    half between stays 0, and so does everything of a still picture.

    Args:
        start_seconds, end_seconds: ``[..., m]``, the half-open span of each token.
        span: ``[..., 2]``, start and end of the segment; NaN for a still picture.
        width: d, at least 8.

    Returns:
        ``[..., m, d]`` float32, each between -1 and 1.

    Raises:
        EncoderInputError: shapes disagree, or a width below 8.
    """
    if start_seconds.shape != end_seconds.shape or span.shape != (*start_seconds.shape[:-1], 2):
        raise EncoderInputError(
            f"times must be start and end [.., m] and span [.., 2], got {list(start_seconds.shape)}, "
            f"{list(end_seconds.shape)} and {list(span.shape)}"
        )
    count = width // 8  # frequencies in a quarter, each with a sine and a cosine
    if count < 1:
        raise EncoderInputError(f"tokens of width {width} are too narrow for their times, which need at least 8")
    still = span.isnan().any(dim=-1, keepdim=True)
    # in float64: late in a long video, float32 seconds are coarse
    begin, finish = torch.where(still, span.new_tensor([0.0, 1.0]), span).double().chunk(2, dim=-1)
    length = finish - begin
    middle = (start_seconds.double() + end_seconds.double()) / 2 - begin
    lasting = end_seconds.double() - start_seconds.double()
    periods = _spaced(*_PERIODS_SECONDS, count, span.device)
    turns = _spaced(*_TURNS, count, span.device)
    seconds = _averaged(middle, lasting, 1 / periods)
    shares = _averaged(middle / length, lasting / length, turns)
    gap = seconds.new_zeros(*seconds.shape[:-1], width - 4 * count)
    features = torch.cat([seconds, gap, shares], dim=-1)
    return torch.where(still[..., None], 0.0, features).float()


def add_times(tokens: Tensor, start_seconds: Tensor, end_seconds: Tensor, span: Tensor) -> Tensor:
    """``tokens [B, m, d]`` with :func:`time_features` added, ``AMPLITUDE`` times as large as each token is."""
    features = time_features(start_seconds, end_seconds, span, tokens.shape[-1])
    size = tokens.detach().float().square().mean(dim=-1, keepdim=True).sqrt()
    return tokens + (AMPLITUDE * size * features).to(tokens.dtype)


def _averaged(middle: Tensor, lasting: Tensor, frequency: Tensor) -> Tensor:
    """Sines and cosines ``[..., m, 2 K]`` of K frequencies, averaged over spans around ``middle [..., m]``."""
    turns = middle[..., None] * frequency
    # the mean of a sinusoid over a span is its middle times sin(x) / x
    kept = torch.sinc(lasting[..., None] * frequency)
    angle = 2 * math.pi * turns
    return torch.cat([angle.sin() * kept, angle.cos() * kept], dim=-1)


def _spaced(first: float, last: float, count: int, device: torch.device) -> Tensor:
    """``count`` numbers from ``first`` to ``last`` in equal ratios; only the last where one is asked for."""
    steps = torch.linspace(0, 1, count, dtype=torch.float64, device=device) if count > 1 else torch.ones(1).double()
    return (math.log(first) + steps.to(device) * math.log(last / first)).exp()
