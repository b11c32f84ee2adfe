"""The best of several samples: what attention says of a sentence, and that the best one is what is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.captioning import Wording
from encoders.openclip.bestof import AttentionScores, attention_scores, repetition
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.generation import Marks, Written, write
from encoders.openclip.visual import VisualTokens, padded
from tests.encoders.cocas import END, PAD, START, WIDTH, small_coca, token_set

MARKS = Marks(START, END, never=(PAD,))
SENTENCES = [[5, 6, 7], [8], [5, 5, 5, 5, 9, 10], []]


@pytest.fixture(scope="module")
def visual() -> VisualTokens:
    return padded([token_set(count, seed=count) for count in (5, 9)], [(0.0, 8.0), None])


def looking(sharpness: float) -> CocaDecoder:
    """A decoder whose queries are so many times as large: 0 looks at all by weight, many at the one token of most."""
    model = small_coca(1)
    with torch.no_grad():
        model.text_decoder.text_projection.mul_(3)
        for block in model.text_decoder.cross_attn:
            block.attn.in_proj_weight[:WIDTH].mul_(sharpness)
            block.attn.in_proj_bias[:WIDTH].mul_(sharpness)
    return CocaDecoder(model).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def decoder() -> CocaDecoder:
    return looking(4.0)


def scored(decoder: CocaDecoder, visual: VisualTokens, sentences: Sequence[Sequence[int]]) -> AttentionScores:
    return attention_scores(decoder, visual, sentences, START)


def test_looking_at_all_by_weight_covers_all_and_is_not_focussed(visual: VisualTokens) -> None:
    scores = scored(looking(0.0), visual, SENTENCES * 2)
    torch.testing.assert_close(scores.coverage, torch.ones(8))
    torch.testing.assert_close(scores.focus, torch.zeros(8), atol=1e-5, rtol=0)


def test_looking_at_one_token_is_focussed_and_covers_little(visual: VisualTokens) -> None:
    sharp, plain = (scored(looking(sharpness), visual, SENTENCES * 2) for sharpness in (2000.0, 1.0))
    assert bool((sharp.focus > plain.focus).all())
    assert bool((sharp.coverage < plain.coverage).all())
    assert float(sharp.focus.min()) > 0.3


def test_a_sentence_is_judged_by_itself(decoder: CocaDecoder, visual: VisualTokens) -> None:
    """Not by its neighbours, however long, nor by its window's."""
    together = scored(decoder, visual, SENTENCES * 2)
    for place in range(8):
        window = place // 4
        one = padded([token_set((5, 9)[window], seed=(5, 9)[window])], [[(0.0, 8.0), None][window]])
        alone = scored(decoder, one, [SENTENCES[place % 4]])
        for name in ("coverage", "focus", "repetition"):
            assert float(getattr(alone, name)[0]) == pytest.approx(float(getattr(together, name)[place]), abs=1e-5)
            assert 0 <= float(getattr(alone, name)[0]) <= 1


def test_coverage_and_focus_by_hand(visual: VisualTokens) -> None:
    """From where the decoder looks when it reads the sentence as it does in writing."""
    decoder = looking(4.0)
    one = padded([token_set(5, seed=5)], [(0.0, 8.0)])
    scores = scored(decoder, one, [[5, 6, 7]])
    seen = []
    for block in decoder.model.text_decoder.cross_attn:
        block.attn.register_forward_pre_hook(
            lambda _, given, options: (given, {**options, "need_weights": True}), with_kwargs=True
        )
        block.attn.register_forward_hook(lambda _, given, out: seen.append(out[1]))
    with torch.no_grad():
        decoder.logits(one, torch.tensor([[START, 5, 6]]))
    looks = torch.stack(seen)[:, 0].mean(dim=0)  # [3 words, 5 tokens]
    assert looks.shape == (3, 5)
    assert one.weights is not None
    share = one.weights[0] / one.weights[0].sum()
    coverage = sum(min(float(looks[:, j].mean()), float(share[j])) for j in range(5))
    focus = 1 - sum(
        math.exp(-sum(float(a) * math.log(float(a) / float(w)) for a, w in zip(word, share, strict=True)))
        for word in looks
    ) / len(looks)
    assert float(scores.coverage[0]) == pytest.approx(coverage, abs=1e-5)
    assert float(scores.focus[0]) == pytest.approx(focus, abs=1e-5)


@pytest.mark.parametrize(
    ("ids", "share"), [([], 0), ([1], 0), ([1, 2, 3], 0), ([1, 2, 1, 2], 1 / 3), ([4, 4, 4, 4], 2 / 3)]
)
def test_repetition_is_of_pairs(ids: list[int], share: float) -> None:
    assert repetition(ids) == pytest.approx(share)


@given(st.lists(st.integers(1, 4), max_size=20))
def test_saying_it_all_again_repeats_more(ids: list[int]) -> None:
    assert 0 <= repetition(ids) <= repetition(ids * 2) < 1


def test_what_is_written_is_the_sample_of_the_best_score(decoder: CocaDecoder, visual: VisualTokens) -> None:
    """The i-th of K samples is the one of nucleus sampling with seed ``K * seed + i``."""
    wording = Wording("best-of", samples=5, seed=3, temperature=2.0, no_repeat_ngram=0)
    samples: list[list[Written]] = [[], []]
    for i in range(5):
        drawn = write(decoder, visual, MARKS, replace(wording, method="nucleus", seed=15 + i))
        for window in (0, 1):
            samples[window].append(drawn[window])
    assert all(len({one.ids for one in each}) > 2 for each in samples)
    flat = [one for each in samples for one in each]
    totals = scored(decoder, visual, [one.ids for one in flat]).total([one.log_probability for one in flat])
    best = [flat[window * 5 + int(totals[window * 5 : window * 5 + 5].argmax())] for window in (0, 1)]
    written = write(decoder, visual, MARKS, wording)
    assert [one.ids for one in written] == [one.ids for one in best]
    for one, wanted in zip(written, best, strict=True):
        assert one.log_probability == pytest.approx(wanted.log_probability, abs=1e-5)


def test_all_parts_of_the_score_count(decoder: CocaDecoder, visual: VisualTokens) -> None:
    scores = AttentionScores(
        *(torch.tensor(part) for part in ([0.1, 0.4, 0.1, 0.1], [0.2, 0.2, 0.5, 0.2], [0.0] * 3 + [0.5]))
    )
    total = scores.total([-1.0] * 4)
    assert total.tolist() == pytest.approx([-0.7, -0.4, -0.4, -1.2])
    assert scores.total([-1.0, -1.0, -1.0, -0.1]).argmax() == 3
