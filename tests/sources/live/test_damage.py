"""What is sent is broken: cut, damaged, of another size, by another clock."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from pipeline.live.types import LiveState
from tests.sources.live.servers import ByteServer, make_clip, transport_stream
from tests.sources.live.watching import Watched, watch
from tests.sources.servers import MediaServer


def is_playing(watched: Watched, connections: int) -> bool:
    """Frames of this many connections have come."""
    return len(watched.connections) == connections and watched.order[-1] == "frames"


def test_a_stream_that_is_cut_in_the_middle_of_a_packet(live_clip: Path) -> None:
    stream = transport_stream(live_clip)
    half = len(stream) // 2 + 77
    with ByteServer([stream[:half]], [stream[:half], None]) as server, watch(server.url, policy="wait") as watched:
        watched.until(lambda w: is_playing(w, 2))
        reason = watched.connections[1].reason
        assert reason is not None
        assert "broke off" in reason
        first = [f for f in watched.frames if f.pts_seconds < watched.connections[1].start_seconds]
        # The picture in which it was cut may come as it is, damaged, or not at all; those before are whole.
        numbers = watched.numbers[: len(first)]
        assert len(first) > 100
        assert numbers[:-1] == list(range(len(first) - 1))


def test_packets_that_are_lost_on_the_way(live_clip: Path) -> None:
    stream = transport_stream(live_clip)
    pieces = [stream[i : i + 188 * 50] for i in range(0, len(stream), 188 * 50)]
    damaged = b"".join(piece if i % 8 != 5 else piece[: 188 * 7 + 91] for i, piece in enumerate(pieces))
    # In two parts, as of a camera: what comes at once is read to its end before the first picture is given.
    half = len(damaged) // 2
    answer = [damaged[:half], 0.3, damaged[half:], None]
    with ByteServer(answer) as server, watch(server.url, policy="wait", stall_seconds=0.5) as watched:
        watched.until(lambda w: w.order[-1:] == ["stalled"])
        assert len(watched.frames) > 100
        counts = watched.stream.counts
        assert counts.corrupt_frames + counts.decode_errors > 0
        assert sum(frame.corrupt for frame in watched.frames) == counts.corrupt_frames


def test_a_picture_size_that_changes_in_the_middle(live_clip: Path, tmp_path: Path) -> None:
    wide = make_clip(tmp_path / "wide.mp4", frames=50, size=(240, 120), first=300, sound=False)
    small = make_clip(tmp_path / "small.mp4", frames=50, sound=False)
    joined = transport_stream(small) + transport_stream(wide, "-output_ts_offset", "2")
    with ByteServer([joined, None]) as server, watch(server.url, policy="wait", short_side=60) as watched:
        watched.until(lambda w: len(w.frames) >= 98)
        first, second = watched.connections
        assert second.reason == "format"
        assert first.info is not None
        assert second.info is not None
        assert (first.info.width, second.info.width) == (160, 240)
        assert second.start_seconds == pytest.approx(2.0, abs=0.05)
        assert second.utc == first.utc_of(second.start_seconds)
        shapes = [frame.image.shape for frame in watched.frames]
        assert shapes == sorted(shapes)
        assert {shapes[0], shapes[-1]} == {(60, 80, 3), (60, 120, 3)}
        assert watched.numbers[-1] >= 300
        assert watched.order == ["connecting", "connection", "playing", "frames", "connection", "frames"]


@pytest.mark.parametrize(("offset", "name"), [(3600, "forward"), (-30, "back")])
def test_a_clock_that_jumps(offset: int, name: str, live_clip: Path) -> None:
    before = transport_stream(live_clip, "-t", "1", "-output_ts_offset", "100")
    after = transport_stream(live_clip, "-t", "1", "-output_ts_offset", str(101 + offset))
    with ByteServer([before, 0.3, after, None]) as server, watch(server.url) as watched:
        watched.until(lambda w: len(w.frames) >= 45)
        assert [c.reason for c in watched.connections] == [None, "clock"]
        first, second = watched.connections
        assert 0.9 < second.start_seconds < 5
        assert all(0 < step < 5_000_000 for step in watched.steps)
        assert second.utc >= first.utc


WRAP_SECONDS = 2**33 / 90_000


@pytest.mark.parametrize(
    ("starts", "reasons"),
    [
        ([WRAP_SECONDS - 0.5], [None]),
        ([WRAP_SECONDS - 70.0, WRAP_SECONDS - 1.0], [None, "clock"]),
        # After 26 hours: FFmpeg undoes the wrap-around until the stream is back to a minute before where it began.
        ([100.0, 39.0], [None, "clock"]),
    ],
)
def test_time_stamps_that_wrap_around_after_26_hours(
    starts: list[float], reasons: list[str | None], live_clip: Path
) -> None:
    """33 bits at 90 kHz: no step shows where they begin again at zero, nor where FFmpeg's own repair of it ends."""
    pieces: list[bytes | float | None] = [
        transport_stream(live_clip, "-t", "2", "-output_ts_offset", f"{start:.6f}") for start in starts
    ]
    with ByteServer([*pieces, None]) as server, watch(server.url, policy="wait") as watched:
        watched.until(lambda w: len(w.frames) >= 50 * len(pieces) - 2)
        assert [c.reason for c in watched.connections] == reasons
        others = [step for step in watched.steps if abs(step - 40_000) > 1000]
        assert len(others) <= len(starts) - 1  # where the pieces are joined


def test_a_film_on_a_server_is_played_once_and_nothing_of_it_is_dropped(live_clip: Path) -> None:
    film = transport_stream(live_clip)
    with MediaServer(film) as server, watch(server.url("/ok/film.ts"), queue_frames=2) as watched:
        watched.until(lambda w: w.frames)
        time.sleep(0.2)
        watched.to_the_end()
        assert watched.numbers == list(range(250))
        assert watched.order == ["connecting", "connection", "playing", "frames", "ended"]


def test_without_reconnecting_a_lost_stream_ends(live_clip: Path) -> None:
    stream = transport_stream(live_clip, "-t", "1")
    with ByteServer([stream]) as server, watch(server.url, reconnect=False) as watched:
        watched.to_the_end()
        assert watched.states[-1].state is LiveState.ENDED
        assert "broke off" in watched.states[-1].reason
        assert len(watched.connections) == 1


def test_a_form_of_samples_that_changes_in_the_middle(live_clip: Path) -> None:
    """As where a broadcast goes over to wide pictures: as many samples, which are wider."""
    wider = ("-t", "1", "-output_ts_offset", "1", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1")
    joined = transport_stream(live_clip, "-t", "1") + transport_stream(live_clip, *wider)
    with ByteServer([joined, None]) as server, watch(server.url, policy="wait") as watched:
        watched.until(lambda w: len(w.frames) >= 48)
        assert [c.reason for c in watched.connections] == [None, "format"]
        assert [c.info and c.info.width for c in watched.connections] == [160, 320]
        assert {frame.image.shape for frame in watched.frames} == {(120, 160, 3), (120, 320, 3)}


def test_pictures_that_the_decoder_keeps_back_are_given_when_a_stream_breaks_off(
    live_clip: Path, tmp_path: Path
) -> None:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", live_clip, "-t", "1", "-c:v", "libx264", "-bf", "3", tmp_path / "b.mp4"],
        check=True,
    )
    stream = transport_stream(tmp_path / "b.mp4")
    with ByteServer([stream, None]) as server, watch(server.url, policy="wait", stall_seconds=0.4) as watched:
        watched.until(lambda w: LiveState.RECONNECTING in [state.state for state in w.states])
        assert watched.numbers == list(range(25))
