"""Growing files, pipes and files: where they end, and what they wait for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import StreamEnded, StreamTimeout
from pipeline.live.types import LiveState
from pipeline.sources.live.feeds import PipeFeed, TailFeed
from pipeline.sources.live.interrupt import Interrupt
from tests.sources.live.servers import transport_stream
from tests.sources.live.watching import watch


def test_a_file_that_no_longer_grows_is_complete(live_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "growing.ts"
    stream = transport_stream(live_clip)
    third = len(stream) // 3
    path.write_bytes(stream[:third])
    with watch(f"tail:{path}", stall_seconds=0.4) as watched:
        watched.until(lambda w: w.order[-1:] == ["stalled"])
        with open(path, "ab") as file:
            file.write(stream[third:])
        watched.to_the_end()
        assert watched.numbers == list(range(250))
        assert watched.states[-1].state is LiveState.ENDED
        assert watched.order[-2:] == ["stalled", "ended"] or watched.order[-2:] == ["frames", "ended"]
        assert len(watched.connections) == 1


def test_a_file_that_another_replaces_is_read_anew(live_clip: Path, tmp_path: Path) -> None:
    path, new = tmp_path / "camera.ts", tmp_path / "new.ts"
    path.write_bytes(transport_stream(live_clip, "-t", "1"))
    new.write_bytes(transport_stream(live_clip, "-t", "1"))
    with watch(f"tail:{path}") as watched:
        watched.until(lambda w: len(w.frames) >= 20)
        os.replace(new, path)
        watched.to_the_end()
        assert [c.reason for c in watched.connections] == [None, f"{path}: another file has taken its place"]
        assert watched.numbers == list(range(25)) * 2


def test_what_a_growing_file_says(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    feed = TailFeed(str(path), 0.2, Interrupt())
    assert feed.read(3) == b"123"
    assert feed.read(30) == b"45"
    assert feed.read(30) == b""
    assert feed.error is None
    feed.close()
    feed.close()
    cut = TailFeed(str(path), 20.0, Interrupt())
    assert cut.read(30) == b"12345"
    path.write_bytes(b"1")
    assert cut.read(30) == b""
    assert "cut short" in str(cut.error)
    cut.close()


def test_what_a_pipe_says() -> None:
    reading, writing = os.pipe()
    interrupt = Interrupt()
    feed = PipeFeed(reading, 0.1, interrupt, owned=True)
    os.write(writing, b"abc")
    assert feed.read(100) == b"abc"
    with pytest.raises(StreamTimeout, match=r"nothing came for 0\.1 s"):
        feed.read(100)
    interrupt.set()
    with pytest.raises(StreamEnded, match="stopped"):
        feed.read(100)
    os.close(writing)
    feed.close()
    feed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


def test_a_pipe_that_is_closed_is_the_end(live_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    program = "import sys; open(sys.argv[1], 'wb').write(open(sys.argv[2], 'rb').read())"
    (tmp_path / "film.ts").write_bytes(transport_stream(live_clip))
    writer = subprocess.Popen([sys.executable, "-c", program, str(path), str(tmp_path / "film.ts")])
    with watch(str(path), queue_frames=3) as watched:
        watched.to_the_end()
    writer.wait(10)
    assert watched.numbers == list(range(250))
    assert watched.order == ["connecting", "connection", "playing", "frames", "ended"]
    assert watched.stream.counts.frames_dropped == 0


def test_a_pipe_into_which_nobody_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (
        watch(str(tmp_path / "pipe"), stall_seconds=0.1) as watched,
        pytest.raises(StreamTimeout, match="nothing came"),
    ):
        watched.to_the_end()


def test_a_file_is_read_as_fast_as_one_likes_and_once(live_clip: Path) -> None:
    with watch(str(live_clip), queue_frames=2) as watched:
        watched.to_the_end()
    assert watched.numbers == list(range(250))
    assert watched.states[-1].state is LiveState.ENDED
    assert watched.connections[0].reason is None
    assert watched.frames[-1].end_seconds == pytest.approx(10.0, abs=0.01)


def test_in_real_time_a_slow_consumer_loses_frames_of_a_file_too(live_clip: Path) -> None:
    import time

    with watch(str(live_clip), queue_frames=2, realtime=True) as watched:
        watched.until(lambda w: w.frames)
        while watched.stream.counts.frames_dropped < 3:
            time.sleep(0.01)
        watched.until(lambda w: len(w.frames) >= 5)
        assert max(watched.steps) > 40_000


def test_a_file_with_a_pause_keeps_its_times(live_clip: Path, tmp_path: Path) -> None:
    """Of a file, a step forward is a pause, as in screen recordings."""
    path = tmp_path / "pause.ts"
    path.write_bytes(
        transport_stream(live_clip, "-t", "1") + transport_stream(live_clip, "-t", "1", "-output_ts_offset", "61")
    )
    with watch(str(path)) as watched:
        watched.to_the_end()
    assert len(watched.connections) == 1
    assert max(watched.steps) == pytest.approx(60_040_000, abs=50_000)


def test_a_viewer_that_comes_between_two_key_frames(live_clip: Path, tmp_path: Path) -> None:
    """What cannot be decoded yet is passed over: the first picture is a whole one."""
    stream = transport_stream(live_clip)
    third = (len(stream) // 3) // 188 * 188
    path = tmp_path / "late.ts"
    path.write_bytes(stream[third:])
    with watch(f"tail:{path}", stall_seconds=0.3) as watched:
        watched.to_the_end()
    first = watched.numbers[0]
    assert first % 12 == 0
    assert watched.numbers == list(range(first, 250))
    assert watched.frames[0].pts == 0
    counts = watched.stream.counts
    assert (counts.corrupt_frames, counts.decode_errors, counts.messages) == (0, 0, [])
