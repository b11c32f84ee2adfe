"""What happens to a stream whose server dies, stalls, breaks off or comes back as another, with real servers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipeline.errors import StreamRefused, StreamTimeout
from pipeline.live.types import LiveState, utc_at
from tests.sources.live.servers import ByteServer, HlsServer, rtsp, serve
from tests.sources.live.watching import Watched, watch


def is_playing(watched: Watched, connections: int) -> bool:
    """Frames of this many connections have come."""
    return len(watched.connections) == connections and watched.order[-1] == "frames"


@pytest.mark.parametrize("kind", ["rtsp", "rtmp", "hls", "srt"])
def test_a_server_that_is_killed_and_started_again(kind: str, live_clip: Path, tmp_path: Path) -> None:
    with serve(kind, live_clip, tmp_path) as server, watch(server.url) as watched:
        watched.until(lambda w: len(w.frames) >= 10)
        server.kill()
        watched.until(lambda w: LiveState.RECONNECTING in [state.state for state in w.states])
        before = len(watched.frames)
        server.start()
        watched.until(lambda w: is_playing(w, 2)).until(lambda w: len(w.frames) > before + 10)
        first, second = watched.connections
        assert (first.number, second.number) == (0, 1)
        assert second.reason is not None
        assert "127.0.0.1" in second.reason
        # Media time goes with the wall clock over the gap, and never back.
        assert second.start_seconds - first.start_seconds == pytest.approx(
            (second.utc - first.utc).total_seconds(), abs=1e-3
        )
        assert all(step > 0 for step in watched.steps)
        end = watched.frames[before - 1].end_seconds
        assert watched.frames[before].pts_seconds == pytest.approx(second.start_seconds, abs=1e-6)
        counts = watched.stream.counts
        assert counts.connections == 2
        assert counts.gap_seconds == pytest.approx(second.start_seconds - end, abs=1e-3)
        assert counts.gap_seconds > 0
        assert utc_at(watched.connections, second.start_seconds) == second.utc


def test_a_datagram_stream_that_begins_anew_is_another_clock(live_clip: Path, tmp_path: Path) -> None:
    """Nobody tells that the sender was killed: its time stamps begin again, and that is all."""
    with serve("udp", live_clip, tmp_path) as server, watch(server.url, stall_seconds=20.0) as watched:
        watched.until(lambda w: len(w.frames) >= 40)
        server.kill()
        server.start()
        watched.until(lambda w: is_playing(w, 2)).until(lambda w: len(w.frames) >= 60)
        assert watched.connections[1].reason == "clock"
        assert watched.order == ["connecting", "connection", "playing", "frames", "connection", "frames"]
        again = watched.numbers.index(0, 1)
        assert watched.frames[again].pts_seconds == pytest.approx(watched.connections[1].start_seconds, abs=1e-6)
        assert all(step > 0 for step in watched.steps)


def test_a_server_that_stalls_without_closing(live_clip: Path, tmp_path: Path) -> None:
    with rtsp(live_clip, tmp_path) as server, watch(server.url, stall_seconds=0.6, open_seconds=0.8) as watched:
        watched.until(lambda w: len(w.frames) >= 10)
        server.freeze()
        watched.until(lambda w: w.order[-1:] == ["stalled"])
        watched.until(lambda w: w.order[-1:] == ["reconnecting"])
        assert "no frame for" in next(s.reason for s in watched.states if s.state is LiveState.STALLED)
        assert "nothing came for 1.2 s" in watched.states[-1].reason
        server.thaw()
        watched.until(lambda w: is_playing(w, 2))
        assert watched.order[-3:] == ["connection", "playing", "frames"]


def test_a_short_stall_is_no_outage(live_clip: Path, tmp_path: Path) -> None:
    with rtsp(live_clip, tmp_path) as server, watch(server.url, stall_seconds=0.6) as watched:
        watched.until(lambda w: len(w.frames) >= 10)
        server.freeze()
        watched.until(lambda w: w.order[-1:] == ["stalled"])
        server.thaw()
        watched.until(lambda w: w.order[-1:] == ["frames"])
        assert watched.order[-3:] == ["stalled", "playing", "frames"]
        assert len(watched.connections) == 1


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http", "tcp"])
def test_a_server_that_accepts_and_never_answers(scheme: str) -> None:
    with (
        ByteServer([None], http=False, scheme=scheme) as server,
        watch(server.url, open_seconds=0.3) as watched,
        pytest.raises(StreamTimeout, match=r"no answer within 0\.3 s"),
    ):
        watched.to_the_end()


def test_a_playlist_that_is_closed_is_the_end(live_clip: Path, tmp_path: Path) -> None:
    with HlsServer(live_clip, tmp_path) as server, watch(server.url) as watched:
        watched.until(lambda w: len(w.frames) >= 5)
        server.finish()
        watched.to_the_end()
        assert watched.states[-1].state is LiveState.ENDED
        numbers = watched.numbers
        assert numbers == [(numbers[0] + i) % 250 for i in range(len(numbers))]


def test_of_several_qualities_one_is_fetched(live_clip: Path, tmp_path: Path) -> None:
    with HlsServer(live_clip, tmp_path, qualities=2) as server, watch(server.url) as watched:
        watched.until(lambda w: w.frames)
        server.asked.clear()
        watched.until(lambda w: len(w.frames) >= 36)
        assert {name[:2] for name in server.asked} == {"q0"}
        numbers = watched.numbers
        assert numbers == [(numbers[0] + i) % 250 for i in range(len(numbers))]


def test_so_many_tries_and_no_more(live_clip: Path, tmp_path: Path) -> None:
    with rtsp(live_clip, tmp_path) as server, watch(server.url, max_attempts=4) as watched:
        watched.until(lambda w: w.frames)
        server.kill()
        with pytest.raises(StreamRefused):
            watched.to_the_end()
        tries = list(itertools.takewhile(lambda s: s is not LiveState.PLAYING, [s.state for s in watched.states][::-1]))
        assert tries == [LiveState.FAILED, *[LiveState.RECONNECTING] * 3]
