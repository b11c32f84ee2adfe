"""``longreel streams list`` and ``longreel streams stop``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import console, json_option, store_option, store_path

if TYPE_CHECKING:
    from pipeline.catalog.records import StreamRecord

_NOTHING = 4
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.2


@click.group(short_help="List live streams, and stop them.")
def streams() -> None:
    """Live streams of this library, whichever process watches them.

    \b
      longreel streams list
      longreel streams stop gate
      longreel streams stop --all
    """


@streams.command("list", short_help="The streams, with their states, drops and lags.")
@store_option
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
@json_option
def list_streams(store: str | None, everything: bool, as_json: bool) -> int:
    """The streams that are watched now; with --all those of the past as well."""
    from pipeline.library import Library

    with Library.open(store_path(store), create=False) as library:
        library.catalog.mark_interrupted_streams()
        found = library.catalog.streams(running=not everything)
    if as_json:
        click.echo(json.dumps([_as_json(record) for record in found], ensure_ascii=False, indent=2))
    elif found:
        from jobs.live.show import stream_table
        from pipeline.live.types import StreamCounts

        console().print(
            stream_table(
                [{"name": one.name, "state": one.state, "counts": StreamCounts.of(one.counts)} for one in found]
            )
        )
    else:
        click.echo("no streams are running" if not everything else "no streams yet", err=True)
    return 0 if found else _NOTHING


@streams.command("stop", short_help="Stop streams.")
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "everything", is_flag=True, help="All that run.")
@click.option("--no-wait", is_flag=True, help="Do not wait until they have ended.")
@store_option
@json_option
def stop_streams(names: tuple[str, ...], everything: bool, no_wait: bool, store: str | None, as_json: bool) -> int:
    """Stop streams by name, id or address; what they captured is kept, others go on."""
    from jobs.errors import EngineError, UsageError
    from pipeline.library import Library

    if bool(names) == everything:
        raise UsageError("name the streams to stop, or say --all")
    with Library.open(store_path(store), create=False) as library:
        catalog = library.catalog
        catalog.mark_interrupted_streams()
        running = {one.video_id: one for one in catalog.streams(running=True)}
        if everything:
            wanted = list(running)
        else:
            wanted = [catalog.video(name).id for name in names]
            for name, video in zip(names, wanted, strict=True):
                if video not in running:
                    raise UsageError(f"{name}: it is not running; running are {_names(running.values())}")
        for video in wanted:
            catalog.request_stop(video)
        deadline = time.monotonic() + (0.0 if no_wait else _STOP_SECONDS)
        left = set(wanted)
        while left and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            left &= {one.video_id for one in catalog.streams(running=True)}
        stopped = [running[video].name for video in wanted if video not in left]
        if as_json:
            asked = [running[video].name for video in wanted]
            click.echo(json.dumps({"asked": asked, "stopped": stopped}, ensure_ascii=False))
        else:
            for video in wanted:
                click.echo(f"{running[video].name}: {'asked to stop' if video in left else 'stopped'}")
        if left and not no_wait:
            raise EngineError(
                f"{_names(running[video] for video in left)}: not stopped within {_STOP_SECONDS:.0f} s; "
                "`longreel streams list` shows whether they still live"
            )
    return 0 if wanted else _NOTHING


def _names(records: Any) -> str:
    return ", ".join(sorted(record.name for record in records)) or "none"


def _as_json(record: StreamRecord) -> dict[str, Any]:
    return {
        "video": record.video_id,
        "name": record.name,
        "uri": record.uri,
        "state": record.state.value,
        "running": not record.state.is_over,
        "started_at": record.started_at.isoformat(),
        "heartbeat_at": record.heartbeat_at.isoformat(),
        "ended_at": record.ended_at.isoformat() if record.ended_at else None,
        "error": {"type": record.error_type, "message": record.error_message} if record.error_type else None,
        "bytes": record.bytes,
        "counts": record.counts,
    }
