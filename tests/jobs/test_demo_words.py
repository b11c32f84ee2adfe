"""The demo's questions in words: counted, not complained of, unless chance would do better."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from encoders.errors import TextTooLong
from jobs.cli.demo import demo
from jobs.demo.films import FILMS
from jobs.demo.play import DemoFolder, DemoResult
from jobs.demo.words import EVERYDAY, ask_in_words, ask_openly, film_chance
from jobs.reporting import JobSummary
from pipeline.library import Library
from pipeline.search import Moment


@dataclass
class _Library:
    """Answers every question with one moment of one film, or as the table says."""

    uri: str
    seconds: dict[str, float]
    random: bool = False
    table: dict[str, list[Moment]] = field(default_factory=dict)

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(random=self.random)

    def videos(self, state: str) -> list[Any]:
        assert state == "done"
        return [SimpleNamespace(uri=uri, duration_seconds=seconds) for uri, seconds in self.seconds.items()]

    def query(self, words: str, limit: int) -> list[Moment]:
        if words == "long":
            raise TextTooLong("too many words")
        return self.table.get(words, [_moment(self.uri)])[:limit]


def _moment(uri: str, percentile: float | None = 50.0) -> Moment:
    return Moment("v", uri, Path(uri).name, 0.0, 4.0, 2.0, 0.3, percentile)


def _made(tmp_path: Path, film: str, **options: Any) -> tuple[DemoResult, Library]:
    folder = DemoFolder(tmp_path)
    seconds = {str((folder.videos / f.name).resolve()): f.duration_seconds for f in FILMS}
    library = _Library(str((folder.videos / film).resolve()), seconds, **options)
    return DemoResult(folder, "tiny", False, JobSummary("job")), cast(Library, library)


def test_right_films_are_counted_beside_chance(tmp_path: Path) -> None:
    result, library = _made(tmp_path, "by-the-sea.mp4")
    ask_in_words(result, library, FILMS)
    assert len(result.worded) == sum(len(film.events) for film in FILMS)
    assert result.right_films == len(FILMS[0].events)
    total = sum(film.duration_seconds for film in FILMS)
    assert result.chance == pytest.approx(sum(len(f.events) * f.duration_seconds for f in FILMS) / total)
    told = result.to_dict()["words"]
    assert told["asked"] == len(result.worded)
    assert told["right_film"] == result.right_films >= told["right"]


def test_below_chance_is_a_surprise_and_a_mistake_is_none(tmp_path: Path) -> None:
    nowhere, library = _made(tmp_path, "elsewhere.mp4")
    ask_in_words(nowhere, library, FILMS)
    assert nowhere.right_films == 0
    assert not nowhere.as_expected
    assert "in words: 0 of 13 right films, chance would find 2." in nowhere.surprises[0]

    few, library = _made(tmp_path, "elsewhere.mp4")
    ask_in_words(few, library, FILMS[:1])  # too few questions to tell
    assert (few.right_films, few.as_expected) == (0, True)

    half, library = _made(tmp_path, "elsewhere.mp4")
    uris = {words: str((half.folder.videos / f.name).resolve()) for f in FILMS[:3] for words, _ in f.worded}
    cast(_Library, library).table = {words: [_moment(uri)] for words, uri in uris.items()}
    ask_in_words(half, library, FILMS)
    assert 0 < half.right_films < len(half.worded)
    assert half.as_expected


def test_random_weights_are_not_asked_in_words(tmp_path: Path) -> None:
    result, library = _made(tmp_path, "by-the-sea.mp4", random=True)
    ask_in_words(result, library, FILMS)
    ask_openly(result, library, ["a boat"], EVERYDAY)
    assert (result.worded, result.open, result.surprises) == ([], [], [])


def test_open_questions_tell_whether_they_are_confident_and_how_to_ask_again(tmp_path: Path) -> None:
    uri = "/f/sea.mp4"
    table = {"sure": [_moment(uri, 95.0)], "unsure": [_moment(uri, 89.9)], "small": [_moment(uri, None)], "none": []}
    result, library = _made(tmp_path, uri, table=table)
    ask_openly(result, library, ["sure", "-5 degrees; rm"], ["unsure", "small", "none"])
    assert [(a.words, a.own, a.confident) for a in result.open] == [
        ("sure", True, True),
        ("-5 degrees; rm", True, False),
        ("unsure", False, False),
        ("small", False, False),
        ("none", False, False),
    ]
    assert shlex.split(result.open[1].command) == ["--limit", "3", "--", "-5 degrees; rm"]


def test_a_question_too_long_costs_itself_only(tmp_path: Path) -> None:
    result, library = _made(tmp_path, "by-the-sea.mp4")
    ask_openly(result, library, ["long", "a boat"])
    assert [answer.words for answer in result.open] == ["a boat"]
    assert result.surprises == ["asked 'long': TextTooLong: too many words"]


def test_chance_is_a_share_of_the_seconds() -> None:
    library = cast(Library, _Library("a", {"a": 30.0, "b": 90.0}))
    assert film_chance(library, "a") == 0.25
    assert film_chance(library, "c") == 0.0
    assert film_chance(cast(Library, _Library("a", {})), "a") == 0.0


def test_help_says_what_the_exit_code_depends_on() -> None:
    said = " ".join(CliRunner().invoke(demo, ["--help"]).output.split())
    assert "--ask WORDS" in said
    assert "only naming the right film less often than chance would counts as a failure" in said
