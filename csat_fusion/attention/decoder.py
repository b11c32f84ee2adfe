"""Sparse decoding of a context vector over a dictionary of features.

The last step of CSAT (Kiruluta, Raju and Burity, 2025, arXiv 2507.02957): a context vector, or a measurement of it, is
explained by few atoms, ``argmin_a 1/2 |c - A a|^2 + threshold |a|_1``, and put together from these, ``Psi a``. Here ``A
= Psi`` or, where the context was measured over its features, ``A = Phi Psi``. With LISTA the steps are learnt: a
trained denoiser.

Shapes: q queries, dh features of a head, r measurements of these (r = dh where there is no measurement), K atoms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from csat_fusion.dictionaries.base import Dictionary, make_dictionary
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement
from csat_fusion.recovery.lista import LISTA
from csat_fusion.recovery.proximal import ista

__all__ = ["ContextDecoder"]


class ContextDecoder(nn.Module):
    """Context vectors ``[..., q, r]`` to sparse combinations of atoms ``[..., q, dh]``.

    Args:
        width: dh.
        dictionary: Psi ``[dh, K]``, or its name; an orthonormal one makes ISTA exact in one step: soft thresholding.
        measurement: Phi ``[r, dh]`` of the features; ``None``: the context itself is given.
        learned: LISTA, which starts as ``steps`` ISTA steps; otherwise these steps themselves, without parameters
            beyond the dictionary's.
        steps, threshold: of ISTA.

    Raises:
        CompressionError: widths disagree or a value is not allowed.
    """

    def __init__(
        self,
        width: int,
        *,
        dictionary: Dictionary | str = "dct",
        measurement: Measurement | None = None,
        learned: bool = True,
        steps: int = 8,
        threshold: float = 0.01,
    ) -> None:
        super().__init__()
        if isinstance(dictionary, str):
            dictionary = make_dictionary(dictionary, width)
        if dictionary.length != width:
            raise CompressionError(f"the dictionary is for {dictionary.length} features, a head has {width}")
        self.dictionary = dictionary
        self.measurement = measurement
        self.steps, self.threshold = steps, float(threshold)
        with torch.no_grad():
            operator = self._operator(dictionary.matrix())
        self.lista = LISTA(operator.float(), steps=steps, threshold=threshold) if learned else None

    def _operator(self, psi: Tensor) -> Tensor:
        return psi if self.measurement is None else self.measurement(psi)

    def forward(self, context: Tensor) -> Tensor:
        if not context.numel():
            return context.new_zeros(*context.shape[:-1], self.dictionary.length)
        measured = context.mT
        if self.lista is not None:
            code = self.lista(measured)
        else:
            psi = self.dictionary.matrix().to(context.device, torch.promote_types(context.dtype, torch.float32))
            code = ista(measured, self._operator(psi), self.threshold, steps=self.steps, tolerance=0.0).code
        return self.dictionary.synthesize(code).mT.to(context.dtype)
