"""Preprocessing agrees with open_clip's own inference transform on PIL pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from encoders.errors import PreprocessMismatch
from encoders.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocess
from tests.encoders.models import pictures


def both(cfg: PreprocessCfg, frames: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    size = (cfg.size, cfg.size) if isinstance(cfg.size, int) else tuple(cfg.size)
    ours = Preprocess(
        size[0], size[1], tuple(cfg.mean), tuple(cfg.std), cfg.interpolation, cfg.resize_mode, cfg.fill_color
    )
    transform = image_transform_v2(cfg, is_train=False)
    return ours(torch.from_numpy(frames)), torch.stack([transform(Image.fromarray(f)) for f in frames])


SIZES = [(48, 72), (72, 48), (64, 64), (301, 200), (33, 47), (20, 30), (97, 31), (32, 500)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [32, (24, 40)])
def test_pixels_agree_with_open_clip(
    height: int, width: int, resize_mode: str, interpolation: str, size: int | tuple[int, int]
) -> None:
    cfg = PreprocessCfg(size=size, interpolation=interpolation, resize_mode=resize_mode, fill_color=7)
    if isinstance(size, tuple) and resize_mode == "longest":
        cfg.fill_color = 0
    ours, theirs = both(cfg, pictures(2, height, width))
    assert ours.shape == theirs.shape
    # one step of 255 is at most 1 / 255 / 0.261 = 0.015 after normalising
    assert float((ours - theirs).abs().max()) <= 0.031
    assert float((ours - theirs).abs().mean()) <= 0.004
    cosine = torch.nn.functional.cosine_similarity(ours.flatten(1), theirs.flatten(1), dim=1)
    assert float(cosine.min()) > 0.999


def test_frames_already_at_size_are_only_cropped_and_normalised() -> None:
    ours, theirs = both(PreprocessCfg(size=32), pictures(3, 32, 57))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    target=st.tuples(st.integers(1, 64), st.integers(1, 64)),
)
def test_every_size_comes_out_right(height: int, width: int, mode: str, target: tuple[int, int]) -> None:
    preprocess = Preprocess(target[0], target[1], OPENAI_MEAN, OPENAI_STD, "bilinear", mode)
    result = preprocess(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    assert result.shape == (1, 3, *target)
    assert bool(torch.isfinite(result).all())


def test_black_is_minus_mean_over_std() -> None:
    preprocess = Preprocess(4, 4, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))
    black, white = torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(preprocess(black)[0, :, 0, 0], torch.tensor([-1.0, -0.5, 0.0]))
    torch.testing.assert_close(preprocess(white)[0, :, 0, 0], torch.tensor([1.0, 1.5, 1.0]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"resize_mode": "stretch"}, "resize_mode 'stretch'"),
        ({"std": [1, 0, 1]}, "above 0"),
        ({"mean": [1, 2]}, "three numbers"),
        ({"mode": "BGR"}, "only RGB"),
        ({"size": 336}, "takes"),
        ({"means": [0, 0, 0]}, "unknown preprocessing keys means"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(PreprocessMismatch, match=message):
        Preprocess.from_config(config, (224, 224), "a test")
