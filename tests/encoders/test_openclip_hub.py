"""Tagged weights: fetched from a hub with progress, kept in its cache, and never replaced by anything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hub")
    run = subprocess.run(
        [sys.executable, "-m", "tests.encoders.hub_scenario", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {"folder": str(folder), **json.loads(run.stdout.splitlines()[-1])}


def test_fetching_tells_where_from_how_much_and_how_far(result: dict[str, Any]) -> None:
    assert result["fetched"].startswith(result["folder"])
    assert result["fetched"].endswith("open_clip_pytorch_model.bin")  # where there are no safetensors
    message, done, total = result["events"][0]
    assert "longreel/trained" in message
    assert "MB" in message
    assert (done, total) == (0, result["bytes"])
    assert result["events"][-1][1] == result["bytes"]


def test_what_was_fetched_loads_without_a_hub(result: dict[str, Any]) -> None:
    assert result["weights"] == f"sha256:{result['digest']}"
    assert result["random"] is False
    assert result["shape"] == [2, 48]
    assert "QuickGELU" in result["notes"][0]
    assert result["listed"] == ["openclip:tiny_vit/trained", "tiny"]


def test_asking_whether_weights_can_be_had_brings_none(result: dict[str, Any]) -> None:
    assert result["downloaded_when_asked_for"] is False


def test_the_hub_is_not_awaited_for_long(result: dict[str, Any]) -> None:
    assert result["silent"]["waited_for"] == 10.0
    assert "timed out" in result["silent"]["message"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("absent", "no such file"),
        ("unreachable", "cannot be reached"),
        ("silent", "cannot be reached"),
        ("offline", "HF_HUB_OFFLINE forbids"),
        ("required", "HF_HUB_OFFLINE forbids"),
    ],
)
def test_weights_that_cannot_be_had_are_an_error_that_says_what_to_do(
    result: dict[str, Any], case: str, words: str
) -> None:
    failure = result[case]
    assert failure["type"] == "WeightsUnavailable"
    assert failure["downloaded"] is False
    assert words in failure["message"]
    tag = case if case in ("absent", "silent") else "late"
    for part in (f"longreel models fetch openclip:tiny_vit/{tag}`", f"{result['folder']}/hf/hub", "`--model tiny`"):
        assert part in failure["message"]


def test_a_download_that_differs_from_its_hash_is_dropped(result: dict[str, Any]) -> None:
    assert result["damaged"]["type"] == "WeightsDamaged"
    assert result["damaged"]["downloaded"] is False
