"""A model on a pack: what is asked of it, and in which order its answers come back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.base import LoadOptions
from encoders.errors import TextTooLong
from pipeline.errors import InputError
from pipeline.evaluation.packs import ImageTextPack
from pipeline.evaluation.retrieval import (
    class_names,
    encode_pictures,
    encode_sentences,
    evaluate_retrieval,
    evaluate_zero_shot,
)
from tests.pipeline.evaluation.packing import colours_pack, jpeg, plain, write_files
from tests.pipeline.evaluation.seeing import Colours

OPTIONS = LoadOptions("cpu", "fp32", 2, 0, 1)


def test_a_model_that_knows_is_always_right(tmp_path: Path) -> None:
    pack = ImageTextPack.open(colours_pack(tmp_path))
    seen: list[tuple[str, int, int]] = []
    scores = evaluate_retrieval(Colours(OPTIONS), pack, "test", progress=lambda *step: seen.append(step))
    assert (scores.pictures, scores.texts, scores.shortened) == (6, 12, 0)
    assert scores.text_to_image.recall[1] == scores.image_to_text.recall[1] == 100.0
    assert seen[-1] == ("texts", 12, 12)
    assert ("pictures", 6, 6) in seen


def test_a_model_that_does_not_know_is_not(tmp_path: Path) -> None:
    class Wrong(Colours):
        def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
            return super().encode_query(texts).roll(1, 0)

    scores = evaluate_retrieval(Wrong(OPTIONS), ImageTextPack.open(colours_pack(tmp_path)), "test")
    assert scores.text_to_image.recall[1] < 60


def test_only_the_split_is_asked_and_as_many_as_the_limit_says(tmp_path: Path) -> None:
    pack = ImageTextPack.open(colours_pack(tmp_path))
    encoder = Colours(OPTIONS)
    assert evaluate_retrieval(encoder, pack, "train", limit=2).pictures == 2
    assert encoder.asked == [text for i in (6, 7) for text in pack.rows[i]["captions"]]
    with pytest.raises(InputError, match="limit 0: must be at least 1"):
        evaluate_retrieval(encoder, pack, "train", limit=0)


def test_pictures_keep_their_order_whatever_their_sizes(tmp_path: Path) -> None:
    pack = ImageTextPack.open(colours_pack(tmp_path))
    encoder = Colours(OPTIONS)
    mixed = [7, 0, 11, 3, 6, 2, 1]
    wanted = np.stack([encoder.encode(pack.picture(i)[None]).embedding[0].numpy() for i in mixed])
    np.testing.assert_allclose(encode_pictures(encoder, pack, mixed), wanted, atol=1e-6)


def test_long_texts_lose_their_last_words_and_are_counted() -> None:
    encoder = Colours(OPTIONS)
    texts = ["a red wall", "one two three four five six seven red", "green one two three four five blue"]
    vectors, shortened = encode_sentences(encoder, texts)
    assert shortened == 2
    np.testing.assert_allclose(vectors[0], encoder.encode_query(["red"])[0])
    np.testing.assert_allclose(vectors[1], encoder.encode_query(["one"])[0])
    np.testing.assert_allclose(vectors[2], encoder.encode_query(["green"])[0])  # "blue" was cut off


def test_a_word_that_no_model_reads_stays_an_error() -> None:
    class Deaf(Colours):
        def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
            raise TextTooLong("always")

    with pytest.raises(TextTooLong):
        encode_sentences(Deaf(OPTIONS), ["two words"])


def test_zero_shot(tmp_path: Path) -> None:
    pack = ImageTextPack.open(colours_pack(tmp_path, labelled=True))
    encoder = Colours(OPTIONS)
    scores = evaluate_zero_shot(encoder, pack, "test")
    assert (scores.pictures, scores.classes, scores.top1, scores.mean_per_class) == (6, 6, 100.0, 100.0)
    assert encoder.asked[:2] == ["a photo of a red.", "a photo of a dark red."]  # as the card has it


def test_synonyms_take_part(tmp_path: Path) -> None:
    """A label that says nothing to the model is told by its synonym."""
    rows = [
        {"i": i, "w": 32, "h": 24, "key": str(i), "split": "val", "captions": [], "label": label, "synonyms": [word]}
        for i, (label, word) in enumerate([("rouge", "red"), ("vert", "green")])
    ]
    files = [jpeg(plain("red")), jpeg(plain("green"))]
    pack = ImageTextPack.open(write_files(tmp_path, "french", files, rows))
    assert class_names(pack) == {"rouge": ["rouge", "red"], "vert": ["vert", "green"]}
    assert evaluate_zero_shot(Colours(OPTIONS), pack, "val").top1 == 100.0


def test_a_pack_without_labels_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not every picture has a label"):
        evaluate_zero_shot(Colours(OPTIONS), ImageTextPack.open(colours_pack(tmp_path)), "test")


def test_a_split_without_captions_cannot_be_searched(tmp_path: Path) -> None:
    row = {"i": 0, "w": 32, "h": 24, "key": "a", "split": "test", "captions": []}
    pack = ImageTextPack.open(write_files(tmp_path, "silent", [jpeg(plain("red"))], [row]))
    with pytest.raises(InputError, match="no picture of the split 'test' has a caption"):
        evaluate_retrieval(Colours(OPTIONS), pack, "test")
