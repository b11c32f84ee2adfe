"""``longreel jobs``."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import console, json_option, store_option, store_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.catalog import Catalog
    from pipeline.catalog.records import ItemRecord, JobRecord

_job_argument = click.argument("job", default="latest", metavar="[JOB]")
_STYLES = {"finished": "green", "running": "cyan", "queued": "cyan", "cancelled": "yellow", "interrupted": "red"}
_STYLES |= {"done": "green", "failed": "red", "skipped": "dim", "pending": "cyan"}


@click.group(short_help="List, show, cancel and retry jobs.")
def jobs() -> None:
    """List, show, cancel and retry jobs. JOB is an id, the beginning of one, or "latest" (the default)."""


@contextmanager
def _catalog(store: str | None) -> Iterator[Catalog]:
    from pipeline.catalog import Catalog
    from pipeline.store import Store

    with Catalog(Store.open(store_path(store)).catalog_path, create=False) as catalog:
        catalog.mark_interrupted_jobs()  # a job whose process is gone does not run, whatever it last said
        yield catalog


@jobs.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, the latest first.")
@store_option
@json_option
def list_jobs(limit: int, store: str | None, as_json: bool) -> None:
    """The latest jobs."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    with _catalog(store) as catalog:
        records = catalog.jobs(limit)
    if as_json:
        click.echo(json.dumps([_job_values(record) for record in records], ensure_ascii=False, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("job", "state", "started", "took"):
        table.add_column(name, no_wrap=True)
    table.add_column("videos", overflow="fold")
    table.add_column("command", no_wrap=True, overflow="ellipsis")
    for record in records:
        state = Text(record.state, style=_STYLES.get(record.state, ""))
        table.add_row(record.id, state, _started(record), _took(record), _counts(record.counts), Text(record.command))
    console().print(table)


@jobs.command("show")
@_job_argument
@store_option
@json_option
def show_job(job: str, store: str | None, as_json: bool) -> None:
    """One job and its videos."""
    from rich.text import Text

    with _catalog(store) as catalog:
        record = catalog.job(job)
        items = catalog.items(record.id)
        why = [error for error in catalog.errors(record.id) if error.uri is None] if record.state == "failed" else []
    if as_json:
        click.echo(
            json.dumps({**_job_values(record), "items": [_item(item) for item in items]}, ensure_ascii=False, indent=2)
        )
        return
    out = console()
    head = Text(f"job {record.id}  ")
    head.append(record.state, style=_STYLES.get(record.state, ""))
    head.append(f"  {_counts(record.counts)}")
    out.print(head)
    out.print(Text(f"  {record.command}", style="dim"))
    for error in why:  # of the job itself, not of one of its videos
        out.print(Text(f"  {error.type}: {error.message}", style="red"))
    out.print(Text(f"  started {_started(record) or 'not yet'}, took {_took(record) or '-'}", style="dim"))
    for item in items:
        line = Text()
        line.append(f"{item.state:>9}  ", style=_STYLES.get(item.state, ""))
        line.append(item.name or item.uri)
        if item.error_type:
            line.append(f"  {item.error_type}: {item.error_message}", style="red")
        elif item.state == "done":
            line.append(f"  {item.numbers.get('segments')} segments, {item.numbers.get('vectors')} vectors", "dim")
        if (captions := item.numbers.get("captions")) is not None:
            line.append(f", {captions} captions", "dim")
        if untold := item.numbers.get("captions_error"):
            line.append(f"; captions: {untold['type']}: {untold['message']}", style="red")
        out.print(line)


@jobs.command("errors")
@_job_argument
@store_option
@json_option
def show_errors(job: str, store: str | None, as_json: bool) -> None:
    """What failed in a job, and why."""
    from rich.text import Text

    with _catalog(store) as catalog:
        found = catalog.errors(catalog.job(job).id)
    if as_json:
        values = [
            {"uri": e.uri, "type": e.type, "message": e.message, "happened_at": e.happened_at.isoformat()}
            for e in found
        ]
        click.echo(json.dumps(values, ensure_ascii=False, indent=2))
        return
    out = console()
    for error in found:
        line = Text()
        line.append(error.type, style="red")
        line.append(f"  {error.message}")
        out.print(line)
    if not found:
        click.echo("no errors")


@jobs.command("cancel")
@_job_argument
@store_option
@json_option
def cancel_job(job: str, store: str | None, as_json: bool) -> None:
    """Ask a running job to stop. What it has done is kept."""
    with _catalog(store) as catalog:
        record = catalog.request_cancel(catalog.job(job).id)
    if as_json:
        click.echo(json.dumps(_job_values(record), ensure_ascii=False))
    else:
        click.echo(f"job {record.id}: asked to stop (now {record.state})")


@jobs.command("retry")
@_job_argument
@click.option("--failed", "failed_only", is_flag=True, help="Only the videos that failed, not the cancelled ones too.")
@click.option("--detach", is_flag=True, help="Return the new job's id at once.")
@store_option
@json_option
def retry_job(job: str, failed_only: bool, detach: bool, store: str | None, as_json: bool) -> int:
    """Submit again what a job did not finish, as a new job: failed, cancelled and never reached videos, and those that
    lack captions because something went wrong.

    Addresses with credentials are recorded without them: submit those again yourself.
    """
    from jobs.cli.submit import run_request, say_detached
    from jobs.runner import SubmitRequest, run_detached, shown_command
    from jobs.settings import settings_from_dict
    from pipeline.errors import NothingToDo
    from pipeline.sources import SourceItem

    with _catalog(store) as catalog:
        record = catalog.job(job)
        states = {"failed"} if failed_only else {"failed", "cancelled", "pending"}
        again = []
        for item in catalog.items(record.id):
            if item.state in states or item.numbers.get("captions_error"):
                known = catalog.find_video(item.video_id) if item.video_id else None
                again.append(
                    SourceItem(
                        uri=item.uri,
                        name=item.name or item.uri,
                        tags=known.tags if known else (),
                        start_time=known.start_time if known else None,
                    )
                )
    if not again:
        raise NothingToDo(f"job {record.id}: nothing to retry ({_counts(record.counts)})")
    request = SubmitRequest(
        store=store_path(store),
        items=tuple(again),
        settings=settings_from_dict(record.config["settings"]),
        command=shown_command(sys.argv[1:]),
        address=record.config.get("address"),
    )
    if detach:
        return say_detached(request, str(run_detached(request)), as_json)
    return run_request(request, as_json)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number)


def _started(record: JobRecord) -> str:
    return record.started_at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if record.started_at else ""


def _took(record: JobRecord) -> str:
    from jobs.reporting import clock

    if record.started_at is None or record.ended_at is None:
        return ""
    return clock((record.ended_at - record.started_at).total_seconds())


def _job_values(record: JobRecord) -> dict[str, Any]:
    return {
        "job": record.id,
        "state": record.state,
        "counts": record.counts,
        "command": record.command,
        "pid": record.pid,
        "host": record.host,
        "created_at": record.created_at.isoformat(),
        "started_at": record.started_at.isoformat() if record.started_at else None,
        "ended_at": record.ended_at.isoformat() if record.ended_at else None,
    }


def _item(item: ItemRecord) -> dict[str, Any]:
    error = {"type": item.error_type, "message": item.error_message} if item.error_type else None
    return {"uri": item.uri, "video": item.video_id, "state": item.state, "error": error, **item.numbers}
