"""What a person sees of live streams: rolling captions and a table that is kept up, plain lines, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import LongreelError
from jobs.live.run import LiveReporter
from jobs.reporting import clock, precise_clock
from pipeline.live.session import StreamSession
from pipeline.live.types import LiveCaption, LiveState

if TYPE_CHECKING:
    from rich.table import Table

    from encoders.vlm.counts import VlmCounts
    from encoders.vlm.options import VlmOptions

__all__ = ["JsonLive", "LineLive", "ScreenLive", "stream_table"]

_STATUS_SECONDS = 30.0  # between two lines about all streams, where there is no screen to keep up
STYLES = {
    LiveState.CONNECTING: "yellow",
    LiveState.PLAYING: "green",
    LiveState.STALLED: "yellow",
    LiveState.RECONNECTING: "yellow",
    LiveState.ENDED: "dim",
    LiveState.FAILED: "red",
}


def said_when(caption: LiveCaption) -> str:
    """The local time of a caption, or its media time where no clock is known."""
    if caption.utc is None:
        return precise_clock(caption.span.start_seconds)
    return caption.utc.astimezone().strftime("%H:%M:%S")


class _States:
    """What was told of the state of each stream: the same again is no news, though it is tried again and again."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def is_news(self, session: StreamSession) -> bool:
        told = f"{session.state.value} {session.reason.partition('; again in ')[0]}"
        before = self._told.get(session.name)
        self._told[session.name] = told
        return told != before


class LineLive(LiveReporter):
    """One line for each thing that happens: captions to standard output, everything else to standard error."""

    def __init__(self) -> None:
        self._stdout = sys.stdout  # the one of now: while streams run, what libraries print goes to the log
        self._told = time.monotonic()
        self._states = _States()

    def note(self, message: str) -> None:
        self._err(message)

    def stream_started(self, session: StreamSession, uri: str) -> None:
        self._err(f"{session.name}: connecting to {uri}" if session.name != uri else f"connecting to {uri}")

    def state_changed(self, session: StreamSession) -> None:
        why = f": {session.reason}" if session.reason else ""
        if self._states.is_news(session):
            self._err(f"{session.name}: {session.state.value}{why}")

    def captioned(self, session: StreamSession, caption: LiveCaption) -> None:
        if not caption.extends:
            self._out(f"{said_when(caption)}  {session.name}  {caption.text}")

    def beat(self, sessions: Sequence[StreamSession]) -> None:
        if time.monotonic() - self._told >= _STATUS_SECONDS:
            self._told = time.monotonic()
            for session in sessions:
                self._err(summary_of(session))

    def stream_ended(self, session: StreamSession, error: LongreelError | None) -> None:
        if error is not None:
            self._err(f"{session.name}: {type(error).__name__}: {error}")
        self._err(summary_of(session))

    def asked(self, captioner: str, counts: VlmCounts, prices: VlmOptions) -> None:
        self._err(f"asked {captioner}: {counts.line(prices)}")

    def _err(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def _out(self, line: str) -> None:
        print(line, file=self._stdout, flush=True)


class JsonLive(LiveReporter):
    """JSON lines: note, stream, state, caption, status, end, asked."""

    def __init__(self) -> None:
        self._stdout = sys.stdout  # see LineLive

    def note(self, message: str) -> None:
        self._say("note", message=message)

    def stream_started(self, session: StreamSession, uri: str) -> None:
        self._say("stream", session, uri=uri)

    def state_changed(self, session: StreamSession) -> None:
        connection = session.connections[-1] if session.connections else None
        self._say(
            "state",
            session,
            state=session.state.value,
            reason=session.reason,
            connection=None if connection is None else connection.number,
            start_seconds=None if connection is None else connection.start_seconds,
            utc=None if connection is None else connection.utc.isoformat(),
        )

    def captioned(self, session: StreamSession, caption: LiveCaption) -> None:
        self._say(
            "caption",
            session,
            start_seconds=caption.span.start_seconds,
            end_seconds=caption.span.end_seconds,
            utc=None if caption.utc is None else caption.utc.isoformat(),
            text=caption.text,
            model=caption.model,
            confidence=caption.confidence,
            extends=caption.extends,
            lag_seconds=caption.lag_seconds,
        )

    def beat(self, sessions: Sequence[StreamSession]) -> None:
        for session in sessions:
            self._say("status", session, state=session.state.value, **asdict(session.counts))

    def stream_ended(self, session: StreamSession, error: LongreelError | None) -> None:
        told = None if error is None else {"type": type(error).__name__, "message": str(error)}
        self._say("end", session, state=session.state.value, error=told, **asdict(session.counts))

    def asked(self, captioner: str, counts: VlmCounts, prices: VlmOptions) -> None:
        self._say("asked", None, captioner=captioner, **counts.to_dict(prices))

    def _say(self, event: str, session: StreamSession | None = None, **values: Any) -> None:
        named = {} if session is None else {"stream": session.name, "video": session.video_id}
        line = json.dumps({"event": event, **named, **values}, ensure_ascii=False)
        print(line, file=self._stdout, flush=True)


class ScreenLive(LiveReporter):
    """A terminal: captions roll, and below them a table says how each stream does."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._sessions: list[StreamSession] = []
        self._states = _States()
        self._console = Console(file=sys.stdout, highlight=False)  # see LineLive
        self._live = Live(
            console=self._console, refresh_per_second=4, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def note(self, message: str) -> None:
        self._console.print(message, style="dim")

    def stream_started(self, session: StreamSession, uri: str) -> None:
        self._sessions.append(session)
        self._live.start()
        self._update()

    def state_changed(self, session: StreamSession) -> None:
        self._update()
        if self._states.is_news(session) and session.state in (LiveState.STALLED, LiveState.RECONNECTING):
            self._console.print(
                f"{session.name}: {session.state.value}: {session.reason}", style="yellow", markup=False
            )

    def captioned(self, session: StreamSession, caption: LiveCaption) -> None:
        from rich.text import Text

        if not caption.extends:
            self._console.print(
                Text.assemble((f"{said_when(caption)}  ", "dim"), (f"{session.name}  ", "cyan"), (caption.text, "bold"))
            )

    def beat(self, sessions: Sequence[StreamSession]) -> None:
        self._update()

    def stream_ended(self, session: StreamSession, error: LongreelError | None) -> None:
        self._update()
        if error is not None:
            self._console.print(f"{session.name}: {type(error).__name__}: {error}", style="red", markup=False)
        self._console.print(summary_of(session), markup=False)

    def asked(self, captioner: str, counts: VlmCounts, prices: VlmOptions) -> None:
        self._console.print(f"asked {captioner}: {counts.line(prices)}", style="dim", markup=False)

    def close(self) -> None:
        self._live.stop()

    def _update(self) -> None:
        self._live.update(stream_table([row_of(session) for session in self._sessions]))


def row_of(session: StreamSession) -> dict[str, Any]:
    """A stream's line of the table, as the catalog has it of others."""
    return {"name": session.name, "state": session.state, "counts": session.counts}


def stream_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Streams with their state, time, drops and lags."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stream", overflow="fold")
    table.add_column("state")
    for title in ("time", "encoded", "dropped", "reconnects", "captions", "skipped", "lag p50/p95", "searchable p95"):
        table.add_column(title, justify="right")
    for row in rows:
        counts, state = row["counts"], LiveState(row["state"])
        table.add_row(
            Text(row["name"]),
            Text(state.value, style=STYLES[state]),
            clock(counts.seconds),
            f"{counts.frames_encoded} of {counts.frames_sampled}",
            str(counts.frames_dropped),
            str(max(0, counts.connections - 1)),
            str(counts.captions),
            str(counts.windows_skipped),
            f"{_seconds(counts.caption_lag.get('p50'))}/{_seconds(counts.caption_lag.get('p95'))}",
            _seconds(counts.freshness.get("p95")),
        )
    return table


def summary_of(session: StreamSession) -> str:
    """One line on how a stream did, drops and gaps included."""
    counts = session.counts
    parts = [
        f"{session.name}: {session.state.value}, {clock(counts.seconds)} of media time",
        f"{counts.frames_encoded} of {counts.frames_sampled} sampled frames encoded",
        f"{counts.captions} captions",
    ]
    if counts.frames_dropped:
        parts.append(f"{counts.frames_dropped} frames dropped")
    if counts.windows_skipped:
        parts.append(f"{counts.windows_skipped} windows without words")
    if counts.connections > 1:
        again = "1 reconnect" if counts.connections == 2 else f"{counts.connections - 1} reconnects"
        parts.append(f"{again}, {counts.gap_seconds:.1f} s without a picture")
    if (lag := session.caption_lag.percentile(0.95)) is not None:
        parts.append(f"caption lag p95 {lag:.1f} s")
    if (fresh := session.freshness.percentile(0.95)) is not None:
        parts.append(f"searchable after p95 {fresh:.1f} s")
    if counts.messages:
        parts.append(f"last message: {counts.messages[-1]}")
    return ", ".join(parts)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
