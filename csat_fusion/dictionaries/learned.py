"""A dictionary whose atoms are learnt by gradient.

Shapes: L length of the signal, K atoms, d channels that share the axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from csat_fusion.compressors.base import compute_dtype
from csat_fusion.dictionaries.base import DICTIONARIES, Dictionary, make_dictionary
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.random import GaussianMeasurement

__all__ = ["LearnedDictionary"]


class LearnedDictionary(Dictionary):
    """``Psi`` as a parameter, its columns brought to unit norm when read. A column of zeros stays one.

    Args:
        length: L.
        atoms: K; ``None``: L.
        init: a name in ``DICTIONARIES`` whose atoms come first, as many as fit; ``None``: none.
        seed: the atoms that remain are random directions, hashed from it.

    Raises:
        CompressionError: there is no dictionary ``init``, or it cannot be made from a length alone.
    """

    def __init__(self, length: int, atoms: int | None = None, *, init: str | None = "dct", seed: int = 0) -> None:
        super().__init__(length, length if atoms is None else atoms)
        psi = torch.zeros(length, 0, dtype=torch.float64)
        if init is not None:
            if init not in DICTIONARIES or init in ("learned", "graph"):
                allowed = ", ".join(name for name in DICTIONARIES if name not in ("learned", "graph"))
                raise CompressionError(f"init of a learned dictionary must be None or one of {allowed}, got {init!r}")
            psi = make_dictionary(init, length).matrix().detach().double()[:, : self.atoms]
        if psi.shape[1] < self.atoms:
            random = GaussianMeasurement(length, seed=seed).block(psi.shape[1], self.atoms)
            psi = torch.cat([psi, random / torch.linalg.vector_norm(random, dim=0)], dim=1)
        self.parameter = nn.Parameter(psi.float())

    def matrix(self) -> Tensor:
        return normalize(self.parameter.to(compute_dtype(self.parameter.dtype)), dim=0)
