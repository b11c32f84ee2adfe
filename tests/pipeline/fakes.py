"""Sources and an encoder of our own making, so that what goes in is known exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from encoders.base import EncoderInfo, FrameTokens
from pipeline.errors import MediaDamaged
from pipeline.media import Damage, Frame, MediaInfo, Span
from pipeline.sources.base import Source

SIDE = 32


class ScriptedSource(Source):
    """Plays grey levels: 10 frames a second, the level of each second given by the file's text ("0 0 200 200")."""

    decoder = "scripted"
    decoder_reason = "a test asked for it"

    def __init__(
        self, path: str, info: MediaInfo, *, short_side: int | None = SIDE, threads: int = 0, reason: str = ""
    ) -> None:
        self.info = info
        self.damage = Damage()
        self._frames = scripted_frames(_LEVELS[path])

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        for frame in self._frames:
            if span is None or span.contains(frame.pts_seconds):
                yield frame

    def close(self) -> None: ...


class BreakingSource(ScriptedSource):
    """Breaks off after two seconds."""

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        for frame in super().frames(span, keyframes_only):
            if frame.pts_seconds >= 2:
                raise MediaDamaged(f"{self.info.uri}: broken at {frame.pts_seconds} s")
            yield frame


_LEVELS: dict[str, Sequence[int]] = {}


def script(path: str, levels: Sequence[int]) -> None:
    """What a ScriptedSource plays for ``path``."""
    _LEVELS[path] = levels


class SlideSource(ScriptedSource):
    """Shows each level for as many seconds as its place in the script says: pictures at 0, 1000 and 1700 s."""

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        for start, end, level in ((0, 1000, 20), (1000, 1700, 120), (1700, 2000, 220)):
            if span is None or span.contains(start):
                image = np.full((SIDE, SIDE, 3), level, np.uint8)
                yield Frame(image, start, end - start, Fraction(1), keyframe=True)


def scripted_frames(levels: Sequence[int], rate: int = 10) -> list[Frame]:
    generator = np.random.default_rng(0)
    pattern = generator.integers(0, 40, (SIDE, SIDE, 1))
    frames = []
    for i in range(len(levels) * rate):
        image = np.repeat(pattern + levels[i // rate], 3, axis=2).clip(0, 255).astype(np.uint8)
        frames.append(Frame(image, i, 1, Fraction(1, rate), keyframe=i % rate == 0))
    return frames


class ToneEncoder:
    """Embeds a picture by its mean level, as an angle; its 4 tokens are the quarters' levels."""

    def __init__(self, batch_size: int = 4) -> None:
        self.calls: list[int] = []
        self.info = EncoderInfo(
            name="python:tone",
            dimension=2,
            token_width=3,
            patches=4,
            grid=(2, 2),
            image_height=SIDE,
            image_width=SIDE,
            preprocess={"mean": [0.0]},
            fingerprint="tone",
            random=False,
            precision="fp32",
            precision_reason="test",
            device="cpu",
            batch_size=batch_size,
            weights="none",
        )

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        self.calls.append(len(frames))
        angle = torch.from_numpy(frames.mean((1, 2, 3))) / 255 * (np.pi / 2)
        embedding = torch.stack([angle.cos(), angle.sin()], 1).float()
        h, w = frames.shape[1] // 2, frames.shape[2] // 2
        quarters = [frames[:, y : y + h, x : x + w].mean((1, 2)) for y in (0, h) for x in (0, w)]
        return FrameTokens(embedding, torch.from_numpy(np.stack(quarters, 1)).float() if tokens else None)

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]] * len(texts))

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encode_text(texts)

    def encode_image(self, image: Any) -> torch.Tensor:
        return self.encode(np.asarray(image)[None]).embedding[0]

    def close(self) -> None: ...

    def __enter__(self) -> ToneEncoder:
        return self

    def __exit__(self, *exc: object) -> None: ...
