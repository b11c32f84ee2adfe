"""The image tower of the bundled model: a small residual network that gives a picture's embedding and its tokens.

Blocks are those of ResNet-D: K. He and others, "Deep Residual Learning for Image Recognition", 2015, arXiv 1512.03385;
T. He and others, "Bag of Tricks for Image Classification with Convolutional Neural Networks", 2018, arXiv 1812.01187;
with stochastic depth: G. Huang and others, 2016, arXiv 1603.09382. At 96 pixels and without millions of pictures to
learn from, convolutions learn more than a transformer does.

Importing this module makes the tower known to timm, by whose name an open_clip configuration refers to it.

Shapes: B pictures, h x w pixels, rows x columns of the grid (a sixteenth of the sides), P = rows * columns tokens,
C channels of the last stage, D width of the joint space and of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NAME", "TinyTower", "longreel_tiny"]

NAME = "longreel_tiny"

_STEM = 32
_CHANNELS = (64, 128, 256, 288)
_STRIDES = (1, 2, 2, 1)
_DEPTHS = (1, 2, 3, 1)
_WIDTH = 256


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which pools before it changes width (ResNet-D)."""

    def __init__(self, before: int, channels: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm2.weight)  # a block starts as its shortcut
        shortcut: list[nn.Module] = [nn.AvgPool2d(2, ceil_mode=True)] if stride == 2 else []
        if stride != 1 or before != channels:
            shortcut += [nn.Conv2d(before, channels, 1, bias=False), nn.BatchNorm2d(channels)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        if self.training and self.drop_path:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.drop_path
            y = y * (kept / (1 - self.drop_path)).to(y.dtype)
        return functional.relu(self.shortcut(x) + y)


class TinyTower(nn.Module):
    """Pictures ``[B, 3, h, w]`` -> embedding ``[B, D]`` (of any length) and tokens ``[B, P, D]``, row by row.

    The tokens are what a caption decoder attends to, and what ``forward_intermediates`` gives as the feature map.
    """

    def __init__(self, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.num_features = _WIDTH
        self.stem = nn.Sequential(
            nn.Conv2d(3, _STEM, 3, 2, 1, bias=False),
            nn.BatchNorm2d(_STEM),
            nn.ReLU(),
            nn.Conv2d(_STEM, _CHANNELS[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(_CHANNELS[0]),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        before, total = _CHANNELS[0], sum(_DEPTHS)
        for channels, stride, depth in zip(_CHANNELS, _STRIDES, _DEPTHS, strict=True):
            for i in range(depth):
                rate = drop_path_rate * len(blocks) / (total - 1)  # later blocks are dropped more often
                blocks.append(_Block(before, channels, stride if i == 0 else 1, rate))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.to_tokens = nn.Linear(before, _WIDTH)
        self.norm_tokens = nn.LayerNorm(_WIDTH)
        self.to_embedding = nn.Linear(before, _WIDTH)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map ``[B, C, rows, columns]``."""
        features: Tensor = self.blocks(self.stem(x))
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """The embedding ``[B, D]`` of a feature map."""
        embedding: Tensor = self.to_embedding(features.mean((2, 3)))
        return embedding

    def tokens(self, features: Tensor) -> Tensor:
        """The tokens ``[B, P, D]`` of a feature map."""
        tokens: Tensor = self.norm_tokens(self.to_tokens(features.flatten(2).transpose(1, 2)))
        return tokens

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.forward_features(x)
        return self.forward_head(features), self.tokens(features)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """What open_clip asks of a tower of timm; the one intermediate is the tokens on their grid."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt {output_fmt!r} is not NCHW")
        features = self.forward_features(x)
        tokens = self.tokens(features).transpose(1, 2)
        grid = tokens.reshape(len(tokens), _WIDTH, *features.shape[2:])
        return [grid] if intermediates_only else (features, [grid])


@register_model
def longreel_tiny(
    pretrained: bool = False, drop_path_rate: float = 0.0, num_classes: int = 0, global_pool: str = "", **_: Any
) -> TinyTower:
    """The tower for timm, which also gives arguments of its own; it has no classes and pools itself."""
    if pretrained or num_classes or global_pool:
        raise ValueError(f"{NAME} has no pretrained weights, classes or pooling of timm's own")
    return TinyTower(drop_path_rate)
