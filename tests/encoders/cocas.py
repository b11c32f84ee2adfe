"""Small CoCa models with a vocabulary of a few dozen words, and captioners that are test doubles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, CaptionerInfo, CaptionerOptions, KeyFrame
from encoders.errors import EncoderClosed, EncoderInputError, TokensUnavailable
from encoders.openclip.architecture import build

WIDTH, VOCABULARY, CONTEXT = 32, 24, 10
PAD, START, END = 0, 22, 23

_TEXT = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 2, "layers": 2}
SMALL: dict[str, Any] = {
    "embed_dim": WIDTH,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 16,
        "layers": 1,
        "width": WIDTH,
        "head_width": 16,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 8,
        "output_tokens": True,
    },
    "text_cfg": {**_TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": dict(_TEXT),
}


def small_coca(seed: int = 0) -> Any:
    """Random weights, the same for a seed."""
    return build(SMALL, seed)


def text_ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Words ``[rows, length]`` after a start mark, no marks among them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, START, (rows, length), generator=generator)
    ids[:, 0] = START
    return ids


def token_set(count: int, seed: int = 0, *, width: int = WIDTH, start: float = 0.0, end: float = 8.0) -> TokenSet:
    """Random tokens of unlike weight whose spans lie between ``start`` and ``end``."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(count, 2, generator=generator, dtype=torch.float64).sort(dim=1).values * (end - start) + start
    return TokenSet(
        torch.randn(count, width, generator=generator),
        torch.randint(1, 9, (count,), generator=generator).float(),
        times[:, 0],
        times[:, 1] + 1e-3,
        torch.full((count,), -1),
    )


class Teller:
    """A captioner that says how bright its tokens are on the whole, and how many there were."""

    def __init__(self, options: CaptionerOptions, reads: str = "") -> None:
        self.seen: list[int] = []
        self._closed = False
        self.info = CaptionerInfo(
            name="python:tests.encoders.cocas:Teller",
            fingerprint="0" * 16,
            random=False,
            reads=reads,
            token_width=3,
            context_length=8,
            image_height=32,
            image_width=32,
            device="cpu",
        )

    def tokens(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        self._check()
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise EncoderInputError("frames must be uint8 [T, H, W, 3]")
        mean = torch.from_numpy(frames.mean((1, 2, 3))).float().reshape(-1, 1, 1)
        return mean.expand(-1, 2, 3).clone()

    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        key_frames: Sequence[Sequence[KeyFrame]] | None = None,
    ) -> list[Caption]:
        self._check()
        if spans is not None and len(spans) != len(token_sets):
            raise EncoderInputError("a span for each token set")
        found = []
        for i, one in enumerate(token_sets):
            if one is None or one.width != 3 or not bool(torch.isfinite(one.tokens).all()):
                raise EncoderInputError("tokens must be finite and of width 3")
            self.seen.append(len(one))
            level = float((one.tokens.float().mean(1) * one.weight).sum() / one.weight.sum())
            span = (None if spans is None else spans[i]) or one.span
            if not -torch.inf < span[0] < span[1] < torch.inf:
                raise EncoderInputError("a span must be finite and end after it starts")
            text = "" if level > 250 else f"Level {round(level / 10) * 10}"
            found.append(Caption(text, *span, self.info.name, 0.5))
        return found

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise EncoderClosed("closed")


class Looker(Teller):
    """A captioner that looks at three key frames, and says how bright each is."""

    def __init__(self, options: CaptionerOptions) -> None:
        super().__init__(options)
        self.shown: list[list[KeyFrame]] = []
        self.info = replace(
            self.info, name="python:tests.encoders.cocas:Looker", token_width=0, image_height=16, key_frames=3
        )

    def tokens(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        self._check()
        raise TokensUnavailable("it looks at pictures")

    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        key_frames: Sequence[Sequence[KeyFrame]] | None = None,
    ) -> list[Caption]:
        self._check()
        frames = [] if key_frames is None else list(key_frames)
        if len(frames) != len(token_sets) or (spans is not None and len(spans) != len(frames)) or not all(frames):
            raise EncoderInputError("key frames and a span for each segment")
        if not all(span is None or -math.inf < span[0] < span[1] < math.inf for span in spans or ()):
            raise EncoderInputError("spans must be finite and end after they start")
        found = []
        for i, shown in enumerate(frames):
            if any(one.image.dtype != np.uint8 or one.image.ndim != 3 or one.image.shape[2] != 3 for one in shown):
                raise EncoderInputError("pictures must be uint8 [H, W, 3]")
            self.shown.append(list(shown))
            levels = ", ".join(str(round(float(one.image.mean()) / 10) * 10) for one in shown)
            span = (None if spans is None else spans[i]) or (shown[0].start_seconds, shown[-1].end_seconds)
            found.append(Caption(f"Seen: {levels}", *span, self.info.name, None))
        return found
