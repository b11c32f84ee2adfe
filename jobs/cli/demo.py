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
    from jobs.demo.answers import Answer
    from jobs.demo.films import BrokenFile, Film
    from jobs.demo.play import DemoFolder, DemoResult
    from jobs.reporting import Reporter
    from jobs.settings import RunSettings
    from pipeline.library import Library
    from pipeline.search import Moment

_FAILURES = 3


@click.command(short_help="See it work in a minute.")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--dir", "folder", metavar="DIR", default="longreel-demo", show_default=True, help="Where to work.")
@click.option("--model", metavar="NAME", help="The model to look with.  [default: tiny, which comes with Longreel]")
@click.option("--ask", "asked", metavar="WORDS", multiple=True, help="Ask this, too; may be given several times.")
@click.option("--keep/--fresh", default=True, show_default=True, help="Go on from an earlier demo, or begin anew.")
@json_option
def demo(
    files: tuple[str, ...], folder: str, model: str | None, asked: tuple[str, ...], keep: bool, as_json: bool
) -> int:
    """Draw short films with known events, index them, ask for the events, and show the answers beside the truth.

    The films are in several codecs, and two of the files are broken on purpose. Nothing is downloaded. Each event is
    asked for by a picture and in words, and segments are captioned. Videos of your own may be added as FILE: they are
    asked for by points in them, and for everyday things in words.

    Exit code 3: something was not as it should be. Every picture must find its event; of the words, mistakes are
    counted and shown, as a small model makes some, and only naming the right film less often than chance would counts
    as a failure.

    \b
      longreel demo
      longreel demo holiday.mp4 --dir /tmp/demo
      longreel demo holiday.mp4 --ask "a child builds a sandcastle"
    """
    from jobs.demo.films import BROKEN, FILMS
    from jobs.demo.play import DemoFolder

    result = play(
        DemoFolder(Path(folder)), FILMS, BROKEN, files, model=model, asked=asked, fresh=not keep, as_json=as_json
    )
    return 0 if result.as_expected else _FAILURES


def play(
    folder: DemoFolder,
    films: Sequence[Film],
    broken: Sequence[BrokenFile],
    files: Sequence[str] = (),
    *,
    model: str | None = None,
    asked: Sequence[str] = (),
    fresh: bool = False,
    as_json: bool = False,
) -> DemoResult:
    """The whole demo with its output.

    Raises:
        UsageError: an empty question, a folder that cannot be used.
        LongreelError: what indexing raises.
    """
    from jobs.demo.play import DEFAULT_MODEL, ask, index
    from jobs.errors import UsageError
    from jobs.runner import shown_command
    from jobs.settings import load_settings
    from pipeline.library import Library

    if not all(words.strip() for words in asked):
        raise UsageError("--ask '': a question needs words")
    began = time.monotonic()
    model = model or DEFAULT_MODEL
    # Kept token sets are what captions are made of; other models' may be large, and captions read their frames again.
    keep = ["ingest.digest.tokens.keep=true"] if model == DEFAULT_MODEL else []
    settings = load_settings(overrides=[f"model={model}", *keep])
    folder.prepare(fresh=fresh)
    _draw(folder, films, broken, as_json)
    with _reporter(as_json) as reporter:
        result = index(folder, films, broken, files, settings, reporter, shown_command(sys.argv[1:]))
    with Library.open(
        folder.store, create=False, device=settings.encoder.device, search_options=settings.search
    ) as library:
        if not as_json:
            _say_indexed(result, library.manifest.random)
        ask(result, library, films)
        _use_words(result, library, films, asked, settings)
        _write_sheet(result, library)
    if as_json:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        _show(result, time.monotonic() - began)
    return result


def _use_words(
    result: DemoResult, library: Library, films: Sequence[Film], asked: Sequence[str], settings: RunSettings
) -> None:
    """Captions first, so that answers show them; then the questions in words."""
    from encoders.captioning import load_captioner
    from encoders.errors import CaptionerUnavailable
    from jobs.cli.evaluate_pack import captioner_name
    from jobs.demo.captions import caption
    from jobs.demo.play import own_videos
    from jobs.demo.words import EVERYDAY, ask_in_words, ask_openly
    from jobs.errors import UsageError

    own = own_videos(result, library, films)
    ours = {video.id for video in own}
    names = {film.name for film in films}
    drawn = [video for video in library.videos(state="done") if video.id not in ours and video.name in names]
    if library.manifest.random:
        result.no_captions = "random weights"
    else:
        try:
            with load_captioner(captioner_name(result.model), device=settings.encoder.device) as captioner:
                caption(result, library, captioner, drawn, own)
        except (UsageError, CaptionerUnavailable):  # not every model has a decoder, and the demo needs none
            result.no_captions = f"{result.model} cannot caption"
    ask_in_words(result, library, films)
    ask_openly(result, library, asked, EVERYDAY if own else (), settings.search)


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
        click.echo("random weights: pictures find pictures, but words mean nothing and are not asked")


def _write_sheet(result: DemoResult, library: Library) -> None:
    from jobs.demo.play import moment_picture
    from jobs.demo.sheet import contact_sheet

    answers = [*result.answers, *result.worded]
    found = {(m.video, m.peak_seconds): (m.video, m.uri, m.peak_seconds) for a in answers for m in a.moments}
    pictures = {key: moment_picture(library, *place) for key, place in found.items()}
    durations = {v.uri: v.duration_seconds for v in library.videos() if v.duration_seconds}
    detail = f"model {result.model}. Left: picture (cropped, brighter) or words asked with, blue the true span. "
    detail += "Right: the moments found, best first; green covers the time asked for."
    heading = f"longreel demo: {result.right} of {len(result.answers)} found first by picture"
    if result.worded:
        heading += f", {_right(result.worded)} of {len(result.worded)} in words"
    contact_sheet(result.folder.sheet, answers, pictures, durations, heading, detail)


def _right(answers: Sequence[Answer]) -> int:
    return sum(answer.right for answer in answers)


def _show(result: DemoResult, seconds: float) -> None:
    if result.answers:
        _show_answers("asked for, by a picture", result.answers)
    if result.worded:
        _show_answers("asked for, in words", result.worded)
    if result.open:
        _show_open(result)
    _show_captions(result)
    for surprise in result.surprises:
        click.echo(f"not as expected: {surprise}")
    if result.worded:
        asked = len(result.worded)
        click.echo(
            f"in words: {result.right_films} of {asked} found the right film first (by chance {result.chance:.1f}), "
            f"{_right(result.worded)} of {asked} the right moment"
        )
    if result.as_expected and any(not answer.right for answer in result.worded):
        click.echo(
            f"  the wrong ones are {result.model}'s own mistakes; a larger model makes fewer (longreel models list)"
        )
    click.echo(f"by picture: {result.right} of {len(result.answers)} found first; all in {seconds:.0f} s")
    click.echo(f"contact sheet: {result.folder.sheet}")
    _show_ways_on(result)


def _span(start: float, end: float) -> str:
    from jobs.reporting import precise_clock

    return f"{precise_clock(start)} to {precise_clock(end)}"


def _percentile(moment: Moment) -> str:
    return "" if moment.percentile is None else f"{int(moment.percentile)}"


def _show_answers(asked: str, answers: Sequence[Answer]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(asked, overflow="fold")
    table.add_column("it is in", overflow="fold")
    table.add_column("from, to", no_wrap=True)
    table.add_column("found in", overflow="fold")
    table.add_column("from, to", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("pct", justify="right", no_wrap=True)
    table.add_column("overlap", justify="right", no_wrap=True)
    table.add_column("right", no_wrap=True)
    for answer in answers:
        first = answer.moments[0] if answer.moments else None
        no = Text("film only", style="yellow") if answer.right_film else Text("no", style="bold red")
        table.add_row(
            Text(answer.title),
            Text(answer.name),
            _span(answer.span.start_seconds, answer.span.end_seconds),
            Text(first.name if first else "nothing"),
            _span(first.start_seconds, first.end_seconds) if first else "",
            f"{first.score:.3f}" if first else "",
            _percentile(first) if first else "",
            f"{answer.overlap:.0%}",
            Text("yes", style="green") if answer.right else no,
        )
    console().print(table)


def _show_open(result: DemoResult) -> None:
    """One row for an everyday question, all that was found for a person's own."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from jobs.reporting import precise_clock

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("asked of all videos", overflow="fold")
    table.add_column("best in", overflow="fold")
    table.add_column("from, to", no_wrap=True)
    table.add_column("peak", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("pct", justify="right", no_wrap=True)
    table.add_column("confident", no_wrap=True)
    table.add_column("caption", overflow="fold")
    for answer in result.open:
        if not answer.moments:
            table.add_row(Text(answer.words), "nothing")
        for place, moment in enumerate(answer.moments if answer.own else answer.moments[:1]):
            table.add_row(
                Text(answer.words if place == 0 else ""),
                Text(moment.name),
                _span(moment.start_seconds, moment.end_seconds),
                precise_clock(moment.peak_seconds),
                f"{moment.score:.3f}",
                _percentile(moment),
                ("yes" if answer.confident else "no") if place == 0 else "",
                Text(moment.caption or ""),
            )
    console().print(table)


def _show_captions(result: DemoResult) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if result.no_captions:
        click.echo(f"no captions: {result.no_captions}")
    if not result.captions:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"captions of some segments, by {result.captioner}", overflow="fold")
    table.add_column("from, to", no_wrap=True)
    table.add_column("caption", overflow="fold")
    table.add_column("sure of its words", justify="right", no_wrap=True)
    for one in result.captions:
        sure = "" if one.confidence is None else f"{one.confidence:.2f}"
        table.add_row(Text(one.name), _span(one.span.start_seconds, one.span.end_seconds), Text(one.text), sure)
    console().print(table)


def _show_ways_on(result: DemoResult) -> None:
    """Commands that give the same answers, and more."""
    store = shlex.quote(str(result.folder.store))
    click.echo("go on:")
    if result.answers:
        picture = sorted(result.folder.asked.glob("*.png"))[0]
        film = result.answers[0]
        click.echo(f"  longreel query --image {shlex.quote(str(picture))} --store {store}")
        click.echo(f"  longreel query --like {film.name}@{film.asked_seconds:g} --store {store}")
    for command in [answer.command for answer in result.worded[:1]] + [answer.command for answer in result.open]:
        click.echo(f"  longreel query --store {store} {command}")
    if result.worded or result.open:
        click.echo(f'  longreel query --store {store} --confident "WORDS OF YOURS"')
    click.echo(f"  longreel videos list --store {store}")
    click.echo(f"  longreel submit YOUR-VIDEOS --model {result.model} --store {store}")
