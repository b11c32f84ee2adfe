"""What every encoder keeps, whatever is behind it. A new one is one more entry in `MODELS`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from encoders import Encoder, load_encoder
from encoders.errors import EncoderClosed, EncoderInputError
from tests.encoders.models import CONFIGS, pictures, write_config

MODELS = [
    ("tiny", "fp32"),
    ("tiny", "bf16"),
    ("vit", "fp32"),
    ("vit", "bf16"),
    ("vit", "bf16-autocast"),
    ("resnet", "fp32"),
    ("timm_vit", "fp32"),
    ("timm_vit", "bf16"),
    ("timm_conv", "fp32"),
    ("coca", "fp32"),
    ("coca", "bf16-autocast"),
    ("python:tests.encoders.models:MeanColour", "fp32"),
]


@pytest.fixture(scope="module", params=MODELS, ids=[f"{name}-{precision}" for name, precision in MODELS])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    name, precision = request.param
    if name in CONFIGS:
        name = f"openclip:{write_config(tmp_path_factory.mktemp('models'), name)}/random"
    with load_encoder(name, device="cpu", precision=precision) as loaded:
        yield loaded


def test_info_describes_what_comes_out(encoder: Encoder) -> None:
    info = encoder.info
    result = encoder.encode(pictures(3), tokens=True)
    assert result.tokens is not None
    assert result.embedding.shape == (3, info.dimension)
    assert result.tokens.shape == (3, info.patches, info.token_width)
    assert info.patches == info.grid[0] * info.grid[1] > 0
    assert info.batch_size >= 1
    assert info.precision != "auto"
    assert isinstance(info.fingerprint, str)
    assert len(info.fingerprint) == 16
    json.dumps(dict(info.preprocess))


def test_results_are_float32_on_the_cpu_and_of_unit_length(encoder: Encoder) -> None:
    result = encoder.encode(pictures(3), tokens=True)
    texts = encoder.encode_text(["a red car", "rain"])
    queries = encoder.encode_query(["a red car", "rain"])
    assert result.tokens is not None
    for tensor in (result.embedding, result.tokens, texts, queries):
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
        assert bool(torch.isfinite(tensor).all())
        tensor.add_(0.0)  # a normal tensor, not one that only inference mode may change
    for rows in (result.embedding, texts, queries):
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)), atol=1e-5, rtol=0)


def test_no_frames_give_no_rows(encoder: Encoder) -> None:
    result = encoder.encode(pictures(0), tokens=True)
    assert result.tokens is not None
    assert result.embedding.shape == (0, encoder.info.dimension)
    assert result.tokens.shape == (0, encoder.info.patches, encoder.info.token_width)
    assert encoder.encode_text([]).shape == (0, encoder.info.dimension)
    assert encoder.encode_query([]).shape == (0, encoder.info.dimension)


def test_a_query_is_its_text_in_the_templates_of_the_card(encoder: Encoder) -> None:
    queries = ["a red car", "rain {} and {0}"]
    templates = encoder.info.card.templates
    for query, got in zip(queries, encoder.encode_query(queries), strict=True):
        rows = encoder.encode_text([template.replace("{}", query) for template in templates])
        wanted = torch.nn.functional.normalize(rows.mean(0), dim=0)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_tokens_do_not_change_the_embedding(encoder: Encoder) -> None:
    frames = pictures(3)
    plain, both = encoder.encode(frames), encoder.encode(frames, tokens=True)
    assert plain.tokens is None
    torch.testing.assert_close(plain.embedding, both.embedding, atol=2e-3, rtol=0)


def test_frame_by_frame_is_the_same_as_at_once(encoder: Encoder) -> None:
    frames = pictures(5)
    together = encoder.encode(frames).embedding
    alone = torch.cat([encoder.encode(frames[i : i + 1]).embedding for i in range(5)])
    if encoder.info.precision == "fp32":
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    else:
        assert float((together * alone).sum(-1).min()) >= 0.9999


def test_different_pictures_differ_and_order_is_kept(encoder: Encoder) -> None:
    frames = pictures(4)
    forwards, backwards = encoder.encode(frames).embedding, encoder.encode(frames[::-1]).embedding
    torch.testing.assert_close(forwards, backwards.flip(0), atol=2e-3, rtol=0)
    assert float((forwards[0] - forwards[1]).norm()) > 1e-4


def test_image_agrees_with_frame(encoder: Encoder) -> None:
    frame = pictures(1)[0]
    wanted = encoder.encode(frame[None]).embedding[0]
    for image in (frame, Image.fromarray(frame)):
        got = encoder.encode_image(image)
        assert got.shape == (encoder.info.dimension,)
        torch.testing.assert_close(got, wanted, atol=2e-3, rtol=0)


def test_the_name_loads_the_same_encoder(encoder: Encoder) -> None:
    info = encoder.info
    with load_encoder(info.name, device="cpu", precision=info.precision, batch_size=info.batch_size) as again:
        assert again.info.fingerprint == info.fingerprint
        assert again.info.batch_size == info.batch_size
        frames = pictures(2)
        torch.testing.assert_close(again.encode(frames).embedding, encoder.encode(frames).embedding, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
        [[1, 2, 3]],
    ],
    ids=["float", "one frame", "channels first", "list"],
)
def test_wrong_frames_are_refused(encoder: Encoder, frames: np.ndarray) -> None:
    with pytest.raises(EncoderInputError, match=r"uint8|frames"):
        encoder.encode(frames)


@pytest.mark.parametrize("texts", ["one string", [1], [""], ["  "]])
def test_wrong_texts_are_refused(encoder: Encoder, texts: list[str]) -> None:
    for encode in (encoder.encode_text, encoder.encode_query):
        with pytest.raises(EncoderInputError):
            encode(texts)


def test_after_close_it_says_so(encoder: Encoder) -> None:
    with load_encoder(encoder.info.name, device="cpu", precision="fp32") as other:
        other.close()
        other.close()
        for call in (
            lambda: other.encode(pictures(1)),
            lambda: other.encode_text(["x"]),
            lambda: other.encode_query(["x"]),
            lambda: other.encode_image(pictures(1)[0]),
        ):
            with pytest.raises(EncoderClosed):
                call()
