"""What every recovery gives back, the table of their names, and the checks that they share.

Recovery finds a sparse code ``z`` from few measurements ``y = A z``, where ``A = Phi Psi`` is a measurement of a
dictionary.

Shapes: m measurements, K atoms, d channels (each a problem of its own, or all of them one joint problem); leading
dimensions are batch dimensions and broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.tables import Entry, Table

__all__ = ["RECOVERIES", "Recovered", "recover"]


@dataclass(frozen=True, eq=False)
class Recovered:
    """A code and how it was come by.

    ``code [..., K, d]`` in the type of ``y``; ``iterations [..., d]`` int64, steps taken (proximal methods) or atoms
    chosen (pursuits); ``converged [..., d]`` bool, whether the method's criterion was met within its steps;
    ``residual [..., d]`` ``|y - A z|``, not squared. A joint method gives the channels of a problem the same count.
    """

    code: Tensor
    iterations: Tensor
    converged: Tensor
    residual: Tensor


def problem(y: Tensor, operator: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """``y`` and ``operator`` in the type to compute in, and their common batch shape.

    They are computed in the wider of their two types, in float32 at least: half precision would choose wrong atoms.

    Raises:
        CompressionError: not floating point, fewer than two dimensions, an empty one, shapes or devices that do not
            fit together, or a value that is not finite.
    """
    for name, tensor, shape in (("y", y, "[.., m, d]"), ("operator", operator, "[.., m, K]")):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.ndim < 2 or 0 in tensor.shape:
            got = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CompressionError(f"{name} must be floating point {shape}, no dimension empty, got {got}")
    if y.shape[-2] != operator.shape[-2]:
        raise CompressionError(
            f"y has {y.shape[-2]} measurements, the operator {operator.shape[-2]} rows; they must be equal"
        )
    if y.device != operator.device:
        raise CompressionError(f"y is on {y.device}, the operator on {operator.device}")
    batch = broadcast(tuple(y.shape[:-2]), tuple(operator.shape[:-2]))
    if batch is None:
        raise CompressionError(
            f"the batch {list(y.shape[:-2])} of y and {list(operator.shape[:-2])} of the operator do not broadcast"
        )
    if not torch.compiler.is_compiling():  # a graph cannot look at values
        for name, tensor in (("y", y), ("operator", operator)):
            finite = torch.isfinite(tensor)
            if not bool(finite.all()):
                raise CompressionError(f"{name} must be finite, got {tensor[~finite][0].item()}")
    dtype = torch.promote_types(torch.promote_types(y.dtype, operator.dtype), torch.float32)
    return y.to(dtype), operator.to(dtype), batch


def size_of(y: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The power of two at or next below the largest value of ``y`` over ``dims``; 1 where all are zero.

    Divided by it, squares neither overflow nor vanish; and that a power of two divides changes no digit.
    """
    peak = y.detach().abs().amax(dim=dims, keepdim=True)
    return torch.where(peak > 0, torch.ldexp(torch.ones_like(peak), torch.frexp(peak).exponent - 1), 1.0)


def broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that both broadcast to, or None where there is none."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    shorter = (1,) * (len(longer) - len(shorter)) + shorter
    if any(a != b and 1 not in (a, b) for a, b in zip(longer, shorter, strict=True)):
        return None
    return tuple(b if a == 1 else a for a, b in zip(longer, shorter, strict=True))


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """``value`` where it is a whole number in range; else a ``CompressionError`` that says so."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise CompressionError(f"{name} must be a whole number, {limits}, got {value!r}")
    return value


def fraction(name: str, value: Any) -> float:
    """``value`` where it is at least 0 and below 1; else a ``CompressionError`` that says so."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise CompressionError(f"{name} must be at least 0 and below 1, got {value!r}")
    return float(value)


_HOME = "csat_fusion.recovery"

RECOVERIES = Table(
    "recovery",
    {
        "ista": Entry(f"{_HOME}.proximal", "ista"),
        "fista": Entry(f"{_HOME}.proximal", "fista"),
        "group-ista": Entry(f"{_HOME}.proximal", "group_ista"),
        "omp": Entry(f"{_HOME}.pursuit", "omp"),
        "somp": Entry(f"{_HOME}.pursuit", "simultaneous_omp"),
    },
)


def recover(name: str, y: Tensor, operator: Tensor, **options: Any) -> Recovered:
    """Recovery by the method of that name in ``RECOVERIES``, with ``options`` of its function.

    Raises:
        CompressionError: no method or option has that name, one that it needs is missing, or a value is outside what
            is allowed.
    """
    found: Recovered = RECOVERIES.find(name).make(y, operator, given=("y", "operator"), **options)
    return found
