"""What a caption file is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.errors import InputError

__all__ = ["Cue"]


@dataclass(frozen=True)
class Cue:
    """Words for the half-open span ``[start_seconds, end_seconds)`` of media time.

    ``utc`` (aware) is the wall clock at its start, where it is known; ``stream`` names the video or camera.

    Raises:
        InputError: times that are negative, not finite or in the wrong order.
    """

    start_seconds: float
    end_seconds: float
    text: str
    utc: datetime | None = None
    stream: str = ""
    model: str = ""
    confidence: float | None = None

    def __post_init__(self) -> None:
        start, end = self.start_seconds, self.end_seconds
        if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
            raise InputError(f"a caption from {start} to {end} s: must begin at 0 or later, and end after that")

    @property
    def start_milliseconds(self) -> int:
        """As files have it."""
        return round(self.start_seconds * 1000)

    @property
    def end_milliseconds(self) -> int:
        """As files have it; at least one after the start."""
        return max(round(self.end_seconds * 1000), self.start_milliseconds + 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: times in seconds, UTC by ISO 8601 or null, the text as it is."""
        return {
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "utc": None if self.utc is None else self.utc.isoformat(),
            "stream": self.stream,
            "model": self.model,
            "confidence": self.confidence,
            "text": self.text,
        }
