"""What stands behind a model card: every part measured at toy size, and the page that is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluate_tiny
import make_tiny_card
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluation.captions import caption_scores
from pipeline.evaluation.packs import ImageTextPack
from scripts.carding import page as pages
from scripts.carding.curves import read_curves
from scripts.carding.page import BLOCKS, filled
from scripts.carding.parts import captions, classification, people, retrieval, speed
from tests.encoders.models import write_config
from tests.pipeline.evaluation.colours import NAME, draw_colours
from tests.pipeline.evaluation.packing import COLOURS, colours_pack
from tests.pipeline.evaluation.seeing import Colours, Painter
from tests.pipeline.evaluation.test_retrieval import OPTIONS

ROOT = Path(__file__).resolve().parents[2]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    colours_pack(folder, "flickr8k")
    for name in evaluate_tiny.LABELLED:
        colours_pack(folder, name, labelled=True, split="val")
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines: list[dict[str, Any]] = [{"stage": "sight", "step": s, "loss": 1.0 / s, "rate": 0.1} for s in range(1, 251)]
    lines.insert(100, {"stage": "sight", "step": 100, "check": {"top1": 0.25}})
    lines += [{"stage": "words", "step": 1, "loss": 3.0}, {"stage": "words", "step": 1, "check": {"r10": 0.5}}]
    path = tmp_path / "curves.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_all_parts_of_an_untrained_model_and_the_page_of_them(packs: Path, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "docs" / "card"
    model = f"openclip:{write_config(tmp_path, 'coca')}/random"
    given = ["--packs", str(packs), "--curves", str(log), "--out", str(out), "--threads", "1", "--device", "cpu"]
    assert evaluate_tiny.main([*given, "--model", model, "--quick"]) == 0
    parts = set(evaluate_tiny.PARTS) - {"moments"}
    assert {path.stem for path in out.glob("*.json")} == parts
    assert {path.name for path in out.glob("*.png")} == {"drawings.png", "curves-sight.png", "curves-words.png"}
    for part in parts:
        value = read(out / f"{part}.json")
        assert value["quick"] is True
        assert str(packs) not in value["command"]
        assert str(out) not in value["command"]
        assert "torch" in value["versions"]
    assert read(out / "retrieval.json")["anchors"] == []  # a quick look does not stand beside them
    assert len(read(out / "captions.json")["examples"]) == 6
    assert read(out / "speed.json")["frames_per_second"] > 0

    card = out.with_suffix(".md")
    card.write_text("".join(f"# {name}\n\n<!-- made: {name} -->\n<!-- end: {name} -->\n" for name in BLOCKS))
    assert make_tiny_card.main(["--page", str(card), "--check"]) == 1
    assert make_tiny_card.main(["--page", str(card)]) == 0
    assert make_tiny_card.main(["--page", str(card), "--check"]) == 0
    text = card.read_text()
    assert text.count("Not measured yet.") == 2  # moments and videos
    assert text.count("not to be quoted") == len(BLOCKS) - 2
    assert "![curves](card/curves-sight.png)" in text
    changed = read(out / "retrieval.json")
    changed["text_to_image"]["R@10"] = 99.9
    (out / "retrieval.json").write_text(json.dumps(changed))
    assert make_tiny_card.main(["--page", str(card), "--check"]) == 1


def test_moments_of_films(tmp_path: Path) -> None:
    films = tmp_path / "films" / "clips"
    films.mkdir(parents=True)
    draw_colours(films / "a.mp4", [("red", 4), ("green", 4)])
    truth = [("a.mp4", "red", 0, 4), ("a.mp4", "green", 4, 8)]
    with (films / "moments.jsonl").open("w") as file:
        for video, query, start, end in truth:
            file.write(json.dumps({"video": video, "query": query, "start": start, "end": end}) + "\n")
    given = ["--model", NAME, "--media", str(films.parent), "--out", str(tmp_path / "card")]
    kept = tmp_path / "answers.jsonl"
    assert evaluate_tiny.main([*given, "--parts", "moments", "--answers", str(kept)]) == 0
    value = read(tmp_path / "card" / "moments.json")
    (clips,) = value["sets"]
    assert clips["name"] == "clips"
    assert clips["in_video"]["queries"] == 2
    assert clips["in_video"]["peak_inside"] == 100.0
    assert "green" not in (tmp_path / "card" / "moments.json").read_text()  # test data's queries are not copied
    answers = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(answer["query"], answer["right"]) for answer in answers] == [("red", [[0, 4]]), ("green", [[4, 8]])]
    assert all(answer["peak_inside"] and answer["iou"] > 0.5 for answer in answers)
    rows = pages.BLOCKS["moments"][1](value, "card")
    assert "| mean-pooled windows |" in rows
    for asked in ("of its own video", "of all"):  # how far two queries can be trusted, both ways
        assert f"clips, asked {asked}: peak inside 100.0 % (34.2 to 100.0 at 95 %), 2.0 times chance; 0 queries" in rows
    del clips["in_library"]["peak_inside_95"]
    with pytest.raises(InputError, match="measure the part moments again"):
        pages.BLOCKS["moments"][1](value, "card")
    assert "| a.mp4 | 2 | 100.0 |" in pages.BLOCKS["videos"][1](value, "card")


def test_a_folder_without_moments_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_tiny.main(["--media", str(tmp_path), "--out", str(tmp_path / "o"), "--parts", "moments"]) == 2
    assert "no folder in it has a moments.jsonl" in capsys.readouterr().err


def test_failures_are_those_found_last(packs: Path) -> None:
    pack = ImageTextPack.open(packs, "flickr8k")

    class Swapped(Colours):
        """Takes red for black."""

        def encode_text(self, texts: Any) -> Any:
            return super().encode_text([text.replace("red", "black") for text in texts])

    value = retrieval(Swapped(OPTIONS), pack, "test")
    assert value["text_to_image"]["R@1"] == pytest.approx(100 * 10 / 12)
    first = value["worst_texts"][0]
    assert (first["key"], first["taken"]["key"]) == ("red_0", "black_5")
    assert first["rank"] > 1
    assert value["worst_pictures"][0]["key"] == "red_0"


def test_anchors_stand_beside_the_whole_test_split_alone(packs: Path) -> None:
    pack = ImageTextPack.open(packs, "flickr8k")
    assert retrieval(Colours(OPTIONS), pack, "test")["anchors"]
    assert not retrieval(Colours(OPTIONS), pack, "test", limit=5)["anchors"]
    assert not retrieval(Colours(OPTIONS), pack, "train")["anchors"]


def test_classes_best_and_worst(packs: Path) -> None:
    value = classification(Colours(OPTIONS), ImageTextPack.open(packs, "caltech101"), "val")
    assert value["top1"] == 100.0
    assert {entry["label"] for entry in value["best"]} == set(COLOURS)


def test_examples_are_a_seeds_and_not_picked(packs: Path) -> None:
    pack = ImageTextPack.open(packs, "flickr8k")
    value = captions(Painter(), pack, "test", seed=3)
    order = np.random.default_rng(3).permutation(6)
    assert [example["index"] for example in value["examples"]] == order.tolist()
    assert value["different"] == 6


def test_people_are_scored_against_each_other(packs: Path) -> None:
    pack = ImageTextPack.open(packs, "flickr8k")
    rows = [pack.rows[i]["captions"] for i in range(6)]
    one = caption_scores([texts[0] for texts in rows], [texts[1:] for texts in rows])
    two = caption_scores([texts[1] for texts in rows], [texts[:1] for texts in rows])
    found = people(pack, range(6))
    assert found is not None
    assert found["BLEU-1"] == pytest.approx((one.bleu[0] + two.bleu[0]) / 2, abs=1e-3)
    assert people(ImageTextPack.open(packs, "caltech101"), range(6)) is None


def test_speed_is_of_frames_with_and_without_tokens() -> None:
    value = speed(Colours(OPTIONS), seconds=0.01, height=8, width=8)
    assert value["frames_per_second"] > 0
    assert value["frames_per_second_with_tokens"] > 0
    assert value["query_milliseconds"] > 0


def test_curves_are_shortened_and_keep_their_ends(log: Path) -> None:
    stages = read_curves(log)["stages"]
    assert {name: entry["steps"] for name, entry in stages.items()} == {"sight": 250, "words": 1}
    loss = stages["sight"]["loss"]
    assert len(loss) <= 100
    assert loss[0] == [3, pytest.approx((1 + 1 / 2 + 1 / 3) / 3)]
    assert loss[-1][0] == 250
    assert stages["sight"]["checks"] == {"top1": [[100, 0.25]]}


@pytest.mark.parametrize("line", ["{", "[]", '{"stage": "sight"}', '{"stage": "sight", "step": 1, "check": 3}'])
def test_a_bad_line_of_the_log_is_named(log: Path, line: str) -> None:
    text = log.read_text().splitlines()
    log.write_text("\n".join([*text[:4], line, *text[4:]]))
    with pytest.raises(InputError, match=r"curves\.jsonl:5: no line of a training's log"):
        read_curves(log)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "x", "--parts", "speeed"], "--parts 'speeed': must be of model, retrieval"),
        (["--out", "x", "--parts", "captions"], "--parts captions: needs --packs"),
        (["--out", "x", "--parts", "moments"], "--parts moments: needs --media"),
        (["--parts", "speed"], "--out"),
    ],
)
def test_wrong_options_end_it_at_the_start(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate_tiny.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_parts_without_their_material_are_left_out() -> None:
    assert evaluate_tiny.parse(["--out", "x"]).parts == ["model", "drawings", "speed"]
    assert evaluate_tiny.parse(["--out", "x", "--parts", "speed,model"]).parts == ["model", "speed"]


def test_a_model_that_cannot_caption_says_so(packs: Path, tmp_path: Path) -> None:
    seeing = "python:tests.pipeline.evaluation.seeing:Colours"
    given = ["--model", seeing, "--packs", str(packs), "--out", str(tmp_path), "--parts", "captions"]
    assert evaluate_tiny.main(given) == 0
    values = read(tmp_path / "captions.json")
    assert "has no caption decoder" in values["unavailable"]
    text = filled("<!-- made: captions -->\n<!-- end: captions -->", tmp_path, "card")
    assert "Not to be had: " in text


def test_commands_name_no_machine_paths() -> None:
    words = ["--packs", "/home/me/packs", "--out", "docs/tiny-model", "--media", "../else/media"]
    assert evaluate_tiny.command(words) == (
        "python scripts/evaluate_tiny.py --packs packs --out docs/tiny-model --media media"
    )


@pytest.mark.parametrize(
    "text",
    [
        "<!-- made: speeed -->\n<!-- end: speeed -->",
        "<!-- made: speed -->\n<!-- end: model -->",
        "<!-- made: speed -->\nno end",
    ],
)
def test_blocks_that_do_not_close_are_errors(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="block"):
        filled(text, tmp_path, "card")


def test_a_bar_in_a_caption_does_not_break_a_table() -> None:
    assert pages.table(["a"], [["x | y\nz"]]) == "| a |\n|---|\n| x \\| y z |\n"


def test_the_card_in_the_docs_is_what_its_files_say() -> None:
    assert make_tiny_card.main(["--check"]) == 0


def test_the_files_of_the_card_were_measured_whole_and_name_no_machine() -> None:
    for path in (ROOT / "docs" / "tiny-model").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert json.loads(text)["quick"] is False, path.name
        for place in ("/home/", "/tmp/", "/root/", "/var/"):
            assert place not in text, path.name
