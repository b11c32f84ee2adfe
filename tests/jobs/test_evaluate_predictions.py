"""``longreel evaluate``: which options go together, and what ``--predictions`` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.evaluate_options import EvaluateOptions, deliver
from jobs.cli.main import main
from jobs.errors import UsageError

OURS = [
    {"video": "gate.mp4", "query": "a dog [runs]", "start": 0, "end": 10},
    {"video": "gate.mp4", "query": "a cat", "start": 20, "end": 30},
    {"video": "door.mp4", "query": "a dog [runs]", "start": 5, "end": 9},
    {"video": "door.mp4", "start": 0, "end": 60, "shot": "door.mp4"},
]
ANSWERS = [
    {"video": "door.mp4", "query": "a dog [runs]", "start": 5, "end": 9, "score": 0.2},
    {"video": "gate.mp4", "query": "a dog [runs]", "start": 50, "end": 60, "score": 0.1},
    {"video": "gate.mp4", "query": "a dog [runs]", "start": 0, "end": 8, "score": 0.3},
]
TRUTH = [
    {"qid": 1, "query": "one", "vid": "v1", "duration": 150, "relevant_windows": [[0, 10]]},
    {"qid": 2, "query": "two", "vid": "v2", "duration": 150, "relevant_windows": [[0, 40], [60, 64]]},
]
SUBMISSION = [
    {"qid": 2, "query": "two", "vid": "v2", "pred_relevant_windows": [[0, 40, 0.5], [90, 99, 0.4]]},
    {"qid": 1, "query": "one", "vid": "v1", "pred_relevant_windows": [[0, 6, 0.9]]},
]


def lines(path: Path, values: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return str(path)


@pytest.fixture
def ours(tmp_path: Path) -> list[str]:
    truth, answers = lines(tmp_path / "moments.jsonl", OURS), lines(tmp_path / "answers.jsonl", ANSWERS)
    return ["--truth", truth, "--predictions", answers]


@pytest.fixture
def theirs(tmp_path: Path) -> list[str]:
    truth, answers = lines(tmp_path / "val.jsonl", TRUTH), lines(tmp_path / "submission.jsonl", SUBMISSION)
    return ["--truth", truth, "--predictions", answers]


def longreel(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert longreel(*arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def test_ours_as_json(ours: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, *ours)
    assert (value["queries"], value["answered"]) == (3, 2)
    assert (value["R1@0.3"], value["R1@0.7"], value["mAP@0.75"], value["mAP"]) == (66.67, 66.67, 66.67, 56.67)
    assert value["mean_iou"] == 60.0
    assert value["per_video"]["door.mp4"]["mAP"] == 100.0
    assert value["per_video"]["gate.mp4"]["queries"] == 2


def test_ours_as_tables(ours: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel(*ours) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if line.startswith(" mean iou")] == [["mean", "iou", "60.00"]]
    assert any(line.split()[:2] == ["door.mp4", "1"] for line in out.splitlines())
    assert "3 queries of 2 videos, 1 without an answer; the first 10 answers of each count" in out
    assert "1 lines of" in out


def test_what_counts_is_chosen(ours: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, *ours, "--iou", "0.8", "--iou", "0.81", "--limit", "1")
    assert (value["R1@0.8"], value["R1@0.81"]) == (66.67, 33.33)
    assert "R1@0.5" not in value
    first_wrong = {**ANSWERS[1], "score": 0.9}
    lines(Path(ours[3]), [*ANSWERS, first_wrong])
    assert answer(capsys, *ours)["R5@0.5"] == 66.67
    assert answer(capsys, *ours, "--limit", "1")["R5@0.5"] == 33.33


def test_theirs_as_json_has_the_evaluators_own_keys(theirs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, *theirs)
    assert list(value) == ["brief", "full", "long", "middle", "short", "longreel"]
    assert value["brief"] == {
        "MR-full-R1@0.5": 100.0,
        "MR-full-R1@0.7": 50.0,
        "MR-full-mAP": 40.0,
        "MR-full-mAP@0.5": 75.0,
        "MR-full-mAP@0.75": 25.0,
        "MR-long-mAP": 100.0,
        "MR-middle-mAP": None,
        "MR-short-mAP": 15.0,
    }
    assert value["longreel"]["R1@0.3"] == 100.0
    assert value["longreel"]["per_video"]["v1"]["mean_iou"] == 60.0


def test_theirs_as_tables(theirs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel(*theirs) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["MR-full-R1@0.7", "50.00", "2"] in rows
    assert ["MR-middle-mAP", "-", "0"] in rows
    assert ["MR-short-mAP", "15.00", "2"] in rows
    assert ["R5@0.3", "100.00"] in rows


def test_a_line_without_windows_is_a_miss(
    theirs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(tmp_path / "submission.jsonl", [SUBMISSION[0], {**SUBMISSION[1], "pred_relevant_windows": []}])
    assert answer(capsys, *theirs)["brief"]["MR-full-R1@0.5"] == 50.0
    lines(tmp_path / "submission.jsonl", SUBMISSION[:1])
    error = answer(capsys, *theirs, code=2)["error"]
    assert error["type"] == "PredictionError"
    assert error["message"].startswith("qid 1: in the truth, and not in the predictions")


def test_files_of_two_kinds(ours: list[str], theirs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    error = answer(capsys, *ours[:2], *theirs[2:], code=2)["error"]
    assert error["type"] == "UsageError"
    assert "of the kind 'longreel'" in error["message"]
    assert "kind 'qvhighlights': both must be of one kind" in error["message"]


def test_bad_lines_end_with_file_and_line(ours: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(ours[1]).write_text(json.dumps({**OURS[0], "end": 0}) + "\n", encoding="utf-8")
    error = answer(capsys, *ours, code=2)["error"]
    assert error == {
        "type": "TruthError",
        "message": f"{ours[1]}:1: the right span [0.0, 0.0) is empty: it must end after it starts",
    }


def test_answers_to_what_was_not_asked(ours: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(ours[1]).write_text(json.dumps(OURS[1]) + "\n", encoding="utf-8")
    error = answer(capsys, *ours, code=2)["error"]
    assert error["type"] == "PredictionError"
    assert "a dog [runs]" in error["message"]


def test_the_json_is_written_to_a_file_too(ours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.json"
    assert longreel(*ours, "--out", str(out)) == 0
    assert "mean iou" in capsys.readouterr().out
    assert json.loads(out.read_text(encoding="utf-8"))["mean_iou"] == 60.0
    error = answer(capsys, *ours, "--out", str(tmp_path / "none" / "scores.json"), code=2)["error"]
    assert error["type"] == "UsageError"
    assert "cannot be written: No such file" in error["message"]
    (tmp_path / "folder").mkdir()
    assert answer(capsys, *ours, "--out", str(tmp_path / "folder"), code=2)["error"]["type"] == "UsageError"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ({"truth": "t"}, "--store"),
        ({"truth": "t", "store": "s", "model": "m", "compare": ("a", "b"), "limit": 3}, "--store"),
        ({"truth": "t", "sweep": True, "plot": "p.png", "overrides": ("a=1",), "config": "fast"}, "--store"),
        ({"truth": "t", "predictions": "p", "iou": (0.5,), "as_json": True, "out": "o"}, "--predictions"),
        ({"pack": "p", "model": "m", "captions": True, "limit": 4, "device": "cpu"}, "--pack"),
    ],
)
def test_ways(given: dict[str, Any], way: str) -> None:
    assert EvaluateOptions(**given).way == way


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "nothing to evaluate: give --truth FILE"),
        ({"sweep": True}, "nothing to evaluate"),
        ({"predictions": "p"}, "--predictions needs --truth FILE"),
        ({"store": "s"}, "--store needs --truth FILE"),
        ({"truth": "t", "predictions": "p", "store": "s"}, "--predictions and --store do not go together"),
        ({"predictions": "p", "pack": "s"}, "--predictions and --pack do not go together"),
        ({"truth": "t", "predictions": "p", "model": "m"}, "--model: not with --predictions, which takes --iou"),
        (
            {"truth": "t", "predictions": "p", "sweep": True, "device": "cpu"},
            "--device, --sweep: not with --predictions",
        ),
        ({"truth": "t", "predictions": "p", "config": "fast"}, "--config: not with --predictions"),
        ({"truth": "t", "captions": True}, "--captions: not with --store"),
        ({"pack": "p", "truth": "t"}, "--truth: not with --pack"),
        ({"pack": "p", "compare": ("a",)}, "--compare: not with --pack"),
        ({"truth": "t", "plot": "p.png"}, "give --sweep with it"),
        ({"truth": "t", "sweep": True, "compare": ("a",)}, "not with --compare"),
    ],
)
def test_options_that_do_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        _ = EvaluateOptions(**given).way
    assert said in str(caught.value)


@pytest.mark.parametrize("wrong", [("--limit", "0"), ("--iou", "0"), ("--iou", "1.5"), ("--nothing", "1")])
def test_values_that_are_not_allowed(ours: list[str], wrong: tuple[str, str]) -> None:
    assert longreel(*ours, *wrong) == 2


def test_not_a_number_is_no_threshold(ours: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, *ours, "--iou", "nan", code=2)["error"]["type"] == "OptionError"


def test_answers_that_count_by_default() -> None:
    assert (EvaluateOptions().answers, EvaluateOptions(limit=3).answers) == (10, 3)


def test_figures_that_json_does_not_know_are_not_written(tmp_path: Path) -> None:
    options = EvaluateOptions(out=str(tmp_path / "o.json"))
    with pytest.raises(ValueError, match="JSON compliant"):
        deliver(options, {"mAP": float("nan")}, lambda: None)
    assert not (tmp_path / "o.json").exists()


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert longreel("--help") == 0
    out = capsys.readouterr().out
    for way in ("--predictions", "--pack", "--sweep", "--compare"):
        assert sum(line.startswith("    longreel evaluate") and way in line for line in out.splitlines()) >= 1
    assert sum(line.startswith("    longreel evaluate") for line in out.splitlines()) >= 6
