"""Orthogonal transforms along time: DCT low-pass and Haar, as compressors and as plain reconstructions.

Each patch is a trajectory of T tokens. What a budget buys is coefficient vectors: the lowest frequencies of the DCT-II
(N. Ahmed, T. Natarajan, K. R. Rao, "Discrete Cosine Transform", 1974), or the largest of a Haar basis (A. Haar, 1910)
whose dyadic pieces are cut at whole frames, so T need be no power of two.

Shapes: T frames, P patches a frame, n = T * P tokens, d width, m tokens kept, k coefficients or blocks of one patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.compressors.offline import Window
from csat_fusion.compressors.pooling import GridCompressor, grid_cells, grid_shape
from csat_fusion.errors import CompressionError

__all__ = ["DctCompressor", "HaarCompressor", "dct_lowpass", "haar_topk"]


class _TransformCompressor(GridCompressor):
    exact_budget: ClassVar[bool] = True

    def _cells(self, window: Window, limit: int) -> Tensor:
        patches = window.shape[1]
        return grid_cells(grid_shape(patches, self._grid), limit).to(window.tokens.device)[window.patch]


class DctCompressor(_TransformCompressor):
    """Keeps the lowest DCT-II coefficients of each patch's trajectory; exactly m tokens.

    Each patch gets ``m // P`` coefficients; the rest go one each to the patches with the most energy in their next
    coefficient. A patch's k coefficients are given as the low-passed signal at the centres of k equal blocks of frames,
    which a DCT-II of length k turns back into the coefficients. A token's weight and span are those of its block's
    frames. The transform takes frames as evenly spaced and equally weighted. Below one frame (m < P) patches are pooled
    into m cells of the grid, each one mean for the whole window. ``gap_seconds`` is ignored.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        if limit < patches:
            return self._cells(window, limit)
        tokens = window.tokens.reshape(frames, patches, -1)
        count = _lowest(_coefficients(tokens, min(limit // patches + 1, frames)), limit)  # [P]
        first = count.cumsum(dim=0) - count
        return (first + torch.arange(frames, device=tokens.device)[:, None] * count // frames).reshape(-1)

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        frames, patches = window.shape
        m = int(group.max()) + 1
        if m < patches:
            return None
        first, last = group.reshape(frames, patches)[0], group.reshape(frames, patches)[-1]
        tokens = window.tokens.reshape(frames, patches, -1)
        values = tokens.new_empty(m, tokens.shape[2])
        for k in torch.unique(last - first + 1).tolist():
            mine = torch.nonzero(last - first + 1 == k).squeeze(1)
            samples = _synthesis(k, k, tokens) @ _coefficients(tokens[:, mine], k).transpose(0, 1)  # [patches, k, d]
            samples = samples * math.sqrt(k / frames)
            values[first[mine, None] + torch.arange(k, device=group.device)] = samples
        assert self._like is not None
        return _within(values, self._like.dtype)


class HaarCompressor(_TransformCompressor):
    """Cuts each patch's trajectory in halves where that holds the most detail, and keeps the mean of each piece.

    Starts with one piece a patch; the piece with the most energy of detail in it (squared distance from its mean,
    weighted) is halved at its middle frame, until there are exactly m pieces. So the kept coefficients form a tree, and
    no small coefficient hides large ones below it. Below one frame (m < P) patches are pooled into m cells of the
    grid, each one mean for the whole window. ``gap_seconds`` is ignored: pieces end where halves end.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        if limit < patches:
            return self._cells(window, limit)
        tokens = window.tokens.reshape(frames, patches, -1)
        weight = window.weight.reshape(frames, patches)[:, 0].to(tokens.dtype)
        levels = _haar(tokens, weight)
        held = tokens.new_zeros(2 ** len(levels), patches, dtype=torch.float64)
        energy = []
        for level in reversed(levels):  # what a piece holds is its own coefficient and what its halves hold
            held = held[0::2] + held[1::2] + level.detail.double().square().sum(dim=-1)
            energy.append(held)
        energy.reverse()
        # A piece holds no less than its halves, so the m - P largest are a tree; of equal ones the upper come first.
        cut = torch.cat([level.cut for level in levels])  # [pieces], 0 where one half has no frame
        ranked = torch.cat(energy).masked_fill((cut == 0)[:, None], -1.0).reshape(-1)
        chosen = torch.argsort(ranked, descending=True, stable=True)[: limit - patches]
        starts = torch.zeros(frames, patches, dtype=torch.int64, device=tokens.device)
        starts[0] = 1
        starts[cut[chosen // patches], chosen % patches] = 1
        piece = starts.cumsum(dim=0)
        before = torch.nn.functional.pad(piece[-1].cumsum(dim=0)[:-1], (1, 0))
        return (before + piece - 1).reshape(-1)


def dct_lowpass(tokens: Tensor, keep: int) -> Tensor:
    """``tokens [T, P, d]`` rebuilt from exactly ``keep`` DCT-II coefficient vectors, the lowest of each patch.

    Each patch has ``keep // P``; the rest go one each to the patches with the most energy in their next coefficient.
    Differentiable; computed in float32 or float64, given in the type of ``tokens``.

    Raises:
        CompressionError: the tokens are not finite floating point [T, P, d], or ``keep`` is not 1 to T * P.
    """
    frames, patches = _checked(tokens, keep)
    working = tokens.to(compute_dtype(tokens.dtype))
    coefficients = _coefficients(working, min(keep // patches + 1, frames))  # [k, P, d]
    count = _lowest(coefficients, keep)
    rank = torch.arange(len(coefficients), device=tokens.device)[:, None]
    kept = torch.where((rank < count)[..., None], coefficients, 0.0)
    rebuilt = torch.einsum("tk,kpd->tpd", _synthesis(frames, len(kept), working), kept)
    return _within(rebuilt, tokens.dtype).to(tokens.dtype)


def haar_topk(tokens: Tensor, keep: int) -> Tensor:
    """``tokens [T, P, d]`` rebuilt from the ``keep`` coefficient vectors of the Haar basis that hold most energy.

    No tree is asked for, so this bounds what :class:`HaarCompressor` can reach with as many numbers (positions not
    counted). Differentiable; computed in float32 or float64, given in the type of ``tokens``.

    Raises:
        CompressionError: the tokens are not finite floating point [T, P, d], or ``keep`` is not 1 to T * P.
    """
    frames = _checked(tokens, keep)[0]
    working = tokens.to(compute_dtype(tokens.dtype))
    weight = working.new_ones(frames)
    levels = _haar(working, weight)
    root = working.mean(dim=0, keepdim=True) * math.sqrt(frames)  # [1, P, d]
    stack = torch.cat([root, *[level.detail for level in levels]])
    cut = torch.cat([torch.ones_like(weight[:1], dtype=torch.int64), *[level.cut for level in levels]])
    energy = stack.detach().double().square().sum(dim=-1).masked_fill((cut == 0)[:, None], -1.0)
    mask = torch.zeros(energy.numel(), dtype=torch.bool, device=tokens.device)
    mask[torch.argsort(energy.reshape(-1), descending=True, stable=True)[:keep]] = True
    stack = torch.where(mask.reshape(energy.shape)[..., None], stack, 0.0)
    mean, first = stack[:1] / math.sqrt(frames), 1
    for level in levels:
        detail = stack[first : first + len(level.cut)]
        first += len(level.cut)
        mean = torch.stack([mean - detail * level.left, mean + detail * level.right], dim=1).flatten(0, 1)
    rebuilt = mean[_leaf(frames, len(mean), working.device)]
    return _within(rebuilt, tokens.dtype).to(tokens.dtype)


def _checked(tokens: Tensor, keep: int) -> tuple[int, int]:
    if tokens.ndim != 3 or 0 in tokens.shape or not tokens.is_floating_point():
        raise CompressionError(
            f"tokens must be floating point [T, P, d], each at least 1, got {tokens.dtype} {list(tokens.shape)}"
        )
    if not bool(torch.isfinite(tokens.detach()).all()):
        raise CompressionError("tokens must be finite, got NaN or infinity")
    n = tokens.shape[0] * tokens.shape[1]
    if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= n:
        raise CompressionError(f"keep must be a whole number of coefficient vectors from 1 to {n}, got {keep!r}")
    return tokens.shape[0], tokens.shape[1]


def _within(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values that fit the type: a sum of few waves may overshoot the signal, and float16 ends at 65504."""
    limits = torch.finfo(dtype)
    return values.clamp(limits.min, limits.max)


def _synthesis(length: int, k: int, like: Tensor) -> Tensor:
    """``[length, k]``: the k lowest DCT-II basis vectors of that length, orthonormal, as columns."""
    time = torch.arange(length, dtype=torch.float64, device=like.device) + 0.5
    basis = torch.cos(math.pi / length * time[:, None] * torch.arange(k, device=like.device))
    basis *= math.sqrt(2 / length)
    basis[:, 0] = math.sqrt(1 / length)
    return basis.to(like.dtype)


def _coefficients(tokens: Tensor, k: int) -> Tensor:
    """The k lowest orthonormal DCT-II coefficients ``[k, P, d]`` along time of ``[T, P, d]``."""
    return torch.einsum("tk,tpd->kpd", _synthesis(len(tokens), k, tokens), tokens)


def _lowest(coefficients: Tensor, keep: int) -> Tensor:
    """How many of its lowest coefficients each patch keeps, ``[P]`` int64 that sum to ``keep``."""
    patches = coefficients.shape[1]
    whole, rest = divmod(keep, patches)
    count = torch.full((patches,), whole, device=coefficients.device)
    if rest:
        energy = coefficients[whole].detach().double().square().sum(dim=-1)
        count[torch.argsort(energy, descending=True, stable=True)[:rest]] += 1
    return count


@dataclass(frozen=True)
class _Level:
    """The Haar coefficients of the 2**l pieces of one level.

    ``detail [2**l, P, d]`` orthonormal coefficients, 0 where a half has no frame; ``cut [2**l]`` the first frame of the
    second half, 0 where a half has none; ``left``, ``right`` ``[2**l, 1, 1]``: by how much of a coefficient the mean of
    a half lies below or above that of the piece.
    """

    detail: Tensor
    cut: Tensor
    left: Tensor
    right: Tensor


def _leaf(frames: int, leaves: int, device: torch.device) -> Tensor:
    """The leaf ``[T]`` of each frame, where leaf i holds the frames from ``i * T // leaves`` to the next one's."""
    frame = torch.arange(1, frames + 1, device=device)
    return (frame * leaves + frames - 1) // frames - 1


def _haar(tokens: Tensor, weight: Tensor) -> list[_Level]:
    """The levels of the weighted Haar transform along time of ``[T, P, d]``, weights ``[T]``; the coarsest first.

    Piece i of level l holds the frames from ``i * T // 2**l`` to those of the next, so halves differ by a frame at
    most; with T a power of two and equal weights this is the Haar basis.
    """
    frames, patches, width = tokens.shape
    depth = (frames - 1).bit_length()
    leaf = _leaf(frames, 2**depth, tokens.device)
    mean = tokens.new_zeros(2**depth, patches, width).index_copy(0, leaf, tokens)
    mass = weight.new_zeros(2**depth).index_copy(0, leaf, weight)
    levels = []
    for level in range(depth - 1, -1, -1):
        first, second, a, b = mean[0::2], mean[1::2], mass[0::2, None, None], mass[1::2, None, None]
        both, mass = (a > 0) & (b > 0), mass[0::2] + mass[1::2]
        total = mass[:, None, None]
        safe_a, safe_b, safe_total = (torch.where(w > 0, w, 1.0) for w in (a, b, total))
        scale = torch.where(both, (a / safe_total * b).sqrt(), 0.0)
        middle = (2 * torch.arange(2**level, device=tokens.device) + 1) * frames // 2 ** (level + 1)
        levels.append(
            _Level(
                detail=(second - first) * scale,
                cut=torch.where(both.flatten(), middle, 0),
                left=torch.where(both, (b / safe_a / safe_total).sqrt(), 0.0),
                right=torch.where(both, (a / safe_b / safe_total).sqrt(), 0.0),
            )
        )
        mean = torch.where(both, first + (second - first) * (b / safe_total), torch.where(a > 0, first, second))
    return levels[::-1]
