"""Test doubles that see plain colours: an encoder and a captioner for the packs of `packing`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, CaptionerInfo
from encoders.errors import TextTooLong
from tests.encoders.models import MeanColour
from tests.pipeline.evaluation.packing import COLOURS


class Colours(MeanColour):
    """Knows the words for colours, at most six words a text."""

    asked: list[str]

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encode_text(texts)

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked = [*getattr(self, "asked", []), *texts]
        rows = torch.zeros(len(texts), 3)
        for row, text in enumerate(texts):
            if len(text.split()) > 6:
                raise TextTooLong(f"{text!r} has more than 6 words")
            for word, colour in COLOURS.items():
                if word in text.replace(".", " ").split():
                    rows[row] = torch.tensor(colour, dtype=torch.float32)
        return torch.nn.functional.normalize(torch.cat([rows, torch.full((len(rows), 1), 50.0)], dim=1), dim=-1)


class Painter:
    """A captioner that names the colour of a picture."""

    info = CaptionerInfo("python:painter", "0" * 16, False, "", 3, 32, 8, 8, "cpu")

    def __init__(self, options: object = None) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def tokens(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        self.sizes.append(frames.shape)
        return torch.from_numpy(frames.astype(np.float32)).mean(dim=(1, 2))[:, None]

    def caption(
        self, token_sets: Sequence[TokenSet], *, spans: Sequence[tuple[float, float] | None] | None = None
    ) -> list[Caption]:
        assert spans is None, "stills have no time"

        def nearest(tokens: torch.Tensor) -> str:
            return min(COLOURS, key=lambda name: float((tokens[0] - torch.tensor(COLOURS[name])).abs().sum()))

        return [Caption(f"A {nearest(one.tokens)} wall", 0.0, 1.0, self.info.name, 0.5) for one in token_sets]

    def close(self) -> None: ...

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *exc: object) -> None: ...
