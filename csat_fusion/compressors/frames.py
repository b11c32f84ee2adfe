"""Rivals to compare with: keeping everything, and keeping evenly spread frames.

Shapes: P patch tokens a frame, d width, m budget, F frames kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["IdentityCompressor", "UniformCompressor"]


@dataclass
class _Kept:
    """A kept frame ``tokens [p, d]`` and what it stands for: its ``frames`` follow one another in the stream."""

    tokens: Tensor
    start_seconds: float
    end_seconds: float
    weight: float
    frames: int = 1


class IdentityCompressor(Compressor):
    """Keeps every token as it is. ``budget=None`` sets no limit; with a budget, the frame beyond it is refused."""

    exact_budget = True
    unlimited = True

    def __init__(self, budget: int | None, *, gap_seconds: float = 1.0, keep_assignment: bool = False) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._clear()

    def _clear(self) -> None:
        self._kept: list[_Kept] = []

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        total = (len(self._kept) + 1) * len(tokens)
        if self._budget is not None and total > self._budget:
            raise CompressionError(
                f"identity keeps every token: with the frame at {start_seconds} s there are {total}, "
                f"the budget is {self._budget}; raise it, or give None for no limit"
            )
        self._kept.append(_Kept(tokens.clone(), start_seconds, end_seconds, weight))

    def _read(self) -> TokenSet:
        return _token_set(self._kept, np.arange(self._patches), np.ones(self._patches))

    def _assign(self) -> npt.NDArray[np.int64]:
        return np.arange(self._patches * len(self._kept), dtype=np.int64)


class UniformCompressor(Compressor):
    """Keeps whole frames spread evenly over the time seen so far, each standing for the time until the next.

    At most ``F = budget // P`` frames: when one more comes, the two neighbours that cover the least time together
    become one, which keeps the tokens of the earlier. Where the budget is less than one frame, one frame with evenly
    spread patches is kept, each standing for its neighbours in the order of patches too. ``gap_seconds`` is ignored:
    this rival is blind to content, and its spans say so.
    """

    _budget: int

    def __init__(self, budget: int, *, gap_seconds: float = 1.0, keep_assignment: bool = False) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._clear()

    def _clear(self) -> None:
        self._kept: list[_Kept] = []

    def _groups(self, patches: int) -> npt.NDArray[np.int64]:
        """The group ``[P]`` of each patch; the middle patch of a group stands for it."""
        kept = min(self._budget, patches)
        groups: npt.NDArray[np.int64] = np.arange(patches, dtype=np.int64) * kept // patches
        return groups

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        groups = self._groups(len(tokens))
        chosen = _middles(groups)
        index = torch.from_numpy(chosen).to(tokens.device)
        self._kept.append(_Kept(tokens[index], start_seconds, end_seconds, weight))
        if len(self._kept) <= max(1, self._budget // len(tokens)):
            return
        covered = [
            max(b.end_seconds, a.end_seconds) - a.start_seconds
            for a, b in zip(self._kept, self._kept[1:], strict=False)
        ]
        i = covered.index(min(covered))
        gone = self._kept.pop(i + 1)
        stays = self._kept[i]
        stays.end_seconds = max(stays.end_seconds, gone.end_seconds)
        stays.weight += gone.weight
        stays.frames += gone.frames

    def _read(self) -> TokenSet:
        groups = self._groups(self._patches)
        return _token_set(self._kept, _middles(groups), np.bincount(groups))

    def _assign(self) -> npt.NDArray[np.int64]:
        groups = self._groups(self._patches)
        frames = np.repeat(np.arange(len(self._kept)), [kept.frames for kept in self._kept])
        assigned: npt.NDArray[np.int64] = (frames[:, None] * (groups[-1] + 1) + groups).reshape(-1)
        return assigned


def _middles(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    middles: npt.NDArray[np.int64] = first + (np.bincount(groups) - 1) // 2
    return middles


def _token_set(kept: list[_Kept], patches: npt.NDArray[np.int64], share: npt.NDArray[np.generic]) -> TokenSet:
    """``patches [p]`` the patch index of each token of a kept frame, ``share [p]`` how many patches it stands for."""
    device = kept[0].tokens.device
    weight = torch.tensor([frame.weight for frame in kept], dtype=torch.float64)
    counts = torch.from_numpy(np.asarray(share, dtype=np.float64))
    index = torch.from_numpy(np.where(counts.numpy() == 1, patches, -1))
    p = len(patches)

    def each(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).repeat_interleave(p).to(device)

    return TokenSet(
        tokens=torch.cat([frame.tokens for frame in kept]),
        weight=(weight[:, None] * counts).reshape(-1).to(device=device, dtype=torch.float32),
        start_seconds=each([frame.start_seconds for frame in kept]),
        end_seconds=each([frame.end_seconds for frame in kept]),
        patch=index.repeat(len(kept)).to(device),
    )
