"""Toy packs for training: drawn pictures in the names and the format of the real ones.

Shapes: pictures are uint8 RGB ``[S, S, 3]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scripts.training.drawn import drawn_pictures
from tests.pipeline.evaluation.packing import jpeg, plain, write_files

SHOWN = {"tinyimagenet": ("green", "blue"), "caltech101": ("red", "yellow", "white")}
SPLITS = {"train": 3, "val": 2}


def toy_packs(folder: Path, seed: int = 0) -> Path:
    """flickr8k (12 and 8 drawn pictures with their sentences), and plain colours as labelled packs; the folder."""
    pictures, texts = drawn_pictures(20, 32, np.random.default_rng(seed))
    rows = [
        _row(
            i, 32, f"drawn_{i}", "train" if i < 12 else "val", [f"{text} .", "a drawing", text, f"We see {text}", "it"]
        )
        for i, text in enumerate(texts)
    ]
    write_files(folder, "flickr8k", [jpeg(picture) for picture in pictures], rows)
    for name, colours in SHOWN.items():
        marks = "wnid" if name == "tinyimagenet" else "class"
        shown = [(colour, split) for split, count in SPLITS.items() for colour in colours for _ in range(count)]
        rows = [
            {**_row(i, 24, f"{colour}_{i}", split, []), "label": colour, "synonyms": [f"{colour}ish"], marks: colour}
            for i, (colour, split) in enumerate(shown)
        ]
        write_files(folder, name, [jpeg(plain(colour, 24, 24)) for colour, _ in shown], rows)
    return folder


def _row(i: int, side: int, key: str, split: str, captions: list[str]) -> dict[str, Any]:
    return {"i": i, "w": side, "h": side, "key": key, "split": split, "captions": captions}
