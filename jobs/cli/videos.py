"""``longreel videos``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import console, json_option, store_option, store_path

if TYPE_CHECKING:
    from pipeline.catalog.records import VideoRecord


@click.group(short_help="List, show and remove indexed videos.")
def videos() -> None:
    """List, show and remove indexed videos."""


@videos.command("list")
@click.option("--tag", metavar="TAG", help="Only videos with this tag.")
@click.option("--state", type=click.Choice(["pending", "done", "failed", "live"]), help="Only videos in this state.")
@store_option
@json_option
def list_videos(tag: str | None, state: str | None, store: str | None, as_json: bool) -> None:
    """All videos of the library."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from jobs.reporting import clock
    from pipeline.library import Library

    with Library.open(store_path(store), create=False) as library:
        records = library.videos(tag=tag, state=state)
    if as_json:
        click.echo(json.dumps([_values(record) for record in records], ensure_ascii=False, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("id", no_wrap=True, style="dim")
    table.add_column("name", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("length", "segments", "vectors", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("tags", overflow="fold")
    styles = {"done": "green", "failed": "red", "pending": "yellow"}
    for record in records:
        table.add_row(
            record.id,
            Text(record.name),
            Text(record.state, style=styles.get(record.state, "")),
            clock(record.duration_seconds) if record.duration_seconds is not None else "",
            str(record.segments),
            str(record.vectors),
            f"{record.lost_seconds:.1f} s" if record.lost_seconds else "",
            Text(", ".join(record.tags)),
        )
    console().print(table)
    hours = sum(record.duration_seconds or 0.0 for record in records) / 3600
    click.echo(f"{len(records)} videos, {hours:.2f} hours, {sum(record.vectors for record in records)} vectors")


@videos.command("show")
@click.argument("video")
@store_option
@json_option
def show_video(video: str, store: str | None, as_json: bool) -> None:
    """Everything known of one video (named by id, name or URI), with its segments."""
    from jobs.reporting import precise_clock
    from pipeline.library import Library

    with Library.open(store_path(store), create=False) as library:
        record = library.video(video)
        segments = library.catalog.segments_of(record.id)
    values = _values(record)
    spans: list[dict[str, Any]] = [
        {"start_seconds": s.span.start_seconds, "end_seconds": s.span.end_seconds, "boundary": s.boundary}
        for s in segments
    ]
    if as_json:
        click.echo(json.dumps({**values, "segment_spans": spans}, ensure_ascii=False, indent=2))
        return
    for key, value in values.items():
        if value not in (None, [], ""):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            click.echo(f"{key.replace('_', ' '):>18}  {shown}")
    for span in spans[:200]:
        start, end = precise_clock(span["start_seconds"]), precise_clock(span["end_seconds"])
        click.echo(f"{'segment':>18}  {start} - {end}  ({span['boundary']})")
    if len(spans) > 200:
        click.echo(f"{'':>18}  and {len(spans) - 200} more (--json has all)")


@videos.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="VIDEO...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@json_option
def remove_videos(names: tuple[str, ...], yes: bool, store: str | None, as_json: bool) -> None:
    """Remove videos from the library, everywhere in it. The files themselves are not touched."""
    from pipeline.library import Library

    with Library.open(store_path(store), create=False) as library:
        records = [library.video(name) for name in names]
        if not yes and not as_json:
            for record in records:
                click.echo(f"{record.id}  {record.name}: {record.segments} segments, {record.vectors} vectors")
            click.confirm("Remove from the library?", abort=True)
        for record in records:
            library.remove(record.id)
    if as_json:
        click.echo(json.dumps({"removed": [record.id for record in records]}))
    else:
        click.echo(f"removed {len(records)} video{'' if len(records) == 1 else 's'}")


def _values(record: VideoRecord) -> dict[str, Any]:
    media = record.media
    return {
        "id": record.id,
        "name": record.name,
        "uri": record.uri,
        "state": record.state,
        "tags": list(record.tags),
        "duration_seconds": record.duration_seconds,
        "start_time": record.start_time.isoformat() if record.start_time else None,
        "segments": record.segments,
        "vectors": record.vectors,
        "container": media.container if media else None,
        "codec": media.codec if media else None,
        "width": media.width if media else None,
        "height": media.height if media else None,
        "decoder": record.decoder,
        "decoder_reason": record.decoder_reason,
        "frames_decoded": record.frames_decoded,
        "frames_sampled": record.frames_sampled,
        "frames_encoded": record.frames_encoded,
        "skipped_by_gate": record.skipped_by_gate,
        "corrupt_frames": record.corrupt_frames,
        "decode_errors": record.decode_errors,
        "lost_seconds": record.lost_seconds,
        "damage": list(record.damage),
        "error": {"type": record.error_type, "message": record.error_message} if record.error_type else None,
        "added_at": record.added_at.isoformat(),
        "updated_at": record.updated_at.isoformat(),
    }
