"""Cards: read strictly, applied by the encoder, found for tags and beside local weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders import describe_model, load_encoder
from encoders.cards import CARD_FILE, ModelCard, encode_with_templates
from encoders.errors import EncoderInputError, ModelCardInvalid, TextEmpty, TextTooLong
from encoders.openclip.architecture import build
from tests.encoders.models import VIT, write_config

LETTERS = 300


def letters(texts: Sequence[str]) -> torch.Tensor:
    """A stand-in for `encode_text`: how often each character comes, of unit length."""
    rows = torch.zeros(len(texts), LETTERS)
    for row, text in zip(rows, texts, strict=True):
        for letter in text:
            row[ord(letter) % LETTERS] += 1
    return torch.nn.functional.normalize(rows, dim=-1)


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@settings(deadline=None)
@given(texts=st.lists(WORDS, max_size=4), templates=st.lists(st.sampled_from(["{}", "a {}.", "{} {{"]), min_size=1))
def test_templates_give_unit_vectors_in_the_order_of_the_texts(texts: list[str], templates: list[str]) -> None:
    rows = encode_with_templates(letters, texts, templates)
    assert rows.shape == (len(texts), LETTERS)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(texts)))
    for i, text in enumerate(texts):
        torch.testing.assert_close(encode_with_templates(letters, [text], templates)[0], rows[i])
    again = encode_with_templates(letters, texts, [*templates, *templates])  # each twice: the same mean
    torch.testing.assert_close(again, rows)


def test_several_templates_are_averaged_as_unit_vectors() -> None:
    got = encode_with_templates(letters, ["ab"], ["{}", "{}zzzzzzzzzzzz"])
    first, second = letters(["ab", "abzzzzzzzzzzzz"])
    torch.testing.assert_close(got[0], torch.nn.functional.normalize(first + second, dim=0))
    assert float((got[0] - letters(["ababzzzzzzzzzzzz"])[0]).norm()) > 0.1  # of the raw counts it would be this


def test_braces_of_a_text_stay_as_they_are() -> None:
    assert torch.equal(encode_with_templates(letters, ["{0} {}"], ["x{}"]), letters(["x{0} {}"]))


@pytest.mark.parametrize("texts", [[""], ["a", " \t"]])
def test_a_template_does_not_hide_an_empty_text(texts: list[str]) -> None:
    with pytest.raises(TextEmpty):
        encode_with_templates(letters, texts, ["a photo of {}."])


@pytest.mark.parametrize("texts", ["one string", [1], b"bytes", None])
def test_only_lists_of_strings_are_taken(texts: Sequence[str]) -> None:
    with pytest.raises(EncoderInputError):
        encode_with_templates(letters, texts, ["a photo of {}."])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"template": ["{}"]}, r"no 'template'; it has .*templates"),
        ({"templates": "a photo of {}"}, "templates must be a list of texts, got 'a photo of {}'"),
        ({"templates": []}, "at least one template"),
        ({"templates": ["a photo"]}, r"'a photo' must hold '\{\}' exactly once"),
        ({"label_templates": ["{} and {}"]}, r"'\{\} and \{\}' must hold"),
        ({"licence": 3}, "licence must be a text, got 3"),
        ({"source": "me"}, "no 'source'"),
    ],
)
def test_a_card_is_read_strictly(values: dict[str, object], words: str) -> None:
    with pytest.raises(ModelCardInvalid, match=words) as caught:
        ModelCard.from_dict(values, "here.json")
    assert str(caught.value).startswith("here.json: ")


def test_every_tag_of_open_clip_has_a_card() -> None:
    import open_clip

    from encoders.openclip.cards import card_of
    from encoders.openclip.names import ModelName, parse_name

    for architecture, tag in open_clip.list_pretrained():
        card = card_of(ModelName(architecture, None, tag, None, False, None, None))
        assert card.languages, (architecture, tag)
        assert card.trained_on, (architecture, tag)
        assert card.templates == ("{}",)
    many = card_of(parse_name("ViT-B-16-SigLIP-i18n-256/webli"))
    assert (many.languages, many.limits) == (("many",), ())
    assert card_of(parse_name("ViT-B-32/laion2b_s34b_b79k")).licence == "MIT"


def test_a_card_beside_local_weights_says_how_they_are_asked(tmp_path: Path) -> None:
    config = write_config(tmp_path, "vit")
    torch.save(build(VIT, 0).state_dict(), tmp_path / "weights.pt")
    name = f"openclip:{config}/{tmp_path / 'weights.pt'}"
    assert describe_model(name).card.source.startswith("none")
    with load_encoder(name, precision="fp32") as plain:
        fingerprint, raw = plain.info.fingerprint, plain.encode_query(["a dog"])
        torch.testing.assert_close(raw, plain.encode_text(["a dog"]))
        wanted = plain.encode_text(["two a dog", "one a dog"]).mean(0)

    card = {"templates": ["one {}", "two {}"], "languages": ["en"]}
    (tmp_path / CARD_FILE).write_text(json.dumps(card))
    assert describe_model(name).card.templates == ("one {}", "two {}")
    with load_encoder(name, precision="fp32") as encoder:
        asked = encoder.encode_query(["a dog"])
        torch.testing.assert_close(asked[0], torch.nn.functional.normalize(wanted, dim=0), atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.encode_text(["a dog"]), raw, atol=1e-5, rtol=0)  # stays raw
        assert encoder.info.fingerprint == fingerprint  # the vectors of a library are the same
        encoder.encode_text(["dog " * 14])  # fills the model's 16 tokens with its two marks
        with pytest.raises(TextTooLong, match="17 tokens"):
            encoder.encode_query(["dog " * 14])

    (tmp_path / CARD_FILE).write_text('{"templates": ')
    with pytest.raises(ModelCardInvalid, match=CARD_FILE):
        load_encoder(name)


def test_random_weights_say_that_words_mean_nothing(tmp_path: Path) -> None:
    card = describe_model(f"openclip:{write_config(tmp_path, 'vit')}/random").card
    assert "words mean nothing to it" in card.limits


def test_an_encoder_from_outside_is_asked_by_its_card() -> None:
    with load_encoder("python:tests.encoders.models:MeanColour") as encoder:
        torch.testing.assert_close(encoder.encode_query(["rain"]), encoder.encode_text(["rain"]))
    with load_encoder("python:tests.encoders.test_cards:shouting") as encoder:
        torch.testing.assert_close(encoder.encode_query(["rain"]), encoder.encode_text(["rain!!"]))


def shouting(options: object) -> object:
    """A factory of an encoder whose card has a template, and that has no `encode_query`."""
    from dataclasses import replace

    from encoders.base import LoadOptions
    from tests.encoders.models import MeanColour

    assert isinstance(options, LoadOptions)
    encoder = MeanColour(options)
    encoder.info = replace(encoder.info, card=ModelCard(templates=("{}!!",)))
    return encoder


def test_what_is_no_encoder_is_told_what_it_lacks() -> None:
    from encoders.errors import UnknownModel

    with pytest.raises(UnknownModel, match=r"no Encoder: it has no info, encode, .*close"):
        load_encoder("python:tests.encoders.test_cards:nothing")


def nothing(options: object) -> object:
    return object()
