"""``longreel captions``."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import common_options, console, settings_from, store_path

if TYPE_CHECKING:
    from encoders.vlm.counts import VlmCounts
    from jobs.settings import RunSettings
    from pipeline.caption_files import Cue
    from pipeline.captioning import CaptionedVideo
    from pipeline.catalog.records import CaptionRecord, VideoRecord
    from pipeline.library import Library

_NOTHING = 4


@click.command(short_help="Write a video's captions as files, or make them.")
@click.argument("video")
@click.option(
    "--format",
    "form",
    type=click.Choice(["vtt", "srt", "jsonl", "txt"]),
    help="How to write them.  [default: by the ending of --out, else txt]",
)
@click.option(
    "--out", metavar="FILE", help="Write to this file; .m3u8 makes segmented WebVTT.  [default: the terminal]"
)
@click.option("--track", metavar="MODEL", help="The captions by this captioner, where several have made some.")
@click.option("--from", "start_seconds", metavar="SECONDS", type=float, help="Only from this media time on.")
@click.option("--to", "end_seconds", metavar="SECONDS", type=float, help="Only up to this media time.")
@click.option("--list", "list_tracks", is_flag=True, help="Only say which captioners have made how many.")
@click.option("--model", metavar="NAME", help="Make captions by this captioner first, where they are missing.")
@click.option("--again", is_flag=True, help="With --model: make them anew, in place of those that are there.")
@common_options
def captions(
    video: str,
    form: str | None,
    out: str | None,
    track: str | None,
    start_seconds: float | None,
    end_seconds: float | None,
    list_tracks: bool,
    model: str | None,
    again: bool,
    store: str | None,
    config: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Write a video's captions as WebVTT, SRT, JSON lines or text; or make them.

    VIDEO is a video's id, name or URI, or a live stream's, which may go on meanwhile.

    \b
      longreel captions gate.mp4
      longreel captions gate.mp4 --out gate.vtt
      longreel captions gate.mp4 --format srt --from 60 --to 120
      longreel captions gate.mp4 --model tiny --out gate.vtt
      longreel captions gate.mp4 --list

    Each captioner has a track of its own, beside those of others. Times are those of the video, also of an excerpt.
    Whole libraries are captioned by `longreel submit --captions`. Exit code 4: there are no captions.
    """
    from jobs.errors import UsageError
    from pipeline.caption_files import check_writable, format_of, open_writer, write_cues
    from pipeline.library import Library

    if again and not model:
        raise UsageError("--again goes with --model, the captioner that is to make them anew")
    if model and (track or list_tracks):
        raise UsageError(f"--model and {'--track' if track else '--list'} do not go together")
    if list_tracks and (form or out):
        raise UsageError(f"--list and {'--format' if form else '--out'} do not go together")
    if as_json and (form or out):
        raise UsageError(f"--json and {'--format' if form else '--out'} do not go together; --format jsonl has lines")
    start, end = start_seconds or 0.0, float("inf") if end_seconds is None else end_seconds
    if not 0 <= start < end:
        raise UsageError(f"--from {start:g} --to {end:g}: must be at 0 or later, and end after that")
    settings = settings_from(config, overrides)
    with Library.open(store_path(store), create=False, device=settings.encoder.device) as library:
        record = library.video(video)
        made = asked = None
        if out:
            form = form or format_of(out)
            check_writable(out)  # rather now than when there are captions to write
        if model:
            track, made, asked = _make(library, record, model, settings, again)
        tracks = _tracks(library.catalog.captions_of(record.id))
        if list_tracks:
            return _list(record, tracks, as_json)
        track, found = _chosen(tracks, track) if made is None else (track, tracks.get(track or "", []))
        cues = _cues(library, record, found, start, end)
        how = f"longreel captions {record.name} --model tiny"
        if library.catalog.connections_of(record.id):  # a stream's pictures are gone
            how = f"longreel stream {record.uri} --captions tiny"
    if as_json:
        value: dict[str, Any] = {"video": record.id, "uri": record.uri, "track": track}
        value["captions"] = [cue.to_dict() for cue in cues]
        if made is not None:
            value |= {"made": made.from_kept + made.from_frames, "without": made.without}
        if asked is not None:
            value["asked"] = asked.to_dict(settings.captions.vlm)
        click.echo(json.dumps(value, ensure_ascii=False, indent=2))
    elif out:
        if cues:
            with open_writer(out, form) as writer:
                for cue in cues:
                    writer.write(cue)
            click.echo(f"{out}: {_count(len(cues))} of {record.name} by {track}", err=True)
    elif form or made is None:
        click.echo(write_cues(cues, form or "txt"), nl=False)
    if not cues:
        hint = "" if made else f"; make some: {how}"
        click.echo(f"{record.name} has no captions{' there' if found else hint}", err=True)
    return 0 if cues else _NOTHING


def _make(
    library: Library, record: VideoRecord, model: str, settings: RunSettings, again: bool
) -> tuple[str, CaptionedVideo, VlmCounts | None]:
    """Caption the video; the name of the captioner, which is the track's, what became of it, and what asking cost."""
    from dataclasses import replace

    from encoders.vlm.counts import counts_of
    from jobs.reporting import precise_clock
    from pipeline.captioning import caption_segments

    click.echo(f"loading {model}", err=True)
    loading = replace(settings.captions, model=model).load(settings.encoder)
    with loading as captioner, console(stderr=True).status("") as status:
        name, done = captioner.info.name, 0
        if captioner.info.random:
            click.echo(f"note: {name} has random weights, its words mean nothing", err=True)

        def captioned(caption: CaptionRecord) -> None:
            nonlocal done
            done += 1
            status.update(f"{_count(done)}, up to {precise_clock(caption.span.end_seconds)}")

        made = None
        try:
            made = caption_segments(
                library, record.id, captioner, again=again, options=settings.ingest, captioned=captioned
            )
        finally:  # what it took, and what is kept, also where something kept it from the rest
            said = f"{record.name}: {_count(done)} made now by {name}"
            if made is not None:
                said += f", {len(made.captions)} in all"
                said += f"; {made.without} segments have none" if made.without else ""
            click.echo(said, err=True)
            asked = counts_of(captioner)
            if asked is not None:
                click.echo(f"asked {name}: {asked.line(settings.captions.vlm)}", err=True)
    return name, made, asked


def _count(captions: int) -> str:
    return f"{captions} caption{'' if captions == 1 else 's'}"


def _tracks(found: list[CaptionRecord]) -> dict[str, list[CaptionRecord]]:
    """Captions by captioner, in order of time."""
    tracks: dict[str, list[CaptionRecord]] = {}
    for caption in sorted(found, key=lambda one: one.span):
        tracks.setdefault(caption.model, []).append(caption)
    return dict(sorted(tracks.items()))


def _chosen(tracks: dict[str, list[CaptionRecord]], track: str | None) -> tuple[str | None, list[CaptionRecord]]:
    """The track that was asked for, or the only one."""
    from encoders.captioner_names import kept_name
    from encoders.errors import UnknownModel
    from jobs.errors import UsageError

    if not tracks:
        return track, []
    if track is not None and track not in tracks:
        with contextlib.suppress(UnknownModel):  # then it is what it is, and none of these
            track = kept_name(track)
    if track is None:
        if len(tracks) > 1:
            raise UsageError(f"there are captions by {', '.join(tracks)}; choose one with --track")
        return next(iter(tracks.items()))
    if track not in tracks:
        raise UsageError(f"no captions by {track!r}; there are some by {', '.join(tracks)}")
    return track, tracks[track]


def _cues(
    library: Library,
    record: VideoRecord,
    found: list[CaptionRecord],
    start: float,
    end: float,
) -> list[Cue]:
    from pipeline.caption_files import Cue
    from pipeline.live.types import utc_at

    anchors = library.catalog.anchors_of([record.id]).get(record.id, [])
    return [
        Cue(
            one.span.start_seconds,
            one.span.end_seconds,
            one.text,
            utc=utc_at(anchors, one.span.start_seconds),
            stream=record.name,
            model=one.model,
            confidence=one.confidence,
        )
        for one in found
        if one.span.start_seconds < end and one.span.end_seconds > start
    ]


def _list(record: VideoRecord, tracks: dict[str, list[CaptionRecord]], as_json: bool) -> int:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from jobs.reporting import precise_clock

    listed = [
        (name, len(found), found[0].span.start_seconds, max(one.span.end_seconds for one in found))
        for name, found in tracks.items()
    ]
    if as_json:
        rows = [dict(zip(("track", "captions", "start_seconds", "end_seconds"), row, strict=True)) for row in listed]
        click.echo(json.dumps({"video": record.id, "uri": record.uri, "tracks": rows}, ensure_ascii=False, indent=2))
    elif not listed:
        click.echo(f"{record.name} has no captions", err=True)
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("track", overflow="fold")
        for column in ("captions", "from", "to"):
            table.add_column(column, justify="right", no_wrap=True)
        for name, count, start, end in listed:
            table.add_row(Text(name), str(count), precise_clock(start), precise_clock(end))
        console().print(table)
    return 0 if listed else _NOTHING
