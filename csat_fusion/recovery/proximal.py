"""Recovery by proximal gradient steps: ISTA, FISTA and group ISTA; differentiable, as the steps are unrolled.

The objective of a channel (of all channels together for the group form) is::

    1/2 |y - A z|^2 + threshold * |z|_1              ista, fista
    1/2 |Y - A Z|^2 + threshold * sum_k |Z_k|_2      group_ista; Z_k is the row of atom k over all channels

scikit-learn's ``Lasso`` divides the square by m, so its ``alpha`` is ``threshold / m``.

A step is ``z <- soft(z + A^T (y - A z) / L, threshold / L)`` with L the largest eigenvalue of ``A^T A``, exactly.
A problem has converged when a step changes its code by at most ``tolerance`` of the code's own norm; from then on it is
left alone, so that a result does not depend on what else is in the batch. ``duality_gap`` certifies a result.

Shapes: m measurements, K atoms, d channels; leading dimensions are batch dimensions and broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.recovery.base import Recovered, broadcast, fraction, problem, size_of, whole_number

__all__ = ["duality_gap", "fista", "group_ista", "ista", "lipschitz", "soft_threshold"]

# Looking whether all problems have converged waits for the device; the answer does not change the result.
_LOOK_EVERY = 16


def soft_threshold(code: Tensor, threshold: Tensor | float) -> Tensor:
    """``sign(z) max(|z| - threshold, 0)``, entry by entry."""
    return code.sign() * (code.abs() - threshold).clamp_min(0)


def group_soft_threshold(code: Tensor, threshold: Tensor | float) -> Tensor:
    """Shrink each row ``[..., K, d]`` over its channels: ``max(1 - threshold / |row|, 0) row``."""
    # Rows of zeros stay zero; their norm is kept off 0, where its gradient would not be a number.
    square = (code * code).sum(dim=-1, keepdim=True)
    norm = torch.where(square > 0, square, 1.0).sqrt()
    return code * (1 - threshold / norm).clamp_min(0)


def lipschitz(operator: Tensor) -> Tensor:
    """``L [..., 1, 1]``: the largest eigenvalue of ``A^T A``, by which steps are divided; 1 where A is all zeros.

    Differentiable. A hair above the eigenvalue, so that rounding does not make a step too long.
    """
    rows, atoms = operator.shape[-2:]
    gram = operator @ operator.mT if rows <= atoms else operator.mT @ operator
    largest = torch.linalg.eigvalsh(gram)[..., -1:, None]
    margin = 1 + 8 * torch.finfo(operator.dtype).eps * max(1, min(rows, atoms)) ** 0.5
    return torch.where(largest > 0, largest * margin, 1.0)


def ista(
    y: Tensor, operator: Tensor, threshold: float | Tensor, *, steps: int = 1000, tolerance: float = 1e-6
) -> Recovered:
    """Iterative soft thresholding.

    I. Daubechies, M. Defrise, C. De Mol, "An iterative thresholding algorithm for linear inverse problems with a
    sparsity constraint", 2004 (arXiv math/0307152). The objective falls like 1 / steps.

    Args:
        y: ``[..., m, d]``, each channel a problem of its own.
        operator: A, ``[..., m, K]``. Columns of zeros get a code of zero.
        threshold: the weight of the penalty, at least 0; a tensor broadcasts to ``[..., K, d]``.
        steps: the most steps to take, at least 1.
        tolerance: of the criterion above; 0 takes all steps unless one changes nothing (and in torch.export all).

    Raises:
        CompressionError: a value outside what is allowed, not finite, or of a shape that does not fit.
    """
    return _descend(y, operator, threshold, steps, tolerance, joint=False, accelerate=False)


def fista(
    y: Tensor, operator: Tensor, threshold: float | Tensor, *, steps: int = 1000, tolerance: float = 1e-6
) -> Recovered:
    """Accelerated soft thresholding; arguments and errors of :func:`ista`.

    A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", 2009. The
    objective falls like 1 / steps^2. Momentum starts afresh where it points uphill (B. O'Donoghue, E. Candes,
    "Adaptive restart for accelerated gradient schemes", 2012, arXiv 1204.3982, the gradient scheme).
    """
    return _descend(y, operator, threshold, steps, tolerance, joint=False, accelerate=True)


def group_ista(
    y: Tensor,
    operator: Tensor,
    threshold: float | Tensor,
    *,
    steps: int = 1000,
    tolerance: float = 1e-6,
    accelerate: bool = False,
) -> Recovered:
    """Soft thresholding of whole rows: all channels of a problem use the same atoms.

    The group lasso (M. Yuan, Y. Lin, "Model selection and estimation in regression with grouped variables", 2006) with
    one group for each atom. Arguments and errors of :func:`ista`, but ``threshold`` broadcasts to ``[..., K, 1]``;
    ``accelerate`` takes the steps of :func:`fista`.
    """
    return _descend(y, operator, threshold, steps, tolerance, joint=True, accelerate=accelerate)


def duality_gap(y: Tensor, operator: Tensor, code: Tensor, threshold: float | Tensor, *, joint: bool = False) -> Tensor:
    """How far the objective of ``code`` is above the least one, at most: ``[..., d]``, or ``[..., 1]`` if ``joint``.

    The gap to the dual point that the scaled residual gives. With a threshold of 0 it is the whole objective.
    """
    y, operator, batch = problem(y, operator)
    level = _threshold(threshold, y, operator, batch, joint)
    code = code.to(y.dtype)
    residual = y - operator @ code
    slope = operator.mT @ residual
    if joint:
        slope, size = _norm(slope), _norm(code)
    else:
        slope, size = slope.abs(), code.abs()
    sums = (-2, -1) if joint else (-2,)
    # The dual point must satisfy |A_k^T u| <= threshold at every atom.
    share = torch.where(slope > level, level / slope, 1.0).amin(dim=-2, keepdim=True)
    primal = 0.5 * (residual * residual).sum(dim=sums) + (level * size).sum(dim=sums)
    dual = (share * residual * y).sum(dim=sums) - 0.5 * (share * residual).square().sum(dim=sums)
    gap = primal - dual
    return gap[..., None] if joint else gap


def _norm(code: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(code, dim=-1, keepdim=True)
    return norm


def _threshold(threshold: float | Tensor, y: Tensor, operator: Tensor, batch: tuple[int, ...], joint: bool) -> Tensor:
    """The threshold as a tensor, checked."""
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | Tensor):
        raise CompressionError(f"threshold must be a number or a tensor, got {type(threshold).__name__}")
    level = torch.as_tensor(threshold, dtype=y.dtype, device=y.device)
    shape = (*batch, operator.shape[-1], 1 if joint else y.shape[-1])
    if broadcast(tuple(level.shape), shape) != shape:
        raise CompressionError(f"threshold {list(level.shape)} does not broadcast to the code's {list(shape)}")
    if not torch.compiler.is_compiling():
        good = torch.isfinite(level) & (level >= 0)
        if not bool(good.all()):
            raise CompressionError(f"threshold must be finite and at least 0, got {level[~good].flatten()[0].item()}")
    return level


def _descend(
    y: Tensor,
    operator: Tensor,
    threshold: float | Tensor,
    steps: int,
    tolerance: float,
    *,
    joint: bool,
    accelerate: bool,
) -> Recovered:
    whole_number("steps", steps, 1)
    tolerance = fraction("tolerance", tolerance)
    dtype = y.dtype if isinstance(y, Tensor) else None
    y, operator, batch = problem(y, operator)
    level = _threshold(threshold, y, operator, batch, joint)
    shrink = group_soft_threshold if joint else soft_threshold
    problems = (-2, -1) if joint else (-2,)  # the dimensions of a code that make one problem
    with torch.autocast(y.device.type, enabled=False):  # products in half precision would not converge
        # In powers of two, so exactly: what is solved is y / size = (A / measure) (z measure / size). The factors may
        # leave float32 where what they multiply does not.
        size, measure = size_of(y, problems), size_of(operator, (-2, -1))
        target, operator = y / size, operator / measure
        level = (level.double() / size / measure).clamp_max(torch.finfo(y.dtype).max ** 0.5).to(y.dtype)
        scale = lipschitz(operator)
        forward = operator / scale
        level = level / scale
        code = y.new_zeros(*batch, operator.shape[-1], y.shape[-1])
        ahead = code
        active = torch.ones_like(code[..., :1, :1] if joint else code[..., :1, :], dtype=torch.bool)
        momentum = torch.ones_like(active, dtype=y.dtype)
        iterations = torch.zeros_like(active, dtype=torch.int64)
        for step in range(steps):
            new = shrink(ahead + forward.mT @ (target - operator @ ahead), level)
            with torch.no_grad():
                change = new - code
                moved = change.square().sum(dim=problems, keepdim=True)
                done = moved <= tolerance**2 * new.square().sum(dim=problems, keepdim=True)
                iterations += active
                uphill = ((ahead - new) * change).sum(dim=problems, keepdim=True) > 0
                # With momentum, a short step in the moment of a restart says nothing.
                still = active & ~(done & ~(uphill & (momentum > 1))) if accelerate else active & ~done
            new = torch.where(active, new, code)
            if accelerate:
                with torch.no_grad():
                    start = torch.where(uphill, 1.0, momentum)
                    momentum = (1 + (1 + 4 * start * start).sqrt()) / 2
                    push = torch.where(uphill, 0.0, (start - 1) / momentum)
                ahead = new + push * (new - code)
            else:
                ahead = new
            code, active = new, still
            if (
                tolerance > 0
                and step % _LOOK_EVERY == _LOOK_EVERY - 1
                and not torch.compiler.is_compiling()
                and not bool(active.any())
            ):
                break
        residual = torch.linalg.vector_norm(target - operator @ code, dim=-2) * size[..., 0, :]
        code = (code.double() / measure * size).to(y.dtype)
    shape = (*batch, y.shape[-1])
    return Recovered(
        code=code.to(dtype),
        iterations=iterations.squeeze(-2).expand(shape),
        converged=~active.squeeze(-2).expand(shape),
        residual=residual.to(dtype),
    )
