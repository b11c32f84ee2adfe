"""One budget for several windows, spent where the video changes.

Each window is merged on its own, by Ward's cost, all the way down to one token; the cheapest merges of all windows are
made until the total holds. Costs only rise on the way down a window (Ward's cost is reducible), so the cheapest merges
of a window are always ones that can be made: the choice is well defined, and it is that of the greedy algorithm that
never merges across windows. A static window soon has only costly merges left to undo, and gives its tokens to others.

Shapes: W windows, n tokens of one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.compressors.offline import Window, token_set
from csat_fusion.compressors.rounds import Merges, squared_distances
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["share_budget"]


def share_budget(windows: Sequence[TokenSet], total: int, *, gap_seconds: float = 1.0) -> list[tuple[TokenSet, Tensor]]:
    """Merge the tokens of the windows until ``total`` are left in all, at least one in each.

    For streams, compress each to what it may have at most, then share. To go on with more windows, share what is left
    of the former with the new ones again.

    Args:
        windows: the token sets, of one width, type and device; memory grows with the square of the largest.
        total: how many tokens to keep in all, at least one a window; all are kept where there are no more.
        gap_seconds: tokens of a window with more unseen time than this between their spans merge only where no window
            has another pair left.

    Returns:
        For each window its token set, and where each of its tokens went: ``[n]`` int64 on the CPU.

    Raises:
        CompressionError: there is no window, they differ in width, type or device, a token is not finite, or the
            total or the gap is outside what is allowed.
    """
    _check(windows, total, gap_seconds)
    counts = torch.tensor([len(window) for window in windows])
    with torch.no_grad(), torch.autocast(windows[0].device.type, enabled=False):
        if total >= int(counts.sum()):
            wanted = torch.zeros_like(counts)
            trees: list[Merges | None] = [None] * len(windows)
        else:
            tokens = [window.tokens.to(compute_dtype(window.dtype)) for window in windows]
            # One factor for all windows, or their costs could not be compared.
            peaks = torch.stack([(one - one.mean(dim=0)).abs().max() for one in tokens])
            peak = torch.where(peaks.max() > 0, peaks.max(), 1.0).reshape(1, 1, 1)
            trees = [_tree(window, one, peak, gap_seconds) for window, one in zip(windows, tokens, strict=True)]
            wanted = _lowest([tree.height[0].cpu() for tree in trees if tree is not None], int(counts.sum()) - total)
        return [_cut(window, tree, int(k)) for window, tree, k in zip(windows, trees, wanted, strict=True)]


def _tree(window: TokenSet, tokens: Tensor, peak: Tensor, gap_seconds: float) -> Merges:
    """All merges of a window."""
    tree = Merges(
        squared_distances(tokens[None], peak),
        window.weight[None],
        1,
        window.start_seconds[None],
        window.end_seconds[None],
        gap_seconds,
    )
    tree.run()
    return tree


def _lowest(heights: list[Tensor], merges: int) -> Tensor:
    """How many of the lowest ``merges`` of all windows are of each, ``[W]``; of equal ones the first windows' first."""
    flat = torch.cat(heights)
    owner = torch.arange(len(heights)).repeat_interleave(torch.tensor([len(one) for one in heights]))
    chosen = owner[torch.argsort(flat, stable=True)[:merges]]
    return torch.bincount(chosen, minlength=len(heights))


def _cut(window: TokenSet, tree: Merges | None, merges: int) -> tuple[TokenSet, Tensor]:
    n, device = len(window), window.device
    group = torch.arange(n, device=device)
    if tree is not None:
        group = tree.groups(torch.tensor([merges], device=device))[0]
    whole = Window(
        tokens=window.tokens.to(compute_dtype(window.dtype)),
        weight=window.weight.double(),
        start_seconds=window.start_seconds,
        end_seconds=window.end_seconds,
        frame=torch.arange(n, device=device),
        patch=window.patch,
        shape=(n, 1),
    )
    kept, assigned = token_set(whole, group, None, window.dtype)
    return kept, assigned.cpu()


def _check(windows: Sequence[TokenSet], total: int, gap_seconds: float) -> None:
    if not windows:
        raise CompressionError("there is no window to share the budget, at least 1 is needed")
    first = windows[0]
    for i, window in enumerate(windows):
        if (window.width, window.dtype, window.device) != (first.width, first.dtype, first.device):
            raise CompressionError(
                f"window {i} has width {window.width}, {window.dtype} on {window.device}; "
                f"the first width {first.width}, {first.dtype} on {first.device}"
            )
        if not bool(torch.isfinite(window.tokens).all()):
            raise CompressionError(f"window {i} holds a token that is not finite")
    if isinstance(total, bool) or not isinstance(total, int) or total < len(windows):
        raise CompressionError(
            f"the total must be a whole number of tokens, at least 1 for each of {len(windows)} windows, got {total!r}"
        )
    if math.isnan(gap_seconds) or gap_seconds < 0:
        raise CompressionError(f"gap_seconds must be at least 0, got {gap_seconds!r}")
