"""The demo's captions: a few segments of each film, and of a few of the files that a person brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import LibraryError, SourceError
from pipeline.media import Span

if TYPE_CHECKING:
    from encoders.captioning import Captioner
    from jobs.demo.play import DemoResult
    from pipeline.catalog.records import VideoRecord
    from pipeline.library import Library

__all__ = ["ShownCaption", "caption"]

_SEGMENTS = 2  # of a drawn film
_OWN_SEGMENTS, _OWN_VIDEOS = 4, 5  # of a person's files: however many and long they are, this takes seconds


@dataclass(frozen=True)
class ShownCaption:
    """The caption of a segment; ``confidence`` as in :class:`encoders.captioning.Caption`."""

    name: str
    uri: str
    span: Span
    text: str
    confidence: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "uri": self.uri,
            "start_seconds": self.span.start_seconds,
            "end_seconds": self.span.end_seconds,
            "text": self.text,
            "confidence": self.confidence,
        }


def caption(
    result: DemoResult,
    library: Library,
    captioner: Captioner,
    films: Sequence[VideoRecord],
    own: Sequence[VideoRecord] = (),
) -> None:
    """Caption segments of the drawn ``films`` and of a person's ``own`` videos; fills ``result.captions``.

    The captions are kept in the library, so answers show them. A video that cannot be captioned (its file is gone)
    becomes one of ``result.surprises``.
    """
    from pipeline.captioning import caption_segments

    few = [own[i * len(own) // _OWN_VIDEOS] for i in range(_OWN_VIDEOS)] if len(own) > _OWN_VIDEOS else list(own)
    result.captioner = captioner.info.name
    for video, limit in [(film, _SEGMENTS) for film in films] + [(one, _OWN_SEGMENTS) for one in few]:
        try:
            done = caption_segments(library, video.id, captioner, limit=limit)
        except (SourceError, LibraryError) as error:
            result.surprises.append(f"captions of {video.name}: {type(error).__name__}: {error}")
            continue
        result.captions += [
            ShownCaption(video.name, video.uri, one.span, one.text, one.confidence) for one in done.captions
        ]
