"""What percentiles are worth, measured on a library whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from measure_calibration import END, START, main, percentiles, put_between, separation, separation_interval, share

from tests.pipeline.hashed import directions, put, random_library, random_rows


def test_shares() -> None:
    np.testing.assert_array_equal(percentiles(np.array([0.0, 2.5, 9.0]), np.array([3.0, 1.0, 2.0, 4.0])), [0, 50, 100])
    assert separation(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 0.875
    assert separation(np.array([]), np.array([1.0])) is None
    low, high = separation_interval(np.arange(5.0) + 1, np.arange(5.0)) or (0, 0)
    assert low < separation(np.arange(5.0) + 1, np.arange(5.0)) < high <= 1  # type: ignore[operator]
    wide = separation_interval(np.arange(50.0) + 10, np.arange(50.0)) or (0, 0)
    assert wide[1] - wide[0] < high - low  # more of them tell more
    assert separation_interval(np.array([]), np.array([1.0])) is None
    assert share(np.array([True, False])) == 50
    assert share(np.array([], dtype=bool)) is None


def test_tables_are_put_into_a_page() -> None:
    page = f"before\n{START}\n\nold\n\n{END}\nafter\n"
    new = put_between(page, "| new |")
    assert new == page.replace("old", "| new |")
    assert put_between(new, "| new |") == new
    with pytest.raises(SystemExit, match="no place"):
        put_between(f"{END} {START}", "x")


def test_answers_that_are_there_are_told_from_those_that_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"thing {i}" for i in range(8)]
    with random_library(tmp_path / "store") as library, library.writing("test") as catalog:
        for i, text in enumerate(texts):
            rows = random_rows(20, seed=50 + i)
            rows[3:4] = directions([text])
            put(catalog, f"/v/thing{i}.mp4", rows)
    lines = [{"video": f"thing{i}.mp4", "query": text, "start": 3.0, "end": 4.0} for i, text in enumerate(texts)]
    truth, out = tmp_path / "moments.jsonl", tmp_path / "out.json"
    truth.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = tmp_path / "page.md"
    page.write_text(f"{START}{END}")
    assert (
        main(["--store", str(tmp_path / "store"), "--truth", str(truth), "--out", str(out), "--page", str(page)]) == 0
    )
    assert "| 90 | 8 (100 %) |" in page.read_text()
    figures = json.loads(out.read_text())
    assert (figures["queries"], figures["vectors"], figures["right"]) == (8, 280, 100)
    ours = figures["readings"]["percentile of Longreel"]
    assert ours["separation_present_absent"] == 1  # each is there, or nothing like it
    assert ours["confident"]["90"]["right"] == 100
    assert ours["confident"]["90"]["absent"] <= 50
    assert ours["separation_right_wrong"] is None
    printed = capsys.readouterr().out
    assert "| confident from | right answers, of 8 | answer there, of 8 | answer not there, of 8 |" in printed
    assert "| 90 | 8 (100 %) | 8 (100 %) |" in printed
    assert "| 8 of 8 (100 %) |" in printed  # how many, as a percentage of few says little
    assert "| percentile of Longreel | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | - |" in printed
