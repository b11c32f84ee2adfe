"""Weights: the same everywhere, read safely, and refused when damaged or of another model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from encoders import load_encoder
from encoders.errors import WeightsDamaged, WeightsMismatch
from encoders.openclip.architecture import build
from tests.encoders.models import VIT, pictures, write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, "vit")


def state() -> dict[str, torch.Tensor]:
    return dict(build(VIT, 0).state_dict())


def test_random_weights_are_the_same_in_another_process(tmp_path: Path) -> None:
    path = write_config(tmp_path, "coca")
    script = (
        "import sys, json, torch; torch.manual_seed(99); torch.randn(1000)\n"
        "from encoders import load_encoder\n"
        "from tests.encoders.models import pictures\n"
        "e = load_encoder(sys.argv[1], precision='fp32')\n"
        "print(json.dumps([e.info.fingerprint, e.encode(pictures(1)).embedding[0].tolist()]))\n"
    )
    name = f"openclip:{path}/random"
    run = subprocess.run(
        [sys.executable, "-c", script, name], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stderr == ""  # open_clip warns about random weights on the root logger; here they were asked for
    fingerprint, embedding = json.loads(run.stdout)
    with load_encoder(name, precision="fp32") as encoder:
        assert encoder.info.fingerprint == fingerprint
        torch.testing.assert_close(encoder.encode(pictures(1)).embedding[0], torch.tensor(embedding), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "training", "parallel"])
def test_a_checkpoint_gives_the_model_it_was_saved_from(config: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state(), str(path))
    elif kind == "pt":
        torch.save(state(), path)
    elif kind == "training":
        torch.save({"epoch": 3, "name": "x", "state_dict": state()}, path)
    else:
        torch.save({f"module.{k}": v for k, v in state().items()}, path)
    frames = pictures(2)
    with (
        load_encoder(f"openclip:{config}/random", precision="fp32") as random,
        load_encoder(f"openclip:{config}/{path}", precision="fp32") as local,
    ):
        assert not local.info.random
        assert local.info.name.endswith(str(path))
        assert local.info.weights.startswith("sha256:")
        assert local.info.fingerprint != random.info.fingerprint
        torch.testing.assert_close(local.encode(frames).embedding, random.encode(frames).embedding)
        torch.testing.assert_close(local.encode_text(["hi"]), random.encode_text(["hi"]))


def test_the_fingerprint_follows_content_and_not_place(config: Path, tmp_path: Path) -> None:
    weights = state()
    prints = []
    for name, change in (("a", 0.0), ("b", 0.0), ("c", 0.5)):
        weights["visual.proj"] = weights["visual.proj"] + change
        save_file(weights, str(tmp_path / f"{name}.safetensors"))
        with load_encoder(f"openclip:{config}/{tmp_path / name}.safetensors", precision="fp32") as encoder:
            prints.append(encoder.info.fingerprint)
    assert prints[0] == prints[1] != prints[2]


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_damaged_files_are_refused(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(state(), str(tmp_path / "whole.safetensors"))
    torch.save(state(), tmp_path / "whole.pt")
    cases: dict[str, tuple[bytes, str]] = {
        "cut.safetensors": ((tmp_path / "whole.safetensors").read_bytes()[:-1000], "no whole safetensors"),
        "empty.safetensors": (b"", "no whole safetensors"),
        "cut.pt": ((tmp_path / "whole.pt").read_bytes()[:-1000], "no whole torch|corrupt"),
        "empty.pt": (b"", "is empty"),
        "text.pt": (b"hello, I am no checkpoint", "no whole torch|corrupt"),
        "odd.onnx": (b"x", "must end in one of"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsDamaged, match=message):
            load_encoder(f"openclip:{config}/{tmp_path / name}")
    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(WeightsDamaged, match="more than plain weights"):
        load_encoder(f"openclip:{config}/{tmp_path}/bomb.pt")
    assert not (tmp_path / "exploded").exists()
    torch.save({"epoch": 1}, tmp_path / "no_state.pt")
    with pytest.raises(WeightsDamaged, match="'epoch' is no tensor"):
        load_encoder(f"openclip:{config}/{tmp_path}/no_state.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    with pytest.raises(WeightsDamaged, match="TorchScript"):
        load_encoder(f"openclip:{config}/{tmp_path}/script.pt")


def test_weights_that_are_not_finite_are_refused(config: Path, tmp_path: Path) -> None:
    weights = state()
    weights["visual.proj"][0, 0] = float("nan")
    save_file(weights, str(tmp_path / "nan.safetensors"))
    with pytest.raises(WeightsDamaged, match=r"visual\.proj not finite"):
        load_encoder(f"openclip:{config}/{tmp_path}/nan.safetensors")


def test_weights_of_another_architecture_are_refused(config: Path, tmp_path: Path) -> None:
    weights, path = state(), tmp_path / "other.safetensors"
    weights["surplus"] = torch.zeros(1)
    weights["visual.proj"] = torch.zeros(3, 4)
    del weights["visual.class_embedding"]
    save_file(weights, str(path))
    with pytest.raises(WeightsMismatch) as caught:
        load_encoder(f"openclip:{config}/{path}")
    message = str(caught.value)
    assert "1 keys missing (visual.class_embedding)" in message
    assert "1 keys unexpected (surplus)" in message
    assert "visual.proj [3, 4] instead of [64, 48]" in message


def test_positions_of_another_image_size_are_not_stretched_in_silence(config: Path, tmp_path: Path) -> None:
    larger = {**VIT, "vision_cfg": {**VIT["vision_cfg"], "image_size": 64}}  # type: ignore[dict-item]
    save_file(dict(build(larger, 0).state_dict()), str(tmp_path / "larger.safetensors"))
    with pytest.raises(WeightsMismatch, match="positional_embedding"):
        load_encoder(f"openclip:{config}/{tmp_path}/larger.safetensors")
