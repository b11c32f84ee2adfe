"""Plays the demo: draw the films, index them, ask for what happens in them, and compare the answers with the truth."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.demo.answers import Answer, OpenAnswer
from jobs.demo.films import BROKEN, DRAWING, FILMS, BrokenFile, Film, asked_picture
from jobs.errors import UsageError
from jobs.reporting import JobSummary, Reporter
from jobs.settings import RunSettings
from pipeline.errors import QueryError
from pipeline.library import Library
from pipeline.media import Span

if TYPE_CHECKING:
    from jobs.demo.captions import ShownCaption
    from pipeline.catalog.records import VideoRecord

__all__ = [
    "DEFAULT_MODEL",
    "DemoFolder",
    "DemoResult",
    "ask",
    "draw",
    "index",
    "moment_picture",
    "own_videos",
]

DEFAULT_MODEL = "tiny"
"""It comes with Longreel: nothing to download."""

_ANSWERS = 3  # moments shown for each question

Picture = npt.NDArray[np.uint8]


class DemoFolder:
    """Where a demo lives: ``videos/``, ``asked/`` (the pictures asked with), ``store/`` and ``contact-sheet.png``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.videos = self.path / "videos"
        self.asked = self.path / "asked"
        self.store = self.path / "store"
        self.sheet = self.path / "contact-sheet.png"
        self._mark = self.path / "longreel-demo.json"

    def prepare(self, *, fresh: bool) -> None:
        """Make the folder, or take the one of an earlier run; with ``fresh`` without what that run made.

        Raises:
            UsageError: a folder with other things in it, which are left alone; one of another version's demo; a place
                where no folder can be made.
        """
        try:
            if self._mark.is_file():
                if fresh:
                    for folder in (self.videos, self.asked, self.store):
                        if folder.is_dir():
                            shutil.rmtree(folder)
                    self.sheet.unlink(missing_ok=True)
                elif json.loads(self._mark.read_text()).get("drawing") != DRAWING:
                    raise UsageError(f"{self.path}: its films were drawn by another version of Longreel; use --fresh")
            elif self.path.is_dir() and any(self.path.iterdir()):
                raise UsageError(f"{self.path}: not empty and not made by a demo; name another folder with --dir")
            for folder in (self.path, self.videos, self.asked):
                folder.mkdir(parents=True, exist_ok=True)
            self._mark.write_text(json.dumps({"drawing": DRAWING}) + "\n")
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise UsageError(f"{self.path}: no folder can be made there ({error.strerror})") from error


@dataclass
class DemoResult:
    """Everything that a demo found out.

    ``answers`` are those to pictures, ``worded`` to words for the films' events, ``open`` to words for anything.
    ``chance`` is how many of ``worded`` would name the right film by luck. Whether all is as expected depends on the
    pictures and on ``surprises``; words that a small model does not understand are counted, not complained of.
    """

    folder: DemoFolder
    model: str
    random: bool
    summary: JobSummary
    answers: list[Answer] = field(default_factory=list)
    expected_failures: list[tuple[str, str, str]] = field(default_factory=list)  # name, error type, message
    surprises: list[str] = field(default_factory=list)
    worded: list[Answer] = field(default_factory=list)
    chance: float = 0.0
    open: list[OpenAnswer] = field(default_factory=list)
    captioner: str | None = None
    no_captions: str = ""  # why there are none
    captions: list[ShownCaption] = field(default_factory=list)

    @property
    def right(self) -> int:
        return sum(answer.right for answer in self.answers)

    @property
    def right_films(self) -> int:
        """How many questions in words found the right film first."""
        return sum(answer.right_film for answer in self.worded)

    @property
    def as_expected(self) -> bool:
        return not self.surprises and self.right == len(self.answers)

    def to_dict(self) -> dict[str, Any]:
        counts = self.summary.to_dict()
        return {
            "demo": str(self.folder.path),
            "store": str(self.folder.store),
            "model": self.model,
            "random_weights": self.random,
            **{key: counts[key] for key in ("job", "done", "failed", "skipped")},
            "expected_failures": [
                {"name": name, "type": kind, "message": message} for name, kind, message in self.expected_failures
            ],
            "surprises": self.surprises,
            "answers": [answer.to_dict() for answer in self.answers],
            "right": self.right,
            "asked": len(self.answers),
            "words": {
                "answers": [answer.to_dict() for answer in self.worded],
                "asked": len(self.worded),
                "right_film": self.right_films,
                "right_film_by_chance": round(self.chance, 2),
                "right": sum(answer.right for answer in self.worded),
            },
            "open": [answer.to_dict() for answer in self.open],
            "captioner": self.captioner,
            "no_captions": self.no_captions,
            "captions": [one.to_dict() for one in self.captions],
            "as_expected": self.as_expected,
            "contact_sheet": str(self.folder.sheet),
        }


class _Stopped(Exception):
    """Ends the drawing threads after Ctrl-C."""


def draw(
    folder: DemoFolder,
    films: Sequence[Film] = FILMS,
    broken: Sequence[BrokenFile] = BROKEN,
    *,
    ticked: Callable[[Film], None] = lambda film: None,
    drawn: Callable[[Film], None] = lambda film: None,
) -> int:
    """Draw the films that are not there yet, several at once; how many that were.

    Args:
        ticked: called after each picture, from several threads; ``drawn`` after each film, in this one.

    Raises:
        DiskFull: no space left.
    """
    todo = [film for film in films if not (folder.videos / film.name).is_file()]
    stop = threading.Event()

    def one(film: Film) -> Film:
        def tick() -> None:
            if stop.is_set():
                raise _Stopped
            ticked(film)

        film.write(folder.videos, tick)
        return film

    # The longest to draw first, so that the last ones end together.
    with ThreadPoolExecutor(max(1, min(4, len(os.sched_getaffinity(0))))) as pool:
        waiting = [pool.submit(one, film) for film in sorted(todo, key=lambda f: -len(f.starts_seconds()))]
        try:
            for future in waiting:
                drawn(future.result())
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    for file in broken:
        if not (folder.videos / file.name).is_file():
            file.write(folder.videos, films)
    return len(todo)


def index(
    folder: DemoFolder,
    films: Sequence[Film],
    broken: Sequence[BrokenFile],
    others: Sequence[str],
    settings: RunSettings,
    reporter: Reporter,
    command: str = "longreel demo",
) -> DemoResult:
    """Submit the films, the broken files and ``others`` (what a person named) on Ray; files known to fail only once.

    Raises:
        LongreelError: see :func:`jobs.runner.run_submit`.
    """
    from jobs.runner import SubmitRequest, run_submit
    from pipeline.sources import find_sources

    known = _known_failures(folder, broken)
    names = [film.name for film in films] + [file.name for file in broken]
    asked = [str(folder.videos / name) for name in names if name not in known]
    items = find_sources([*asked, *others])
    request = SubmitRequest(store=folder.store, items=tuple(items), settings=settings, command=command)
    summary = run_submit(request, reporter)
    result = DemoResult(folder, settings.model, False, summary)
    result.expected_failures = [(name, kind, message) for name, (kind, message) in known.items()]
    expected = {file.name: file for file in broken}
    for item in summary.items:
        path = Path(item.uri)
        planned = expected.get(path.name) if path.parent == folder.videos.resolve() else None
        if item.state == "failed" and item.error is not None:
            kind, message = item.error["type"], item.error["message"]
            if planned is not None and kind == planned.error:
                result.expected_failures.append((path.name, kind, message))
            else:
                result.surprises.append(f"{path.name}: {kind}: {message}")
        elif planned is not None:
            result.surprises.append(f"{path.name}: {item.state}, but {planned.what} should fail with {planned.error}")
    return result


def _known_failures(folder: DemoFolder, broken: Sequence[BrokenFile]) -> dict[str, tuple[str, str]]:
    """Broken files that an earlier run has found to be broken, as they should be."""
    from pipeline.catalog import video_id_for
    from pipeline.store import Store

    known: dict[str, tuple[str, str]] = {}
    if Store.exists(folder.store):
        with Library.open(folder.store, create=False) as library:
            for file in broken:
                record = library.catalog.find_video(video_id_for(str((folder.videos / file.name).resolve())))
                if record is not None and record.state == "failed" and record.error_type == file.error:
                    known[file.name] = (file.error, record.error_message or "")
    return known


def ask(
    result: DemoResult,
    library: Library,
    films: Sequence[Film],
    asking: Callable[[str], None] = lambda title: None,
) -> None:
    """Ask for every event by a picture of its middle, and for three points of other files; fills ``result.answers``."""
    from PIL import Image

    result.random = library.manifest.random
    number = 0
    for film in films:
        uri = str((result.folder.videos / film.name).resolve())
        for title, span in film.events:
            number += 1
            asking(title)
            middle = (span.start_seconds + span.end_seconds) / 2
            picture = asked_picture(film.picture(middle))
            file = result.folder.asked / f"{number:02}-{re.sub('[^a-z]+', '-', title.lower())}.png"
            Image.fromarray(picture).save(file)
            moments = library.query(image=picture, limit=_ANSWERS)
            command = f"--image {file.name}"
            result.answers.append(Answer(title, film.name, uri, span, middle, picture, tuple(moments), command))
    _ask_alike(result, library, films, asking)


def own_videos(result: DemoResult, library: Library, films: Sequence[Film]) -> list[VideoRecord]:
    """What a person brought, as far as it could be indexed."""
    drawn = {str((result.folder.videos / film.name).resolve()) for film in films}
    wanted = {item.uri for item in result.summary.items if item.state in ("done", "skipped")} - drawn
    return [record for record in library.videos(state="done") if record.uri in wanted]


def _ask_alike(result: DemoResult, library: Library, films: Sequence[Film], asking: Callable[[str], None]) -> None:
    """Three points in the files of the user's: each must find itself first."""
    records = [record for record in own_videos(result, library, films) if record.duration_seconds]
    for k in range(3 if records else 0):
        record = records[k * len(records) // 3]
        assert record.duration_seconds is not None
        seconds = round(record.duration_seconds * (2 * k + 1) / 6, 2)
        point = f"{record.name}@{seconds:g}"
        asking(point)
        try:
            moments = tuple(library.query(like=(record.id, seconds), limit=_ANSWERS))
        except QueryError as error:  # a damaged file may have nothing at this time
            result.surprises.append(f"{point}: {error}")
            continue
        span = Span(max(0.0, seconds - 1.0), min(record.duration_seconds, seconds + 1.0))
        picture = moment_picture(library, record.id, record.uri, seconds)
        result.answers.append(
            Answer(f"like {point}", record.name, record.uri, span, seconds, picture, moments, f"--like {point}")
        )


def moment_picture(library: Library, video: str, uri: str, seconds: float) -> Picture:
    """What is seen at a time: decoded from a local file, else the thumbnail of its segment.

    Raises:
        SourceError: the file can no longer be decoded.
    """
    from pipeline.sources import open_source
    from pipeline.sources.redact import is_remote
    from pipeline.thumbnails import decode_jpeg

    if not is_remote(uri):
        with open_source(uri, short_side=180) as source:
            shown = None
            for frame in source.frames(Span(max(0.0, seconds - 1.0), seconds + 0.05)):
                if shown is None or frame.pts_seconds <= seconds:
                    shown = frame.image
        if shown is not None:
            return shown
    jpeg = library.catalog.thumbnail(video, seconds)
    return np.full((180, 320, 3), 60, np.uint8) if jpeg is None else decode_jpeg(jpeg)
