"""``longreel``: the entry point, its exit codes, and the one place where errors become messages."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from csat_fusion.errors import LongreelError

__all__ = ["cli", "main"]

EXIT_INTERNAL, EXIT_USAGE, EXIT_FAILURES, EXIT_NOTHING, EXIT_INTERRUPTED = 1, 2, 3, 4, 130

_COMMANDS = {
    # name: (module:attribute, what it does); the text is here so that `longreel --help` imports none of them
    "submit": ("jobs.cli.submit:submit", "Index videos: files, folders, globs, manifests, http(s):// and s3://."),
    "stream": ("jobs.cli.stream:stream", "Watch live streams: captions as they happen, searchable within seconds."),
    "query": ("jobs.cli.query:query", "Find moments by words, by a picture, or like a moment you know."),
    "captions": (
        "jobs.cli.captions:captions",
        "Write a video's captions as WebVTT, SRT, JSON lines or text; make them.",
    ),
    "videos": ("jobs.cli.videos:videos", "List, show and remove indexed videos."),
    "streams": ("jobs.cli.streams:streams", "List live streams, and stop them."),
    "jobs": ("jobs.cli.jobs:jobs", "List, show, cancel and retry jobs; see what failed and why."),
    "models": ("jobs.cli.models:models", "List, describe and fetch models."),
    "evaluate": ("jobs.cli.evaluate:evaluate", "Judge moments, libraries, models and compressors."),
    "doctor": ("jobs.cli.doctor:doctor", "Check this installation: versions, codecs, GPU, cache, disk, placement."),
    "demo": ("jobs.cli.demo:demo", "Draw short videos, index them, ask for them, show the answers."),
}

_HELP = """Ask hours of video in words.

\b
  longreel submit footage/              index a folder of videos
  longreel stream rtsp://camera/live    watch a camera: captions, searchable within seconds
  longreel query "a dog runs"           moments: video, start, end
  longreel query --image photo.jpg      the same, asked by a picture
  longreel demo                         see it work in a minute

\b
Exit codes:
  0  all done
  1  internal error (please report it)
  2  wrong usage, or a problem that the message explains
  3  finished, but some videos failed
  4  nothing matched
  130  stopped by Ctrl-C
"""


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, and no sooner."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(_COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="longreel")
def cli() -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and exit with its code; see ``longreel --help`` for the codes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    try:
        code = cli.main(args=arguments, prog_name="longreel", standalone_mode=False)
        _exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as ended:
        _exit(ended.exit_code)
    except click.ClickException as error:
        if as_json:
            _say_error("UsageError", error.format_message(), as_json)
        else:
            error.show()
        _exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        _say_error("Interrupted", "stopped; what was done is kept", as_json)
        _exit(EXIT_INTERRUPTED)
    except LongreelError as error:
        from jobs.errors import Interrupted

        _say_error(type(error).__name__, str(error), as_json)
        _exit(EXIT_INTERRUPTED if isinstance(error, Interrupted) else EXIT_USAGE)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error, but nothing can be written any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(0)
    return 0  # not reached; an unexpected exception goes up with its traceback and exit code 1


def _exit(code: int) -> None:
    sys.exit(code)


def _say_error(kind: str, message: str, as_json: bool) -> None:
    if as_json:
        value: dict[str, Any] = {"error": {"type": kind, "message": message}}
        print(json.dumps(value, ensure_ascii=False))
        return
    label = click.style(kind, fg="red", bold=True) if sys.stderr.isatty() else kind
    click.echo(f"{label}: {message}", err=True)


if __name__ == "__main__":
    main()
