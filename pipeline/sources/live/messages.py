"""What a live stream says besides frames and connections."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.live.types import LiveState

__all__ = ["StateChange", "Tick"]


@dataclass(frozen=True)
class StateChange:
    """The stream is in another state now; ``reason`` is for people, ``at`` (aware) the wall clock."""

    state: LiveState
    reason: str
    at: datetime


@dataclass(frozen=True)
class Tick:
    """Nothing came for a while: time to flush, to say that one lives, to see whether one should stop."""

    at: datetime
