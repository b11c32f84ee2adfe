"""A composition: one compressor along time, then one over what it kept.

Shapes: P patches a frame, n tokens seen, r tokens that the first stage keeps, m tokens kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from csat_fusion.compressors.base import Compressor, compute_dtype, make_compressor, share_of
from csat_fusion.compressors.budget import Budget, Ratio
from csat_fusion.compressors.offline import OfflineCompressor, Window, token_set
from csat_fusion.compressors.pooling import SpatialPoolCompressor
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["ComposedCompressor"]


@dataclass(frozen=True)
class _AtLeastOneFrame(Ratio):
    """A share of the tokens seen, but never less than the ``patches`` of one frame."""

    patches: int = 1

    def limit(self, seen: int) -> int:
        return min(seen, max(self.patches, super().limit(seen)))


class ComposedCompressor(Compressor):
    """Two stages: the first streams and keeps ``m / share`` tokens, the second reduces those to at most m when read.

    The first keeps at least one frame's tokens, so that each still has its patch. The second sees the first's tokens
    with their weights and spans, in order of start: ``spatial-pool`` as tokens of places on the grid, where those that
    start together are a frame; every other as a row of frames of one token. Weights, spans and assignment are those of
    both stages together. Causal where the first stage is (``causal`` says so): the second looks only at what the first
    kept.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`; both stages get the same gap.
        first: the name of any compressor with a budget; with ``spatial-pool`` after it, one that merges within a patch.
        second: the name of a compressor that works on a whole window (an :class:`OfflineCompressor`).
        share: how many of the first's tokens the second keeps, above 0 and at most 1.
        first_options, second_options: options of their classes.
    """

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        first: str = "patch-runs",
        second: str = "spatial-pool",
        share: float = 0.5,
        first_options: Mapping[str, Any] | None = None,
        second_options: Mapping[str, Any] | None = None,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._share = share_of("share", share)
        for stage_name, name, options in (("first", first, first_options), ("second", second, second_options)):
            if not isinstance(name, str):
                raise CompressionError(f"{stage_name} must be the name of a compressor, got {name!r}")
            if not (options is None or (isinstance(options, Mapping) and all(isinstance(key, str) for key in options))):
                raise CompressionError(f"{stage_name}_options must be a mapping of names to values, got {options!r}")
        self._first_name, self._first_options = first, dict(first_options or {})
        stage = make_compressor(second, 1, gap_seconds=gap_seconds, **dict(second_options or {}))
        if not isinstance(stage, OfflineCompressor):
            raise CompressionError(
                f"the second stage must be a compressor that works on a whole window, such as 'spatial-pool' or "
                f"'kmeans'; {second!r} streams"
            )
        self._second = stage
        # The class cannot know what its first stage is.
        self.causal = self._make_first(1).causal  # type: ignore[misc]
        self._clear()

    def _make_first(self, patches: int) -> Compressor:
        if isinstance(self._budget, Ratio):
            budget: Budget = _AtLeastOneFrame(min(1.0, self._budget.share / self._share), patches)
        else:
            assert isinstance(self._budget, int)
            budget = max(patches, int(self._budget / self._share))
        return make_compressor(
            self._first_name,
            budget,
            gap_seconds=self._gap_seconds,
            keep_assignment=self._keep_assignment,
            **self._first_options,
        )

    def _clear(self) -> None:
        self._first: Compressor | None = None
        self._done: tuple[TokenSet, Tensor] | None = None

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        first = self._first if self._first is not None else self._make_first(len(tokens))
        # Not in half precision: what it keeps would be rounded before the second stage, and again after it.
        first.update(tokens.to(compute_dtype(tokens.dtype)), start_seconds, end_seconds, weight)
        self._first, self._done = first, None

    def _compressed(self) -> tuple[TokenSet, Tensor]:
        """What is kept, and the token of each of the first's tokens, ``[r]``."""
        if self._done is None:
            assert self._first is not None
            with torch.no_grad(), torch.autocast(self._first.result().device.type, enabled=False):
                self._done = self._reduce(self._first.result())
        return self._done

    def _reduce(self, kept: TokenSet) -> tuple[TokenSet, Tensor]:
        assert self._like is not None
        limit = self._limit(self._frames_seen * self._patches)
        device = kept.device
        row = torch.arange(len(kept), device=device)
        if len(kept) <= limit:
            return replace(kept, tokens=kept.tokens.to(self._like.dtype)), row
        window = Window(
            tokens=kept.tokens,
            weight=kept.weight.double(),
            start_seconds=kept.start_seconds,
            end_seconds=kept.end_seconds,
            frame=row,
            patch=torch.zeros_like(row),
            shape=(len(kept), 1),
        )
        if isinstance(self._second, SpatialPoolCompressor):
            starts, frame = torch.unique(kept.start_seconds, return_inverse=True)
            window = replace(window, frame=frame, patch=kept.patch, shape=(len(starts), self._patches))
        group = torch.unique(self._second._group(window, limit), return_inverse=True)[1]
        values = self._second._values(window, group)
        return token_set(replace(window, patch=kept.patch), group, values, self._like.dtype)

    def _read(self) -> TokenSet:
        kept = self._compressed()[0]
        parts = (kept.tokens, kept.weight, kept.start_seconds, kept.end_seconds, kept.patch)
        return TokenSet(*(part.clone() for part in parts))

    def _assign(self) -> Tensor:
        assert self._first is not None
        return self._compressed()[1].cpu()[self._first.assignment()]
