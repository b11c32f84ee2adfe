"""Rankings of moments on films of plain colours, of which it is known what each must find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import compare_rankings
import numpy as np
import pytest
from compare_rankings import FILMS, RATE, Vectors, by_segment, make_films, near, rankings, table

from pipeline.evaluation.packs import ImageTextPack
from tests.pipeline.evaluation.packing import COLOURS, jpeg, plain, write_files

MODEL = "python:tests.pipeline.evaluation.seeing:Colours"


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compare_rankings, "PHOTOGRAPHS", 3)
    pictures = [plain(colour, 96, 96) for colour in COLOURS]
    rows: list[dict[str, Any]] = [
        {"i": i, "w": 96, "h": 96, "key": name, "split": "val", "captions": [f"a {name} wall .", f"{name} all over ."]}
        for i, name in enumerate(COLOURS)
    ]
    write_files(tmp_path / "packs", "flickr8k", [jpeg(picture) for picture in pictures], rows)
    return tmp_path / "packs"


@pytest.mark.parametrize("kind", FILMS)
def test_films_show_what_their_moments_say(kind: str, packs: Path, tmp_path: Path) -> None:
    pack = ImageTextPack.open(packs, "flickr8k")
    truth = make_films(kind, pack, tmp_path / kind)
    assert len(truth) == 2 * len(COLOURS)
    assert sorted({moment.video for moment in truth}) == [f"{kind}-00.mp4", f"{kind}-01.mp4"]
    assert make_films(kind, pack, tmp_path / kind) == truth  # the same again, of films that are there
    shown = [plain(colour, 96, 96) for colour in ("red", "green", "blue")]
    frames, spans = FILMS[kind](shown, np.random.default_rng(1))
    assert spans[0].start_seconds == 0
    assert spans[-1].end_seconds == len(frames) / RATE
    for number, span in enumerate(spans):  # from its first frame to its last, most of what is seen is its own
        for seconds in (span.start_seconds + 0.1, span.end_seconds - 0.2):
            seen = frames[int(seconds * RATE)].astype(float).mean(axis=(0, 1))
            assert np.argmin([np.abs(picture[0, 0] - seen).sum() for picture in shown]) == number


def test_where_all_is_plain_every_ranking_finds_most(
    packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--packs", str(packs), "--work", str(tmp_path / "work"), "--model", MODEL, "--kinds", "hold"]
    assert compare_rankings.main(given) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["| ranking", "hold |"]
    assert rows[2] == ["| the best vector", "100.0 |"]
    assert {row[0] for row in rows[3:]} >= {"| mean-pooled windows", "| half its segment's mean"}
    assert ["| mean-pooled windows", "100.0 (+0 -0, luck 1) |"] in rows


def test_options_that_belong_together(packs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        compare_rankings.main(["--packs", str(packs), "--work", str(tmp_path), "--store", str(tmp_path)])


def test_means_stay_in_their_video_and_segment() -> None:
    rows = np.eye(4)[[0, 1, 2, 3]]
    start = np.array([0.0, 2.0, 4.0, 0.0])
    vectors = Vectors(rows, np.array(list("aaab")), np.array([1, 1, 2, 3]), np.ones(4), start, start + 2)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        by_segment(vectors), [[half, half, 0, 0], [half, half, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], atol=1e-7
    )
    third = np.sqrt(1 / 3)
    np.testing.assert_allclose(
        near(vectors, 1.5), [[half, half, 0, 0], [third] * 3 + [0], [0, half, half, 0], [0, 0, 0, 1]], atol=1e-7
    )
    np.testing.assert_allclose(near(vectors, 0.5), rows, atol=1e-7)
    alike = near(vectors, 1.5, 0.1)  # these are not alike
    assert (np.diag(alike) > 0.99).all()
    names = [name for name, scores in rankings(np.eye(4), vectors, np.eye(4)) if scores.shape == (4, 4)]
    assert names[0] == "the best vector"
    assert len(names) == len(set(names)) == 10


def test_the_table_counts_who_wins() -> None:
    found = {"the best vector": [True, False, False, True], "other": [True, True, False, False]}
    assert table({"hold": found}).splitlines()[-1] == "| other | 50.0 (+1 -1, luck 1) |"
