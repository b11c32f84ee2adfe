"""A source that plays a fixed script in whatever process it is opened."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.media import Damage, Frame, MediaInfo, Span
from pipeline.sources.base import Source
from tests.pipeline.fakes import SIDE, scripted_frames

__all__ = ["StepsSource"]

_LEVELS = (20,) * 4 + (100,) * 4 + (180,) * 4  # a pattern adds 20 on the mean


class StepsSource(Source):
    """4 seconds each of three grey levels, 10 frames a second."""

    decoder = "scripted"
    decoder_reason = "a test asked for it"

    def __init__(
        self, path: str, info: MediaInfo, *, short_side: int | None = SIDE, threads: int = 0, reason: str = ""
    ) -> None:
        self.info = info
        self.damage = Damage()

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        for frame in scripted_frames(_LEVELS):
            if span is None or span.contains(frame.pts_seconds):
                yield frame

    def close(self) -> None: ...
