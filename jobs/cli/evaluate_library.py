"""``longreel evaluate --store``: a library, several side by side, or the compression dial of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.cli.common import console, settings_from, store_path
from jobs.cli.evaluate_options import EvaluateOptions, deliver
from jobs.errors import UsageError

if TYPE_CHECKING:
    from jobs.comparing import Comparison, Spec
    from jobs.settings import RunSettings
    from pipeline.evaluation.library import LibraryScores, Progress
    from pipeline.evaluation.moments import TruthMoment
    from pipeline.library import Library

__all__ = ["run"]


def run(options: EvaluateOptions) -> int:
    """Ask a library every query of the truth; with ``--compare`` and ``--sweep``, others made of its videos too.

    Raises:
        UsageError, SettingsError: options that do not go together, or a setting that is not allowed.
        NotALibrary, ModelMismatch, UnknownVideo, TruthError, and what loading the model and decoding raise.
    """
    from jobs.comparing import parse_specs
    from pipeline.errors import ModelMismatch
    from pipeline.evaluation.moments import read_truth
    from pipeline.evaluation.plots import check_plot
    from pipeline.store import Store

    assert options.truth is not None
    path = store_path(options.store)
    specs = parse_specs(options.compare, path.absolute().name)
    settings = _settings(options)
    truth = read_truth(options.truth)
    if options.plot is not None:
        check_plot(options.plot)
    store = Store.open(path)
    if options.model is not None and store.is_bound and options.model != store.manifest.model:
        raise ModelMismatch(
            f"--model {options.model}: the vectors of {path} were made by {store.manifest.model}, and no other model "
            f"can ask them; to see both, --compare NAME=model={options.model} digests its videos again"
        )
    with _progress() as progress:
        if options.sweep:
            return _sweep(options, settings, truth, progress)
        if specs:
            return _compare(options, settings, truth, specs, progress)
        with _opened(options, settings) as library:
            scores = _judged(options, library, truth, progress)
    value = {"store": str(path), "queries": len(truth), **scores.to_dict()}

    def show() -> None:
        from jobs.cli.evaluate_tables import show_library

        show_library(scores, len(truth))

    deliver(options, value, show)
    return 0


def _opened(options: EvaluateOptions, settings: RunSettings) -> Library:
    """The library of the command; the caller closes it."""
    from pipeline.library import Library

    library = Library.open(
        store_path(options.store),
        create=False,
        device=options.device or settings.encoder.device,
        index_options=settings.index,
        search_options=settings.search,
    )
    if library.manifest.random:
        click.echo(f"note: {library.model} has random weights, so words mean nothing to it: expect chance", err=True)
    return library


def _settings(options: EvaluateOptions) -> RunSettings:
    """The settings of the command line; those of digestion make sense only where something is digested."""
    digests = options.sweep or options.compare
    for text in options.overrides:
        if not digests and text.startswith(("ingest.", "model=", "workers.")):
            raise UsageError(
                f"--set {text}: changes how videos are digested, and the library's are: to see the effect, "
                f"--compare NAME={text}"
            )
    return settings_from(options.config, options.overrides)


def _thresholds(options: EvaluateOptions) -> tuple[float, ...]:
    from pipeline.evaluation.scores import RECALL_IOU

    return options.iou or RECALL_IOU


def _judged(options: EvaluateOptions, library: Library, truth: list[TruthMoment], progress: Progress) -> LibraryScores:
    from pipeline.evaluation.library import evaluate_library

    return evaluate_library(library, truth, limit=options.answers, thresholds=_thresholds(options), progress=progress)


def _base(options: EvaluateOptions, library: Library) -> tuple[RunSettings, list[str]]:
    """The settings that runs depart from: ``--config`` where given, else those that made the library; ``--set`` on top.

    The model is the library's unless they name one.
    """
    from dataclasses import replace

    from jobs.comparing import layered, settings_of

    if options.config == "default":
        base, notes = settings_of(library)
    else:
        base, notes = replace(settings_from(options.config, ()), model=library.model), []
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return layered(base, options.overrides), notes


def _work(options: EvaluateOptions, truth: list[TruthMoment], folder: Path, progress: Progress) -> Comparison:
    from jobs.comparing import Comparison

    return Comparison(truth, options.answers, _thresholds(options), options.device, folder, progress)


def _compare(
    options: EvaluateOptions, settings: RunSettings, truth: list[TruthMoment], specs: list[Spec], progress: Progress
) -> int:
    from jobs.comparing import Run, compare, plan, working_folder

    with working_folder() as folder:
        work = _work(options, truth, folder, progress)
        with _opened(options, settings) as library:
            base, notes = _base(options, library)
            planned = plan(library, specs, base)
            name = library.path.name
            own = Run(name, (), _judged(options, library, truth, work.named(name)))
        runs = [own, *compare(work, planned)]  # the library is closed: one model at a time is in memory
    value = {
        "store": str(planned.path),
        "queries": len(truth),
        "notes": notes,
        "runs": [each.to_dict() for each in runs],
    }

    def show() -> None:
        from jobs.cli.evaluate_tables import show_runs

        show_runs(runs)

    deliver(options, value, show)
    return 0


def _sweep(options: EvaluateOptions, settings: RunSettings, truth: list[TruthMoment], progress: Progress) -> int:
    from jobs.comparing import load_model, sources_of, working_folder
    from pipeline.evaluation.library import encode_queries, match_videos
    from pipeline.evaluation.plots import plot_sweep
    from pipeline.evaluation.sweep import sweep_tape
    from pipeline.evaluation.tape import record

    with _opened(options, settings) as library:
        path = library.path
        base, notes = _base(options, library)
        match_videos(library, truth)  # what is wrong is said before anything is decoded
        items = sources_of(library)
    with working_folder() as folder:
        work = _work(options, truth, folder, progress)
        progress(f"loading {base.model}", 0, None)
        with load_model(base, options.device) as encoder:
            encode_queries(encoder, truth)  # as above
            tokens = encoder.info.patches > 0
            with record(encoder, items, base.ingest, work.tape_folder(), tokens=tokens, progress=progress) as tape:
                found = sweep_tape(work.judge(base, progress), tape, encoder, base.ingest.digest)
    if options.plot is not None:
        plot_sweep(found, options.plot)
    value = {"store": str(path), "queries": len(truth), **found.to_dict()}
    value["notes"] = [*notes, *value["notes"]]

    def show() -> None:
        from jobs.cli.evaluate_tables import show_sweep

        show_sweep(found)
        if options.plot is not None:
            click.echo(f"drawn: {options.plot}")

    deliver(options, value, show)
    return 0


@contextmanager
def _progress() -> Iterator[Progress]:
    """On a terminal a bar, else a line on stderr for each new thing that is done."""
    if not sys.stderr.isatty():
        said: list[str] = []

        def line(what: str, done: float, total: float | None) -> None:
            if said[-1:] != [what]:
                said.append(what)
                click.echo(what, err=True)

        yield line
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    ) as bars:
        task = bars.add_task("asking", total=None)
        shown, last = "", 0.0

        def bar(what: str, done: float, total: float | None) -> None:
            nonlocal shown, last
            now = time.monotonic()
            if what != shown:
                bars.reset(task, description=what, total=total)
            elif now - last < 0.1:
                return
            bars.update(task, completed=done, total=total)
            shown, last = what, now

        yield bar
