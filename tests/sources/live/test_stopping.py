"""What a stream waits for can be ended; what hangs or is over leaves nothing behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StreamEnded, StreamRefused, StreamTimeout, UnexpectedError
from pipeline.live.types import LiveState
from pipeline.sources.live import LiveOptions, LiveStream, open_live, reader
from pipeline.sources.live.feeds import PipeFeed, TailFeed
from pipeline.sources.live.interrupt import Interrupt
from pipeline.sources.live.kinds import KINDS, Kind, Opening
from pipeline.sources.live.srt import SrtFeed
from tests.sources.live.servers import ByteServer, free_port, transport_stream
from tests.sources.live.watching import watch


def test_stopping_while_srt_waits_for_a_server_that_is_not_there() -> None:
    """SRT's own waiting holds up whoever closes its socket, for as long as opening may take."""
    interrupt = Interrupt()
    feed = SrtFeed(f"srt://127.0.0.1:{free_port()}", 300.0, 300.0, interrupt)
    said: list[str] = []

    def read() -> None:
        with interrupt:
            try:
                feed.read(1000)
            except StreamEnded as error:
                said.append(str(error))

    threads = [threading.Thread(target=work, daemon=True) for work in (read, interrupt.set)]
    threads[0].start()
    while not feed._sockets:
        time.sleep(0.01)
    time.sleep(0.3)  # for it to be called up
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert "stopped" in said[0]


def test_an_analysis_that_takes_too_long_is_no_stream(live_clip: Path) -> None:
    """FFmpeg, interrupted in it, gives what it has and then an error at once: it would play a moment, and ever anew."""
    with (
        ByteServer([transport_stream(live_clip)[: 188 * 12], None]) as server,
        watch(server.url, open_seconds=0.5, stall_seconds=20.0) as watched,
        pytest.raises(StreamTimeout, match=r"no answer within 0\.5 s"),
    ):
        watched.to_the_end()
    assert watched.order == ["connecting", "failed"]


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_slow_first_picture_is_no_hanging(kind: str) -> None:
    """It may take as long as a stall, and that may be longer than opening."""
    options = LiveOptions(open_seconds=1.0, stall_seconds=60.0)
    one = reader.Reader(LiveStream(f"{kind}://127.0.0.1:{free_port()}/x", options)._parts)
    began = time.monotonic()
    error, _ = one._connected()
    assert isinstance(error, StreamRefused)
    assert one.due is not None
    assert one.due > began + 2 * options.stall_seconds


def hanging(events: list[threading.Event]) -> Callable[[str, LiveOptions, Interrupt], Opening]:
    """Opens that hang, each until its event is set, and then fail."""
    left = list(events)

    def hang(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
        if left:
            left.pop(0).wait(60)
        raise StreamTimeout("no answer")

    return hang


def test_hanging_now_and_then_is_no_reason_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that is slow three times in a month: readers that have ended since hang no longer."""
    events = [threading.Event() for _ in range(5)]
    monkeypatch.setattr(reader, "_GRACE_SECONDS", 0.0)
    monkeypatch.setitem(KINDS, "tcp", Kind("tcp://host:port", hanging(events)))
    options = {"open_seconds": 0.05, "stall_seconds": 0.05, "first_attempts": 0}
    try:
        with watch("tcp://127.0.0.1:1", **options) as watched:
            for number, event in enumerate(events, 1):
                watched.until(lambda w, n=number: sum("hangs" in s.reason for s in w.states) == n)
                hung = watched.stream._hung[-1]
                event.set()
                hung.join(20)
            watched.until(lambda w: "no answer" in w.states[-1].reason)
            assert watched.states[-1].state is LiveState.RECONNECTING
    finally:
        for event in events:
            event.set()


def test_hanging_counts_as_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    event = threading.Event()
    monkeypatch.setattr(reader, "_GRACE_SECONDS", 0.0)
    monkeypatch.setitem(KINDS, "tcp", Kind("tcp://host:port", hanging([event] * 3)))
    try:
        with (
            watch("tcp://127.0.0.1:1", open_seconds=0.05, stall_seconds=0.05, first_attempts=1) as watched,
            pytest.raises(StreamTimeout, match="hangs"),
        ):
            watched.to_the_end()
        assert watched.order == ["connecting", "failed"]
    finally:
        event.set()


def test_a_reader_that_hangs_keeps_its_recorder_to_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a disk that does not answer: two threads in one file would break it, or the process."""
    event = threading.Event()
    monkeypatch.setattr(reader, "_GRACE_SECONDS", 0.0)
    monkeypatch.setitem(KINDS, "tcp", Kind("tcp://host:port", hanging([event])))
    options = {"open_seconds": 0.05, "stall_seconds": 0.05, "first_attempts": 0}
    try:
        with watch("tcp://127.0.0.1:1", record_folder=tmp_path / "r", **options) as watched:
            first = watched.stream._parts
            watched.until(lambda w: any("hangs" in state.reason for state in w.states))
            second = watched.stream._parts
            assert second.recorder is not None
            assert second.recorder is not first.recorder
            assert second.repeats is not first.repeats
            assert (second.queue, second.timeline, second.counts) == (first.queue, first.timeline, first.counts)
    finally:
        event.set()


def test_nothing_is_kept_of_connections_that_are_over(live_clip: Path) -> None:
    """A decoder holds a hundred megabytes and threads; rings of objects are found when Python likes."""
    gc.collect()
    gc.disable()
    try:
        with (
            ByteServer([transport_stream(live_clip, "-t", "0.4")]) as server,
            watch(server.url, backoff_seconds=0.01, backoff_max_seconds=0.01, policy="wait", threads=5) as watched,
        ):
            watched.until(lambda w: w.frames)
            before = len(os.listdir("/proc/self/task"))
            watched.until(lambda w: len(w.connections) > 6)
            assert len(os.listdir("/proc/self/task")) <= before + 5
    finally:
        gc.enable()


def test_an_interrupt_keeps_nothing_of_feeds_that_are_closed(tmp_path: Path) -> None:
    interrupt = Interrupt()
    os.mkfifo(tmp_path / "pipe")
    for _ in range(3):
        PipeFeed.named(str(tmp_path / "pipe"), 1.0, interrupt).close()
    assert interrupt._calls == []


def test_tries_of_srt_leave_nothing_behind() -> None:
    interrupt = Interrupt()
    with interrupt:
        for _ in range(3):
            with pytest.raises(StreamTimeout):
                open_live(f"srt://127.0.0.1:{free_port()}", LiveOptions(open_seconds=0.05), interrupt=interrupt)
    assert interrupt._calls == []


def test_what_was_written_before_a_file_was_replaced_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, new = tmp_path / "camera.ts", tmp_path / "new.ts"
    path.write_bytes(b"begin")
    new.write_bytes(b"other")
    feed = TailFeed(str(path), 5.0, Interrupt())
    assert feed.read(100) == b"begin"
    check = feed._check_the_same

    def write_and_replace() -> None:
        if new.exists():  # after the end was met, before that is looked into
            with open(path, "ab") as file:
                file.write(b" and end")
            os.replace(new, path)
        check()

    monkeypatch.setattr(feed, "_check_the_same", write_and_replace)
    assert feed.read(100) == b" and end"
    assert feed.error is None
    assert feed.read(100) == b""
    assert "another file has taken its place" in str(feed.error)
    feed.close()


def test_words_of_something_unforeseen_hold_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def trip(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
        raise ValueError(f"bad address: {url}, user:Geheimwort")

    monkeypatch.setitem(KINDS, "tcp", Kind("tcp://host:port", trip))
    with watch("tcp://user:Geheimwort@127.0.0.1:1") as watched, pytest.raises(UnexpectedError) as caught:
        watched.to_the_end()
    assert "bad address" in str(caught.value)
    assert "Geheimwort" not in str(caught.value)
