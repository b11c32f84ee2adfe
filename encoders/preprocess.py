"""From uint8 frames to what an image tower takes: resize, crop or pad, normalise; a whole batch at once, in torch.

The steps and the rounding of sizes are those of open_clip's own inference transform on PIL pictures, so that both give
the same pixels up to rounding (tested). Shapes: T frames, H x W pixels, h x w the model's input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional

from encoders.errors import PreprocessMismatch

__all__ = ["INTERPOLATIONS", "RESIZE_MODES", "Preprocess"]

INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "longest", "squash")


@dataclass(frozen=True)
class Preprocess:
    """How pictures are prepared for a model. ``source`` says where the settings came from and decides nothing.

    Raises:
        PreprocessMismatch: for settings that this code cannot follow exactly.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    source: str = "defaults of open_clip"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise PreprocessMismatch(f"image size {self.height} x {self.width} ({self.source}) must be positive")
        if self.interpolation not in INTERPOLATIONS:
            raise PreprocessMismatch(
                f"interpolation {self.interpolation!r} ({self.source}) is not one of {', '.join(INTERPOLATIONS)}"
            )
        if self.resize_mode not in RESIZE_MODES:
            raise PreprocessMismatch(
                f"resize_mode {self.resize_mode!r} ({self.source}) is not one of {', '.join(RESIZE_MODES)}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(v) for v in values):
                raise PreprocessMismatch(f"{name} {values} ({self.source}) must be three finite numbers")
        if min(self.std) <= 0:
            raise PreprocessMismatch(f"std {self.std} ({self.source}) must be above 0")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], image_size: tuple[int, int], source: str) -> Preprocess:
        """Take open_clip's ``preprocess_cfg`` keys; ``image_size`` is (height, width) of the image tower.

        Raises:
            PreprocessMismatch: for an unknown key, another size than the tower's, or a value out of range.
        """
        known = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}
        if unknown := sorted(set(config) - known):
            raise PreprocessMismatch(f"{source} has the unknown preprocessing keys {', '.join(unknown)}")
        if config.get("mode", "RGB") != "RGB":
            raise PreprocessMismatch(f"{source} asks for mode {config['mode']!r}, only RGB is known")
        if (size := config.get("size")) is not None:
            pair = (size, size) if isinstance(size, int) else tuple(size)[-2:]
            if pair != image_size:
                raise PreprocessMismatch(f"{source} prepares pictures of {pair}, the image tower takes {image_size}")
        interpolation = config.get("interpolation") or "bicubic"
        return cls(
            height=image_size[0],
            width=image_size[1],
            mean=_triple(config.get("mean"), OPENAI_MEAN),
            std=_triple(config.get("std"), OPENAI_STD),
            # open_clip's "random" is for training; its inference transform reads it as bicubic
            interpolation="bicubic" if interpolation == "random" else interpolation,
            resize_mode=config.get("resize_mode") or "shortest",
            fill_color=int(config.get("fill_color") or 0),
            source=source,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, ``source`` included."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def identity(self) -> dict[str, Any]:
        """Plain JSON of what decides the pixels."""
        return {key: value for key, value in self.as_dict().items() if key != "source"}

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) to which a picture is scaled before the crop or the padding."""
        if self.resize_mode == "squash":
            return self.height, self.width
        if self.resize_mode == "shortest" and self.height == self.width:
            # torchvision's Resize: the long side is cut off, not rounded; a fitting picture is left alone
            short, long = min(height, width), max(height, width)
            scaled = int(self.height * long / short)
            return (scaled, self.height) if height > width else (self.height, scaled)
        ratios = (height / self.height, width / self.width)
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """``frames [T, H, W, 3]`` uint8 on any device -> ``[T, 3, h, w]`` float32, normalised, on the same device."""
        pixels = frames.permute(0, 3, 1, 2)
        size = self.resized(pixels.shape[2], pixels.shape[3])
        if size != (pixels.shape[2], pixels.shape[3]):
            pixels = self._resize(pixels, size)
        pixels = self._fit(pixels)
        scale = torch.tensor([1.0 / (255.0 * s) for s in self.std], device=pixels.device).view(1, 3, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)], device=pixels.device)
        floats = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return floats.mul_(scale).sub_(shift.view(1, 3, 1, 1))

    def _resize(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        # open_clip follows the configured interpolation except for a non-square "shortest", which is bicubic there
        mode = "bicubic" if self.resize_mode == "shortest" and self.height != self.width else self.interpolation
        if pixels.device.type == "cpu" and 1 not in (*pixels.shape[2:], *size):
            # torch's uint8 kernel rounds between the two passes as PIL does; it fails on sides of a single pixel
            return functional.interpolate(pixels.contiguous(), size=size, mode=mode, antialias=True)
        scaled = functional.interpolate(pixels.to(torch.float32), size=size, mode=mode, antialias=True)
        return scaled.round_().clamp_(0, 255).to(torch.uint8)

    def _fit(self, pixels: torch.Tensor) -> torch.Tensor:
        """Crop to the centre, or pad around it with ``fill_color``."""
        height, width = pixels.shape[2], pixels.shape[3]
        missing_rows, missing_columns = max(0, self.height - height), max(0, self.width - width)
        if missing_rows or missing_columns:
            sides = (missing_columns // 2, (missing_columns + 1) // 2, missing_rows // 2, (missing_rows + 1) // 2)
            fill = self.fill_color if self.resize_mode == "longest" else 0
            pixels = functional.pad(pixels, sides, value=fill)
            height, width = pixels.shape[2], pixels.shape[3]
        top, left = round((height - self.height) / 2.0), round((width - self.width) / 2.0)
        return pixels[:, :, top : top + self.height, left : left + self.width]


OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def _triple(value: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if value is None:
        return default
    values = [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(values) != 3:
        raise PreprocessMismatch(f"mean and std must be three numbers, got {values}")
    return values[0], values[1], values[2]
