"""A stream under way, how it ended, and who is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from csat_fusion.errors import LongreelError
from pipeline.errors import DiskFull, LibraryBusy, UnexpectedError
from pipeline.live.loop import StreamTask
from pipeline.live.session import StreamSession
from pipeline.live.types import LiveCaption

if TYPE_CHECKING:
    from encoders.vlm.counts import VlmCounts
    from encoders.vlm.options import VlmOptions
    from jobs.live.lanes import EncodeLane

__all__ = ["RESTART_SECONDS", "LiveReporter", "RunningStream", "StreamResult", "unforeseen"]

_log = logging.getLogger(__name__)
RESTART_SECONDS = (0.5, 30.0)  # first and longest pause before what failed is asked again
_T = TypeVar("_T")


class LiveReporter:
    """Is told what happens; this one says nothing."""

    def note(self, message: str) -> None: ...
    def stream_started(self, session: StreamSession, uri: str) -> None: ...
    def state_changed(self, session: StreamSession) -> None: ...
    def captioned(self, session: StreamSession, caption: LiveCaption) -> None: ...
    def beat(self, sessions: Sequence[StreamSession]) -> None: ...
    def stream_ended(self, session: StreamSession, error: LongreelError | None) -> None: ...
    def asked(self, captioner: str, counts: VlmCounts, prices: VlmOptions) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class StreamResult:
    """How a stream ended; ``error`` where it failed."""

    session: StreamSession
    error: LongreelError | None


@dataclass(eq=False)
class RunningStream:
    """A stream under way. ``words_left`` of its windows wait for words; ``idle`` is set while there are none."""

    task: StreamTask
    session: StreamSession
    lane: EncodeLane | None = None
    worker: Any = None
    over: bool = False
    words_left: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    @property
    def id(self) -> str:
        return self.session.video_id

    def wait_for_words(self, count: int) -> None:
        """So many more windows wait for words; fewer where it is negative."""
        self.words_left += count
        if self.words_left > 0:
            self.idle.clear()
        else:
            self.idle.set()

    async def pause(self, seconds: float) -> None:
        """Wait, and no longer once the stream is to stop."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def kept(self, write: Callable[..., _T], *values: Any) -> _T:
        """What ``write`` of its session gives, called in a thread. While the disk is full, or somebody holds the
        catalog, it is tried again, until the stream is to stop: frames that come meanwhile wait, and fall out of the
        stream's queue by its policy.

        Raises:
            LongreelError: it cannot be written.
        """
        pause, longest = RESTART_SECONDS
        while True:
            try:
                return await asyncio.to_thread(write, *values)
            except (DiskFull, LibraryBusy) as error:
                if self.stopping.is_set():
                    raise
                _log.warning("%s: %s; again in %.1f s", self.session.name, error, pause)
                self.session.note(f"{type(error).__name__}: {error}")
            await self.pause(pause)
            pause = min(2 * pause, longest)


def unforeseen(what: str, error: Exception) -> LongreelError:
    """A defect of ours costs the stream that it shows itself on; the log has the rest."""
    _log.error("%s: unexpected error", what, exc_info=error)
    return UnexpectedError(f"{what}: {type(error).__name__}: {error}")
