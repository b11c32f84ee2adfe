"""The options of live streams; how they are opened is :class:`pipeline.sources.live.LiveOptions`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pipeline.errors import OptionError
from pipeline.sources.live.options import LiveOptions

__all__ = ["CaptionWindowOptions", "LiveSettings", "MemoryOptions", "RetentionOptions", "WindowOptions"]


def _positive(section: str, options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{section}.{name} is {value}; allowed: more than 0")


@dataclass(frozen=True)
class WindowOptions:
    """How a stream is cut into windows, which are captioned and searched.

    A window ends where a shot does, and after ``max_seconds`` at the latest. While nothing new is seen, though, it goes
    on, up to ``still_seconds``: a still scene does not say the same again and again. What is seen is searchable after
    ``flush_seconds``, before its window is complete. ``beat_seconds`` is how often a stream passes on what it has.
    """

    max_seconds: float = 10.0
    still_seconds: float = 120.0
    flush_seconds: float = 2.0
    beat_seconds: float = 0.5

    def __post_init__(self) -> None:
        _positive("live.window", self, "max_seconds", "still_seconds", "flush_seconds", "beat_seconds")
        if self.still_seconds < self.max_seconds:
            raise OptionError(
                f"live.window.still_seconds is {self.still_seconds}; allowed: max_seconds ({self.max_seconds}) or more"
            )


@dataclass(frozen=True)
class CaptionWindowOptions:
    """When a window is captioned.

    Windows shorter than ``least_seconds`` get no words. Where more than ``waiting`` windows of a stream wait for words,
    the oldest are skipped, and counted: what is said is about now.

    While a scene goes on, the words before stand until others are likelier by ``margin``, in nats a text token (0: the
    likelier ones are taken), and a caption looks back at least ``back_seconds`` (0: at its window only). Both are for
    captioners that read tokens. One that reads words as well, behind an address, may be told of ``earlier`` moments of
    the stream: what was said last, and of what looked most like the window among the last ``remembered`` ones.
    """

    least_seconds: float = 0.5
    waiting: int = 4
    margin: float = 0.1
    back_seconds: float = 0.0
    earlier: int = 0
    remembered: int = 512

    def __post_init__(self) -> None:
        if not (math.isfinite(self.least_seconds) and self.least_seconds >= 0):
            raise OptionError(f"live.captions.least_seconds is {self.least_seconds}; allowed: 0 or more")
        if self.waiting < 1:
            raise OptionError(f"live.captions.waiting is {self.waiting}; allowed: 1 or more")
        if self.earlier < 0:
            raise OptionError(f"live.captions.earlier is {self.earlier}; allowed: 0 (none) or more")
        if self.remembered < 1:
            raise OptionError(f"live.captions.remembered is {self.remembered}; allowed: 1 or more")
        for name in ("margin", "back_seconds"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise OptionError(f"live.captions.{name} is {value}; allowed: 0 or more")


@dataclass(frozen=True)
class MemoryOptions:
    """The stream's long memory: ``tokens`` merged tokens in which recent time is fine and old time is coarse, whatever
    its length (0: none). ``fine_seconds`` is how far back time is kept at nearly full resolution."""

    tokens: int = 0
    fine_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise OptionError(f"live.memory.tokens is {self.tokens}; allowed: 0 (none) or more")
        _positive("live.memory", self, "fine_seconds")


@dataclass(frozen=True)
class RetentionOptions:
    """What is kept of each stream: so many ``hours`` back and so many ``bytes`` at most (0: without limit). The oldest
    goes first: pictures, token sets, vectors and captions, and recorded files. Checked every ``every_seconds``."""

    hours: float = 0.0
    bytes: int = 0
    every_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.hours) and self.hours >= 0):
            raise OptionError(f"live.retention.hours is {self.hours}; allowed: 0 (without limit) or more")
        if self.bytes < 0:
            raise OptionError(f"live.retention.bytes is {self.bytes}; allowed: 0 (without limit) or more")
        _positive("live.retention", self, "every_seconds")


@dataclass(frozen=True)
class LiveSettings:
    """Everything about live streams beyond what recorded video has as well."""

    source: LiveOptions = field(default_factory=LiveOptions)
    window: WindowOptions = field(default_factory=WindowOptions)
    captions: CaptionWindowOptions = field(default_factory=CaptionWindowOptions)
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    retention: RetentionOptions = field(default_factory=RetentionOptions)
