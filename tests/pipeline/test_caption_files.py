"""Caption files: what is written is read back by parsers of other people's, whatever the words are."""

from __future__ import annotations

import html
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.caption_files import FORMATS, Cue, HlsVttWriter, VttWriter, check_writable, open_writer, write_cues
from pipeline.errors import InputError, OptionError, OutputError

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc)

WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp", "Cn")), min_size=1, max_size=40).filter(
    lambda text: text.strip() != ""
)
HOSTILE = st.sampled_from(
    [
        "a --> b",
        "<v Bob>hi & bye</v>",
        "one\n\ntwo",
        "\n\n7\n00:00:01,000 --> 00:00:02,000\nx",
        "NOTE no",
        "WEBVTT",
        "STYLE",
    ]
)


@st.composite
def cues(draw: st.DrawFn) -> list[Cue]:
    found, at = [], draw(st.integers(0, 400_000_000))
    for text in draw(st.lists(WORDS | HOSTILE, min_size=1, max_size=6)):
        length = draw(st.integers(1, 60_000))
        utc = draw(st.sampled_from([None, START + timedelta(milliseconds=at)]))
        found.append(Cue(at / 1000, (at + length) / 1000, text, utc=utc, stream="gate", model="tiny", confidence=0.5))
        at += draw(st.integers(0, 100_000))
    return found


def plain(text: str) -> str:
    """Words as a reader sees them: lines and blanks are one."""
    return " ".join(html.unescape(text).replace("-->", "->").split())


@settings(max_examples=60, deadline=None)
@given(cues())
def test_webvtt_is_read_back(written: list[Cue]) -> None:
    text = write_cues(written, "vtt")
    found = webvtt.from_string(text)
    assert [plain(one.text) for one in found.captions] == [
        " ".join(cue.text.replace("-->", "->").split()) for cue in written
    ]
    for one, cue in zip(found.captions, written, strict=True):
        assert one.start_in_seconds == cue.start_milliseconds // 1000
        assert one.start.endswith(f".{cue.start_milliseconds % 1000:03d}")
    assert "\n\n\n" not in text


@settings(max_examples=60, deadline=None)
@given(cues())
def test_srt_is_read_back(written: list[Cue]) -> None:
    found = list(srt.parse(write_cues(written, "srt"), ignore_errors=False))
    assert [one.index for one in found] == list(range(1, len(written) + 1))
    assert [plain(one.content) for one in found] == [plain(one.text) for one in written]
    for one, cue in zip(found, written, strict=True):
        assert round(one.start.total_seconds() * 1000) == cue.start_milliseconds
        assert round(one.end.total_seconds() * 1000) == cue.end_milliseconds


@settings(max_examples=60, deadline=None)
@given(cues())
def test_json_lines_hold_everything(written: list[Cue]) -> None:
    lines = [json.loads(line) for line in write_cues(written, "jsonl").splitlines()]
    assert [line["text"] for line in lines] == [cue.text for cue in written]
    assert [(line["start_seconds"], line["end_seconds"]) for line in lines] == [
        (cue.start_seconds, cue.end_seconds) for cue in written
    ]
    assert [line["utc"] for line in lines] == [None if cue.utc is None else cue.utc.isoformat() for cue in written]


@settings(max_examples=30, deadline=None)
@given(cues())
def test_text_has_a_line_for_each_cue(written: list[Cue]) -> None:
    assert len(write_cues(written, "txt").splitlines()) == len(written)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_whole_after_each_cue_and_while_the_last_one_grows(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"gate.{form}"
    with open_writer(path) as writer:
        for number in range(3):
            writer.write(Cue(number * 10, number * 10 + 9.5, f"scene {number}", utc=START))
            assert path.read_text().endswith("\n")
            assert f"scene {number}" in path.read_text()
        grown = write_cues(
            [Cue(n * 10, 1000 if n == 2 else n * 10 + 9.5, f"scene {n}", utc=START) for n in range(3)], form
        )
        writer.extend(100)
        writer.extend(50)  # no way back
        writer.extend(1000)
        assert path.read_text() == grown
        writer.write(Cue(1000, 1001, "news", utc=START))
    assert path.read_text().startswith(grown)
    assert path.read_text().count("scene 2") == 1


def test_where_nothing_can_be_written_over_the_words_go_on_in_a_cue_of_their_own() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as out, VttWriter(out) as writer:
        writer.write(Cue(0, 5, "still", utc=START))
        writer.extend(9)
    with os.fdopen(read) as back:
        found = webvtt.from_string(back.read())
    assert [(one.start, one.end, one.text) for one in found.captions] == [
        ("00:00:00.000", "00:00:05.000", "still"),
        ("00:00:05.000", "00:00:09.000", "still"),
    ]


def test_hours_have_as_many_digits_as_they_need() -> None:
    text = write_cues([Cue(123 * 3600 + 62.0004, 123 * 3600 + 62.0005, "late")], "vtt")
    assert "123:01:02.000 --> 123:01:02.001" in text


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 3), (5, 4), (float("nan"), 1), (0, float("inf"))])
def test_times_that_are_none(start: float, end: float) -> None:
    with pytest.raises(InputError, match="must begin at 0"):
        Cue(start, end, "x")


def test_cues_out_of_order() -> None:
    with VttWriter(io.BytesIO()) as writer:
        writer.write(Cue(5, 6, "five"))
        with pytest.raises(OutputError, match="must come in order"):
            writer.write(Cue(4, 7, "four"))


def test_what_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"gate\.vtt: cannot be written"):
        open_writer(_folder(tmp_path / "gate.vtt"))
    with pytest.raises(OptionError, match=r"\.vtt, \.srt, \.jsonl, \.txt, \.m3u8"):
        open_writer(tmp_path / "gate.doc")
    with pytest.raises(OptionError, match="vtt, srt"):
        write_cues([], "doc")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as out, pytest.raises(OutputError, match="No space left"):
        VttWriter(out)


def test_a_closed_writer() -> None:
    writer = VttWriter(io.BytesIO())
    writer.close()
    writer.close()
    with pytest.raises(OutputError, match="closed"):
        writer.write(Cue(0, 1, "x"))


# -- HLS -----------------------------------------------------------------------------------------------------------


def listed(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_segments_cover_the_time_and_cues_cross_them(tmp_path: Path) -> None:
    path = tmp_path / "gate.m3u8"
    with HlsVttWriter(path, 6) as writer:
        writer.write(Cue(1, 8, "first"))
        assert listed(path) == []
        writer.write(Cue(20, 22, "second"))
        assert listed(path) == [f"gate-{n:05d}.vtt" for n in range(3)]
        assert "#EXT-X-ENDLIST" not in path.read_text()
    assert listed(path) == [f"gate-{n:05d}.vtt" for n in range(4)]
    assert path.read_text().endswith("#EXT-X-ENDLIST\n")
    said = [[one.text for one in webvtt.read(str(tmp_path / name)).captions] for name in listed(path)]
    assert said == [["first"], ["first"], [], ["second"]]
    assert (tmp_path / "gate-00000.vtt").read_text().startswith("WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n")


def test_a_scene_that_goes_on_stands_in_later_segments(tmp_path: Path) -> None:
    path = tmp_path / "gate.m3u8"
    with HlsVttWriter(path, 6) as writer:
        writer.write(Cue(0, 6, "still"))
        writer.extend(17)
        assert listed(path) == ["gate-00000.vtt", "gate-00001.vtt"], "a player waits for no news"
        writer.write(Cue(17, 18, "news"))
    said = [[one.text for one in webvtt.read(str(tmp_path / name)).captions] for name in listed(path)]
    assert said == [["still"], ["still"], ["still", "news"]]


def test_a_live_list_slides(tmp_path: Path) -> None:
    path = tmp_path / "gate.m3u8"
    with HlsVttWriter(path, 1, live=True, keep=5) as writer:
        for second in range(100):
            writer.write(Cue(second + 1000, second + 1000.5, f"{second}"))
            assert len(listed(path)) <= 5
        assert len(list(tmp_path.glob("*.vtt"))) <= 5
        assert "#EXT-X-MEDIA-SEQUENCE:1094" in path.read_text()


def test_ffmpeg_reads_them(tmp_path: Path) -> None:
    ffprobe = shutil.which("ffprobe")
    if ffprobe is None:
        pytest.skip("the program 'ffprobe' is not installed")
    for form in ("vtt", "srt"):
        path = tmp_path / f"x.{form}"
        path.write_text(write_cues([Cue(1, 2, "<b>one</b> & two"), Cue(3, 4, "three")], form))
        told = subprocess.run(
            [ffprobe, "-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0", path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert [float(value) for value in told] == [1.0, 3.0]


# -- killed at any moment ------------------------------------------------------------------------------------------

ENDLESS = """
import sys
from pipeline.caption_files import Cue, open_writer

writer = open_writer(sys.argv[1])
for number in range(10**9):
    writer.write(Cue(number * 10, number * 10 + 1.0625, f"scene <{number}>"))
    for longer in (2, 3.5, 9):
        writer.extend(number * 10 + longer)
    if number == 20:
        print("going", flush=True)
"""


@pytest.mark.parametrize("form", FORMATS)
def test_a_writer_that_is_killed_leaves_a_whole_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"gate.{form}"
    command = [sys.executable, "-c", ENDLESS, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == "going\n"
        writing.kill()
    text = path.read_text()
    readers: dict[str, Callable[[], list[str]]] = {
        "vtt": lambda: [html.unescape(one.text) for one in webvtt.from_string(text).captions],
        "srt": lambda: [one.content for one in srt.parse(text, ignore_errors=False)],
        "jsonl": lambda: [json.loads(line)["text"] for line in text.splitlines()],
        "txt": lambda: [line.split("  ", 1)[1] for line in text.splitlines()],
    }
    said = readers[form]()
    assert len(said) > 20
    assert said == [f"scene <{number}>" for number in range(len(said))]
    assert text.endswith("\n")


def test_a_shorter_form_in_json_leaves_nothing_of_the_longer_one(tmp_path: Path) -> None:
    """Even where a kill comes before the rest of the longer one is cut off."""
    path = tmp_path / "gate.jsonl"
    with path.open("w+b", buffering=0) as out:
        out.truncate = lambda size=None: 0  # type: ignore[method-assign]
        writer = FORMATS["jsonl"](out)
        writer.write(Cue(0, 1.0625, "scene"))
        writer.extend(2)
        writer.extend(3.0009765625)
        writer.extend(4)
        (line,) = path.read_text().splitlines()
    assert json.loads(line)["end_seconds"] == 4


def test_a_file_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "gate.vtt")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "old.vtt").write_text("WEBVTT\n")
    check_writable(tmp_path / "old.vtt")
    assert (tmp_path / "old.vtt").read_text() == "WEBVTT\n"
    with pytest.raises(OutputError, match="new: cannot be written"):
        check_writable(tmp_path / "new")


def test_a_form_that_is_named_wins_over_the_ending(tmp_path: Path) -> None:
    with open_writer(tmp_path / "gate.txt", "srt") as writer:
        writer.write(Cue(0, 1, "one"))
    assert [one.content for one in srt.parse((tmp_path / "gate.txt").read_text())] == ["one"]
