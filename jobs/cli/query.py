"""``longreel query``."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import common_options, console, settings_from, store_path

if TYPE_CHECKING:
    from pipeline.asking import Mode
    from pipeline.search import Moment

_NOTHING = 4


@click.command(short_help="Find moments.")
@click.argument("text", required=False)
@click.option("--image", metavar="FILE", type=click.Path(), help="Ask by a picture.")
@click.option("--like", metavar="VIDEO@SECONDS", help="Ask for what is seen there, for example --like gate.mp4@12.5")
@click.option("--limit", type=click.IntRange(min=1), default=5, show_default=True, help="How many moments at most.")
@click.option("--video", metavar="VIDEO", help="Only this video (id, name or URI).")
@click.option("--tag", metavar="TAG", help="Only videos with this tag.")
@click.option("--from", "start_seconds", metavar="SECONDS", type=float, help="Only from this media time on.")
@click.option("--to", "end_seconds", metavar="SECONDS", type=float, help="Only up to this media time.")
@click.option(
    "--added-after", metavar="TIME", help="Only videos added after this time (ISO 8601, local unless it says)."
)
@click.option(
    "--after",
    metavar="TIME",
    help="Only what was recorded after this time: of live streams, and of videos whose start time is known.",
)
@click.option("--before", metavar="TIME", help="Only what was recorded before this time; with --after, in between.")
@click.option(
    "--mode",
    type=click.Choice(["visual", "captions", "hybrid"]),
    default="visual",
    show_default=True,
    help="Ask what is seen, what captions say, or both.",
)
@click.option("--confident", is_flag=True, help="Only confident matches; without any, say so and exit with code 4.")
@click.option("--device", metavar="DEVICE", help="Where to run the model, for example cpu or cuda.")
@common_options
def query(
    text: str | None,
    image: str | None,
    like: str | None,
    limit: int,
    video: str | None,
    tag: str | None,
    start_seconds: float | None,
    end_seconds: float | None,
    added_after: str | None,
    after: str | None,
    before: str | None,
    mode: Mode,
    confident: bool,
    device: str | None,
    store: str | None,
    config: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Find moments by words, by a picture, or like a moment you know.

    \b
      longreel query "a dog jumps over a fence"
      longreel query --image lost-bicycle.jpg --tag gate
      longreel query --like gate.mp4@83.5 --limit 20 --json
      longreel query "a red kite" --confident
      longreel query "a red van" --after 2026-01-31T08:00 --before 2026-01-31T09:30

    A score is the cosine between query and moment: compare it with other scores of the same query only. "pct" says what
    it is worth: of how many plain questions in a hundred, asked of the same library without having a particular answer
    there, the best answer stands out less. From percentile 90 on (--set search.confident_percentile=P) a match is
    confident. Exit code 4: nothing matched, or with --confident nothing confident.

    With --mode captions no model is loaded: captions that have any of the words are ranked by how rare these are, and
    "of best" says how much a caption scores of what the first one does. With --mode hybrid both rankings become one, by
    the ranks alone. Scores of the three are of different kinds.
    """
    from pipeline.errors import QueryError
    from pipeline.library import Library

    if sum(given is not None for given in (text, image, like)) != 1:
        raise QueryError("ask one thing: words, --image FILE, or --like VIDEO@SECONDS")
    if confident and mode == "captions":
        raise QueryError("--confident: what captions say has no percentile; use --mode visual or hybrid")
    settings = settings_from(config, overrides)
    with Library.open(
        store_path(store),
        create=False,
        device=device or settings.encoder.device,
        index_options=settings.index,
        search_options=settings.search,
    ) as library:
        moments = library.query(
            text,
            image,
            like=_point(like) if like is not None else None,
            limit=limit,
            video=video,
            tag=tag,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            added_after=_time("--added-after", added_after) if added_after else None,
            after=_time("--after", after) if after else None,
            before=_time("--before", before) if before else None,
            mode=mode,
        )
        level = settings.search.confident_percentile
        best = max((moment.percentile for moment in moments if moment.percentile is not None), default=None)
        kept = [moment for moment in moments if settings.search.is_confident(moment)] if confident else moments
        asked: dict[str, Any] = {"text": text, "image": image, "like": like}
        shown = next(value for value in asked.values() if value is not None)
        if as_json:
            answer = {
                "query": shown,
                "model": library.model,
                "confident": None if best is None else best >= level,
                "confident_percentile": level,
                "best_percentile": best,
                "moments": [moment.to_dict() for moment in kept],
                "mode": mode,
            }
            click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        else:
            if library.manifest.random and text is not None and mode != "captions":
                note = "has random weights, so words mean nothing to it; ask with --image or --like"
                click.echo(f"note: {library.model} {note}", err=True)
            if mode != "visual" and not library.catalog.has_captions():
                click.echo("note: nothing in this library has captions; longreel captions --help says more", err=True)
            if kept:
                _show(kept, mode)
            else:
                click.echo(_nothing(shown, bool(moments), best, level), err=True)
    return 0 if kept else _NOTHING


def _nothing(asked: str, matched: bool, best: float | None, level: float) -> str:
    """Why nothing is shown."""
    if not matched:
        return f"nothing matched {asked!r}"
    if best is None:
        return f"no confident match for {asked!r}: the library is too small to tell (see docs/evaluation.md)"
    return (
        f"no confident match for {asked!r}: the best was at percentile {math.floor(best)}, confident is {level:g} and "
        "above; without --confident it is shown"
    )


def _show(moments: list[Moment], mode: Mode) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from jobs.reporting import precise_clock

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("video", overflow="fold")
    table.add_column("start", justify="right")
    table.add_column("end", justify="right")
    table.add_column("peak", justify="right", style="dim")
    # How rare its words are is a number that means nothing by itself: what people can use is how one stands to another.
    said = mode == "captions"
    table.add_column("of best" if said else "score", justify="right")
    best = max(moment.score for moment in moments)
    rated = any(moment.percentile is not None for moment in moments)
    if rated:
        table.add_column("pct", justify="right")
    dated = any(moment.utc_start for moment in moments)
    if dated:
        table.add_column("utc", overflow="fold")
    captioned = any(moment.caption for moment in moments)
    if captioned:
        table.add_column("caption", overflow="fold")
    for i, moment in enumerate(moments, 1):
        row: list[str | Text] = [
            str(i),
            Text(moment.name),
            precise_clock(moment.start_seconds),
            precise_clock(moment.end_seconds),
            precise_clock(moment.peak_seconds),
            _share(moment.score, best) if said else f"{moment.score:.3f}",
            *([_percentile(moment.percentile)] if rated else []),
            *([_wall_clock(moment.utc_start)] if dated else []),
        ]
        table.add_row(*row, *([Text(moment.caption or "")] if captioned else []))
    console().print(table)


def _share(score: float, best: float) -> str:
    """Of the best answer's score, which is above 0."""
    percent = 100 * score / best
    return f"{percent:.0f} %" if percent >= 1 else "<1 %"


def _percentile(value: float | None) -> str:
    return "" if value is None else f"{math.floor(value):d}"  # 89.9 is not yet 90


def _wall_clock(value: str | None) -> str:
    return "" if value is None else datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S")


def _point(text: str) -> tuple[str, float]:
    from pipeline.errors import QueryError

    video, at, seconds = text.rpartition("@")
    try:
        if at and video:
            return video, float(seconds)
    except ValueError:
        pass
    raise QueryError(f"--like {text!r}: expected VIDEO@SECONDS, for example gate.mp4@12.5")


def _time(option: str, text: str) -> datetime:
    from pipeline.errors import QueryError

    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise QueryError(f"{option} {text!r}: expected a time such as 2026-01-31 or 2026-01-31T08:00") from None
    return time.astimezone(timezone.utc)  # one without a zone is local time
