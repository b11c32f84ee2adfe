"""HLS: pieces that come at once and play for seconds, and what a playlist gives again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.live.types import LiveState
from pipeline.sources.live.holding import HeldPackets
from pipeline.sources.live.kinds import patience_seconds
from pipeline.sources.live.options import LiveOptions
from pipeline.sources.live.repeats import Repeats
from tests.sources.live.servers import HlsServer
from tests.sources.live.watching import watch


def test_a_playlist_to_which_nobody_adds_is_not_played_again_and_again(live_clip: Path, tmp_path: Path) -> None:
    """Its encoder is dead, its server is not: whoever connects anew gets the last piece once more."""
    with HlsServer(live_clip, tmp_path) as server, watch(server.url, record_folder=tmp_path / "r") as watched:
        watched.until(lambda w: len(w.frames) >= 20)
        server.freeze()
        watched.until(lambda w: "ends with what has been seen" in w.states[-1].reason)
        assert watched.states[-1].state is LiveState.RECONNECTING
        numbers = watched.numbers
        assert numbers == [(numbers[0] + i) % 250 for i in range(len(numbers))]
        server.thaw()
        seen = len(numbers)
        watched.until(lambda w: len(w.frames) >= seen + 10)
        assert len(watched.connections) == 2
        assert not set(watched.numbers[seen : seen + 10]) & set(numbers[-12:])
        assert "a playlist gave again what had been seen; it was left out" in watched.stream.counts.messages


def test_between_two_pieces_of_a_playlist_nothing_is_stalled(live_clip: Path, tmp_path: Path) -> None:
    """Pieces of three seconds, each there at once; without a frame for one second a stream is stalled."""
    with HlsServer(live_clip, tmp_path, seconds=2.88) as server, watch(server.url, queue_frames=200) as watched:
        watched.until(lambda w: len(w.frames) >= 200)
        assert watched.order == ["connecting", "connection", "playing", "frames"]
        numbers = watched.numbers
        assert numbers == [(numbers[0] + i) % 250 for i in range(len(numbers))]
        server.freeze()
        watched.until(lambda w: w.order[-1] == "stalled")


@pytest.mark.parametrize(
    ("url", "seconds"),
    [
        ("http://h/live.m3u8?x=1", 30.0),
        ("https://h/manifest(format=m3u8-aapl)", 30.0),
        ("http://h/live.ts", 10.0),
        ("http://h/live.ts?of=a.m3u8", 10.0),
        ("/films/live.m3u8", 10.0),
    ],
)
def test_how_long_nothing_may_come(url: str, seconds: float) -> None:
    assert patience_seconds(url, LiveOptions(stall_seconds=5.0)) == seconds
    assert patience_seconds(url, LiveOptions(stall_seconds=20.0)) == 40.0


class FakePacket(SimpleNamespace):
    def __bytes__(self) -> bytes:
        return bytes(self.data)


def packet(pts: int | None, data: bytes = b"picture", key: bool = True) -> Any:
    return FakePacket(pts=pts, size=len(data), data=data, is_keyframe=key)


def picture(pts: int, key: bool = True) -> Any:
    return SimpleNamespace(pts=pts, key_frame=key)


def given(repeats: Repeats, first: Any, stamps: list[int]) -> list[int]:
    """The pictures of a connection that are new; ``first`` is its first key packet."""
    repeats.begin()
    repeats.key(first)
    return [stamp for stamp in stamps if repeats.is_new(stamp)]


def test_pictures_of_a_piece_that_was_seen_in_part() -> None:
    repeats = Repeats()
    assert given(repeats, packet(100), [100, 110, 120]) == [100, 110, 120]
    assert given(repeats, packet(100), [100, 110, 120, 130, 140]) == [130, 140]
    assert repeats.left_out == 3
    assert given(repeats, packet(100), [100, 140]) == []
    # What follows after a jump of the clock is new.
    assert given(repeats, packet(100), [130, 150, 20, 30]) == [150, 20, 30]


def test_what_only_looks_alike_is_new() -> None:
    repeats = Repeats()
    given(repeats, packet(100), [100, 110])
    assert given(repeats, packet(100, b"another"), [100, 110]) == [100, 110]
    assert given(repeats, packet(90, b"another"), [90, 100]) == [90, 100]
    assert given(repeats, packet(None), [90]) == [90]


def test_a_piece_that_is_seen_again_after_a_wrap_around() -> None:
    wrap = 1 << 33
    repeats = Repeats()
    given(repeats, packet(wrap + 5), [wrap + 5, wrap + 15])
    assert given(repeats, packet(5), [5, 15, 25]) == [25]
    assert given(repeats, packet(wrap + 5), [wrap + 15, wrap + 25, wrap + 35]) == [wrap + 35]


def test_a_key_packet_is_held_until_its_picture_was_seen() -> None:
    held, written = HeldPackets(), []
    for one in (packet(0), packet(1, key=False)):
        held.add(one, video=True)
    held.hand_to(lambda one: written.append(one.pts))
    assert written == []
    held.seen(picture(0))
    assert written == [0, 1]
    held.add(packet(2, key=False), video=True)
    held.add(packet(3), video=True)
    held.add(packet(3, key=False), video=False)
    held.seen(picture(2, key=False))
    held.seen(picture(3, key=False))  # of another clock
    assert written == [0, 1, 2]
    held.flush()
    assert written == [0, 1, 2, 3, 3]
    held.add(packet(4), video=True)
    for number in range(40):  # its picture never comes
        held.add(packet(5 + number, key=False), video=True)
    assert written[5:] == list(range(4, 45))


def test_packets_of_unwanted_pictures_are_not_handed_on() -> None:
    held, written = HeldPackets(), []
    held.add(packet(0), video=True)
    held.add(packet(1, key=False), video=True)
    held.forget(picture(0))
    held.add(packet(2), video=True)
    held.forget(picture(1))
    held.seen(picture(2))
    held.hand_to(lambda one: written.append(one.pts))
    assert written == [2]
