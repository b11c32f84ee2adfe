"""What every kind of live source must do, each played by a real server. A new kind is one more line in SERVERS."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.live.types import LiveState
from pipeline.sources.live import LiveOptions, open_live
from tests.sources.live.servers import SERVERS, serve
from tests.sources.live.watching import watch

FRAMES = 15
CLIP_FRAMES = 250


@pytest.mark.parametrize("kind", SERVERS)
def test_every_frame_in_order_with_its_time_and_an_end_when_asked(kind: str, live_clip: Path, tmp_path: Path) -> None:
    began = datetime.now(timezone.utc)
    with serve(kind, live_clip, tmp_path) as server, watch(server.url, realtime=kind == "file") as watched:
        watched.until(lambda w: len(w.frames) >= FRAMES)
        assert watched.order == ["connecting", "connection", "playing", "frames"]
        numbers = watched.numbers
        assert numbers == [(numbers[0] + i) % CLIP_FRAMES for i in range(FRAMES)]
        assert watched.frames[0].pts == 0
        assert all(abs(step - 40_000) <= 1000 for step in watched.steps)
        assert all(abs(frame.duration - 40_000) <= 1000 for frame in watched.frames)
        assert {frame.image.shape for frame in watched.frames} == {(120, 160, 3)}
        assert watched.frames[0].small(60).shape == (60, 80, 3)
        connection = watched.connections[0]
        assert (connection.number, connection.start_seconds, connection.reason) == (0, 0.0, None)
        assert began - timedelta(seconds=2) < connection.utc <= datetime.now(timezone.utc)
        assert connection.info is not None
        assert (connection.info.width, connection.info.height) == (160, 120)
        assert connection.info.average_fps == pytest.approx(25, abs=0.1)
        counts = watched.stream.counts
        assert counts.frames_received >= FRAMES
        assert (counts.frames_dropped, counts.corrupt_frames, counts.connections) == (0, 0, 1)
        # In the middle of a read to which nobody will ever answer.
        server.freeze()
        reader = watched.stream._reader
        assert reader is not None
        watched.stream.stop()
        watched.to_the_end()
        assert not reader.is_alive()
        assert watched.states[-1].state is LiveState.ENDED
        assert watched.states[-1].reason == "stopped"


@pytest.mark.parametrize("kind", ["rtsp", "hls", "growing", "file"])
def test_one_connection_by_itself(kind: str, live_clip: Path, tmp_path: Path) -> None:
    with (
        serve(kind, live_clip, tmp_path) as server,
        open_live(server.url, LiveOptions(open_seconds=5), short_side=60) as connection,
    ):
        assert connection.info.codec == "h264"
        frames = [frame for frame, _ in zip(connection.frames(), range(5), strict=False)]
        assert [frame.pts for frame in frames] == [0, 40_000, 80_000, 120_000, 160_000]
        assert frames[0].image.shape == (60, 80, 3)
