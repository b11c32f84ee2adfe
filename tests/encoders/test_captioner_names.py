"""What a captioner's name alone says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from encoders.captioner_names import is_elsewhere, kept_name
from encoders.captioning import load_captioner
from encoders.errors import UnknownModel
from tests.encoders.models import write_config


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("tiny", "tiny"),
        ("tiny:", "tiny"),
        ("vlm:m@HTTP://Host:80/v1/chat/completions", "vlm:m@http://host:80/v1"),
        ("vlm: m @http://host/v1/", "vlm:m@http://host/v1"),
        ("coca:coca_ViT-B-32/LAION2B-s13b-b90k", "coca:coca_ViT-B-32/laion2b_s13b_b90k"),
        ("coca:coca_ViT-B-32/elsewhere/weights.pt", "coca:coca_ViT-B-32/elsewhere/weights.pt"),
        ("python:a.b:C", "python:a.b:C"),
    ],
)
def test_the_name_that_words_are_kept_under(typed: str, kept: str) -> None:
    assert kept_name(typed) == kept
    assert kept_name(kept) == kept


@pytest.mark.parametrize("name", ["tiny", "vlm:m@http://LOCALHOST:1/v1/"])
def test_it_is_the_name_that_the_loaded_one_has(name: str) -> None:
    with load_captioner(name, device="cpu") as captioner:
        assert kept_name(name) == captioner.info.name


def test_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, "coca")
    monkeypatch.chdir(tmp_path)
    name = f"coca:{config.name}/random?seed=0"
    with load_captioner(name, device="cpu", precision="fp32") as captioner:
        assert kept_name(name) == captioner.info.name == f"coca:{config}/random"


@pytest.mark.parametrize("name", ["tinny", "vlm", "vlm:m@http://u:pw@host/v1"])
def test_a_slip_is_told(name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        kept_name(name)
    assert "pw" not in str(caught.value)


def test_where_it_runs() -> None:
    assert is_elsewhere("vlm:m@http://localhost:1/v1")
    assert not is_elsewhere("tiny")
    assert not is_elsewhere("coca:a/b")


def test_asking_loads_nothing() -> None:
    code = (
        "import sys; from encoders.captioner_names import kept_name; kept_name('vlm:m@http://h/v1'); kept_name('tiny');"
        "sys.exit(bool({'torch', 'open_clip', 'aiohttp'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
