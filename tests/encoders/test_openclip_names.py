"""Names: what they mean, and what is said about one that means nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import describe_model, list_models, load_encoder
from encoders.errors import (
    EncoderOptionError,
    PreprocessMismatch,
    UnknownModel,
    WeightsMismatch,
    WeightsUnavailable,
)
from encoders.openclip.architecture import resolve
from encoders.openclip.names import parse_name
from tests.encoders.models import VIT, write_config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-32", "all others are SCHEME:NAME"),
        ("opencli:ViT-B-32/random", "did you mean openclip:ViT-B-32/random"),
        ("openclip:ViT-B-23/random", "near ones: .*openclip:ViT-B-32/random"),
        ("openclip:vit-b-32/openai", "near ones: openclip:ViT-B-32/openai"),
        ("openclip:ViT-B-32", "must say which weights"),
        ("openclip:ViT-B-32/opena", "near: openai"),
        ("openclip:ViT-B-32/Random", "'random' for a trial"),
        ("openclip:ViT-B-32/random?seed=x", "whole number"),
        ("openclip:ViT-B-32/openai?seed=1", "'random' weights only"),
        ("openclip:ViT-B-32/random?like=openai", "not to 'random'"),
        ("openclip:ViT-B-32/openai?like=openai", "not to a tag"),
        ("openclip:nowhere/tiny.json/random", "there is no file"),
        ("python:os", "python:package.module:factory"),
        ("python:no_such_module:x", "no_such_module"),
        ("python:os:nothing", "no callable 'nothing'"),
        ("python:builtins:repr", "no Encoder"),
    ],
)
def test_unknown_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(UnknownModel, match=message):
        load_encoder(name)


@pytest.mark.parametrize("path", ["/no/such/file.safetensors", "no/such.pt", "~/no-such-checkpoint", "weights.bin"])
def test_a_missing_checkpoint_is_named(path: str) -> None:
    with pytest.raises(WeightsUnavailable, match="does not exist"):
        load_encoder(f"openclip:ViT-B-32/{path}")


def test_tags_are_read_as_open_clip_reads_them() -> None:
    assert parse_name("ViT-B-32/LAION2B-s34b-b79k").full == "openclip:ViT-B-32/laion2b_s34b_b79k"


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, "vit")
    (tmp_path / "w.pt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert parse_name("tiny_vit.json/w.pt").full == f"openclip:{tmp_path}/tiny_vit.json/{tmp_path}/w.pt"
    assert parse_name("tiny_vit.json/random?seed=3").full == f"openclip:{tmp_path}/tiny_vit.json/random?seed=3"


def test_random_says_so_and_its_seed_is_in_the_name(tmp_path: Path) -> None:
    name = f"openclip:{write_config(tmp_path, 'vit')}/random"
    with load_encoder(name, precision="fp32") as a, load_encoder(name, precision="fp32", seed=5) as b:
        assert a.info.random
        assert a.info.name == name
        assert b.info.name == f"{name}?seed=5"
        assert a.info.fingerprint != b.info.fingerprint
    with pytest.raises(EncoderOptionError, match="seed 4 has no meaning"):
        load_encoder(f"{name}?seed=5", seed=4)


def test_openai_weights_get_quick_gelu_although_the_architecture_has_none() -> None:
    openai, laion = describe_model("openclip:ViT-B-32/openai"), describe_model("openclip:ViT-B-32/laion2b_s34b_b79k")
    assert (openai.quick_gelu, laion.quick_gelu) == (True, False)
    assert "QuickGELU" in openai.notes[0]
    assert describe_model("openclip:ViT-B-32-quickgelu/openai").notes == ()


def test_preprocessing_comes_from_the_tag() -> None:
    assert describe_model("openclip:ViT-B-16-SigLIP/webli").preprocess["mean"] == [0.5, 0.5, 0.5]
    assert describe_model("openclip:ViT-B-16-SigLIP/webli").preprocess["resize_mode"] == "squash"
    assert describe_model("openclip:ViT-L-14-CLIPA/datacomp1b").preprocess["interpolation"] == "bilinear"
    assert describe_model("openclip:ViT-B-16-SigLIP/random").preprocess["mean"] == [0.5, 0.5, 0.5]


def sidecar(folder: Path, **changes: Any) -> None:
    content = {"model_cfg": json.loads(json.dumps(VIT)), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    for key, value in changes.items():
        content["model_cfg"][key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(content))


def test_a_local_copy_needs_a_statement_of_how_it_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"x")
    for architecture in (
        "ViT-B-32",
        "ViT-L-14",
        "RN50x4",
    ):  # RN50x4: all its weights are QuickGELU, the plain one is not
        with pytest.raises(PreprocessMismatch, match=r"\?like=openai.*open_clip_config.json"):
            resolve(parse_name(f"{architecture}/{path}"))
    like = resolve(parse_name(f"ViT-B-32/{path}?like=openai"))
    assert like.config["quick_gelu"] is True
    assert resolve(parse_name(f"ViT-L-14/{path}?like=dfn2b")).config["quick_gelu"] is True
    assert resolve(parse_name(f"ViT-B-32-quickgelu/{path}")).config["quick_gelu"] is True  # the name is the statement
    with pytest.raises(UnknownModel, match="no such tag"):
        parse_name(f"ViT-B-32/{path}?like=opena")


def test_the_configuration_beside_a_checkpoint_is_read_and_checked(tmp_path: Path) -> None:
    config, path = write_config(tmp_path, "vit"), tmp_path / "w.safetensors"
    path.write_bytes(b"x")
    sidecar(tmp_path, quick_gelu=True)
    resolved = resolve(parse_name(f"{config}/{path}"))
    assert resolved.config["quick_gelu"] is True
    assert resolved.preprocess.mean == (0.5, 0.5, 0.5)
    assert "beside" in resolved.preprocess.source
    sidecar(tmp_path, vision_cfg={**VIT["vision_cfg"], "width": 128})  # type: ignore[dict-item]
    with pytest.raises(WeightsMismatch, match=r"vision_cfg\.width is 128 there and 64 here"):
        resolve(parse_name(f"{config}/{path}"))


def test_a_configuration_file_may_carry_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"model_cfg": VIT, "preprocess_cfg": {"resize_mode": "squash", "size": [3, 32, 32]}}))
    resolved = resolve(parse_name(f"{path}/random"))
    assert (resolved.preprocess.resize_mode, resolved.preprocess.source) == ("squash", "own.json")
    path.write_text(json.dumps({"model_cfg": {"embed_dim": 4}}))
    with pytest.raises(UnknownModel, match="lacks vision_cfg, text_cfg"):
        resolve(parse_name(f"{path}/random"))
    path.write_text("{")
    with pytest.raises(UnknownModel, match="cannot be read as JSON"):
        resolve(parse_name(f"{path}/random"))


def test_descriptions_and_lists_need_no_weights(tmp_path: Path) -> None:
    known = describe_model("openclip:ViT-B-32/laion2b_s34b_b79k")
    assert (known.dimension, known.image_height, known.patch_size, known.context_length) == (512, 224, 32, 77)
    assert known.parameters == 151_277_313
    tiny = describe_model(f"openclip:{write_config(tmp_path, 'vit')}/random")
    assert tiny.random
    assert tiny.downloaded
    entries = list_models()
    assert len({entry.name for entry in entries}) == len(entries) > 100
    assert all(entry.downloaded for entry in list_models(downloaded_only=True))


def test_building_a_model_leaves_the_random_state_alone(tmp_path: Path) -> None:
    path = write_config(tmp_path, "coca")
    before = torch.get_rng_state()
    load_encoder(f"openclip:{path}/random", precision="fp32").close()
    assert torch.equal(before, torch.get_rng_state())
