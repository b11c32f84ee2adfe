"""A model that knows three words and sees colours, and films made for it: what is right is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from encoders import EncoderInfo, FrameTokens, LoadOptions
from pipeline.evaluation.moments import TruthMoment, query_id_of
from pipeline.media import Span
from pipeline.sources.writing import write_video

SIDE = 32
NAME = "python:tests.pipeline.evaluation.colours:colour_model"
BLIND = "python:tests.pipeline.evaluation.colours:without_tokens"
WORDS = ("red", "green", "blue")
RATE = 5


class ColourModel:
    """``[R, G, B]`` of the mean colour, of unit length; its 4 tokens are the quarters' colours; a word is an axis.

    A text without such a word (a background query of the calibration, say) is grey.
    """

    def __init__(self, name: str = NAME, tokens: bool = True) -> None:
        self.frames = 0
        self.info = EncoderInfo(
            name=name,
            dimension=3,
            token_width=3 if tokens else 0,
            patches=4 if tokens else 0,
            grid=(2, 2) if tokens else (0, 0),
            image_height=SIDE,
            image_width=SIDE,
            preprocess={"mean": [0.0]},
            fingerprint=name,
            random=False,
            precision="fp32",
            precision_reason="test",
            device="cpu",
            batch_size=3,
            weights="none",
        )

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        self.frames += len(frames)
        h, w = frames.shape[1] // 2, frames.shape[2] // 2
        quarters = np.stack([frames[:, y : y + h, x : x + w].mean((1, 2)) for y in (0, h) for x in (0, w)], 1) / 255
        seen = torch.from_numpy(quarters).float()
        return FrameTokens(torch.nn.functional.normalize(seen.mean(1), dim=-1), seen if tokens else None)

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        known = [[float(word in text.split()) for word in WORDS] for text in texts]
        axes = torch.tensor([row if any(row) else [1.0, 1.0, 1.0] for row in known])
        return torch.nn.functional.normalize(axes, dim=-1)

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encode_text(texts)

    def encode_image(self, image: Any) -> torch.Tensor:
        return self.encode(np.asarray(image)[None]).embedding[0]

    def close(self) -> None: ...

    def __enter__(self) -> ColourModel:
        return self

    def __exit__(self, *exc: object) -> None: ...


def colour_model(options: LoadOptions) -> ColourModel:
    return ColourModel()


def without_tokens(options: LoadOptions) -> ColourModel:
    return ColourModel(BLIND, tokens=False)


def draw_colours(path: Path, plan: Sequence[tuple[str, float]], seed: int = 0) -> Path:
    """A film that is each colour for so many seconds, with a pattern that moves, so that the gate passes frames."""
    rng = np.random.default_rng(seed)
    frames = []
    for colour, seconds in plan:
        for _ in range(round(seconds * RATE)):
            picture = rng.integers(0, 90, (8, 8, 1)).repeat(8, 0).repeat(8, 1).repeat(3, 2)
            picture[:, :, WORDS.index(colour)] += 150
            frames.append(picture.astype(np.uint8))
    return write_video(path, frames, rate=RATE, keyframe_every=10)


def moment(video: str, query: str, *spans: tuple[float, float]) -> TruthMoment:
    return TruthMoment(query_id_of(video, query), query, video, tuple(Span(*span) for span in spans))


def draw_library_of_films(folder: Path) -> list[TruthMoment]:
    """Two films in ``folder``, no colour half of them, and what is right of them."""
    draw_colours(folder / "a.mp4", [("red", 4), ("green", 4), ("blue", 5)])
    draw_colours(folder / "b.mp4", [("green", 2), ("blue", 3), ("green", 2), ("red", 4)], seed=1)
    return [
        moment("a.mp4", "red", (0, 4)),
        moment("a.mp4", "something green", (4, 8)),
        moment("b.mp4", "blue", (2, 5)),
        moment("b.mp4", "green", (0, 2), (5, 7)),
    ]
