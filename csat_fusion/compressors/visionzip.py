"""VisionZip: dominant tokens by the attention they receive, and the others merged into a few contextual ones.

Senqiao Yang, Yukang Chen, Zhuotao Tian, Chengyao Wang, Jingyao Li, Bei Yu, Jiaya Jia, "VisionZip: Longer is Better but
Not Necessary in Vision Language Models", 2024, arXiv 2412.04467. Written from the paper.

Shapes: T frames, P patch tokens a frame, n = T * P tokens, d width, m tokens kept, s tokens of a part, k kept of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.similarity import directions, even_parts, even_share, nearest
from csat_fusion.errors import CompressionError
from csat_fusion.tables import nearest_name

__all__ = ["VisionZipCompressor", "attention_received"]

_IMPORTANCE = ("norm", "attention")
# The paper keeps 54 dominant and 10 contextual tokens of 576, or 108 and 20, or 162 and 30.
_CONTEXTUAL = 10 / 64
_LEAST_OF_A_PART = 6  # five dominant and one contextual: the fewest in about that proportion
_BLOCK_NUMBERS = 16_000_000  # attention weights of a block of work: 64 MB in float32


class VisionZipCompressor(OfflineCompressor):
    """Keeps the most important tokens of a frame as they are, and merges each other into an evenly chosen one.

    Where this departs from the paper: importance is there the attention from the encoder's class token, or, in an
    encoder without one, the mean attention received from all tokens. Only tokens reach a compressor, so the default is
    their length: in trained vision transformers the tokens that gather information, and attention, are long ones
    (T. Darcet and others, "Vision Transformers Need Registers", 2023, arXiv 2309.16588), and it was measured to find
    events better than attention remade from the tokens. Give ``importance`` where the encoder's own is at hand.
    Similarity is of tokens, not of keys. Each frame is compressed for itself, as in the paper, while the budget gives
    it at least six tokens; with less, several frames are taken together.

    Args:
        budget: m, tokens to keep.
        gap_seconds: ignored: frames taken together may have a hole between them.
        importance: ``"norm"``, the length of a token; ``"attention"``, that which the tokens of a frame would receive
            from one another (see ``attention_received``); a function of the tokens ``[T, P, d]`` (float32 or float64)
            that gives ``[T, P]``; or such a tensor itself, for one window.
        contextual: the share of the tokens kept that is contextual, 0 < contextual <= 1; in every part at least one.

    Raises:
        CompressionError: an option is none of these; at ``result``: an importance of another shape, or not finite.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        importance: str | Tensor | Callable[[Tensor], Tensor] = "norm",
        contextual: float = _CONTEXTUAL,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if isinstance(importance, str) and importance not in _IMPORTANCE:
            raise CompressionError(
                f"no importance {importance!r}{nearest_name(importance, _IMPORTANCE)}; "
                f"there are {', '.join(_IMPORTANCE)}, a function and a tensor"
            )
        if not (isinstance(importance, str | Tensor) or callable(importance)):
            raise CompressionError(
                f"importance must be one of {', '.join(_IMPORTANCE)}, a function or a tensor, "
                f"got {type(importance).__name__}"
            )
        if isinstance(contextual, bool) or not isinstance(contextual, int | float) or not 0 < contextual <= 1:
            raise CompressionError(f"contextual must be above 0 and at most 1, got {contextual!r}")
        self._importance = importance
        self._contextual = contextual

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        unit = directions(window.tokens)
        importance = self._important(window)
        parts = max(1, min(frames, limit // _LEAST_OF_A_PART))
        sizes = [patches * count for count in even_parts(frames, parts)]
        groups: list[Tensor] = []
        first = made = 0
        for size, share in zip(sizes, even_share(limit, sizes), strict=True):
            part = slice(first, first + size)
            contextual = max(1, round(self._contextual * share))
            groups.append(_zipped(unit[part], importance[part], share - contextual, contextual) + made)
            first, made = first + size, made + share
        return torch.cat(groups)

    def _important(self, window: Window) -> Tensor:
        """How important each token is, ``[n]``."""
        frames = window.tokens.view(*window.shape, -1)
        if isinstance(self._importance, Tensor):
            found: object = self._importance
        elif callable(self._importance):
            found = self._importance(frames)
        elif self._importance == "norm":
            found = torch.linalg.vector_norm(frames, dim=2, dtype=torch.float64)
        else:
            found = attention_received(frames)
        if not isinstance(found, Tensor) or found.shape != window.shape or found.is_complex():
            got = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise CompressionError(f"importance must be real {list(window.shape)}, one a token, got {got}")
        found = found.to(device=frames.device, dtype=torch.float64)
        if not bool(torch.isfinite(found).all()):
            raise CompressionError(f"importance must be finite, got {found[~torch.isfinite(found)][0].item()}")
        return found.flatten()


def attention_received(tokens: Tensor) -> Tensor:
    """The mean attention ``[T, P]`` that each of ``tokens [T, P, d]`` receives from the others of its frame.

    Queries and keys are the tokens themselves, brought to a mean square of 1 over the frame, with softmax at scale
    ``1 / sqrt(d)``; a token does not attend to itself, or most would attend to nothing else. One token alone in its
    frame gets 1.
    """
    frames, patches, width = tokens.shape
    if patches == 1:
        return tokens.new_ones(frames, 1)
    # Divided before they are squared: squares of very small values would be zero.
    largest = tokens.abs().amax(dim=(1, 2), keepdim=True)
    tokens = tokens / torch.where(largest > 0, largest, 1.0)
    square = tokens.square().mean(dim=(1, 2), keepdim=True)
    tokens = tokens / torch.where(square > 0, square, 1.0).sqrt()
    received: list[Tensor] = []
    for part in torch.split(tokens, max(1, _BLOCK_NUMBERS // patches**2)):
        logits = part @ part.transpose(1, 2) / width**0.5
        logits.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        received.append(logits.softmax(dim=2).mean(dim=1))
    return torch.cat(received)


def _zipped(unit: Tensor, importance: Tensor, dominant: int, contextual: int) -> Tensor:
    """The groups ``[s]`` of one part: ``dominant`` single tokens, then ``contextual`` merged ones."""
    order = torch.argsort(importance, descending=True, stable=True)
    group = torch.empty_like(order)
    group[order[:dominant]] = torch.arange(dominant, device=order.device)
    rest = order[dominant:].sort().values
    chosen = torch.arange(contextual, device=order.device) * len(rest) // contextual
    merged = nearest(unit[rest], unit[rest[chosen]])[1]
    merged[chosen] = torch.arange(contextual, device=order.device)
    group[rest] = dominant + merged
    return group
