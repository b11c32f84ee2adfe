"""The curves of a training, from the log that it wrote: a short form for the card, and plots."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

__all__ = ["plot_curves", "read_curves"]

_POINTS = 100


def read_curves(path: Path) -> dict[str, Any]:
    """By stage: its last step, the loss as means over about 100 stretches of steps, and its figures of validation.

    ``path`` is a ``curves.jsonl`` of ``scripts/train_tiny.py``: lines ``{stage, step, loss, ...}`` and, after some
    steps, ``{stage, step, check: {figure: value}}``.

    Raises:
        InputError: the file is not there, or a line is no such line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    stages: dict[str, Any] = {}
    losses: dict[str, list[tuple[int, float]]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            stage, step = row["stage"], int(row["step"])
            told = {name: float(value) for name, value in row["check"].items()} if "check" in row else None
            loss = float(row["loss"]) if told is None else math.nan
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}:{number}: no line of a training's log: {error!r}") from error
        entry = stages.setdefault(stage, {"steps": 0, "loss": [], "checks": {}})
        entry["steps"] = max(entry["steps"], step)
        if told is None:
            losses.setdefault(stage, []).append((step, loss))
        for name, value in (told or {}).items():
            entry["checks"].setdefault(name, []).append([step, value])
    if not stages:
        raise InputError(f"{path}: an empty log")
    for stage, points in losses.items():
        size = -(-len(points) // _POINTS)
        for start in range(0, len(points), size):
            some = points[start : start + size]
            stages[stage]["loss"].append([some[-1][0], math.fsum(value for _, value in some) / len(some)])
    return {"stages": stages}


def plot_curves(curves: dict[str, Any], folder: Path) -> list[str]:
    """A PNG for each stage, the loss and each figure in a panel of its own; the names of the files."""
    from benching.tables import require_matplotlib

    pyplot = require_matplotlib()
    names = []
    for stage, entry in curves["stages"].items():
        panels = {"loss, as trained": entry["loss"], **entry["checks"]}
        columns = min(4, len(panels))
        rows = -(-len(panels) // columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(3 * columns, 2.4 * rows), dpi=80, squeeze=False)
        for place in axes.flat[len(panels) :]:
            place.axis("off")
        for i, (place, (title, points)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
            marker = "o" if i else None
            place.plot(
                [p[0] for p in points], [p[1] for p in points], color=f"C{bool(i):d}", marker=marker, markersize=3
            )
            place.set_title(title, fontsize=9)
            place.tick_params(labelsize=7)
            place.grid(True, alpha=0.3)
        figure.suptitle(f"stage {stage}: {entry['steps']} steps", fontsize=10)
        figure.tight_layout()
        names.append(f"curves-{stage}.png")
        figure.savefig(folder / names[-1], metadata={"Software": None})
        pyplot.close(figure)
    return names
