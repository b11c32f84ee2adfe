"""A model behind an address that captions streams: what was said before goes with the pictures; a real server on this
machine."""

from __future__ import annotations

from typing import Any

import pytest

from encoders.errors import EncoderClosed, EncoderInputError, EncoderOptionError, VlmRefused
from encoders.streams import CaptionsStreams, Earlier, StreamPush
from encoders.vlm.options import VlmOptions
from tests.encoders.vlm_asking import frames_of, load
from tests.encoders.vlm_server import VlmServer, say, status

EARLIER = (Earlier("A man comes in", 3723.0, 3730.5), Earlier("The room is empty", 3730.5, 3800.0))


def push(stream: str, level: int, earlier: tuple[Earlier, ...] = ()) -> StreamPush:
    return StreamPush(stream, None, (0.0, 9.0), key_frames=frames_of(level), earlier=earlier)


def prompt(body: dict[str, Any]) -> str:
    text: str = body["messages"][-1]["content"][0]["text"]
    return text


def test_what_was_said_before_is_told(server: VlmServer) -> None:
    with load(server, concurrency=1) as captioner:
        assert isinstance(captioner, CaptionsStreams)
        streams = captioner.streams()
        plain, told = streams.push([push("a", 10), push("b", 20, EARLIER)])
        assert [plain.text, told.text] == ["1 pictures, level 10", "1 pictures, level 20"]
        without, with_it = (prompt(body) for body in server.requests)
        assert "1:02:03.0 to 1:02:10.5: A man comes in. 1:02:10.5 to 1:03:20.0: The room is empty." in with_it
        assert with_it.endswith(without), "what is asked is the same"
        assert "earlier" not in without
        streams.drop("a")
        assert streams.state_bytes == 0


def test_the_words_around_it_are_a_setting(server: VlmServer) -> None:
    with load(server, earlier_prompt="Before: {earlier} Now:", json_mode=True) as captioner:
        server.faults.append(say('{"caption": "a dog"}'))
        (found,) = captioner.streams().push([push("a", 10, EARLIER[:1])])
        assert found.text == "A dog"
    asked = prompt(server.requests[0])
    assert asked.startswith("Before: 1:02:03.0 to 1:02:10.5: A man comes in. Now: These 1 pictures")
    assert asked.endswith('{"caption": "..."}')


@pytest.mark.parametrize("wrong", ["", "Before:", "Before: {earlier} {when}", "Before: {earlier"])
def test_words_that_do_not_tell_it(wrong: str) -> None:
    with pytest.raises(EncoderOptionError, match="earlier_prompt"):
        VlmOptions(earlier_prompt=wrong)


def test_one_stream_that_is_refused_costs_the_others_nothing(server: VlmServer) -> None:
    server.faults.extend([say("One"), status(400), say("Three")])
    with load(server, concurrency=1, retries=0) as captioner:
        with pytest.raises(VlmRefused) as caught:
            captioner.streams().push([push("a", 1), push("b", 2), push("c", 3)])
        assert [one and one.text for one in caught.value.captions] == ["One", None, "Three"]


def test_what_cannot_be_pushed(server: VlmServer) -> None:
    with load(server) as captioner:
        streams = captioner.streams()
        with pytest.raises(EncoderInputError, match="twice"):
            streams.push([push("a", 1), push("a", 2)])
        with pytest.raises(EncoderInputError, match="no key frame"):
            streams.push([StreamPush("a", None, (0.0, 9.0))])
        assert streams.push([]) == []
        assert server.requests == []
    with pytest.raises(EncoderClosed):
        captioner.streams()
    with pytest.raises(EncoderClosed):
        streams.push([push("a", 1)])
