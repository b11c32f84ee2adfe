"""``longreel submit``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from jobs.cli.common import common_options, console, settings_from, store_path

if TYPE_CHECKING:
    from jobs.reporting import JobSummary
    from jobs.runner import SubmitRequest


_MODEL_HELP = (
    "The model to see with: see `longreel models`. `tiny` comes with Longreel and needs no download.  "
    "[default: the configured one, openclip:ViT-B-32/laion2b_s34b_b79k]"
)


@click.command(
    short_help="Index videos.",
    epilog="Submitting the same again skips what is done and unchanged, so a job that was stopped, or died, goes on "
    "where it was. Settings and recipes: docs/reference.md.",
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@common_options
@click.option("--model", metavar="NAME", help=_MODEL_HELP)
@click.option(
    "--captions",
    metavar="MODEL",
    help="Say in words what is seen, by this captioner, such as tiny: also in videos that are indexed and have none.",
)
@click.option(
    "--tag",
    "tags",
    metavar="TAG",
    multiple=True,
    help="Add a tag to all of these videos, done ones too; several times for more.",
)
@click.option("--detach", is_flag=True, help="Return the job's id at once; the job goes on in the background.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and estimate time, disk and memory from a sample."
)
@click.option("--address", metavar="HOST:PORT", help="A Ray cluster to run on; without it Ray starts on this machine.")
def submit(
    inputs: tuple[str, ...],
    store: str | None,
    config: str,
    overrides: tuple[str, ...],
    as_json: bool,
    model: str | None,
    captions: str | None,
    tags: tuple[str, ...],
    detach: bool,
    dry_run: bool,
    address: str | None,
) -> int:
    """Index videos: decode, keep what is new in them, encode, compress, and make them searchable.

    INPUT is a video file, a folder (searched through, by content), a glob in quotes, a manifest (@list.txt with one
    source a line, or .jsonl with uri, name, tags, start_time), or an http(s):// or s3:// address.

    \b
      longreel submit holiday.mp4 footage/
      longreel submit 's3://bucket/cameras/' --tag gate --detach
      longreel submit footage/ --config camera --set ingest.sampling.fps=1
      longreel submit footage/ --captions tiny
      longreel submit footage/ --dry-run
    """
    from dataclasses import replace

    from encoders.captioner_names import kept_name
    from jobs.errors import UsageError
    from jobs.runner import SubmitRequest, run_detached, shown_command
    from pipeline.sources import find_sources

    if detach and dry_run:
        raise UsageError("--detach and --dry-run do not go together")
    settings = settings_from(config, overrides, model=model)
    if captions is not None:
        settings = replace(settings, captions=replace(settings.captions, model=captions))
    if settings.captions.model:
        kept_name(settings.captions.model)  # a slip is told now, and not by a job
    items = find_sources(list(inputs))
    if tags:
        items = [replace(item, tags=tuple(dict.fromkeys((*item.tags, *tags)))) for item in items]
    request = SubmitRequest(
        store=store_path(store),
        items=tuple(items),
        settings=settings,
        command=shown_command(sys.argv[1:]),
        address=address or settings_address(),
    )
    if dry_run:
        from jobs.dry_run import print_estimate

        return print_estimate(request, as_json)
    if detach:
        log = run_detached(request)
        return say_detached(request, str(log), as_json)
    return run_request(request, as_json)


def settings_address() -> str | None:
    """``$RAY_ADDRESS``, as Ray's own tools take it."""
    import os

    return os.environ.get("RAY_ADDRESS") or None


def run_request(request: SubmitRequest, as_json: bool) -> int:
    """Run a job in this process, with the reporter that fits the output; its exit code."""
    from jobs.reporting import JsonReporter, LineReporter, Reporter, RichReporter
    from jobs.runner import run_submit

    reporter: Reporter
    if as_json:
        reporter = JsonReporter()
    elif sys.stderr.isatty():
        reporter = RichReporter(console(stderr=True))
    else:
        reporter = LineReporter()
    try:
        summary = run_submit(request, reporter)
    finally:
        if isinstance(reporter, RichReporter):
            reporter.close()
    if not as_json:
        _say_summary(summary, request)
    return summary.exit_code


def _say_summary(summary: JobSummary, request: SubmitRequest) -> None:
    counts = [f"{summary.count(s)} {s}" for s in ("done", "failed", "skipped", "cancelled") if summary.count(s)]
    click.echo(f"job {summary.job}: {', '.join(counts) or 'nothing to do'}; library {request.store}")
    if summary.without_captions:
        click.echo(f"  {summary.without_captions} without all their captions")
    if summary.count("failed") or summary.without_captions:
        click.echo(f"  what failed and why: longreel jobs errors {summary.job} --store {request.store}")
    if summary.count("done") or summary.count("skipped"):
        click.echo(f'  ask it: longreel query "..." --store {request.store}')


def say_detached(request: SubmitRequest, log: str, as_json: bool) -> int:
    """Say the id of a job that goes on in the background."""
    if as_json:
        click.echo(json.dumps({"job": request.job_id, "log": log}))
        return 0
    click.echo(request.job_id)
    click.echo(f"watch it: longreel jobs show {request.job_id} --store {request.store}", err=True)
    return 0
