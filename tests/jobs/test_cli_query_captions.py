"""``longreel query --mode`` and ``--after``."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.main import main
from pipeline.live.types import Connection, LiveWindow
from pipeline.media import SegmentRecord, Span
from tests.catalog.content import block, caption, open_stream
from tests.catalog.test_streams import NOON
from tests.pipeline.hashed import random_library, random_rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of which nobody knows when they were recorded, one of them captioned; a stream of two connections."""
    folder = tmp_path_factory.mktemp("query") / "store"
    with random_library(folder) as library, library.writing("test") as catalog:
        segment = catalog.segments_of(library.video("1.mp4").id)[0]
        catalog.add_caption(segment.id, caption(segment.video_id, "a red van parks", 2.0, 8.0))
        video = open_stream(catalog)
        catalog.add_connection(video, Connection(0, 0.0, NOON))
        catalog.add_connection(video, Connection(1, 20.0, NOON + timedelta(hours=1)))
        for i in range(2):
            vectors = block(random_rows(2, seed=90 + i), 20.0 * i, 5.0)
            record = SegmentRecord(i, Span(20.0 * i, 20.0 * i + 10.0), "limit", vectors)
            done = catalog.commit_window(video, "live", "r", LiveWindow(i, record, True, 10, 2))
            catalog.add_caption(done.segment_id, caption(video, f"van number {i}", 20.0 * i, 20.0 * i + 10.0))
    return folder


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query") / "silent"
    random_library(folder, videos=1, each=8).close()
    return folder


def ask(capsys: pytest.CaptureFixture[str], store: Path, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["query", *words, "--store", str(store)])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


def answer(capsys: pytest.CaptureFixture[str], store: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = ask(capsys, store, *words, "--json")
    return code, json.loads(out)


def test_captions(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    code, found = answer(capsys, store, "red vans", "--mode", "captions")
    assert (code, found["mode"], found["confident"], found["best_percentile"]) == (0, "captions", None, None)
    first = found["moments"][0]
    assert (first["name"], first["start_seconds"], first["end_seconds"]) == ("1.mp4", 2.0, 8.0)
    assert list(first)[-4:] == ["caption", "utc_start", "visual_rank", "caption_rank"]
    assert (first["caption"], first["utc_start"], first["visual_rank"]) == ("a red van parks", None, None)
    assert [moment["caption_rank"] for moment in found["moments"]] == [1, 2, 3]
    assert {moment["utc_start"] for moment in found["moments"][1:]} == {
        "2026-01-31T12:00:00.000+00:00",
        "2026-01-31T13:00:00.000+00:00",
    }
    code, out, _ = ask(capsys, store, "red vans", "--mode", "captions")
    head, *_ = (line.split() for line in out.splitlines() if line.strip())
    assert (code, head[-2:]) == (0, ["utc", "caption"])
    assert "2026-01-31 13:00:00" in out
    assert "a red van parks" in out


def test_people_see_how_one_caption_stands_to_the_best(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    """Of three captions all have "van", so that it is worth next to nothing by itself, and one has "red"."""
    code, found = answer(capsys, store, "van", "--mode", "captions")
    assert (code, found["moments"][0]["score"] < 1e-5) == (0, True)
    for words, wanted in (("van", [100, 100, 100]), ("red van", [100, 0, 0])):
        code, out, _ = ask(capsys, store, words, "--mode", "captions")
        head, *rows = (line for line in out.splitlines() if line.strip() and "\u2500" not in line)
        assert (code, "of best" in head, "score" in head) == (0, True, False)
        shares = [int(row.partition(" %")[0].split()[-1].replace("<1", "0")) for row in rows]
        assert shares == pytest.approx(wanted, abs=15)
        assert "e-0" not in out
    _, out, _ = ask(capsys, store, "van", "--mode", "hybrid")
    assert "score" in out.splitlines()[1]


def test_both(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    code, found = answer(capsys, store, "a red kite", "--mode", "hybrid", "--limit", "2")
    assert (code, found["mode"], found["confident"]) == (0, "hybrid", True)
    names = {moment["name"]: moment for moment in found["moments"]}
    assert names["0.mp4"]["visual_rank"] == 1, "it looks so"
    assert names["1.mp4"]["caption_rank"] == 1, "it is called so"
    code, found = answer(capsys, store, "a red kite", "--limit", "2")
    assert (found["mode"], found["moments"][1]["caption_rank"]) == ("visual", None)


def test_after(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    for mode in ("visual", "captions", "hybrid"):
        code, found = answer(capsys, store, "van", "--mode", mode, "--after", "2026-01-31T12:30Z", "--limit", "9")
        assert code == 0
        assert {moment["name"] for moment in found["moments"]} == {"gate"}
        assert all(moment["utc_start"] >= "2026-01-31T13:00" for moment in found["moments"])
        code, found = answer(capsys, store, "van", "--mode", mode, "--after", "2026-02-01")
        assert (code, found["moments"]) == (4, [])
    code, _, err = ask(capsys, store, "van", "--after", "yesterday")
    assert code == 2
    assert "--after 'yesterday': expected a time such as" in err
    code, _, err = ask(capsys, store, "van", "--added-after", "yesterday")
    assert "--added-after 'yesterday'" in err


def test_what_cannot_be_asked(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    for words, said in (
        (["van", "--mode", "captions", "--confident"], "--confident: what captions say has no percentile"),
        (["--like", "1.mp4@3", "--mode", "hybrid"], "captions are asked by words"),
        (["van", "--mode", "smell"], "smell"),
    ):
        code, out, err = ask(capsys, store, *words)
        assert (code, out) == (2, "")
        assert said in err


def test_a_library_without_captions(capsys: pytest.CaptureFixture[str], silent: Path) -> None:
    code, out, err = ask(capsys, silent, "a red kite", "--mode", "captions")
    assert (code, out) == (4, "")
    assert "note: nothing in this library has captions" in err
    assert "nothing matched 'a red kite'" in err
    code, out, err = ask(capsys, silent, "a red kite", "--mode", "hybrid")
    assert code == 0
    assert "0.mp4" in out
    assert "note: nothing in this library has captions" in err
    code, _, err = ask(capsys, silent, "a red kite")
    assert (code, err) == (0, "")
