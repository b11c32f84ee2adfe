"""``longreel models``: what there is, what one is, and bringing its weights here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from jobs.checks.base import size_text
from jobs.cli.common import console, json_option

if TYPE_CHECKING:
    from encoders.base import ModelCard, ModelDescription, ModelEntry, Progress

__all__ = ["models"]

_NOTHING_MATCHED = 4


@click.group(short_help="List, describe and fetch models.")
def models() -> None:
    """List, describe and fetch models.

    `tiny` comes with Longreel: small, for trials and machines without a network. All others are named
    SCHEME:ARCHITECTURE/WEIGHTS, for example openclip:ViT-B-32/laion2b_s34b_b79k. In place of a tag the weights may be
    the path of a checkpoint, or the word random (untrained, for trying things out).
    """


@models.command("list", short_help="Every model that has a name, and which are here.")
@click.option("--downloaded", is_flag=True, help="Only those whose weights are in the cache.")
@click.option("--arch", metavar="TEXT", help="Only architectures that contain TEXT, in any case.")
@json_option
def list_(downloaded: bool, arch: str | None, as_json: bool) -> int:
    """List the models that have a name of their own. No network is used.

    \b
      longreel models list --arch b-32
      longreel models list --downloaded
    """
    from encoders import list_models

    found = [entry for entry in list_models(downloaded) if (arch or "").lower() in entry.architecture.lower()]
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in found], indent=2))
    elif found:
        _print_list(found)
    else:
        click.echo(_nothing_found(downloaded, arch), err=True)
    return 0 if found else _NOTHING_MATCHED


@models.command(short_help="What is known of a model.")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> int:
    """Describe the model NAME without loading its weights: what it is good for and where its limits are, how it is
    asked, its size and preprocessing, where the weights are.
    """
    from encoders import describe_model

    model = describe_model(name)
    if as_json:
        plain = {**asdict(model), "preprocess": dict(model.preprocess), "card": model.card.as_dict()}
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        _print_description(model)
    return 0


@models.command(short_help="Bring a model's weights into the cache.")
@click.argument("name")
@json_option
def fetch(name: str, as_json: bool) -> int:
    """Bring the weights of NAME into the cache and check that they can be read; of `tiny`, that they are whole.

    What is there already is not downloaded again. HF_HOME moves the cache, HF_HUB_OFFLINE=1 forbids the network.
    """
    from encoders import describe_model, fetch_model

    with _progress() as report:
        path = fetch_model(name, report)
    model = describe_model(name)
    if as_json:
        click.echo(json.dumps({"name": model.name, "path": path or None, "size_bytes": model.size_bytes}))
    elif path:
        click.echo(f"{model.name} is ready: {path}{f' ({size_text(model.size_bytes)})' if model.size_bytes else ''}")
    else:
        click.echo(f"{model.name} needs no download: {model.source}")
    return 0


def _print_list(found: list[ModelEntry]) -> None:
    from rich.table import Table

    here = sum(entry.downloaded for entry in found)
    if not sys.stdout.isatty():  # for grep and cut: one line each, nothing shortened
        for entry in found:
            click.echo(f"{entry.name}\t{'here' if entry.downloaded else 'not here'}\t{entry.source}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Model", overflow="fold")
    table.add_column("Weights", no_wrap=True)
    table.add_column("From", style="dim", overflow="ellipsis", no_wrap=True)
    for entry in found:
        table.add_row(entry.name, "[green]here[/green]" if entry.downloaded else "[dim]-[/dim]", entry.source)
    out = console()
    out.print(table)
    out.print(f"\n{len(found)} listed, {here} with weights here. Fetch one: longreel models fetch NAME", style="dim")


def _nothing_found(downloaded: bool, arch: str | None) -> str:
    what = "no model" + (f" whose architecture contains {arch!r}" if arch else "")
    if downloaded:
        return (
            f"{what} has its weights here; `longreel models list{f' --arch {arch}' if arch else ''}` shows which there "
            "are, `longreel models fetch NAME` brings one"
        )
    return f"there is {what}; `longreel models list` shows all"


def _print_description(model: ModelDescription) -> None:
    from rich.markup import escape
    from rich.table import Table

    def known(value: Any, text: Callable[[Any], str] = str) -> str:
        return "only the weights would tell" if value is None else text(value)

    rows = {
        "model": model.name,
        "weights": "untrained, drawn from a seed" if model.random else model.source,
        "here": f"{model.path} ({size_text(model.size_bytes)})" if model.path else ("yes" if model.random else "no"),
        "joint width": known(model.dimension),
        "picture": known(model.image_height, lambda height: f"{height} x {model.image_width} pixels"),
        "patch": f"{model.patch_size} x {model.patch_size} pixels"
        if model.patch_size
        else "not said by its configuration",
        "text length": known(model.context_length, lambda length: f"{length} tokens"),
        "parameters": known(model.parameters, lambda count: f"{count / 1e6:.1f} M"),
        "QuickGELU": known(model.quick_gelu, lambda yes: "yes" if yes else "no"),
        **{f"preprocess {key}": _plain(value) for key, value in model.preprocess.items()},
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in (*rows.items(), *_card_rows(model.card)):
        table.add_row(key, escape(value))
    for note in model.notes:
        table.add_row("note", escape(note))
    console().print(table)
    if not model.downloaded:
        click.echo(f"\nbring it here: longreel models fetch {model.name}")


def _card_rows(card: ModelCard) -> Iterator[tuple[str, str]]:
    if card.summary:
        yield "about", card.summary
    yield "trained on", card.trained_on or "not known"
    yield "licence", card.licence or "not known"
    yield "languages", ", ".join(card.languages) or "not known"
    for limit in card.limits:
        yield "limit", limit
    yield "a query is put", _templates(card.templates)
    yield "a class name is put", _templates(card.label_templates)
    if card.reference:
        yield "see", card.reference
    yield "card", card.source


def _templates(templates: tuple[str, ...]) -> str:
    return "as it is" if templates == ("{}",) else "into " + ", ".join(repr(template) for template in templates)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A callback that draws a bar of bytes on a terminal, and elsewhere says each message once; on standard error."""
    if not sys.stderr.isatty():
        said: set[str] = set()

        def say(step: Progress) -> None:
            if step.message not in said:
                said.add(step.message)
                click.echo(step.message, err=True)

        yield say
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console(stderr=True)) as bars:
        bar = bars.add_task("looking for the weights", total=None)

        def draw(step: Progress) -> None:
            bars.update(bar, description=step.message, completed=step.done_bytes, total=step.total_bytes)

        yield draw
