"""A vision-language model behind an address as a :class:`encoders.captioning.Captioner`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from encoders.captioning import Caption, CaptionerInfo, CaptionerOptions, KeyFrame, cover
from encoders.errors import EncoderClosed, EncoderInputError, TokensUnavailable
from encoders.streams import Earlier, StreamingOptions, StreamPush, check_streams
from encoders.vlm.address import Address, parse_address, read_key
from encoders.vlm.client import ChatClient
from encoders.vlm.counts import VlmCounts
from encoders.vlm.messages import request
from encoders.vlm.options import VlmOptions

if TYPE_CHECKING:
    import torch

    from csat_fusion.tokens import TokenSet

__all__ = ["VlmCaptioner", "load_vlm"]

# Of the options, what is not about the words.
_NOT_OF_WORDS = (
    *("key_variable", "timeout_seconds", "retries", "first_wait_seconds", "most_wait_seconds", "concurrency"),
    *("price_in", "price_out", "currency"),
)


class VlmCaptioner:
    """Shows a segment's key frames to a model and takes down its answer. Nothing is sent before the first caption."""

    def __init__(self, address: Address, options: VlmOptions) -> None:
        self._address, self._options = address, options
        self._client = ChatClient(address, read_key(address, options.key_variable), options)
        self._closed = False
        self._info = CaptionerInfo(
            name=address.name,
            fingerprint=_fingerprint(address, options),
            random=False,
            reads="",
            token_width=0,
            context_length=options.most_tokens,
            image_height=options.image_side,
            image_width=options.image_side,
            device="remote",
            key_frames=options.key_frames,
        )

    @property
    def info(self) -> CaptionerInfo:
        return self._info

    @property
    def counts(self) -> VlmCounts:
        """What asking has cost so far."""
        return self._client.counts

    def tokens(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        """There are none.

        Raises:
            TokensUnavailable: always.
        """
        self._open()
        raise TokensUnavailable(f"{self._info.name} looks at pictures, and has no tokens; give it key frames")

    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        key_frames: Sequence[Sequence[KeyFrame]] | None = None,
    ) -> list[Caption]:
        """See :meth:`encoders.captioning.Captioner.caption`. Each segment is a request of its own.

        Raises:
            VlmError: there was no answer for some; its ``captions`` are those that were answered.
        """
        return self._captions(len(token_sets), spans, key_frames)

    def streams(self, options: StreamingOptions | None = None) -> VlmStreams:
        """Captions of streams: what was said of earlier moments goes with the pictures. No state is kept here, and
        ``options``, which are of windows of tokens, have no say.

        Raises:
            EncoderClosed.
        """
        self._open()
        return VlmStreams(self._captions)

    def _captions(
        self,
        count: int,
        spans: Sequence[tuple[float, float] | None] | None,
        key_frames: Sequence[Sequence[KeyFrame]] | None,
        earlier: Sequence[Sequence[Earlier]] | None = None,
    ) -> list[Caption]:
        self._open()
        within = self._checked(count, spans, key_frames)
        shown = [cover(frames, self._info.key_frames) for frames in key_frames or ()]
        bodies = [
            request(self._address.model, self._options, frames, span, before)
            for frames, span, before in zip(shown, within, earlier or [()] * count, strict=True)
        ]
        answers, error = self._client.ask(bodies)
        captions = [
            None
            if answer is None
            else Caption(answer.text, *(span or _span(frames)), self._info.name, answer.confidence)
            for answer, frames, span in zip(answers, shown, within, strict=True)
        ]
        made = [caption for caption in captions if caption is not None]
        if error is not None:
            error.captions = tuple(captions) if made else ()
            raise error
        return made

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def __enter__(self) -> VlmCaptioner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> None:
        if self._closed:
            raise EncoderClosed(f"the captioner {self._info.name} was closed")

    def _checked(
        self,
        count: int,
        spans: Sequence[tuple[float, float] | None] | None,
        key_frames: Sequence[Sequence[KeyFrame]] | None,
    ) -> Sequence[tuple[float, float] | None]:
        """The spans, once everything fits."""
        if count and key_frames is None:
            raise EncoderInputError(f"there are no key frames; {self._info.name} looks at nothing else")
        for what, given in (("key frames", key_frames), ("spans", spans)):
            if given is not None and len(given) != count:
                raise EncoderInputError(f"there are {count} segments and {what} for {len(given)}")
        for i, span in enumerate(spans or ()):
            if span is not None and not -math.inf < span[0] < span[1] < math.inf:
                raise EncoderInputError(f"span {i} must be finite and end after it starts, got {tuple(span)}")
        for i, frames in enumerate(key_frames or ()):
            if not frames:
                raise EncoderInputError(f"segment {i} has no key frame")
            for frame in frames:
                image = frame.image
                if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                    raise EncoderInputError(
                        f"a key frame of segment {i} must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
                    )
        return [None] * count if spans is None else spans


class VlmStreams:
    """A :class:`encoders.streams.StreamCaptioner` that asks for each push by itself."""

    state_bytes = 0

    def __init__(self, ask: Callable[..., list[Caption]]) -> None:
        self._ask = ask

    def push(self, pushes: Sequence[StreamPush]) -> list[Caption]:
        check_streams(pushes)
        spans, frames = [push.span for push in pushes], [push.key_frames for push in pushes]
        return self._ask(len(pushes), spans, frames, [push.earlier for push in pushes])

    def drop(self, stream: str) -> None:
        """There is nothing to forget."""


def load_vlm(rest: str, options: CaptionerOptions) -> VlmCaptioner:
    """The model at ``MODEL@URL``; nobody is asked yet whether it is there.

    Raises:
        UnknownModel: no such address.
        EncoderOptionError: the key's variable is not there.
    """
    return VlmCaptioner(parse_address(rest), options.vlm or VlmOptions())


def _span(frames: Sequence[KeyFrame]) -> tuple[float, float]:
    return min(frame.start_seconds for frame in frames), max(frame.end_seconds for frame in frames)


def _fingerprint(address: Address, options: VlmOptions) -> str:
    words = {name: value for name, value in asdict(options).items() if name not in _NOT_OF_WORDS}
    content = {"format": 1, "name": address.name, "options": words}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
