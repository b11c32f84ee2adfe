"""Augmentation of a whole batch of pictures at once, in torch.

Shapes: B pictures, S their side as kept, s the side wanted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["augmented", "normalised", "plain"]

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def plain(pictures: Tensor, side: int) -> Tensor:
    """uint8 ``[B, S, S, 3]`` -> normalised ``[B, 3, s, s]``, nothing drawn by chance."""
    pixels = pictures.permute(0, 3, 1, 2).float() / 255
    if pixels.shape[2:] != (side, side):
        pixels = functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return normalised(pixels)


def normalised(pixels: Tensor) -> Tensor:
    """``[B, 3, s, s]`` from 0 to 1 -> as the image tower takes them."""
    mean = torch.tensor(_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(_STD, device=pixels.device).view(3, 1, 1)
    return ((pixels - mean) / std).to(memory_format=torch.channels_last)


def augmented(
    pictures: Tensor,
    side: int,
    generator: torch.Generator,
    *,
    flip: Tensor | None = None,
    area: tuple[float, float] = (0.35, 1.0),
    aspect: tuple[float, float] = (0.67, 1.5),
    colour: float = 0.3,
) -> Tensor:
    """uint8 ``[B, S, S, 3]`` -> normalised ``[B, 3, s, s]``.

    Drawn for each: a crop of some area and aspect, flip, light, contrast, colour, loss of all colour, softness.
    ``flip`` says which pictures may be mirrored (all where None): not those whose words name left or right.
    """
    count = len(pictures)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    scale = draw(*area)
    ratio = torch.exp(draw(math.log(aspect[0]), math.log(aspect[1])))
    width = (scale * ratio).sqrt().clamp(max=1.0)
    height = (scale / ratio).sqrt().clamp(max=1.0)
    x, y = draw(-1, 1) * (1 - width), draw(-1, 1) * (1 - height)
    mirrored = torch.rand(count, generator=generator) < 0.5
    if flip is not None:
        mirrored &= flip
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.where(mirrored, -width, width)
    theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = x, height, y
    pixels = pictures.permute(0, 3, 1, 2).float() / 255
    grid = functional.affine_grid(theta, [count, 3, side, side], align_corners=False)
    pixels = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if colour:
        pixels = pixels * draw(1 - colour, 1 + colour).view(-1, 1, 1, 1)
        middle = pixels.mean((1, 2, 3), keepdim=True)
        pixels = middle + (pixels - middle) * draw(1 - colour, 1 + colour).view(-1, 1, 1, 1)
        grey = pixels.mean(1, keepdim=True)
        strength = draw(1 - colour, 1 + colour)
        strength[torch.rand(count, generator=generator) < 0.03] = 0.0  # some lose all colour
        pixels = grey + (pixels - grey) * strength.view(-1, 1, 1, 1)
        pixels = pixels.clamp(0, 1)
    # a film's frames are often soft: some pictures pass through a smaller size
    soft = torch.rand(count, generator=generator) < 0.1
    if bool(soft.any()):
        small = functional.interpolate(pixels[soft], scale_factor=0.5, mode="area")
        pixels[soft] = functional.interpolate(small, (side, side), mode="bilinear", align_corners=False)
    return normalised(pixels)
