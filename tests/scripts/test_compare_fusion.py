"""The learning comparison: rows by hand, one tiny comparison from end to end, a kill in the middle, bad input."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import compare_fusion
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.errors import InputError
from pipeline.evaluation.ranking import retrieval_scores
from scripts.benching import processes, tables
from scripts.comparing import data, runs
from scripts.comparing.data import merge_bank, merged_path, read_bank, sampled
from scripts.comparing.figures import recalls
from scripts.comparing.methods import METHODS, kept
from scripts.comparing.model import Compared, Sizes, own_parameters
from scripts.comparing.report import MARKS, Row, put_between_marks, tell
from scripts.comparing.runs import Plan, Results, Run, batch_of, clips_of, make_model
from scripts.comparing.verdicts import Difference, common_rate, compared, quantile

FRAMES, PATCHES, WIDTH = 4, 4, 16
TOKENS = FRAMES * PATCHES
RATIO = 4
WORDS = ("dog", "ball", "red car")
TINY = Sizes(width=16, heads=2, text_layers=1, layers=1, queries=2)


def _nothing() -> None:
    """No one listens for signs of life."""


def _write_bank(path: Path, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, TOKENS, WIDTH, generator=generator)
    start = torch.arange(FRAMES).double().repeat_interleave(PATCHES).expand(count, -1).clone()
    first = [WORDS[i % 3] for i in range(count)]
    then = [WORDS[i // 3 % 3] for i in range(count)]
    bank = {
        "tokens": tokens.half(),
        "embedding": torch.zeros(count, FRAMES, 2).half(),
        "start_seconds": start,
        "end_seconds": start + 1,
        "sentences": [[f"a {a} and then a {b}", f"clip {i}"] for i, (a, b) in enumerate(zip(first, then, strict=True))],
        "foils": [None if a == b else f"a {b} and then a {a}" for a, b in zip(first, then, strict=True)],
        "kinds": ["cut"] * count,
    }
    torch.save({"facts": {"seed": seed}, "bank": bank}, path)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    _write_bank(folder / "clips.bank", 20, 1)
    _write_bank(folder / "clips_check.bank", 10, 2)
    for part in data.PARTS:
        rows = kept(TOKENS, RATIO)
        merge_bank(merged_path(folder, part, rows), read_bank(folder / data.PARTS[part]), rows, lambda _: None)
    return folder


@pytest.fixture(autouse=True)
def _leave_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(tables, "_commit", str)
    monkeypatch.setattr(compare_fusion, "ROUNDS", 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _run(bank: Path, method: str, **changes: Any) -> Run:
    plan = Plan(steps=2, batch=4, learn=16, choose=4, judge=10, context=16, sizes=TINY)
    return replace(Run(method, RATIO, 0, 1e-3, plan, bank, bank), **changes)


# -- verdicts on rows by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "word", "at_least_equal"),
    [
        ((45.0, 46.0, 47.0), "better", True),
        ((34.0, 33.5, 35.0), "worse", False),
        ((40.1, 40.9, 42.1), "equals", True),  # the interval holds zero and lies within 2.05
        ((30.0, 41.0, 52.0), "open", None),
        ((41.0, 41.0, 45.0), "open", None),
        ((41.0, 43.0, 45.0), "open", True),  # from -0.6 to 4.6 above 41.0: equal or better, whichever
    ],
)
def test_word_for_a_difference(ours: tuple[float, ...], word: str, at_least_equal: bool | None) -> None:
    base = {0: 40.0, 1: 41.0, 2: 42.0}
    found = compared(dict(enumerate(ours)), base)
    assert found is not None
    assert found.mean == pytest.approx(sum(ours) / 3 - 41)
    assert (found.word, found.at_least_equal) == (word, at_least_equal), str(found)


def test_difference_is_taken_seed_by_seed() -> None:
    """Seeds that differ much from each other, by the same in both: the difference is certain."""
    found = compared({0: 11.0, 1: 51.0, 2: 91.5, 7: 0.0}, {0: 10.0, 1: 50.0, 2: 90.0, 8: 500.0})
    assert found is not None
    assert (found.seeds, found.word) == (3, "better")
    assert found.error == pytest.approx(math.sqrt(0.25 / 3 / 3), rel=1e-6)
    assert str(found) == "+1.2 ± 0.2 (+0.4 to +1.9): better"
    assert compared({0: 1.0}, {1: 1.0}) is None
    one = compared({0: 90.0}, {0: 10.0})
    assert one is not None
    assert (one.word, one.at_least_equal) == ("open", None)  # of one seed nothing is known


FIGURES = st.lists(st.tuples(st.floats(0, 100), st.floats(1, 100)), min_size=2, max_size=8)


@given(FIGURES)
@settings(max_examples=50, deadline=None)
def test_what_is_better_one_way_is_worse_the_other(pairs: list[tuple[float, float]]) -> None:
    ours, base = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    forth, back = compared(ours, base, 0.0), compared(base, ours, 0.0)
    assert forth is not None
    assert back is not None
    assert forth.mean == pytest.approx(-back.mean)
    assert back.word == {"better": "worse", "worse": "better"}.get(forth.word, forth.word)


def test_quantiles_are_students() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 4, 17, 30):
        assert quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-4)
    assert quantile(1000) == quantile(30)


def test_rate_at_which_all_lose_least() -> None:
    tried = (1.0, 2.0, 3.0)
    first, second = {1.0: 5.0, 2.0: 4.0, 3.0: 4.5}, {1.0: 5.0, 2.0: 6.0, 3.0: 5.0}
    assert common_rate({"a": first}, tried) == 2.0
    assert common_rate({"a": first, "b": second}, tried) == 3.0  # the best of neither
    assert common_rate({"a": first, "b": {1.0: 5.0, 2.0: 9.0}}, tried) == 2.0  # not tried everywhere: no say
    assert common_rate({"a": first, "b": {**second, 2.0: None, 3.0: math.nan}}, tried) == 1.0
    assert common_rate({"a": {1.0: 4.0, 2.0: 4.0, 3.0: 4.0}}, tried) == 1.0
    assert common_rate({"a": dict.fromkeys(tried)}, tried) is None
    assert common_rate({}, tried) is None


def _row(method: str, ratio: int, base: float) -> Row:
    outcomes = {seed: {"t2c_r1": base + seed, "cider": 3 * base + seed} for seed in range(3)}
    return Row(method, ratio, 1e-3, outcomes, {})


def _told(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> str:
    bank = dict.fromkeys(("tokens", "frames", "width", "sentences", "foils"), 4) | {"eyes": "an encoder"}
    report = tables.Report("rows by hand")
    plan = Plan(steps=2, batch=4, learn=16, choose=4, judge=10, context=16)
    tell(report, plan, bank, rows, {row.method: {1e-3: {}} for row in rows}, 1e-3, None)
    return capsys.readouterr().out


def test_verdicts_come_from_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = "csat at 1/8 at least equals exact attention", "linformer at 1/8 loses to exact attention"
    said = _told([_row("exact", 1, 40.0), _row("csat", 8, 40.0), _row("linformer", 8, 30.0)], capsys)
    assert f"**{ours}: met.** R@1 +0.0 ± 0.0 (+0.0 to +0.0): equals" in said
    assert f"**{theirs}: met.** R@1 -10.0" in said
    assert "`csat` at 1/8 less each other of the same state:\n\n- linformer: R@1 +10.0" in said
    said = _told([_row("exact", 1, 40.0), _row("csat", 8, 30.0), _row("linformer", 8, 40.0)], capsys)
    assert f"**{ours}: MISSED.** R@1 -10.0" in said
    assert f"**{theirs}: MISSED.**" in said
    one = Row("csat", 8, 1e-3, {0: {"t2c_r1": 99.0, "cider": 99.0}}, {})
    assert f"**{ours}: open.**" in _told([_row("exact", 1, 40.0), one], capsys)


def test_times_are_told_with_the_merging_too(capsys: pytest.CaptureFixture[str]) -> None:
    exact, ours = _row("exact", 1, 40.0), _row("csat", 8, 40.0)
    seconds = {"step_seconds": 1.0, "caption_seconds": 0.1, "peak_bytes": 8.0}
    exact = replace(exact, cost=seconds)
    merged = {"step_seconds": 0.5, "caption_seconds": 0.02, "peak_bytes": 2.0, "merge_seconds": 0.05}
    ours = replace(ours, cost=merged)
    said = _told([exact, ours], capsys)
    assert "| 1.00 | 1.00 | 1.00 |" in said
    assert "| 0.50 (0.70) | 0.20 (0.70) | 0.25 |" in said  # four clips of a step, one of a caption


@pytest.mark.parametrize(("figure", "read"), [(51.0, False), (99.0, False), (100.0, True)])
def test_order_that_nobody_reads_is_said_to_be_so(
    figure: float, read: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {seed: {"t2c_r1": 40.0, "cider": 90.0, "order": figure} for seed in range(3)}
    said = _told([Row("exact", 1, 1e-3, outcomes, {})], capsys)  # of four clips, where luck is 50 ± 50
    assert ("Order: no method is above chance by more than luck (50 ± 50.0 for 4 clips" in said) is not read


# -- retrieval ---------------------------------------------------------------------------------------------------------


def test_recall_with_several_right_answers() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.5, 0.6, 0.7, 0.6]])
    right = torch.tensor([[False, True, True, False], [True, False, False, True]])
    assert recalls(scores, right) == {1: 0.0, 5: 100.0, 10: 100.0}
    right[0, 0] = True
    assert recalls(scores, right)[1] == 50.0  # right ones do not stand in each other's way
    tie = torch.tensor([[0.5, 0.5]])
    assert recalls(tie, torch.tensor([[True, False]]))[1] == 0.0  # a model that says the same of all is not right


@given(st.integers(0, 10**6), st.integers(2, 30))
@settings(max_examples=30, deadline=None)
def test_recall_is_the_usual_one_where_sentences_are_unlike(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clips, texts = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (count, 2 * count))
    owner = torch.arange(count).repeat(2)
    right = owner[:, None] == torch.arange(count)
    usual = retrieval_scores(clips.numpy(), texts.numpy(), np.asarray(owner))
    for ours, theirs in (
        (recalls(texts @ clips.T, right), usual.text_to_image),
        (recalls(clips @ texts.T, right.T), usual.image_to_text),
    ):
        assert ours == pytest.approx(theirs.recall)


# -- what the methods are given, and what they are made of -------------------------------------------------------------


def test_what_a_method_is_given(bank: Path) -> None:
    chosen = torch.tensor([3, 0])
    shapes = {"exact": TOKENS, "linformer": TOKENS, "csat": 4, "csat + LISTA": 4, "sampled frames": 4, "mean token": 1}
    for method, count in shapes.items():
        clips = clips_of(_run(bank, method), "learn", 0, 16)
        visual = data.given(clips, method, 4, chosen)
        raw = clips.bank.tokens[chosen].float()
        assert visual.tokens.shape == (2, count, WIDTH)
        assert visual.start_seconds.amin() == (2 if method == "sampled frames" else 0)
        assert visual.span.tolist() == [[0.0, 4.0]] * 2
        if method.startswith("csat"):  # the tokens' sum is kept
            assert torch.equal(visual.weights.sum(1), torch.tensor([float(TOKENS)] * 2))
            whole = (visual.tokens * visual.weights[..., None]).sum(1)
            torch.testing.assert_close(whole, raw.sum(1), atol=0.05, rtol=0)
        elif method == "mean token":
            torch.testing.assert_close(visual.tokens[:, 0], raw.mean(1))


def test_sampled_tokens_are_of_evenly_spaced_frames() -> None:
    assert sampled(288, 8, 72).tolist() == [*range(2 * 36, 3 * 36), *range(6 * 36, 7 * 36)]
    assert sampled(288, 8, 18).tolist() == [4 * 36 + 1 + 2 * i for i in range(18)]
    assert sampled(16, 4, 1).tolist() == [2 * 4 + 2]


def _parameters(model: Compared, own: bool) -> dict[str, Tensor]:
    mine = ("mix_keys", "mix_values", "denoiser")
    return {name: value for name, value in model.named_parameters() if any(word in name for word in mine) is own}


def test_models_begin_equal_but_for_what_a_method_brings(bank: Path) -> None:
    brought = {"linformer": 2 * (TOKENS // RATIO) * TOKENS}
    head = TINY.width // TINY.heads
    brought |= dict.fromkeys(("csat + LISTA", "csat published + LISTA"), 2 * head * head + head)
    models = {}
    for method in METHODS:
        run = _run(bank, method)
        models[method] = make_model(run, clips_of(run, "learn", 0, 16))
    exact = _parameters(models["exact"], own=False)
    for method, model in models.items():
        shared = _parameters(model, own=False)
        assert shared.keys() == exact.keys(), method
        assert all(torch.equal(value, exact[name]) for name, value in shared.items()), method
        own = sum(value.numel() for value in _parameters(model, own=True).values())
        assert own == own_parameters(model) == len(model.attentions) * brought.get(method, 0), method
        assert all(value.requires_grad for value in model.parameters())
    # not even two of the attentions of one model
    weights = [one.in_proj_weight for one in models["csat"].attentions]
    assert not torch.equal(weights[0], weights[1])


def test_times_reach_every_method_alike(bank: Path) -> None:
    for method in METHODS:
        run = _run(bank, method)
        clips = clips_of(run, "learn", 0, 16)
        model = make_model(run, clips)
        visual = data.given(clips, method, model.rows, torch.tensor([0]))
        later = replace(visual, end_seconds=visual.end_seconds + 1, span=visual.span + torch.tensor([0.0, 1.0]))
        assert not torch.allclose(model.prepared(visual).tokens, model.prepared(later).tokens), method


def test_batches_depend_on_seed_and_step_alone(bank: Path) -> None:
    plan = _run(bank, "exact").plan
    exact, merged = (clips_of(_run(bank, name), "learn", 0, 16) for name in ("exact", "csat"))
    for step in (0, 1):
        for first, second in zip(batch_of(exact, plan, 5, step), batch_of(merged, plan, 5, step), strict=True):
            assert torch.equal(first, second)
    chosen, sentence = batch_of(exact, plan, 5, 0)
    assert torch.equal(exact.texts.owner[sentence], chosen)
    assert not torch.equal(chosen, batch_of(exact, plan, 5, 1)[0])
    assert not torch.equal(chosen, batch_of(exact, plan, 6, 0)[0])


def test_same_run_gives_the_same_figures_and_learns(bank: Path) -> None:
    run = _run(bank, "csat", rate=1e-2)
    before = torch.get_rng_state()
    first, again = runs.train(run, _nothing), runs.train(run, _nothing)
    assert torch.equal(before, torch.get_rng_state())
    timed = {"seconds", "training_seconds"}
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in again.items() if k not in timed}
    longer = runs.train(replace(run, plan=replace(run.plan, steps=40, batch=8)), _nothing)
    assert longer["writing"] < 0.7 * first["writing"]
    other = runs.train(replace(run, seed=1), _nothing)
    assert other["held_out"] != first["held_out"]


def test_loss_that_is_not_finite_is_an_outcome(bank: Path) -> None:
    run = _run(bank, "exact", rate=1e30)
    assert "the loss is" in runs.train(replace(run, plan=replace(run.plan, steps=5)), _nothing)["failed"]


# -- the command -------------------------------------------------------------------------------------------------------


def _command(bank: Path, out: Path, *more: str) -> list[str]:
    few = ["--methods", "exact", "csat", "--ratios", "1/4", "--steps", "2", "--batch", "4", "--jobs", "1"]
    return ["--bank", str(bank), "--out", str(out), *few, *more]


def _here(function: Callable[..., Any], argument: Any, **limits: Any) -> processes.Outcome:
    return processes.Outcome("ok", function(argument, _nothing))


def _lines(out: Path, kind: str) -> list[str]:
    whole = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in whole if json.loads(line).get("kind") == kind]


def test_from_banks_to_tables_and_again(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "run_apart", _here)
    out, document, numbers = tmp_path / "out", tmp_path / "page.md", tmp_path / "all.json"
    document.write_text(f"before\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nafter\n", encoding="utf-8")
    more = ["--seeds", "2", "--rates", "1e-3", "2e-3"]
    files = ["--json", str(numbers), "--into", str(document)]
    assert compare_fusion.main(_command(bank, out, *more, *files)) == 0
    said = capsys.readouterr().out
    for row in ("| exact | all |", "| csat | 1/4 |"):
        assert said.count(row) == 3 + row.startswith("| csat"), row
    for verdict in ("csat at 1/4 at least equals exact attention", "CIDEr", "Trained with: "):
        assert verdict in said
    finished = _lines(out, "run")
    assert len(finished) == 2 * 2 + 2  # two rates each, then a second seed at one of them, the same for both
    keys = [json.loads(line)["key"] for line in finished]
    assert len({rate for _, _, seed, rate in keys if seed == 1}) == 1
    written = json.loads(numbers.read_text(encoding="utf-8"))
    assert set(written["tables"][0]["values"]) == {"exact/all", "csat/1/4"}
    page = document.read_text(encoding="utf-8")
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "#### Cost" in page
    assert "\nold\n" not in page
    assert str(tmp_path) not in page

    # once more: nothing is trained or measured
    monkeypatch.setattr(processes, "run_apart", None)
    assert compare_fusion.main(_command(bank, out, *more)) == 0
    assert _lines(out, "run") == finished
    # another seed is wanted, and nothing may be run: what is missing is said
    assert compare_fusion.main(_command(bank, out, "--seeds", "3", *more[2:], "--report")) == 1
    assert "csat at 1/4, seed 2, rate" in capsys.readouterr().out


def test_goes_on_after_a_kill(bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, compare_fusion.__file__, *_command(bank, out, "--rates", "1e-3", "--seeds", "2")]
    path = out / "results.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(5000):
                if path.is_file() and '"kind": "run"' in path.read_text(encoding="utf-8"):
                    break
                assert process.poll() is None, "it ended before a run was done"
                time.sleep(0.05)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    before = _lines_of_whole(path)
    assert before
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "run", "key": ["csat"')  # as if the kill had come in the middle of a line
    run_again = pytest.MonkeyPatch()
    with run_again.context() as patch:
        patch.setattr(processes, "run_apart", _here)
        assert compare_fusion.main(_command(bank, out, "--rates", "1e-3", "--seeds", "2")) == 0
    after = _lines(out, "run")
    assert after[: len(before)] == before
    assert len(after) == len({tuple(json.loads(line)["key"]) for line in after}) == 4


def _lines_of_whole(path: Path) -> list[str]:
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [line for line in whole if json.loads(line).get("kind") == "run"]


def test_row_that_fails_costs_that_row(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def some(function: Callable[..., Any], argument: Any, **limits: Any) -> processes.Outcome:
        if getattr(argument, "method", "") == "csat" and function is runs.train:
            return processes.Outcome("memory", detail="over 10 GB")
        return _here(function, argument)

    monkeypatch.setattr(processes, "run_apart", some)
    assert compare_fusion.main(_command(bank, tmp_path / "out", "--rates", "1e-3", "--seeds", "1")) == 1
    said = capsys.readouterr().out
    assert "| exact | all |" in said
    assert "csat at 1/4, seed 0, rate 0.001: memory: over 10 GB" in said


def test_what_cannot_be_is_said_in_a_line(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path, out: Path, message: str, *more: str) -> None:
        assert compare_fusion.main(_command(folder, out, *more)) == 2
        assert message in capsys.readouterr().err

    out = tmp_path / "out"
    refused(tmp_path / "none", out, "clips.bank: there is no such file")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "clips.bank").write_bytes(b"no bank")
    refused(broken, out, "clips.bank is no bank of clips")
    _write_bank(broken / "clips.bank", 4, 0)
    _write_bank(broken / "clips_check.bank", 1, 0)
    refused(broken, out, "4 and 1 clips; at least 10 and 2 are needed")

    monkeypatch.setattr(processes, "run_apart", _here)
    assert compare_fusion.main(_command(bank, out, "--rates", "1e-3", "--seeds", "1", "--methods", "mean token")) == 0
    capsys.readouterr()
    refused(bank, out, "plan batch 4 there, 5 here", "--batch", "5", "--report")
    (out / "results.jsonl").write_text("[]\n", encoding="utf-8")
    refused(bank, out, "holds no outcomes of this comparison", "--report")

    for words, message in (
        (["--ratios", "4/1"], "must be a share such as 1/8, got '4/1'"),
        (["--ratios", "1/1"], "must be a share such as 1/8, got '1/1'"),
        (["--rates", "nan"], "must be a number above 0, got 'nan'"),
        (["--seeds", "0"], "must be a whole number of at least 1, got '0'"),
        (["--methods", "flash"], "--methods 'flash': must be of 'exact'"),
    ):
        with pytest.raises(SystemExit):
            compare_fusion.parse(_command(bank, out, *words))
        assert message in capsys.readouterr().err


def test_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{MARKS[1]}\n{MARKS[0]}\n", encoding="utf-8")
    with pytest.raises(InputError, match="must have the lines"):
        put_between_marks(page, "text")
    assert page.read_text(encoding="utf-8") == f"{MARKS[1]}\n{MARKS[0]}\n"


def test_results_of_another_bank_are_refused(bank: Path, tmp_path: Path) -> None:
    plan = _run(bank, "exact").plan
    first = Results(tmp_path / "r.jsonl", plan, {"learn": "a"})
    first.add("run", ["exact", 1, 0, 1e-3], {"t2c_r1": 1.5})
    with (tmp_path / "r.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "run", "key": ["csat"')  # a kill in the middle of a line
    again = Results(tmp_path / "r.jsonl", plan, {"learn": "a"})
    assert again.get("run", ["exact", 1, 0, 1e-3]) == {"t2c_r1": 1.5}
    again.add("run", ["csat", 4, 0, 1e-3], {"t2c_r1": 2.5})
    third = Results(tmp_path / "r.jsonl", plan, {"learn": "a"})
    assert third.get("run", ["csat", 4, 0, 1e-3]) == {"t2c_r1": 2.5}
    assert third.get("run", ["csat", 4, 1, 1e-3]) is None
    with pytest.raises(InputError, match="bank learn 'a' there, 'b' here"):
        Results(tmp_path / "r.jsonl", plan, {"learn": "b"})


def test_drawn_clips_need_no_photographs(tmp_path: Path) -> None:
    said: list[str] = []
    model = "python:tests.encoders.models:MeanColour"
    data.drawn_banks(tmp_path, model, (6, 3), 4, 0, said.append)
    made = read_bank(tmp_path / "clips.bank")
    assert len(made) == 6
    assert len(made.sentences) == 6
    assert made.tokens.shape[1] == made.start_seconds.shape[1] == made.end_seconds.shape[1]
    assert made.tokens.shape[1] % 4 == 0
    assert bool((made.end_seconds > made.start_seconds).all())
    before = len(said)
    data.drawn_banks(tmp_path, model, (6, 3), 4, 0, said.append)
    assert len(said) == before  # kept


def test_interval_is_symmetric() -> None:
    assert Difference(1.0, 0.5, 3, 0.1, "open").half_width == pytest.approx(0.5 * 4.303)
