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

__all__ = [
    "DEFAULT",
    "NAMED",
    "RATES",
    "TOLD",
    "Method",
    "all_methods",
    "budget_of",
    "compress",
    "compressed",
    "usable",
]

RATES = (4, 8, 16, 32, 64)
DEFAULT = "ward"  # gap 1 s: the one whose targets are judged
TOLD = frozenset({"query"})  # it is given tokens of what will be asked for, so it is judged apart
NAMED = (  # rows that a plot names
    "ward, no gap limit",
    "kmeans",
    "floc",
    "tome",
    "evs, run means",
    "patch-runs",
    "uniform",
    "floc, not centred",
    "Nystrom, landmarks of keys",
    "Performer",
    "csat as published, one Phi, ISTA",
    "all tokens",
)
QUERY_TOKENS = 8  # that query-guided selection is told
# Further rows: Ward with other gaps and its fast path, and rivals in settings that may serve them better than their own
# defaults. All take part in the verdicts.
_VARIANTS: dict[str, tuple[tuple[str, float, dict[str, Any]], ...]] = {
    "ward": (
        ("ward, gap 0.5 s", 0.5, {}),
        ("ward, no gap limit", math.inf, {}),
        ("ward, fast path", 1.0, {"fast_path": "mean"}),
    ),
    "evs": (("evs, run means", 1.0, {"means": True}),),
    "tome": (("tome, frame-major", 1.0, {"order": "frame"}),),
    "floc": (("floc, not centred", 1.0, {"centred": False}),),
    "dycoke": (("dycoke, per frame", 1.0, {"ranking": "frame"}),),
    "visionzip": (("visionzip, attention", 1.0, {"importance": "attention"}),),
    "compose": (("compose, patch-runs then kmeans", 1.0, {"second": "kmeans"}),),
}


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
    """Every compressor of the table (identity apart: it compresses nothing) or ``only`` those, each with its variants.

    Raises:
        ValueError: ``only`` names one that is not there.
    """
    there = [name for name in COMPRESSORS if name != "identity"]
    unknown = [name for name in only or () if name not in there]
    if unknown:
        raise ValueError(f"no compressor {unknown[0]!r}; there are {', '.join(there)}")
    methods = []
    for name in there:
        if only is not None and name not in only:
            continue
        methods.append(Method(name, name))
        methods += [Method(label, name, gap, options) for label, gap, options in _VARIANTS.get(name, ())]
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
    """What the method keeps of the stream; errors of :func:`compressed`."""
    return compressed(method, stream, budget, seed, query)[0]


def compressed(
    method: Method,
    stream: Stream,
    budget: int,
    seed: int = 0,
    query: Tensor | None = None,
    keep_assignment: bool = False,
) -> tuple[TokenSet, Tensor | None]:
    """What the method keeps of the stream, and to which of it each token went, ``[n]`` (-1: none), where asked for.

    Raises:
        ValueError: it keeps more than the budget, or its weights do not stand for all tokens: the comparison would not
            be one.
    """
    made = run(method.make(budget, seed, query, keep_assignment), stream)
    kept = made.result()
    tokens = stream.tokens.shape[0] * stream.tokens.shape[1]
    if len(kept) > budget:
        raise ValueError(f"{method.label} kept {len(kept)} tokens of a budget of {budget}")
    if not math.isclose(kept.total_weight, tokens, rel_tol=1e-3):
        raise ValueError(f"{method.label} gives weights that sum to {kept.total_weight:g}, there were {tokens} tokens")
    return kept, made.assignment() if keep_assignment else None
