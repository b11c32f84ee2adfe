"""What a running job tells, and the ways to show it: progress bars, plain lines, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pipeline.ingest import ItemResult

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["JobSummary", "JsonReporter", "LineReporter", "NullReporter", "Reporter", "RichReporter"]


@dataclass
class JobSummary:
    """A job's result, in the words of the JSON contract.

    Attributes:
        interrupted, cancelled: stopped before its end, here or from elsewhere.
        asked: what asking a captioner behind an address has cost, as :meth:`encoders.vlm.counts.VlmCounts.to_dict` has
            it; ``None``: nobody was asked.
    """

    job: str
    items: list[ItemResult] = field(default_factory=list)
    interrupted: bool = False
    cancelled: bool = False
    asked: dict[str, Any] | None = None

    def count(self, state: str) -> int:
        return sum(item.state == state for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "job": self.job,
            "done": self.count("done"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "cancelled": self.count("cancelled"),
            "items": [item.to_dict() for item in self.items],
        }
        return values if self.asked is None else {**values, "asked": self.asked}

    @property
    def without_captions(self) -> int:
        """How many videos have not all the captions that they could have."""
        return sum(item.captions_error is not None for item in self.items)

    @property
    def exit_code(self) -> int:
        """0 all done, 3 finished with failures; see ``longreel --help``."""
        return 3 if self.count("failed") or self.count("cancelled") or self.without_captions else 0


class Reporter(Protocol):
    """Listens to a job. Times are media time."""

    def note(self, message: str) -> None: ...
    def job_started(self, job: str, total: int) -> None: ...
    def video_started(self, uri: str, name: str, duration_seconds: float | None) -> None: ...
    def video_progress(self, uri: str, done_seconds: float, frames_encoded: int) -> None: ...
    def captions_progress(self, uri: str, name: str, done_segments: int, segments: int) -> None: ...
    def video_ended(self, name: str, item: ItemResult) -> None: ...
    def job_ended(self, summary: JobSummary) -> None: ...


class NullReporter(Reporter):
    """Says nothing."""


class JsonReporter:
    """One JSON object a line; ``job_ended`` writes the summary of the contract, as the last line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._last: dict[str, float] = {}

    def _write(self, value: dict[str, Any]) -> None:
        self._stream.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._stream.flush()

    def note(self, message: str) -> None:
        self._write({"event": "note", "message": message})

    def job_started(self, job: str, total: int) -> None:
        self._write({"event": "job", "job": job, "videos": total})

    def video_started(self, uri: str, name: str, duration_seconds: float | None) -> None:
        self._write({"event": "started", "uri": uri, "duration_seconds": duration_seconds})

    def video_progress(self, uri: str, done_seconds: float, frames_encoded: int) -> None:
        now = time.monotonic()
        if now - self._last.get(uri, 0.0) >= 1.0:  # a line a second for each video is plenty
            self._last[uri] = now
            self._write(
                {"event": "progress", "uri": uri, "done_seconds": done_seconds, "frames_encoded": frames_encoded}
            )

    def captions_progress(self, uri: str, name: str, done_segments: int, segments: int) -> None:
        self._write({"event": "captions", "uri": uri, "done_segments": done_segments, "segments": segments})

    def video_ended(self, name: str, item: ItemResult) -> None:
        self._write({"event": "ended", **item.to_dict()})

    def job_ended(self, summary: JobSummary) -> None:
        self._write(summary.to_dict())


class LineReporter:
    """A line for each video, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total = 0
        self._ended = 0

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def note(self, message: str) -> None:
        self._say(message)

    def job_started(self, job: str, total: int) -> None:
        self._total = total
        self._say(f"job {job}: {total} video{'' if total == 1 else 's'}")

    def video_started(self, uri: str, name: str, duration_seconds: float | None) -> None: ...

    def video_progress(self, uri: str, done_seconds: float, frames_encoded: int) -> None: ...

    def captions_progress(self, uri: str, name: str, done_segments: int, segments: int) -> None: ...

    def video_ended(self, name: str, item: ItemResult) -> None:
        self._ended += 1
        self._say(f"[{self._ended}/{self._total}] {describe_item(name, item)}")

    def job_ended(self, summary: JobSummary) -> None: ...


class RichReporter:
    """Progress bars on a terminal: one for the job, one for each video in work."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._job: Any = None
        self._videos: dict[str, Any] = {}
        self._durations: dict[str, float | None] = {}
        self._total = 0
        self._ended = 0

    def note(self, message: str) -> None:
        self._progress.console.print(message, style="dim", markup=False, highlight=False)

    def job_started(self, job: str, total: int) -> None:
        self._total = total
        self._progress.start()
        self._job = self._progress.add_task(f"job {job}", total=total, detail=f"0 of {total} videos")

    def video_started(self, uri: str, name: str, duration_seconds: float | None) -> None:
        self._durations[uri] = duration_seconds
        self._videos[uri] = self._progress.add_task(f"  {shorten(name)}", total=duration_seconds, detail="")

    def video_progress(self, uri: str, done_seconds: float, frames_encoded: int) -> None:
        if uri not in self._videos:
            return
        total = self._durations[uri]
        done = done_seconds if total is None else min(done_seconds, total)
        of = f" of {clock(total)}" if total is not None else ""
        self._progress.update(
            self._videos[uri], completed=done, detail=f"{clock(done)}{of}, {frames_encoded} frames encoded"
        )

    def captions_progress(self, uri: str, name: str, done_segments: int, segments: int) -> None:
        if uri not in self._videos:  # it was indexed before
            self._videos[uri] = self._progress.add_task(f"  {shorten(name)}", total=segments, detail="")
        self._progress.update(
            self._videos[uri],
            completed=done_segments,
            total=segments,
            detail=f"captions of {done_segments} of {segments} segments",
        )

    def video_ended(self, name: str, item: ItemResult) -> None:
        from rich.text import Text

        task = self._videos.pop(item.uri, None)
        if task is not None:
            self._progress.remove_task(task)
        self._ended += 1
        self._progress.update(self._job, completed=self._ended, detail=f"{self._ended} of {self._total} videos")
        style = {"done": "green", "failed": "red", "skipped": "dim", "cancelled": "yellow"}.get(item.state, "")
        line = Text()
        line.append(f"{item.state:>9}  ", style=style)
        line.append(describe_item(name, item).partition(" ")[2])
        self._progress.console.print(line, highlight=False)

    def job_ended(self, summary: JobSummary) -> None:
        self._progress.stop()

    def close(self) -> None:
        """Leave the terminal as it was, whatever happened."""
        self._progress.stop()


def clock(seconds: float) -> str:
    """``12:34`` or ``1:02:03``."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def precise_clock(seconds: float) -> str:
    """``1:02.5``: minutes, seconds and tenths, hours where there are any. For times inside a video."""
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths, 36_000)
    minutes, rest = divmod(rest, 600)
    text = f"{rest / 10:04.1f}"
    return f"{hours}:{minutes:02}:{text}" if hours else f"{minutes}:{text}"


def shorten(name: str, width: int = 36) -> str:
    """The name, cut in the middle when it is long: both ends tell files apart."""
    return name if len(name) <= width else f"{name[: width // 2 - 1]}…{name[-(width // 2) :]}"


def describe_item(name: str, item: ItemResult) -> str:
    """One line on what became of a video, beginning with its state."""
    if item.error is not None:
        return f"{item.state} {name}: {item.error['type']}: {item.error['message']}"
    if item.state != "done":
        return f"{item.state} {name}{_describe_captions(item)}"
    text = f"done {name}"
    if item.duration_seconds is not None:
        text += f", {clock(item.duration_seconds)}"
    text += f": {item.segments} segments, {item.vectors} vectors"
    text += f" ({item.frames_encoded} of {item.frames_sampled} sampled frames encoded)"
    if item.lost_seconds > 0:
        text += f", {item.lost_seconds:.1f} s lost to damage"
    return text + _describe_captions(item)


def _describe_captions(item: ItemResult) -> str:
    if item.captions_error is not None:
        error = item.captions_error
        return f"; {item.captions} captions, then {error['type']}: {error['message']}"
    return "" if item.captions is None else f", {item.captions} captions"
