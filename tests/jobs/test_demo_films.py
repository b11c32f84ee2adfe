"""The demo's films: drawn the same each time, as long as they promise, their events inside and to be seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jobs.demo.films import BROKEN, FILMS, Film, asked_picture
from pipeline import errors
from pipeline.sources import open_source

_films = pytest.mark.parametrize("film", FILMS, ids=[film.name for film in FILMS])


@_films
def test_events_lie_inside_their_film_and_apart(film: Film) -> None:
    spans = sorted(span for _, span in film.events)
    assert spans
    assert spans[0].start_seconds >= 0
    assert spans[-1].end_seconds <= film.duration_seconds
    assert all(a.end_seconds <= b.start_seconds for a, b in pairwise(spans))


def test_all_names_and_titles_differ() -> None:
    names = [film.name for film in FILMS] + [file.name for file in BROKEN]
    titles = [title for film in FILMS for title, _ in film.events]
    assert len(set(names)) == len(names)
    assert len(set(titles)) == len(titles)
    words = [asked for film in FILMS for asked, _ in film.worded]
    assert len(set(words)) == len(words) == len(titles)
    assert all(2 <= len(asked.split()) <= 8 for asked in words)
    assert 60 <= sum(film.duration_seconds for film in FILMS) <= 90


@_films
def test_a_picture_depends_on_its_time_alone(film: Film) -> None:
    anew = replace(film)  # its scenes are made again
    times = [0.0, film.duration_seconds / 2, film.duration_seconds - 0.05]
    first = [film.picture(t) for t in times]
    second = [anew.picture(t) for t in reversed(times)]
    for a, b in zip(first, reversed(second), strict=True):
        assert a.shape == (360, 640, 3)
        assert a.dtype == np.uint8
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="the film goes from 0 to"):
        film.picture(film.duration_seconds)


@_films
def test_an_event_can_be_seen(film: Film) -> None:
    """The middle of an event differs from the middle of every other event of the film, clearly."""
    middles = [film.picture((span.start_seconds + span.end_seconds) / 2).astype(int) for _, span in film.events]
    for i, a in enumerate(middles):
        for b in middles[:i]:
            assert (np.abs(a - b).max(axis=2) > 40).mean() > 0.15


@_films
def test_a_film_is_as_long_as_it_promises(film: Film, tmp_path: Path) -> None:
    # The first second of each shot, so that this is quick: frames and times are counted all the same.
    short = replace(film, shots=tuple(replace(shot, seconds=1, events=()) for shot in film.shots))
    ticks = []
    path = short.write(tmp_path, lambda: ticks.append(1))
    with open_source(str(path), short_side=36) as source:
        frames = list(source.frames())
    starts = [float(start) for start in short.starts_seconds()]
    assert len(ticks) == len(starts)
    assert [frame.pts_seconds for frame in frames] == pytest.approx(starts, abs=0.0015)
    assert frames[-1].end_seconds == pytest.approx(short.duration_seconds, abs=0.003)
    if film.variable_rate:
        assert len({round(b - a, 4) for a, b in pairwise(starts)}) > 1


def test_broken_files_give_their_errors(tmp_path: Path) -> None:
    film = replace(FILMS[0], shots=(replace(FILMS[0].shots[0], seconds=1, events=()),))
    film.write(tmp_path)
    for file in BROKEN:
        path = file.write(tmp_path, [film])
        with pytest.raises(getattr(errors, file.error)), open_source(str(path)) as source:
            list(source.frames())


def test_the_asked_picture_is_cropped_and_brighter() -> None:
    picture = np.full((360, 640, 3), 100, np.uint8)
    picture[:18] = 255
    asked = asked_picture(picture)
    assert asked.shape == (324, 576, 3)
    assert (asked == 115).all()
    assert asked_picture(np.full((20, 20, 3), 250, np.uint8)).max() == 255  # does not run over
