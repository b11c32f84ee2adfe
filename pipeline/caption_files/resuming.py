"""Where the caption file of an earlier run ends, so that the next one goes on with it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.errors import OutputError

__all__ = ["FileEnd", "end_of", "segments_of"]

_CLOCK = rb"(\d{2,}):(\d\d):(\d\d)[.,](\d{3})"
_VTT = re.compile(rb"(?:NOTE [^\n]*\n\n)?" + _CLOCK + rb" --> [^\n]*\n(?:[^\n]+\n)+\n")
_SRT = re.compile(rb"\d+\n" + _CLOCK + rb" --> [^\n]*\n(?:[^\n]+\n)+\n")
_TEXT = re.compile(_CLOCK + rb"$")
_VTT_HEAD = b"WEBVTT\n\n"


@dataclass(frozen=True)
class FileEnd:
    """``at`` is the byte behind the last whole cue: what comes after it was cut off by a kill. ``cues`` are before it,
    and ``last_milliseconds`` is the start of the last one; -1 where there is none, or it has the wall clock instead."""

    at: int = 0
    cues: int = 0
    last_milliseconds: int = -1


def end_of(path: Path, form: str) -> FileEnd:
    """Where a file of Longreel's in this form ends.

    Raises:
        OutputError: it is no such file, and would be spoiled.
    """
    content = path.read_bytes()
    if not content:
        return FileEnd()
    if form == "vtt":
        if not content.startswith(_VTT_HEAD):
            if _VTT_HEAD.startswith(content):
                return FileEnd()
            raise _other(path, form)
        return _blocks(path, form, content, _VTT, len(_VTT_HEAD))
    if form == "srt":
        return _blocks(path, form, content, _SRT, 0)
    return _lines(path, form, content)


def segments_of(path: Path) -> tuple[int, int]:
    """The number of the first segment that a playlist of ours shows, and of the one that comes next; they are equal
    where it shows none.

    Raises:
        OutputError: it is no such playlist, and would be spoiled.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    shown = [line for line in lines if line and not line.startswith("#")]
    named = [re.fullmatch(re.escape(path.stem) + r"-(\d+)\.vtt", line) for line in shown]
    numbers = [int(match[1]) for match in named if match is not None]
    first = re.search(r"^#EXT-X-MEDIA-SEQUENCE:(\d+)$", "\n".join(lines), re.MULTILINE)
    if lines[:1] != ["#EXTM3U"] or first is None or numbers != [int(first[1]) + i for i in range(len(shown))]:
        raise _other(path, "m3u8")
    return int(first[1]), int(first[1]) + len(numbers)


def _blocks(path: Path, form: str, content: bytes, block: re.Pattern[bytes], at: int) -> FileEnd:
    cues, last = 0, -1
    while (match := block.match(content, at)) is not None:
        at, cues, last = match.end(), cues + 1, _milliseconds(match)
    # One cue may be cut off; where more is there that is not understood, somebody else wrote it.
    if b"\r" in content[at:] or re.search(rb"-->[^\n]*\n[^\n]+\n\n", content[at:]) or content[at:].count(b"\n\n") > 1:
        raise _other(path, form)
    return FileEnd(at, cues, last)


def _lines(path: Path, form: str, content: bytes) -> FileEnd:
    at, cues, last = content.rfind(b"\n") + 1, 0, -1
    for line in content[:at].splitlines():
        start = _start_of(line, form)
        if start is None:
            raise _other(path, form)
        cues, last = cues + 1, start
    return FileEnd(at, cues, last)


def _start_of(line: bytes, form: str) -> int | None:
    """Milliseconds, -1 where the line has the wall clock; ``None``: it is no line of ours."""
    if form == "jsonl":
        try:
            start = json.loads(line)["start_seconds"]
            return round(float(start) * 1000) if math.isfinite(float(start)) else None
        except (ValueError, KeyError, TypeError):
            return None
    when = line.partition(b"  ")[0]
    if (clock := _TEXT.match(when)) is not None:
        return _milliseconds(clock)
    try:
        datetime.fromisoformat(when.decode("ascii"))
    except ValueError:
        return None
    return -1


def _milliseconds(match: re.Match[bytes]) -> int:
    hours, minutes, seconds, rest = (int(part) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def _other(path: Path, form: str) -> OutputError:
    return OutputError(
        f"{path}: is there already, and not as Longreel writes {form}; move it away, or name another file"
    )
