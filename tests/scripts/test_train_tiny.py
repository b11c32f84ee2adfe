"""The training of the bundled model at toy size: killed and resumed it ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import train_tiny
from tests.scripts.toy_packs import toy_packs

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
FIGURES = {
    "sight": {"named", "spoken", "right"},
    "words": {"matching", "written", "named", "spoken", "scale"},
    "video": {"moving", "still", "matching"},
}
RETRIEVAL = {"t2i_r1", "t2i_r10", "i2t_r1", "i2t_r10"}
CHECKS = {
    "sight": {"top1", "spoken"},
    "words": {*RETRIEVAL, "written"},
    "video": {*RETRIEVAL, "written", "moving", "order"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Toy packs; removed at once, for checkpoints are large."""
    folder = tmp_path_factory.mktemp("training")
    toy_packs(folder / "packs")
    yield folder
    shutil.rmtree(folder)


def arguments(folder: Path, out: str, *more: str) -> list[str]:
    return ["--packs", str(folder / "packs"), "--out", str(folder / out), "--recipe", "toy", "--threads", "1", *more]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A training that nothing stopped."""
    command = [sys.executable, str(ROOT / "scripts" / "train_tiny.py"), *arguments(folder, "whole")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m encoders.bundled.files" in done.stdout.splitlines()[-1]
    return folder / "whole"


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "curves.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_training_leaves_weights_and_curves(whole: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(whole / "tiny.safetensors"), "pt") as weights:
        assert {"visual.trunk.stem.0.weight", "logit_scale"} <= set(weights.keys())
    assert sorted(path.name for path in whole.glob("*.partial")) == []
    seen = lines(whole)
    steps = [(stage, step, kind) for stage in train_tiny.STAGES for step in range(1, 5) for kind in _kinds(step)]
    assert [(line["stage"], line["step"], "check" if "check" in line else "loss") for line in seen] == steps
    for line in seen:
        if "check" in line:
            assert set(line["check"]) == CHECKS[line["stage"]]
        else:
            assert set(line) == {"stage", "step", "loss", "rate", "norm", *FIGURES[line["stage"]]}


def _kinds(step: int) -> list[str]:
    return ["loss", "check"] if step % 2 == 0 else ["loss"]


def test_killed_and_resumed_it_ends_the_same(folder: Path, whole: Path) -> None:
    stops = [
        (signal.SIGINT, "sight 3/4"),  # its line is in the curve, its step in no checkpoint
        (signal.SIGKILL, "words 3/4"),
        (signal.SIGKILL, "clips_check.bank"),  # seen, but not yet kept
        (signal.SIGKILL, "video 3/4"),
        (0, ""),
    ]
    command = [sys.executable, str(ROOT / "tests" / "scripts" / "stopped_training.py"), json.dumps(stops)]
    done = subprocess.run([*command, *arguments(folder, "stopped")], env=ENVIRONMENT, capture_output=True, text=True)
    assert json.loads(done.stdout) == [128 + signal.SIGINT, -signal.SIGKILL, -signal.SIGKILL, -signal.SIGKILL, 0], (
        done.stderr
    )
    assert "stopped; the same command goes on from the last checkpoint" in done.stderr
    assert [f"{stage}: goes on at step 2 of 4" in done.stderr for stage in train_tiny.STAGES] == [True] * 3
    out = folder / "stopped"
    assert (out / "curves.jsonl").read_bytes() == (whole / "curves.jsonl").read_bytes()
    assert (out / "tiny.safetensors").read_bytes() == (whole / "tiny.safetensors").read_bytes()


def test_another_seed_needs_another_folder(
    folder: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "curves.jsonl").read_bytes()
    assert train_tiny.main(arguments(folder, "whole", "--seed", "1", "--stages", "sight")) == 1
    assert "sight.pt is of another plan or seed" in capsys.readouterr().err
    assert (whole / "curves.jsonl").read_bytes() == before


def test_a_stage_needs_the_one_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_tiny.main(arguments(folder, "nothing", "--stages", "words")) == 1
    assert "sight.pt is not there: train stage sight first" in capsys.readouterr().err


def test_a_stage_needs_the_end_of_the_one_before(tmp_path: Path) -> None:
    import torch

    from scripts.training.loop import TrainingError

    torch.save({"step": 2, "plan": {"steps": 4}, "average": {}}, tmp_path / "sight.pt")
    with pytest.raises(TrainingError, match="at step 2 of 4: finish it"):
        train_tiny.load_average(torch.nn.Linear(1, 1), tmp_path, "sight")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--packs", "/nowhere"], "/nowhere has no pack tinyimagenet.npz"),
        (["--device", "cuda:99"], "--device cuda:99: not here"),
        (["--device", "banana"], "--device banana: not here"),
    ],
)
def test_what_does_not_fit_is_said(
    folder: Path, change: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_tiny.main(arguments(folder, "refused", *change)) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--stages", "sight,dance"], ["--seed", "-1"], ["--threads", "-2"]])
def test_wrong_options(folder: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_tiny.main(arguments(folder, "refused", *wrong))
    assert stopped.value.code == 2
    assert not (folder / "refused").exists() or not list((folder / "refused").iterdir())


def test_stages_are_trained_in_their_order() -> None:
    options = train_tiny.parse(["--packs", "p", "--out", "o", "--stages", " video,sight ,sight"])
    assert options.stages == ["sight", "video"]
