"""The small vocabulary: what is learnt, and that any text goes through it and comes back."""

from __future__ import annotations

import gzip
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from scripts import train_tiny
from scripts.training.vocabulary import learn_merges, training_sentences, write_merges
from tests.scripts.toy_packs import toy_packs

SENTENCES = ["a dog runs on the grass", "two dogs run , it's grass", "the dog's ball", "über 42 dogs"] * 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    path = tmp_path_factory.mktemp("vocabulary") / "toy.bpe.gz"
    write_merges(learn_merges(SENTENCES, 540), path)
    return SimpleTokenizer(str(path), context_length=32)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: "<" not in text))
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    said = tokenizer.clean_fn(text).lower()
    ids = tokenizer.encode(text)
    assert all(0 <= i < tokenizer.vocab_size - 2 for i in ids)
    assert regex.sub(r"\s", "", tokenizer.decode(ids)) == regex.sub(r"\s", "", said)


def test_a_vocabulary_has_the_size_that_was_asked_for(tokenizer: Any) -> None:
    assert tokenizer.vocab_size == 540
    assert (tokenizer.sot_token_id, tokenizer.eot_token_id) == (538, 539)


def test_the_commonest_pair_comes_first_and_ties_go_by_the_alphabet() -> None:
    merges = learn_merges(["xy xy xy ab ab cd cd"], 520)
    assert merges == [("x", "y</w>"), ("a", "b</w>"), ("c", "d</w>")]  # fewer than there is room for
    assert learn_merges(["cd ab xy", "ab xy cd xy"], 520) == merges
    assert learn_merges(["aaa aaa"], 520) == [("a", "a"), ("aa", "a</w>")]


def test_pairs_seen_once_are_not_merged() -> None:
    assert learn_merges(["ab cd"], 520) == []


@given(st.lists(st.text("abc ", max_size=12), max_size=6), st.integers(515, 525))
def test_merges_are_those_of_the_plain_method(sentences: list[str], size: int) -> None:
    words = [[*word[:-1], word[-1] + "</w>"] for sentence in sentences for word in sentence.split()]
    want: list[tuple[str, str]] = []
    while len(want) < size - 514:
        pairs = [pair for word in words for pair in pairwise(word)]
        best = min(set(pairs), key=lambda pair: (-pairs.count(pair), pair), default=None)
        if best is None or pairs.count(best) < 2:
            break
        want.append(best)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1
    assert learn_merges(sentences, size) == want


@pytest.mark.parametrize("size", [0, 514])
def test_a_vocabulary_without_room(size: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"larger than 514, got {size}")):
        learn_merges(["a"], size)


def test_it_is_learnt_from_the_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts.training import vocabulary

    monkeypatch.setattr(vocabulary, "_DRAWN", 30)
    packs = toy_packs(tmp_path / "packs")
    texts = training_sentences(packs)
    assert "we see a redish" in texts  # a synonym in a template
    assert "we see it" not in texts
    assert texts.count("a drawing") == 12  # those of the training split, tidied
    made = [tmp_path / "one.bpe.gz", tmp_path / "two.bpe.gz"]
    for path in made:
        assert train_tiny.main(["--packs", str(packs), "--learn-vocabulary", str(path)]) == 0
    assert made[0].read_bytes() == made[1].read_bytes()
    assert gzip.decompress(made[0].read_bytes()).startswith(b"#version: longreel tiny\n")


def test_a_vocabulary_needs_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_tiny.main(["--packs", str(tmp_path), "--learn-vocabulary", str(tmp_path / "v.bpe.gz")]) == 1
    assert "has no pack flickr8k.npz" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
