"""What ``longreel evaluate --store`` shows on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jobs.cli.common import console
from jobs.cli.evaluate_predictions import videos_table

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.comparing import Run
    from pipeline.evaluation.certainty import Difference
    from pipeline.evaluation.library import LibraryScores, SettingScores
    from pipeline.evaluation.sweep import Sweep

__all__ = ["show_library", "show_runs", "show_sweep"]

_SHOWN = 60  # characters of a query in a message
_WAYS = (("in_video", "asked of its own video"), ("in_library", "asked of the whole library"))


def show_library(scores: LibraryScores, queries: int) -> None:
    """Both ways of asking, each beside mean-pooled windows and chance; then every video."""
    out = console()
    for attribute, title in _WAYS:
        way: SettingScores = getattr(scores, attribute)
        table = _table(title, ["percent", "library", "mean-pooled", "chance"])
        chance = _chance(way)
        plain = way.baseline.figures()
        for name, value in way.scores.figures().items():
            table.add_row(name.replace("_", " "), f"{value:.2f}", f"{plain[name]:.2f}", chance.get(name, ""))
        out.print(table)
        click.echo(f"{_certainty(way)}\n")
    if len(scores.in_video.scores.per_video) > 1:
        out.print(videos_table(scores.in_video.scores.per_video))
    click.echo(
        f"{queries} queries, {scores.videos} videos of {scores.hours:.2f} h, {scores.vectors_per_hour:.0f} vectors an "
        f"hour; {_latency(scores.in_video)} in a video, {_latency(scores.in_library)} in the library"
    )
    click.echo(
        f"mean-pooled: the best segment, in pieces of at most {scores.baseline_seconds:g} s, by its mean vector; "
        "chance: a random moment as long as the answers"
    )
    _refused(scores)


def show_runs(runs: Sequence[Run]) -> None:
    """A column for each run."""
    out = console()
    columns = [run.name for run in runs]
    for attribute, title in _WAYS:
        out.print(_side_by_side(title, columns, [getattr(run.scores, attribute) for run in runs]))
    reading = [run for run in runs if run.tokens is not None]
    if reading:
        ways = [run.tokens.scores.in_video for run in reading if run.tokens is not None]
        out.print(_side_by_side("read out of token sets, asked of its own video", [run.name for run in reading], ways))
    table = _table("the runs", ["", *columns])
    rows = {
        "model": [run.scores.model for run in runs],
        "vectors an hour": [f"{run.scores.vectors_per_hour:.0f}" for run in runs],
        "tokens an hour": [f"{run.tokens.tokens_per_hour:.0f}" if run.tokens else "" for run in runs],
        "query in a video": [_latency(run.scores.in_video) for run in runs],
        "query in the library": [_latency(run.scores.in_library) for run in runs],
    }
    for name, cells in rows.items():
        if any(cells):
            table.add_row(name, *cells)
    out.print(table)
    for run in runs:
        if run.changed:
            click.echo(f"{run.name}: {', '.join(run.changed)}")
        _refused(run.scores)


def show_sweep(sweep: Sweep) -> None:
    """A row for each point of the dials."""
    out = console()
    head = ["R@1", "peak inside", "mAP", "R@1, library", "peak inside, library", "query"]

    def cells(scores: LibraryScores) -> list[str]:
        recall = f"R1@{min(scores.in_video.scores.r1):g}"
        alone, among = scores.in_video.scores.figures(), scores.in_library.scores.figures()
        found = [alone[recall], alone["peak_inside"], alone["mAP"], among[recall], among["peak_inside"]]
        return [*(f"{value:.2f}" for value in found), _latency(scores.in_library)]

    first = f"{min(sweep.vectors[0].scores.in_video.scores.r1):g}"
    table = _table(f"vectors (R@1 at IoU {first}, percent)", ["frames a vector", "vectors an hour", *head])
    for point in sweep.vectors:
        table.add_row(f"{point.frames_per_vector:g}", f"{point.scores.vectors_per_hour:.0f}", *cells(point.scores))
    out.print(table)
    if sweep.tokens:
        some = next((point.compressor for point in sweep.tokens if point.budget is not None), "none")
        title = f"token sets by {some}, read back in words (R@1 at IoU {first}, percent)"
        table = _table(title, ["tokens a segment", "tokens an hour", *head])
        for kept in sweep.tokens:
            budget = "all" if kept.budget is None else str(kept.budget)
            table.add_row(budget, f"{kept.tokens_per_hour:.0f}", *cells(kept.scores))
        out.print(table)
        click.echo(
            f"the readout gives back uncompressed embeddings to a cosine of {sweep.tokens[0].readout_cosine:.3f}"
        )
    chance = sweep.vectors[0].scores
    click.echo(
        f"by chance a peak is inside {chance.in_video.chance.peak_inside:.2f} % of the time, "
        f"{chance.in_library.chance.peak_inside:.2f} % in the library"
    )
    for note in sweep.notes:
        click.echo(note)


def _side_by_side(title: str, columns: Sequence[str], ways: Sequence[SettingScores]) -> Table:
    table = _table(title, ["percent", *columns])
    from pipeline.evaluation.certainty import peaks_compared

    figures = [way.scores.figures() for way in ways]
    chances = [_chance(way) for way in ways]
    for name in figures[0]:
        table.add_row(name.replace("_", " "), *(f"{values[name]:.2f}" for values in figures))
    for name in chances[0]:
        label = name.replace("_", " ")
        table.add_row(f"{label}, by chance", *(values[name] for values in chances), style="dim")
        plain = (f"{way.baseline.figures()[name]:.2f}" for way in ways)
        table.add_row(f"{label}, mean-pooled", *plain, style="dim")
    if len(ways) > 1:
        beside = [peaks_compared(way.scores, ways[0].scores) for way in ways[1:]]
        cells = (f"+{one.first_alone} -{one.second_alone}" for one in beside)
        table.add_row(f"peak inside, queries won and lost to {columns[0]}", "", *cells)
        table.add_row("  as uneven by luck alone, %", "", *(f"{100 * one.luck:.0f}" for one in beside), style="dim")
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    return table


def _chance(way: SettingScores) -> dict[str, str]:
    """By the names that figures have."""
    found = {f"R1@{level:g}": f"{value:.2f}" for level, value in way.chance.r1.items()}
    return {**found, "peak_inside": f"{way.chance.peak_inside:.2f}"}


def _certainty(way: SettingScores) -> str:
    """What so few or many queries can tell of peaks inside."""
    low, high = way.peak_interval
    found = way.beside_baseline
    return (
        f"peak inside: {low:.1f} to {high:.1f} at 95 %; right by one alone: library {found.first_alone}, mean-pooled "
        f"{found.second_alone} ({_luck(found)})"
    )


def _alone(count: int) -> str:
    return f"{count} {'query' if count == 1 else 'queries'}"


def _luck(found: Difference) -> str:
    """Whether a difference means anything."""
    if not found.first_alone + found.second_alone:
        return "no difference"
    return f"by luck alone this uneven in {100 * found.luck:.{0 if found.luck >= 0.01 else 2}f} % of trials"


def _latency(way: SettingScores) -> str:
    if way.latency.p50_ms is None:
        return "-"
    return f"{way.latency.p50_ms:.1f} ms (p95 {way.latency.p95_ms:.1f})"


def _refused(scores: LibraryScores) -> None:
    if scores.refused:
        some = [query if len(query) <= _SHOWN else f"{query[:_SHOWN]}..." for query in scores.refused[:3]]
        more = "; ..." if len(scores.refused) > len(some) else ""
        click.echo(
            f"{_alone(len(scores.refused))} of more words than {scores.model} reads, counted as missed: "
            f"{'; '.join(map(repr, some))}{more}"
        )
