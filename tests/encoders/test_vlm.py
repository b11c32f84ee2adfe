"""Captions by a model behind an address, a real server on this machine: what is sent, taken down, and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.captioning import Caption, KeyFrame, caption_pictures, load_captioner
from encoders.errors import (
    EncoderInputError,
    EncoderOptionError,
    UnknownModel,
    VlmAnswerInvalid,
)
from encoders.vlm.address import parse_address
from encoders.vlm.captioner import VlmCaptioner
from encoders.vlm.messages import read_answer
from encoders.vlm.options import VlmOptions
from tests.encoders.vlm_asking import ask, frames_of, load
from tests.encoders.vlm_server import VlmServer, answer_with, completion, pictures_of, say

# -- what is sent, and what is made of the answer ----------------------------------------------------------------------


def test_a_segment_is_shown_with_its_times(server: VlmServer) -> None:
    options = {"prompt": "{frames} of {duration}, {start} to {end}, at {times} {{x}}", "system": "Be brief."}
    with load(server, **options, detail="low", seed=3, extra={"top_k": 5}) as captioner:
        frames = frames_of(40, 200, start=61.0)
        (caption,) = captioner.caption([None], spans=[(60.0, 72.5)], key_frames=[frames])
    assert caption == Caption("2 pictures, level 120", 60.0, 72.5, server.name(), None)
    (body,) = server.requests
    assert body["model"] == "seer:7b"
    assert (body["temperature"], body["max_tokens"], body["seed"], body["top_k"]) == (0.0, 120, 3, 5)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][0] == {
        "type": "text",
        "text": "2 of 12.5 seconds, 0:01:00.0 to 0:01:12.5, at 1.5 s, 2.5 s {x}",
    }
    assert [part["image_url"]["detail"] for part in user["content"][1:]] == ["low", "low"]
    assert [round(picture.mean()) for picture in pictures_of(body)] == [40, 200]
    assert "Authorization" not in server.headers[0]


def test_what_is_not_asked_for_is_not_sent(server: VlmServer) -> None:
    with load(server, temperature=None, most_tokens=0) as captioner:
        ask(captioner, 1)
    assert sorted(server.requests[0]) == ["messages", "model"]


def test_large_pictures_are_made_smaller_and_small_ones_stay(server: VlmServer) -> None:
    with load(server, image_side=64) as captioner:
        for size in ((100, 200), (30, 20)):
            captioner.caption([None], key_frames=[frames_of(9, size=size)])
    assert [pictures_of(body)[0].shape[:2] for body in server.requests] == [(32, 64), (30, 20)]


def test_too_many_pictures_are_thinned_to_the_most_covering_ones(server: VlmServer) -> None:
    with load(server, key_frames=2) as captioner:
        ask(captioner, 10, 11, 12, 10, 200)
    assert [round(picture.mean(), -1) for picture in pictures_of(server.requests[0])] == [10, 200]


def test_stills_are_asked_about_as_such(server: VlmServer) -> None:
    with load(server, picture_prompt="What is this?") as captioner:
        found = caption_pictures(captioner, np.full((3, 20, 20, 3), 7, np.uint8))
    assert [(one.text, one.start_seconds, one.end_seconds) for one in found] == [("1 pictures, level 7", 0.0, 1.0)] * 3
    assert {body["messages"][0]["content"][0]["text"] for body in server.requests} == {"What is this?"}


def test_json_mode(server: VlmServer) -> None:
    with load(server, json_mode=True) as captioner:
        assert ask(captioner, 30).text == "1 pictures, level 30"
        assert server.requests[0]["response_format"] == {"type": "json_object"}
        assert "JSON" in server.requests[0]["messages"][0]["content"][0]["text"]
        server.faults.append(say('```json\n{"caption": "A dog."}\n```'))
        assert ask(captioner, 30).text == "A dog"
        for wrong in ("A dog runs", '{"caption": 3}', '["caption"]', '{"caption": "A do'):
            server.faults.extend([say(wrong)] * 3)
            with pytest.raises(VlmAnswerInvalid, match="JSON") as caught:
                ask(captioner, 30)
            assert "tried 3 times" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (' "a dog runs ."\n', "A dog runs"),
        ("<think>\nIs it a dog?\n</think>\n\nA cat sits.", "A cat sits"),
        ("One line.\nAnother\tline.", "One line. Another line"),
        ([{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}], "A dog"),
        ("", ""),
        (None, ""),
        ("...", ""),
    ],
)
def test_answers_become_sentences(server: VlmServer, content: Any, text: str) -> None:
    server.faults.append(say(content))
    with load(server) as captioner:
        assert ask(captioner, 1).text == text
        assert captioner.counts.empty == (not text)


def test_the_probabilities_of_the_tokens_give_the_confidence(server: VlmServer) -> None:
    answer = completion("A dog")
    answer["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -0.2}, {"token": "dog", "logprob": -0.6}]}
    server.faults.append(answer_with(answer))
    with load(server, confidence=True) as captioner:
        assert ask(captioner, 1).confidence == pytest.approx(np.exp(-0.4))
        assert ask(captioner, 1).confidence is None
    assert server.requests[0]["logprobs"] is True


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "text", "logprobs", "x"]), inner, max_size=4
            )
        ),
    )
)
def test_any_json_is_an_answer_or_an_error(value: Any) -> None:
    answer = value if isinstance(value, dict) else {"choices": value}
    try:
        found = read_answer(answer, VlmOptions(confidence=True))
    except VlmAnswerInvalid:
        return
    assert isinstance(found.text, str)


# -- names and options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("qwen2.5vl:7b@http://localhost:11434/v1/", "vlm:qwen2.5vl:7b@http://localhost:11434/v1"),
        (
            "Qwen/Qwen2.5-VL@HTTPS://API.example.com/v1/chat/completions",
            "vlm:Qwen/Qwen2.5-VL@https://api.example.com/v1",
        ),
        ("org@team/m@http://[::1]:8000", "vlm:org@team/m@http://[::1]:8000"),
    ],
)
def test_addresses(rest: str, name: str) -> None:
    assert parse_address(rest).name == name
    assert parse_address(name.removeprefix("vlm:")).name == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vlm", "which model, and where"),
        ("vlm:model", "which model, and where"),
        ("vlm:@http://host/v1", "which model"),
        ("vlm:model@host:80/v1", "which model, and where"),
        ("vlm:m@http://user:hunter2@host/v1", "user name or a password"),
        ("vlm:m@http://host/v1?api_key=hunter2", r"before \? and #"),
        ("vlm:m@http://host:99999/v1", "no such port"),
        ("vlm:m@http:///v1", "is no address"),
        ("vlm:m@http://ho st/v1", "is no address"),
        ("vln:m@http://user:hunter2@host/v1", "did you mean 'vlm'"),
    ],
)
def test_addresses_that_are_none_are_refused_and_passwords_not_repeated(name: str, said: str) -> None:
    with pytest.raises(UnknownModel, match=said) as caught:
        load_captioner(name)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": "{who}"}, r"\{who\}; allowed: \{duration\}, \{start\}"),
        ({"prompt": "{duration:.3f}"}, "allowed"),
        ({"prompt": "{duration.__class__}"}, "allowed"),
        ({"prompt": "as {"}, "Single"),
        ({"prompt": ' {"caption": 1}'}, "written {{ and }}"),
        ({"prompt": " "}, "empty"),
        ({"picture_prompt": "{duration}"}, "picture_prompt"),
        ({"key_frames": 0}, "key_frames is 0"),
        ({"concurrency": True}, "concurrency is True"),
        ({"jpeg_quality": 100}, "at most 95"),
        ({"timeout_seconds": 0}, "timeout_seconds is 0"),
        ({"most_wait_seconds": float("inf")}, "most_wait_seconds is inf"),
        ({"temperature": -1.0}, "temperature"),
        ({"extra": {"model": "x", "stream": True}}, "extra has model, stream"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(EncoderOptionError, match=said):
        VlmOptions(**options)


def test_what_decides_the_words_decides_the_fingerprint(server: VlmServer) -> None:
    def fingerprint(**changed: Any) -> str:
        with load(server, **changed) as captioner:
            return captioner.info.fingerprint

    plain = fingerprint()
    assert fingerprint(retries=0, timeout_seconds=1, concurrency=1, key_variable="") == plain
    assert len({plain, fingerprint(prompt="Say it."), fingerprint(extra={"a": 1}), fingerprint(key_frames=2)}) == 4


@pytest.mark.parametrize(
    "made",
    [
        lambda captioner: captioner.caption([None]),
        lambda captioner: captioner.caption([None], key_frames=[[]]),
        lambda captioner: captioner.caption([None] * 2, key_frames=[frames_of(1)]),
        lambda captioner: captioner.caption([None], key_frames=[frames_of(1)], spans=[]),
        lambda captioner: captioner.caption([None], key_frames=[frames_of(1)], spans=[(3.0, 3.0)]),
        lambda captioner: captioner.caption([None], key_frames=[[KeyFrame(np.zeros((4, 4), np.uint8), 0, 0, 1)]]),
        lambda captioner: captioner.caption([None], key_frames=[[KeyFrame(np.zeros((4, 4, 3)), 0, 0, 1)]]),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_sent(
    server: VlmServer, made: Callable[[VlmCaptioner], object]
) -> None:
    with load(server) as captioner, pytest.raises(EncoderInputError):
        made(captioner)
    assert server.requests == []
