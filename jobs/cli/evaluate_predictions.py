"""``longreel evaluate --truth --predictions``: score a file of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import console
from jobs.cli.evaluate_options import EvaluateOptions, deliver
from jobs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pipeline.evaluation.moments import TruthMoment
    from pipeline.evaluation.scores import MomentScores

__all__ = ["measures_table", "run", "videos_table"]

_VIDEOS_SHOWN = 60


def run(options: EvaluateOptions) -> int:
    """Print our measures, and for QVHighlights' files its evaluator's own figures too.

    With ``--json`` the figures of the evaluator are at the top level as it writes them (``brief``, ``full``, ``long``,
    ``middle``, ``short``), and ours under ``longreel``; for our own files ours are at the top level.

    Raises:
        TruthError, PredictionError: a file that cannot be read, or answers that do not fit the truth.
        UsageError: the two files are of different kinds.
    """
    from pipeline.evaluation.moments import QVHIGHLIGHTS, read_prediction_file, read_truth_file
    from pipeline.evaluation.qvhighlights import evaluate_qvhighlights
    from pipeline.evaluation.scores import RECALL_IOU, score_moments

    assert options.truth is not None
    assert options.predictions is not None
    truth, answers = read_truth_file(options.truth), read_prediction_file(options.predictions)
    if truth.layout != answers.layout:
        raise UsageError(
            f"--truth {options.truth} is of the kind {truth.layout!r} and --predictions {options.predictions} of the "
            f"kind {answers.layout!r}: both must be of one kind"
        )
    result: dict[str, Any] = {}
    if truth.layout == QVHIGHLIGHTS:
        result = evaluate_qvhighlights(truth.moments, answers.predictions, answered=answers.query_ids)
    scores = score_moments(
        truth.moments, answers.predictions, thresholds=options.iou or RECALL_IOU, limit=options.answers
    )

    def show() -> None:
        if result:
            console().print(_qvhighlights_table(result, truth.moments))
        console().print(measures_table({"percent": scores}))
        if not result and len(scores.per_video) > 1:
            console().print(videos_table(scores.per_video))
        click.echo(
            f"{scores.queries} queries of {len(scores.per_video)} videos, {scores.queries - scores.answered} without "
            f"an answer; the first {options.answers} answers of each count"
        )
        if truth.shots:
            click.echo(f"{truth.shots} lines of {options.truth} are shot boundaries, and passed over")

    deliver(options, {**result, "longreel": scores.to_dict()} if result else scores.to_dict(), show)
    return 0


def measures_table(runs: dict[str, MomentScores]) -> Table:
    """Our measures overall: a row for each measure, a column for each run."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure")
    for name in runs:
        table.add_column(Text(name), justify="right", overflow="fold")
    figures = [scores.figures() for scores in runs.values()]
    for measure in figures[0]:
        table.add_row(measure.replace("_", " "), *(f"{values[measure]:.2f}" for values in figures))
    return table


def videos_table(videos: dict[str, MomentScores]) -> Table:
    """Some of our measures, a row for each video; those after sixty are only counted."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("video", overflow="fold")
    table.add_column("queries", justify="right", style="dim")
    recall = [f"R1@{x:g}" for x in next(iter(videos.values())).r1]
    names = [*recall, "mAP", "mean_iou", "peak_inside"]
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for video, scores in list(videos.items())[:_VIDEOS_SHOWN]:
        figures = scores.figures()
        table.add_row(Text(video), str(scores.queries), *(f"{figures[name]:.2f}" for name in names))
    if len(videos) > _VIDEOS_SHOWN:
        table.add_row(Text(f"and {len(videos) - _VIDEOS_SHOWN} more (--json has all)", style="dim"))
    return table


def _qvhighlights_table(result: dict[str, Any], truth: Sequence[TruthMoment]) -> Table:
    from rich import box
    from rich.table import Table

    from pipeline.evaluation.qvhighlights import in_range

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("QVHighlights")
    table.add_column("percent", justify="right")
    table.add_column("queries", justify="right", style="dim")
    for name, value in result["brief"].items():
        kept = sum(bool(in_range(moment.spans, name.split("-")[1])) for moment in truth)
        table.add_row(name, "-" if value is None else f"{value:.2f}", str(kept))
    return table
