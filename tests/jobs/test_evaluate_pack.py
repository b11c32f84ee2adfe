"""``longreel evaluate --pack``, with test doubles that see plain colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import evaluate_pack
from jobs.cli.evaluate_pack import captioner_name
from jobs.cli.main import main
from jobs.errors import UsageError
from tests.encoders.models import write_config
from tests.pipeline.evaluation.packing import colours_pack, jpeg, plain, write_files

SEEING = "python:tests.pipeline.evaluation.seeing:Colours"


@pytest.fixture
def pack(tmp_path: Path) -> str:
    return str(colours_pack(tmp_path).with_suffix(""))


def longreel(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert longreel(*arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def test_sentences_are_searched(pack: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, "--pack", pack, "--model", SEEING)
    assert (value["pack"], value["split"], value["limit"]) == ("colours", "test", None)
    assert value["model"].startswith("python:")
    assert value["retrieval"]["text_to_image"]["R@1"] == 100.0
    assert value["retrieval"]["texts"] == 12
    assert "zero_shot" not in value
    assert "captions" not in value


def test_labels_are_classified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours_pack(tmp_path, labelled=True)
    value = answer(capsys, "--pack", f"{tmp_path}/colours.npz:train", "--model", SEEING)
    assert value["split"] == "train"
    assert value["zero_shot"]["top1"] == 100.0
    assert "retrieval" not in value


def test_captions(pack: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_pack, "captioner_name", lambda model: model.replace("Colours", "Painter"))
    value = answer(capsys, "--pack", f"{pack}:train", "--model", SEEING, "--captions", "--limit", "3")
    assert value["captions"]["BLEU-3"] == pytest.approx(100, abs=1e-3)
    assert [example["caption"] for example in value["captions"]["examples"]] == [
        "A red wall",
        "A green wall",
        "A blue wall",
    ]


def test_what_cannot_caption_says_so_before_anything_is_encoded(
    pack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(*args: Any, **options: Any) -> None:
        raise AssertionError("the pictures were encoded first")

    monkeypatch.setattr("pipeline.evaluation.retrieval.evaluate_retrieval", encoded)
    model = f"openclip:{write_config(tmp_path, 'vit')}/random"
    error = answer(capsys, "--pack", pack, "--model", model, "--captions", code=2)["error"]
    assert error["type"] == "CaptionerUnavailable"
    assert "has no caption decoder" in error["message"]


def test_a_table_for_people(pack: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_pack, "captioner_name", lambda model: model.replace("Colours", "Painter"))
    assert longreel("--pack", pack, "--model", SEEING, "--captions", "--limit", "4") == 0
    out = capsys.readouterr().out
    for text in (
        "text to image",
        "R@10",
        "chance",
        "the first 4 pictures: not comparable",
        "CIDEr",
        "people: a red wall .",
    ):
        assert text in out
    assert longreel("--pack", str(colours_pack(Path(pack).parent, "labels", labelled=True)), "--model", SEEING) == 0
    assert "6 pictures, 6 classes" in capsys.readouterr().out


def test_out_gets_the_same(pack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, "--pack", pack, "--model", SEEING, "--out", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text()) == value


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["--pack", "{pack}"], "UsageError", "--pack judges a model: name it"),
        (["--pack", "{pack}:tets", "--model", SEEING], "PackError", "did you mean 'test'"),
        (["--pack", "{pack}:", "--model", SEEING], "UsageError", "expected FOLDER/NAME[:SPLIT]"),
        (["--pack", "{pack}ful", "--model", SEEING], "PackError", "has the packs colours"),
        (["--pack", "{pack}", "--model", "nonsense"], "UnknownModel", "nonsense"),
        (["--pack", "{pack}", "--model", SEEING, "--captions"], "UsageError", "has no caption decoder"),
        (["--pack", "{pack}", "--model", SEEING, "--sweep"], "UsageError", "--sweep: not with --pack"),
    ],
)
def test_what_cannot_be_asked(
    pack: str, capsys: pytest.CaptureFixture[str], arguments: list[str], kind: str, said: str
) -> None:
    error = answer(capsys, *(text.replace("{pack}", pack) for text in arguments), code=2)["error"]
    assert error["type"] == kind
    assert said in error["message"]


def test_a_pack_with_neither_test_nor_val_asks_for_the_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"i": 0, "w": 32, "h": 24, "key": "a", "split": "all", "captions": ["a wall"]}
    write_files(tmp_path, "one", [jpeg(plain("red"))], [row])
    error = answer(capsys, "--pack", f"{tmp_path}/one", "--model", SEEING, code=2)["error"]
    assert "name one of all as FOLDER/NAME:SPLIT" in error["message"]
    assert answer(capsys, "--pack", f"{tmp_path}/one:all", "--model", SEEING)["retrieval"]["pictures"] == 1


def test_labels_have_no_captions_to_compare_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours_pack(tmp_path, labelled=True)
    error = answer(capsys, "--pack", f"{tmp_path}/colours", "--model", SEEING, "--captions", code=2)["error"]
    assert "made from its labels" in error["message"]


def test_a_folder_with_a_colon_in_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos:old"
    colours_pack(folder)
    assert answer(capsys, "--pack", f"{folder}/colours", "--model", SEEING)["split"] == "test"
    assert answer(capsys, "--pack", f"{folder}/colours:train", "--model", SEEING)["split"] == "train"


def test_which_captioner_belongs_to_a_model() -> None:
    assert captioner_name("tiny") == "tiny"
    assert captioner_name("openclip:coca_ViT-B-32/laion2b_s13b_b90k") == "coca:coca_ViT-B-32/laion2b_s13b_b90k"
    with pytest.raises(UsageError, match="has no caption decoder"):
        captioner_name("python:some.module:model")
