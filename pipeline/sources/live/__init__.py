"""Live sources: cameras, broadcasts, growing files and pipes, watched until they are over.

    with open_live("rtsp://camera/live", LiveOptions()) as connection:   # one connection
        for frame in connection.frames(): ...

    stream = LiveStream("rtsp://camera/live", LiveOptions())             # watched, reconnected, never blocking
    for message in stream.messages(): ...

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.sources.live.connection import LiveConnection, open_live
    from pipeline.sources.live.kinds import KINDS, kind_of, shown
    from pipeline.sources.live.messages import StateChange, Tick
    from pipeline.sources.live.options import POLICIES, TRANSPORTS, LiveOptions
    from pipeline.sources.live.recording import Recorder, find_recording
    from pipeline.sources.live.stream import LiveStream

__all__ = [
    "KINDS",
    "POLICIES",
    "TRANSPORTS",
    "LiveConnection",
    "LiveOptions",
    "LiveStream",
    "Recorder",
    "StateChange",
    "Tick",
    "find_recording",
    "kind_of",
    "open_live",
    "shown",
]

_WHERE = {
    "KINDS": "kinds",
    "POLICIES": "options",
    "TRANSPORTS": "options",
    "LiveConnection": "connection",
    "LiveOptions": "options",
    "LiveStream": "stream",
    "Recorder": "recording",
    "StateChange": "messages",
    "Tick": "messages",
    "find_recording": "recording",
    "kind_of": "kinds",
    "open_live": "connection",
    "shown": "kinds",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
