"""The learning table: trains every learner of ``benching.learning`` with every seed, each in a process of its own.

Or prints the table and its verdicts again from the numbers of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from benching.learning import LEARNERS, ON_REQUEST, Run, Task, merge, train
from benching.processes import run_apart
from benching.tables import Report, mean, plot_lines, progress, spread

__all__ = ["QUICK", "again", "check", "run"]

# Half as long, half as many events of half as many symbols, one layer: learned in a third of the steps.
QUICK = Task(frames=16, events=4, symbols=8, layers=1, steps=200, train_examples=768, test_examples=256)
LIMIT_SECONDS = 300.0
LIMIT_BYTES = 8 * 10**9
DEFAULT = "csat"
# Not among the rivals of the verdict, and why.
OUTSIDE = {
    "exact": "the mark, reads all tokens for every query",
    "nystrom": "reads all tokens for every query",
    "csat in the layer": "the same method, merging inside the layer",
}
TITLE = "What each attention learns"


def check(options: argparse.Namespace) -> None:
    """End the program, with a message, on the name of a learner that there is not."""
    for name in options.learners or ():
        if name not in LEARNERS:
            raise SystemExit(f"--learners {name!r}: must be of {', '.join(repr(n) for n in LEARNERS)}")


def run(report: Report, options: argparse.Namespace) -> None:
    """Train, print and judge."""
    learners = options.learners or [name for name in LEARNERS if name not in ON_REQUEST]
    task = _task(options)
    report.section("Learning", _explain(task, options.seeds))
    results, merging = _train_all(report, task, learners, options)
    _print(report, task, results, merging, options.plot)


def again(options: argparse.Namespace, parse: Callable[[list[str]], argparse.Namespace]) -> int:
    """Print and judge the numbers that ``--json`` of an earlier run wrote; the exit code. Nothing is trained.

    A file without the sizes of its task, of an earlier version, has those that its command asked for.
    """
    path: Path = options.from_json
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        values = next(table["values"] for table in data["tables"] if table["title"] == TITLE)
        words = shlex.split(data["command"])[2:]  # python, script
        if "--from-json" in words:
            raise ValueError("it was printed again itself, give the file of the run")
        results, merging = dict(values["runs"]), list(values["merging_seconds"])
        sizes, versions = values.get("task"), str(data["versions"])
        missing = [line for line in data["missing"] if line.startswith("learning: ")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        reason = "no learning table" if isinstance(error, StopIteration) else f"{type(error).__name__}: {error}"
        raise SystemExit(f"--from-json {path}: must be what --json wrote of the learning part: {reason}") from error
    task = _task(parse(words)) if sizes is None else Task(**{f.name: sizes[f.name] for f in fields(Task)})
    learnt = shlex.join(_without(words, ("--json", "--plot")))
    seeds = max(map(len, results.values()), default=0)
    report = Report("Attention over video tokens, printed again")
    measured = f"Measured by `python scripts/bench_attention.py {learnt}`: {versions}."
    report.section("Learning", f"{measured}\n\n{_explain(task, seeds)}")
    report.missing.extend(missing)
    _print(report, task, results, merging, options.plot)
    return report.end(options.json)


def _without(words: list[str], options: tuple[str, ...]) -> list[str]:
    """The words of a command less these options and the one word after each: folders say nothing of what was done."""
    return [
        word
        for before, word in zip(["", *words[:-1]], words, strict=True)
        if not (word in options or before in options or word.startswith(tuple(f"{option}=" for option in options)))
    ]


def _task(options: argparse.Namespace) -> Task:
    task = QUICK if options.quick else Task()
    return task if options.steps is None else replace(task, steps=options.steps)


def _print(
    report: Report, task: Task, results: dict[str, list[dict[str, Any]]], merging: list[float], plots: Path | None
) -> None:
    _table(report, task, results, merging)
    _judge(report, results)
    if plots is not None:
        _plot(plots, task, results)


def _train_all(
    report: Report, task: Task, learners: list[str], options: argparse.Namespace
) -> tuple[dict[str, list[dict[str, Any]]], list[float]]:
    """What each run of each learner gave, and the seconds that merging took an example, for each seed."""
    limits: dict[str, Any] = {"limit_seconds": LIMIT_SECONDS, "limit_bytes": LIMIT_BYTES}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in learners}
    merging: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):  # seed by seed, so that a machine whose speed drifts treats all alike
            assignments = str(Path(folder) / f"{seed}.pt")
            if any(LEARNERS[name].memory == "merged" for name in learners):
                outcome = run_apart(merge, Run("csat", seed, task, assignments), threads=options.threads, **limits)
                progress(f"seed {seed}: merging, {outcome.kind} {outcome.detail}")
                if outcome.kind == "ok":
                    merging.append(outcome.value["seconds_an_example"])
                else:
                    report.unavailable(f"learning: merging, seed {seed}", f"{outcome.kind}: {outcome.detail}")
            for name in learners:
                outcome = run_apart(train, Run(name, seed, task, assignments), threads=options.threads, **limits)
                if outcome.kind == "ok":
                    merged = LEARNERS[name].memory == "merged"
                    results[name].append({**outcome.value, "merging_seconds": merging[-1] if merged else 0.0})
                    said = f"accuracy {outcome.value['accuracy']:.3f}"
                else:
                    report.unavailable(f"learning: {name}, seed {seed}", f"{outcome.kind}: {outcome.detail}")
                    said = outcome.kind
                progress(f"seed {seed}: {name}, {said}")
    return results, merging


def _explain(task: Task, seeds: int) -> str:
    return (
        f"{task.frames} frames of {task.patches} tokens ({task.tokens} in all) with two scenes, drift, noise, two "
        f"passing things and {task.events} events of {task.symbols} symbols, each on two patches for a second; a "
        f"decoder of {task.layers} layer(s), {task.model_width} wide, {task.heads} heads, says the symbols in order. "
        f"{task.steps} steps of {task.batch}, AdamW, peak rate {task.peak_rate:g}, "
        f"{task.train_examples} training and {task.test_examples} test examples, {seeds} seeds (of the "
        f"language of symbols, the examples and the model). Methods that keep a state keep as many numbers as "
        f"{task.kept} tokens (1/{task.ratio}) have.\n\n"
        f"Accuracy: share of symbols said right, each after those said before; guessing gives {1 / task.symbols:.2f}. "
        f"Perplexity: of each symbol after the true ones; knowing only these gives {task.symbols / 4:.0f} (from the "
        "second on). `csat` is given tokens that streaming Ward merging (gap 1 s) made once for each example, before "
        "training, as they do not change; the last column of times counts it for every example of every step, as if "
        "nothing had been kept. `uniform frames` is a control: exact attention to as many tokens, of evenly spaced "
        "frames. Memory is above the data, which for `csat` is the merged tokens. Nystrom has more landmarks here than "
        "there are queries, so its landmarks of queries are the queries themselves, and all tokens are read: it keeps "
        "no state between queries.\n\n"
        "What is not equal: rates were searched for exact attention only, and all others use its rate. Linformer has "
        "more parameters than the others, two mixing matrices a layer. Phi of `csat published` is random and stays as "
        "it is: what is trained are the projections around it and, where named, LISTA. Nothing of the merging of "
        "`csat` is trained."
    )


def _table(report: Report, task: Task, results: dict[str, list[dict[str, Any]]], merging: list[float]) -> None:
    header = [
        "attention", "accuracy", "whole sequence right", "perplexity", "parameters", "ms a step",
        "ms a step with merging", "peak memory, MB",
    ]  # fmt: skip
    rows = []
    for name, runs in results.items():
        if not runs:
            rows.append([name, *["failed"] * (len(header) - 1)])
            continue
        steps = [r["seconds_a_step"] * 1e3 for r in runs]
        whole = [(r["seconds_a_step"] + r["merging_seconds"] * task.batch) * 1e3 for r in runs]
        rows.append(
            [
                name,
                *(spread([r[key] for r in runs], 3) for key in ("accuracy", "whole", "perplexity")),
                f"{runs[0]['parameters']:,}",
                spread(steps, 1),
                spread(whole, 1),
                spread([r["peak_bytes"] / 1e6 for r in runs], 1),
            ]
        )
    notes = [f"Merging takes {spread([m * 1e3 for m in merging], 1)} ms an example."] if merging else []
    counts = {name: runs[0]["parameters"] for name, runs in results.items() if runs}
    least = min(counts.values(), default=0)
    more = [f"{name} {count - least:,}" for name, count in counts.items() if count > least]
    if more:
        notes.append(f"Parameters beyond the least, {least:,}: {', '.join(more)}.")
    values = {"runs": results, "merging_seconds": merging, "task": asdict(task)}
    report.table(TITLE, header, rows, " ".join(notes), values)


def _judge(report: Report, results: dict[str, list[dict[str, Any]]]) -> None:
    def accuracy(name: str) -> float | None:
        return mean([r["accuracy"] for r in results[name]]) if results.get(name) else None

    exact, ours = accuracy("exact"), accuracy(DEFAULT)
    if exact is not None:
        report.verdict("exact attention learns the task (accuracy over 0.9)", exact > 0.9, f"{exact:.3f}")
    if ours is None:
        return
    known = {name: accuracy(name) for name in results if name != DEFAULT and name not in OUTSIDE}
    rivals = {name: value for name, value in known.items() if value is not None}
    better = [f"{name} {value:.3f}" for name, value in rivals.items() if value >= ours]
    found = f"{ours:.3f}" + (f", exact {exact:.3f}" if exact is not None else "")
    found += "; as good or better: " + ", ".join(better) if better else ""
    found += f". Against: {', '.join(rivals) or 'none'}"
    left = [f"{name} ({why})" for name, why in OUTSIDE.items() if name in results]
    found += f". Left out: {', '.join(left)}" if left else ""
    report.verdict(
        f"{DEFAULT} is the most accurate of the forms that keep a state of 1/16", not better if rivals else None, found
    )


def _plot(folder: Path, task: Task, results: dict[str, list[dict[str, Any]]]) -> None:
    series = {}
    for name, runs in results.items():
        if runs:
            every = max(1, task.steps // 50)
            middle = [mean(values) for values in zip(*(r["losses"] for r in runs), strict=True)]
            series[name] = ([i * every for i in range(len(middle))], middle)
    plot_lines(
        folder / "attention-learning.png",
        series,
        title="Training loss of the same decoder with each attention",
        x_label="step",
        y_label="loss, nats a symbol",
        log_y=True,
        bold=[DEFAULT],
    )
