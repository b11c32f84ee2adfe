"""Clips to learn from and to be judged by: a bank of frame tokens, its sentences as numbers, and merged tokens.

The bank is what the video stage of scripts/train_tiny.py leaves in its folder (clips.bank, clips_check.bank), or is
made here: of photographs, seen by the bundled model as it ships, or drawn, without photographs, and seen by any encoder
that gives patch tokens.

Shapes: C clips, T frames, P patches, n = T * P tokens, m merged ones, D width, S sentences, L text tokens, U unlike
sentences.
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

from pipeline.errors import InputError
from scripts.comparing.methods import METHODS
from scripts.training.bank import ClipBank

__all__ = [
    "PARTS",
    "Clips",
    "Texts",
    "drawn_banks",
    "merge_bank",
    "merged_path",
    "open_clips",
    "photographed_banks",
    "read_bank",
    "take",
]

PARTS = {"learn": "clips.bank", "judge": "clips_check.bank"}
_FIELDS = tuple(ClipBank.__dataclass_fields__)
_AT_ONCE = 50
_SIDE = 96  # of drawn frames in pixels; encoders scale them themselves


@dataclass(frozen=True)
class Texts:
    """Every sentence of some clips, clip after clip: ``ids [S, L]``, the clip ``owner [S]``, and which of the U unlike
    sentences it is, ``number [S]``."""

    sentences: list[str]
    ids: Tensor
    owner: Tensor
    number: Tensor

    @property
    def first(self) -> Tensor:
        """Where each clip's sentences begin, and where the last ones end: ``[C + 1]``."""
        counts = torch.bincount(self.owner)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


@dataclass(frozen=True)
class Merged:
    """Merged tokens of all clips: ``tokens [C, m, D]`` in half precision, ``weight``, ``start_seconds`` and
    ``end_seconds`` ``[C, m]``."""

    tokens: Tensor
    weight: Tensor
    start_seconds: Tensor
    end_seconds: Tensor


@dataclass(frozen=True)
class Clips:
    """A bank, or a part of it, with its texts. ``merged`` has what was merged to m tokens."""

    bank: ClipBank
    texts: Texts
    merged: dict[int, Merged]

    def __len__(self) -> int:
        return len(self.bank)


def read_bank(path: Path) -> ClipBank:
    """A bank of clips; its arrays stay in the file until they are used.

    Raises:
        InputError: a file that is not there or holds no bank of clips.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; scripts/train_tiny.py writes it in its video stage")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        bank = ClipBank(**{name: content["bank"][name] for name in _FIELDS})
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no bank of clips: {type(error).__name__}: {error}") from error
    if not len(bank) or len(bank.sentences) != len(bank) or not all(bank.sentences):
        raise InputError(f"{path}: a bank needs clips, each with a sentence; it has {len(bank)} clips")
    return bank


def bank_mark(bank: ClipBank) -> str:
    """Tells one bank from another: a short hash of its sentences, its shape and some of its tokens."""
    some = bank.tokens[:: max(1, len(bank) // 16)].float().sum((1, 2)).tolist()
    facts = repr((list(bank.tokens.shape), some, bank.sentences))
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def take(bank: ClipBank, first: int, last: int) -> ClipBank:
    """Clips ``first`` to ``last`` (left out) of a bank."""
    return ClipBank(**{name: getattr(bank, name)[first:last] for name in _FIELDS})


def texts_of(sentences: list[list[str]], tokenize: Callable[[list[str]], Tensor]) -> Texts:
    """The sentences of clips, with equal ones under one number."""
    flat = [text for each in sentences for text in each]
    owner = torch.tensor([clip for clip, each in enumerate(sentences) for _ in each])
    numbers: dict[str, int] = {}
    number = torch.tensor([numbers.setdefault(text, len(numbers)) for text in flat])
    return Texts(flat, tokenize(flat), owner, number)


def merged_path(folder: Path, part: str, rows: int) -> Path:
    return folder / f"{part}-{rows}.merged"


def merged_batch(bank: ClipBank, rows: int, chosen: Tensor) -> Any:
    """Some clips merged to ``rows`` tokens, as the module's own merging does; a ``VisualTokens``."""
    from csat_fusion.attention.csat_module import CSATCrossAttention
    from encoders.openclip.decoder import merged_tokens
    from encoders.openclip.visual import VisualTokens

    attention = CSATCrossAttention(8, 1, budget=rows)  # of which only the setting of its merging is used
    raw = VisualTokens(bank.tokens[chosen].float(), None, bank.start_seconds[chosen], bank.end_seconds[chosen])
    return merged_tokens(raw, attention)


def merge_bank(path: Path, bank: ClipBank, rows: int, tell: Callable[[str], None]) -> None:
    """Merge every clip of a bank to ``rows`` tokens, kept in ``path``.

    The tokens do not change while a model learns, so what merging them gives does not either.
    """
    facts = {"mark": bank_mark(bank), "rows": rows}
    if path.is_file():
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if content["facts"] == facts:
            return
    found = [merged_batch(bank, rows, chosen) for chosen in torch.arange(len(bank)).split(_AT_ONCE)]
    tell(f"{path.name}: {len(bank)} clips merged to {rows} tokens")
    parts = {
        "tokens": torch.cat([one.tokens.half() for one in found]),
        "weight": torch.cat([one.weights for one in found]),
        "start_seconds": torch.cat([one.start_seconds for one in found]),
        "end_seconds": torch.cat([one.end_seconds for one in found]),
    }
    partial = path.with_suffix(".partial")
    torch.save({"facts": facts, "merged": parts}, partial)
    os.replace(partial, path)


def read_merged(path: Path) -> Merged:
    """What :func:`merge_bank` kept."""
    return Merged(**torch.load(path, map_location="cpu", weights_only=True, mmap=True)["merged"])


def open_clips(
    bank: ClipBank, tokenize: Callable[[list[str]], Tensor], merged: dict[int, Merged], first: int, last: int
) -> Clips:
    """Clips ``first`` to ``last`` (left out) with their texts and their merged tokens."""
    part = take(bank, first, last)
    cut = {
        rows: Merged(*(getattr(one, name)[first:last] for name in Merged.__dataclass_fields__))
        for rows, one in merged.items()
    }
    return Clips(part, texts_of(part.sentences, tokenize), cut)


def given(clips: Clips, method: str, rows: int, chosen: Tensor) -> Any:
    """What a method is given of some clips, as :class:`encoders.openclip.visual.VisualTokens` of width D.

    ``rows``: m, where it does not read all tokens.
    """
    from encoders.openclip.visual import VisualTokens

    bank, reads = clips.bank, METHODS[method].reads
    span = bank.span[chosen]
    if reads == "merged":
        own = clips.merged[rows]
        times = own.start_seconds[chosen], own.end_seconds[chosen]
        return VisualTokens(own.tokens[chosen].float(), own.weight[chosen], *times, None, span)
    tokens, times = bank.tokens[chosen].float(), (bank.start_seconds[chosen], bank.end_seconds[chosen])
    if reads == "sampled":
        at = sampled(bank.tokens.shape[1], bank.embedding.shape[1], rows)
        tokens, times = tokens[:, at], (times[0][:, at], times[1][:, at])
    elif reads == "mean":
        return VisualTokens(tokens.mean(1, keepdim=True), None, span[:, :1], span[:, 1:], None, span)
    return VisualTokens(tokens, None, *times, None, span)


def sampled(tokens: int, frames: int, rows: int) -> Tensor:
    """Which ``rows`` of n tokens are those of evenly spaced frames; of one frame, evenly spaced patches, where it has
    more than ``rows``."""
    patches = tokens // frames
    some = max(1, rows // patches)
    each = rows // some
    frame = ((torch.arange(some) + 0.5) * frames / some).long()
    patch = ((torch.arange(each) + 0.5) * patches / each).long()
    return (frame[:, None] * patches + patch).flatten()


def photographed_banks(
    folder: Path, packs: Path, counts: tuple[int, int], frames: int, seed: int, tell: Callable[[str], None]
) -> None:
    """Make the banks that the video stage of scripts/train_tiny.py would make, with the tower that ships.

    Raises:
        TrainingError: a folder without the pack flickr8k.
    """
    from scripts.training.bank import clip_bank
    from scripts.training.model import shipped_model
    from scripts.training.photographs import read_sentences

    tower: Any = shipped_model().visual
    for (part, name), count, offset in zip(PARTS.items(), counts, (1, 2), strict=True):
        split = {"learn": "train", "judge": "val"}[part]
        photographs = read_sentences(packs, split, _SIDE, None)
        clip_bank(folder / name, tower, photographs, count, frames, _SIDE, seed + offset, tell)


def drawn_banks(
    folder: Path, model: str, counts: tuple[int, int], frames: int, seed: int, tell: Callable[[str], None]
) -> None:
    """Make the banks of drawn clips, without photographs, as an encoder sees them.

    Raises:
        EncoderError: a model that cannot be loaded or gives no patch tokens.
    """
    from encoders import load_encoder
    from scripts.training.clips import made_clips

    with load_encoder(model, precision="fp32") as encoder:
        size = _SIDE
        facts = {"model": encoder.info.fingerprint, "frames": frames, "size": size, "drawn": True}
        for (part, name), count, offset in zip(PARTS.items(), counts, (1, 2), strict=True):
            path = folder / name
            own = {**facts, "count": count, "seed": seed + offset}
            if path.is_file() and torch.load(path, weights_only=True, mmap=True)["facts"] == own:
                continue
            found = []
            for start in range(0, count, 50):
                chance = np.random.default_rng([seed + offset, start])
                clips = made_clips([], [], min(50, count - start), frames, size, chance)
                seen = encoder.encode(clips.frames.reshape(-1, size, size, 3), tokens=True)
                assert seen.tokens is not None
                tokens = torch.as_tensor(seen.tokens).half().unflatten(0, (-1, frames))
                found.append((clips, tokens, torch.as_tensor(seen.embedding).half().unflatten(0, (-1, frames))))
                tell(f"{part}: {start + len(clips)} of {count} clips drawn and seen by {model}")
            patches = found[0][1].shape[2]
            spans = {
                key: torch.cat([torch.from_numpy(getattr(clips, key)) for clips, *_ in found])
                for key in ("start_seconds", "end_seconds")
            }
            bank = {
                "tokens": torch.cat([tokens for _, tokens, _ in found]).flatten(1, 2),
                "embedding": torch.cat([embedding for *_, embedding in found]),
                **{key: value.repeat_interleave(patches, 1) for key, value in spans.items()},
                **{
                    key: [one for clips, *_ in found for one in getattr(clips, key)]
                    for key in ("sentences", "foils", "kinds")
                },
            }
            torch.save({"facts": own, "bank": bank}, path.with_suffix(".partial"))
            os.replace(path.with_suffix(".partial"), path)
