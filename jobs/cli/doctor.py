"""``longreel doctor``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from jobs.cli.common import console, json_option, store_option, store_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.checks.base import Check

__all__ = ["doctor"]

_FAILED = 2
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command(short_help="Check this installation.")
@store_option
@json_option
def doctor(store: str | None, as_json: bool) -> int:
    """Check this installation: versions, codecs, GPU, model cache, disks, what Ray would place, and the library.

    Nothing is changed, downloaded or started. Exit code 0 when nothing fails (warnings are no failures), 2 otherwise.
    """
    from jobs.checks.base import Context, run_checks

    checks = run_checks(Context(store_path(store)))
    if as_json:
        found = list(checks)
        failed = any(check.status == "fail" for check in found)
        click.echo(json.dumps({"ok": not failed, "checks": [check.to_dict() for check in found]}, indent=2))
        return _FAILED if failed else 0
    return _FAILED if _print(checks) else 0


def _print(checks: Iterable[Check]) -> int:
    """Print each check as soon as it is there; how many failed."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    counts = {"ok": 0, "warn": 0, "fail": 0}
    group = ""
    for check in checks:
        counts[check.status] += 1
        if check.group != group:
            out.print(Text(f"{'' if not group else chr(10)}{check.group}", style="bold"))
            group = check.group
        line = Table.grid(padding=(0, 2))
        line.add_column(width=4)
        line.add_column(width=22)
        line.add_column(overflow="fold")
        line.add_row(Text(check.status, style=_STYLES[check.status]), Text(check.name), Text(check.detail))
        if check.advice:
            line.add_row("", "", Text(check.advice, style="dim"))
        if sys.stdout.isatty():
            out.print(line)
        else:  # one line each, nothing folded
            click.echo(f"  {check.status:<4}  {check.name:<22}  {check.detail}")
            if check.advice:
                click.echo(f"{'':32}{check.advice}")
    warned, failed = (
        f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((counts["warn"], "warning"), (counts["fail"], "failure"))
    )
    out.print(Text(f"\n{counts['ok']} ok, {warned}, {failed}"))
    return counts["fail"]
