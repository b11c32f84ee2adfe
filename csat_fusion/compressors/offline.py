"""Compressors that need all tokens at once: they keep what they were given, and compress it when they are read.

Shapes: T frames, P patch tokens a frame, n = T * P tokens, d width, m tokens kept.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor, compute_dtype
from csat_fusion.compressors.budget import Budget, Cosine
from csat_fusion.tokens import TokenSet

__all__ = ["OfflineCompressor", "Window", "token_set"]


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
        """The group ``[n]`` int64 of each token, 0 to at most ``limit - 1``; -1 where it is dropped."""

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        """The tokens ``[m, d]`` that stand for the groups; ``None``: their weighted means."""
        return None

    def _clear(self) -> None:
        self._frames: list[tuple[Tensor, float, float, float]] = []
        self._done: tuple[TokenSet, Tensor] | None = None

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        self._frames.append((tokens.clone(), start_seconds, end_seconds, weight))
        self._done = None

    def _read(self) -> TokenSet:
        kept = self._compressed()[0]
        return TokenSet(kept.tokens.clone(), kept.weight, kept.start_seconds, kept.end_seconds, kept.patch)

    def _assign(self) -> Tensor:
        return self._compressed()[1].cpu()

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
            with torch.inference_mode(), torch.autocast(self._frames[0][0].device.type, enabled=False):
                window = self._window()
                n = len(window.tokens)
                group = self._least(window) if isinstance(self._budget, Cosine) else self._groups(window, self._limit(n))
                values = self._values(window, group)
                self._done = token_set(window, group, values, self._frames[0][0].dtype)
        return self._done

    def _groups(self, window: Window, limit: int) -> Tensor:
        n = len(window.tokens)
        return torch.arange(n, device=window.tokens.device) if limit >= n else self._group(window, limit)

    def _least(self, window: Window) -> Tensor:
        """The groups for the smallest budget found, by bisection, that keeps the cosine."""
        raise NotImplementedError  # H4


def token_set(window: Window, group: Tensor, values: Tensor | None, dtype: torch.dtype) -> tuple[TokenSet, Tensor]:
    """The token set of the groups, in order of start, end and patch, and each token's index in it (``[n]``, -1 where
    dropped). Weights of dropped tokens must have been given to others by putting them into a group."""
    raise NotImplementedError  # H4
