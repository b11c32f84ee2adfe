"""The learning table: trains every learner of ``benching.learning`` with every seed, each in a process of its own."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benching.learning import LEARNERS, ON_REQUEST, Run, Task, merge, train
from benching.processes import run_apart
from benching.tables import Report, mean, plot_lines, progress, spread

__all__ = ["QUICK", "run"]

# Half as long, half as many events of half as many symbols, one layer: learned in a third of the steps.
QUICK = Task(frames=16, events=4, symbols=8, layers=1, steps=200, train_examples=768, test_examples=256)
LIMIT_SECONDS = 300.0
LIMIT_BYTES = 8 * 10**9
DEFAULT = "csat"
PUBLISHED = "csat published"


def run(report: Report, options: argparse.Namespace) -> None:
    """Train, print and judge."""
    learners = options.learners or [name for name in LEARNERS if name not in ON_REQUEST]
    for name in learners:
        if name not in LEARNERS:
            raise SystemExit(f"--learners {name!r}: must be of {', '.join(repr(n) for n in LEARNERS)}")
    task = QUICK if options.quick else Task()
    if options.steps is not None:
        task = replace(task, steps=options.steps)
    report.section("Learning", _explain(task, options))
    results, merging = _train_all(report, task, learners, options)
    _table(report, task, results, merging)
    _judge(report, results)
    if options.plot is not None:
        _plot(options.plot, task, results)


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


def _explain(task: Task, options: argparse.Namespace) -> str:
    return (
        f"{task.frames} frames of {task.patches} tokens ({task.tokens} in all) with two scenes, drift, noise, two "
        f"passing things and {task.events} events of {task.symbols} symbols, each on two patches for a second; a "
        f"decoder of {task.layers} layer(s), {task.model_width} wide, {task.heads} heads, says the symbols in order. "
        f"{task.steps} steps of {task.batch}, AdamW, peak rate {task.peak_rate:g} (tuned for exact attention), "
        f"{task.train_examples} training and {task.test_examples} test examples, {options.seeds} seeds (of the "
        f"language of symbols, the examples and the model). Methods that keep a state keep as many numbers as "
        f"{task.kept} tokens (1/{task.ratio}) have.\n\n"
        f"Accuracy: share of symbols said right, each after those said before; guessing gives {1 / task.symbols:.2f}. "
        f"Perplexity: of each symbol after the true ones; knowing only these gives {task.symbols / 4:.0f} (from the "
        "second on). `csat` is given tokens that streaming Ward merging (gap 1 s) made once for each example, before "
        "training, as they do not change; the last column of times counts it for every example of every step, as if "
        "nothing had been kept. `uniform frames` is a control: exact attention to as many tokens, of evenly spaced "
        "frames. Memory is above the data, which for `csat` is the merged tokens. Nystrom has more landmarks here than "
        "there are queries, so its landmarks of queries are the queries themselves, and all tokens are read: it keeps "
        "no state between queries."
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
    note = f"Merging takes {spread([m * 1e3 for m in merging], 1)} ms an example." if merging else ""
    report.table("What each attention learns", header, rows, note, {"runs": results, "merging_seconds": merging})


def _judge(report: Report, results: dict[str, list[dict[str, Any]]]) -> None:
    def accuracy(name: str) -> float | None:
        return mean([r["accuracy"] for r in results[name]]) if results.get(name) else None

    exact, ours = accuracy("exact"), accuracy(DEFAULT)
    if exact is not None:
        report.verdict("exact attention learns the task (accuracy over 0.9)", exact > 0.9, f"{exact:.3f}")
    if ours is None:
        return
    # nystrom and exact attention read all tokens for every query
    others = {name: accuracy(name) for name in results if not name.startswith(("exact", "nystrom", DEFAULT))}
    others[PUBLISHED] = accuracy(PUBLISHED)
    known = {name: value for name, value in others.items() if value is not None}
    better = [f"{name} {value:.3f}" for name, value in known.items() if value >= ours]
    found = f"{ours:.3f}" + (f", exact {exact:.3f}" if exact is not None else "")
    found += "; beaten by " + ", ".join(better) if better else ""
    report.verdict(
        f"{DEFAULT} is the most accurate of the forms that keep a state of 1/16", not better if known else None, found
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
