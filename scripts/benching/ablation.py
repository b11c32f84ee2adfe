"""Ablations: what each part of a method is worth, as errors of attention on the same windows and queries.

Shapes: n tokens of a window, m kept tokens, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import torch
from torch import Tensor

from benching.fidelity import Errors
from benching.jobs import settled
from benching.methods import Method, budget_of, run
from benching.queries import QUERY_KINDS, make_probe, merged_answer
from benching.tables import Report, deviation, mean, progress, spread
from benching.tokens import Stream

__all__ = ["ABLATIONS", "Ablation", "ablation_of", "first_members", "measure_ablations", "print_ablations"]


@dataclass(frozen=True)
class Ablation:
    """A variant beside the one that it is compared with (``base`` names its label; the base itself has None)."""

    label: str
    base: str | None
    method: Method
    weighted: bool = True
    first: bool = False


def _listed() -> list[Ablation]:
    ward = Method("ward", "ward")
    found = [
        Ablation("ward", None, ward),
        Ablation("ward, without log weight", "ward", ward, weighted=False),
        Ablation("ward, first token instead of mean", "ward", ward, first=True),
        Ablation("ward, fast path", "ward", Method("", "ward", options={"fast_path": "mean"})),
        Ablation(
            "ward, fast path, previous frame instead of anchor",
            "ward, fast path",
            Method("", "ward", options={"fast_path": "previous"}),
        ),
        Ablation("ward, same patch only", "ward", Method("", "ward", options={"neighbourhood": 0})),
        Ablation("ward, neighbouring patches only", "ward", Method("", "ward", options={"neighbourhood": 1})),
    ]
    for gap in (0.0, 0.5, 2.0, 4.0, math.inf):
        shown = "no gap limit" if math.isinf(gap) else f"gap {gap:g} s"
        found.append(Ablation(f"ward, {shown}", "ward", Method("", "ward", gap)))
    found.append(Ablation("ward-batched", "ward", Method("", "ward-batched")))
    for share in (0.03, 1 / 3):
        options = {"share": share}
        found.append(
            Ablation(f"ward-batched, share {share:.2f}", "ward-batched", Method("", "ward-batched", options=options))
        )
    found += [
        Ablation("patch-runs (run mean)", None, Method("", "patch-runs")),
        Ablation(
            "evs, run means (previous frame)", "patch-runs (run mean)", Method("", "evs", options={"means": True})
        ),
        Ablation("evs, kept token itself", "evs, run means (previous frame)", Method("", "evs")),
        Ablation("floc (centred, means)", None, Method("", "floc")),
        Ablation("floc, not centred", "floc (centred, means)", Method("", "floc", options={"centred": False})),
        Ablation("floc, kept token itself", "floc (centred, means)", Method("", "floc", options={"means": False})),
        Ablation("tome (patch-major)", None, Method("", "tome")),
        Ablation("tome, frame-major", "tome (patch-major)", Method("", "tome", options={"order": "frame"})),
    ]
    for name, label in (("patch-runs", "patch-runs (run mean)"), ("floc", "floc (centred, means)")):
        found.append(Ablation(f"{name}, without log weight", label, Method("", name), weighted=False))
    found.append(
        Ablation("tome, without log weight", "tome (patch-major)", Method("", "tome"), weighted=False),
    )
    return found


ABLATIONS = {item.label: item for item in _listed()}


def first_members(assignment: Tensor, tokens: Tensor, count: int) -> Tensor:
    """``[m, d]``: for each group the first of its members in the stream, ``assignment [n]``, ``tokens [n, d]``.

    Raises:
        ValueError: a group has no member.
    """
    n = len(assignment)
    first = torch.full((count,), n, dtype=torch.int64)
    kept = assignment >= 0
    first.scatter_reduce_(0, assignment[kept], torch.arange(n)[kept], "amin")
    if bool((first == n).any()):
        raise ValueError(f"group {int((first == n).nonzero()[0])} of {count} has no member")
    return tokens[first]


def ablation_of(
    window: Stream, label: str, rates: Sequence[int], seeds: Sequence[int], queries: int = 64
) -> list[tuple[int, str, float]]:
    """``(rate, kind of query, error)`` of one variant on one window, for each seed of the queries."""
    torch.set_num_threads(1)
    item = ABLATIONS[label]
    probes = [make_probe(window, seed, queries) for seed in seeds]
    found = []
    for rate in rates:
        compressor = run(item.method.make(budget_of(window, rate), keep_assignment=item.first), window)
        kept = compressor.result()
        tokens = kept.tokens
        if item.first:
            assignment = torch.as_tensor(compressor.assignment())
            tokens = first_members(assignment, window.tokens.flatten(0, 1), len(kept))
        for probe_set in probes:
            for kind, probe in probe_set.items():
                answer = merged_answer(probe.query, tokens, kept.weight if item.weighted else None)
                found.append((rate, kind, probe.error(answer)))
    return found


def measure_ablations(
    parts: dict[str, list[Stream]],
    rates: Sequence[int],
    seeds: Sequence[int],
    pool: Executor,
    report: Report,
    queries: int = 64,
) -> Errors:
    """All variants over the windows of each stream."""
    errors = Errors()
    jobs: list[tuple[str, str, Future[list[tuple[int, str, float]]]]] = []
    for label in ABLATIONS:
        for stream, windows in parts.items():
            for window in windows:
                jobs.append((label, stream, pool.submit(ablation_of, window, label, rates, seeds, queries)))
    failed: set[str] = set()
    for label, stream, found in settled(jobs, report, failed, prefix="ablation "):
        for rate, kind, value in found:
            errors.add((label, rate, kind), stream, value)
    for cell in [cell for cell in errors.values if cell[0] in failed]:
        del errors.values[cell]
    progress("ablations done")
    return errors


def print_ablations(report: Report, title: str, errors: Errors, rates: Sequence[int]) -> None:
    """Each variant's error, and the paired difference from what it is compared with; above 0, the part was worth it."""
    for kind in QUERY_KINDS[:2]:
        rows = []
        for label, item in ABLATIONS.items():
            row = [label if item.base is None else f"- {label}"]
            for rate in rates:
                own = errors.values.get((label, rate, kind), {})
                base = errors.values.get((item.base, rate, kind), {}) if item.base else {}
                text = spread(list(own.values()), 3)
                if own and own.keys() == base.keys():
                    differences = [own[stream] - base[stream] for stream in own]
                    text = f"{mean(list(own.values())):.3f} ({mean(differences):+.3f} ± {deviation(differences):.3f})"
                row.append(text)
            rows.append(row)
        note = (
            "In brackets: paired difference from the variant that the row belongs to (one of those above it); above 0: "
            "the row's change makes the error larger."
        )
        report.table(f"{title}: {kind} queries", ["variant", *(f"1/{rate}" for rate in rates)], rows, note)
