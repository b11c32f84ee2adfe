"""The efficiency tables and their verdicts: runs the rows of ``benching.efficiency``.

Shapes: n tokens, m kept tokens, q queries.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from benching.efficiency import METHODS, measure
from benching.efficiency_state import Row
from benching.processes import Outcome, run_apart
from benching.tables import Report, deviation, mean, plot_lines, progress, spread

__all__ = ["check", "run"]

# The default form, the one the targets are about.
DEFAULT = "csat ward"
# The size whose error stands beside the times, where it is measured; the largest one below it otherwise.
ERROR_SIZE = 4096
Results = dict[str, dict[int, Outcome]]


def check(options: argparse.Namespace) -> None:
    """End the program, with a message, on the name of a method that there is not."""
    for name in options.methods or ():
        if name not in METHODS:
            raise SystemExit(f"--methods {name!r}: must be of {', '.join(repr(m) for m in METHODS)}")


def run(report: Report, options: argparse.Namespace) -> None:
    """Measure, print and judge every setting of ``options.queries``."""
    methods = options.methods or list(METHODS)
    limit_bytes = int(options.limit_gb * 1e9) if options.limit_gb else int(0.8 * _free_bytes())
    report.section("Efficiency", _explain(options, limit_bytes))
    for queries in options.queries:
        results = _measure_all(report, options, methods, queries, limit_bytes)
        label = f"q = {queries}"
        _tables(report, options, results, label)
        _judge(report, results, label, against_eager=queries == "n")
        if options.plot is not None:
            _plot(options.plot, results, queries)


def _measure_all(
    report: Report, options: argparse.Namespace, methods: list[str], queries: str, limit_bytes: int
) -> Results:
    results: Results = {name: {} for name in methods}
    for n in options.tokens:  # size by size, so that a machine whose speed drifts treats the methods alike
        for name in methods:
            before = [(k, o) for k, o in results[name].items() if o.kind in ("time", "memory")]
            if before:  # a larger one would be over the same limit
                size, outcome = before[0]
                results[name][n] = Outcome(outcome.kind, detail=f"not run: {outcome.detail} at {size}")
                continue
            row = Row(
                method=name,
                tokens=n,
                queries=n if queries == "n" else int(queries),
                seeds=tuple(range(options.seeds)),
                ratio=options.ratio,
                device=options.device,
                dtype=options.dtype,
            )
            outcome = run_apart(
                measure, row, threads=options.threads, limit_seconds=options.limit_seconds, limit_bytes=limit_bytes
            )
            results[name][n] = outcome
            if outcome.kind == "failed":
                report.unavailable(f"{name}, n = {n}, q = {queries}", outcome.detail)
            progress(f"q = {queries}, n = {n}, {name}: {_say(outcome)}")
    return results


def _say(outcome: Outcome) -> str:
    if outcome.kind != "ok":
        return f"{outcome.kind}: {outcome.detail}"
    value = outcome.value
    spent = f"{mean(value['seconds']) * 1e3:.1f} ms, {mean(value['bytes']) / 1e6:.1f} MB"
    return f"{spent}, error {_short(mean(value['error']))}"


def _free_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/meminfo does not say how much memory is free: give --limit-gb")


def _explain(options: argparse.Namespace, limit_bytes: int) -> str:
    lines = [
        f"8 heads of 64, {options.dtype}, {options.device}; synthetic video tokens with drift and cuts, 64 patches a "
        f"frame, 2 frames a second. Mean ± standard deviation over {options.seeds} seeds (two or one where a call "
        f"takes over 10 s or 30 s). Limits: {options.limit_seconds:g} s a call, {limit_bytes / 1e9:.1f} GB a process. "
        "Peak memory is above the inputs and holds a method's own matrices; its time does not hold making them. "
        f"m = n/{options.ratio}: all but exact attention and the rows of a setting of their own keep the state of m "
        "tokens, that is as many numbers.",
        "",
        "Error: of the attention output for 64 of the queries, against exact attention over the same tokens; 1 is what "
        "the mean of all tokens gives. A query is a token with noise of half its size. Nothing is trained: Linformer "
        "and the published form are meant to be, and the learning part shows what that gives. Surfaces of this stream "
        "lie well apart, which is easy for merging: its error on tokens of real video is in the tables of fidelity.",
        "",
    ]
    lines += [f"- {name}: {method.note.format(ratio=options.ratio)}" for name, method in METHODS.items()]
    return "\n".join(lines)


# -- tables ------------------------------------------------------------------------------------------------------------


def _tables(report: Report, options: argparse.Namespace, results: Results, label: str) -> None:
    sizes = options.tokens
    header = ["method", *(f"n = {n:,}" for n in sizes)]
    values = {
        name: {str(n): {"kind": o.kind, "detail": o.detail, **(o.value or {})} for n, o in row.items()}
        for name, row in results.items()
    }
    size = max((n for n in sizes if n <= ERROR_SIZE), default=sizes[0])
    rows = [
        [name, *(_cell(row[n], "seconds", 1e3) for n in sizes), _error(row[size], "error")]
        for name, row in results.items()
    ]
    beside = [*header, f"error, n = {size:,}"]
    report.table(f"Time, ms, {label} (compression counted)", beside, rows, values=values)
    rows = [[name, *(_error(row[n], "error") for n in sizes)] for name, row in results.items()]
    known = {n: [row[n] for row in results.values() if row[n].kind == "ok"] for n in sizes}
    rows.append(
        [
            "(tokens that exact attends to)",
            *(_error(found[0], "effective_tokens") if found else "-" for found in known.values()),
        ]
    )
    report.table(f"Error of the output against exact attention, untrained, the mean token = 1, {label}", header, rows)
    compressing = {name: row for name, row in results.items() if _compresses(row)}
    if compressing:
        rows = []
        for name, row in compressing.items():
            rows.append([f"{name}: compressing", *(_cell(row[n], "compress_seconds", 1e3) for n in sizes)])
            rows.append([f"{name}: attending", *(_cell(row[n], "attend_seconds", 1e3) for n in sizes)])
        report.table(f"Of that, compressing and attending apart, ms, {label}", header, rows)
    rows = [[name, *(_cell(row[n], "bytes", 1e-6) for n in sizes)] for name, row in results.items()]
    report.table(f"Peak memory, MB, {label}", header, rows)
    if label == "q = n":
        rows = [[name, *(_state(name, n, options) for n in sizes)] for name in results]
        note = (
            "Kept when read: what must be kept of the n tokens to answer further queries. Running: what is held while "
            "the stream runs, with a method's own matrices and the table of costs of Ward merging; what a call needs "
            "for a moment is in the peak above."
        )
        report.table("State, MB: kept when read / running while streaming", header, rows, note)


def _compresses(row: dict[int, Outcome]) -> bool:
    return any(any(o.value["compress_seconds"]) for o in row.values() if o.kind == "ok")


def _cell(outcome: Outcome, key: str, factor: float) -> str:
    if outcome.kind == "failed":
        return "failed"
    if outcome.kind != "ok":
        return outcome.detail if not outcome.detail.startswith("not run") else f"({outcome.detail})"
    numbers = _numbers(outcome, key)
    scaled = [v * factor for v in numbers]
    text = spread(scaled, 2 if mean(scaled) < 10 else 1 if mean(scaled) < 100 else 0)
    return f"{text} ({len(scaled)} seeds)" if len(scaled) < outcome.value["asked"] else text


def _error(outcome: Outcome, key: str) -> str:
    if outcome.kind != "ok":
        return "failed" if outcome.kind == "failed" else "-"
    values = outcome.value[key]
    return _short(mean(values)) if len(values) < 2 else f"{_short(mean(values))} ± {_short(deviation(values))}"


def _short(value: float) -> str:
    """Two digits that count: rounding errors and useless answers stand in one column."""
    if value < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if value < 0.095 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _numbers(outcome: Outcome, key: str) -> list[float]:
    value: dict[str, Any] = outcome.value
    if key == "attend_seconds":
        return [a - b for a, b in zip(value["seconds"], value["compress_seconds"], strict=True)]
    return list(value[key])


def _state(name: str, n: int, options: argparse.Namespace) -> str:
    row = Row(name, n, n, ratio=options.ratio, dtype=options.dtype)
    state = METHODS[name].state(row)
    return f"{state.kept / 1e6:.2f} / {state.running / 1e6:.2f}"


def _plot(folder: Path, results: Results, queries: str) -> None:
    for key, factor, what in (("seconds", 1e3, "ms"), ("bytes", 1e-6, "MB")):
        series = {}
        for name, row in results.items():
            done = [n for n, o in row.items() if o.kind == "ok"]
            series[name] = (done, [mean(_numbers(row[n], key)) * factor for n in done])
        title = f"{'Time' if key == 'seconds' else 'Peak memory'} of attention over n video tokens, q = {queries}"
        path = folder / f"attention-{'time' if key == 'seconds' else 'memory'}-q-{queries}.png"
        plot_lines(path, series, title=title, x_label="n", y_label=what, log_x=True, log_y=True, bold=[DEFAULT])


# -- verdicts ----------------------------------------------------------------------------------------------------------


def _judge(report: Report, results: Results, label: str, *, against_eager: bool) -> None:
    """The targets, and how many calls a compression must serve to have paid."""
    if DEFAULT not in results:
        return
    ours = results[DEFAULT]
    if against_eager:  # the paper's ratios are of its setting
        for key, ratio, what in (("bytes", 2.7, "memory"), ("seconds", 2.5, "time")):
            target = f"{DEFAULT} at n = 4,096, {label}: over {ratio} times less {what} than eager attention"
            found = _ratio(results.get("eager", {}).get(4096), ours.get(4096), key)
            known = not math.isnan(found)
            report.verdict(target, found > ratio if known else None, f"{found:.2f} times" if known else "-")
    _against_sdpa(report, results, label)
    rows = []
    for n, outcome in ours.items():
        exact = results.get("sdpa", {}).get(n)
        if outcome.kind != "ok" or exact is None or exact.kind != "ok":
            rows.append([f"{n:,}", "-"])
            continue
        compress, attend = (mean(_numbers(outcome, key)) for key in ("compress_seconds", "attend_seconds"))
        saved = mean(exact.value["seconds"]) - attend
        rows.append([f"{n:,}", f"{math.ceil(compress / saved):,}" if saved > 0 else "never"])
    note = "A stream is compressed once and may be attended to often: by each layer, and by each word of a caption."
    report.table(
        f"Calls after which compressing once has paid, {DEFAULT} against SDPA, {label}", ["n", "calls"], rows, note
    )


def _against_sdpa(report: Report, results: Results, label: str) -> None:
    sizes = [n for n in results[DEFAULT] if n >= 4096]
    answers: list[bool | None] = []
    found = []
    for n in sizes:
        exact, ours = results.get("sdpa", {}).get(n), results[DEFAULT][n]
        kinds = (exact.kind if exact is not None else "failed", ours.kind)
        ratio = _ratio(exact, ours, "seconds")
        if kinds == ("ok", "ok"):
            answers.append(ratio > 1)
            found.append(f"n = {n:,}: {_short(ratio)} times as fast")
        elif kinds[0] == "time" and kinds[1] == "ok":
            answers.append(True)
            found.append(f"n = {n:,}: faster, as SDPA was over the limit of time")
        elif kinds[0] == "ok" and kinds[1] in ("time", "memory"):
            answers.append(False)
            found.append(f"n = {n:,}: over the limit of {kinds[1]}, where SDPA was not")
        else:
            answers.append(None)
            found.append(f"n = {n:,}: not measured")
    met = False if False in answers else None if None in answers or not answers else True
    target = f"{DEFAULT} faster than SDPA from n = 4,096 up, {label}, compression counted"
    report.verdict(target, met, "; ".join(found) or "-")


def _ratio(other: Outcome | None, ours: Outcome | None, key: str) -> float:
    if other is None or ours is None or other.kind != "ok" or ours.kind != "ok":
        return math.nan
    return mean(_numbers(other, key)) / max(mean(_numbers(ours, key)), 1e-12)
