"""A small ViT trained as a masked autoencoder on the clips' own frames, without labels: a trained ViT where no weights
can be had.

Masked Autoencoders Are Scalable Vision Learners, K. He, X. Chen, S. Xie, Y. Li, P. Dollar and R. Girshick, 2021,
arXiv 2111.06377: three quarters of the patches are hidden, the encoder sees the rest, a light decoder predicts the
pixels of the hidden ones, each patch normalised. Minutes of training on two cores: far from a large model's tokens.

Shapes: B pictures, P = 49 patches of 16 x 16 pixels, d = 192 width.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benching.tables import progress

__all__ = ["MaskedAutoencoder", "load_or_train", "pictures"]

SIDE, PATCH, GRID = 112, 16, 7
WIDTH, DEPTH, HEADS = 192, 6, 3
DECODER_WIDTH, DECODER_DEPTH = 96, 2
KEPT = 12  # patches that the encoder sees in training
STEPS, BATCH, RATE = 1000, 64, 1e-3


def _positions(width: int) -> Tensor:
    """Sines and cosines of row and column, ``[P, width]``."""
    quarter = width // 4
    frequency = 1 / 100 ** (torch.arange(quarter) / quarter)
    place = torch.arange(GRID)[:, None] * frequency
    each = torch.cat([place.sin(), place.cos()], dim=1)  # [GRID, width / 2]
    rows, columns = each[:, None].expand(-1, GRID, -1), each[None].expand(GRID, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(GRID * GRID, width)


def _layers(width: int, depth: int) -> nn.Module:
    layers = [
        nn.TransformerEncoderLayer(width, HEADS, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        for _ in range(depth)
    ]
    return nn.Sequential(*layers, nn.LayerNorm(width))


class MaskedAutoencoder(nn.Module):
    """``forward`` gives the tokens ``[B, P, d]`` of pictures ``[B, 3, 112, 112]``; ``loss`` trains."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * PATCH * PATCH, WIDTH)
        self.encoder = _layers(WIDTH, DEPTH)
        self.narrow = nn.Linear(WIDTH, DECODER_WIDTH)
        self.hidden = nn.Parameter(torch.zeros(DECODER_WIDTH))
        self.decoder = _layers(DECODER_WIDTH, DECODER_DEPTH)
        self.predict = nn.Linear(DECODER_WIDTH, 3 * PATCH * PATCH)
        self.register_buffer("places", _positions(WIDTH), persistent=False)
        self.register_buffer("decoder_places", _positions(DECODER_WIDTH), persistent=False)

    @staticmethod
    def patches(images: Tensor) -> Tensor:
        """``[B, 3, 112, 112]`` to ``[B, P, 768]``."""
        return nn.functional.unfold(images, PATCH, stride=PATCH).mT

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(self.embed(self.patches(images)) + self.places)
        return tokens

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error over hidden patches, their pixels normalised."""
        pixels = self.patches(images)
        count, total, _ = pixels.shape
        order = torch.rand(count, total, generator=generator).argsort(dim=1)
        seen, unseen = order[:, :KEPT], order[:, KEPT:]
        each = torch.arange(count)[:, None]
        tokens = self.encoder((self.embed(pixels) + self.places)[each, seen])
        whole = self.hidden.expand(count, total, -1).clone()
        whole[each, seen] = self.narrow(tokens)
        found = self.predict(self.decoder(whole + self.decoder_places))[each, unseen]
        wanted = pixels[each, unseen]
        wanted = (wanted - wanted.mean(dim=-1, keepdim=True)) / (wanted.var(dim=-1, keepdim=True) + 1e-6).sqrt()
        return nn.functional.mse_loss(found, wanted)


def pictures(images: np.ndarray, side: int = SIDE) -> Tensor:
    """``[T, H, W, 3]`` uint8 to the middle squares ``[T, 3, side, side]``, about -2 to 2."""
    import cv2

    found = []
    for image in images:
        height, width = image.shape[:2]
        square = min(height, width)
        top, left = (height - square) // 2, (width - square) // 2
        middle = image[top : top + square, left : left + square]
        found.append(cv2.resize(middle, (side, side), interpolation=cv2.INTER_AREA))
    return (torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def train(frames: Tensor, seed: int = 0, steps: int = STEPS) -> MaskedAutoencoder:
    """A model trained on ``frames [T, 3, s, s]``, s above 112: random crops, mirrored or not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw their weights from the global generator
        model = MaskedAutoencoder()
    room = frames.shape[-1] - SIDE
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.95))
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    running = 0.0
    for step in range(steps):
        chosen = torch.randint(len(frames), (BATCH,), generator=generator)
        top, left = (int(torch.randint(room + 1, (), generator=generator)) for _ in range(2))
        images = frames[chosen, :, top : top + SIDE, left : left + SIDE]
        if int(torch.randint(2, (), generator=generator)):
            images = images.flip(-1)
        loss = model.loss(images, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running += (float(loss.detach()) - running) / min(step + 1, 100)
        if (step + 1) % 100 == 0:
            progress(f"mae: step {step + 1} of {steps}, loss {running:.3f}")
    return model.eval()


def load_or_train(path: Path, frames: Tensor | None) -> MaskedAutoencoder:
    """The model kept at ``path``; trained on ``frames`` and kept there where there is none yet."""
    from safetensors.torch import load_file, save_file

    model = MaskedAutoencoder()
    if not path.is_file():
        assert frames is not None
        trained = train(frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, str(part))
        part.replace(path)
    model.load_state_dict(load_file(str(path)))
    return model.eval()
