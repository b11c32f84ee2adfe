"""What cannot be watched is told apart and named; credentials are in nothing that is said about it."""

from __future__ import annotations

import logging
import pickle
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.errors import (
    NotAStream,
    NoVideoStream,
    OptionError,
    SourceError,
    SourceNotFound,
    SourceUnreadable,
    StillImage,
    StreamCodec,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamTimeout,
    StreamUnauthorised,
    UnknownScheme,
)
from pipeline.live.types import LiveState
from pipeline.sources.live import LiveOptions, LiveStream, kind_of, shown
from pipeline.sources.live.interrupt import Interrupt
from pipeline.sources.live.kinds import KINDS, Kind, Opening
from tests.sources.live.servers import ByteServer, free_port, rtsp, srt, transport_stream
from tests.sources.live.watching import watch
from tests.sources.servers import MediaServer

USER, PASSWORD, WRONG = "camuser", "Geheim%24wort7", "Falsch%24wort9"


def failure(url: str, kind: type[SourceError], **options: Any) -> str:
    """The stream fails so, and says so in its last message; its words."""
    with watch(url, **options) as watched:
        with pytest.raises(kind) as caught:
            watched.to_the_end()
        assert type(caught.value) is kind
        assert watched.order[-1] == "failed"
        assert watched.states[-1].reason == str(caught.value)
        return str(caught.value)


# -- credentials -------------------------------------------------------------------------------------------------------


@pytest.fixture
def everything_said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collects what a test adds, what is logged (FFmpeg's words as well) and what is printed; none of it may hold a
    part of the credentials.
    """
    said: list[str] = []
    caplog.set_level(1)
    yield said
    printed = capfd.readouterr()
    text = "\n".join([*said, printed.out, printed.err, caplog.text])
    assert said
    for secret in (USER, PASSWORD, WRONG, "Geheim", "Falsch", "$wort", "longsecret", "wrongsecret"):
        assert secret not in text, f"{secret!r} in {text[max(0, text.index(secret) - 300) :][:600]}"


def tell_all(said: list[str], url: str, kind: type[SourceError]) -> None:
    """The stream fails so; everything that can be had of it is collected."""
    with watch(url) as watched:
        with pytest.raises(kind) as caught:
            watched.to_the_end()
        error = caught.value
        said += [str(error), repr(error), "".join(traceback.format_exception(error)), str(pickle.dumps(error))]
        said += [repr(error.__cause__), repr(error.__context__)]
        said += [repr(state) for state in watched.states] + [repr(watched.stream.counts), shown(url)]
        said += [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_wrong_credentials_of_rtsp(method: str, live_clip: Path, tmp_path: Path, everything_said: list[str]) -> None:
    with rtsp(live_clip, tmp_path, login=(USER, "Geheim$wort7", method)) as server:
        wrong = server.url.replace("Geheim$wort7", WRONG)
        tell_all(everything_said, wrong, StreamUnauthorised)
        tell_all(everything_said, server.url.replace(f"{USER}:Geheim$wort7@", ""), StreamUnauthorised)
        with watch(server.url.replace("Geheim$wort7", PASSWORD)) as watched:
            watched.until(lambda w: len(w.frames) > 3)
            everything_said += [repr(watched.connections), repr(watched.states)]


def test_wrong_credentials_of_http(everything_said: list[str]) -> None:
    with MediaServer(b"x" * 1000) as server:
        tell_all(everything_said, server.url("/login/live.ts", f"{USER}:{WRONG}@"), StreamUnauthorised)
        words = failure(server.url("/login/live.ts"), StreamUnauthorised)
        assert "wants a user and a password" in words
        tell_all(everything_said, server.url(f"/refused/live.ts?token={WRONG}"), StreamUnauthorised)


def test_wrong_passphrase_of_srt(live_clip: Path, tmp_path: Path, everything_said: list[str]) -> None:
    with srt(live_clip, tmp_path, passphrase="longsecret12") as server:
        tell_all(everything_said, server.url.replace("longsecret12", "wrongsecret9"), StreamUnauthorised)


def test_other_failures_are_as_discreet(everything_said: list[str]) -> None:
    login = f"{USER}:{WRONG}@"
    av.logging.set_level(av.logging.DEBUG)  # as somebody may who looks for a fault
    logging.getLogger("libav").setLevel(1)
    try:
        for url, kind in (
            (f"rtsp://{login}127.0.0.1:{free_port()}/live", StreamRefused),
            (f"rtmp://{login}127.0.0.1:{free_port()}/app/live", StreamRefused),
            (f"https://{login}127.0.0.1:{free_port()}/live.m3u8?sig={WRONG}", StreamRefused),
            (f"rtsp://{login}no-such-host.invalid/live", StreamNotFound),
        ):
            tell_all(everything_said, url, kind)
    finally:
        av.logging.set_level(None)
        logging.getLogger("libav").setLevel(logging.WARNING)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:1"])
def test_an_address_that_cannot_be_taken_apart(host: str, everything_said: list[str]) -> None:
    """Python's words about it hold all of it."""
    for scheme in ("rtsp", "rtmp", "tcp"):
        url = f"{scheme}://{USER}:{WRONG}\u2100@{host}/live"
        kind = StreamRefused if host.startswith("127") else StreamNotFound
        tell_all(everything_said, url, kind)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host/live.m3u8?key=Geheim&id=3", "http://host/live.m3u8?id=3"),
        ("device:lavfi:movie=rtsp\\://u\\:Geheim@host/x", "device:lavfi:movie=rtsp\\://host/x"),
        ("device:lavfi:testsrc=rate=5", "device:lavfi:testsrc=rate=5"),
    ],
)
def test_addresses_of_live_streams_as_they_are_shown(url: str, words: str) -> None:
    assert shown(url) == words
    assert shown(words) == words


# -- not there ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["gopher://host/x", "s3://bucket/live.ts", "tail://x", "device:magic:/dev/x", "device:v4l2:"]
)
def test_a_scheme_that_nobody_knows(url: str) -> None:
    with pytest.raises(UnknownScheme, match=r"allowed: rtsp://, rtsps://, .*device:v4l2"):
        kind_of(url)
    with pytest.raises(UnknownScheme):
        LiveStream(url)


def test_what_addresses_are() -> None:
    for url, kind in {
        "-": "stdin",
        "RTSP://host/x": "rtsp",
        "https://host/live.m3u8": "https",
        "device:lavfi:testsrc": "device",
        "tail:/a/b.ts": "tail",
        "/a/b.mp4": "file",
        "file:///a/b.mp4": "file",
        "a:b.mp4": "file",
        "srt://:9000?mode=listener": "srt",
    }.items():
        assert kind_of(url) == kind


def test_nothing_there(live_clip: Path, tmp_path: Path) -> None:
    for scheme in ("rtsp", "rtmp", "http", "tcp"):
        assert "nobody listens" in failure(f"{scheme}://127.0.0.1:{free_port()}/x", StreamRefused)
    assert "no such host" in failure("rtsp://no-such-host.invalid/live", StreamNotFound)
    assert "no such host" in failure("srt://no-such-host.invalid:9000", StreamNotFound)
    failure(f"srt://127.0.0.1:{free_port()}", StreamTimeout, open_seconds=0.3)
    failure(f"srt://127.0.0.1:{free_port()}?mode=listener", StreamTimeout, open_seconds=0.3)
    failure(f"udp://127.0.0.1:{free_port()}", StreamTimeout, open_seconds=0.3)
    failure(str(tmp_path / "no.mp4"), SourceNotFound)
    failure(f"tail:{tmp_path / 'no.ts'}", SourceNotFound)
    failure(str(tmp_path), SourceUnreadable)
    assert "/dev/video99" in failure("device:v4l2:/dev/video99", StreamNotFound)
    with MediaServer(b"") as server:
        assert "404" in failure(server.url("/missing/live.ts"), StreamNotFound)
        assert "404" in failure(server.url("/missing/live.m3u8"), StreamNotFound)
        failure(server.url("/broken/live.ts"), StreamRefused)
    with rtsp(live_clip, tmp_path) as server:
        assert "404" in failure(server.url + "/nothing", StreamNotFound)


def test_what_srt_cannot_be_asked() -> None:
    for url in (
        "srt://host",
        "srt://host:9000?colour=red",
        "srt://host:9000?mode=rendezvous",
        "srt://h:9?latency=soon",
    ):
        with watch(url) as watched, pytest.raises(OptionError, match="allowed"):
            watched.to_the_end()
    with watch("srt://127.0.0.1:9000?passphrase=short") as watched, pytest.raises(OptionError) as caught:
        watched.to_the_end()
    assert "short" not in str(caught.value).replace("passphrase", "")


# -- no video ----------------------------------------------------------------------------------------------------------


def test_a_web_page_and_other_things_that_are_no_stream(live_clip: Path, tmp_path: Path) -> None:
    page = b"<!doctype html><html><head><title>Camera</title></head><body>Sign in</body></html>" * 40
    picture = tmp_path / "picture.jpg"
    av_picture(picture)
    for content in (page, b"hello\n" * 500, bytes(3000)):
        with MediaServer(content) as server:
            failure(server.url("/ok/live.ts"), NotAStream)
    with MediaServer(picture.read_bytes()) as server:
        failure(server.url("/ok/snapshot.jpg"), StillImage)
    (tmp_path / "page.ts").write_bytes(page)
    failure(f"tail:{tmp_path / 'page.ts'}", NotAStream, stall_seconds=0.1)


def av_picture(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 48), (200, 30, 30)).save(path)


def test_sound_without_a_picture(live_clip: Path, tmp_path: Path) -> None:
    with ByteServer([transport_stream(live_clip, "-vn"), None]) as server:
        assert "audio" in failure(server.url, NoVideoStream)
    with rtsp(live_clip, tmp_path, path="sound") as server:
        failure(server.url, NoVideoStream)


def test_a_stream_that_ends_at_once(live_clip: Path) -> None:
    with ByteServer([]) as server:
        failure(server.url, StreamEnded)
    with ByteServer([transport_stream(live_clip)[:600]]) as server:
        failure(server.url, StreamEnded)


def test_pictures_that_cannot_be_decoded(live_clip: Path) -> None:
    stream = bytearray(transport_stream(live_clip))
    # Everything in the video's packets but their heads is nonsense: tables are whole, no picture has a size.
    for start in range(0, len(stream), 188):
        pid = (stream[start + 1] & 31) << 8 | stream[start + 2]
        if pid == 0x100:
            stream[start + 40 : start + 188] = bytes(148)
    with ByteServer([bytes(stream), None]) as server:
        failure(server.url, StreamCodec, open_seconds=1.0)


# -- options and hanging -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transport", "pigeon"),
        ("policy", "hurry"),
        ("open_seconds", 0.0),
        ("stall_seconds", float("nan")),
        ("backoff_max_seconds", 0.1),
        ("queue_frames", 0),
        ("max_attempts", -1),
        ("threads", 0),
        ("record_seconds", -1.0),
    ],
)
def test_options_that_are_not_allowed(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"source.{name} is .*allowed"):
        replace(LiveOptions(), **{name: value})


def test_a_camera_that_is_off_is_waited_for() -> None:
    pauses: list[float] = []
    url = f"tcp://127.0.0.1:{free_port()}"
    options = {"first_attempts": 9, "backoff_seconds": 0.5, "backoff_max_seconds": 30.0}
    with watch(url, sleep=pauses.append, random=lambda: 0.5, **options) as watched:
        with pytest.raises(StreamRefused):
            watched.to_the_end()
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
        assert [s.state for s in watched.states[:2]] == [LiveState.CONNECTING, LiveState.RECONNECTING]
        assert watched.states[1].reason.endswith("again in 0.5 s")


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 0.8), (1.0, 1.2)])
def test_pauses_differ_by_chance(chance: float, pause: float) -> None:
    pauses: list[float] = []
    url = f"tcp://127.0.0.1:{free_port()}"
    options = {"first_attempts": 2, "backoff_seconds": 1.0, "backoff_max_seconds": 30.0}
    with watch(url, sleep=pauses.append, random=lambda: chance, **options) as watched, pytest.raises(StreamRefused):
        watched.to_the_end()
    assert pauses == [pytest.approx(pause)]


def test_stopping_while_it_waits_for_the_next_try() -> None:
    options = {"first_attempts": 0, "backoff_seconds": 1000.0, "backoff_max_seconds": 1000.0}
    with watch(f"tcp://127.0.0.1:{free_port()}", **options) as watched:
        watched.until(lambda w: w.order[-1:] == ["reconnecting"])
        watched.stream.stop()
        watched.to_the_end()
        assert watched.order[-1] == "ended"


def test_stopped_before_it_began() -> None:
    with watch("rtsp://127.0.0.1:1/x") as watched:
        watched.stream.stop()
        watched.to_the_end()
        assert watched.order == ["ended"]


def test_a_driver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can interrupt it: the stream goes on with another reader, and gives up at the third."""
    from pipeline.sources.live import reader

    hangs = threading.Event()

    def hang(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
        hangs.wait(60)
        raise StreamTimeout("too late to be heard")

    monkeypatch.setattr(reader, "_GRACE_SECONDS", 0.0)
    monkeypatch.setitem(KINDS, "tcp", Kind("tcp://host:port", hang))
    try:
        with watch("tcp://127.0.0.1:1", open_seconds=0.1, first_attempts=0) as watched:
            with pytest.raises(StreamTimeout, match="hangs in the system"):
                watched.to_the_end()
            assert watched.order == ["connecting", "reconnecting", "reconnecting", "failed"]
    finally:
        hangs.set()


def test_something_unforeseen_is_raised_where_the_messages_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.errors import UnexpectedError

    def trip(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
        raise ZeroDivisionError("oops")

    monkeypatch.setitem(KINDS, "tcp", Kind("tcp://host:port", trip))
    with watch("tcp://127.0.0.1:1") as watched, pytest.raises(UnexpectedError, match="ZeroDivisionError: oops"):
        watched.to_the_end()


def test_ticks_come_while_nothing_else_does() -> None:
    from pipeline.sources.live import Tick

    with ByteServer([None], http=False, scheme="tcp") as server:
        stream = LiveStream(server.url, LiveOptions(open_seconds=5))
        messages = stream.messages()
        kinds = [type(next(messages)) for _ in range(3)]
        assert kinds[1:] == [Tick, Tick]
        messages.close()
