"""``longreel captions``: as files, as tracks, and made."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import srt
import webvtt

from jobs.cli.main import main
from pipeline.ingest import DecodeOptions, IngestOptions
from pipeline.library import Library
from pipeline.live.types import Connection, LiveWindow
from pipeline.media import SegmentRecord, Span
from pipeline.segments import SegmentOptions
from tests.catalog.content import block, caption, open_stream
from tests.catalog.test_streams import NOON
from tests.drawing import draw_video
from tests.encoders.vlm_server import say, serving, status, without_keys
from tests.pipeline.fakes import ToneEncoder
from tests.pipeline.hashed import random_library, random_rows

TELLER = "python:tests.encoders.cocas:Teller"
SCRIPTED = "tests.pipeline.scripted:StepsSource"  # 4 s each of the levels 40, 120, 200
OPTIONS = IngestOptions(
    decode=DecodeOptions(decoder=SCRIPTED, stall_seconds=300), segments=SegmentOptions(detector="none", max_seconds=4)
)
AS_INDEXED = ("--set", f"ingest.decode.decoder={SCRIPTED}", "--set", "ingest.segments.detector=none")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with two tracks, one without any, a stream of two connections."""
    folder = tmp_path_factory.mktemp("captions") / "store"
    with random_library(folder, videos=2) as library, library.writing("test") as catalog:
        segment = catalog.segments_of(library.video("1.mp4").id)[0]
        for text, start, end in (("A van <parks>", 2.0, 8.0), ("It leaves", 8.0, 9.5)):
            catalog.add_caption(segment.id, caption(segment.video_id, text, start, end))
        catalog.add_caption(segment.id, caption(segment.video_id, "Other words", 1.0, 3.0, model="other"))
        video = open_stream(catalog)
        catalog.add_connection(video, Connection(0, 0.0, NOON))
        catalog.add_connection(video, Connection(1, 20.0, NOON + timedelta(hours=1)))
        for i in range(2):
            record = SegmentRecord(
                i, Span(20.0 * i, 20.0 * i + 10.0), "limit", block(random_rows(2, seed=i), 20.0 * i, 5)
            )
            done = catalog.commit_window(video, "live", "r", LiveWindow(i, record, True, 10, 2))
            catalog.add_caption(done.segment_id, caption(video, f"Van {i}", 20.0 * i, 20.0 * i + 10.0))
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a real file, of three segments; what is played comes from a script."""
    folder = tmp_path_factory.mktemp("film")
    with Library.open(folder / "store", encoder=ToneEncoder()) as library:
        (added,) = library.add(draw_video(folder / "film.mp4", frames=300), options=OPTIONS)
        assert added.state == "done", added.error
    return folder / "store"


class Longreel:
    def __init__(self, capsys: pytest.CaptureFixture[str], store: Path) -> None:
        self._capsys, self._store = capsys, store

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["captions", *map(str, words), "--store", str(self._store)])
        said = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err


@pytest.fixture
def longreel(capsys: pytest.CaptureFixture[str], made: Path) -> Longreel:
    return Longreel(capsys, made)


@pytest.fixture
def on_film(capsys: pytest.CaptureFixture[str], film: Path, tmp_path: Path) -> Longreel:
    return Longreel(capsys, Path(shutil.copytree(film, tmp_path / "store")))


def test_forms(longreel: Longreel, tmp_path: Path) -> None:
    here = ("1.mp4", "--track", "m")
    code, out, _ = longreel(*here)
    assert (code, out) == (0, "00:00:02.000  A van <parks>\n00:00:08.000  It leaves\n")
    code, out, _ = longreel(*here, "--format", "vtt")
    assert (code, [one.start for one in webvtt.from_string(out).captions]) == (0, ["00:00:02.000", "00:00:08.000"])
    code, out, _ = longreel(*here, "--format", "srt")
    assert (code, [one.content for one in srt.parse(out)]) == (0, ["A van <parks>", "It leaves"])
    code, out, _ = longreel(*here, "--format", "jsonl")
    assert (code, [json.loads(line)["end_seconds"] for line in out.splitlines()]) == (0, [8.0, 9.5])
    code, out, said = longreel(*here, "--out", tmp_path / "new" / "x.vtt")
    assert (code, out, said) == (0, "", f"{tmp_path}/new/x.vtt: 2 captions of 1.mp4 by m\n")
    assert len(webvtt.read(str(tmp_path / "new" / "x.vtt")).captions) == 2
    code, *_ = longreel(*here, "--out", tmp_path / "x", "--format", "srt")
    assert (code, len(list(srt.parse((tmp_path / "x").read_text())))) == (0, 2)
    code, *_ = longreel(*here, "--out", tmp_path / "x.m3u8")
    assert (tmp_path / "x.m3u8").read_text().endswith("#EXT-X-ENDLIST\n")


def test_an_excerpt_keeps_its_times(longreel: Longreel) -> None:
    for limits, wanted in (
        (("--from", "8"), ["It leaves"]),
        (("--to", "8"), ["A van <parks>"]),
        (("--from", "7.9", "--to", "8.1"), ["A van <parks>", "It leaves"]),
    ):
        code, out, _ = longreel("1.mp4", "--track", "m", *limits, "--json")
        assert (code, [one["text"] for one in json.loads(out)["captions"]]) == (0, wanted)
    code, out, said = longreel("1.mp4", "--track", "m", "--from", "100")
    assert (code, out, said) == (4, "", "1.mp4 has no captions there\n")


def test_a_stream_tells_the_wall_clock(longreel: Longreel) -> None:
    code, out, _ = longreel("gate", "--json")
    value = json.loads(out)
    assert (code, list(value), value["track"]) == (0, ["video", "uri", "track", "captions"], "m")
    assert [one["utc"] for one in value["captions"]] == ["2026-01-31T12:00:00+00:00", "2026-01-31T13:00:00+00:00"]
    assert list(value["captions"][0]) == [
        *("start_seconds", "end_seconds", "utc", "stream", "model", "confidence", "text")
    ]
    code, out, _ = longreel("gate")
    assert out.startswith("2026-01-31T12:00:00+00:00  Van 0\n")


def test_tracks(longreel: Longreel) -> None:
    code, out, _ = longreel("1.mp4", "--list", "--json")
    assert (code, json.loads(out)["tracks"]) == (
        0,
        [
            {"track": "m", "captions": 2, "start_seconds": 2.0, "end_seconds": 9.5},
            {"track": "other", "captions": 1, "start_seconds": 1.0, "end_seconds": 3.0},
        ],
    )
    code, out, _ = longreel("1.mp4", "--list")
    assert (code, [line.split() for line in out.splitlines() if line.strip().startswith("m ")]) == (
        0,
        [["m", "2", "0:02.0", "0:09.5"]],
    )
    code, _, said = longreel("1.mp4")
    assert (code, said) == (2, "UsageError: there are captions by m, other; choose one with --track\n")
    code, _, said = longreel("1.mp4", "--track", "tin")
    assert (code, said) == (2, "UsageError: no captions by 'tin'; there are some by m, other\n")


def test_none(longreel: Longreel, made: Path) -> None:
    code, out, said = longreel("0.mp4")
    assert (code, out) == (4, "")
    assert said == "0.mp4 has no captions; make some: longreel captions 0.mp4 --model tiny\n"
    assert longreel("0.mp4", "--format", "vtt")[:2] == (4, "WEBVTT\n\n")
    code, _, said = longreel("0.mp4", "--out", made.parent / "none.vtt")
    assert (code, said.count("no captions"), (made.parent / "none.vtt").exists()) == (4, 1, False)
    assert longreel("0.mp4", "--list")[::2] == (4, "0.mp4 has no captions\n")
    code, out, _ = longreel("0.mp4", "--json")
    assert (code, json.loads(out)["captions"]) == (4, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--again",), "--again goes with --model"),
        (("--model", "tiny", "--list"), "--model and --list do not go together"),
        (("--model", "tiny", "--track", "x"), "--model and --track do not go together"),
        (("--list", "--out", "x.vtt"), "--list and --out do not go together"),
        (("--json", "--format", "vtt"), "--json and --format do not go together"),
        (("--track", "m", "--from", "5", "--to", "5"), "--from 5 --to 5: must be at 0 or later"),
        (("--from", "nan", "--track", "m"), "--from nan"),
        (("--out", "x.doc"), r".vtt, .srt, .jsonl, .txt, .m3u8"),
        (("--out", "/dev/null/x.vtt"), "/dev/null/x.vtt: cannot be written"),
        (("--model", "tinny"), "did you mean 'tiny'"),
    ],
)
def test_what_does_not_work_is_told(longreel: Longreel, words: tuple[str, ...], said: str) -> None:
    code, out, err = longreel("1.mp4", *words)
    assert (code, out if "--json" not in words else "") == (2, "")
    assert said in (err or out)


def test_captions_are_made(on_film: Longreel, tmp_path: Path) -> None:
    made = ("film.mp4", "--model", TELLER, *AS_INDEXED)
    code, out, said = on_film(*made)
    assert (code, out) == (0, "")
    assert f"film.mp4: 3 captions made now by {TELLER}, 3 in all\n" in said
    code, out, _ = on_film(*made, "--format", "txt")  # and those that are there are not made again
    assert out == "00:00:00.000  Level 40\n00:00:04.000  Level 120\n00:00:08.000  Level 200\n"
    code, out, _ = on_film(*made, "--json")
    assert (code, json.loads(out)["made"], json.loads(out)["without"], len(json.loads(out)["captions"])) == (0, 0, 0, 3)
    code, out, _ = on_film(*made, "--again", "--json")
    assert (code, json.loads(out)["made"], len(json.loads(out)["captions"])) == (0, 3, 3)


def test_a_captioner_without_words_is_told(on_film: Longreel) -> None:
    code, out, said = on_film("film.mp4", "--model", "python:tests.pipeline.test_captioning:Mute", *AS_INDEXED)
    assert (code, out) == (4, "")
    assert said.endswith("; 3 segments have none\nfilm.mp4 has no captions\n")


def test_what_asking_an_address_costs_is_told(on_film: Longreel, monkeypatch: pytest.MonkeyPatch) -> None:
    without_keys(monkeypatch)
    priced = ("--set", "captions.vlm.price_in=10", "--set", "captions.vlm.concurrency=1")
    with serving() as server:
        made = ("film.mp4", "--model", server.name() + "/", *AS_INDEXED, *priced)
        # the second of three is refused: the others are kept, and told with what was paid for them
        server.faults.extend([say("A dog"), status(400), say("")])
        code, out, said = on_film(*made)
        assert (code, out) == (2, "")
        assert f"film.mp4: 1 caption made now by {server.name()}\n" in said
        assert f"asked {server.name()}: 3 requests, 200 tokens in, 14 out, 0.0020 USD\n" in said
        assert said.splitlines()[-1].startswith("VlmRefused: ")
        code, out, said = on_film(*made, "--json")
        value = json.loads(out)
        assert (code, value["made"], value["without"], len(value["captions"])) == (0, 1, 1, 2)
        asked = {key: value["asked"][key] for key in ("requests", "retries", "tokens_in", "tokens_out", "currency")}
        assert asked == {"requests": 1, "retries": 0, "tokens_in": 100, "tokens_out": 7, "currency": "USD"}
        assert (value["asked"]["cost"], len(server.requests)) == (pytest.approx(0.001), 4)
        # and there is nothing left to be paid for
        code, out, said = on_film(*made)
        assert (code, len(server.requests)) == (0, 4)
        assert f"asked {server.name()}: 0 requests" in said
        code, out, _ = on_film("film.mp4", "--track", server.name().replace("http:", "HTTP:") + "/chat/completions")
        assert (code, len(out.splitlines())) == (0, 2)


def test_an_output_that_cannot_be_written_is_told_before_anything_is_made(on_film: Longreel, tmp_path: Path) -> None:
    (tmp_path / "x.vtt").mkdir()
    code, _, said = on_film("film.mp4", "--model", TELLER, *AS_INDEXED, "--out", tmp_path / "x.vtt")
    assert (code, said) == (2, f"OutputError: {tmp_path}/x.vtt: cannot be written (Is a directory)\n")
    assert on_film("film.mp4", "--list")[0] == 4
