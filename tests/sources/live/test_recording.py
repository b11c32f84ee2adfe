"""Recording the packets of live streams: what is in the files, and what is left of them after SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.errors import SourceUnreadable
from pipeline.live.types import LiveState
from pipeline.sources import open_source
from pipeline.sources.live import LiveStream, find_recording
from pipeline.sources.live.recording import Recorder, recordings
from tests.sources.live.servers import ByteServer, make_clip, number_of, rtsp, serve, transport_stream
from tests.sources.live.watching import watch


def numbers_in(path: Path) -> list[int]:
    with open_source(str(path), decoder="pyav", short_side=120) as source:
        return [number_of(frame.image) for frame in source.frames()]


def video_packets(path: Path | str) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_what_is_recorded_is_what_came(live_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    with ByteServer([transport_stream(live_clip), None]) as server:
        with watch(server.url, policy="wait", record_folder=folder, record_seconds=2.5) as watched:
            watched.until(lambda w: len(w.frames) >= 248)
        files = recordings(folder)
    # A key frame is due every 12 frames: 0.48 s, so files begin at the first of those after 2.5 s.
    assert [round(file.start_seconds, 2) for file in files] == [0.0, 2.88, 5.76, 8.64]
    joined = [number for file in files for number in numbers_in(file.path)]
    assert joined == list(range(len(joined)))
    assert len(joined) >= 248
    with av.open(str(files[0].path)) as container:
        assert {stream.type for stream in container.streams} == {"video", "audio"}
        assert container.streams.video[0].codec_context.name == "h264"
    # Not one byte of a picture was changed: the container only writes lengths where MPEG-TS writes start codes.
    sizes = [len(packet) for file in files for packet in video_packets(file.path)]
    (tmp_path / "sent.ts").write_bytes(transport_stream(live_clip))
    sent = [len(packet) for packet in video_packets(tmp_path / "sent.ts")][: len(sizes)]
    assert max(abs(a - b) for a, b in zip(sizes, sent, strict=True)) < 60
    # A moment of media time is found again.
    found = find_recording(folder, 6.0)
    assert found is not None
    path, offset = found
    assert path == files[2].path
    assert offset == pytest.approx(0.24, abs=1e-3)
    numbers = numbers_in(path)
    assert numbers[round(offset * 25)] == 150
    assert find_recording(folder, -1.0) is None


def test_file_names_tell_when(live_clip: Path, tmp_path: Path) -> None:
    with rtsp(live_clip, tmp_path) as server, watch(server.url, record_folder=tmp_path / "r") as watched:
        watched.until(lambda w: len(w.frames) >= 30)
        server.kill()
        watched.until(lambda w: w.order[-1:] == ["reconnecting"])
        server.start()
        watched.until(lambda w: len(w.connections) == 2 and w.order[-1] == "frames")
        watched.stream.stop()
        watched.to_the_end()
        names = [file.path.name for file in recordings(tmp_path / "r")]
        assert len(names) == 2
        for name, connection in zip(names, watched.connections, strict=True):
            utc, seconds = name.removesuffix("s.mkv").split("Z_")
            written = datetime.strptime(utc + "000+0000", "%Y%m%dT%H%M%S.%f%z")
            assert abs((written - connection.utc).total_seconds()) < 0.05
            assert float(seconds) == pytest.approx(connection.start_seconds, abs=0.05)
        assert numbers_in(tmp_path / "r" / names[0])[:3] == [0, 1, 2]


def test_a_recording_that_was_killed_plays(live_clip: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pipeline.sources.live import LiveStream\n"
        "for _ in LiveStream(sys.argv[1], short_side=64, record_folder=sys.argv[2]).messages(): pass\n"
    )
    folder = tmp_path / "recorded"
    with serve("http-ts", live_clip, tmp_path) as server:
        process = subprocess.Popen([sys.executable, "-c", program, server.url, str(folder)])
        try:
            wait_for(lambda: folder.is_dir() and sum(f.stat().st_size for f in folder.iterdir()) > 40_000)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    (file,) = recordings(folder)
    numbers = numbers_in(file.path)
    assert len(numbers) >= 25
    assert numbers == list(range(len(numbers)))


def wait_for(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceUnreadable, match="recordings cannot be written"):
        LiveStream("rtsp://127.0.0.1:1/x", record_folder=tmp_path / "file" / "folder")


def test_a_disk_that_fails_costs_the_recording_and_not_the_stream(
    live_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Recorder, *args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Recorder, "_mux", full)
    with (
        ByteServer([transport_stream(live_clip, "-t", "3"), None]) as server,
        watch(server.url, policy="wait", record_folder=tmp_path / "r") as watched,
    ):
        watched.until(lambda w: len(w.frames) >= 70)
        assert watched.stream.counts.messages == ["not recorded from 0.000 s on: No space left on device"]


@pytest.mark.parametrize(("offset", "frames"), [(3700, 50), (-90, 50)])
def test_a_clock_that_jumps_begins_a_file_at_once_and_where_it_lies(
    offset: int, frames: int, live_clip: Path, tmp_path: Path
) -> None:
    """Its first key packet is known before its picture is, and still belongs to the new file and the new clock."""
    before = transport_stream(live_clip, "-t", "1", "-output_ts_offset", "100")
    after = transport_stream(live_clip, "-t", "1", "-output_ts_offset", str(101 + offset))
    folder = tmp_path / "r"
    with ByteServer([before, 0.3, after, None]) as server, watch(server.url, record_folder=folder) as watched:
        watched.until(lambda w: len(w.frames) >= frames - 2)
        assert watched.connections[1].reason == "clock"
    files = recordings(folder)
    assert [file.start_seconds for file in files] == pytest.approx(
        [connection.start_seconds for connection in watched.connections], abs=2e-3
    )
    assert numbers_in(files[0].path) == list(range(25))
    second = numbers_in(files[1].path)
    assert second == list(range(len(second)))
    assert len(second) >= 20


def test_a_size_that_changes_begins_a_file_also_of_pictures_that_come_in_another_order(
    live_clip: Path, tmp_path: Path
) -> None:
    wide = make_clip(tmp_path / "wide.mp4", frames=50, size=(240, 120), first=300)
    streams = []
    for number, clip in enumerate((live_clip, wide)):
        path = tmp_path / f"b{number}.mp4"
        command = ["ffmpeg", "-v", "error", "-i", clip, "-t", "1", "-c:v", "libx264", "-bf", "3", "-g", "50", path]
        subprocess.run(command, check=True)
        streams.append(transport_stream(path, "-output_ts_offset", str(number)))
    folder = tmp_path / "r"
    with (
        ByteServer([b"".join(streams), None]) as server,
        watch(server.url, policy="wait", record_folder=folder, stall_seconds=0.5) as watched,
    ):
        watched.until(lambda w: LiveState.RECONNECTING in [state.state for state in w.states])
    first, second = recordings(folder)[:2]
    assert numbers_in(first.path) == list(range(25))
    assert numbers_in(second.path) == list(range(300, 325))
    with av.open(str(second.path)) as container:
        assert container.streams.video[0].width == 240


def test_sound_is_recorded_also_after_time_stamps_have_wrapped_around(live_clip: Path, tmp_path: Path) -> None:
    """A new file in the middle of a connection goes on with the time stamps as they were made continuous so far."""
    wide = make_clip(tmp_path / "wide.mp4", frames=50, size=(240, 120), first=300)
    pieces: list[bytes | float | None] = [
        transport_stream(live_clip, "-t", "1", "-output_ts_offset", "100"),
        transport_stream(live_clip, "-t", "2", "-output_ts_offset", "39"),  # FFmpeg ends its own repair at 40 s
        transport_stream(wide, "-output_ts_offset", "41"),
        None,
    ]
    folder = tmp_path / "r"
    with ByteServer(pieces) as server, watch(server.url, policy="wait", record_folder=folder) as watched:
        watched.until(lambda w: len(w.frames) >= 115)
        assert [c.reason for c in watched.connections] == [None, "clock", "format"]
    files = recordings(folder)
    assert [file.start_seconds for file in files] == pytest.approx(
        [connection.start_seconds for connection in watched.connections], abs=2e-3
    )
    for file in files:
        with av.open(str(file.path)) as container:
            kinds = [packet.stream.type for packet in container.demux() if packet.size]
        assert kinds.count("audio") > kinds.count("video") > 20


def test_a_disk_that_is_full_when_a_file_is_finished_costs_no_more(live_clip: Path, tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow beyond 20 kB."""
    program = (
        "import resource, signal, sys\n"
        "from pipeline.sources.live import LiveOptions, LiveStream\n"
        "from pipeline.media import Frame\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "stream = LiveStream(sys.argv[1], LiveOptions(policy='wait', record_seconds=3), record_folder=sys.argv[2])\n"
        "frames = 0\n"
        "for message in stream.messages():\n"
        "    frames += isinstance(message, Frame)\n"
        "    if frames == 240: stream.stop()\n"
        "print(frames, stream.counts.messages)\n"
    )
    with ByteServer([transport_stream(live_clip), None]) as server:
        command = [sys.executable, "-c", program, server.url, str(tmp_path / "r")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.partition(" ")[0]) >= 240
    assert "not recorded from" in done.stdout
    assert "a recording was not finished: File too large" in done.stdout
