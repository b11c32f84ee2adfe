"""Fidelity: how far attention over what a method kept is from exact attention over all tokens of a window.

Jobs (a window, a method) run in processes of their own; every number comes back with the stream it belongs to.

Shapes: T frames, P patches a frame, n = T * P tokens of a window, d width, m kept tokens.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benching.jobs import settled
from benching.methods import DEFAULT, NAMED, QUERY_TOKENS, TOLD, Method, budget_of, compress
from benching.queries import QUERY_KINDS, make_probe, merged_answer
from benching.rivals import RIVALS
from benching.tables import Report, deviation, mean, plot_lines, spread
from benching.tokens import Stream
from csat_fusion.errors import CompressionError

__all__ = [
    "Errors",
    "fidelity_of",
    "judge_fidelity",
    "measure_fidelity",
    "plot_fidelity",
    "print_fidelity",
    "print_judged",
]

Cell = tuple[str, int, str]  # label, rate, kind of query


@dataclass
class Errors:
    """Errors of each cell, by stream (each the mean over its windows and seeds), and what kind of method a label is."""

    values: dict[Cell, dict[str, float]] = field(default_factory=dict)
    causal: dict[str, bool] = field(default_factory=dict)
    exact_budget: dict[str, bool] = field(default_factory=dict)
    windows: dict[Cell, set[str]] = field(default_factory=lambda: defaultdict(set))
    _raw: dict[Cell, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, cell: Cell, stream: str, error: float, window: str | None = None) -> None:
        self._raw[cell][stream].append(error)
        self.values.setdefault(cell, {})[stream] = mean(self._raw[cell][stream])
        self.windows[cell].add(stream if window is None else window)

    def compare(self, cell: Cell, other: Cell) -> bool:
        """Whether both were measured, and on the same windows."""
        return bool(self.windows.get(cell)) and self.windows.get(cell) == self.windows.get(other)

    def of(self, rate: int, kind: str) -> set[str]:
        """All windows on which any method was measured with that share and kind of query."""
        return set().union(*(names for (_, r, k), names in self.windows.items() if (r, k) == (rate, kind)))

    def labels(self) -> list[str]:
        return list(self.causal)


def seeds_of(method: Method, seeds: Sequence[int]) -> Sequence[int]:
    """All seeds where the method draws at random; else one, as the others would give the same."""
    return seeds if method.seeded else seeds[:1]


def fidelity_of(
    window: Stream, method: Method, rates: Sequence[int], seeds: Sequence[int], queries: int = 64
) -> list[tuple[int, str, float]]:
    """``(rate, kind of query, error)`` of one compressor on one window, for each rate, seed and kind.

    A rate below one frame's tokens that the compressor refuses gives no number.
    """
    torch.set_num_threads(1)
    probes = {seed: make_probe(window, seed, queries) for seed in seeds}
    found = []
    for rate in rates:
        budget = budget_of(window, rate)
        try:
            kept = {
                seed: compress(method, window, budget, seed, told(window, seed)) for seed in seeds_of(method, seeds)
            }
        except CompressionError:
            if budget >= window.tokens.shape[1]:
                raise
            continue  # it says that it cannot keep less than a frame
        for seed in seeds:
            tokens = kept.get(seed, kept[seeds[0]])
            for kind, probe in probes[seed].items():
                found.append((rate, kind, probe.error(merged_answer(probe.query, tokens.tokens, tokens.weight))))
    return found


def told(window: Stream, seed: int) -> torch.Tensor:
    """The tokens that query-guided selection is given: a few of the event's (of all, where nothing happens)."""
    generator = torch.Generator().manual_seed(seed)
    places = window.event.flatten().nonzero()[:, 0]
    tokens = window.tokens.flatten(0, 1)
    if not len(places):
        places = torch.arange(len(tokens))
    return tokens[places[torch.randint(len(places), (QUERY_TOKENS,), generator=generator)]]


def rival_fidelity(
    window: Stream, label: str, rates: Sequence[int], seeds: Sequence[int], queries: int = 64
) -> list[tuple[int, str, float]]:
    """The same for an attention rival of equal state; rates at which it can hold nothing give no number."""
    torch.set_num_threads(1)
    rival = RIVALS[label]
    probes = {seed: make_probe(window, seed, queries) for seed in seeds}
    found = []
    for rate in rates:
        budget = budget_of(window, rate)
        answers = None
        for seed in seeds:
            if answers is None or rival.seeded:
                answers = rival.build(window.tokens, budget, seed)
            if answers is None:
                break
            for kind, probe in probes[seed].items():
                found.append((rate, kind, probe.error(answers(probe.query))))
    return found


def measure_fidelity(
    parts: dict[str, list[Stream]],
    methods: Sequence[Method],
    rates: Sequence[int],
    seeds: Sequence[int],
    pool: Executor,
    report: Report,
    rivals: Iterable[str] = (),
    queries: int = 64,
) -> Errors:
    """All methods and rivals over the windows of each stream; ``seeds`` draw the queries, and what methods draw."""
    errors = Errors()
    jobs: list[tuple[str, tuple[str, str], Future[list[tuple[int, str, float]]]]] = []
    for method in methods:
        made = method.make(4, query=torch.ones(1, _width(parts)))
        errors.causal[method.label], errors.exact_budget[method.label] = made.causal, made.exact_budget
        for stream, window in _windows(parts):
            job = pool.submit(fidelity_of, window, method, rates, seeds, queries)
            jobs.append((method.label, (stream, window.name), job))
    for label in rivals:
        errors.causal[label], errors.exact_budget[label] = RIVALS[label].causal, True
        for stream, window in _windows(parts):
            job = pool.submit(rival_fidelity, window, label, rates, seeds, queries)
            jobs.append((label, (stream, window.name), job))
    failed: set[str] = set()
    for label, (stream, name), found in settled(jobs, report, failed, "fidelity"):
        for rate, kind, error_found in found:
            errors.add((label, rate, kind), stream, error_found, name)
    for label in failed:  # a row of some streams only would not compare
        for cell in [c for c in errors.values if c[0] == label]:
            del errors.values[cell], errors.windows[cell]
    return errors


def _width(parts: dict[str, list[Stream]]) -> int:
    return int(next(iter(parts.values()))[0].tokens.shape[2])


def _windows(parts: dict[str, list[Stream]]) -> Iterator[tuple[str, Stream]]:
    for stream, windows in parts.items():
        for window in windows:
            yield stream, window


# -- report -----------------------------------------------------------------------------------------------------------


def print_fidelity(report: Report, title: str, errors: Errors, rates: Sequence[int], note: str) -> None:
    """A table for each kind of query; a cell that lacks windows that others have says how many it has."""
    for kind in QUERY_KINDS:
        rows = []
        for label in errors.labels():
            shown = [_shown(errors, (label, rate, kind)) for rate in rates]
            name = f"**{label}**" if label == DEFAULT else label
            rows.append([name, _yes(errors.causal[label]), _yes(errors.exact_budget[label]), *shown])
        header = ["method", "causal", "exact m", *(f"1/{rate}" for rate in rates)]
        values = {
            label: {rate: errors.values.get((label, rate, kind), {}) for rate in rates} for label in errors.labels()
        }
        report.table(f"{title}: {kind} queries", header, rows, note, values)


def _shown(errors: Errors, cell: Cell) -> str:
    text = spread(list(errors.values.get(cell, {}).values()))
    count, full = len(errors.windows.get(cell, ())), len(errors.of(*cell[1:]))
    return f"{text} ({count} of {full})" if 0 < count < full else text


def _yes(value: bool) -> str:
    return "yes" if value else "no"


@dataclass(frozen=True)
class Judged:
    """The default's error at one rate and kind of query beside the best of others, ``ward`` itself among the causal.

    ``lost``: streams in which the best causal is better, of ``streams``; ``worst``: the largest ratio of the default's
    error to the best causal's in any of them.
    """

    rate: int
    kind: str
    default: float
    causal_label: str
    causal: float
    within_deviation: bool
    lost: int
    streams: int
    worst: float
    offline_label: str
    offline: float
    within_quarter: bool


def judge_fidelity(
    errors: Errors, rates: Sequence[int], default: str = DEFAULT, told: frozenset[str] = TOLD
) -> list[Judged]:
    """One judgement a rate and kind of query, over methods measured on the same windows as the default.

    ``told`` are labels left out, as they know what will be asked. "Within one standard deviation of the best": the
    mean of the paired differences (default less best, stream by stream) is at most their standard deviation. Streams
    that differ much make that wide, so the streams lost and the worst of them are told too.
    """
    judged = []
    for kind in QUERY_KINDS:
        for rate in rates:
            own = errors.values.get((default, rate, kind), {})
            if not own:
                continue
            best: dict[bool, tuple[str, dict[str, float]]] = {}
            for label in errors.labels():
                if label in told or not errors.compare((label, rate, kind), (default, rate, kind)):
                    continue
                values, causal = errors.values[label, rate, kind], errors.causal[label]
                if causal not in best or mean(list(values.values())) < mean(list(best[causal][1].values())):
                    best[causal] = (label, values)
            here = mean(list(own.values()))
            label, values = best[True]
            differences = [own[stream] - values[stream] for stream in own]
            room = deviation(differences) if len(differences) > 1 else 0.0
            off_label, off_values = best.get(False, ("-", {}))
            offline = mean(list(off_values.values()))
            judged.append(
                Judged(
                    rate=rate,
                    kind=kind,
                    default=here,
                    causal_label=label,
                    causal=mean(list(values.values())),
                    within_deviation=label == default or mean(differences) <= room,
                    lost=sum(difference > 0 for difference in differences),
                    streams=len(own),
                    worst=max(own[s] / values[s] if values[s] else (math.inf if own[s] else 1.0) for s in own),
                    offline_label=off_label,
                    offline=offline,
                    within_quarter=not off_values or here <= 1.25 * offline,
                )
            )
    return judged


def print_judged(report: Report, title: str, errors: Errors, rates: Sequence[int]) -> None:
    """The targets row by row, losses shown; then the offline one again, with methods that are told what is asked."""
    judged, with_told = judge_fidelity(errors, rates), judge_fidelity(errors, rates, told=frozenset())
    rows = [
        [
            row.kind,
            f"1/{row.rate}",
            f"{row.default:.3f}",
            f"{row.causal_label} {row.causal:.3f}",
            "yes" if row.within_deviation else "**no**",
            f"{row.lost} of {row.streams}",
            f"{row.worst:.2f}",
            f"{row.offline_label} {row.offline:.3f}" if row.offline_label != "-" else "-",
            f"{row.default / row.offline:.2f}" if row.offline > 0 else "-",
            "yes" if row.within_quarter else "**no**",
        ]
        for row in judged
    ]
    header = [
        "queries",
        "kept",
        "default",
        "best causal",
        "best or within 1 sd",
        "streams lost to it",
        "worst ratio to it",
        "best offline",
        "ratio",
        "<= 1.25",
    ]
    note = (
        "Streams lost: in how many the best causal method has the smaller error; worst ratio: the default's error "
        f"over its, in the worst stream. Left out of the best: {', '.join(sorted(TOLD))}, told what is asked, and "
        "cells that lack windows."
    )
    report.table(f"{title}: the default against the best", header, rows, note)
    met = sum(row.within_deviation for row in judged)
    report.verdict(
        f"{title}: best causal, or within one standard deviation of it, in every row",
        met == len(judged) if judged else None,
        f"{met} of {len(judged)} rows",
    )
    known = ", ".join(sorted(TOLD & set(errors.labels())))
    for each, words in ((judged, ""), (with_told, f", {known} (told what is asked) among them")):
        if words and not known:
            continue
        near = sum(row.within_quarter for row in each)
        report.verdict(
            f"{title}: within 1.25x of the best offline method in every row{words}",
            near == len(each) if each else None,
            f"{near} of {len(each)} rows",
        )


def plot_fidelity(folder: Path, kind: str, errors: Errors, rates: Sequence[int], report: Report) -> None:
    """A plot for event and background queries; methods far worse than the mean token are left out, and named."""
    for query in QUERY_KINDS[:2]:
        series, left_out = {}, []
        for label in errors.labels():
            cells = [mean(list(errors.values.get((label, rate, query), {}).values())) for rate in rates]
            if any(value < 1.5 for value in cells):
                series[label] = ([1 / rate for rate in rates], cells)
            else:
                left_out.append(label)
        without = f" Without those above 1.5 everywhere: {', '.join(left_out)}." if left_out else ""
        report.remark(
            f"Plot fidelity-{kind}-{query}.png: means of the table, cells that lack windows too.{without} Random "
            "queries have no plot."
        )
        plot_lines(
            folder / f"fidelity-{kind}-{query}.png",
            series,
            title=f"Attention error, {kind}, {query} queries",
            x_label="share of tokens kept",
            y_label="error (1: the mean token)",
            log_x=True,
            log_y=True,
            bold=[DEFAULT],
            named=NAMED,
        )
