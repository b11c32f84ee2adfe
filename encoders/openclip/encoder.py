"""An OpenCLIP model as an :class:`encoders.base.Encoder`.

Shapes: T frames, H x W pixels, D width of the joint space, P patches, d width of a token, N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import nn

from encoders.base import EncoderInfo, FrameTokens
from encoders.batching import Batches
from encoders.cards import encode_with_templates
from encoders.errors import EncoderClosed, EncoderInputError, TokensUnavailable
from encoders.openclip import towers
from encoders.openclip.text import TextTokenizer
from encoders.precision import Tower
from encoders.preprocess import Preprocess

__all__ = ["OpenClipEncoder"]

_TEXT_BATCH = 64


class OpenClipEncoder:
    """Made by the provider, which loads the weights; see :class:`encoders.base.Encoder` for the methods' contract."""

    def __init__(
        self,
        info: EncoderInfo,
        model: nn.Module,
        tower: Tower,
        preprocess: Preprocess,
        tokenizer: Any,
    ) -> None:
        self._info = info
        self._model: nn.Module | None = model
        self._tower: Tower | None = tower
        self._preprocess = preprocess
        self._make_tokenizer = tokenizer
        self._tokenizer: TextTokenizer | None = None
        self._batches = Batches(info.batch_size, info.lanes)

    @property
    def info(self) -> EncoderInfo:
        return self._info

    @property
    def model(self) -> nn.Module:
        """The model: its text side in fp32, its image tower as ``info.precision`` says."""
        self._open_tower()
        assert self._model is not None
        return self._model

    @property
    def tokenizer(self) -> TextTokenizer:
        """Made when it is first asked for: only those who search or caption need it, and some need more packages."""
        self._open_tower()
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        return self._tokenizer

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        tower = self._open_tower()
        _check(frames)
        info = self._info
        if tokens and not info.patches:
            raise TokensUnavailable(f"{info.name} gives no spatial tokens")
        count = len(frames)
        embedding = torch.empty(count, info.dimension)
        patches = torch.empty(count, info.patches, info.token_width) if tokens else None

        def step(start: int, stop: int) -> None:
            with torch.inference_mode():
                pixels = self._preprocess(_to_tensor(frames[start:stop], tower.device))
                if patches is None:
                    pooled = tower.run(towers.embed, pixels)
                else:
                    pooled, spatial, _ = tower.run(towers.embed_with_tokens, pixels)
                    patches[start:stop].copy_(spatial)
                embedding[start:stop].copy_(nn.functional.normalize(pooled.float(), dim=-1))

        self._batches.run(count, step)
        return FrameTokens(embedding, patches)

    def decoder_tokens(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        """What the caption decoder of a CoCa model reads of ``frames [T, H, W, 3]``: ``[T, P', d']`` float32, on the
        CPU. For some models these are the tokens that :meth:`encode` gives, for others a summary of them.

        Raises:
            EncoderInputError, TokensUnavailable, OutOfDeviceMemory, EncoderClosed.
        """
        tower = self._open_tower()
        _check(frames)
        found: dict[int, torch.Tensor] = {}

        def step(start: int, stop: int) -> None:
            with torch.inference_mode():
                pixels = self._preprocess(_to_tensor(frames[start:stop], tower.device))
                found[start] = tower.run(towers.decoder_tokens, pixels).float().cpu()

        self._batches.run(len(frames), step)
        if not found:
            return torch.empty(0, 0, 0)
        # a copy outside of inference mode: a tensor like any other
        return torch.cat([found[start] for start in sorted(found)]).clone()

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        model, ids = self.model, self.tokenizer(texts)
        result = torch.empty(len(ids), self._info.dimension)
        with torch.inference_mode():
            for start in range(0, len(ids), _TEXT_BATCH):
                part = ids[start : start + _TEXT_BATCH].to(self._info.device)
                features = model.encode_text(part)  # type: ignore[operator]
                result[start : start + len(part)].copy_(nn.functional.normalize(features.float(), dim=-1))
        return result

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        self._open_tower()
        return encode_with_templates(self.encode_text, texts, self._info.card.templates)

    def encode_image(self, image: Image.Image | npt.NDArray[np.uint8]) -> torch.Tensor:
        if isinstance(image, Image.Image):
            if image.mode.startswith(("I", "F")):
                raise EncoderInputError(f"a picture of mode {image.mode!r} has no defined white; make it 8 bits deep")
            upright = ImageOps.exif_transpose(image)
            image = np.asarray(upright.convert("RGB"))
        if not isinstance(image, np.ndarray) or image.ndim != 3:
            what = f"shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise EncoderInputError(f"an image must be a PIL picture or a uint8 array [H, W, 3], got {what}")
        return self.encode(image[None]).embedding[0]

    def close(self) -> None:
        self._batches.close()
        self._model = self._tower = self._tokenizer = None

    def __enter__(self) -> OpenClipEncoder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open_tower(self) -> Tower:
        if self._tower is None:
            raise EncoderClosed(f"the encoder {self._info.name} was closed")
        return self._tower


def _check(frames: object) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        what = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise EncoderInputError(f"frames must be a uint8 array [T, H, W, 3], got {what}")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape[1:]:
        raise EncoderInputError(f"frames must be [T, H, W, 3] with H and W of at least 1, got {frames.shape}")


def _to_tensor(frames: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    # torch takes neither negative strides nor (without a warning) memory that may not be written
    whole = np.ascontiguousarray(frames)
    if not whole.flags.writeable:
        whole = whole.copy()
    return torch.from_numpy(whole).to(device)
