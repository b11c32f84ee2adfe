"""Wavelets over the graph of frames that look alike: two shots of one scene are near, however far apart in time.

D. K. Hammond, P. Vandergheynst, R. Gribonval, "Wavelets on graphs via spectral graph theory" (2011, arXiv 0912.3848).
With the eigenvectors U and eigenvalues of the graph's Laplacian, the wavelets of scale s are the columns of
``U g(s lambda) U^T``, one around each frame: g rises as a square, then falls as one, with a cubic between. Scaling
functions ``U h(lambda) U^T`` take up what is left near eigenvalue zero.

Shapes: T frames (L), f width of the features, K = T * (scales + 1) atoms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csat_fusion.dictionaries.base import Dictionary
from csat_fusion.errors import CompressionError

__all__ = ["GraphWaveletDictionary", "frame_graph"]

# The least weight between a frame and the next: the graph stays in one piece over a cut.
_TEMPORAL = 1e-3
# The eigenvalues of interest reach from the largest down to the largest over this, as in the paper.
_SPAN = 20.0


class GraphWaveletDictionary(Dictionary):
    """Scaling functions ``[T]``, then wavelets ``[T]`` of each scale from the widest to the narrowest.

    Atoms are brought to unit norm (in the paper they are not). The graph is made once, without gradient, and is part of
    the state dict. Costs ``T^3`` once and ``T * K`` of memory: for windows of up to a few thousand frames.

    Args:
        length: T, at least 2.
        atoms: ``T * (scales + 1)`` or None.
        features: ``[T, f]``, what frames are compared by.
        scales: number of scales, at least 1.
        neighbors: how many of the nearest frames each is joined to, at least 1.

    Raises:
        CompressionError: a number is outside what is allowed, ``features`` do not fit or are not finite.
    """

    def __init__(
        self,
        length: int,
        atoms: int | None = None,
        *,
        features: Tensor | None = None,
        scales: int = 4,
        neighbors: int = 6,
    ) -> None:
        for name, value in (("scales", scales), ("neighbors", neighbors)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CompressionError(f"{name} must be a whole number, at least 1, got {value!r}")
        count = length * (scales + 1)
        super().__init__(length, count)
        if length < 2:
            raise CompressionError(f"a graph of frames needs at least 2, got {length}")
        if atoms is not None and atoms != count:
            raise CompressionError(f"{length} frames at {scales} scales make {count} graph wavelets, got atoms={atoms}")
        if features is None:
            raise CompressionError("a graph dictionary needs features [T, f], got None")
        if features.shape[:1] != (length,):
            raise CompressionError(f"features must be [{length}, f], got {list(features.shape)}")
        self.scales, self.neighbors = scales, neighbors
        self.psi: Tensor
        self.register_buffer("psi", _wavelets(frame_graph(features, neighbors), scales).to(features.device))

    def matrix(self) -> Tensor:
        return self.psi

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scales={self.scales}, neighbors={self.neighbors}"


def frame_graph(features: Tensor, neighbors: int = 6) -> Tensor:
    """Weights ``[T, T]`` between frames, 0 to 1, symmetric, zero to itself; float64 on the CPU.

    ``exp(-|x_i - x_j|^2 / (2 s^2))`` where one is among the nearest of the other, ``s^2`` being the mean over all such
    pairs; and at least 0.001 between a frame and the next.

    Raises:
        CompressionError: ``features`` are not finite floating point ``[T, f]``, T and f at least 1.
    """
    if not features.is_floating_point() or features.ndim != 2 or 0 in features.shape:
        raise CompressionError(
            f"features must be floating point [T, f], T and f at least 1, got {features.dtype} {list(features.shape)}"
        )
    features = features.detach().double().cpu()
    if not bool(torch.isfinite(features).all()):
        raise CompressionError(f"features must be finite, got {float(features[~torch.isfinite(features)][0])}")
    count = len(features)
    # The scale cancels out below; without it, squares of large features would overflow.
    features = features / features.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    apart = distance + torch.diag(torch.full((count,), math.inf, dtype=torch.float64))
    # Sorted by time first, so that of frames that are equally alike the nearest in time are taken.
    time = torch.arange(count)
    by_time = (time[:, None] - time).abs().argsort(dim=1, stable=True)
    order = apart.gather(1, by_time).argsort(dim=1, stable=True)[:, : min(neighbors, count - 1)]
    nearest = by_time.gather(1, order)
    joined = torch.zeros(count, count, dtype=torch.bool).scatter_(1, nearest, True)
    joined = joined | joined.mT
    spread = distance[joined].mean() if bool(joined.any()) else torch.ones((), dtype=torch.float64)
    weight = torch.where(joined, torch.exp(-distance / (2 * spread.clamp(min=1e-30))), 0.0)
    after = time[:-1]
    weight[after, after + 1] = weight[after, after + 1].clamp(min=_TEMPORAL)
    weight[after + 1, after] = weight[after, after + 1]
    return weight


def _wavelets(weight: Tensor, scales: int) -> Tensor:
    laplacian = torch.diag(weight.sum(dim=1)) - weight
    value, vector = torch.linalg.eigh(laplacian)
    value = value.clamp(min=0.0)
    largest = float(value[-1])
    least = largest / _SPAN
    # From the scale whose kernel falls off at `least` to the one whose kernel rises up to `largest`.
    scale = torch.linspace(math.log(2.0 / least), math.log(1.0 / largest), scales, dtype=torch.float64).exp()
    kernels = [_kernel(s * value) for s in scale]
    atoms = [(vector * kernel) @ vector.mT for kernel in (torch.exp(-((value / (0.6 * least)) ** 4)), *kernels)]
    psi = torch.cat(atoms, dim=1)
    unit: Tensor = psi / torch.linalg.vector_norm(psi, dim=0)
    return unit


def _kernel(value: Tensor) -> Tensor:
    """The paper's g: ``x^2`` up to 1, ``4 / x^2`` from 2 on, and the cubic that joins them smoothly."""
    cubic = -5.0 + value * (11.0 + value * (-6.0 + value))
    return torch.where(value < 1, value.square(), torch.where(value > 2, 4.0 / value.clamp(min=1.0).square(), cubic))
