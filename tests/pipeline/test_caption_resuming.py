"""Caption files that a later run goes on with: what was written stays, what a kill cut off goes, order holds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.caption_files import FORMATS, Cue, open_writer, write_cues
from pipeline.errors import OutputError
from tests.pipeline.test_caption_files import cues

TEXTUAL = sorted(FORMATS)


@settings(max_examples=150, deadline=None)
@given(cues(), cues(), st.floats(0, 1), st.sampled_from(TEXTUAL), st.booleans())
def test_a_file_that_was_cut_off_anywhere_goes_on(
    first: list[Cue], second: list[Cue], share: float, form: str, whole: bool
) -> None:
    """It is as if the whole cues before the cut, and those after it, had been written in one run."""
    moved = first[-1].end_seconds - second[0].start_seconds
    later = [Cue(cue.start_seconds + moved, cue.end_seconds + moved, cue.text) for cue in second]
    written = write_cues(first, form).encode()
    cut = len(written) if whole else int(share * len(written))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"gate.{form}"
        path.write_bytes(written[:cut])
        with open_writer(path, go_on=True) as writer:
            for cue in later:
                writer.write(cue)
        found = path.read_bytes().decode()
    kept = max(
        count for count in range(len(first) + 1) if not count or len(write_cues(first[:count], form).encode()) <= cut
    )
    assert found == write_cues([*first[:kept], *later], form)
    if form == "vtt":
        assert len(webvtt.from_string(found).captions) == kept + len(later)
    if form == "srt":
        assert [one.index for one in srt.parse(found, ignore_errors=False)] == list(range(1, kept + len(later) + 1))


@pytest.mark.parametrize("form", TEXTUAL)
def test_runs_one_after_the_other(form: str, tmp_path: Path) -> None:
    """Three runs; the second says nothing. What is said last may grow, what an earlier run said stays."""
    path = tmp_path / f"gate.{form}"
    runs = [[Cue(0, 4, "one"), Cue(4, 6, "two")], [], [Cue(9, 10, "three"), Cue(12, 13, "four")]]
    for number, run in enumerate(runs):
        with open_writer(path, go_on=True) as writer:
            assert writer.reached_seconds == (4 if number else 0)
            writer.extend(7)  # there is nothing of this run to grow
            for cue in run:
                writer.write(cue)
            writer.extend(13.5)
    grown = [Cue(0, 4, "one"), Cue(4, 13.5, "two"), Cue(9, 10, "three"), Cue(12, 13.5, "four")]
    if form == "jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(line["text"], line["end_seconds"]) for line in lines] == [(c.text, c.end_seconds) for c in grown]
    else:
        assert path.read_text() == write_cues(grown, form)


@pytest.mark.parametrize("form", TEXTUAL)
def test_without_going_on_a_file_begins_anew(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"gate.{form}"
    for _ in range(2):
        with open_writer(path) as writer:
            writer.write(Cue(0, 4, "one"))
    assert path.read_text() == write_cues([Cue(0, 4, "one")], form)


@pytest.mark.parametrize("form", ["jsonl", "srt", "vtt"])
def test_time_does_not_go_back_behind_an_earlier_run(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"gate.{form}"
    path.write_text(write_cues([Cue(3600, 3605, "one")], form))
    with open_writer(path, go_on=True) as writer:
        assert writer.reached_seconds == 3600
        with pytest.raises(OutputError, match=r"from 12\.000 s comes after one from 3600\.000 s"):
            writer.write(Cue(12, 13, "two"))
    assert path.read_text() == write_cues([Cue(3600, 3605, "one")], form)


def test_a_playlist_goes_on_with_silence_between(tmp_path: Path) -> None:
    """Its numbers never go back, its segments follow each other, and what is no more shown is gone."""
    path = tmp_path / "gate.m3u8"
    said: list[list[str]] = []
    for run in ([Cue(1, 8, "one")], [], [Cue(20, 22, "two"), Cue(50, 55, "three")]):
        with open_writer(path, live=True, go_on=True) as writer:
            assert "#EXT-X-ENDLIST" not in path.read_text()
            for cue in run:
                writer.write(cue)
        names = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert sorted(one.name for one in tmp_path.glob("*.vtt")) == names
        said.append([" ".join(one.text for one in webvtt.read(str(tmp_path / name)).captions) for name in names])
    assert said[0] == said[1] == ["one", "one"]
    assert said[2] == ["one", "one", "", "two", "", "", "", "", "three", "three"]


def test_a_playlist_after_days_shows_the_last_minutes(tmp_path: Path) -> None:
    path = tmp_path / "gate.m3u8"
    for start in (0.0, 3 * 86400.0):
        with open_writer(path, live=True, go_on=True) as writer:
            assert writer.reached_seconds <= start
            writer.write(Cue(start, start + 5, "words"))
    names = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(names) == 20
    assert names[-1] == f"gate-{3 * 86400 // 6:05d}.vtt"
    assert sorted(one.name for one in tmp_path.glob("*.vtt")) == names


@pytest.mark.parametrize(
    "content", ["#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:6,\nfilm-0.ts\n", "a list\n", "#EXTM3U\ngate-00000.vtt\n"]
)
def test_a_playlist_of_somebody_else_is_left_as_it_is(content: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.m3u8"
    path.write_text(content)
    with pytest.raises(OutputError, match=r"gate\.m3u8: is there already, and not as Longreel writes m3u8"):
        open_writer(path, live=True, go_on=True)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.vtt", "WEBVTT - made by hand\n\n00:00.000 --> 00:01.000\nhi\n\n"),
        ("a.vtt", "WEBVTT\n\nSTYLE\n::cue { color: red }\n\n00:00:00.000 --> 00:00:01.000\nhi\n\n"),
        ("a.vtt", "WEBVTT\r\n\r\n00:00:00.000 --> 00:00:01.000\r\nhi\r\n\r\n"),
        ("a.srt", "1\r\n00:00:00,000 --> 00:00:01,000\r\nhi\r\n\r\n"),
        ("a.srt", "a shopping list\n\nmilk\n\neggs\n"),
        ("a.jsonl", '{"start_seconds": 1}\n{"name": "x"}\n'),
        ("a.jsonl", "[1, 2]\n"),
        ("a.jsonl", '{"start_seconds": NaN}\n'),
        ("a.txt", "milk\neggs\n"),
    ],
)
def test_a_file_of_somebody_else_is_left_as_it_is(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    with pytest.raises(OutputError, match=f"{name}: is there already, and not as Longreel writes"):
        open_writer(path, go_on=True)
    assert path.read_bytes() == content.encode()
