"""Small models for tests: one configuration per kind of image tower, and a test double through the `python:` door."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from encoders.base import EncoderInfo, FrameTokens, LoadOptions
from encoders.errors import EncoderClosed, EncoderInputError

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}

VIT = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": TEXT,
}
RESNET = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "text_cfg": TEXT,
}
TIMM_VIT = {
    "embed_dim": 64,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": TEXT,
}
TIMM_CONV = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_resnet", "timm_pool": "", "timm_proj": "linear"},
    "text_cfg": TEXT,
}
COCA = {
    "embed_dim": 32,
    "custom_text": True,
    "vision_cfg": {**VIT["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},  # type: ignore[dict-item]
    "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "resnet": RESNET,
    "timm_vit": TIMM_VIT,
    "timm_conv": TIMM_CONV,
    "coca": COCA,
}


def write_config(folder: Path, name: str, **changes: Any) -> Path:
    """Write a configuration of `CONFIGS` as an open_clip JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tiny_{name}.json"
    path.write_text(json.dumps({**CONFIGS[name], **changes}))
    return path


def pictures(count: int, height: int = 48, width: int = 72, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth, colourful pictures `[count, height, width, 3]`."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    scaled = [np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC)) for c in coarse]
    return np.stack(scaled) if scaled else np.empty((0, height, width, 3), np.uint8)


class MeanColour:
    """A test double: the embedding is the picture's mean colour and brightness, text goes by its length.

    It has no ``encode_query``: the `python:` door gives it one.
    """

    def __init__(self, options: LoadOptions) -> None:
        self._closed = False
        self.info = EncoderInfo(
            name="python:tests.encoders.models:MeanColour",
            dimension=4,
            token_width=3,
            patches=1,
            grid=(1, 1),
            image_height=8,
            image_width=8,
            preprocess={"source": "none"},
            fingerprint="0" * 16,
            random=False,
            precision="fp32",
            precision_reason="only one",
            device="cpu",
            batch_size=options.batch_size or 8,
            weights="none",
        )

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        self._check()
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise EncoderInputError("frames must be uint8 [T, H, W, 3]")
        mean = torch.from_numpy(frames.astype(np.float32)).mean(dim=(1, 2))
        full = torch.cat([mean, torch.full((len(mean), 1), 50.0)], dim=1)
        return FrameTokens(torch.nn.functional.normalize(full, dim=-1), mean[:, None] if tokens else None)

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        self._check()
        if isinstance(texts, str) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise EncoderInputError("texts must be a list of strings that are not empty")
        rows = torch.tensor([[len(t), 1.0, 2.0, 3.0] for t in texts]).reshape(-1, 4)
        return torch.nn.functional.normalize(rows, dim=-1)

    def encode_image(self, image: Image.Image | npt.NDArray[np.uint8]) -> torch.Tensor:
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        if not isinstance(image, np.ndarray) or image.ndim != 3:
            raise EncoderInputError("an image must be [H, W, 3]")
        return self.encode(image[None]).embedding[0]

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> MeanColour:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise EncoderClosed("closed")
