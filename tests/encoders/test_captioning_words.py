"""How words are chosen: step by step as all at once, beams against brute force, seeds, bans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from encoders.captioning import Wording
from encoders.errors import CaptionerUnavailable, EncoderError, EncoderOptionError
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.generation import Marks, Written, write
from encoders.openclip.stepping import Steps, check_steps
from encoders.openclip.visual import VisualTokens, padded
from tests.encoders.cocas import CONTEXT, END, PAD, START, VOCABULARY, small_coca, text_ids, token_set

MARKS = Marks(START, END, never=(PAD,))
PLAIN = Wording("greedy", no_repeat_ngram=0, least_tokens=0)


@pytest.fixture(scope="module")
def decoder() -> CocaDecoder:
    """With scores far enough apart that sentences differ, and the end mark now and then the likeliest."""
    model = small_coca(1)
    with torch.no_grad():
        model.text_decoder.text_projection.mul_(3)
    return CocaDecoder(model)


@pytest.fixture(scope="module")
def visual() -> VisualTokens:
    return padded([token_set(count, seed=count) for count in (5, 9, 2)], [(0.0, 8.0), None, (0.0, 10.0)])


def one(visual: VisualTokens, i: int) -> VisualTokens:
    parts = (visual.tokens, visual.weights, visual.start_seconds, visual.end_seconds, visual.padding, visual.span)
    return VisualTokens(*(None if part is None else part[i : i + 1] for part in parts))  # type: ignore[arg-type]


def repeated(visual: VisualTokens, count: int) -> VisualTokens:
    """One window, ``count`` times."""
    parts = (visual.tokens, visual.weights, visual.start_seconds, visual.end_seconds, visual.padding, visual.span)
    return VisualTokens(*(None if p is None else p.expand(count, *p.shape[1:]) for p in parts))  # type: ignore[arg-type]


def log_probabilities(decoder: CocaDecoder, visual: VisualTokens, sentences: Sequence[Sequence[int]]) -> list[float]:
    """The sums over sentences of one length and their end marks, by the whole decoder at once."""
    ids = torch.tensor([[START, *sentence, END] for sentence in sentences])
    with torch.no_grad():
        logs = decoder.logits(repeated(visual, len(ids)), ids[:, :-1]).log_softmax(-1)
    found: list[float] = logs.gather(-1, ids[:, 1:, None]).sum((1, 2)).tolist()
    return found


# -- one word at a time ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_word_by_word_is_the_same_as_at_once(decoder: CocaDecoder, visual: VisualTokens) -> None:
    text = text_ids(3, CONTEXT)
    wanted = decoder.logits(visual, text).log_softmax(-1)
    steps = Steps(decoder, visual)
    for t in range(CONTEXT):
        torch.testing.assert_close(steps.next(text[:, t]), wanted[:, t], atol=2e-5, rtol=0)


@torch.no_grad()
def test_beams_are_their_windows_and_can_change_places(decoder: CocaDecoder, visual: VisualTokens) -> None:
    text = text_ids(6, 6)  # two beams of each of the three windows
    swapped = [1, 0, 2, 2, 5, 4]
    steps = Steps(decoder, visual, beams=2)
    for t in range(3):
        steps.next(text[:, t])
    steps.reorder(torch.tensor(swapped))
    read = torch.cat([text[swapped, :3], text[:, 3:]], dim=1)
    for t in range(3, 6):
        got = steps.next(read[:, t])
    for i in range(6):
        wanted = decoder.logits(one(visual, i // 2), read[i : i + 1]).log_softmax(-1)[0, -1]
        torch.testing.assert_close(got[i], wanted, atol=2e-5, rtol=0)


def test_text_towers_of_another_kind_are_refused() -> None:
    model = small_coca()
    model.text.transformer = torch.nn.Linear(2, 2)
    with pytest.raises(CaptionerUnavailable, match="not open_clip's own"):
        check_steps(CocaDecoder(model))
    model = small_coca()
    model.text.attn_mask = None
    with pytest.raises(CaptionerUnavailable, match="later"):
        check_steps(CocaDecoder(model))
    model = small_coca()
    model.text_decoder.resblocks[0].attn = torch.nn.Identity()
    with pytest.raises(CaptionerUnavailable, match="text block"):
        check_steps(CocaDecoder(model))


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_greedy_takes_the_likeliest_word_each_time(decoder: CocaDecoder, visual: VisualTokens) -> None:
    found = write(decoder, visual, MARKS, PLAIN)
    for i, sentence in enumerate(found):
        here, ids = one(visual, i), [START]
        while True:
            with torch.no_grad():
                logs = decoder.logits(here, torch.tensor([ids]))[0, -1].clone()
            logs[[START, PAD]] = -math.inf
            ids.append(int(logs.argmax()) if len(ids) < CONTEXT - 1 else END)
            if ids[-1] == END:
                break
        assert list(sentence.ids) == ids[1:-1]
        mean = log_probabilities(decoder, here, [ids[1:-1]])[0] / (len(ids) - 1)
        assert sentence.log_probability == pytest.approx(mean, abs=1e-4)
        assert sentence.confidence == pytest.approx(math.exp(mean), abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_sentences(visual: VisualTokens, penalty: float) -> None:
    """A vocabulary of four words: every sentence of up to three can be tried."""
    decoder = CocaDecoder(small_coca(2))
    words = [4, 5, 6, 7]
    rest = tuple(set(range(VOCABULARY)) - {*words, START, END})
    wording = replace(PLAIN, method="beam", beams=64, most_tokens=3, length_penalty=penalty)
    found = write(decoder, visual, Marks(START, END, rest), wording)
    for i, sentence in enumerate(found):
        here = one(visual, i)
        tried: dict[tuple[int, ...], float] = {}
        for count in range(4):
            sentences = list(itertools.product(words, repeat=count))
            totals = log_probabilities(decoder, here, sentences)
            tried |= {ids: total / (count + 1) ** penalty for ids, total in zip(sentences, totals, strict=True)}
        assert tried[sentence.ids] == pytest.approx(max(tried.values()), abs=1e-5)


def test_beams_are_no_worse_than_greedy_here_and_do_not_depend_on_the_batch(
    decoder: CocaDecoder, visual: VisualTokens
) -> None:
    wording = Wording(beams=3, no_repeat_ngram=0)
    together = write(decoder, visual, MARKS, wording)
    for i, sentence in enumerate(together):
        (alone,) = write(decoder, one(visual, i), MARKS, wording)
        assert alone.ids == sentence.ids
        assert alone.log_probability == pytest.approx(sentence.log_probability, abs=1e-4)
        (greedy,) = write(decoder, one(visual, i), MARKS, replace(wording, method="greedy"))
        assert sentence.log_probability >= greedy.log_probability - 1e-4


def test_one_beam_is_greedy(decoder: CocaDecoder, visual: VisualTokens) -> None:
    assert write(decoder, visual, MARKS, Wording(beams=1)) == write(decoder, visual, MARKS, Wording("greedy"))


def test_sampling_follows_its_seed_and_not_the_batch(decoder: CocaDecoder, visual: VisualTokens) -> None:
    def sampled(seed: int, temperature: float = 2.0, top_p: float = 1.0, of: VisualTokens = visual) -> list[Any]:
        wording = Wording("nucleus", seed=seed, temperature=temperature, top_p=top_p, no_repeat_ngram=0)
        return [sentence.ids for sentence in write(decoder, of, MARKS, wording)]

    before = torch.get_rng_state()
    assert sampled(0) == sampled(0)
    assert torch.equal(before, torch.get_rng_state())
    assert len({tuple(sampled(seed)) for seed in range(4)}) > 1
    assert sampled(0)[1:2] == sampled(0, of=one(visual, 1))
    assert sampled(3, top_p=1e-6) == [s.ids for s in write(decoder, visual, MARKS, replace(PLAIN, least_tokens=1))]


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus", "best-of"])
def test_bans_and_lengths_are_kept(decoder: CocaDecoder, visual: VisualTokens, method: str) -> None:
    """Of three words; without the ban they do repeat themselves."""
    rest = tuple(set(range(VOCABULARY)) - {4, 5, 6, START, END})
    wording = Wording(method, beams=3, no_repeat_ngram=2, least_tokens=5, most_tokens=7)
    repeated = {}
    for n in (0, 2):
        sentences = write(decoder, visual, Marks(START, END, rest), replace(wording, no_repeat_ngram=n))
        for sentence in sentences:
            assert 5 <= len(sentence.ids) <= 7
            assert set(sentence.ids) <= {4, 5, 6}
            assert 0 < sentence.confidence <= 1
        pairs = [list(itertools.pairwise(sentence.ids)) for sentence in sentences]
        repeated[n] = sum(len(each) - len(set(each)) for each in pairs)
    assert repeated[2] == 0 < repeated[0]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_it_writes_until_the_context_is_full_and_no_further(visual: VisualTokens, method: str) -> None:
    model = small_coca(1)
    decoder = CocaDecoder(model)
    wording = Wording(method, beams=2, no_repeat_ngram=0, least_tokens=CONTEXT - 2)
    assert [len(sentence.ids) for sentence in write(decoder, visual, MARKS, wording)] == [CONTEXT - 2] * 3
    with pytest.raises(EncoderOptionError, match=f"context of {CONTEXT}"):
        write(decoder, visual, MARKS, replace(wording, least_tokens=CONTEXT - 1))


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus", "best-of"])
def test_where_nothing_may_be_written_the_sentence_ends(visual: VisualTokens, method: str) -> None:
    """Two words, no pair of which may come twice, and more of them asked for than there can be."""
    rest = tuple(set(range(VOCABULARY)) - {4, 5, START, END})
    wording = Wording(method, beams=2, no_repeat_ngram=1, least_tokens=5)
    for sentence in write(CocaDecoder(small_coca(1)), visual, Marks(START, END, rest), wording):
        assert sorted(sentence.ids) == [4, 5]


def test_scores_that_are_not_finite_are_an_error(visual: VisualTokens) -> None:
    model = small_coca(1)
    with torch.no_grad():
        model.text_decoder.text_projection.fill_(math.nan)
    with pytest.raises(EncoderError, match="not finite at text token 1"):
        write(CocaDecoder(model), visual, MARKS, PLAIN)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "best"},
        {"beams": 0},
        {"beams": True},
        {"samples": 0},
        {"no_repeat_ngram": -1},
        {"seed": 1.5},
        {"least_tokens": 5, "most_tokens": 4},
        {"length_penalty": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"temperature": 0.0},
    ],
    ids=str,
)
def test_options_outside_what_is_allowed_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EncoderOptionError, match=next(reversed(changes))):
        Wording(**changes)


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=8))
def test_confidence_is_the_geometric_mean(logs: list[float]) -> None:
    mean = sum(logs) / len(logs)
    assert Written((1,), mean).confidence ** len(logs) == pytest.approx(math.exp(sum(logs)), rel=1e-6, abs=1e-12)


def test_tensors_of_no_window_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The visual tokens are not copied for the beams, and projected once for all words."""
    decoder = CocaDecoder(small_coca())
    attention: Any = decoder.model.text_decoder.cross_attn[0].attn
    read, held = attention.read, []
    shapes: list[tuple[int, ...]] = []

    def spy(query: Tensor, tokens: Any) -> Tensor:
        shapes.append(tuple(query.shape[:2]))
        held.append(tokens)
        out: Tensor = read(query, tokens)
        return out

    monkeypatch.setattr(attention, "read", spy)
    write(decoder, padded([token_set(7)]), MARKS, Wording(beams=3, most_tokens=2, no_repeat_ngram=0))
    assert len(shapes) > 1
    assert set(shapes) == {(1, 3)}
    assert all(tokens is held[0] for tokens in held)
    assert (held[0].key.shape[0], held[0].key.shape[2]) == (1, 7)
