"""The compressors under test, each a line with its options, and how one is run over a stream.

Shapes: T frames, P patches a frame, d width, m kept tokens, n = T * P.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benching.tables import Report
from benching.tokens import Stream
from csat_fusion.compressors.base import Compressor, make_compressor
from csat_fusion.compressors.table import COMPRESSORS
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["DEFAULT", "RATES", "Method", "all_methods", "budget_of", "compress", "usable"]

RATES = (4, 8, 16, 32, 64)
DEFAULT = "ward"  # gap 1 s: the one whose targets are judged
QUERY_TOKENS = 8  # that query-guided selection is told


@dataclass(frozen=True)
class Method:
    """A row: its label, the compressor's name in the table, and options."""

    label: str
    name: str
    gap_seconds: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def seeded(self) -> bool:
        """Whether it draws at random."""
        return "seed" in _parameters(self.name)

    def make(
        self, budget: int, seed: int = 0, query: Tensor | None = None, keep_assignment: bool = False
    ) -> Compressor:
        options = dict(self.options)
        accepted = _parameters(self.name)
        if "seed" in accepted:
            options["seed"] = seed
        if "query" in accepted and query is not None:
            options["query"] = query
        if keep_assignment:
            options["keep_assignment"] = True
        return make_compressor(self.name, budget, gap_seconds=self.gap_seconds, **options)


def _parameters(name: str) -> set[str]:
    """Options of the class behind a name of the table; the factory's own signature does not tell them."""
    return set(COMPRESSORS.find(name).parameters())


def all_methods(only: list[str] | None = None) -> list[Method]:
    """Every compressor of the table (identity apart: it compresses nothing), and Ward with other gaps."""
    methods = []
    for name in COMPRESSORS:
        if name == "identity" or (only is not None and name not in only):
            continue
        methods.append(Method(name, name))
        if name == "ward":
            methods.append(Method("ward, gap 0.5 s", name, 0.5))
            methods.append(Method("ward, no gap limit", name, math.inf))
    return methods


def usable(methods: list[Method], width: int, report: Report) -> list[Method]:
    """Those that can be made; the others are written down as missing."""
    import torch

    found = []
    for method in methods:
        try:
            made = method.make(4, query=torch.ones(1, width))
            made.update(torch.eye(4, width), 0.0, 0.5)
            made.update(torch.eye(4, width) * 2, 0.5, 1.0)
            made.result()
        except (ImportError, AttributeError, NotImplementedError, CompressionError) as error:
            report.unavailable(method.label, f"{type(error).__name__}: {error}")
            continue
        found.append(method)
    return found


def budget_of(stream: Stream, rate: int) -> int:
    """How many tokens the share ``1/rate`` is, at least 1."""
    frames, patches = stream.tokens.shape[:2]
    return max(1, round(frames * patches / rate))


def run(compressor: Compressor, stream: Stream) -> Compressor:
    """Give it the whole stream, frame by frame."""
    for tokens, start, end in zip(stream.tokens, stream.start_seconds, stream.end_seconds, strict=True):
        compressor.update(tokens, start, end)
    return compressor


def compress(method: Method, stream: Stream, budget: int, seed: int = 0, query: Tensor | None = None) -> TokenSet:
    """What the method keeps of the stream.

    Raises:
        ValueError: it keeps more than the budget, or its weights do not stand for all tokens: the comparison would not
            be one.
    """
    kept = run(method.make(budget, seed, query), stream).result()
    tokens = stream.tokens.shape[0] * stream.tokens.shape[1]
    if len(kept) > budget:
        raise ValueError(f"{method.label} kept {len(kept)} tokens of a budget of {budget}")
    if not math.isclose(kept.total_weight, tokens, rel_tol=1e-3):
        raise ValueError(f"{method.label} gives weights that sum to {kept.total_weight:g}, there were {tokens} tokens")
    return kept
