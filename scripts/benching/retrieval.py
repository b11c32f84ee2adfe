"""Retrieval: does a picture still find its moment, and its span, among compressed tokens?

The readout, one for all methods: every kept token belongs to the times that its span claims, or, in a column of its
own, to the times of the tokens that were assigned to it. The relevance of a time is less the mean, over the asking
tokens, of the distance to the nearest token that claims this time. The answer is the time of the highest relevance, and
the stretch around it that stays above 0.3 of the height between the video's median relevance and that peak. A method is
so credited for what its tokens say and when they say it; tokens whose spans claim time that they never saw are charged
for it. By membership none is, at the cost of remembering for every token ever seen where it went. Chosen once, on the
same moments, with all tokens and before anything was compressed, as the best R@1 at IoU 0.3 summed over both real kinds
of tokens, of seven relevances (cosine, distance, each also standardised for each asking token or as a softmax over
time) and six levels.

Shapes: T times, q asking tokens, m kept tokens, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benching.fidelity import seeds_of
from benching.jobs import settled
from benching.methods import DEFAULT, NAMED, TOLD, Method, budget_of, compressed
from benching.tables import Report, mean, plot_lines, spread
from benching.tokens import Moment, Stream
from csat_fusion.errors import CompressionError

__all__ = [
    "NOTE",
    "READOUTS",
    "Found",
    "claims_of_members",
    "claims_of_spans",
    "judge_retrieval",
    "locate",
    "measure_retrieval",
    "plot_retrieval",
    "print_retrieval",
    "relevance",
    "score",
    "span_iou",
]

LEVELS = (0.3, 0.5, 0.7)  # of overlap
# How tokens are compared, and where the stretch of a peak ends, as a share of its height: the best on all tokens.
READOUTS = {"distance": 0.3, "cosine": 0.5}


@dataclass(frozen=True)
class Found:
    """What was answered for one moment: overlap with it, whether the peak lies inside, and the overlap of what the
    readout by membership answers."""

    iou: float
    peak_inside: bool
    by_membership: float | None = None


Answers = dict[tuple[int, int], list[Found]]  # by rate and seed
ALL = "all tokens"
SLOW = ("kmeans",)  # minutes for a whole video: drawn once
NOTE = (
    "A kept token belongs to all times of its span, and is charged for those that it never saw; by membership, to "
    "those of the tokens assigned to it, at the cost of one number for every token ever seen, a state that grows with "
    "the stream. Relevance and level of the readout were chosen on these same moments, with all tokens kept."
)
Results = dict[tuple[str, int], dict[tuple[str, int], list[Found]]]  # (label, rate) -> (stream, seed) -> moments


def claims_of_spans(start: Tensor, end: Tensor, times: Tensor) -> Tensor:
    """``[T, m]``: which of the ``times [T]`` lie in the spans ``[m]``."""
    return (start[None] <= times[:, None]) & (times[:, None] < end[None])


def claims_of_members(assignment: Tensor, frames: int, count: int) -> Tensor:
    """``[T, m]``: which of ``count`` kept tokens have a member in which of the ``frames``, by ``assignment [n]``."""
    frame = torch.arange(frames).repeat_interleave(len(assignment) // frames)
    kept = assignment >= 0
    claims = torch.zeros(frames, count, dtype=torch.bool)
    claims[frame[kept], assignment[kept]] = True
    return claims


def relevance(query: Tensor, tokens: Tensor, claims: Sequence[Tensor], centre: Tensor | None = None) -> list[Tensor]:
    """``[T]`` for each of ``claims [T, m]`` from asking tokens ``[q, d]`` and kept ones ``[m, d]``; the least where no
    token claims a time.

    With a ``centre [d]``, by cosines of tokens less it, else by distances.
    """
    if centre is not None:
        query, tokens = (torch.nn.functional.normalize(t - centre, dim=-1) for t in (query, tokens))
    distance = torch.cdist(query, tokens)  # [q, m]
    if centre is not None:
        distance = distance.square() / 2  # 1 less the cosine
    return [_line(distance, each) for each in claims]


def _line(distance: Tensor, claims: Tensor) -> Tensor:
    found = torch.full((len(claims),), -math.inf)
    for i, claimed in enumerate(claims):
        if claimed.any():
            found[i] = -distance[:, claimed].amin(dim=1).mean()
    known = found.isfinite()
    return torch.where(known, found, found[known].min()) if bool(known.any()) else torch.zeros(len(claims))


def locate(
    scores: Tensor, start: Sequence[float], end: Sequence[float], level: float = READOUTS["distance"]
) -> tuple[float, float, float]:
    """Start, end and peak in seconds: the stretch of times around the highest score that stays above the level.

    Where several neighbouring times share the highest score, the peak is the middle of them.
    """
    top = int(scores.argmax())
    height = float(scores[top])
    base = float(scores.median())
    least = base + level * (height - base)
    last = top
    while last + 1 < len(scores) and float(scores[last + 1]) == height:
        last += 1
    first, final = top, last
    while first > 0 and float(scores[first - 1]) >= least:
        first -= 1
    while final + 1 < len(scores) and float(scores[final + 1]) >= least:
        final += 1
    return start[first], end[final], (start[top] + end[last]) / 2


def span_iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Overlap of two spans over their union."""
    common = min(a[1], b[1]) - max(a[0], b[0])
    return max(0.0, common) / (max(a[1], b[1]) - min(a[0], b[0]))


def score(
    stream: Stream,
    moment: Moment,
    tokens: Tensor,
    start: Tensor,
    end: Tensor,
    assignment: Tensor | None = None,
    readout: str = "distance",
) -> Found:
    """Ask kept ``tokens`` for one moment; by membership too where there is an ``assignment [n]``."""
    times = (torch.tensor(stream.start_seconds) + torch.tensor(stream.end_seconds)).double() / 2
    centre = stream.tokens.flatten(0, 1).mean(dim=0) if readout == "cosine" else None
    claims = [claims_of_spans(start, end, times)]
    if assignment is not None:
        claims.append(claims_of_members(assignment, len(times), len(tokens)))
    true = (moment.start_seconds, moment.end_seconds)
    answers = [
        locate(line, stream.start_seconds, stream.end_seconds, READOUTS[readout])
        for line in relevance(moment.query, tokens, claims, centre)
    ]
    overlap = [span_iou((first, last), true) for first, last, _ in answers]
    peak = answers[0][2]
    return Found(overlap[0], true[0] <= peak < true[1], overlap[1] if assignment is not None else None)


def all_tokens(stream: Stream, readout: str = "distance") -> list[Found]:
    """Every moment of the stream, asked among all tokens."""
    torch.set_num_threads(1)
    patches = stream.tokens.shape[1]
    start = torch.tensor(stream.start_seconds, dtype=torch.float64).repeat_interleave(patches)
    end = torch.tensor(stream.end_seconds, dtype=torch.float64).repeat_interleave(patches)
    flat = stream.tokens.flatten(0, 1)
    own = torch.arange(len(flat))
    return [score(stream, moment, flat, start, end, own, readout) for moment in stream.moments]


def retrieval_of(
    stream: Stream, method: Method, rates: Sequence[int], seeds: Sequence[int], readout: str = "distance"
) -> Answers:
    """For each rate and seed, every moment asked among what the method keeps of the whole stream.

    Query-guided selection is told each moment's own tokens, and so compresses once for each of them.
    """
    torch.set_num_threads(1)
    found: Answers = {}
    for rate in rates:
        budget = budget_of(stream, rate)
        for seed in seeds_of(method, seeds)[: 1 if method.name in SLOW else None]:
            answers = []
            kept = assignment = None
            try:
                for moment in stream.moments:
                    if kept is None or method.name in TOLD:
                        kept, assignment = compressed(method, stream, budget, seed, moment.query, keep_assignment=True)
                    spans = kept.start_seconds, kept.end_seconds
                    answers.append(score(stream, moment, kept.tokens, *spans, assignment, readout))
            except CompressionError:
                if budget >= stream.tokens.shape[1]:
                    raise
                break  # it says that it cannot keep less than a frame
            found[rate, seed] = answers
    return found


def measure_retrieval(
    streams: Sequence[Stream],
    methods: Sequence[Method],
    rates: Sequence[int],
    seeds: Sequence[int],
    pool: Executor,
    report: Report,
    readout: str = "distance",
) -> Results:
    """All methods over whole streams; under ``("all tokens", 1)`` what nothing kept back gives."""
    results: Results = {}
    base = [(stream, pool.submit(all_tokens, stream, readout)) for stream in streams]
    jobs: list[tuple[str, str, Future[Answers]]] = []
    for method in methods:
        for stream in sorted(streams, key=lambda s: -len(s.tokens)):
            jobs.append((method.label, stream.name, pool.submit(retrieval_of, stream, method, rates, seeds, readout)))
    for stream, answers in base:
        results.setdefault((ALL, 1), {})[stream.name, seeds[0]] = answers.result()
    failed: set[str] = set()
    for label, name, found in settled(jobs, report, failed, "retrieval"):
        for (rate, seed), answers in found.items():
            results.setdefault((label, rate), {})[name, seed] = answers
    for key in [key for key in results if key[0] in failed]:
        del results[key]
    full = len(streams)
    for key in [key for key, found in results.items() if len({name for name, _ in found}) < full]:
        del results[key]  # a budget that some streams are too short for would not compare
    return results


# -- report -----------------------------------------------------------------------------------------------------------


def recall(found: Sequence[Found], level: float) -> float:
    return mean([float(f.iou >= level) for f in found])


def groups(cells: dict[tuple[str, int], list[Found]], by: str) -> list[list[Found]]:
    """Answers by ``stream`` (synthetic: one seed each) or by ``seed`` (real: all clips' moments together)."""
    place = 0 if by == "stream" else 1
    found: dict[object, list[Found]] = {}
    for key, answers in cells.items():
        found.setdefault(key[place], []).extend(answers)
    return list(found.values())


def print_retrieval(
    report: Report, title: str, results: Results, labels: Sequence[str], rates: Sequence[int], by: str, note: str
) -> None:
    """For each budget a table: R@1 at three overlaps, by membership, peak inside, and R@1 among the hard moments."""
    base = results[ALL, 1]
    for rate in rates:
        hard = hard_moments(results, rate)
        rows = [row(ALL, base, by, hard)]
        for label in labels:
            cells = results.get((label, rate))
            rows.append([label, *["-"] * (len(LEVELS) + 3)] if cells is None else row(label, cells, by, hard))
        count = sum(len(found) for found in base.values())
        header = [
            "method",
            *(f"R@1, IoU {level}" for level in LEVELS),
            f"R@1, IoU {LEVELS[0]}, by membership",
            "peak inside",
            "hard" if hard is None else f"hard ({len(hard)}), IoU {LEVELS[0]}",
        ]
        values = {
            label: {
                "/".join(map(str, key)): [[f.iou, f.peak_inside, f.by_membership] for f in found]
                for key, found in results.get((label, rate), {}).items()
            }
            for label in labels
        }
        report.table(f"{title}: 1/{rate} of the tokens, {count} moments", header, rows, note, values)


def row(label: str, cells: dict[tuple[str, int], list[Found]], by: str, hard: set[tuple[str, int]] | None) -> list[str]:
    parts = groups(cells, by)
    shown = [spread([recall(part, level) for part in parts]) for level in LEVELS]
    members = [[f.by_membership for f in part if f.by_membership is not None] for part in parts]
    shown.append(spread([mean([float(iou >= LEVELS[0]) for iou in each]) for each in members if each]))
    shown.append(spread([mean([float(f.peak_inside) for f in part]) for part in parts]))
    chosen = [f for (name, _), found in cells.items() for i, f in enumerate(found) if (name, i) in (hard or ())]
    shown.append(f"{recall(chosen, LEVELS[0]):.2f}" if chosen else "-")
    return [f"**{label}**" if label == DEFAULT else label, *shown]


def hard_moments(results: Results, rate: int) -> set[tuple[str, int]] | None:
    """``(stream, index)`` of moments that uniform sampling at the same budget misses at IoU 0.3; None where it was not
    measured."""
    if ("uniform", rate) not in results:
        return None
    missed = set()
    for (name, _), found in results["uniform", rate].items():
        missed |= {(name, i) for i, f in enumerate(found) if f.iou < LEVELS[0]}
    return missed


def judge_retrieval(report: Report, title: str, results: Results, rate: int = 32, share: float = 0.9) -> None:
    """The target: at 1/32, 90% of what all tokens give, R@1 at IoU 0.3."""
    base = [f for found in results[ALL, 1].values() for f in found]
    cells = results.get((DEFAULT, rate))
    target = f"{title}: 1/{rate} of the tokens keep at least {share:.0%} of the all-token R@1 at IoU 0.3"
    if cells is None or recall(base, LEVELS[0]) == 0:
        report.verdict(target, None, "no answer of the default, or none right with all tokens")
        return
    full = recall(base, LEVELS[0])
    kept = recall([f for found in cells.values() for f in found], LEVELS[0])
    error = (full * (1 - full) / len(base)) ** 0.5
    report.verdict(
        target,
        kept >= share * full,
        f"{DEFAULT} {kept:.3f} of {full:.3f}: {kept / full:.0%} "
        f"({len(base)} moments, so a standard error of {error:.2f} in each)",
    )


def plot_retrieval(folder: Path, kind: str, results: Results, labels: Sequence[str], rates: Sequence[int]) -> None:
    def value(label: str, rate: int) -> float:
        found = [f for answers in results.get((label, rate), {}).values() for f in answers]
        return recall(found, LEVELS[0]) if found else float("nan")

    share = [1 / rate for rate in rates]
    series = {label: (share, [value(label, rate) for rate in rates]) for label in labels}
    full = value("all tokens", 1)
    plot_lines(
        folder / f"retrieval-{kind}.png",
        {"all tokens": (share, [full] * len(rates)), **series},
        title=f"Moments found, {kind}",
        x_label="share of tokens kept",
        y_label="R@1 at IoU 0.3",
        log_x=True,
        bold=[DEFAULT],
        named=NAMED,
    )
