"""Streams in the catalog: opened once, gone on with, stopped, ended; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import update

from pipeline.catalog import Catalog, video_id_for
from pipeline.catalog.models import streams
from pipeline.errors import InputError, LibraryError, OptionError, StreamBusy, UnknownVideo
from pipeline.live.types import Connection, LiveState, StreamCounts
from pipeline.media import Span
from tests.catalog.content import add, media_info, open_stream, plan, put_window

URI = "rtsp://cam/1"
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def change(catalog: Catalog, video: str, **values: object) -> None:
    with catalog._write() as rows:
        rows.execute(update(streams).where(streams.c.video_id == video).values(**values))


def test_a_stream_from_beginning_to_end(either: Catalog) -> None:
    record = either.open_stream(URI, "gate", ("yard",), "live", "r1", {"fps": 2})
    video = record.video_id
    assert video == video_id_for(URI)
    assert (record.uri, record.name, record.state, record.options) == (URI, "gate", LiveState.CONNECTING, {"fps": 2})
    assert (record.resume_seconds, record.next_connection, record.next_window) == (0.0, 0, 0)
    assert (record.first_utc, record.counts, record.bytes, record.stop_requested) == (None, {}, 0, False)
    assert (either.video(video).state, either.video(video).tags) == ("live", ("yard",))
    assert [one.video_id for one in either.streams(running=True)] == [video]

    either.add_connection(video, Connection(0, 0.0, NOON, info=media_info(URI)))
    put_window(either, video, 0, 0.0, 10.0)
    counts = {"frames_received": 50, "corrupt_frames": 1, "lag": {"p95": 0.5}}
    assert not either.heartbeat_stream(video, LiveState.PLAYING, counts)
    counts |= {"frames_received": 80, "gap_seconds": 1.5}
    assert not either.heartbeat_stream(video, LiveState.STALLED, counts)
    record = either.stream(video)
    assert (record.state, record.counts) == (LiveState.STALLED, counts)
    assert record.heartbeat_at > record.started_at

    assert either.request_stop(video).stop_requested
    assert either.stop_requested(video)
    assert either.heartbeat_stream(video, LiveState.ENDED, counts), "it should stop"
    assert either.stream(video).state is LiveState.STALLED, "a heartbeat ends nothing"
    record = either.end_stream(video, LiveState.ENDED, counts=counts | {"frames_received": 100})
    assert (record.state, record.stop_requested, record.error_type) == (LiveState.ENDED, False, None)
    assert record.ended_at is not None
    (connection,) = either.connections_of(video)
    assert (connection.end_seconds, connection.reason, connection.info) == (10.0, "ended", media_info(URI))
    known = either.video(video)
    assert (known.state, known.duration_seconds, known.vectors) == ("done", 10.0, 2)
    assert (known.frames_decoded, known.corrupt_frames, known.lost_seconds) == (100, 1, 1.5)
    assert either.streams(running=True) == []
    with pytest.raises(InputError, match="gate is ended"):
        either.request_stop(video)


def test_media_time_goes_on_when_it_is_opened_again(either: Catalog) -> None:
    video = open_stream(either)
    either.add_connection(video, Connection(0, 0.0, NOON))
    put_window(either, video, 0, 0.0, 10.0)
    either.end_connection(video, 0, 12.5, "refused")
    either.heartbeat_stream(video, LiveState.PLAYING, {"frames_received": 7})
    error = either.end_stream(video, LiveState.FAILED, ConnectionError("no route"))
    assert (error.error_type, error.error_message) == ("ConnectionError", "no route")
    assert (either.video(video).state, either.video(video).error_message) == ("failed", "no route")

    again = either.open_stream(URI, "gate", ("x",), "live", "r2", {})
    assert (again.video_id, again.state, again.error_type, again.ended_at) == (video, LiveState.CONNECTING, None, None)
    assert (again.resume_seconds, again.next_connection, again.next_window) == (12.5, 1, 1)
    assert (again.first_utc, again.counts) == (NOON, {})
    assert (either.video(video).state, either.video(video).recipe_key, either.video(video).vectors) == ("live", "r2", 2)
    either.add_connection(video, Connection(1, 3600.0, NOON + timedelta(hours=1)))
    assert either.stream(video).resume_seconds == 3600.0
    put_window(either, video, 1, 3600.0, 3605.0)
    either.heartbeat_stream(video, LiveState.PLAYING, {"frames_received": 3})
    assert either.video(video).frames_decoded == 10, "over all times that it was opened"


def test_bad_ends_are_refused(either: Catalog) -> None:
    video = open_stream(either)
    for state, error in (
        (LiveState.PLAYING, None),
        (LiveState.FAILED, None),
        (LiveState.ENDED, ValueError("x")),
    ):
        with pytest.raises(OptionError, match="must be ended or failed"):
            either.end_stream(video, state, error)
    assert either.stream(video).state is LiveState.CONNECTING
    either.remove_video(video)
    assert either.stop_requested(video), "one that was removed should stop"
    for ask in (either.stream, either.request_stop):
        with pytest.raises(UnknownVideo, match="no stream"):
            ask(video)
    with pytest.raises(UnknownVideo):
        either.heartbeat_stream(video, LiveState.PLAYING, vars(StreamCounts()))
    with pytest.raises(LibraryError, match="it was removed"):
        put_window(either, video, 0, 0, 1)
    with pytest.raises(LibraryError, match="it was removed"):
        either.add_connection(video, Connection(0, 0.0, NOON))
    with pytest.raises(LibraryError, match="no connection 3"):
        either.end_connection(open_stream(either), 3, 1.0, "x")


def test_the_same_stream_twice_is_busy(either: Catalog) -> None:
    video = open_stream(either)
    with pytest.raises(StreamBusy, match=r"rtsp://cam/1: process \d+ on .* is watching"):
        open_stream(either)
    open_stream(either, "rtsp://cam/2", "gate")  # another of the same name is another
    # On another machine only its heartbeats tell.
    change(either, video, host="elsewhere", heartbeat_at=datetime.now(timezone.utc) - timedelta(seconds=20))
    with pytest.raises(StreamBusy, match="elsewhere"):
        open_stream(either)
    change(either, video, heartbeat_at=datetime.now(timezone.utc) - timedelta(seconds=40))
    open_stream(either)
    # The number of a dead process goes to another one in the end.
    with pytest.raises(StreamBusy):
        open_stream(either)
    change(either, video, started_at=NOON - timedelta(days=9000))
    open_stream(either)


WATCHER = """
import sys, time
from datetime import datetime, timezone
from pipeline.catalog import Catalog
from pipeline.live.types import Connection, LiveState
from tests.catalog.content import open_stream, put_window
with Catalog(sys.argv[1], dimension=8) as catalog:
    video = open_stream(catalog)
    catalog.add_connection(video, Connection(0, 0.0, datetime.now(timezone.utc)))
    put_window(catalog, video, 0, 0.0, 7.5, closed=False)
    print("watching", flush=True)
    time.sleep(60)
"""


def watcher(target: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHER, target], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"watching\n"
    return process


def test_what_a_killed_watcher_leaves(either: Catalog, target: str) -> None:
    process = watcher(target)
    try:
        with pytest.raises(StreamBusy, match=f"process {process.pid}"):
            open_stream(either)
        assert either.mark_interrupted_streams() == []
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    (dead,) = either.mark_interrupted_streams()
    record = either.stream(dead)
    assert (record.state, record.error_type) == (LiveState.FAILED, "Interrupted")
    assert f"process {process.pid} " in str(record.error_message)
    assert either.mark_interrupted_streams() == []
    assert either.video(dead).vectors == 2, "what was committed is there"
    (connection,) = either.connections_of(dead)
    assert (connection.end_seconds, connection.reason) == (7.5, "interrupted")
    assert open_stream(either) == dead
    assert either.stream(dead).resume_seconds == 7.5


def test_a_dead_watcher_need_not_be_marked_first(either: Catalog, target: str) -> None:
    process = watcher(target)
    process.kill()
    process.communicate()
    video = open_stream(either)
    assert [one.reason for one in either.connections_of(video)] == ["interrupted"]
    assert either.mark_interrupted_streams() == []
    assert either.mark_interrupted_streams(alone=True) == [video], "whoever is alone watches nothing"


def test_a_machine_that_was_silent_for_too_long(either: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_stream(either)
    either.add_connection(video, Connection(0, 0.0, NOON))
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")  # whoever looks is on another one
    change(either, video, heartbeat_at=datetime.now(timezone.utc) - timedelta(seconds=40))
    assert either.mark_interrupted_streams() == [video]
    assert either.video(video).state == "failed"
    monkeypatch.undo()
    assert not either.heartbeat_stream(video, LiveState.PLAYING, {})
    record = either.stream(video)
    assert (record.state, record.error_type, record.ended_at) == (LiveState.PLAYING, None, None)
    assert (either.video(video).state, either.video(video).error_type) == ("live", None)


def test_a_stream_that_another_process_took_over_is_left_to_it(either: Catalog) -> None:
    video = open_stream(either)
    change(either, video, host="elsewhere", pid=1)
    with pytest.raises(StreamBusy, match="process 1 on elsewhere watches this stream now"):
        either.heartbeat_stream(video, LiveState.PLAYING, {"frames_received": 7})
    with pytest.raises(StreamBusy):
        either.end_stream(video, LiveState.ENDED)
    record = either.stream(video)
    assert (record.state, record.counts) == (LiveState.CONNECTING, {})


def test_files_and_streams_of_one_address(either: Catalog) -> None:
    add(either, URI)
    with pytest.raises(InputError, match="indexed as a file already"):
        open_stream(either)
    either.remove_video(video_id_for(URI))
    video = open_stream(either)
    either.add_connection(video, Connection(0, 0.0, NOON))
    put_window(either, video, 0, 0.0, 10.0)
    with pytest.raises(StreamBusy, match="as a stream"):
        plan(either, URI)
    either.end_stream(video, LiveState.ENDED)
    add(either, URI)  # a growing file that is complete now
    known = either.video(video)
    assert (known.state, known.segments) == ("done", 4)
    assert either.connections_of(video) == []
    assert either.streams() == []


def test_removing_a_stream_leaves_nothing(either: Catalog) -> None:
    before = list(either.dump())
    video = open_stream(either)
    either.add_connection(video, Connection(0, 0.0, NOON))
    put_window(either, video, 0, 0.0, 10.0)
    ids = set(either.vectors_of(video).id.tolist())
    json.dumps(list(either.dump()), default=str)
    either.remove_video(video)
    assert list(either.dump()) == before
    assert (either.connections_of(video), either.streams()) == ([], [])
    assert set(either.removals_since(0).tolist()) == ids


def test_the_wall_clock_of_a_stream_and_of_a_file(either: Catalog) -> None:
    video = open_stream(either)
    assert either.utc_of(video, 5.0) is None
    either.add_connection(video, Connection(0, 0.0, NOON))
    either.add_connection(video, Connection(1, 60.0, NOON + timedelta(seconds=90)))
    assert either.utc_of(video, 59.5) == NOON + timedelta(seconds=59.5)
    assert either.utc_of(video, 60.0) == NOON + timedelta(seconds=90)
    assert either.utc_of(video, 61.0) == NOON + timedelta(seconds=91)
    late = Connection(1, 60.0, NOON + timedelta(seconds=95))
    either.add_connection(video, late)  # in place of the other
    assert [one.utc for one in either.connections_of(video)] == [NOON, late.utc]
    info = media_info("/a.mp4")
    either.plan_video("v", "/a.mp4", "a.mp4", [], NOON, "f", "r", info, [Span(0, 10)])
    assert either.utc_of("v", 3.0) == NOON + timedelta(seconds=3)
    either.plan_video("w", "/b.mp4", "b.mp4", [], None, "f", "r", info, [Span(0, 10)])
    assert either.utc_of("w", 3.0) is None
    assert set(either.anchors_of([video, "v", "w", "none"])) == {video, "v"}
    with pytest.raises(ValueError, match="no time zone"):
        Connection(2, 0.0, datetime(2026, 1, 1))
