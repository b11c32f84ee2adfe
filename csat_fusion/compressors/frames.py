"""Rivals to compare with: keeping everything, and keeping evenly spread frames.

Shapes: P patch tokens a frame, d width, m budget, F frames kept, p patches kept of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor
from csat_fusion.compressors.budget import Budget
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["IdentityCompressor", "UniformCompressor"]


@dataclass
class _Kept:
    """A kept frame ``tokens [P, d]`` and what it stands for: its ``frames`` follow one another in the stream."""

    tokens: Tensor
    start_seconds: float
    end_seconds: float
    weight: float
    frames: int = 1


class IdentityCompressor(Compressor):
    """Keeps every token as it is. ``None`` sets no limit; with a number or a ratio the frame beyond it is refused."""

    exact_budget = True
    unlimited = True
    by_cosine = True

    def __init__(self, budget: Budget | str, *, gap_seconds: float = 1.0, keep_assignment: bool = False) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._clear()

    def _clear(self) -> None:
        self._kept: list[_Kept] = []

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        total = (len(self._kept) + 1) * len(tokens)
        if self._limit(total) < total:
            raise CompressionError(
                f"identity keeps every token: with the frame at {start_seconds} s there are {total}, "
                f"the budget is {self._budget}; raise it, or give None for no limit"
            )
        self._kept.append(_Kept(tokens.clone(), start_seconds, end_seconds, weight))

    def _read(self) -> TokenSet:
        return _token_set(self._kept, torch.arange(self._patches))

    def _assign(self) -> Tensor:
        return torch.arange(self._patches * len(self._kept))


class UniformCompressor(Compressor):
    """Keeps whole frames spread evenly over the time seen so far, each standing for the time until the next.

    At most ``F = limit // P`` frames: when one more comes, the two neighbours that cover the least time together
    become one, which keeps the tokens of the earlier. Where the limit is less than one frame, one frame with evenly
    spread patches is kept, each standing for its neighbours in the order of patches too. ``gap_seconds`` is ignored:
    this rival is blind to content, and its spans say so.
    """

    def __init__(self, budget: Budget | str, *, gap_seconds: float = 1.0, keep_assignment: bool = False) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._clear()

    def _clear(self) -> None:
        self._kept: list[_Kept] = []

    def _groups(self) -> Tensor:
        """The group ``[P]`` of each patch; the middle patch of a group stands for it."""
        kept = min(self._limit(self._frames_seen * self._patches), self._patches)
        return torch.arange(self._patches) * kept // self._patches

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        # All patches are kept, also where the limit is less: a ratio's limit grows with the stream.
        self._kept.append(_Kept(tokens.clone(), start_seconds, end_seconds, weight))
        if len(self._kept) <= max(1, self._limit((self._frames_seen + 1) * len(tokens)) // len(tokens)):
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
        return _token_set(self._kept, self._groups())

    def _assign(self) -> Tensor:
        groups = self._groups()
        frames = torch.arange(len(self._kept)).repeat_interleave(torch.tensor([kept.frames for kept in self._kept]))
        return (frames[:, None] * (groups[-1] + 1) + groups).reshape(-1)


def _token_set(kept: list[_Kept], groups: Tensor) -> TokenSet:
    """``groups [P]``: neighbouring patches with one number are one token, whose value is that of the middle patch."""
    device = kept[0].tokens.device
    counts = torch.bincount(groups)
    middles = counts.cumsum(0) - counts + (counts - 1) // 2
    patch = torch.where(counts == 1, middles, -1)
    weight = torch.tensor([frame.weight for frame in kept], dtype=torch.float64)

    def each(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).repeat_interleave(len(counts)).to(device)

    index = middles.to(device)
    return TokenSet(
        tokens=torch.cat([frame.tokens[index] for frame in kept]),
        weight=(weight[:, None] * counts).reshape(-1).to(device=device, dtype=torch.float32),
        start_seconds=each([frame.start_seconds for frame in kept]),
        end_seconds=each([frame.end_seconds for frame in kept]),
        patch=patch.repeat(len(kept)).to(device),
    )
