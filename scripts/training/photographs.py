"""The packs of photographs as tensors, with what is known of each picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.evaluation.packs import ImageTextPack
from scripts.training.loop import TrainingError

__all__ = ["Labelled", "Sentences", "all_names", "all_sentences", "read_labelled", "read_sentences", "tidy"]

LABELLED = ("tinyimagenet", "caltech101")


@dataclass(frozen=True)
class Labelled:
    """Pictures ``[n, S, S, 3]`` uint8, the class of each ``[n]``, and the names of each class, the usual one first."""

    pictures: Tensor
    classes: Tensor
    names: list[list[str]]


@dataclass(frozen=True)
class Sentences:
    """Pictures ``[n, S, S, 3]`` uint8, the sentences of each, its key, and whether it may be mirrored ``[n]``."""

    pictures: Tensor
    sentences: list[list[str]]
    keys: list[str]
    flip: Tensor


def read_labelled(folder: Path, split: str, side: int, most: int | None = None) -> Labelled:
    """The labelled packs together, every picture scaled to ``side``; ``most`` of each class (None: all).

    Classes are numbered by their names, so that every split that shows all of them has the same numbers.

    Raises:
        TrainingError: where the folder lacks the packs.
        PackError: for a pack that cannot be read, or without the split.
    """
    pictures, classes, names = [], [], []
    told_apart: list[tuple[int, str]] = []
    for rank_of_pack, pack_name in enumerate(LABELLED):
        pack = _open(folder, pack_name)
        numbers: dict[str, int] = {}
        counts: dict[str, int] = {}
        for i in pack.split(split):
            row = pack.rows[i]
            own, synonyms = _names(row)
            if own not in numbers:
                numbers[own] = len(names)
                names.append(synonyms)
                told_apart.append((rank_of_pack, own))
            counts[own] = counts.get(own, 0) + 1
            if most is None or counts[own] <= most:
                pictures.append(_scaled(pack.picture(i), side))
                classes.append(numbers[own])
    order = sorted(range(len(names)), key=lambda k: (names[k][0], told_apart[k]))
    rank = torch.empty(len(names), dtype=torch.long)
    rank[torch.tensor(order)] = torch.arange(len(names))
    return Labelled(torch.stack(pictures), rank[torch.tensor(classes)], [names[k] for k in order])


def read_sentences(folder: Path, split: str, side: int = 96, most: int | None = None) -> Sentences:
    """Flickr8k with its five sentences a picture; the first ``most`` pictures of the split (None: all).

    Raises:
        TrainingError: where the folder lacks the pack.
        PackError: for a pack that cannot be read, or without the split.
    """
    pack = _open(folder, "flickr8k")
    chosen = pack.split(split)[:most]
    pictures = torch.stack([_scaled(pack.picture(i), side) for i in chosen])
    sentences = [[tidy(text) for text in pack.rows[i]["captions"]] for i in chosen]
    flip = torch.tensor([not any(re.search(r"\b(left|right)\b", text) for text in texts) for texts in sentences])
    return Sentences(pictures, sentences, [str(pack.rows[i]["key"]) for i in chosen], flip)


def all_sentences(folder: Path, split: str) -> list[str]:
    """What is said of the pictures of a split, tidied, without looking at them; errors as for reading them."""
    pack = _open(folder, "flickr8k")
    return [tidy(text) for i in pack.split(split) for text in pack.rows[i]["captions"]]


def all_names(folder: Path) -> list[list[str]]:
    """The names of every class of the labelled packs, without looking at the pictures; errors as for reading them."""
    return [names for pack in LABELLED for names in dict(map(_names, _open(folder, pack).rows)).values()]


def tidy(text: str) -> str:
    """A sentence in lower case, without the full stop and the spaces that the pack sets around marks."""
    text = re.sub(r"\s+([,.!?;:'])", r"\1", text.strip().lower().replace('"', ""))
    return re.sub(r"\s+", " ", text).strip(" .")


def _open(folder: Path, name: str) -> ImageTextPack:
    if not (folder / f"{name}.npz").is_file():
        raise TrainingError(f"{folder} has no pack {name}.npz; its README says which packs training needs")
    return ImageTextPack.open(folder, name)


def _names(row: dict[str, Any]) -> tuple[str, list[str]]:
    """What tells a class apart, and its names."""
    names = [str(row["label"]), *(str(name) for name in row.get("synonyms", []))]
    return str(row.get("wnid") or row["class"]), list(dict.fromkeys(name.lower() for name in names))


def _scaled(picture: np.ndarray[Any, np.dtype[np.uint8]], side: int) -> Tensor:
    pixels = torch.from_numpy(picture)
    if pixels.shape[:2] == (side, side):
        return pixels
    wanted = pixels.permute(2, 0, 1)[None].float()
    wanted = functional.interpolate(wanted, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return wanted[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
