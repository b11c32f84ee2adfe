"""What the commands share: the common options, and the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.settings import RunSettings

__all__ = ["common_options", "config_options", "console", "json_option", "settings_from", "store_option", "store_path"]

F = TypeVar("F", bound=Callable[..., Any])


def store_path(given: str | None) -> Path:
    """``--store``, else ``$LONGREEL_STORE``, else ``./longreel-store``."""
    return Path(given or os.environ.get("LONGREEL_STORE") or "longreel-store")


store_option = click.option(
    "--store",
    metavar="DIR",
    help="Folder of the library.  [default: $LONGREEL_STORE, else ./longreel-store]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")


def config_options(function: F) -> F:
    """``--config NAME|FILE`` and ``--set key=value``."""
    function = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Change one setting, for example --set ingest.sampling.fps=1. May be given several times.",
    )(function)
    return click.option(
        "--config",
        metavar="NAME|FILE",
        default="default",
        show_default=True,
        help="A named recipe (camera, dense, fast) or a YAML file.",
    )(function)


def common_options(function: F) -> F:
    """``--store``, ``--config``, ``--set`` and ``--json``."""
    return json_option(config_options(store_option(function)))


def settings_from(config: str, overrides: tuple[str, ...], **replaced: Any) -> RunSettings:
    """The run settings; values in ``replaced`` that are not None win."""
    from dataclasses import replace

    from jobs.settings import load_settings

    settings = load_settings(config, overrides)
    return replace(settings, **{key: value for key, value in replaced.items() if value is not None})


def console(stderr: bool = False) -> Console:
    """A Rich console; plain, and wide enough not to fold tables, when the output is no terminal."""
    from rich.console import Console

    width = None if os.isatty(2 if stderr else 1) else 200
    return Console(stderr=stderr, highlight=False, width=width)
