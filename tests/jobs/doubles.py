"""A decoder for tests that goes by the file's name: it crashes, hangs, waits or meets a defect of ours when told so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.isolation import beat
from pipeline.media import Frame, MediaInfo, Span
from pipeline.sources.pyav_source import PyAVSource


class ByName(PyAVSource):
    """``crash*`` ends in a real segmentation fault, ``hang*`` gives no more frames, ``slip*`` raises what
    nobody foresaw, ``blank*`` has no frames but in its first part, ``hold*`` waits after 40 frames until there is a
    file ``go`` beside it; all others are read as usual."""

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        name = Path(self.info.uri).name
        if name.startswith("blank") and span is not None and span.start_seconds > 0:
            return
        for count, frame in enumerate(super().frames(span, keyframes_only)):
            if count == 5 and name.startswith("crash"):
                import ctypes

                ctypes.string_at(0)
            if count == 5 and name.startswith("slip"):
                raise ZeroDivisionError("a slip of ours")
            if count == 5 and name.startswith("hang"):
                time.sleep(3600)
            while count == 40 and name.startswith("hold") and not Path(self.info.uri).with_name("go").exists():
                beat()
                time.sleep(0.05)
            yield frame


def by_name(path: str, info: MediaInfo, *, short_side: int | None, threads: int, reason: str) -> ByName:
    return ByName(path, info, short_side=short_side, threads=threads, reason=reason)
