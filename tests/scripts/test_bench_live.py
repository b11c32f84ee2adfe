"""The benchmark of live streams, on very little: what it plays, what it asks, what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import bench_live
import numpy as np
import pytest

from scripts.benching.live_words import FADE_SECONDS, HOLD_SECONDS, WAYS, fading, shown_at
from tests.pipeline.evaluation.packing import COLOURS, jpeg, plain, write_files


def test_photographs_fade_into_each_other() -> None:
    """Each is seen best where :func:`shown_at` says; before its fade it is seen alone."""
    colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    pictures = np.broadcast_to(colours[:, None, None], (3, 32, 32, 3)).copy()
    frames = list(fading(pictures))
    assert frames[-1].end_seconds == 3 * HOLD_SECONDS
    for frame in frames:
        distance = np.abs(frame.image.astype(float).mean(axis=(0, 1)) - colours).sum(axis=1)
        seconds = frame.pts_seconds
        into = seconds % HOLD_SECONDS
        if into != HOLD_SECONDS - FADE_SECONDS / 2:  # half of each
            assert int(distance.argmin()) == shown_at(seconds, 3)
        if into < HOLD_SECONDS - FADE_SECONDS:
            assert distance.min() < 6


def test_words_of_few_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"i": i, "w": 96, "h": 96, "key": name, "split": "val", "captions": [f"a {name} wall .", f"{name} all over ."]}
        for i, name in enumerate(COLOURS)
    ]
    write_files(tmp_path / "packs", "flickr8k", [jpeg(plain(colour, 96, 96)) for colour in COLOURS], rows)
    out = tmp_path / "out.json"
    words = ["--part", "words", "--packs", str(tmp_path / "packs"), "--photographs", "2", "--json", str(out)]
    assert bench_live.main(words) == 0
    printed = capsys.readouterr().out
    assert "each window for itself" in printed
    (values,) = [table["values"] for table in json.loads(out.read_text())["tables"]]
    assert [(one["window"], one["margin"]) for one in values] == [
        (window, way.margin) for window in (5.0, 10.0) for way in WAYS
    ]
    assert all(0 < one["new"] <= one["windows"] for one in values)
    firm = [one["new"] for one in values if one["margin"] == 0.4]
    loose = [one["new"] for one in values if one["margin"] == 0.0 and not one["back"]]
    assert all(a <= b for a, b in zip(firm, loose, strict=True))


def test_the_words_need_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "words" not in bench_live.parse([]).part
    with pytest.raises(SystemExit):
        bench_live.parse(["--part", "words"])
    assert "needs --packs" in capsys.readouterr().err


def test_a_minute_of_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The long run on two simulated minutes: verdicts may go either way, the table is there."""
    out = tmp_path / "out.json"
    assert bench_live.main(["--part", "long", "--hours", "0.05", "--json", str(out)]) == 0
    assert "Memory, state and cost" in capsys.readouterr().out
    (table,) = json.loads(out.read_text())["tables"]
    assert [row["minute"] for row in table["values"]] == [1, 2, 3]
