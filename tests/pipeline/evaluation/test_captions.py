"""Caption scores: how texts are split, and that the kept library is asked the right way round."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.captioning import Captioner
from pipeline.errors import ExtraMissing, InputError
from pipeline.evaluation.captions import caption_scores, caption_words, evaluate_captions
from pipeline.evaluation.packs import ImageTextPack
from tests.pipeline.evaluation.packing import colours_pack
from tests.pipeline.evaluation.seeing import Painter

# What PTBTokenizer 3.4.1 (-lowerCase) gave for sentences written for this test, less what the evaluation code drops.
SPLIT = {
    "A man rides a horse .": "a man rides a horse",
    "A man rides a horse.": "a man rides a horse",
    "The man's dog isn't black-and-white.": "the man 's dog is n't black-and-white",
    "They're two boys' kites; one's red, one's blue!": "they 're two boys kites one 's red one 's blue",
    'A sign says "STOP" -- nobody does...': "a sign says stop nobody does",
    "At 5 o'clock he can't see, and we cannot either.": "at 5 o'clock he ca n't see and we can not either",
    "Jersey # 7 , a P&G ad , 50% off": "jersey # 7 a p&g ad 50 % off",
    "3,000 people at 10:30 in Washington D.C. today": "3,000 people at 10:30 in washington d.c. today",
    "a t-shirt , wet-suit and merry-go-round": "a t-shirt wet-suit and merry-go-round",
}


@pytest.mark.parametrize("text", SPLIT)
def test_words_are_those_of_the_usual_tokenizer(text: str) -> None:
    assert " ".join(caption_words(text)) == SPLIT[text]


def test_brackets_and_typographic_marks_go() -> None:
    words = caption_words("a dog (brown) – the “big” one – can’t wait…")
    assert " ".join(words) == "a dog brown the big one ca n't wait"


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_splitting_again_changes_nothing_and_no_space_is_left(text: str) -> None:
    words = caption_words(text)
    assert not [word for word in words if not word or any(c.isspace() for c in word)]
    assert "".join(words).lower() == "".join(words)


@given(st.lists(st.sampled_from(["a", "dog", "runs", "in", "snow", "man's", "t-shirt", "."]), max_size=12))
@settings(max_examples=60, deadline=None)
def test_words_joined_are_split_alike(words: list[str]) -> None:
    once = caption_words(" ".join(words))
    assert caption_words(" ".join(once)) == once


REFERENCES = [
    ["A dog runs through deep snow .", "A brown dog is running in the snow ."],
    ["Two men play football on a field .", "The players are on the grass ."],
    ["A child sits on a red swing .", "A girl swings ."],
]


def test_what_people_wrote_is_perfect() -> None:
    scores = caption_scores([texts[0] for texts in REFERENCES], [texts[:1] for texts in REFERENCES])
    assert scores.captions == 3
    assert scores.bleu == pytest.approx((100.0,) * 4, abs=1e-4)
    assert scores.rouge_l == pytest.approx(100.0)
    assert scores.cider == pytest.approx(1000.0)  # CIDEr goes to 10, here in percent
    assert scores.per_caption == pytest.approx((1000.0,) * 3)


def test_bleu_by_hand() -> None:
    # 3 of 4 words and 2 of 3 pairs are in the reference of 6 words: too short by exp(1 - 6/4)
    scores = caption_scores(["a dog runs fast"], [["a dog runs through deep snow"]])
    short = math.exp(1 - 6 / 4)
    assert scores.bleu[0] == pytest.approx(100 * short * 3 / 4, rel=1e-6)
    assert scores.bleu[1] == pytest.approx(100 * short * math.sqrt(3 / 4 * 2 / 3), rel=1e-6)


def test_the_closest_of_several_references_gives_the_length() -> None:
    scores = caption_scores(["a dog runs"], [["a dog runs through deep snow", "a dog sits"]])
    assert scores.bleu[0] == pytest.approx(100.0, rel=1e-6)


def test_cider_by_hand() -> None:
    # "a" is written for both pictures and weighs nothing; "dog" and "cat" for one of two: log 2. The pairs likewise.
    scores = caption_scores(["a dog", "a dog"], [["a dog"], ["a cat"]])
    # one word and one pair agree wholly for the first (1/4 of the n-gram lengths each), nothing for the second
    assert scores.per_caption == pytest.approx((10 * 100 * 2 / 4, 0.0))
    assert scores.cider == pytest.approx(250.0)


def test_another_caption_scores_less_and_order_matters() -> None:
    right = caption_scores([texts[0] for texts in REFERENCES], REFERENCES)
    turned = caption_scores([texts[0] for texts in REFERENCES[1:] + REFERENCES[:1]], REFERENCES)
    assert turned.cider < 20 < right.cider
    assert turned.bleu[3] < right.bleu[3]


def test_case_and_punctuation_do_not_count() -> None:
    plain = caption_scores(["a dog runs through deep snow", "x", "y"], REFERENCES)
    assert caption_scores(["A dog runs, through deep snow!", "X.", "(y)"], REFERENCES) == plain


def test_a_caption_without_words_scores_nothing() -> None:
    scores = caption_scores(["", " . ", "a girl swings"], REFERENCES)
    assert scores.per_caption[:2] == (0.0, 0.0)
    assert scores.per_caption[2] > 100
    assert json.dumps(scores.to_dict(), allow_nan=False)
    assert caption_scores(["", "", ""], REFERENCES).bleu == pytest.approx((0.0,) * 4)


def test_to_dict_uses_the_names_of_papers() -> None:
    names = list(caption_scores(["a dog"], [["a dog"]]).to_dict())
    assert names == ["captions", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


@pytest.mark.parametrize(
    ("candidates", "references", "said"),
    [
        (["a"], [["a"], ["b"]], "1 captions for 2 pictures"),
        ([], [], "no caption to score"),
        (["a"], [[]], "picture 0 has no reference with a word"),
        (["a", "b"], [["a"], [" . "]], r"picture 1 has no reference with a word: \[' . '\]"),
        (["a"], ["a dog"], "must be a list of texts, got the text 'a dog'"),
        ("a", [["a"]], "candidates must be a list"),
        ([3], [["a"]], "candidates must be a list"),
    ],
)
def test_what_cannot_be_scored(candidates: Any, references: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        caption_scores(candidates, references)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(ExtraMissing, match=r"pycocoevalcap.*pip install 'longreel\[evaluate\]'"):
        caption_scores(["a"], [["a"]])


def test_a_captioner_that_sees(tmp_path: Path) -> None:
    painter = Painter()
    assert isinstance(painter, Captioner)
    pack = ImageTextPack.open(colours_pack(tmp_path))
    seen: list[tuple[str, int, int]] = []
    scores, pictures = evaluate_captions(painter, pack, "test", progress=lambda *step: seen.append(step))
    assert scores.bleu[2] == pytest.approx(100.0, abs=1e-3)
    assert [(p.index, p.key, p.caption) for p in pictures[:2]] == [
        (0, "red_0", "A red wall"),
        (1, "green_1", "A green wall"),
    ]
    assert pictures[0].references == ("a red wall .", "red all over .")
    assert [p.cider for p in pictures] == list(scores.per_caption)
    assert seen == [("captions", 6, 6)]
    assert len(evaluate_captions(painter, pack, "train", limit=2)[1]) == 2
    assert painter.sizes == [(6, 24, 32, 3), (2, 24, 40, 3)]


def test_captions_made_from_labels_are_no_references(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="made from labels"):
        evaluate_captions(Painter(), ImageTextPack.open(colours_pack(tmp_path, labelled=True)), "test")


def test_the_missing_extra_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    painter = Painter()
    with pytest.raises(ExtraMissing):
        evaluate_captions(painter, ImageTextPack.open(colours_pack(tmp_path)), "test")
    assert not painter.sizes
