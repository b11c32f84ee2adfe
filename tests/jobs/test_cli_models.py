"""``longreel models``, on open_clip's own table; no network is used."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import encoders
from encoders.base import Progress
from jobs.cli import models as module
from jobs.cli.main import main

TAGGED = "openclip:ViT-B-32/laion2b_s34b_b79k"


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    # Read by the hub's client at its import, so the variables alone would come too late.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def longreel(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["models", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    out = capsys.readouterr().out
    return out, json.loads(out) if out.lstrip().startswith(("{", "[")) else None


def test_list_names_models_that_can_be_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("list", "--json") == 0
    _, found = said(capsys)
    assert len(found) > 50
    assert [entry["name"] for entry in found] == sorted(entry["name"] for entry in found)
    assert {entry["name"]: entry["downloaded"] for entry in found}[TAGGED] is False


def test_list_keeps_to_an_architecture_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("list", "--arch", "b-32", "--json") == 0
    _, found = said(capsys)
    assert found
    assert all("B-32" in entry["architecture"] for entry in found)


def test_list_in_a_pipe_is_one_line_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("list", "--arch", "ViT-B-32") == 0
    lines = said(capsys)[0].splitlines()
    assert all(line.count("\t") == 2 for line in lines)
    assert any(line.startswith(f"{TAGGED}\tnot here\t") for line in lines)


def test_what_comes_with_longreel_is_always_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("list", "--downloaded") == 0
    assert said(capsys)[0] == "tiny\there\tcomes with Longreel\n"


def test_nothing_found_is_exit_code_4_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("list", "--arch", "nonesuch") == 4
    assert "nonesuch" in capsys.readouterr().err
    assert longreel("list", "--downloaded", "--arch", "ViT-B-32") == 4
    assert "longreel models fetch" in capsys.readouterr().err


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("show", TAGGED) == 0
    text, _ = said(capsys)
    assert "224 x 224 pixels" in text
    assert f"longreel models fetch {TAGGED}" in text
    assert longreel("show", TAGGED, "--json") == 0
    _, model = said(capsys)
    assert (model["dimension"], model["patch_size"], model["downloaded"]) == (512, 32, False)
    assert model["preprocess"]["interpolation"] == "bicubic"


def test_show_prints_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("show", TAGGED) == 0
    text, _ = said(capsys)
    assert re.search(r"licence +MIT", text)
    assert re.search(r"languages +en", text)
    assert re.search(r"a query is put +as it is", text)
    assert longreel("show", TAGGED, "--json") == 0
    card = said(capsys)[1]["card"]
    assert (card["templates"], card["languages"]) == (["{}"], ["en"])
    assert longreel("show", "openclip:ViT-B-32/random") == 0
    assert re.search(r"limit +words mean nothing to it", said(capsys)[0])


def test_what_no_weights_would_tell_is_not_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("show", "tiny") == 0  # a convolutional tower, of which no patch is stated
    assert re.search(r"^patch +not said by its configuration *$", said(capsys)[0], re.MULTILINE)
    assert longreel("show", TAGGED) == 0
    assert re.search(r"^patch +32 x 32 pixels *$", said(capsys)[0], re.MULTILINE)


def test_the_bundled_model_is_shown_and_needs_no_download(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("show", "tiny") == 0
    text, _ = said(capsys)
    for words in (
        "comes with Longreel",
        "96 x 96 pixels",
        r"text length +32 tokens",
        "licence +trained on pictures for",
    ):
        assert re.search(words, text), words
    assert "fetch" not in text
    assert longreel("fetch", "tiny") == 0
    assert said(capsys)[0] == "tiny needs no download: comes with Longreel\n"


@pytest.mark.parametrize(("name", "near"), [("tinny", "tiny"), ("ViT-B-32/openai", "openclip:ViT-B-32/openai")])
def test_a_name_without_a_scheme_is_a_bundled_one(capsys: pytest.CaptureFixture[str], name: str, near: str) -> None:
    assert longreel("show", name) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"UnknownModel: model {name!r}")
    assert "comes with Longreel, only tiny;" in message
    assert f"did you mean {near}?" in message


def test_an_unknown_model_names_the_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("show", "openclip:ViT-B-23/openai") == 2
    assert "openclip:ViT-B-32/openai" in capsys.readouterr().err


def test_fetch_offline_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("fetch", TAGGED) == 2
    message = capsys.readouterr().err
    assert message.startswith("WeightsUnavailable:")
    assert "HF_HUB_OFFLINE" in message
    assert longreel("fetch", TAGGED, "--json") == 2
    assert said(capsys)[1]["error"]["type"] == "WeightsUnavailable"


def test_fetch_random_needs_no_download(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("fetch", "openclip:ViT-B-32/random") == 0
    assert "needs no download" in said(capsys)[0]


def fake_fetch(name: str, progress: Any = None) -> str:
    for done in (0, 300_000_000, 605_000_000):
        progress(Progress("downloading it", done, 605_000_000))
    return "/cache/open_clip_model.safetensors"


def test_fetch_says_each_step_once_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "fetch_model", fake_fetch, raising=False)
    assert longreel("fetch", TAGGED) == 0
    captured = capsys.readouterr()
    assert captured.err == "downloading it\n"
    assert "/cache/open_clip_model.safetensors" in captured.out


def test_fetch_draws_a_bar_of_bytes_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(module, "console", lambda stderr=False: Console(file=screen, force_terminal=True, width=120))
    monkeypatch.setattr(encoders, "fetch_model", fake_fetch, raising=False)
    assert longreel("fetch", TAGGED) == 0
    assert "605.0/605.0 MB" in screen.getvalue()
