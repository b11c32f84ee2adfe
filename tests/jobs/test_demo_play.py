"""The demo played: folder, judgement, contact sheet, and the whole way on Ray with two short films."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.cli.demo import play
from jobs.demo.answers import Answer, overlap
from jobs.demo.films import BROKEN, FILMS, Event, Film, Shot
from jobs.demo.play import DemoFolder, draw
from jobs.demo.sheet import contact_sheet
from jobs.errors import UsageError
from pipeline.media import Span
from pipeline.search import Moment


def _film(name: str, source: Film, title: str, codec: str) -> Film:
    scene = source.shots[0].scene
    return Film(name, codec, 10, (Shot(scene, 4, (Event(title, 0.0, 4.0, title),)),))


SMALL = (
    _film("sea.mp4", FILMS[0], "the sea", "libx264"),
    _film("room.avi", FILMS[3], "the room", "mpeg4"),
)


def _answer(*moments: Moment) -> Answer:
    picture = np.zeros((90, 160, 3), np.uint8)
    return Answer("a boat", "sea.mp4", "/f/sea.mp4", Span(2.0, 6.0), 4.0, picture, moments, "--image x.png")


def _moment(uri: str, start: float, end: float) -> Moment:
    return Moment("v" + uri, uri, uri.rpartition("/")[2], start, end, (start + end) / 2, 0.9)


def test_an_answer_is_right_when_its_first_moment_covers_the_time_asked_for() -> None:
    right, late, other = _moment("/f/sea.mp4", 0, 8), _moment("/f/sea.mp4", 5, 8), _moment("/f/room.avi", 0, 8)
    assert _answer(right, other).right
    assert _answer(right).overlap == pytest.approx(0.5)
    assert not _answer(late, right).right
    assert not _answer(other, right).right
    assert _answer(other).overlap == 0.0
    assert not _answer().right
    assert not _answer(_moment("/f/sea.mp4", 0, 4)).right  # half-open: the end is outside
    assert overlap(Span(0, 1), Span(2, 3)) == 0.0
    assert overlap(Span(0, 2), Span(0, 2)) == 1.0


def test_an_answer_in_words_is_right_when_its_peak_lies_in_the_event() -> None:
    def asked(*moments: Moment) -> Answer:
        return Answer("a boat", "sea.mp4", "/f/sea.mp4", Span(2.0, 6.0), None, None, moments, "'a boat'")

    assert asked(_moment("/f/sea.mp4", 1, 4)).right  # peak at 2.5
    late = asked(_moment("/f/sea.mp4", 5, 7))  # peak at 6.0, the end is outside
    assert (late.right, late.right_film) == (False, True)
    other = asked(_moment("/f/room.avi", 1, 4), _moment("/f/sea.mp4", 1, 4))
    assert (other.right, other.right_film) == (False, False)
    assert not asked().right_film
    assert asked().to_dict()["asked_seconds"] is None


def test_the_sheet_frames_right_answers_green_and_wrong_ones_red(tmp_path: Path) -> None:
    right, wrong = _moment("/f/sea.mp4", 0, 8), _moment("/f/room.avi", 0, 8)
    pictures = {(m.video, m.peak_seconds): np.full((180, 320, 3), 128, np.uint8) for m in (right, wrong)}

    def drawn(*answers: Answer) -> np.ndarray:
        path = contact_sheet(tmp_path / "sheet.png", answers, pictures, {"/f/sea.mp4": 8.0}, "heading", "detail")
        with Image.open(path) as sheet:
            assert sheet.format == "PNG"
            return np.asarray(sheet)

    green, red = (64, 190, 110), (228, 78, 70)
    assert _has(drawn(_answer(right, wrong)), green)
    assert not _has(drawn(_answer(right, wrong)), red)
    assert _has(drawn(_answer(wrong)), red)
    assert not _has(drawn(_answer(wrong)), green)
    assert _has(drawn(_answer()), red)
    words = Answer("a boat " * 30, "sea.mp4", "/f/sea.mp4", Span(2.0, 6.0), None, None, (right,), "'a boat'")
    assert _has(drawn(words), green)
    assert len(drawn(_answer(right), _answer(wrong), _answer())) > len(drawn(_answer(right)))


def _has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == np.asarray(colour)).all(axis=2).any())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not empty and not made by a demo"):
        DemoFolder(tmp_path).prepare(fresh=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UsageError, match="no folder can be made"):
        DemoFolder(tmp_path / "thesis.txt").prepare(fresh=False)


def test_what_is_drawn_is_kept_and_fresh_begins_anew(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "demo")
    folder.prepare(fresh=False)
    film = Film("tiny.mp4", "libx264", 10, (Shot(SMALL[0].shots[0].scene, 1, ()),))
    assert draw(folder, [film], BROKEN) == 1
    assert draw(folder, [film], BROKEN) == 0
    assert sorted(p.name for p in folder.videos.iterdir()) == ["shopping-list.mp4", "tiny.mp4", "torn-copy.mp4"]
    (folder.path / "mine.txt").write_text("kept")
    folder.prepare(fresh=True)
    assert list(folder.videos.iterdir()) == []
    assert (folder.path / "mine.txt").exists()
    (folder.path / "longreel-demo.json").write_text('{"drawing": 0}')
    with pytest.raises(UsageError, match="--fresh"):
        folder.prepare(fresh=False)


def test_an_error_while_drawing_stops_the_other_films(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path)
    folder.prepare(fresh=False)

    def fail(film: Film) -> None:
        if film.name == "sea.mp4":
            raise RuntimeError("no more paint")

    with pytest.raises(RuntimeError, match="no more paint"):
        draw(folder, SMALL, (), ticked=fail)
    assert not (folder.videos / "sea.mp4").exists()


@pytest.mark.ray
def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = DemoFolder(tmp_path / "demo")
    result = play(folder, SMALL, BROKEN, asked=["a boat"], as_json=True)
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert said == result.to_dict()
    assert result.as_expected, said
    assert (said["done"], said["failed"], said["right"], said["asked"]) == (2, 2, 2, 2)
    assert {(f["name"], f["type"]) for f in said["expected_failures"]} == {(b.name, b.error) for b in BROKEN}
    assert said["model"] == said["captioner"] == "tiny"
    assert said["words"]["asked"] == 2
    assert said["words"]["right_film_by_chance"] == pytest.approx(1.0, abs=0.1)
    assert [answer["words"] for answer in said["open"]] == ["a boat"]  # no files of a person's, no everyday questions
    assert {one["name"] for one in said["captions"]} <= {film.name for film in SMALL}
    with Image.open(folder.sheet) as sheet:
        assert sheet.width > 600

    again = play(folder, SMALL, BROKEN)  # nothing is done twice, broken files included, so Ray is not even started
    out = capsys.readouterr()
    assert "starting Ray" not in out.err
    assert (again.summary.count("skipped"), again.summary.count("failed")) == (2, 0)
    assert again.as_expected
    assert "by picture: 2 of 2 found first" in out.out
    assert f"in words: {again.right_films} of 2 found the right film first" in out.out
    assert again.captions == result.captions  # kept, not made again


def test_an_empty_question_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs words"):
        play(DemoFolder(tmp_path / "demo"), SMALL, BROKEN, asked=["a boat", " "])
    assert not (tmp_path / "demo").exists()
