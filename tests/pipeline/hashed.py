"""A model of the real interface to which every text is a direction of its own, and a library of random directions."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from encoders import EncoderInfo, FrameTokens, LoadOptions
from pipeline.catalog import Catalog
from pipeline.index_kinds import unit_rows
from pipeline.library import Library
from tests.catalog.content import part_result, plan

WIDTH = 16
NAME = "python:tests.pipeline.hashed:hashed"


def directions(texts: Sequence[str], style: str = "") -> npt.NDArray[np.float32]:
    """A unit vector [N, WIDTH] for each text, drawn from its letters."""
    rows = []
    for text in texts:
        seed = int.from_bytes(blake2b((style + text).encode(), digest_size=8).digest(), "big")
        rows.append(np.random.default_rng(seed).standard_normal(WIDTH))
    return unit_rows(np.array(rows))


def random_rows(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors [count, WIDTH] of random directions."""
    return unit_rows(np.random.default_rng(seed).standard_normal((count, WIDTH)))


def put(catalog: Catalog, uri: str, rows: npt.NDArray[Any]) -> str:
    """A video of one segment with these vectors, a second each."""
    video, (part,) = plan(catalog, uri, parts=1, seconds=float(len(rows)))
    catalog.commit_part(part.id, part_result(part.span, segments=1, vectors=len(rows), embedding=rows))
    catalog.finish_video(video)
    return video


class Hashed:
    """Texts and pictures are random directions, the same each time; ``asked`` counts the texts."""

    def __init__(self) -> None:
        self.asked = 0
        self.info = EncoderInfo(
            name=NAME,
            dimension=WIDTH,
            token_width=0,
            patches=0,
            grid=(0, 0),
            image_height=8,
            image_width=8,
            preprocess={"mean": [0.0]},
            fingerprint="hashed",
            random=False,
            precision="fp32",
            precision_reason="",
            device="cpu",
            batch_size=1,
            weights="none",
        )

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        raise NotImplementedError

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked += len(texts)
        return torch.from_numpy(directions(texts))

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encode_text(texts)

    def encode_image(self, image: Image.Image | npt.NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(directions([np.asarray(image).tobytes().hex()]))[0]

    def close(self) -> None: ...

    def __enter__(self) -> Hashed:
        return self

    def __exit__(self, *exc: object) -> None: ...


def hashed(options: LoadOptions) -> Hashed:
    return Hashed()


def random_library(path: Path, *, videos: int = 6, each: int = 20, encoder: Hashed | None = None) -> Library:
    """A library of random directions; in the first video is what "a red kite" looks like, 5 s from its start."""
    library = Library.open(path, encoder=encoder or Hashed())
    with library.writing("test") as catalog:
        for i in range(videos):
            rows = random_rows(each, seed=i)
            if i == 0:
                rows[5:6] = directions(["a red kite"])
            put(catalog, f"/v/{i}.mp4", rows)
    return library
