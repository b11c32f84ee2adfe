"""A model behind an address that fails, is slow, is busy, or wants a key; from a real server on this machine."""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path

import pytest

from encoders.captioning import load_captioner
from encoders.errors import (
    EncoderClosed,
    EncoderOptionError,
    VlmAnswerInvalid,
    VlmOverloaded,
    VlmRejected,
    VlmTimeout,
    VlmUnauthorised,
    VlmUnreachable,
)
from encoders.vlm.address import Address, parse_address, read_key
from encoders.vlm.captioner import VlmCaptioner
from encoders.vlm.client import seconds_to_wait
from tests.encoders import vlm_server
from tests.encoders.vlm_asking import QUICK, ask, frames_of, load
from tests.encoders.vlm_server import VlmServer, answer_with, say, status

SECRET = "sk-not-to-be-seen-4711"


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        status(429),
        status(500),
        status(503, b"<html><body>Bad gateway</body></html>"),
        status(429, None, Retry_After="0"),
        vlm_server.hang_up,
        vlm_server.cut_short,
        vlm_server.speak_otherwise,
        answer_with(b'{"choices": [{'),
        answer_with(b"\xff\xfe"),
        answer_with(b"[" * 100_000),
        answer_with(b"<html>sign in</html>"),
        answer_with([]),
        answer_with({}),
    ],
)
def test_what_may_pass_is_tried_again(server: VlmServer, fault: vlm_server.Fault) -> None:
    server.faults.extend([fault, fault])
    with load(server) as captioner:
        assert ask(captioner, 50).text == "1 pictures, level 50"
        counts = captioner.counts
    assert (counts.requests, counts.retries, counts.failures, counts.captions) == (3, 2, 0, 1)


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (status(429), VlmOverloaded, "status 429: of no avail"),
        (status(500, {"error": "out of memory"}), VlmOverloaded, "status 500: out of memory"),
        (status(502, b"<html><h1>Bad</h1> gateway</html>"), VlmOverloaded, "status 502: Bad gateway"),
        (status(500, b"[" * 100_000), VlmOverloaded, r"status 500: \[\["),
        (vlm_server.hang_up, VlmUnreachable, "ServerDisconnected"),
        (vlm_server.cut_short, VlmUnreachable, "ClientPayloadError"),
        (vlm_server.speak_otherwise, VlmUnreachable, "Expected HTTP"),
        (answer_with({"object": "error"}), VlmAnswerInvalid, r"no choices\[0\].message; it has object"),
        (say("", "length"), VlmAnswerInvalid, "most_tokens is 120"),
        (say("word " * 2000), VlmAnswerInvalid, "9999 characters"),
        (answer_with(b"<html>sign in</html>"), VlmAnswerInvalid, "is no JSON: sign in"),
    ],
)
def test_what_does_not_pass_says_what_it_was(
    server: VlmServer, fault: vlm_server.Fault, error: type[Exception], said: str
) -> None:
    server.faults.extend([fault] * 3)
    with load(server) as captioner:
        with pytest.raises(error, match=said) as caught:
            ask(captioner, 50)
        assert "tried 3 times" in str(caught.value)
        assert (captioner.counts.requests, captioner.counts.failures, captioner.counts.captions) == (3, 1, 0)
        assert ask(captioner, 50).text, "it goes on once the server does"


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (status(400, {"error": {"message": "too many images"}}), VlmRejected, "status 400: too many images"),
        (status(404, {"error": "model 'seer:7b' not found"}), VlmRejected, "is there a model 'seer:7b'"),
        (status(403), VlmUnauthorised, "OPENAI_API_KEY is not set"),
        (status(302, b"", Location="https://u:p@else.where/v1?token=x"), VlmRejected, r"https://\*\*\*@else.where/v1;"),
        (status(429, {"error": {"code": "insufficient_quota", "message": "pay"}}), VlmRejected, "429: pay"),
        (vlm_server.flood, VlmAnswerInvalid, "longer than 4 MiB"),
    ],
)
def test_what_cannot_pass_is_not_tried_again(
    server: VlmServer, fault: vlm_server.Fault, error: type[Exception], said: str
) -> None:
    server.faults.append(fault)
    with load(server) as captioner, pytest.raises(error, match=said):
        ask(captioner, 50)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [vlm_server.hang, vlm_server.drip])
def test_slow_answers_are_cut_off(server: VlmServer, fault: vlm_server.Fault) -> None:
    """Also where each byte comes in time: the limit is on the whole."""
    server.faults.extend([fault] * 2)
    with load(server, timeout_seconds=0.4, retries=1) as captioner:
        with pytest.raises(VlmTimeout, match=r"within 0.4 s \(tried 2 times\)"):
            ask(captioner, 50)
        assert captioner.counts.retries == 1


def test_nobody_is_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    nobody = load_captioner(f"vlm:m@http://127.0.0.1:{port}/v1", vlm=QUICK)
    with (
        nobody as captioner,
        pytest.raises(VlmUnreachable, match=r"no connection: .*Connect call failed.*tried 3 times"),
    ):
        captioner.caption([None], key_frames=[frames_of(1)])


def test_a_server_that_wants_to_wait_is_waited_for_or_left(server: VlmServer) -> None:
    server.faults.append(status(429, None, Retry_After="1"))
    with load(server) as captioner:
        ask(captioner, 1)
        assert captioner.counts.waited_seconds == 1.0
    server.faults.append(status(503, None, Retry_After="3600"))
    with load(server) as captioner, pytest.raises(VlmOverloaded, match="tried once; it asks to be left alone for 3600"):
        ask(captioner, 1)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "-7"}, 0.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
    ],
)
def test_what_retry_after_says(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers, now=60.0) == seconds


def test_waits_grow_and_have_an_end(server: VlmServer) -> None:
    client = VlmCaptioner(Address("m", server.url), QUICK)._client
    for retry, longest in ((0, 0.01), (3, 0.08), (99, 30.0)):
        waits = [client._pause(retry) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_one_that_says_that_none_will_do_ends_the_others(server: VlmServer) -> None:
    """What is on its way is waited for, and not sent again."""
    server.faults.extend([status(404), *[vlm_server.hang] * 9])
    with load(server, timeout_seconds=0.4) as captioner, pytest.raises(VlmRejected) as caught:
        captioner.caption([None] * 10, key_frames=[frames_of(1)] * 10)
    assert len(server.requests) <= 4
    assert caught.value.captions == ()


# -- several at a time -------------------------------------------------------------------------------------------------


def test_no_more_at_one_time_than_allowed_and_answers_in_order(server: VlmServer) -> None:
    server.pause_seconds = 0.05
    with load(server, concurrency=3) as captioner:
        levels = list(range(20, 220, 20))
        found = captioner.caption([None] * 10, key_frames=[frames_of(level) for level in levels])
        assert [one.text for one in found] == [f"1 pictures, level {level}" for level in levels]
        assert server.most_at_once == 3
        counts = captioner.counts
    assert (counts.requests, counts.captions, counts.tokens_in, counts.tokens_out) == (10, 10, 1000, 70)
    assert counts.sent_bytes > 10 * 500
    assert counts.seconds >= 10 * 0.05
    assert (counts.without_usage, counts.waited_seconds) == (0, 0.0)


def test_threads_share_the_limit(server: VlmServer) -> None:
    server.pause_seconds = 0.05
    with load(server, concurrency=2) as captioner:
        threads = [threading.Thread(target=ask, args=(captioner, 9)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (server.most_at_once, captioner.counts.captions) == (2, 6)


def test_it_works_where_an_event_loop_runs(server: VlmServer) -> None:
    import asyncio

    async def within() -> str:
        with load(server) as captioner:
            return ask(captioner, 8).text

    assert asyncio.run(within()) == "1 pictures, level 8"


def test_closing_cuts_off_what_is_asked(server: VlmServer) -> None:
    server.faults.append(vlm_server.hang)
    captioner = load(server, timeout_seconds=60)
    failed: list[BaseException] = []

    def asking() -> None:
        try:
            ask(captioner, 1)
        except EncoderClosed as error:
            failed.append(error)

    thread = threading.Thread(target=asking)
    thread.start()
    while not server.requests:
        time.sleep(0.01)
    captioner.close()
    thread.join(10)
    assert len(failed) == 1
    assert not [one for one in threading.enumerate() if one.name == "longreel-vlm"]


# -- keys --------------------------------------------------------------------------------------------------------------


def test_the_key_comes_from_the_environment_and_is_seen_nowhere(
    server: VlmServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    server.key = SECRET
    shown = []
    for variable, value in (("OPENAI_API_KEY", SECRET), ("OTHER_KEY", SECRET), ("OTHER_KEY", SECRET + "-wrong")):
        monkeypatch.setenv(variable, value + "\n")
        with load(server, key_variable=None if variable == "OPENAI_API_KEY" else variable) as captioner:
            try:
                shown.append(repr(ask(captioner, 1)))
            except VlmUnauthorised as error:
                shown.append(str(error))
            shown += [repr(captioner.info), repr(captioner.counts), repr(captioner._client._key)]
    assert "incorrect key: Bearer ***" in shown[8]
    assert "the key was that of OTHER_KEY" in shown[8]
    assert SECRET not in "".join(shown) + caplog.text + "".join(capfd.readouterr())


def test_without_a_key_the_error_says_so(server: VlmServer) -> None:
    server.key = SECRET
    with (
        load(server) as captioner,
        pytest.raises(VlmUnauthorised, match="no key was sent, as OPENAI_API_KEY is not set"),
    ):
        ask(captioner, 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["", SECRET])
def test_passwords_of_others_are_not_sent(
    server: VlmServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ~/.netrc has for a host is for those who ask for it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login joe password geheim\ndefault login joe password geheim\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with load(server) as captioner:
        ask(captioner, 1)
    assert server.headers[0].get("Authorization") == (f"Bearer {key}" if key else None)


def test_the_proxy_of_the_environment_is_gone_through(server: VlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server stands in for a proxy: it is asked for the whole address of another."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    with load_captioner("vlm:m@http://far.invalid/v1", vlm=QUICK) as captioner, pytest.raises(VlmRejected) as caught:
        captioner.caption([None], key_frames=[frames_of(1)])
    assert "no such path: http://far.invalid/v1/chat/completions" in str(caught.value)
    monkeypatch.setenv("no_proxy", "far.invalid")
    with load_captioner("vlm:m@http://far.invalid/v1", vlm=QUICK) as captioner, pytest.raises(VlmUnreachable):
        captioner.caption([None], key_frames=[frames_of(1)])
    monkeypatch.setenv("http_proxy", "socks5://joe:geheim@127.0.0.1:1")
    with load(server) as captioner, pytest.raises(VlmUnreachable, match="http_proxy is socks5") as refused:
        ask(captioner, 1)
    assert "geheim" not in str(refused.value)
    assert not [one for one in threading.enumerate() if one.name == "longreel-vlm"]


def test_a_key_that_was_not_meant_for_it_is_not_sent_in_the_clear() -> None:
    environment = {"OPENAI_API_KEY": SECRET, "MINE": "other"}
    for url, sent in (
        ("https://api.example.com/v1", True),
        ("http://localhost:1/v1", True),
        ("http://127.0.0.2:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://10.0.0.5:8000/v1", False),
        ("http://localhost.example.com/v1", False),
    ):
        address = parse_address(f"m@{url}")
        assert read_key(address, None, environment).text == (SECRET if sent else "")
        assert read_key(address, "MINE", environment).text == "other"
        assert read_key(address, "", environment).text == ""
    assert "not sent unencrypted" in read_key(parse_address("m@http://10.0.0.5/v1"), None, environment).about
    with pytest.raises(EncoderOptionError, match="'GONE', but there is no such environment variable"):
        read_key(address, "GONE", environment)
    with pytest.raises(EncoderOptionError, match="no key has") as caught:
        read_key(address, "MINE", {"MINE": "pass\nword"})
    assert "word" not in str(caught.value)
