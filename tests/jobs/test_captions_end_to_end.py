"""The bundled model from films to subtitles: ``longreel submit --captions``, then ``longreel captions``; the files are
read by other people's parsers."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import srt
import webvtt

from jobs.cli.main import main
from pipeline.catalog import Catalog
from tests.jobs.running import draw_film, longreel, settings

RECIPE = ("ingest.segments.detector=none", "ingest.segments.max_seconds=2")
STARTS = [0.0, 2.0, 4.0, 6.0]


@pytest.mark.ray
def test_films_become_subtitles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"

    def said(*words: str | Path) -> str:
        """By a command that needs no Ray, and no process of its own."""
        with pytest.raises(SystemExit) as ended:
            main([*map(str, words), "--store", str(store)])
        assert ended.value.code == 0
        return capsys.readouterr().out

    for number in (1, 2):
        draw_film(tmp_path / "films" / f"{number}.mp4", 8, seed=number)
    models = ("--model", "tiny", "--captions", "tiny")
    submit = ("submit", tmp_path / "films", *models, "--json", "--store", store, *settings(*RECIPE))
    ran = longreel(*submit)
    assert ran.code == 0, ran.err
    assert {name: (one["state"], one["captions"]) for name, one in ran.items.items()} == {
        "1.mp4": ("done", 4),
        "2.mp4": ("done", 4),
    }
    with Catalog(store / "catalog.sqlite3", create=False) as catalog:
        rows = catalog.segments_of(catalog.video("1.mp4").id)
        assert len(catalog.segments_with_tokens(row.id for row in rows)) == 4, "tiny reads its own token sets"

    lines = [json.loads(line) for line in said("captions", "1.mp4", "--format", "jsonl").splitlines()]
    words = [line["text"] for line in lines]
    assert [line["start_seconds"] for line in lines] == STARTS
    assert {line["model"] for line in lines} == {"tiny"}
    assert all(words)
    assert all(0 < line["confidence"] <= 1 for line in lines)
    cues = list(srt.parse(said("captions", "1.mp4", "--format", "srt"), ignore_errors=False))
    assert [cue.start.total_seconds() for cue in cues] == STARTS
    assert [cue.content for cue in cues] == words
    assert all(left.end <= right.start for left, right in pairwise(cues))
    vtt = tmp_path / "1.vtt"
    said("captions", "1.mp4", "--out", vtt)
    assert [caption.text for caption in webvtt.read(str(vtt)).captions] == words
    assert [caption.start for caption in webvtt.read(str(vtt)).captions] == [f"00:00:0{s:.3f}" for s in STARTS]
    if ffprobe := shutil.which("ffprobe"):
        command = [ffprobe, "-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0", str(vtt)]
        played = subprocess.run(command, capture_output=True, text=True, check=True)
        assert [float(line.strip(",")) for line in played.stdout.split()] == STARTS

    # found by what was said, and not said again
    found = json.loads(said("query", words[0], "--mode", "captions", "--json"))["moments"]
    assert words[0] in {moment["caption"] for moment in found}
    again = longreel(*submit)
    assert (again.code, {(one["state"], one["captions"]) for one in again.items.values()}) == (0, {("skipped", 4)})
    assert not any(event.get("event") == "note" for event in again.events), "neither Ray nor a model is started"
