"""Image-text packs drawn for tests, in the format of `pipeline.evaluation.packs`."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

COLOURS = {
    "red": (200, 20, 20),
    "green": (20, 180, 20),
    "blue": (20, 20, 200),
    "yellow": (220, 220, 20),
    "white": (240, 240, 240),
    "black": (10, 10, 10),
}


def jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def plain(colour: str, height: int = 24, width: int = 32) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), COLOURS[colour], np.uint8)


def write_files(folder: Path, name: str, files: Sequence[bytes], rows: Sequence[dict[str, Any]]) -> Path:
    """The two files of a pack; its `.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    offset = np.cumsum([0, *(len(data) for data in files)]).astype(np.int64)
    path = folder / f"{name}.npz"
    np.savez(path, jpeg=np.frombuffer(b"".join(files), np.uint8), offset=offset)
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def colours_pack(folder: Path, name: str = "colours", *, labelled: bool = False, split: str = "test") -> Path:
    """A plain picture of each colour in two sizes, the smaller ones in `split`, the others in `train`; two captions."""
    files, rows = [], []
    for i, colour in enumerate([*COLOURS, *COLOURS]):
        picture = plain(colour, 24, 32 if i < len(COLOURS) else 40)
        files.append(jpeg(picture))
        row = {
            "i": i,
            "w": picture.shape[1],
            "h": picture.shape[0],
            "key": f"{colour}_{i}",
            "split": split if i < len(COLOURS) else "train",
            "captions": [f"a {colour} wall .", f"{colour} all over ."],
        }
        if labelled:
            row |= {"label": colour, "synonyms": [f"dark {colour}"], "captions": [f"a photo of {colour}"]}
        rows.append(row)
    return write_files(folder, name, files, rows)
