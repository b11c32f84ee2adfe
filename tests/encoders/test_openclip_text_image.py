"""Text lengths are checked, pictures stand upright."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from encoders import Encoder, load_encoder
from encoders.errors import EncoderInputError, TextEmpty, TextTooLong, TokenizerUnavailable
from tests.encoders.models import TEXT, pictures, write_config


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    path = write_config(tmp_path_factory.mktemp("models"), "vit")
    with load_encoder(f"openclip:{path}/random", precision="fp32") as loaded:
        yield loaded


def test_text_length_counts_both_marks(encoder: Encoder) -> None:
    assert encoder.encode_text(["dog " * 14]).shape == (1, 48)  # 14 words and two marks fill 16
    with pytest.raises(TextTooLong, match=r"has 17 tokens, .* reads at most 16"):
        encoder.encode_text(["dog " * 15])


def test_empty_text_is_refused(encoder: Encoder) -> None:
    with pytest.raises(TextEmpty):
        encoder.encode_text(["a dog", " \n"])


@pytest.mark.parametrize("text", ["\x07", "\ufeff", "&nbsp;"], ids=["bell", "byte order mark", "entity of a space"])
def test_a_text_of_which_nothing_is_left_is_empty(encoder: Encoder, text: str) -> None:
    with pytest.raises(TextEmpty, match=r"nothing that .* reads"):
        encoder.encode_text([text])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a dog\0", "NUL"),
        ("a dog\udcff", "no valid Unicode"),
        ("a dog<end_of_text> a cat", "<end_of_text>"),
        ("&lt;START_of_text&gt; a cat", "<start_of_text>"),
    ],
)
def test_text_that_would_not_be_read_as_written_is_refused(encoder: Encoder, text: str, words: str) -> None:
    for encode in (encoder.encode_text, encoder.encode_query):
        with pytest.raises(EncoderInputError, match=words):
            encode([text])


def test_an_endless_word_is_too_long_without_being_read(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    encoder.encode_text(["a word of " + " " * 100_000 + " spaces"])  # spaces do not count

    def never(self: SimpleTokenizer, text: str) -> list[int]:
        raise AssertionError("its time would grow with the square of the length")

    monkeypatch.setattr(SimpleTokenizer, "encode", never)
    with pytest.raises(TextTooLong, match=r"has 1000000 characters, .* reads at most 16 tokens"):
        encoder.encode_text(["w" * 1_000_000])


@pytest.mark.parametrize(
    "text", ["собака", "\u72ac\u304c\u8d70\u308b", "\U0001f415", "\u0643\u0644\u0628 \U0001f1e9\U0001f1ea"]
)
def test_other_languages_and_emoji_are_encoded(encoder: Encoder, text: str) -> None:
    row = encoder.encode_text([text])
    torch.testing.assert_close(row.norm(dim=1), torch.ones(1))
    assert float((row - encoder.encode_text(["a dog"])).norm()) > 1e-3


def test_many_texts_come_back_in_order(encoder: Encoder) -> None:
    texts = [f"number {i}" for i in range(130)]
    together = encoder.encode_text(texts)
    torch.testing.assert_close(together[100], encoder.encode_text([texts[100]])[0], atol=1e-5, rtol=0)


def test_a_tokenizer_that_cannot_be_had_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = {**TEXT, "hf_tokenizer_name": str(tmp_path_factory.mktemp("none") / "no-such-tokenizer")}
    path = write_config(tmp_path_factory.mktemp("models"), "vit", text_cfg=text)
    with load_encoder(f"openclip:{path}/random", precision="fp32") as loaded:
        assert len(loaded.encode(pictures(1))) == 1  # frames need no tokenizer
        with pytest.raises(TokenizerUnavailable, match="no-such-tokenizer"):
            loaded.encode_text(["x"])


def test_exif_rotation_is_applied(encoder: Encoder) -> None:
    upright = Image.fromarray(pictures(1, 48, 64)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning 90 degrees clockwise
    file = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    turned = Image.open(io.BytesIO(file.getvalue()))
    assert turned.size == (48, 64)
    torch.testing.assert_close(encoder.encode_image(turned), encoder.encode_image(upright), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_pictures_of_other_modes_are_converted(encoder: Encoder, mode: str) -> None:
    picture = Image.fromarray(pictures(1)[0]).convert(mode)
    got, wanted = encoder.encode_image(picture), encoder.encode_image(picture.convert("RGB"))
    torch.testing.assert_close(got, wanted)


def test_other_pictures_are_refused(encoder: Encoder) -> None:
    for image in (Image.new("I;16", (8, 8)), Image.new("F", (8, 8)), np.zeros((8, 8), np.uint8), "picture.png"):
        with pytest.raises(EncoderInputError):
            encoder.encode_image(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["vit", "timm_vit", "coca"])
def test_tokens_lie_row_by_row(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_config(tmp_path_factory.mktemp("models"), kind)
    with load_encoder(f"openclip:{path}/random", precision="fp32") as loaded:
        rows, columns = loaded.info.grid
        size, cell = loaded.info.image_height, loaded.info.image_height // rows
        frames = np.repeat(pictures(1, size, size), rows * columns + 1, axis=0)
        for p in range(rows * columns):  # frame p + 1 differs from frame 0 in the cell of patch p
            row, column = divmod(p, columns)
            frames[p + 1, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] ^= 0xFF
        tokens = loaded.encode(frames, tokens=True).tokens
    assert tokens is not None
    moved = (tokens[1:] - tokens[0]).norm(dim=-1)
    assert moved.argmax(dim=1).tolist() == list(range(rows * columns))


def test_frames_that_may_not_be_written_do_not_warn(encoder: Encoder, recwarn: pytest.WarningsRecorder) -> None:
    frames = pictures(2)
    frames.flags.writeable = False
    encoder.encode(frames)
    encoder.encode(frames[:, ::-1, ::-2])
    assert not recwarn.list
