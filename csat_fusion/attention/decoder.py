"""Sparse decoding of a context vector over a dictionary of features.

The last step of CSAT (Kiruluta, Raju and Burity, 2025, arXiv 2507.02957): a context vector, or a measurement of it, is
explained by few atoms, ``argmin_a 1/2 |c - A a|^2 + threshold |a|_1``, and put together from these, ``Psi a``. Here
``A = Psi`` or, where the context was measured over its features, ``A = Phi Psi``. With LISTA the steps are learnt: a
trained denoiser. Values are not looked at: what is not finite makes the outputs that read it so.

Shapes: q queries, dh features of a head, r measurements of these (r = dh where there is no measurement), K atoms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from csat_fusion.dictionaries.base import Dictionary, make_dictionary
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement
from csat_fusion.precision import without_autocast
from csat_fusion.recovery.base import whole_number
from csat_fusion.recovery.lista import LISTA
from csat_fusion.recovery.proximal import lipschitz, soft_threshold

__all__ = ["ContextDecoder"]


class ContextDecoder(nn.Module):
    """Context vectors ``[..., q, r]`` to sparse combinations of atoms ``[..., q, dh]``.

    Args:
        width: dh.
        dictionary: Psi ``[dh, K]``, or its name. Where ``A`` is orthonormal, one step of ISTA is exact and one is
            taken: soft thresholding.
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
        self.steps = whole_number("steps", steps, 1)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < math.inf:
            raise CompressionError(f"threshold must be a finite number, at least 0, got {threshold!r}")
        self.threshold = float(threshold)
        with torch.no_grad():
            operator = self._operator(dictionary.matrix())
        # What has neither parameters nor buffers stays as it is: its step length is found once. A number and no buffer,
        # so that no conversion to half precision rounds it.
        parts = [dictionary] if measurement is None else [dictionary, measurement]
        held = any(True for part in parts for _ in (*part.parameters(), *part.buffers()))
        self.divisor: float | None = None
        self.one_step = dictionary.orthonormal and measurement is None
        if not held and not operator.is_meta:
            self.divisor = float(lipschitz(operator))
            gram = operator.mT @ operator
            self.one_step = bool((gram - torch.eye(len(gram)).to(gram)).abs().max() < 1e-9)
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
            with without_autocast(context.device):
                code = self._ista(measured.to(torch.promote_types(context.dtype, torch.float32)))
        return self.dictionary.synthesize(code).mT.to(context.dtype)

    def _ista(self, measured: Tensor) -> Tensor:
        """The steps of :func:`csat_fusion.recovery.proximal.ista`, whose checks would wait for the device."""
        if self.one_step and self.measurement is None:
            return soft_threshold(self.dictionary.analyze(measured), self.threshold)
        operator = self._operator(self.dictionary.matrix().to(measured))
        if self.one_step:
            return soft_threshold(operator.mT @ measured, self.threshold)
        divisor = lipschitz(operator) if self.divisor is None else self.divisor
        pull, level = operator.mT / divisor, self.threshold / divisor
        code = soft_threshold(pull @ measured, level)
        for _ in range(self.steps - 1):
            code = soft_threshold(code + pull @ (measured - operator @ code), level)
        return code
