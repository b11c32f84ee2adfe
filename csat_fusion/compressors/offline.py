"""Compressors that need all tokens at once: they keep what they were given, and compress it when they are read.

Shapes: T frames, P patch tokens a frame, n = T * P tokens, d width, m groups, that is tokens kept.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor, compute_dtype
from csat_fusion.compressors.budget import Budget, Cosine
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet, time_order

__all__ = ["OfflineCompressor", "Window", "group_means", "smallest_cosine", "token_set"]

#: the cosine of two equal directions, computed in float64, may miss 1 by this
COSINE_ROUNDING = 1e-9
_BLOCK_NUMBERS = 4_000_000  # float64 numbers of a block of work


@dataclass(frozen=True)
class Window:
    """All tokens of a window, frame after frame, on the device of the stream.

    ``tokens [n, d]`` float32 or float64; ``weight``, ``start_seconds``, ``end_seconds`` ``[n]`` float64; ``frame`` and
    ``patch`` ``[n]`` int64. ``shape`` is ``(T, P)``.
    """

    tokens: Tensor
    weight: Tensor
    start_seconds: Tensor
    end_seconds: Tensor
    frame: Tensor
    patch: Tensor
    shape: tuple[int, int]


class OfflineCompressor(Compressor):
    """A compressor whose ``result`` looks at the whole window; memory grows with the stream.

    A subclass says where each token goes (``_group``); what is kept is the weighted mean of each group, or what
    ``_values`` makes of it. Read once and unchanged since, the result is not computed again.
    """

    causal: ClassVar[bool] = False
    by_cosine: ClassVar[bool] = True

    def __init__(self, budget: Budget | str, *, gap_seconds: float = 1.0, keep_assignment: bool = False) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._clear()

    @abstractmethod
    def _group(self, window: Window, limit: int) -> Tensor:
        """The group ``[n]`` int64 of each token, 0 to at most ``limit - 1``; asked only where ``limit < n``.

        Every token goes to a group, those not kept too, or the weights would not sum to the tokens seen.
        """

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        """The tokens ``[m, d]`` that stand for the groups; ``None``: their weighted means.

        ``group [n]`` is as ``_group`` made it, renumbered in its order only where a number had no token.
        """
        return None

    def _clear(self) -> None:
        self._frames: list[tuple[Tensor, float, float, float]] = []
        self._done: tuple[TokenSet, Tensor] | None = None

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        self._frames.append((tokens.clone(), start_seconds, end_seconds, weight))
        self._done = None

    def _read(self) -> TokenSet:
        kept = self._compressed()[0]
        return TokenSet(
            kept.tokens.clone(),
            kept.weight.clone(),
            kept.start_seconds.clone(),
            kept.end_seconds.clone(),
            kept.patch.clone(),
        )

    def _assign(self) -> Tensor:
        return self._compressed()[1].cpu().clone()

    def _window(self) -> Window:
        tokens = torch.cat([frame[0] for frame in self._frames])
        frames, patches = len(self._frames), self._patches
        device = tokens.device

        def each(column: int) -> Tensor:
            values = torch.tensor([frame[column] for frame in self._frames], dtype=torch.float64)
            return values.repeat_interleave(patches).to(device)

        return Window(
            tokens=tokens.to(compute_dtype(tokens.dtype)),
            weight=each(3),
            start_seconds=each(1),
            end_seconds=each(2),
            frame=torch.arange(frames, device=device).repeat_interleave(patches),
            patch=torch.arange(patches, device=device).repeat(frames),
            shape=(frames, patches),
        )

    def _compressed(self) -> tuple[TokenSet, Tensor]:
        if self._done is None:
            like = self._frames[0][0]
            # Not inference_mode: what is kept is given out, and may be changed in place.
            with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
                window = self._window()
                if isinstance(self._budget, Cosine):
                    group, values = self._least(window, self._budget.least)
                else:
                    group, values = self._groups(window, self._limit(len(window.tokens)))
                self._done = token_set(window, group, values, like.dtype)
        return self._done

    def _groups(self, window: Window, limit: int) -> tuple[Tensor, Tensor | None]:
        n = len(window.tokens)
        if limit >= n:
            return torch.arange(n, device=window.tokens.device), None
        group = torch.unique(self._group(window, limit), return_inverse=True)[1]  # every number has a token
        return group, self._values(window, group)

    def _least(self, window: Window, least: float) -> tuple[Tensor, Tensor | None]:
        """The groups for the smallest budget that bisection finds to keep every token's cosine at ``least``.

        What is returned was measured, so it holds. That no smaller budget holds is sure only where a larger budget
        is never worse for any token, as bisection supposes.
        """
        fails, holds = 0, len(window.tokens)
        best = self._groups(window, holds)
        while holds - fails > 1:
            middle = (fails + holds) // 2
            group, values = self._groups(window, middle)
            if smallest_cosine(window, group, values) >= least - COSINE_ROUNDING:
                best, holds = (group, values), middle
            else:
                fails = middle
        return best


def group_means(window: Window, group: Tensor) -> Tensor:
    """The weighted mean ``[m, d]`` of each group; every number from 0 to m - 1 must have a token."""
    order = torch.argsort(group, stable=True)
    lengths = torch.bincount(group)
    total = torch.segment_reduce(window.weight[order], "sum", lengths=lengths)
    share = window.weight[order] / total.repeat_interleave(lengths)
    n, width = window.tokens.shape
    columns = max(1, _BLOCK_NUMBERS // n)
    # In float64 a block of columns at a time: sums over long groups keep their digits, and memory stays small. A sum
    # over each segment in its order, unlike adding at an index, is the same every time on a GPU too.
    means = [
        torch.segment_reduce(block.double()[order] * share[:, None], "sum", lengths=lengths)
        for block in torch.split(window.tokens, columns, dim=1)
    ]
    return torch.cat(means, dim=1).to(window.tokens.dtype) if width > columns else means[0].to(window.tokens.dtype)


def smallest_cosine(window: Window, group: Tensor, values: Tensor | None = None) -> float:
    """The least cosine between a token and what stands for it; of a zero token 1 with a zero one, 0 with any other."""
    kept = (group_means(window, group) if values is None else values).double()
    kept_norm = torch.linalg.vector_norm(kept, dim=1)
    least = 1.0
    rows = max(1, _BLOCK_NUMBERS // kept.shape[1])
    for tokens, mine in zip(torch.split(window.tokens, rows), torch.split(group, rows), strict=True):
        tokens = tokens.double()
        norm = torch.linalg.vector_norm(tokens, dim=1)
        scale = norm * kept_norm[mine]
        # Divided before the product: squares of small values would leave even float64.
        unit = tokens / torch.where(norm > 0, norm, 1.0)[:, None]
        other = kept[mine] / torch.where(kept_norm > 0, kept_norm, 1.0)[mine, None]
        both_zero = (norm == 0) & (kept_norm[mine] == 0)
        cosine = torch.where(scale > 0, (unit * other).sum(dim=1), both_zero.double())
        least = min(least, float(cosine.min()))
    return least


def token_set(window: Window, group: Tensor, values: Tensor | None, dtype: torch.dtype) -> tuple[TokenSet, Tensor]:
    """The token set of the groups, in order of start, end and patch, and each token's index in it (``[n]``).

    ``group [n]`` int64: every number from 0 to m - 1 has a token. ``values [m, d]``: what stands for each group, its
    weighted mean where None. Weights are summed, spans united; ``patch`` is -1 where members differ.

    Raises:
        CompressionError: a token belongs to no group, a group has no token, or ``values`` are not one a group.
    """
    if group.shape != window.weight.shape or group.dtype != torch.int64:
        raise CompressionError(
            f"groups must be int64 {list(window.weight.shape)}, got {group.dtype} {list(group.shape)}"
        )
    if int(group.min()) < 0:
        raise CompressionError(f"every token needs a group, or its weight is lost; got {int(group.min())}")
    lengths = torch.bincount(group)
    if int(lengths.min()) == 0:
        raise CompressionError(f"group {int(lengths.argmin())} of {len(lengths)} has no token")
    if values is not None and values.shape != (len(lengths), window.tokens.shape[1]):
        raise CompressionError(
            f"there are {len(lengths)} groups of width {window.tokens.shape[1]}, got values {list(values.shape)}"
        )
    tokens = group_means(window, group) if values is None else values
    order = torch.argsort(group, stable=True)

    def each(column: Tensor, how: str) -> Tensor:
        return torch.segment_reduce(column[order].double(), how, lengths=lengths)

    weight = each(window.weight, "sum")
    start, end = each(window.start_seconds, "min"), each(window.end_seconds, "max")
    low, high = each(window.patch, "min"), each(window.patch, "max")
    patch = torch.where(low == high, low, -1.0).to(torch.int64)
    rank = time_order(start, end, patch)
    place = torch.empty_like(rank)
    place[rank] = torch.arange(len(rank), device=rank.device)
    kept = TokenSet(
        tokens=tokens[rank].to(dtype),
        weight=weight[rank].to(torch.float32),
        start_seconds=start[rank],
        end_seconds=end[rank],
        patch=patch[rank],
    )
    return kept, place[group]
