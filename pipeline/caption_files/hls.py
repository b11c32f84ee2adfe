"""Segmented WebVTT for HLS (RFC 8216, section 3.5): a playlist that grows, and a file for each stretch of time."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

from pipeline.caption_files.cues import Cue
from pipeline.caption_files.resuming import FileEnd, segments_of
from pipeline.caption_files.writers import CaptionWriter, vtt_cue
from pipeline.errors import OptionError, OutputError

__all__ = ["HlsVttWriter"]

_MPEG_CLOCK = 90_000  # units a second


class HlsVttWriter(CaptionWriter):
    """Writes ``NAME.m3u8`` and ``NAME-00000.vtt``, ``NAME-00001.vtt``, ... beside it.

    Segments follow each other without a gap, each ``target_seconds`` long; one in which nothing is said is there as
    well, and a cue that crosses into the next stands in both, as the RFC wants. A segment enters the playlist when its
    time is over, which the next cue, a last one that goes on, or the end tells; the playlist is replaced whole.

    Args:
        path: of the playlist.
        live: keep the last ``keep`` segments and let older ones go, as players of live video expect. Otherwise the
            playlist is of type EVENT and keeps all.
        offset_seconds: media time zero on the MPEG clock of the video beside which it is played.
        go_on: the playlist of an earlier run, if there is one, stays; what was not said between is silence.

    Raises:
        OptionError: a target that is not above 0.
        OutputError: the folder cannot be written, or the playlist there is not Longreel's to go on with.
    """

    def __init__(
        self,
        path: Path,
        target_seconds: float = 6.0,
        *,
        live: bool = False,
        keep: int = 20,
        offset_seconds: float = 0.0,
        go_on: bool = False,
    ) -> None:
        if not (math.isfinite(target_seconds) and target_seconds > 0):
            raise OptionError(f"target_seconds is {target_seconds}; allowed: more than 0")
        self._path, self._target, self._live, self._keep = path, target_seconds, live, keep
        self._offset = round(offset_seconds * _MPEG_CLOCK) % 2**33
        self._first = 0  # segment of the playlist
        self._next = 0  # segment that is not complete yet
        self._cues: list[Cue] = []
        self._begun = False
        before = FileEnd()
        if go_on and path.is_file() and path.stat().st_size:
            self._first, self._next = segments_of(path)
            self._begun = self._next > self._first
            before = FileEnd(last_milliseconds=round(1000 * target_seconds * max(0, self._next - 1)))
        super().__init__(io.BytesIO(), where=str(path), after=before)
        for old in self._files():
            if not self._first <= int(old.stem.rpartition("-")[2]) < self._next:
                old.unlink(missing_ok=True)
        self._playlist(ended=False)

    def write(self, cue: Cue) -> None:
        """The next cue; segments that end before it begins are complete."""
        super().write(cue)
        if not self._begun:
            # A stream that goes on after days does not begin with days of empty segments.
            self._first = self._next = int(cue.start_seconds / self._target)
            self._begun = True
        self._complete(int(cue.start_seconds / self._target))
        self._cues.append(cue)

    def extend(self, end_seconds: float) -> None:
        """The last cue goes on in segments that are not complete yet; those before its end are now."""
        super().extend(end_seconds)
        if self._cues and self._last is not None:
            self._cues[-1] = self._last
            self._complete(int(self._last.end_seconds / self._target))

    def close(self) -> None:
        """The last segments, and the end of the list."""
        if not self._closed:
            last = max((cue.end_seconds for cue in self._cues), default=self._next * self._target)
            self._complete(math.ceil(last / self._target))
            self._playlist(ended=True)
        super().close()

    def _form(self, cue: Cue, again: bool = False) -> str:
        return ""

    def _complete(self, until: int) -> None:
        """Segments before number ``until`` are written."""
        if until <= self._next:
            return
        # After a long silence only those segments are made that the playlist still shows.
        if self._live:
            self._next = max(self._next, until - self._keep)
        while self._next < until:
            start, end = self._next * self._target, (self._next + 1) * self._target
            said = [cue for cue in self._cues if cue.start_seconds < end and cue.end_seconds > start]
            head = f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:{self._offset}\n\n"
            self._replace(self._segment(self._next), head + "".join(map(vtt_cue, said)))
            self._next += 1
        # The last one stays: its scene may go on.
        self._cues = [cue for cue in self._cues if cue.end_seconds > self._next * self._target or cue is self._last]
        if self._live:
            first = max(self._first, self._next - self._keep)
            for number in range(self._first, first):
                self._segment(number).unlink(missing_ok=True)
            self._first = first
        self._playlist(ended=False)

    def _playlist(self, *, ended: bool) -> None:
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{math.ceil(self._target)}"]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{self._first}")
        if not self._live:
            lines.append("#EXT-X-PLAYLIST-TYPE:EVENT")
        for number in range(self._first, self._next):
            lines += [f"#EXTINF:{self._target:.3f},", self._segment(number).name]
        if ended:
            lines.append("#EXT-X-ENDLIST")
        self._replace(self._path, "\n".join(lines) + "\n")

    def _segment(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}-{number:05d}.vtt")

    def _files(self) -> list[Path]:
        """Segments of an earlier run under this name."""
        stem = f"{self._path.stem}-"
        return [
            file
            for file in self._path.parent.iterdir()
            if file.suffix == ".vtt" and file.stem.startswith(stem) and file.stem.removeprefix(stem).isdigit()
        ]

    def _replace(self, path: Path, text: str) -> None:
        """In one move: who reads it meanwhile finds the old one or the new one."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(text, encoding="utf-8", newline="\n")
            os.replace(partial, path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
