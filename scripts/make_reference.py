"""Writes docs/reference.md: the help of every command and every setting with its default, from the code itself.

python scripts/make_reference.py           write it
python scripts/make_reference.py --check   fail when it is not what the code says
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import click
from click.testing import CliRunner

import configs
from jobs.cli.main import cli
from jobs.settings import RunSettings

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference.md"


def commands(command: click.Command, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """``(name, help)`` of a command and all below it."""
    shown = CliRunner().invoke(cli, [*words[1:], "--help"], prog_name="longreel", terminal_width=100)
    found = [(" ".join(words), shown.output.rstrip())]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += commands(below, (*words, name))
    return found


def settings(value: object, prefix: str = "") -> list[str]:
    """A heading for each options class, with what its docstring says, and its settings with their defaults."""
    plain, nested = [], []
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        inner = getattr(value, field.name)
        (nested if dataclasses.is_dataclass(inner) else plain).append((field.name, inner))
    lines = [f"### `{prefix.rstrip('.') or 'top level'}`", "", " ".join((type(value).__doc__ or "").split()), ""]
    if plain:
        lines += ["| setting | default |", "|---|---|"]
        lines += [f"| `{prefix}{name}` | `{inner!r}` |" for name, inner in plain] + [""]
    for name, inner in nested:
        lines += settings(inner, f"{prefix}{name}.")
    return lines


def reference() -> str:
    lines = ["# Reference", "", "Made by `python scripts/make_reference.py` from the code; do not edit.", ""]
    lines += ["## Commands", ""]
    for name, text in commands(cli, ("longreel",)):
        lines += [f"### `{name}`", "", "```text", text, "```", ""]
    lines += ["## Settings", "", "Given by `--set KEY=VALUE`, or in a YAML file by `--config FILE`.", ""]
    lines += settings(RunSettings())
    lines += ["## Recipes", ""]
    for name in configs.recipe_names():
        lines += [f"### `--config {name}`", "", "```yaml", configs.recipe_text(name).rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether docs/reference.md is current")
    check = parser.parse_args().check
    text = reference()
    if check:
        # Other versions of click break lines at other places, which changes nothing that is said.
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8").split() != text.split():
            print("docs/reference.md is not what the code says: run python scripts/make_reference.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
