"""One writer for each form of caption file, and their table."""

from __future__ import annotations

import io
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from pipeline.caption_files.cues import Cue
from pipeline.caption_files.resuming import FileEnd, end_of
from pipeline.errors import OptionError, OutputError

__all__ = [
    "FORMATS",
    "CaptionWriter",
    "JsonlWriter",
    "SrtWriter",
    "TextWriter",
    "VttWriter",
    "check_writable",
    "format_of",
    "open_writer",
    "vtt_cue",
    "write_cues",
]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_BREAKS = re.compile(r"[ \t]*(?:\r\n|\r|\n)[\s]*")


class CaptionWriter(ABC):
    """Writes cues, in order of their starts, to a file of bytes (UTF-8); what was written is flushed with each cue.

    The last cue may be made longer afterwards, for a scene that goes on. A context manager.

    Args:
        out: where to; closed with the writer where ``own``.
        where: what to call it in messages.
        after: what an earlier run wrote, behind which ``out`` stands; it stays as it is.
    """

    def __init__(
        self, out: BinaryIO, *, where: str = "the output", own: bool = False, after: FileEnd | None = None
    ) -> None:
        self._out, self._where, self._own = out, where, own
        self._after = after or FileEnd()
        self._last: Cue | None = None
        self._at: int | None = None  # where the last cue begins; None where nothing can be written over
        self._closed = False
        if not self._after.at:
            self._put(self._head())

    @property
    def reached_seconds(self) -> float:
        """The start of the last cue, of an earlier run where this one has none yet; 0 before any."""
        return max(0, self._after.last_milliseconds if self._last is None else self._last.start_milliseconds) / 1000

    @property
    def where(self) -> str:
        """What the output is called in messages."""
        return self._where

    def write(self, cue: Cue) -> None:
        """The next cue.

        Raises:
            OutputError: it begins before the one before it, or the file cannot be written (any more).
        """
        self._must_be_open()
        if cue.start_milliseconds < self.reached_seconds * 1000 - 0.5:
            raise OutputError(
                f"{self._where}: a cue from {cue.start_seconds:.3f} s comes after one from {self.reached_seconds:.3f} "
                "s; they must come in order"
            )
        self._at = self._out.tell() if self._out.seekable() else None
        self._last = cue
        self._put(self._form(cue))

    def extend(self, end_seconds: float) -> None:
        """The scene of the last cue goes on until then; an earlier end changes nothing, nor without any cue.

        The cue is written over, the new form first, so that whoever reads the file always finds it whole. Where nothing
        can be written over (a pipe), a cue with the same words follows it.

        Raises:
            OutputError: the file cannot be written (any more).
        """
        self._must_be_open()
        last = self._last
        if last is None or end_seconds <= last.end_seconds:
            return
        if self._at is None:
            moved = None if last.utc is None else last.utc + timedelta(seconds=last.end_seconds - last.start_seconds)
            self.write(replace(last, start_seconds=last.end_seconds, end_seconds=end_seconds, utc=moved))
            return
        self._last = replace(last, end_seconds=end_seconds)
        with _told(self._where):
            self._out.seek(self._at)
        self._put(self._form(self._last, again=True))
        with _told(self._where):
            self._out.truncate()

    def close(self) -> None:
        """Finish the file. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._own:
            with _told(self._where):
                self._out.close()

    def __enter__(self) -> CaptionWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _must_be_open(self) -> None:
        if self._closed:
            raise OutputError(f"{self._where}: is closed; nothing can be written any more")

    def _put(self, text: str) -> None:
        with _told(self._where):
            self._out.write(text.encode("utf-8"))
            self._out.flush()

    def _head(self) -> str:
        return ""

    @abstractmethod
    def _form(self, cue: Cue, again: bool = False) -> str:
        """A cue as text, with all that separates it from the next. ``again``: in place of its form before."""


class VttWriter(CaptionWriter):
    """WebVTT (W3C, "WebVTT: The Web Video Text Tracks Format"). A cue's UTC and model go into a NOTE before it."""

    def _head(self) -> str:
        return "WEBVTT\n\n"

    def _form(self, cue: Cue, again: bool = False) -> str:
        return vtt_cue(cue)


class SrtWriter(CaptionWriter):
    """SubRip: numbered cues."""

    _number = 0

    def _form(self, cue: Cue, again: bool = False) -> str:
        self._number = self._number or self._after.cues
        self._number += not again
        times = f"{clock(cue.start_milliseconds, ',')} --> {clock(cue.end_milliseconds, ',')}"
        return f"{self._number}\n{times}\n{_lines(cue.text).replace('-->', '->') or '-'}\n\n"


class JsonlWriter(CaptionWriter):
    """One JSON object a line, as :meth:`Cue.to_dict` says."""

    _length = 0

    def _form(self, cue: Cue, again: bool = False) -> str:
        line = json.dumps(cue.to_dict(), ensure_ascii=True)
        # In place of a longer form (12.345 s became 13.0 s) it is as long, or a kill could leave the rest of that.
        line = line.ljust(self._length) if again else line
        self._length = len(line)
        return line + "\n"


class TextWriter(CaptionWriter):
    """One line a cue: the wall clock (else the media time) and the words."""

    def _form(self, cue: Cue, again: bool = False) -> str:
        when = clock(cue.start_milliseconds, ".") if cue.utc is None else cue.utc.isoformat(timespec="seconds")
        return f"{when}  {_lines(cue.text).replace(chr(10), ' ')}\n"


# How a form is called on the command line -> its writer; a file's ending names the form as well.
FORMATS: dict[str, type[CaptionWriter]] = {
    "vtt": VttWriter,
    "srt": SrtWriter,
    "jsonl": JsonlWriter,
    "txt": TextWriter,
}
_SEGMENTED = "m3u8"


def vtt_cue(cue: Cue) -> str:
    """A cue as WebVTT has it, its note before it and an empty line behind it."""
    note = ""
    known = [("utc", None if cue.utc is None else cue.utc.isoformat(timespec="milliseconds")), ("model", cue.model)]
    said = ", ".join(f"{name} {_lines(value)}" for name, value in known if value)
    if said:
        note = f"NOTE {said.replace('-->', '->')}\n\n"
    times = f"{clock(cue.start_milliseconds, '.')} --> {clock(cue.end_milliseconds, '.')}"
    text = _lines(cue.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{note}{times}\n{text or '-'}\n\n"


def clock(milliseconds: int, point: str) -> str:
    """``HH:MM:SS.mmm``; hours have as many digits as they need, two at least."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def format_of(path: str) -> str:
    """The form of a file by its ending.

    Raises:
        OptionError: an ending of no known form.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS and ending != _SEGMENTED:
        allowed = ", ".join(f".{name}" for name in (*FORMATS, _SEGMENTED))
        raise OptionError(f"{path}: its ending says no form of captions; allowed: {allowed}")
    return ending


def open_writer(
    path: str | os.PathLike[str], form: str | None = None, *, live: bool = False, go_on: bool = False
) -> CaptionWriter:
    """A writer for a file, of the form that its ending says where none is given; folders are made.

    Args:
        live: the file is followed while it grows; segmented WebVTT then keeps its last segments only.
        go_on: keep what an earlier run wrote and write on behind it. Otherwise the file is a new one.

    Raises:
        OptionError: an ending of no known form.
        OutputError: the file cannot be written, or is not Longreel's to go on with.
    """
    name = os.fspath(path)
    form = form or format_of(name)
    with _told(name):
        Path(name).absolute().parent.mkdir(parents=True, exist_ok=True)
        if form == _SEGMENTED:
            from pipeline.caption_files.hls import HlsVttWriter

            return HlsVttWriter(Path(name), live=live, go_on=go_on)
        if go_on and Path(name).is_file():
            after = end_of(Path(name), form)
            out: BinaryIO = open(name, "r+b")  # noqa: SIM115 (the writer closes it)
            out.truncate(after.at)
            out.seek(after.at)
            return FORMATS[form](out, where=name, own=True, after=after)
        out = open(name, "wb")  # noqa: SIM115 (the writer closes it)
    return FORMATS[form](out, where=name, own=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Say now that a file cannot be written, rather than when there is something to write; leaves all as it is.

    Raises:
        OutputError: it cannot.
    """
    name = os.fspath(path)
    file = Path(name)
    with _told(name):
        there = file.exists()
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab"):
            pass
        if not there:
            file.unlink()


def write_cues(cues: Iterable[Cue], form: str) -> str:
    """All cues in one of ``FORMATS``.

    Raises:
        OptionError: no such form.
        OutputError: cues out of order.
    """
    if form not in FORMATS:
        raise OptionError(f"format {form!r}; allowed: {', '.join(FORMATS)}")
    whole = io.BytesIO()
    with FORMATS[form](whole) as writer:
        for cue in cues:
            writer.write(cue)
    return whole.getvalue().decode("utf-8")


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Within it, what the system refuses is an error that names the file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{where}: cannot be written ({error.strerror or error})") from error


def _lines(text: str) -> str:
    """Text as a cue's lines: no control characters, and none empty, which would end the cue."""
    return _BREAKS.sub("\n", _CONTROL.sub("", text)).strip()
