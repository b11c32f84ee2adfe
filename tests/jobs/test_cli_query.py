"""``longreel query``: percentiles, and "no confident match"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.main import main
from tests.pipeline.hashed import random_library


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query") / "store"
    random_library(folder).close()
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query") / "small"
    random_library(folder, videos=1, each=8).close()
    return folder


def ask(capsys: pytest.CaptureFixture[str], store: Path, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["query", *words, "--store", str(store)])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


def absent(capsys: pytest.CaptureFixture[str], store: Path) -> str:
    """A question to which this library has no confident answer."""
    for i in range(20):
        code, out, _ = ask(capsys, store, f"question {i}", "--json")
        assert code == 0
        if json.loads(out)["best_percentile"] < 80:
            return f"question {i}"
    raise AssertionError("every question has an answer")


def test_what_is_there_is_a_confident_match(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    code, out, _ = ask(capsys, store, "a red kite", "--confident", "--json")
    answer: dict[str, Any] = json.loads(out)
    assert code == 0
    assert list(answer) == ["query", "model", "confident", "confident_percentile", "best_percentile", "moments", "mode"]
    assert (answer["confident"], answer["confident_percentile"], answer["best_percentile"]) == (True, 90.0, 100.0)
    assert answer["moments"][0]["name"] == "0.mp4"
    assert all(moment["percentile"] >= 90 for moment in answer["moments"])
    code, out, _ = ask(capsys, store, "a red kite", "--limit", "2")
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert code == 0
    assert lines[0][-2:] == ["score", "pct"]
    assert lines[2][-2:] == ["1.000", "100"]


def test_what_is_not_there_is_none(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    question = absent(capsys, store)
    code, out, err = ask(capsys, store, question, "--confident")
    assert (code, out) == (4, "")
    assert f"no confident match for '{question}': the best was at percentile " in err
    assert "confident is 90 and above" in err
    code, out, _ = ask(capsys, store, question, "--confident", "--json")
    answer = json.loads(out)
    assert (code, answer["confident"], answer["moments"]) == (4, False, [])
    assert 0 <= answer["best_percentile"] < 80
    code, out, _ = ask(capsys, store, question)  # without the flag it is shown
    assert code == 0
    assert ".mp4" in out


def test_the_level_can_be_set(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    question = absent(capsys, store)
    code, out, _ = ask(capsys, store, question, "--confident", "--set", "search.confident_percentile=0", "--json")
    answer = json.loads(out)
    assert (code, answer["confident"], answer["confident_percentile"]) == (0, True, 0.0)
    code, _, err = ask(capsys, store, question, "--set", "search.confident_percentile=101")
    assert code == 2
    assert "confident_percentile 101.0: must be from 0 to 100" in err


def test_a_library_too_small_to_tell(capsys: pytest.CaptureFixture[str], small: Path) -> None:
    code, out, err = ask(capsys, small, "a red kite", "--confident")
    assert (code, out) == (4, "")
    assert "no confident match for 'a red kite': the library is too small to tell" in err
    code, out, _ = ask(capsys, small, "a red kite", "--json")
    answer = json.loads(out)
    assert (code, answer["confident"], answer["best_percentile"]) == (0, None, None)
    assert answer["moments"][0]["percentile"] is None
    code, out, _ = ask(capsys, small, "a red kite")
    assert code == 0
    assert "pct" not in out


def test_likes_are_rated_too(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    code, out, _ = ask(capsys, store, "--like", "2.mp4@7", "--confident", "--json")
    assert code == 0
    assert json.loads(out)["moments"][0]["percentile"] == 100
