"""Draws the compression dial. matplotlib is imported when something is drawn, and no sooner."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ExtraMissing, OptionError
from pipeline.evaluation.library import LibraryScores
from pipeline.evaluation.sweep import Sweep
from pipeline.store import disk_errors

__all__ = ["check_plot", "plot_sweep"]

_ENDINGS = (".png", ".svg")


def check_plot(path: str | Path) -> None:
    """Refuse what :func:`plot_sweep` could not write, before the work that it would show is done.

    Raises:
        OptionError: another ending than .png and .svg, or no such folder.
        ExtraMissing: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in _ENDINGS:
        raise OptionError(f"plot {path}: must end in {' or '.join(_ENDINGS)}")
    if not path.absolute().parent.is_dir():
        raise OptionError(f"plot {path}: no such folder")
    _figures()


def plot_sweep(sweep: Sweep, path: str | Path) -> None:
    """Recall against vectors an hour and, where there is that dial, against tokens an hour; the latency beside it.

    Raises:
        OptionError: as :func:`check_plot`, or the file may not be written.
        ExtraMissing: matplotlib is not installed.
        DiskFull
    """
    check_plot(path)
    panels: list[tuple[str, Sequence[float], list[LibraryScores]]] = [
        (
            "vectors an hour",
            [point.scores.vectors_per_hour for point in sweep.vectors],
            [point.scores for point in sweep.vectors],
        )
    ]
    if sweep.tokens:
        panels.append(
            (
                "tokens an hour, read back in words",
                [point.tokens_per_hour for point in sweep.tokens],
                [point.scores for point in sweep.tokens],
            )
        )
    figure = _figures()(figsize=(6.4 * len(panels), 4.4), dpi=100, layout="constrained")
    figure.suptitle(f"Compression dial, {sweep.model}")
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    for i, (axes, (label, kept, scores)) in enumerate(zip(drawn, panels, strict=True)):
        _panel(axes, label, kept, scores, legend=i == 0)
    try:
        with disk_errors(Path(path)):
            # Neither date nor version: the same numbers give the same file.
            figure.savefig(path, metadata={"Date": None} if Path(path).suffix.lower() == ".svg" else {"Software": None})
    except OSError as error:
        raise OptionError(f"plot {path}: cannot be written: {error.strerror}") from error


def _panel(axes: Any, label: str, kept: Sequence[float], scores: list[LibraryScores], *, legend: bool) -> None:
    for setting, style in (("in_video", "-"), ("in_library", ":")):
        ways = [getattr(each, setting) for each in scores]
        first = min(ways[0].scores.r1)
        lines = {
            f"R@1 at IoU {first:g}": [way.scores.r1[first] for way in ways],
            "peak inside": [way.scores.peak_inside for way in ways],
            "mAP": [way.scores.map_mean for way in ways],
        }
        where = "in its video" if setting == "in_video" else "in the library"
        for i, (name, values) in enumerate(lines.items()):
            axes.plot(kept, values, style, color=f"C{i}", marker="o", markersize=3, label=f"{name}, {where}")
        chance = [way.chance.peak_inside for way in ways]
        axes.plot(kept, chance, style, color="0.7", label=f"peak inside by chance, {where}")
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("percent")
    axes.set_ylim(bottom=0)
    axes.grid(True, alpha=0.3)
    beside = axes.twinx()
    known = [(x, s.in_library.latency.p50_ms) for x, s in zip(kept, scores, strict=True)]
    known = [(x, y) for x, y in known if y is not None]
    if known:
        beside.plot(*zip(*known, strict=True), "--", color="0.4", linewidth=0.8, label="latency, p50, in the library")
    beside.set_ylabel("milliseconds a query", color="0.4")
    beside.set_ylim(bottom=0)
    if legend:
        handles = [h for each in (axes, beside) for h in each.get_legend_handles_labels()[0]]
        axes.legend(handles=handles, fontsize=7, loc="best")


def _figures() -> Any:
    """matplotlib's ``Figure``: drawn to files alone, so no display and no global state is touched."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ExtraMissing(
            "drawing needs matplotlib, which the extra 'evaluate' brings: pip install 'longreel[evaluate]'"
        ) from error
