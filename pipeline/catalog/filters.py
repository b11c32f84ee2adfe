"""What a search looks at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import QueryError
from pipeline.media import Span

__all__ = ["Filter"]

_FOREVER_SECONDS = 1e12


@dataclass(frozen=True)
class Filter:
    """Where to look: one video, videos with a tag or added after a time, a range of media time within videos, and what
    was recorded after a time, before one, or between two.

    ``after`` and ``before`` are the wall clock: of a stream by its connections, of a file by its start time; files of
    which nobody knows when they were recorded are left out.

    Raises:
        QueryError: a range that ends before it starts or is not finite, or a time without a time zone.
    """

    video_id: str | None = None
    tag: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    added_after: datetime | None = None
    after: datetime | None = None
    before: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("added_after", "after", "before"):
            time: datetime | None = getattr(self, name)
            if time is not None and time.tzinfo is None:
                raise QueryError(f"{name} {time.isoformat()} has no time zone")
        if self.after is not None and self.before is not None and self.before <= self.after:
            raise QueryError(f"before {self.before.isoformat()} must be later than after {self.after.isoformat()}")
        _ = self.span  # checks the range

    @property
    def span(self) -> Span | None:
        """The range of media time, open ends filled in."""
        if self.start_seconds is None and self.end_seconds is None:
            return None
        start = 0.0 if self.start_seconds is None else self.start_seconds
        end = _FOREVER_SECONDS if self.end_seconds is None else self.end_seconds
        try:
            return Span(start, end)
        except ValueError as error:
            raise QueryError(f"time range: {error}") from error

    @property
    def is_empty(self) -> bool:
        return self == Filter()
