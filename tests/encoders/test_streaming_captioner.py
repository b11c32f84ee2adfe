"""A stream's captions: bounded state over hours, old time cut away, words that stay while the scene does."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, Wording
from encoders.errors import EncoderInputError, EncoderOptionError
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.generation import Marks, write
from encoders.openclip.streaming import StreamingCaptioner
from encoders.openclip.visual import padded
from encoders.streams import StreamingOptions, StreamPush
from tests.encoders.cocas import CONTEXT, END, PAD, START, WIDTH, small_coca, token_set

MARKS = Marks(START, END, never=(PAD,))
GREEDY = Wording("greedy")


@pytest.fixture(scope="module")
def decoder() -> CocaDecoder:
    model = small_coca(1)
    with torch.no_grad():
        model.text_decoder.text_projection.mul_(3)
    return CocaDecoder(model).requires_grad_(False).eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny steps: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def words(ids: Any) -> str:
    return " ".join(str(one) for one in ids)


class One:
    """A captioner with one stream."""

    def __init__(self, captioner: StreamingCaptioner) -> None:
        self.captioner = captioner

    @property
    def state_bytes(self) -> int:
        return self.captioner.state_bytes

    @property
    def window(self) -> TokenSet | None:
        return self.captioner.window("a")

    def push(self, tokens: TokenSet, span: tuple[float, float], *, cut: bool = False) -> Caption:
        (caption,) = self.captioner.push([StreamPush("a", tokens, span, cut)])
        return caption


def streams(decoder: CocaDecoder, wording: Wording = GREEDY, **options: Any) -> StreamingCaptioner:
    return StreamingCaptioner(decoder, MARKS, words, "m", wording=wording, options=StreamingOptions(**options))


def stream(decoder: CocaDecoder, wording: Wording = GREEDY, **options: Any) -> One:
    return One(streams(decoder, wording, **options))


def live_bytes() -> int:
    """Of all tensors that anything still holds."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if type(one) is torch.Tensor:
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_the_state_is_the_same_after_minutes_and_after_hours(decoder: CocaDecoder) -> None:
    """Six hours in pushes of 40 s, 24 unlike tokens each, into a window of 100 s and 32 tokens."""
    captioner = stream(decoder, replace(GREEDY, most_tokens=2), window_seconds=100, budget=32)
    captioner.push(token_set(24, seed=-1, start=-40, end=-1), (-40, 0))
    before = captioner.state_bytes
    held = {}
    for number in range(540):
        start = 40.0 * number
        captioner.push(token_set(24, seed=number, start=start, end=start + 39), (start, start + 40))
        assert captioner.state_bytes == before
        if number in (9, 539):
            held[number] = live_bytes()
    assert held[539] <= held[9]
    window = captioner.window
    assert window is not None
    assert len(window) == 32
    assert window.span[0] >= 540 * 40 - 100
    assert before == 32 * (WIDTH * 4 + 4 + 8 + 8 + 8) + CONTEXT * 8


def test_one_push_is_captioned_as_a_segment_is(decoder: CocaDecoder) -> None:
    for wording in (GREEDY, Wording(beams=3), Wording("nucleus", seed=3)):
        one = token_set(9, seed=4, start=20, end=28)
        (wanted,) = write(decoder, padded([one], [(20.0, 29.0)]), MARKS, wording)
        found = stream(decoder, wording).push(one, (20.0, 29.0))
        assert found.text == words(wanted.ids)
        assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)
        assert (found.start_seconds, found.end_seconds, found.model) == (20.0, 29.0, "m")


def test_the_window_holds_what_came_last_and_no_more(decoder: CocaDecoder) -> None:
    """A token of 8 s that crosses the edge keeps the share of its weight that is in the window."""
    captioner = stream(decoder, window_seconds=10)

    def one(start: float, end: float, value: float) -> TokenSet:
        return TokenSet(
            torch.full((1, WIDTH), value),
            torch.tensor([8.0]),
            torch.tensor([start], dtype=torch.float64),
            torch.tensor([end], dtype=torch.float64),
            torch.tensor([-1]),
        )

    captioner.push(one(0, 8, 1.0), (0, 8))
    captioner.push(one(8, 12, 2.0), (8, 12))
    window = captioner.window
    assert window is not None
    assert window.start_seconds.tolist() == [2, 8]
    assert window.weight.tolist() == [6, 8]
    captioner.push(one(40, 44, 3.0), (40, 44))  # after an outage
    window = captioner.window
    assert window is not None
    assert window.tokens[:, 0].tolist() == [3]
    captioner.push(one(44, 74, 4.0), (44, 74))  # longer than the window: seen whole
    window = captioner.window
    assert window is not None
    assert (window.span, window.weight.tolist()) == ((44, 74), [8])


def test_what_came_before_a_cut_has_no_say(decoder: CocaDecoder) -> None:
    fresh, cut, joined = (stream(decoder, margin=100.0) for _ in range(3))
    second = token_set(6, seed=8, start=8, end=16)
    wanted = fresh.push(second, (8.0, 17.0))
    for captioner in (cut, joined):
        captioner.push(token_set(6, seed=7), (0.0, 8.0))
    assert cut.push(second, (8.0, 17.0), cut=True) == wanted
    assert joined.push(second, (8.0, 17.0)).text != wanted.text


def test_words_stay_until_others_are_likelier_by_the_margin(decoder: CocaDecoder) -> None:
    sets = [token_set(6, seed=i, start=8 * i, end=8 * i + 7) for i in range(12)]

    def said(margin: float) -> list[str]:
        captioner = stream(decoder, margin=margin, window_seconds=8)
        return [captioner.push(one, (8.0 * i, 8.0 * i + 8)).text for i, one in enumerate(sets)]

    def changes(texts: list[str]) -> int:
        return sum(a != b for a, b in pairwise(texts))

    free, held, stuck = said(0.0), said(0.45), said(1000.0)
    assert changes(stuck) == 0
    assert changes(stuck) < changes(held) < changes(free)


def test_the_kept_sentence_has_the_confidence_that_it_has_now(decoder: CocaDecoder) -> None:
    captioner = stream(decoder, margin=1000.0, window_seconds=8)
    first = captioner.push(token_set(6, seed=1), (0.0, 8.0))
    again = captioner.push(token_set(6, seed=2, start=8, end=16), (8.0, 17.0))
    assert again.text == first.text
    ids = torch.tensor([[START, *map(int, again.text.split()), END]])
    window = captioner.window
    assert window is not None
    with torch.no_grad():
        logs = decoder.logits(padded([window], [(8.0, 17.0)]), ids[:, :-1]).log_softmax(-1)
    mean = float(logs.gather(-1, ids[:, 1:, None]).mean())
    assert again.confidence == pytest.approx(math.exp(mean), abs=1e-5)
    assert again.confidence != pytest.approx(first.confidence, abs=1e-4)


def test_what_does_not_fit_leaves_the_stream_as_it_was(decoder: CocaDecoder) -> None:
    captioner = stream(decoder)
    good = token_set(5, seed=1, start=10, end=18)
    captioner.push(good, (10.0, 19.0))
    before = captioner.window
    for tokens, span, said in (
        (token_set(5, width=WIDTH + 1, start=20, end=28), (19.0, 29.0), "width"),
        (replace(good, tokens=good.tokens * torch.nan), (19.0, 29.0), "not finite"),
        (good, (19.0, 29.0), "not of the span"),
        (good, (18.0, 29.0), "before the last one ended"),
        (good, (19.0, 19.0), "end after it starts"),
        (good, (19.0, math.inf), "finite"),
    ):
        with pytest.raises(EncoderInputError, match=said):
            captioner.push(tokens, span, cut=True)
    after = captioner.window
    assert before is not None
    assert after is not None
    assert torch.equal(before.tokens, after.tokens)


def test_streams_side_by_side_are_captioned_as_each_alone(decoder: CocaDecoder) -> None:
    """Of unlike lengths, with unlike last sentences, one of them new in the second call, one with a cut."""
    for wording in (GREEDY, Wording(beams=3)):
        together = streams(decoder, wording, window_seconds=12, margin=0.2)
        alone = {name: stream(decoder, wording, window_seconds=12, margin=0.2) for name in "abcd"}
        for turn in range(4):
            pushes = [
                StreamPush(
                    name,
                    token_set(4 + 3 * number, seed=10 * turn + number, start=8 * turn, end=8 * turn + 7),
                    (8.0 * turn, 8.0 * turn + 8),
                    cut=name == "b",
                )
                for number, name in enumerate("abcd")
                if name != "d" or turn
            ]
            for push, found in zip(pushes, together.push(pushes), strict=True):
                wanted = alone[push.stream].push(push.token_set, push.span, cut=push.cut)
                assert (found.text, found.start_seconds, found.end_seconds) == (wanted.text, *push.span)
                assert found.confidence == pytest.approx(wanted.confidence, rel=1e-4)


def test_a_stream_that_was_dropped_begins_anew(decoder: CocaDecoder) -> None:
    captioner = streams(decoder, margin=100.0)
    first, second = token_set(6, seed=7), token_set(6, seed=8, start=8, end=16)
    captioner.push([StreamPush("a", first, (0.0, 8.0)), StreamPush("b", first, (0.0, 8.0))])
    both = captioner.state_bytes
    captioner.drop("a")
    captioner.drop("never seen")
    assert captioner.state_bytes == both / 2
    a, b = captioner.push([StreamPush(name, second, (8.0, 17.0)) for name in "ab"])
    assert a.text == stream(decoder).push(second, (8.0, 17.0)).text != b.text


def test_one_wrong_push_leaves_all_streams_as_they_were(decoder: CocaDecoder) -> None:
    captioner = streams(decoder)
    good = token_set(5, seed=1, start=10, end=18)
    captioner.push([StreamPush("a", good, (10.0, 19.0))])
    later = token_set(5, seed=2, start=20, end=28)
    before = captioner.window("a")
    for pushes, said in (
        ([StreamPush("a", later, (19.0, 29.0)), StreamPush("b", good, (19.0, 29.0))], "not of the span"),
        ([StreamPush("a", later, (19.0, 29.0)), StreamPush("a", later, (29.0, 39.0))], "twice"),
    ):
        with pytest.raises(EncoderInputError, match=said):
            captioner.push(pushes)
    after = captioner.window("a")
    assert before is not None
    assert after is not None
    assert torch.equal(before.tokens, after.tokens)
    assert captioner.window("b") is None
    assert captioner.push([]) == []


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"window_seconds": 0}, {"margin": -1}, {"gap_seconds": math.nan}])
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(EncoderOptionError, match=next(iter(wrong))):
        StreamingOptions(**wrong)
