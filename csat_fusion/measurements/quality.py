"""How good a measurement is for sparse recovery: its coherence, and an estimate of its restricted isometry constant.

Take ``Phi`` itself for signals sparse as they are, or ``Phi Psi`` for signals sparse in a dictionary.

Shapes: m rows, K columns (n tokens, or atoms), s entries of a sparse code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.measurements.hashing import checked_seed, hash_bits

__all__ = ["mutual_coherence", "restricted_isometry"]

_CHUNK = 1024  # columns, or supports, that are looked at together


def mutual_coherence(matrix: Tensor) -> float:
    """The largest ``|cos|`` between two different columns of ``[m, K]``, from 0 to 1; 0 where there is one column.

    A code of s entries is the only one that sparse, and both OMP and basis pursuit find it, where
    ``s < (1 + 1 / coherence) / 2`` (D. L. Donoho, M. Elad, 2003; J. A. Tropp, "Greed is good", 2004). That is a worst
    case: random measurements do much better than it promises.

    Raises:
        CompressionError: ``matrix`` is not finite floating point ``[m, K]``, or a column is zero.
    """
    matrix = _checked(matrix)
    norm = torch.linalg.vector_norm(matrix, dim=0)
    if bool((norm == 0).any()):
        raise CompressionError(f"column {int((norm == 0).nonzero()[0])} is zero, so its angle to others is undefined")
    matrix = matrix / norm
    largest = 0.0
    for start in range(0, matrix.shape[1], _CHUNK):
        product = (matrix[:, start : start + _CHUNK].mT @ matrix).abs()
        product.diagonal(offset=start).zero_()
        largest = max(largest, float(product.max()))
    return min(largest, 1.0)


def restricted_isometry(matrix: Tensor, sparsity: int, trials: int = 200, seed: int = 0) -> float:
    """The largest ``| |A x|^2 / |x|^2 - 1 |`` found over codes x of ``sparsity`` entries, on random supports.

    A lower bound of the restricted isometry constant of that order: each support is searched to the end (through the
    singular values of its columns), but only ``trials`` of them are, and finding the constant is NP-hard. Recovery of
    every s-sparse code is promised where the constant of order ``2 s`` is below ``1 / sqrt(2)`` (T. T. Cai, A. Zhang,
    2014, arXiv 1306.1154), so a value above that says that there is no promise; one below proves nothing.

    Args:
        matrix: A, ``[m, K]`` finite floating point.
        sparsity: entries of a code, 1 to K.
        trials: supports to try, at least 1.
        seed: whole number from 0 to 2^63 - 1; the first supports of more trials are those of fewer.

    Raises:
        CompressionError: a value is outside what is allowed.
    """
    matrix = _checked(matrix)
    columns = matrix.shape[1]
    for name, value, largest in (("sparsity", sparsity, columns), ("trials", trials, None)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (largest and value > largest):
            allowed = f"from 1 to {largest}" if largest else "at least 1"
            raise CompressionError(f"{name} must be a whole number {allowed}, got {value!r}")
    checked_seed(seed)
    worst = 0.0
    chunk = max(1, min(_CHUNK, (1 << 22) // (columns + matrix.shape[0] * sparsity)))
    for start in range(0, trials, chunk):
        trial = torch.arange(start, min(start + chunk, trials), device=matrix.device)[:, None]
        order = hash_bits(seed, trial, torch.arange(columns, device=matrix.device)).argsort(dim=1, stable=True)
        stretch = torch.linalg.svdvals(matrix.mT[order[:, :sparsity]]).square()
        least = stretch.amin() if sparsity <= matrix.shape[0] else stretch.new_zeros(())  # more columns than rows
        worst = max(worst, float(stretch.amax()) - 1.0, 1.0 - float(least))
    return worst


def _checked(matrix: Tensor) -> Tensor:
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point() or matrix.ndim != 2 or 0 in matrix.shape:
        got = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise CompressionError(f"a matrix must be floating point [m, K], m and K at least 1, got {got}")
    if not bool(torch.isfinite(matrix).all()):
        raise CompressionError(f"a matrix must be finite, got {float(matrix[~torch.isfinite(matrix)][0])}")
    return matrix.detach().double()
