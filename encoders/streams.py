"""The interface of captioners that know the stream a segment belongs to. Nothing heavy is imported here.

A captioner that can is told what comes next in each stream, keeps a state of each that does not grow, and lets its
words stand while they still fit. One that cannot takes each segment for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from encoders.captioning import Caption
from encoders.errors import EncoderInputError, EncoderOptionError
from encoders.keyframes import KeyFrame

if TYPE_CHECKING:
    from csat_fusion.tokens import TokenSet

__all__ = ["CaptionsStreams", "Earlier", "StreamCaptioner", "StreamPush", "StreamingOptions", "check_streams"]


@dataclass(frozen=True)
class StreamingOptions:
    """How much of a stream is remembered.

    Attributes:
        window_seconds: how far back a caption looks; a push that is longer is seen whole. Longer windows need to be
            told of cuts: what is left of another scene does more harm than more of the same one does good.
        budget: M, how many merged tokens are kept at most.
        gap_seconds: tokens with more unseen time between them merge only where nothing else is left to.
        margin: in nats a text token, by which new words must be likelier than the last sentence to take its place; 0:
            the likelier ones are taken. At 0.1 the bundled model's words for a photograph under a moving camera changed
            in 11 of 148 windows of 2 s, at 0 in 56, and were no worse (a CIDEr of 16.3 and 15.8).

    Raises:
        EncoderOptionError: a value outside what is allowed.
    """

    window_seconds: float = 12.0
    budget: int = 256
    gap_seconds: float = 1.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.budget, bool) or not isinstance(self.budget, int) or self.budget < 1:
            raise EncoderOptionError(f"budget is {self.budget!r}; allowed: a whole number of tokens, at least 1")
        if not 0 < self.window_seconds < math.inf:
            raise EncoderOptionError(f"window_seconds is {self.window_seconds}; allowed: above 0, finite")
        for name in ("gap_seconds", "margin"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise EncoderOptionError(f"{name} is {value}; allowed: at least 0, finite")


@dataclass(frozen=True)
class Earlier:
    """What was said of an earlier moment of the stream, and its span in seconds."""

    text: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, eq=False)
class StreamPush:
    """What comes next in ``stream``, in a span in seconds that starts where the one before ended, or later.

    Attributes:
        token_set: what was seen, compressed; for captioners that read tokens.
        cut: a new scene, with which nothing before it has to do.
        key_frames: what was seen, as pictures in order of time; for captioners that want those.
        earlier: moments of the stream that looked like this one, in order of time; for captioners that read what was
            said.
    """

    stream: str
    token_set: TokenSet | None
    span: tuple[float, float]
    cut: bool = False
    key_frames: Sequence[KeyFrame] = ()
    earlier: Sequence[Earlier] = ()


def check_streams(pushes: Sequence[StreamPush]) -> None:
    """Raises :class:`EncoderInputError` where a stream has several pushes in one call."""
    if len({push.stream for push in pushes}) != len(pushes):
        raise EncoderInputError("a stream is pushed twice in one call; its pushes come one after the other")


class StreamCaptioner(Protocol):
    """Captions any number of streams. Not safe for several threads at once."""

    @property
    def state_bytes(self) -> int:
        """Bytes held between calls; as many after hours as after minutes."""
        ...

    def push(self, pushes: Sequence[StreamPush]) -> list[Caption]:
        """The caption of each stream for what comes next in it; side by side, so a stream has one push in a call.

        Raises:
            EncoderInputError: none of what it reads; tokens of another width, not finite, or not of the span; a span
                that is none or begins before the last one ended; a stream twice. All states are as before the call.
            EncoderError: the model gives no finite scores (windows have moved on, the last sentences have not changed),
                or does not answer; ``captions`` of the error are those that were made.
        """
        ...

    def drop(self, stream: str) -> None:
        """Forget a stream; one that is not known is none to forget."""
        ...


@runtime_checkable
class CaptionsStreams(Protocol):
    """A captioner that can."""

    def streams(self, options: StreamingOptions | None = None) -> StreamCaptioner:
        """Captions of streams by this captioner's weights, which have to stay open.

        Raises:
            EncoderClosed.
        """
        ...
