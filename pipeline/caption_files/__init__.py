"""Caption files: WebVTT, SRT, JSON lines, text and segmented WebVTT, of recorded videos and of streams that go on.

Every writer's file is whole after each cue, so that a player may follow it and a kill leaves a valid one.
"""

from __future__ import annotations

from pipeline.caption_files.cues import Cue
from pipeline.caption_files.hls import HlsVttWriter
from pipeline.caption_files.writers import (
    FORMATS,
    CaptionWriter,
    JsonlWriter,
    SrtWriter,
    TextWriter,
    VttWriter,
    check_writable,
    format_of,
    open_writer,
    write_cues,
)

__all__ = [
    "FORMATS",
    "CaptionWriter",
    "Cue",
    "HlsVttWriter",
    "JsonlWriter",
    "SrtWriter",
    "TextWriter",
    "VttWriter",
    "check_writable",
    "format_of",
    "open_writer",
    "write_cues",
]
