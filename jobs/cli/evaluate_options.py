"""What ``longreel evaluate`` was asked, checked, and the one way in which its results leave."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click

from jobs.errors import UsageError

__all__ = ["EvaluateOptions", "deliver"]

_ANSWERS = 10

# What each way of evaluating takes, beside --json and --out.
_ALLOWED = {
    "--predictions": {"--truth", "--predictions", "--iou", "--limit"},
    "--pack": {"--pack", "--model", "--captions", "--limit", "--device"},
    "--store": {
        "--truth", "--store", "--model", "--compare", "--sweep", "--plot", "--iou", "--limit", "--device", "--config",
        "--set",
    },
}  # fmt: skip


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``longreel evaluate``; ``None`` or empty where one was not given.

    Attributes:
        limit: how many answers (with a pack: pictures) count; ``answers`` is the same with its default, 10.
        iou: IoU thresholds of R@k.
    """

    truth: str | None = None
    predictions: str | None = None
    store: str | None = None
    pack: str | None = None
    model: str | None = None
    compare: tuple[str, ...] = ()
    sweep: bool = False
    plot: str | None = None
    captions: bool = False
    limit: int | None = None
    iou: tuple[float, ...] = ()
    device: str | None = None
    config: str = "default"
    overrides: tuple[str, ...] = ()
    as_json: bool = False
    out: str | None = None
    _given: frozenset[str] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        values: dict[str, Any] = {
            "--truth": self.truth, "--predictions": self.predictions, "--store": self.store, "--pack": self.pack,
            "--model": self.model, "--compare": self.compare, "--sweep": self.sweep, "--plot": self.plot,
            "--captions": self.captions, "--limit": self.limit, "--iou": self.iou, "--device": self.device,
            "--config": self.config if self.config != "default" else None, "--set": self.overrides,
        }  # fmt: skip
        object.__setattr__(self, "_given", frozenset(name for name, value in values.items() if value))

    @property
    def answers(self) -> int:
        return self.limit or _ANSWERS

    @property
    def way(self) -> str:
        """``--predictions``, ``--pack`` or ``--store`` (the default when a truth is given).

        Raises:
            UsageError: nothing to judge, or options that do not go together; the message names them.
        """
        named = [name for name in ("--predictions", "--pack", "--store") if name in self._given]
        if len(named) > 1:
            raise UsageError(f"{' and '.join(named)} do not go together: evaluate one thing at a time")
        if not named and "--truth" not in self._given:
            raise UsageError(
                "nothing to evaluate: give --truth FILE (asks the library), --truth FILE with --predictions FILE, or "
                "--pack FOLDER/NAME with --model NAME"
            )
        way = named[0] if named else "--store"
        senseless = sorted(self._given - _ALLOWED[way])
        if senseless:
            raise UsageError(
                f"{', '.join(senseless)}: not with {way}, which takes {', '.join(sorted(_ALLOWED[way] - {way}))}"
            )
        if way != "--pack" and self.truth is None:
            raise UsageError(f"{way} needs --truth FILE: the moments that are right")
        if self.plot is not None and not self.sweep:
            raise UsageError("--plot draws the compression dial: give --sweep with it")
        if self.sweep and self.compare:
            raise UsageError("--sweep turns the dial of one library: not with --compare")
        return way


def deliver(options: EvaluateOptions, value: dict[str, Any], show: Callable[[], None]) -> None:
    """Write ``value`` to ``--out`` where given, then print it as JSON with ``--json``, else call ``show``.

    Raises:
        UsageError: ``--out`` names a place that cannot be written.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    if options.out is not None:
        beside = f"{options.out}.{os.getpid()}.part"
        try:
            with open(beside, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(beside, options.out)
        except OSError as error:
            if os.path.exists(beside):
                os.unlink(beside)
            raise UsageError(f"--out {options.out}: cannot be written: {error.strerror}") from error
    if options.as_json:
        click.echo(text)
    else:
        show()
