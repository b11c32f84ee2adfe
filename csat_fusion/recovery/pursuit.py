"""Recovery by orthogonal matching pursuit: choose one atom after the other, fit all chosen ones by least squares.

An atom is chosen for the size of its correlation with what is left, over its own norm, so atoms need not have unit
norm. A pursuit ends at ``sparsity`` atoms, or when the residual is at most ``tolerance`` of ``|y|`` (or what rounding
leaves of it), or when no atom is left that is independent of those chosen; ``converged`` says that the residual is at
most that.

``selection`` says which atom comes next: "correlation", the one most correlated with the residual, as published; or
"residual", the one that leaves the least residual once all chosen are fitted anew (orthogonal least squares: S. Chen,
S. A. Billings, W. Luo, "Orthogonal least squares methods and their application to non-linear system identification",
1989), at one more product of a vector a step. Where atoms resemble each other, as steps in time do, the second finds
sparse codes that the first misses.

The choice itself has no gradient; the least-squares fit on the chosen atoms has, in ``y`` and in the operator.

Shapes: m measurements, K atoms, d channels, S atoms to choose, G pursuits side by side, c channels of a pursuit
(G = d and c = 1, or G = 1 and c = d); leading dimensions are batch dimensions and broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.recovery.base import Recovered, fraction, problem, size_of, whole_number

__all__ = ["omp", "simultaneous_omp"]

_SELECTIONS = ("correlation", "residual")


def omp(
    y: Tensor, operator: Tensor, sparsity: int, *, tolerance: float = 0.0, selection: str = "correlation"
) -> Recovered:
    """Orthogonal matching pursuit, each channel on its own atoms.

    Y. C. Pati, R. Rezaiifar, P. S. Krishnaprasad, "Orthogonal matching pursuit: recursive function approximation with
    applications to wavelet decomposition", 1993.

    Args:
        y: ``[..., m, d]``.
        operator: A, ``[..., m, K]``. Columns of zeros are never chosen.
        sparsity: the most atoms to choose, 1 to min(m, K).
        tolerance: see the module; at least 0 and below 1.
        selection: "correlation" or "residual", see the module.

    Raises:
        CompressionError: a value outside what is allowed, not finite, or of a shape that does not fit.
    """
    return _pursue(y, operator, sparsity, tolerance, selection, joint=False)


def simultaneous_omp(
    y: Tensor, operator: Tensor, sparsity: int, *, tolerance: float = 0.0, selection: str = "correlation"
) -> Recovered:
    """Orthogonal matching pursuit of all channels on the same atoms: the code has at most ``sparsity`` rows.

    J. A. Tropp, A. C. Gilbert, M. J. Strauss, "Algorithms for simultaneous sparse approximation. Part I: Greedy
    pursuit", 2006; here an atom's correlations are taken together by their squares. ``tolerance`` is of the norm over
    all channels. Arguments and errors of :func:`omp`.
    """
    return _pursue(y, operator, sparsity, tolerance, selection, joint=True)


def _pursue(y: Tensor, operator: Tensor, sparsity: int, tolerance: float, selection: str, *, joint: bool) -> Recovered:
    if selection not in _SELECTIONS:
        raise CompressionError(f"selection must be one of {', '.join(_SELECTIONS)}, got {selection!r}")
    tolerance = fraction("tolerance", tolerance)
    given = (y, operator)
    y, operator, batch = problem(y, operator)
    dtype = given[0].dtype
    # What the rounding of the input leaves, and that of the computation, both over |y|.
    rounding = max(
        2 * max(torch.finfo(tensor.dtype).eps for tensor in given),
        4 * torch.finfo(y.dtype).eps * y.shape[-2] ** 0.5,
    )
    whole_number("sparsity", sparsity, 1, min(operator.shape[-2:]))
    rows, channels = y.shape[-2:]
    groups, each = (1, channels) if joint else (channels, 1)
    with torch.autocast(y.device.type, enabled=False):
        size = size_of(y, (-2, -1) if joint else (-2,))
        y = y / size
        operator = operator.expand(*batch, *operator.shape[-2:])
        signal = y.expand(*batch, rows, channels).reshape(*batch, rows, groups, each).movedim(-2, -3)  # [.., G, m, c]
        with torch.no_grad():
            support, used, left = _choose(signal, operator, sparsity, max(tolerance, rounding), selection)
        code = _fit(signal, operator, support, used)  # [.., G, S, c]
        full = y.new_zeros(*batch, groups, operator.shape[-1], each)
        # A filler may name an atom that is in use, so its zero is added.
        full = full.scatter_add(-2, support[..., None].expand_as(code), code)
        full = full.movedim(-3, -2).reshape(*batch, operator.shape[-1], channels)
        residual = torch.linalg.vector_norm(y - operator @ full, dim=-2) * size[..., 0, :]
        full = full * size
    shape = (*batch, channels)
    return Recovered(
        code=full.to(dtype),
        iterations=used.sum(dim=-1).expand(shape),
        converged=(~left).expand(shape),
        residual=residual.to(dtype),
    )


def _choose(
    signal: Tensor, operator: Tensor, sparsity: int, tolerance: float, selection: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms ``[..., G, S]``, which are in use (the rest are fillers), and where a residual is left ``[..., G]``.

    The chosen atoms are kept orthonormal (Gram and Schmidt, twice, which is as good as Householder), so what is left
    follows by one projection a step.
    """
    *lead, rows, each = signal.shape  # lead ends with G
    atoms = operator.shape[-1]
    eps = torch.finfo(signal.dtype).eps
    norm = torch.linalg.vector_norm(operator, dim=-2)  # [.., K]
    # Norms of squares underflow for tiny columns; those cannot be told from zero and are never chosen.
    usable = norm > torch.finfo(signal.dtype).tiny ** 0.5
    inverse = torch.where(usable, 1 / norm.clamp_min(torch.finfo(signal.dtype).tiny ** 0.5), 0.0)
    unit = operator.mT * inverse[..., None]  # [.., K, m]
    size = torch.linalg.vector_norm(signal, dim=(-2, -1))
    goal = tolerance * size
    left = signal
    basis = signal.new_zeros(*lead, sparsity, rows)
    support = torch.zeros(*lead, sparsity, dtype=torch.int64, device=signal.device)
    used = torch.zeros_like(support, dtype=torch.bool)
    taken = torch.zeros(*lead, atoms, dtype=torch.bool, device=signal.device)
    going = size > goal
    # |atom|^2 beyond the span of those chosen: what its correlation is measured by where the residual decides.
    beyond = torch.ones(*lead, atoms, dtype=signal.dtype, device=signal.device)
    for step in range(sparsity):
        flat = left.movedim(-3, -2).flatten(-2)  # [.., m, G c]
        score = torch.linalg.vector_norm(
            (unit @ flat).reshape(*lead[:-1], atoms, lead[-1], each), dim=-1
        ).mT  # [.., G, K]
        if selection == "residual":
            # A difference of squares: with less than this left, an atom is a mix of those chosen.
            score = torch.where(beyond > 64 * eps, score / beyond.clamp_min(eps).sqrt(), 0.0)
        best, atom = score.masked_fill(taken, -1.0).max(dim=-1)
        column = unit.gather(-2, atom[..., None].expand(*lead, rows))  # [.., G, m]
        fresh = column[..., None, :]
        for _ in range(2):
            fresh = fresh - (fresh @ basis.mT) @ basis
        length = torch.linalg.vector_norm(fresh, dim=-1, keepdim=True)
        independent = length[..., 0, 0] > 64 * eps * rows**0.5
        going = going & (best > 0) & independent
        fresh = torch.where(going[..., None, None], fresh / length.clamp_min(eps), 0.0)
        basis[..., step, :] = fresh[..., 0, :]
        left = left - fresh.mT @ (fresh @ left)
        if selection == "residual":
            along = unit @ fresh[..., 0, :].mT  # [.., K, G]
            beyond = beyond - along.mT.square()
        support[..., step] = atom
        used[..., step] = going
        taken.scatter_(-1, atom[..., None], True)
        going = going & (torch.linalg.vector_norm(left, dim=(-2, -1)) > goal)
        if step % 8 == 7 and not torch.compiler.is_compiling() and not bool(going.any()):
            break
    return support, used, torch.linalg.vector_norm(left, dim=(-2, -1)) > goal


def _fit(signal: Tensor, operator: Tensor, support: Tensor, used: Tensor) -> Tensor:
    """Least squares on the atoms in use: ``[..., G, S, c]``, zeros for fillers.

    A filler's column is replaced by a unit vector in a row of its own, below the measurements, where y is zero. So all
    pursuits are of one shape, of full rank, and differentiable.
    """
    *_, rows, each = signal.shape
    columns = operator.mT.gather(-2, support.flatten(-2)[..., None].expand(*operator.shape[:-2], -1, rows))
    columns = columns.reshape(*support.shape, rows)  # [.., G, S, m]
    columns = torch.where(used[..., None], columns, 0.0)
    norm = torch.linalg.vector_norm(columns.detach(), dim=-1, keepdim=True)
    norm = torch.where(norm > 0, norm, 1.0)
    tall = torch.cat([(columns / norm).mT, torch.diag_embed((~used).to(signal.dtype))], dim=-2)  # [.., G, m + S, S]
    target = torch.cat([signal, signal.new_zeros(*signal.shape[:-2], support.shape[-1], each)], dim=-2)
    q, r = torch.linalg.qr(tall)
    code = torch.linalg.solve_triangular(r, q.mT @ target, upper=True) / norm
    return torch.where(used[..., None], code, 0.0)
