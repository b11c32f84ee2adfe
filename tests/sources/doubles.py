"""Decoders for tests, named as ``tests.sources.doubles:factory``, and generators that run in an isolated child."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pipeline.errors import MediaDamaged
from pipeline.media import Frame, MediaInfo, Span
from pipeline.sources import open_source
from pipeline.sources.pyav_source import PyAVSource


class Crashing(PyAVSource):
    """Gives five frames, then a real segmentation fault."""

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        import ctypes

        for count, frame in enumerate(super().frames(span, keyframes_only)):
            if count == 5:
                ctypes.string_at(0)
            yield frame


class Hanging(PyAVSource):
    """Gives five frames, then none for an hour."""

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        for count, frame in enumerate(super().frames(span, keyframes_only)):
            if count == 5:
                time.sleep(3600)
            yield frame


class GivingUp(PyAVSource):
    """Gives up after seven frames, as decord does where a file is damaged."""

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        for count, frame in enumerate(super().frames(span, keyframes_only)):
            if count == 7:
                raise MediaDamaged(f"{self.info.uri}: gave up on purpose")
            yield frame


def crashing(path: str, info: MediaInfo, *, short_side: int | None, threads: int, reason: str) -> Crashing:
    return Crashing(path, info, short_side=short_side, threads=threads, reason=reason)


def hanging(path: str, info: MediaInfo, *, short_side: int | None, threads: int, reason: str) -> Hanging:
    return Hanging(path, info, short_side=short_side, threads=threads, reason=reason)


def times_then_facts(path: str, decoder: str) -> Iterator[Any]:
    """The pts of every frame, then (decoder, reason, damage)."""
    with open_source(path, decoder=decoder) as source:
        for frame in source.frames():
            yield frame.pts
        yield source.decoder, source.decoder_reason, source.damage
