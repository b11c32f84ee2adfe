"""The demo asks in words: for what happens in its films, where the answer is known, and for everyday things."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from encoders.errors import EncoderInputError
from jobs.demo.answers import Answer, OpenAnswer
from pipeline.errors import QueryError
from pipeline.search import SearchOptions

if TYPE_CHECKING:
    from jobs.demo.films import Film
    from jobs.demo.play import DemoResult
    from pipeline.library import Library

__all__ = ["EVERYDAY", "LEAST_JUDGED", "ask_in_words", "ask_openly", "film_chance"]

_ANSWERS = 3  # moments for each question

LEAST_JUDGED = 8
"""With fewer questions, to find fewer films than chance would is nothing to be surprised at."""

EVERYDAY = (
    "a dog runs",
    "a car on a road",
    "a person walks through a room",
    "a person stands at a table",
    "people play a sport",
    "a bottle on a table",
    "a cup of coffee",
    "grass and trees",
    "a mountain in the snow",
    "water and the sky",
)
"""Asked of the files that a person brings: nobody knows what is in them, so most have no answer there."""


def ask_in_words(result: DemoResult, library: Library, films: Sequence[Film]) -> None:
    """Ask for every event in its words; fills ``result.worded`` and ``result.chance``.

    Mistakes are counted, and are no surprise: a small model makes some. To name the right film less often than chance
    would, over at least :data:`LEAST_JUDGED` questions, is one. A model with random weights is not asked.
    """
    if library.manifest.random:
        return
    for film in films:
        uri = str((result.folder.videos / film.name).resolve())
        result.chance += len(film.worded) * film_chance(library, uri)
        for words, span in film.worded:
            moments = tuple(library.query(words, limit=_ANSWERS))
            result.worded.append(Answer(words, film.name, uri, span, None, None, moments, _command(words)))
    if len(result.worded) >= LEAST_JUDGED and result.right_films < result.chance:
        asked = len(result.worded)
        result.surprises.append(
            f"in words: {result.right_films} of {asked} right films, chance would find {result.chance:.1f}"
        )


def film_chance(library: Library, uri: str) -> float:
    """How likely a second picked blindly from all that is in the library is of this video; 0 where it is not there."""
    seconds = {video.uri: video.duration_seconds or 0.0 for video in library.videos(state="done")}
    total = sum(seconds.values())
    return seconds.get(uri, 0.0) / total if total else 0.0


def ask_openly(
    result: DemoResult,
    library: Library,
    own: Sequence[str],
    everyday: Sequence[str] = (),
    options: SearchOptions | None = None,
) -> None:
    """Ask a person's ``own`` questions and ``everyday`` ones; fills ``result.open``.

    A question that cannot be asked (too long, say) becomes one of ``result.surprises``. A model with random weights is
    not asked.
    """
    if library.manifest.random:
        return
    options = options or SearchOptions()
    for words, is_own in [(one, True) for one in own] + [(one, False) for one in everyday]:
        try:
            moments = tuple(library.query(words, limit=_ANSWERS))
        except (QueryError, EncoderInputError) as error:
            result.surprises.append(f"asked {words!r}: {type(error).__name__}: {error}")
            continue
        confident = bool(moments) and options.is_confident(moments[0])
        result.open.append(OpenAnswer(words, is_own, moments, confident, _command(words)))


def _command(words: str) -> str:
    # "--" keeps words that begin with a dash from being taken for an option
    return f"--limit {_ANSWERS} {'-- ' if words.startswith('-') else ''}{shlex.quote(words)}"
