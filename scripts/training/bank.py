"""Token sets of made-up clips and of photographs, seen once by the trained image tower and kept in a file.

The tower learns no more when these are used, so nothing is gained by looking twice; a step of training then costs its
decoder alone. A bank says what it was made of (counts, seed, tower, photographs, version of what is drawn) and is made
again where that differs.

Shapes: C clips, T frames, P tokens a frame, n = T * P tokens, D width; N photographs, A augmented views of each.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scripts.training.augment import augmented, plain
from scripts.training.clips import DRAWING, made_clips
from scripts.training.loop import read_state
from scripts.training.photographs import Sentences

__all__ = ["ClipBank", "StillBank", "clip_bank", "still_bank"]


@dataclass(frozen=True)
class ClipBank:
    """Clips as ``tokens [C, n, D]`` and ``embedding [C, T, D]`` in half precision, with the tokens' spans ``[C, n]``.

    ``foils`` are sentences that are false of the clip and true of it backwards, None where there is none.
    """

    tokens: Tensor
    embedding: Tensor
    start_seconds: Tensor
    end_seconds: Tensor
    sentences: list[list[str]]
    foils: list[str | None]
    kinds: list[str]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def span(self) -> Tensor:
        """Start and end of each clip, ``[C, 2]`` seconds."""
        return torch.stack([self.start_seconds.amin(1), self.end_seconds.amax(1)], 1)


@dataclass(frozen=True)
class StillBank:
    """Photographs as ``tokens [N, A, P, D]`` and ``embedding [N, A, D]`` in half precision, one row a view."""

    tokens: Tensor
    embedding: Tensor
    sentences: list[list[str]]


def clip_bank(
    path: Path,
    tower: torch.nn.Module,
    photographs: Sentences | None,
    count: int,
    frames: int,
    size: int,
    seed: int,
    tell: Callable[[str], None],
) -> ClipBank:
    """Clips of photographs and drawn things (of these alone where None) that ``tower`` saw; kept at ``path``.

    Raises:
        TrainingError: for a file at ``path`` that cannot be read.
    """
    facts = {
        "count": count,
        "frames": frames,
        "size": size,
        "seed": seed,
        "drawing": DRAWING,
        "tower": _tower_mark(tower),
        "photographs": None if photographs is None else _photographs_mark(photographs),
    }
    if (kept := _kept(path, facts)) is not None:
        return ClipBank(**kept)
    parts = []
    pictures = [] if photographs is None else photographs.pictures.numpy()
    texts = [] if photographs is None else photographs.sentences
    for start in range(0, count, 100):
        # each hundred has a source of chance of its own: more clips begin with the same ones
        clips = made_clips(pictures, texts, min(100, count - start), frames, size, np.random.default_rng([seed, start]))
        parts.append((clips, *_seen(tower, torch.from_numpy(clips.frames).flatten(0, 1), size)))
        tell(f"{path.name}: {start + len(clips)} of {count} clips made and seen")
    patches = parts[0][2].shape[1]
    spans = [
        torch.cat([torch.from_numpy(getattr(clips, name)) for clips, *_ in parts]).repeat_interleave(patches, 1)
        for name in ("start_seconds", "end_seconds")
    ]
    bank = ClipBank(
        torch.cat([tokens for _, _, tokens in parts]).unflatten(0, (count, frames)).flatten(1, 2),
        torch.cat([embedding for _, embedding, _ in parts]).unflatten(0, (count, frames)),
        *spans,
        [text for clips, *_ in parts for text in clips.sentences],
        [foil for clips, *_ in parts for foil in clips.foils],
        [kind for clips, *_ in parts for kind in clips.kinds],
    )
    _keep(path, facts, {field: getattr(bank, field) for field in ClipBank.__dataclass_fields__})
    return bank


def still_bank(
    path: Path,
    tower: torch.nn.Module,
    photographs: Sentences,
    views: int,
    size: int,
    seed: int,
    tell: Callable[[str], None],
) -> StillBank:
    """``views`` of each photograph, the first as it is and the others augmented; read where ``path`` has them.

    Raises:
        TrainingError: for a file at ``path`` that cannot be read.
    """
    facts = {
        "count": len(photographs.pictures),
        "views": views,
        "size": size,
        "seed": seed,
        "tower": _tower_mark(tower),
        "photographs": _photographs_mark(photographs),
    }
    if (kept := _kept(path, facts)) is not None:
        return StillBank(**kept)
    generator = torch.Generator().manual_seed(seed)
    embeddings, tokens = [], []
    for view in range(views):
        for part, flip in zip(photographs.pictures.split(200), photographs.flip.split(200), strict=True):
            pixels = plain(part, size) if view == 0 else augmented(part, size, generator, flip=flip, area=(0.5, 1.0))
            seen = _look(tower, pixels)
            embeddings.append(seen[0])
            tokens.append(seen[1])
        tell(f"{path.name}: {view + 1} of {views} views of {len(photographs.pictures)} photographs seen")
    shape = (views, len(photographs.pictures))
    bank = StillBank(
        torch.cat(tokens).unflatten(0, shape).transpose(0, 1).contiguous(),
        torch.cat(embeddings).unflatten(0, shape).transpose(0, 1).contiguous(),
        photographs.sentences,
    )
    _keep(path, facts, {field: getattr(bank, field) for field in StillBank.__dataclass_fields__})
    return bank


def _seen(tower: torch.nn.Module, pictures: Tensor, size: int) -> tuple[Tensor, Tensor]:
    parts = [_look(tower, plain(part, size)) for part in pictures.split(200)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


@torch.no_grad()
def _look(tower: torch.nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    device = next(tower.parameters()).device
    with torch.autocast(device.type, torch.bfloat16):
        embedding, tokens = tower(pixels.to(device))
    return embedding.to("cpu", torch.float16), tokens.to("cpu", torch.float16)


def _tower_mark(tower: torch.nn.Module) -> str:
    """Tells one tower's weights from another's; the same on every device."""
    sums = hashlib.sha256()
    for key, value in sorted(tower.state_dict().items()):
        sums.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return sums.hexdigest()


def _photographs_mark(photographs: Sentences) -> str:
    """Tells which photographs with which sentences, by their keys and sizes."""
    told = (list(photographs.pictures.shape), photographs.keys, photographs.sentences)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _kept(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = read_state(path, "facts", "bank", mapped=True)
    bank: dict[str, Any] = content["bank"]
    return bank if content["facts"] == facts else None


def _keep(path: Path, facts: dict[str, Any], bank: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"facts": facts, "bank": bank}, partial)
    os.replace(partial, path)
