"""The interface of a source, and what every implementation shares: picture size, which frames a span holds.

A source gives frames in time order. ``pts`` counts from the stream's first PTS, in the stream's ``time_base``.

Shapes: H x W pixels of the upright picture in display aspect.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import Protocol

from pipeline.errors import OptionError
from pipeline.media import Damage, Frame, MediaInfo, Span

__all__ = ["Source", "SourceFactory", "decode_threads", "picture_size"]


class Source(ABC):
    """One opened video. A context manager; not safe to share between threads.

    Attributes:
        info: what the container states.
        decoder: name of the decoder in use.
        decoder_reason: why this one.
        damage: what was lost; filled while ``frames`` is iterated and complete when it ends.
    """

    info: MediaInfo
    damage: Damage

    @property
    @abstractmethod
    def decoder(self) -> str: ...

    @property
    @abstractmethod
    def decoder_reason(self) -> str: ...

    @abstractmethod
    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        """The frames whose presentation time lies in ``span`` (all of them without one), in strictly increasing pts.

        A frame belongs to the one span that holds its ``pts``. The frame on screen at the start of a span therefore
        belongs to the span before, where its ``duration`` reaches over the border: parts joined give every frame once,
        and no time is lost. With ``keyframes_only`` a frame's duration reaches to the next key frame.

        Raises:
            MediaUnreadable: not one frame could be decoded.
            MediaDamaged: the decoder gave up in the middle and cannot go on.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the decoder. May be called more than once."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SourceFactory(Protocol):
    """What the table of decoders holds: opens a local file that has been probed."""

    def __call__(self, path: str, info: MediaInfo, *, short_side: int | None, threads: int, reason: str) -> Source: ...


def picture_size(info: MediaInfo, short_side: int | None) -> tuple[int, int]:
    """Width and height of the frames that a source gives: the short side is ``short_side`` exactly, smaller or larger
    than the original, so that an encoder always sees its own size; ``None`` keeps the display size.

    Raises:
        OptionError: ``short_side`` is less than 1.
    """
    if short_side is None:
        return info.width, info.height
    if short_side < 1:
        raise OptionError(f"short_side must be at least 1 pixel or None, got {short_side}")
    scale = Fraction(short_side, min(info.width, info.height))
    return max(1, round(info.width * scale)), max(1, round(info.height * scale))


def decode_threads(threads: int) -> int:
    """``threads`` itself, or for 0 half of the cores that this process may use, at least 1 and at most 4.

    The other half is for the encoder: each further thread costs decoding about a quarter more processor time.

    Raises:
        OptionError: ``threads`` is negative.
    """
    if threads < 0:
        raise OptionError(f"threads must be 0 (automatic) or more, got {threads}")
    return threads or max(1, min(4, len(os.sched_getaffinity(0)) // 2))
