"""``longreel demo``."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.cli.common import console, json_option

if TYPE_CHECKING:
    from jobs.demo.films import BrokenFile, Film
    from jobs.demo.play import DemoFolder, DemoResult
    from jobs.reporting import Reporter
    from pipeline.library import Library

_FAILURES = 3


@click.command(short_help="See it work in a minute.")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--dir", "folder", metavar="DIR", default="longreel-demo", show_default=True, help="Where to work.")
@click.option(
    "--model",
    metavar="NAME",
    help="The model to look with.  [default: openclip:ViT-B-32/random, which needs no download]",
)
@click.option("--keep/--fresh", default=True, show_default=True, help="Go on from an earlier demo, or begin anew.")
@json_option
def demo(files: tuple[str, ...], folder: str, model: str | None, keep: bool, as_json: bool) -> int:
    """Draw short films with known events, index them, ask for the events, and show the answers beside the truth.

    The films are in several codecs, and two of the files are broken on purpose. Nothing is downloaded. Videos of your
    own may be added as FILE; each is asked for by points in it. Exit code 3: something was not as it should be.

    \b
      longreel demo
      longreel demo holiday.mp4 --dir /tmp/demo
    """
    from jobs.demo.films import BROKEN, FILMS
    from jobs.demo.play import DemoFolder

    result = play(DemoFolder(Path(folder)), FILMS, BROKEN, files, model=model, fresh=not keep, as_json=as_json)
    return 0 if result.as_expected else _FAILURES


def play(
    folder: DemoFolder,
    films: Sequence[Film],
    broken: Sequence[BrokenFile],
    files: Sequence[str] = (),
    *,
    model: str | None = None,
    fresh: bool = False,
    as_json: bool = False,
) -> DemoResult:
    """The whole demo with its output."""
    from jobs.demo.play import DEFAULT_MODEL, ask, index
    from jobs.runner import shown_command
    from jobs.settings import load_settings
    from pipeline.library import Library

    began = time.monotonic()
    settings = load_settings(overrides=[f"model={model or DEFAULT_MODEL}"])
    folder.prepare(fresh=fresh)
    _draw(folder, films, broken, as_json)
    with _reporter(as_json) as reporter:
        result = index(folder, films, broken, files, settings, reporter, shown_command(sys.argv[1:]))
    with Library.open(folder.store, create=False, device=settings.encoder.device) as library:
        if not as_json:
            _say_indexed(result, library.manifest.random)
        ask(result, library, films)
        _write_sheet(result, library)
    if as_json:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        _show(result, time.monotonic() - began)
    return result


@contextmanager
def _reporter(as_json: bool) -> Iterator[Reporter]:
    from jobs.reporting import JsonReporter, LineReporter, RichReporter

    if as_json:
        yield JsonReporter()
    elif sys.stderr.isatty():
        bars = RichReporter(console(stderr=True))
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield LineReporter()


def _draw(folder: DemoFolder, films: Sequence[Film], broken: Sequence[BrokenFile], as_json: bool) -> None:
    from jobs.demo.play import draw

    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 would write a banner to the terminal; errors only
    if as_json or not sys.stderr.isatty():

        def drawn(film: Film) -> None:
            if not as_json:
                click.echo(f"drawn {_describe(film)}", err=True)

        draw(folder, films, broken, drawn=drawn)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    bars = (TextColumn("{task.description}"), BarColumn(bar_width=32), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*bars, console=console(stderr=True), transient=True) as progress:
        missing = [film for film in films if not (folder.videos / film.name).is_file()]
        tasks = {
            film.name: progress.add_task(f"drawing {film.name}", total=len(film.starts_seconds())) for film in missing
        }
        draw(
            folder,
            films,
            broken,
            ticked=lambda film: progress.advance(tasks[film.name]),
            drawn=lambda film: progress.console.print(f"    drawn  {_describe(film)}", markup=False, highlight=False),
        )


def _describe(film: Film) -> str:
    named = {"libx264": "H.264", "libx265": "HEVC", "libvpx-vp9": "VP9", "mpeg4": "MPEG-4", "libsvtav1": "AV1"}
    codec = film.written_codec()
    text = f"{film.name}: {film.duration_seconds:.0f} s, {named[codec]}"
    if codec != film.codec:
        text += f" (no encoder for {named[film.codec]} on this machine)"
    return f"{text}, {film.note}" if film.note else text


def _say_indexed(result: DemoResult, random: bool) -> None:
    counts = [f"{result.summary.count(s)} {s}" for s in ("done", "skipped", "failed") if result.summary.count(s)]
    click.echo(f"\nindexed with {result.model}: {', '.join(counts) or 'all known'}")
    for _, kind, message in result.expected_failures:
        where = f"{result.folder.videos.resolve()}{os.sep}"
        click.echo(f"  broken on purpose, and told so: {kind}: {message.replace(where, '')}")
    if random:
        click.echo("random weights: pictures find pictures, words mean nothing yet")


def _write_sheet(result: DemoResult, library: Library) -> None:
    from jobs.demo.play import moment_picture
    from jobs.demo.sheet import contact_sheet

    found = {(m.video, m.peak_seconds): (m.video, m.uri, m.peak_seconds) for a in result.answers for m in a.moments}
    pictures = {key: moment_picture(library, *place) for key, place in found.items()}
    durations = {v.uri: v.duration_seconds for v in library.videos() if v.duration_seconds}
    detail = f"model {result.model}. Left: the picture asked with (cropped, brighter), blue its true span. "
    detail += "Right: the moments found, best first; green covers the time asked for."
    heading = f"longreel demo: {result.right} of {len(result.answers)} found first"
    contact_sheet(result.folder.sheet, result.answers, pictures, durations, heading, detail)


def _show(result: DemoResult, seconds: float) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from jobs.reporting import precise_clock

    def span(start: float, end: float) -> str:
        return f"{precise_clock(start)} to {precise_clock(end)}"

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("asked for, by a picture", overflow="fold")
    table.add_column("it is in", overflow="fold")
    table.add_column("from, to", no_wrap=True)
    table.add_column("found in", overflow="fold")
    table.add_column("from, to", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("overlap", justify="right", no_wrap=True)
    table.add_column("right", no_wrap=True)
    for answer in result.answers:
        first = answer.moments[0] if answer.moments else None
        table.add_row(
            Text(answer.title),
            Text(answer.name),
            span(answer.span.start_seconds, answer.span.end_seconds),
            Text(first.name if first else "nothing"),
            span(first.start_seconds, first.end_seconds) if first else "",
            f"{first.score:.3f}" if first else "",
            f"{answer.overlap:.0%}",
            Text("yes", style="green") if answer.right else Text("no", style="bold red"),
        )
    console().print(table)
    for surprise in result.surprises:
        click.echo(f"not as expected: {surprise}")
    click.echo(f"{result.right} of {len(result.answers)} found first, in {seconds:.0f} s")
    click.echo(f"contact sheet: {result.folder.sheet}")
    store = shlex.quote(str(result.folder.store))
    click.echo("go on:")
    if result.answers:
        picture = sorted(result.folder.asked.glob("*.png"))[0]
        film = result.answers[0]
        click.echo(f"  longreel query --image {shlex.quote(str(picture))} --store {store}")
        click.echo(f"  longreel query --like {film.name}@{film.asked_seconds:g} --store {store}")
    click.echo(f"  longreel videos list --store {store}")
    click.echo(f"  longreel submit YOUR-VIDEOS --model {result.model} --store {store}")
