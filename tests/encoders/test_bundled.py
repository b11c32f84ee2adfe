"""The bundled model: its files belong together and are whole, or it is refused by name of what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import Encoder, load_encoder
from encoders.base import LoadOptions
from encoders.bundled.files import BUNDLED_FOLDER, Bundle
from encoders.bundled.provider import BundledProvider
from encoders.errors import (
    EncoderOptionError,
    ModelCardInvalid,
    TextTooLong,
    WeightsDamaged,
    WeightsMismatch,
    WeightsUnavailable,
)
from tests.encoders.models import COCA, pictures

OPTIONS = LoadOptions("cpu", "fp32", 8, 0, 1)
LARGEST_BYTES = 24_000_000


@pytest.fixture(scope="module")
def tiny() -> Iterator[Encoder]:
    with load_encoder("tiny", device="cpu", precision="fp32", batch_size=8, threads=1) as encoder:
        yield encoder


@pytest.fixture
def copy(tmp_path: Path) -> Bundle:
    """The model's files in a folder of their own."""
    bundle = Bundle("tiny", tmp_path / "bundled")
    bundle.folder.mkdir()
    whole = Bundle("tiny")
    for path in (*whole.files, whole.card_file):
        shutil.copy(path, bundle.folder / path.name)
    return bundle


def load(bundle: Bundle) -> Encoder:
    return BundledProvider(bundle.folder).load("tiny", OPTIONS)


def test_it_is_what_its_card_and_its_name_say(tiny: Encoder) -> None:
    info = tiny.info
    assert (info.name, info.random, info.dimension) == ("tiny", False, 256)
    assert (info.image_height, info.image_width) == (96, 96)
    assert (info.grid, info.patches, info.token_width) == ((6, 6), 36, 256)
    assert info.card.languages == ("en",)
    assert info.card.limits
    stated = json.loads(Bundle("tiny").card_file.read_text())["files"]["tiny.safetensors"]
    assert info.weights == f"sha256:{stated['sha256']}"
    assert Bundle("tiny").weights.stat().st_size == stated["size_bytes"] <= LARGEST_BYTES


def test_where_it_lies_does_not_matter(tiny: Encoder, copy: Bundle) -> None:
    with load(copy) as encoder:
        # The card says where it was read; all else is the same, and so are the vectors.
        assert replace(encoder.info, card=tiny.info.card) == tiny.info
        torch.testing.assert_close(encoder.encode(pictures(2)).embedding, tiny.encode(pictures(2)).embedding)
        torch.testing.assert_close(encoder.encode_query(["a dog runs"]), tiny.encode_query(["a dog runs"]))


def cut(bundle: Bundle) -> None:
    with bundle.weights.open("r+b") as file:
        file.truncate(1_000_000)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def test_truncated_weights_name_both_sizes(copy: Bundle) -> None:
    whole = copy.weights.stat().st_size
    cut(copy)
    with pytest.raises(WeightsDamaged, match=rf"tiny\.safetensors is not .* \(1000000 bytes instead of {whole}\)"):
        load(copy)
    assert [entry.downloaded for entry in BundledProvider(copy.folder).models()] == [False]
    with pytest.raises(WeightsDamaged):
        BundledProvider(copy.folder).fetch("tiny", None)


@pytest.mark.parametrize("part", ["weights", "vocabulary"])
def test_a_wrong_checksum_names_both_sums(copy: Bundle, part: str) -> None:
    path: Path = getattr(copy, part)
    stated = json.loads(copy.card_file.read_text())["files"][path.name]["sha256"]
    flip(path)
    with pytest.raises(WeightsDamaged, match=rf"{path.name} is not .* \(SHA-256 [0-9a-f]{{64}} instead of {stated}\)"):
        load(copy)


def test_the_configuration_of_another_model_is_refused(copy: Bundle) -> None:
    copy.config.write_text(json.dumps(COCA))
    with pytest.raises(WeightsMismatch, match=r"tiny\.json is not the file"):
        load(copy)
    copy.stamp()  # even where the card agrees with it
    with pytest.raises(WeightsMismatch, match=r"another architecture: .*keys missing .*shapes differ"):
        load(copy)


def test_a_configuration_that_fits_the_weights_and_means_another_model_is_refused(copy: Bundle) -> None:
    config = json.loads(copy.config.read_text())
    config["model_cfg"]["text_cfg"]["heads"] *= 2  # the same keys and shapes
    copy.config.write_text(json.dumps(config))
    with pytest.raises(WeightsMismatch, match="only fit the configuration that they were trained with"):
        load(copy)


@pytest.mark.parametrize("part", ["config", "vocabulary", "weights", "card_file"])
def test_a_missing_file_is_named(copy: Bundle, part: str) -> None:
    path: Path = getattr(copy, part)
    path.unlink()
    provider = BundledProvider(copy.folder)
    for call in (
        lambda: load(copy),
        lambda: provider.describe("tiny"),
        lambda: provider.fetch("tiny", None),
        lambda: provider.require("tiny", None, download=False),
    ):
        with pytest.raises(WeightsUnavailable, match=rf"{path.name} .* is not there; install Longreel again"):
            call()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("files"),
        lambda content: content["files"].pop("tiny.bpe.gz"),
        lambda content: content["files"]["tiny.json"].update(size_bytes="818"),
        lambda content: content["card"].update(template=["{}"]),
    ],
    ids=["no sums", "a sum missing", "size no number", "unknown key"],
)
def test_a_card_that_does_not_say_is_refused(copy: Bundle, change: Any) -> None:
    content = json.loads(copy.card_file.read_text())
    change(content)
    copy.card_file.write_text(json.dumps(content))
    with pytest.raises(ModelCardInvalid, match=r"card\.json"):
        load(copy)
    copy.card_file.write_text("{")
    with pytest.raises(ModelCardInvalid, match=r"card\.json cannot be read"):
        load(copy)


def test_new_weights_are_written_down(copy: Bundle) -> None:
    flip(copy.vocabulary)
    copy.stamp()
    copy.check()
    assert copy.is_here
    assert copy.card() == replace(Bundle("tiny").card(), source=str(copy.card_file))
    assert sorted(path.name for path in copy.folder.iterdir()) == sorted(
        ["card.json", "tiny.json", "tiny.bpe.gz", "tiny.safetensors"]
    )


def test_it_has_no_seed() -> None:
    with pytest.raises(EncoderOptionError, match="no meaning for tiny"):
        load_encoder("tiny", seed=3)


def test_it_reads_32_tokens(tiny: Encoder) -> None:
    assert tiny.encode_text(["dog " * 30]).shape == (1, 256)
    with pytest.raises(TextTooLong, match="has 33 tokens, tiny reads at most 32"):
        tiny.encode_text(["dog " * 31])
    with pytest.raises(TextTooLong):
        tiny.encode_query(["word " * 100_000])


@pytest.mark.parametrize("text", ["собака бежит", "犬が走る", "\U0001f415", "ein Hund läuft", "DOG!!"])
def test_any_language_is_encoded_though_only_english_means_something(tiny: Encoder, text: str) -> None:
    row = tiny.encode_query([text])
    assert bool(torch.isfinite(row).all())
    torch.testing.assert_close(row.norm(dim=1), torch.ones(1))


def test_letter_case_and_spaces_do_not_matter(tiny: Encoder) -> None:
    torch.testing.assert_close(tiny.encode_query([" A  Dog\tRuns "]), tiny.encode_query(["a dog runs"]))


def test_the_folder_is_that_of_the_package() -> None:
    import encoders.bundled

    assert Path(encoders.bundled.__file__).parent == BUNDLED_FOLDER
