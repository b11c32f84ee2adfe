"""What the benchmarks share: a report of markdown tables and verdicts, with its command, versions and seeds.

Tables go to stdout as they are done, progress to stderr; everything is kept for ``--json``.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "Report",
    "command_line",
    "deviation",
    "markdown",
    "mean",
    "plot_lines",
    "progress",
    "require_matplotlib",
    "spread",
    "versions_line",
]

_BEGAN = time.perf_counter()


def progress(message: str) -> None:
    """One line on stderr, with the seconds since the start."""
    print(f"[{time.perf_counter() - _BEGAN:6.1f} s] {message}", file=sys.stderr, flush=True)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if len(values) else math.nan


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample (n - 1); NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    middle = mean(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``0.12 ± 0.03``: mean and standard deviation; the value alone where there is one, ``-`` where there is none."""
    if not len(values):
        return "-"
    text = f"{mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {deviation(values):.{digits}f}"


def command_line(arguments: Sequence[str] | None = None) -> str:
    """How the script was called, with paths from the working folder so that no machine's paths get into documents."""
    words = [os.path.basename(sys.argv[0]) if not os.path.exists(sys.argv[0]) else os.path.relpath(sys.argv[0])]
    for word in sys.argv[1:] if arguments is None else arguments:
        words.append(os.path.relpath(word) if os.path.isabs(word) else word)
    return "python " + shlex.join(words)


def versions_line(**more: object) -> str:
    """Cores, threads, versions and the commit, then ``more`` as ``name value``."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = [
        f"{cores} cores",
        f"{torch.get_num_threads()} torch threads",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
    ]
    if torch.cuda.is_available():
        facts.append(f"GPU {torch.cuda.get_device_name()}")
    if commit := _commit():
        facts.append(f"commit {commit}")
    return ", ".join([*facts, *(f"{name.replace('_', ' ')} {value}" for name, value in more.items())])


def _commit() -> str:
    """The commit of the checkout, with ``+`` where files differ from it; empty outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(folder)]
    try:
        done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        state = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip() + ("+" if state.strip() else "")


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table; every row as long as the header, or ``ValueError``."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {list(row)}")
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


class Report:
    """Prints each table when it is added, and keeps all of it for a JSON file.

    ``missing`` holds what could not be measured: a benchmark that has any ends with exit code 1.
    """

    def __init__(self, title: str, **facts: object) -> None:
        self.data: dict[str, Any] = {
            "title": title,
            "command": command_line(),
            "versions": versions_line(**facts),
            "tables": [],
            "verdicts": [],
            "remarks": [],
            "missing": [],
        }
        print(f"# {title}\n\n`{self.data['command']}`\n\n{self.data['versions']}", flush=True)

    @property
    def missing(self) -> list[str]:
        names: list[str] = self.data["missing"]
        return names

    def section(self, title: str, text: str = "") -> None:
        print(f"\n## {title}" + (f"\n\n{text}" if text else ""), flush=True)

    def table(
        self,
        title: str,
        header: Sequence[str],
        rows: Sequence[Sequence[object]],
        note: str = "",
        values: Any = None,
    ) -> None:
        """Print a table with its ``note``; ``values`` are the numbers behind it, for the JSON."""
        print(f"\n### {title}\n" + (f"\n{note}\n" if note else "") + f"\n{markdown(header, rows)}", flush=True)
        self.data["tables"].append(
            {
                "title": title,
                "note": note,
                "header": list(header),
                "rows": [[str(cell) for cell in row] for row in rows],
                "values": values,
            }
        )

    def remark(self, text: str) -> None:
        """A paragraph of its own."""
        print(f"\n{text}", flush=True)
        self.data["remarks"].append(text)

    def verdict(self, target: str, met: bool | None, found: str) -> None:
        """One line on a target: met, MISSED, or not measured (``None``), and what was found."""
        word = "not measured" if met is None else "met" if met else "MISSED"
        print(f"\n**{target}: {word}.** {found}", flush=True)
        self.data["verdicts"].append({"target": target, "met": met, "found": found})

    def unavailable(self, name: str, reason: str) -> None:
        """Say once that something could not be measured, and why."""
        line = f"{name}: {reason}"
        if line not in self.missing:
            self.missing.append(line)
            progress(f"NOT MEASURED {line}")

    def end(self, json_path: str | os.PathLike[str] | None = None) -> int:
        """Print what is missing, write the JSON, and give the exit code: 1 where something is missing."""
        if self.missing:
            print("\n## Not measured\n\n" + "\n".join(f"- {line}" for line in self.missing), flush=True)
        if json_path is not None:
            Path(json_path).write_text(json.dumps(_plain(self.data), indent=1) + "\n", encoding="utf-8")
            progress(f"wrote {json_path}")
        return 1 if self.missing else 0


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null; keys become text."""
    if isinstance(value, Mapping):
        return {
            k if isinstance(k, str) else "/".join(map(str, k)) if isinstance(k, tuple) else str(k): _plain(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def require_matplotlib() -> Any:
    """``matplotlib.pyplot`` without a display; ends the program with a clear message where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib, or leave --plot out") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    return pyplot


def plot_lines(
    path: str | os.PathLike[str],
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    deviations: Mapping[str, Sequence[float]] | None = None,
    bold: Sequence[str] = (),
    named: Sequence[str] = (),
) -> None:
    """A PNG with one line of ``(x, y)`` for each of ``series``; ``bold`` ones stand out, NaN points are left out.

    Where ``named`` is given, only those and the bold have a colour; the others are grey, without a name.
    """
    pyplot = require_matplotlib()
    figure, axes = pyplot.subplots(figsize=(9, 5), dpi=100)
    styles = ["-", "--", "-.", ":"]
    ordered = sorted(series.items(), key=lambda item: item[0] in {*named, *bold}) if named else list(series.items())
    i = -1
    grey = False
    for name, (x, y) in ordered:
        plain = bool(named) and name not in {*named, *bold}
        i += not plain
        known = [(a, b, c) for a, b, c in zip(x, y, _bars(deviations, name, len(x)), strict=True) if math.isfinite(b)]
        if not known:
            continue
        xs, ys, bars = zip(*known, strict=True)
        axes.errorbar(
            xs,
            ys,
            yerr=bars if any(bars) else None,
            label=("_" if grey else "all others") if plain else name,
            color="0.8" if plain else f"C{i % 10}",
            linestyle="-" if plain else styles[i // 10 % len(styles)],
            linewidth=3 if name in bold else 0.8 if plain else 1.2,
            marker="o",
            markersize=0 if plain else 3,
            capsize=2,
        )
        grey |= plain
    if log_x:
        axes.set_xscale("log", base=2)
    if log_y:
        axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def _bars(deviations: Mapping[str, Sequence[float]] | None, name: str, count: int) -> list[float]:
    bars = (deviations or {}).get(name, [0.0] * count)
    return [b if math.isfinite(b) else 0.0 for b in bars]
