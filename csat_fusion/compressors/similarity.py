"""What the compressors by similarity share: directions, nearest rows, and means of groups.

Shapes: n tokens, d width, k rows to choose from, m groups, L window parts.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["directions", "even_parts", "even_share", "group_rows", "nearest", "noise"]

_BLOCK_NUMBERS = 16_000_000  # similarities of a block of work: 64 MB in float32


def noise(dtype: torch.dtype) -> float:
    """Differences of cosines below this are rounding."""
    return 16 * torch.finfo(dtype).eps


def directions(tokens: Tensor, origin: Tensor | None = None) -> Tensor:
    """The rows ``[n, d]`` at length 1, seen from ``origin [d]``; a row without a direction stays zero.

    That is a row of zeros, and one so near the origin that their difference is rounding.
    """
    largest = tokens.abs().amax(dim=1, keepdim=True)
    if origin is not None:
        largest = torch.maximum(largest, origin.abs().amax())
        tokens = tokens - origin
    size = tokens.abs().amax(dim=1, keepdim=True)
    known = size > (0.0 if origin is None else noise(tokens.dtype)) * largest
    # Divided before it is squared: squares of very small values would be zero.
    tokens = torch.where(known, tokens, 0.0) / torch.where(known, size, 1.0)
    norm = torch.linalg.vector_norm(tokens, dim=1, keepdim=True)
    return tokens / torch.where(norm > 0, norm, 1.0)


def nearest(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest product of each of ``rows [n, d]`` with ``others [k, d]``, and which that is, each ``[n]``.

    In blocks of rows, so that memory does not grow with ``n * k``.
    """
    block = max(1, _BLOCK_NUMBERS // len(others))
    found = [(part @ others.T).max(dim=1) for part in torch.split(rows, block)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def group_rows(rows: Tensor, weight: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means ``[m, d]`` and summed weights ``[m]`` of the groups; each number 0 to m - 1 must have a row.

    Summed in the order of the rows, so that a GPU gives the same every time.
    """
    order = torch.argsort(group, stable=True)
    lengths = torch.bincount(group)
    total = torch.segment_reduce(weight[order], "sum", lengths=lengths)
    share = (weight[order] / total.repeat_interleave(lengths)).to(rows.dtype)
    mean = torch.segment_reduce(rows[order] * share[:, None], "sum", lengths=lengths)
    return mean, total


def even_share(total: int, sizes: list[int]) -> list[int]:
    """``total`` shared out in proportion to ``sizes [L]``, in whole numbers that sum to it; never above a size.

    The largest remainders get what rounding down leaves, the first of equal ones first. ``total`` is at most the sum.
    """
    whole = sum(sizes)
    shares = [total * size // whole for size in sizes]
    rest = sorted(range(len(sizes)), key=lambda i: -(total * sizes[i] % whole))
    for i in rest[: total - sum(shares)]:
        shares[i] += 1
    return shares


def even_parts(total: int, parts: int) -> list[int]:
    """``total`` cut into ``parts`` whole numbers that differ by at most 1, larger ones spread evenly."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]
