"""LISTA: a fixed number of ISTA steps whose matrices and thresholds are learnt.

K. Gregor, Y. LeCun, "Learning fast approximations of sparse coding", ICML 2010. A step is::

    z <- soft(E y + R z, theta)

and starts as ISTA's own: ``E = A^T / L``, ``R = 1 - A^T A / L``, ``theta = threshold / L``, L the largest eigenvalue of
``A^T A``. So untrained it gives the code of as many steps of :func:`csat_fusion.recovery.proximal.ista`.

Shapes: m measurements, K atoms, d channels, S steps (1 for a part that the steps share).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from csat_fusion.errors import CompressionError
from csat_fusion.recovery.base import problem, size_of, whole_number
from csat_fusion.recovery.proximal import lipschitz, soft_threshold

__all__ = ["LISTA"]


class LISTA(nn.Module):
    """S learnt steps of soft thresholding; parameters ``encoder [S, K, m]``, ``recurrence [S - 1, K, K]`` and
    ``raw_threshold [S, K]``, or one of each where ``shared``.

    Args:
        operator: A, ``[m, K]``, to start from: a dictionary, or a measurement of one. It is not kept.
        steps: S, at least 1.
        threshold: the weight of the l1 penalty at the start, finite and at least 0.
        shared: one set of matrices and thresholds for all steps, as in the paper; otherwise each step has its own.

    Raises:
        CompressionError: a value outside what is allowed, or not finite.
    """

    def __init__(self, operator: Tensor, *, steps: int = 8, threshold: float = 0.1, shared: bool = True) -> None:
        super().__init__()
        whole_number("steps", steps, 1)
        if isinstance(operator, Tensor) and operator.ndim != 2:
            raise CompressionError(f"the operator of LISTA must be [m, K], got {list(operator.shape)}")
        _, operator, _ = problem(operator, operator)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise CompressionError(f"threshold must be a number, got {threshold!r}")
        if not (math.isfinite(threshold) and threshold >= 0):
            raise CompressionError(f"threshold must be finite and at least 0, got {threshold!r}")
        operator = operator.detach()
        atoms = operator.shape[1]
        # The squares of A need not fit its type: they are of A over a power of two, which is put back in float64.
        measure = size_of(operator, (-2, -1))
        operator = operator / measure
        scale = lipschitz(operator)
        encoder = operator.mT / scale
        recurrence = torch.eye(atoms, dtype=operator.dtype, device=operator.device) - encoder @ operator
        encoder = (encoder.double() / measure).to(operator.dtype)
        level = (threshold / scale.double() / measure / measure).clamp_max(torch.finfo(operator.dtype).max)
        level = level.to(operator.dtype).reshape(1).expand(atoms)
        self.steps = steps
        self.shared = shared
        self.encoder = nn.Parameter(encoder.repeat(1 if shared else steps, 1, 1))
        self.recurrence = nn.Parameter(recurrence.repeat(1 if shared else steps - 1, 1, 1))
        self.raw_threshold = nn.Parameter(level.repeat(1 if shared else steps, 1))

    @property
    def rows(self) -> int:
        """m, the measurements of a channel."""
        return self.encoder.shape[2]

    @property
    def atoms(self) -> int:
        """K, the entries of a code."""
        return self.encoder.shape[1]

    @property
    def threshold(self) -> Tensor:
        """theta, ``[S, K]``, never negative: the size of the parameter; the slope at 0 is 1, so it can be left."""
        raw = self.raw_threshold
        return torch.where(raw >= 0, raw, -raw)

    def forward(self, y: Tensor) -> Tensor:
        """``[..., m, d]`` to the code ``[..., K, d]``, in the type of ``y``, computed in that of the parameters.

        Values are not looked at: what is not finite stays so.

        Raises:
            CompressionError: ``y`` is not floating point or has another m.
        """
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 2 or y.shape[-2] != self.rows:
            got = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise CompressionError(f"LISTA takes floating point [.., {self.rows}, d], got {got}")
        if y.device != self.encoder.device:
            raise CompressionError(f"y is on {y.device}, LISTA on {self.encoder.device}")
        measured = y.to(self.encoder.dtype)
        level = self.threshold[..., None]
        drive = self.encoder[0] @ measured
        code = soft_threshold(drive, level[0])
        for step in range(1, self.steps):
            if not self.shared:
                drive = self.encoder[step] @ measured
            code = soft_threshold(
                drive + self.recurrence[0 if self.shared else step - 1] @ code, level[0 if self.shared else step]
            )
        return code.to(y.dtype)

    def extra_repr(self) -> str:
        return f"rows={self.rows}, atoms={self.atoms}, steps={self.steps}, shared={self.shared}"
