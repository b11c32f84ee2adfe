"""What is seen of live streams, and which windows are left without words when there are too many."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from encoders.vlm.counts import VlmCounts
from encoders.vlm.options import VlmOptions
from jobs.live.lanes import too_many
from jobs.live.show import JsonLive, LineLive, ScreenLive, stream_table, summary_of
from pipeline.catalog import Catalog
from pipeline.errors import StreamRefused
from pipeline.live.session import StreamSession
from pipeline.live.types import LiveCaption, LiveState, StreamCounts
from pipeline.media import Span
from tests.pipeline.live.playing import START
from tests.pipeline.live.test_session import feed, opened


@pytest.fixture
def session(tmp_path: Path) -> Any:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=2) as catalog:
        made, _ = opened(catalog)
        feed(made, [("moving", 12), ("gap", 5), ("moving", 3)])
        yield made
        made.close()


CAPTION = LiveCaption("id", 0, Span(0, 9.5), "A dog [red]runs[/red]", "tiny", 0.5, START, lag_seconds=0.4)


def told(reporter: Any, session: StreamSession) -> None:
    reporter.note("starting")
    reporter.stream_started(session, "rtsp://camera/live")
    session.state, session.reason = LiveState.RECONNECTING, "the server went away"
    reporter.state_changed(session)
    reporter.captioned(session, CAPTION)
    reporter.captioned(session, LiveCaption("id", 1, Span(9.5, 12), "A dog", "tiny", 0.5, START, extends=True))
    reporter.beat([session])
    reporter.stream_ended(session, StreamRefused("rtsp://camera/live: refused"))
    reporter.asked(
        "vlm:m@http://localhost/v1", VlmCounts(requests=7, tokens_in=700, tokens_out=49), VlmOptions(price_in=2.0)
    )
    reporter.close()


def test_lines(session: StreamSession, capsys: pytest.CaptureFixture[str]) -> None:
    told(LineLive(), session)
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert line.endswith("gate  A dog [red]runs[/red]")
    assert "gate: reconnecting: the server went away" in err
    assert "StreamRefused: rtsp://camera/live: refused" in err
    assert "3 captions" in err
    assert err.endswith("asked vlm:m@http://localhost/v1: 7 requests, 700 tokens in, 49 out, 0.0014 USD\n")


@pytest.mark.parametrize("kind", [LineLive, ScreenLive])
def test_the_same_outage_is_told_once(
    kind: type[LineLive] | type[ScreenLive], session: StreamSession, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it is tried again; another reason, or another outage, is news."""
    reporter = kind()
    for state, reason in (
        (LiveState.RECONNECTING, "refused; again in 0.5 s"),
        (LiveState.RECONNECTING, "refused; again in 1.0 s"),
        (LiveState.RECONNECTING, "no route; again in 1.9 s"),
        (LiveState.RECONNECTING, "no route; again in 4.1 s"),
        (LiveState.PLAYING, ""),
        (LiveState.RECONNECTING, "no route; again in 0.5 s"),
    ):
        session.state, session.reason = state, reason
        reporter.state_changed(session)
    reporter.close()
    out, err = capsys.readouterr()
    lines = [line for line in (out + err).splitlines() if "again in" in line]
    assert lines == [
        f"gate: reconnecting: {why}"
        for why in ("refused; again in 0.5 s", "no route; again in 1.9 s", "no route; again in 0.5 s")
    ]


def test_json(session: StreamSession, capsys: pytest.CaptureFixture[str]) -> None:
    told(JsonLive(), session)
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [event["event"] for event in events] == [
        *("note", "stream", "state", "caption", "caption", "status", "end", "asked"),
    ]
    assert events[3]["text"] == "A dog [red]runs[/red]"
    assert (events[3]["lag_seconds"], events[3]["extends"], events[4]["extends"]) == (0.4, False, True)
    assert events[-2]["error"] == {"type": "StreamRefused", "message": "rtsp://camera/live: refused"}
    assert {"frames_dropped", "windows_skipped", "caption_lag", "freshness", "gap_seconds"} <= events[-2].keys()
    assert (events[-1]["requests"], events[-1]["cost"]) == (7, pytest.approx(0.0014))


def test_what_went_wrong_is_told_with_how_it_did(session: StreamSession) -> None:
    assert "last message" not in summary_of(session)
    session.note("gate.vtt: cannot be written")
    assert summary_of(session).endswith("last message: gate.vtt: cannot be written")


def test_a_screen(session: StreamSession, capsys: pytest.CaptureFixture[str]) -> None:
    told(ScreenLive(), session)
    out, _ = capsys.readouterr()
    assert "A dog [red]runs[/red]" in out, "words are no markup"
    assert "StreamRefused" in out


def test_the_table_has_what_was_dropped() -> None:
    from rich.console import Console

    counts = StreamCounts(frames_sampled=10, frames_encoded=4, frames_dropped=3, connections=3, windows_skipped=2)
    console = Console(record=True, width=160)
    console.print(stream_table([{"name": "[gate]", "state": "playing", "counts": counts}]))
    (row,) = [line.split() for line in console.export_text().splitlines() if "[gate]" in line]
    assert row[:2] == ["[gate]", "playing"]
    assert row[2:9] == ["0:00", "4", "of", "10", "3", "2", "0"]


def test_the_newest_windows_of_each_stream_get_words() -> None:
    one, two = SimpleNamespace(id="one"), SimpleNamespace(id="two")
    waiting: list[Any] = [(one, ("one", number)) for number in range(5)] + [(two, ("two", 0))]
    assert [key for _, key in too_many(waiting, 2)] == [("one", 0), ("one", 1), ("one", 2)]
    assert too_many(waiting, 5) == []
