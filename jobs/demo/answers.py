"""What the demo asked and what was found: questions whose answer is known, and questions about anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.media import Span
from pipeline.search import Moment

__all__ = ["Answer", "OpenAnswer", "overlap"]

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Answer:
    """A question, where the answer should lie, and what was found.

    Attributes:
        title: what was asked for; the words themselves, where it was asked in words.
        name: the film where it is; ``uri`` its file.
        span: when it is.
        asked_seconds: the time of the picture that was asked with; ``None`` where words were.
        picture: that picture, or ``None``.
        moments: best first.
        command: how ``longreel query`` is asked the same.
    """

    title: str
    name: str
    uri: str
    span: Span
    asked_seconds: float | None
    picture: Picture | None
    moments: tuple[Moment, ...]
    command: str

    def covers(self, moment: Moment) -> bool:
        """Whether a moment is of the right film and covers the time asked for; in words: has its peak in the span."""
        if moment.uri != self.uri:
            return False
        if self.asked_seconds is None:
            return self.span.start_seconds <= moment.peak_seconds < self.span.end_seconds
        return moment.start_seconds <= self.asked_seconds < moment.end_seconds

    @property
    def right(self) -> bool:
        """Whether the first moment is the one asked for, see :meth:`covers`."""
        return bool(self.moments) and self.covers(self.moments[0])

    @property
    def right_film(self) -> bool:
        """Whether the first moment is at least of the right film."""
        return bool(self.moments) and self.moments[0].uri == self.uri

    @property
    def overlap(self) -> float:
        """Intersection over union of the first moment and the truth; 0 in another film."""
        if not self.right_film:
            return 0.0
        return overlap(Span(self.moments[0].start_seconds, self.moments[0].end_seconds), self.span)

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "expected": {
                "uri": self.uri,
                "name": self.name,
                "start_seconds": self.span.start_seconds,
                "end_seconds": self.span.end_seconds,
            },
            "asked_seconds": self.asked_seconds,
            "moments": [moment.to_dict() for moment in self.moments],
            "overlap": round(self.overlap, 3),
            "right": self.right,
            "right_film": self.right_film,
            "command": self.command,
        }


@dataclass(frozen=True)
class OpenAnswer:
    """A question in words whose right answer nobody knows, and the moments found, best first.

    ``confident`` says whether the first is a confident match; ``own`` whether a person asked it, not the demo.
    """

    words: str
    own: bool
    moments: tuple[Moment, ...]
    confident: bool
    command: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "words": self.words,
            "own": self.own,
            "moments": [moment.to_dict() for moment in self.moments],
            "confident": self.confident,
            "command": self.command,
        }


def overlap(a: Span, b: Span) -> float:
    """Intersection over union of two spans."""
    shared = min(a.end_seconds, b.end_seconds) - max(a.start_seconds, b.start_seconds)
    return max(0.0, shared) / (a.duration_seconds + b.duration_seconds - max(0.0, shared))
