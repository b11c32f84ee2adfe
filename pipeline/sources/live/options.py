"""How live sources are opened and watched."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import OptionError

__all__ = ["POLICIES", "TRANSPORTS", "LiveOptions"]

POLICIES = ("drop-oldest", "drop-newest", "wait")
TRANSPORTS = ("auto", "tcp", "udp")


@dataclass(frozen=True)
class LiveOptions:
    """Of one live source; times in seconds.

    Attributes:
        transport: of RTSP: "tcp", "udp", or "auto": TCP, then UDP where the server will not.
        open_seconds: how long opening may take, up to the first picture.
        stall_seconds: without a frame for so long a stream is stalled; for twice as long, its connection is given up.
            Of a playlist (.m3u8) frames come in pieces: it is stalled so long after one should have followed the last,
            and given up after half a minute at the earliest.
        reconnect: go on with a stream whose connection was lost; without it, the stream ends there.
        first_attempts: how often a stream is tried that has never played; 0 tries for ever, as for a camera that may be
            off when one begins to watch it. What no further try can mend (wrong credentials, no video, a web page, an
            unknown address) is never tried again before it has played.
        max_attempts: how often in a row a stream that has played is tried again; 0 tries for ever.
        backoff_seconds: the pause before the first try again; each further one is twice as long, up to
            ``backoff_max_seconds``, all within a fifth by chance, so that forty cameras do not come back at once.
        policy: what happens while the consumer is behind: "drop-oldest", "drop-newest", or "wait" (a live server will
            not wait long).
        queue_frames: decoded frames that wait for the consumer, at most; fewer where they would pass ``queue_bytes``.
        realtime: play a file as if it were happening, at its own pace.
        threads: of the decoder. More than one decode slices side by side, where the stream has slices; never ahead.
        record_seconds: a recorded file is closed at the first key frame after so long.
    """

    transport: str = "auto"
    open_seconds: float = 10.0
    stall_seconds: float = 5.0
    reconnect: bool = True
    first_attempts: int = 1
    max_attempts: int = 0
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 30.0
    policy: str = "drop-oldest"
    queue_frames: int = 48
    queue_bytes: int = 128 * 1024 * 1024
    realtime: bool = False
    threads: int = 1
    record_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.transport not in TRANSPORTS:
            raise OptionError(f"source.transport is {self.transport!r}; allowed: {', '.join(TRANSPORTS)}")
        if self.policy not in POLICIES:
            raise OptionError(f"source.policy is {self.policy!r}; allowed: {', '.join(POLICIES)}")
        for name in ("open_seconds", "stall_seconds", "backoff_seconds", "record_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise OptionError(f"source.{name} is {value}; allowed: more than 0")
        if not (math.isfinite(self.backoff_max_seconds) and self.backoff_max_seconds >= self.backoff_seconds):
            raise OptionError(
                f"source.backoff_max_seconds is {self.backoff_max_seconds}; allowed: at least backoff_seconds, "
                f"{self.backoff_seconds}"
            )
        for name, least in (("first_attempts", 0), ("max_attempts", 0), ("queue_frames", 1), ("queue_bytes", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"source.{name} is {getattr(self, name)}; allowed: {least} or more")
        if self.threads < 1:
            raise OptionError(f"source.threads is {self.threads}; allowed: 1 or more")
