"""The attention benchmark: the meter against known allocations, limits, the scoring on hand-made rows, tiny runs."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_attention
import numpy as np
import pytest
import torch
from benching import efficiency_report, learning_report, tables
from benching.efficiency import METHODS, attention_error, measure, video_stream
from benching.efficiency_state import Row
from benching.learning import LEARNERS, Decoder, Run, Task, make_examples, memory_of, merge, train
from benching.processes import Outcome, run_apart

TINY = Task(
    frames=8, patches=4, events=2, symbols=4, ratio=4, train_examples=48, test_examples=16, model_width=16, heads=2,
    layers=1, batch=16, steps=4,
)  # fmt: skip
MB = 1_000_000


def _nothing() -> None:
    """No one listens for signs of life."""


@pytest.fixture(autouse=True)
def _leave_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(tables, "_commit", str)  # asking git a dozen times would be most of the time
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# -- the meter and the processes ---------------------------------------------------------------------------------------


METERED = """
import torch
from benching.processes import Meter

MB = 1_000_000
before = torch.ones(20 * MB // 4)  # there before: not counted
meter = Meter()
known = torch.ones(64 * MB // 4)
assert 63 * MB < meter.peak_bytes() < 68 * MB, meter.peak_bytes()
del known
assert 63 * MB < meter.peak_bytes() < 68 * MB, meter.peak_bytes()  # a peak, even when it is over
meter.restart()
assert meter.peak_bytes() < 4 * MB, meter.peak_bytes()
smaller = torch.ones(16 * MB // 4)
assert 15 * MB < meter.peak_bytes() < 20 * MB, meter.peak_bytes()
meter.close()
assert len(before) > len(smaller)
"""


USED_BEFORE = """
import torch
from benching.processes import Meter

MB = 1_000_000
peaks = []
for _ in range(3):
    meter = Meter()
    pieces = [torch.ones(MB // 4) for _ in range(40)]
    peaks.append(meter.peak_bytes())
    meter.close()
    del pieces
    again = [torch.ones(MB // 4) for _ in range(40)]  # in the heap now
    del again
assert all(39 * MB < peak < 43 * MB for peak in peaks), peaks
"""


@pytest.mark.parametrize("script", [METERED, USED_BEFORE], ids=["a known allocation", "memory that was used before"])
def test_meter_sees(script: str) -> None:
    """In a process of its own, as every row is measured: what a long one keeps for itself is its own affair."""
    folder = Path(bench_attention.__file__).parent
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _give(argument: Any, signal: Any) -> Any:
    return argument, torch.get_num_threads()


def _raise(argument: Any, signal: Any) -> Any:
    raise ValueError(f"no {argument}")


def _vanish(argument: Any, signal: Any) -> Any:
    os._exit(7)


def _sleep(argument: Any, signal: Any) -> Any:
    signal()
    time.sleep(60)


def _hoard(argument: Any, signal: Any) -> Any:
    held = [torch.ones(argument)]
    time.sleep(60)
    return len(held)


def _ask_for_too_much(argument: Any, signal: Any) -> Any:
    return torch.empty(2**50, dtype=torch.uint8).numel()


@pytest.mark.parametrize(
    ("function", "argument", "kind", "detail"),
    [
        (_give, "this", "ok", ""),
        (_raise, "luck", "failed", "ValueError: no luck"),
        (_vanish, None, "failed", "the process ended with code 7"),
        (_sleep, None, "time", "over 0.2 s"),
        (_hoard, 400 * MB, "memory", "over 1.2 GB"),
        (_ask_for_too_much, None, "memory", "the system refused the allocation"),
    ],
)
def test_a_row_ends_in_its_own_process(function: Any, argument: Any, kind: str, detail: str) -> None:
    limit = 0.2 if kind == "time" else 30.0
    outcome = run_apart(function, argument, threads=1, limit_seconds=limit, limit_bytes=1_200 * MB)
    assert (outcome.kind, outcome.detail) == (kind, detail)
    assert outcome.value == (("this", 1) if kind == "ok" else None)


# -- efficiency --------------------------------------------------------------------------------------------------------


def test_stream_is_seeded_and_redundant() -> None:
    tokens = video_stream(40, 16, 24, seed=3)
    assert tokens.shape == (640, 24)
    assert torch.equal(tokens, video_stream(40, 16, 24, seed=3))
    assert not torch.equal(tokens, video_stream(40, 16, 24, seed=4))
    frames = tokens.view(40, 16, 24)
    steps = (frames[1:] - frames[:-1]).square().mean(dim=2)
    assert steps.median() < 0.3 * frames.var()  # most patches stay as they were
    assert steps.mean(dim=1).max() > frames.var()  # and there is a cut


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_and_is_finite(name: str) -> None:
    row = Row(name, tokens=256, queries=8, seeds=(0, 1), heads=2, width=16, patches=16)
    value = measure(row, _nothing)
    assert {len(value[key]) for key in ("seconds", "compress_seconds", "bytes", "compress_bytes")} == {2}
    assert min(value["seconds"]) > 0
    assert (min(value["compress_seconds"]) > 0) == name.startswith("csat ward")
    assert len(value["error"]) == 2
    assert all(0 <= error < 20 for error in value["error"])
    state = METHODS[name].state(row)
    assert state.kept <= 2 * 256 * 2 * (16 + 4) * 4
    assert state.running >= min(state.kept, 256 * 2 * 16 * 4)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("sdpa", 0, 1e-5), ("csat ward", 1e-3, 0.5), ("csat published", 1.5, 20), ("csat feature", 0.5, 2)],
)
def test_error_tells_who_is_wrong(name: str, low: float, high: float) -> None:
    value = measure(Row(name, tokens=512, queries=96, seeds=(0,), heads=2, width=32, patches=16), _nothing)
    assert low <= value["error"][0] <= high
    assert 1 < value["effective_tokens"][0] < 512


def test_error_of_the_mean_token_is_one() -> None:
    row = Row("sdpa", tokens=128, queries=80, heads=2, width=16, patches=16)
    tokens, query = video_stream(8, 16, 32, seed=0), torch.randn(80, 32, generator=torch.Generator().manual_seed(0))
    mean = tokens.mean(dim=0).expand(1, 80, -1)
    assert attention_error(row, query, tokens, mean, seed=1)[0] == pytest.approx(1)
    exact = METHODS["sdpa"].make(row)[1](query, tokens)  # by head
    assert attention_error(row, query, tokens, exact, seed=1)[0] < 1e-5


def test_the_two_gaussian_measurements_of_the_published_form_have_one_law() -> None:
    row = Row("", tokens=512, queries=64, heads=2, width=32, patches=16, seeds=(0, 1, 2))
    errors = [
        sum(measure(replace(row, method=name), _nothing)["error"]) / 3
        for name in ("csat published", "csat published, Phi from a hash, not kept")
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.4)


def test_phi_written_down_is_memory() -> None:
    row = Row("csat published", tokens=8192, queries=4, heads=1, width=8, seeds=(0,))
    outcome = run_apart(measure, row, threads=1, limit_seconds=60, limit_bytes=4_000 * MB)
    assert outcome.kind == "ok"
    phis = 2 * 256 * 8192 * 4
    assert METHODS[row.method].state(row).running > phis
    assert phis < outcome.value["bytes"][0] < 1.5 * phis  # the copies of making them are over


@pytest.mark.parametrize("name", ["csat ward", "csat ward, 256", "csat ward-batched"])
def test_running_state_of_merging_is_what_it_holds(name: str) -> None:
    row = Row(name, tokens=1024, queries=4, heads=2, width=16, patches=16)
    compress, _ = METHODS[name].make(row)
    assert compress is not None
    kept = compress(video_stream(64, 16, 32, seed=0))
    tensors = (kept.tokens, kept.weight, kept.start_seconds, kept.end_seconds, kept.patch)
    state = METHODS[name].state(row)
    assert state.kept == sum(tensor.nbytes for tensor in tensors)
    compressor = inspect.getclosurevars(compress).nonlocals["compressor"]
    held = [*vars(compressor).values(), *vars(getattr(compressor, "_table", compressor)).values()]
    found = sum({id(part): part.nbytes for part in held if isinstance(part, torch.Tensor | np.ndarray)}.values())
    if name == "csat ward-batched":
        found += 16 * (32 * 4 + 4 * 8) + (row.kept + 16) ** 2 * 4  # while a frame is taken in
    assert state.running == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("name", ["eager", "csat ward", "csat ward-batched"])
def test_what_should_be_exact_is_exact(name: str) -> None:
    row = Row(name, tokens=64, queries=8, heads=2, width=16, patches=16, ratio=1)  # m = n: nothing is merged
    tokens, query = video_stream(4, 16, 32, seed=0), torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    compress, attend = METHODS[name].make(row)
    with torch.inference_mode():
        found = attend(query, compress(tokens) if compress is not None else tokens)
        expected = METHODS["sdpa"].make(row)[1](query, tokens)
    torch.testing.assert_close(found.flatten(), expected.transpose(1, 2).flatten() if found.ndim == 3 else
                               expected.flatten(), rtol=1e-4, atol=1e-5)  # fmt: skip


def test_eager_attention_needs_its_two_score_matrices() -> None:
    row = Row("eager", tokens=1024, queries=1024, seeds=(0,))
    outcome = run_apart(measure, row, threads=1, limit_seconds=60, limit_bytes=4_000 * MB)
    assert outcome.kind == "ok"
    scores = 8 * 1024 * 1024 * 4
    assert 2 * scores < outcome.value["bytes"][0] < 2.4 * scores


def test_slow_rows_are_called_less_often() -> None:
    row = Row("sdpa", tokens=64, queries=4, heads=1, width=8, patches=16)
    assert len(measure(row, _nothing)["seconds"]) == 5
    assert len(measure(replace(row, slow_seconds=0.0), _nothing)["seconds"]) == 1


def _outcome(seconds: float, megabytes: float, compressing: float = 0.0) -> Outcome:
    return Outcome(
        "ok",
        {"asked": 2, "seconds": [seconds] * 2, "compress_seconds": [compressing] * 2, "bytes": [megabytes * MB] * 2,
         "error": [0.25, 0.35], "effective_tokens": [7.0] * 2},
    )  # fmt: skip


def _efficiency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[tuple[str, int], Outcome]
) -> tuple[Any, int]:
    """The report of hand-made outcomes, and the exit code."""
    asked: list[Row] = []

    def fake(function: Any, row: Row, **limits: Any) -> Outcome:
        asked.append(row)
        return made[row.method, row.tokens]

    monkeypatch.setattr(efficiency_report, "run_apart", fake)
    sizes = sorted({str(n) for _, n in made}, key=int)
    names = list(dict.fromkeys(name for name, _ in made))
    out = tmp_path / "out.json"
    code = bench_attention.main(
        [
            *("--part", "efficiency", "--queries", "n", "--seeds", "2", "--threads", "1", "--json", str(out)),
            *("--tokens", *sizes, "--methods", *names),
        ]
    )
    return json.loads(out.read_text()), code


def test_rows_over_a_limit_are_printed_and_larger_ones_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        ("eager", 4096): Outcome("memory", detail="over 2.0 GB"),
        ("sdpa", 4096): _outcome(1.0, 10),
        ("csat ward", 4096): _outcome(0.5, 20, 0.4),
        ("sdpa", 8192): _outcome(4.0, 20),
        ("csat ward", 8192): Outcome("failed", detail="ValueError: no"),
    }
    data, code = _efficiency(tmp_path, monkeypatch, made)
    rows = {row[0]: row[1:] for row in data["tables"][0]["rows"]}
    assert rows["eager"] == ["over 2.0 GB", "(not run: over 2.0 GB at 4096)", "-"]
    assert rows["sdpa"] == ["1000 ± 0", "4000 ± 0", "0.30 ± 0.071"]
    assert rows["csat ward"] == ["500 ± 0", "failed", "0.30 ± 0.071"]
    errors = {row[0]: row[1:] for row in data["tables"][1]["rows"]}
    assert errors["eager"] == ["-", "-"]
    assert errors["csat ward"] == ["0.30 ± 0.071", "failed"]
    apart = {row[0]: row[1:] for row in data["tables"][2]["rows"]}
    assert apart == {"csat ward: compressing": ["400 ± 0", "failed"], "csat ward: attending": ["100.0 ± 0.0", "failed"]}
    assert data["missing"] == ["csat ward, n = 8192, q = n: ValueError: no"]
    assert code == 1
    assert [verdict["met"] for verdict in data["verdicts"]] == [None, None, None]
    assert data["verdicts"][2]["found"] == "n = 4,096: 2.00 times as fast; n = 8,192: not measured"
    paid = {row[0]: row[1] for row in data["tables"][-1]["rows"]}
    assert paid == {"4,096": "1", "8,192": "-"}  # 400 ms to compress, 900 ms saved


def test_a_limit_decides_between_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = Outcome("time", detail="over 120 s")
    for exact, ours, met in ((over, _outcome(90, 1), True), (_outcome(90, 1), over, False), (over, over, None)):
        data, code = _efficiency(tmp_path, monkeypatch, {("sdpa", 65536): exact, ("csat ward", 65536): ours})
        assert data["verdicts"][2]["met"] is met
        assert code == 0


@pytest.mark.parametrize(
    ("ours", "met"),
    [
        (_outcome(0.3, 10), [True, True, True]),
        (_outcome(0.5, 50), [False, False, True]),  # 2 times both
        (_outcome(0.9, 30), [True, False, False]),
    ],
)
def test_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Outcome, met: list[bool]) -> None:
    made = {("eager", 4096): _outcome(1.0, 100), ("sdpa", 4096): _outcome(0.8, 5), ("csat ward", 4096): ours}
    data, code = _efficiency(tmp_path, monkeypatch, made)
    assert [verdict["met"] for verdict in data["verdicts"]] == met
    assert code == 0


def test_a_tiny_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    code = bench_attention.main(
        [
            *("--part", "efficiency", "--tokens", "64", "128", "--queries", "n", "4", "--seeds", "2", "--threads", "1"),
            *("--methods", "sdpa", "csat ward", "--plot", str(tmp_path / "plots")),
        ]
    )
    out = capsys.readouterr().out
    assert code == 0
    assert "| csat ward: compressing |" in out
    assert "faster than SDPA from n = 4,096 up, q = n, compression counted: not measured" in out
    names = ["attention-memory-q-4.png", "attention-memory-q-n.png", "attention-time-q-4.png", "attention-time-q-n.png"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queries", "0"], "must be 'n' or a whole number of at least 1, got '0'"),
        (["--queries", "²"], "argument --queries: must be 'n' or a whole number of at least 1, got '²'"),
        (["--seeds", "0"], "argument --seeds: must be a whole number of at least 1, got '0'"),
        (["--tokens", "512", "abc"], "argument --tokens: must be a whole number of at least 1, got 'abc'"),
        (["--limit-seconds", "nan"], "argument --limit-seconds: must be a number above 0, got 'nan'"),
        (["--limit-gb", "-1"], "argument --limit-gb: must be a number above 0, got '-1'"),
        (["--learners", "magic"], "--learners 'magic': must be of 'exact'"),  # before anything is measured
        (["--from-json", "absent.json"], "--from-json absent.json: must be what --json wrote"),
        (["--from-json", "a.json", "--part", "efficiency"], "it does not go with --part efficiency"),
        (["--part", "efficiency", "--methods", "magic"], "--methods 'magic': must be of 'eager'"),
        (["--part", "learning", "--learners", "magic"], "--learners 'magic': must be of 'exact'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench_attention.main(arguments)
    assert message in str(caught.value.code) + capsys.readouterr().err


def test_folders_are_made_or_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(efficiency_report, "run_apart", lambda *_, **__: _outcome(1.0, 10))
    arguments = ["--part", "efficiency", "--tokens", "8", "--methods", "sdpa", "--queries", "2"]
    (tmp_path / "file").touch()
    for option, path in (
        ("--json", tmp_path / "a" / "b" / "out.json"),
        ("--json", tmp_path / "file" / "out.json"),
        ("--json", tmp_path),
        ("--plot", tmp_path / "a" / "b"),
        ("--plot", tmp_path / "file"),
    ):
        with pytest.raises(SystemExit, match=f"{option} {path}: "):
            bench_attention.main([*arguments, option, str(path)])
    out, plots = tmp_path / "new" / "out.json", tmp_path / "plots"
    assert bench_attention.main([*arguments, "--json", str(out), "--plot", str(plots)]) == 0
    assert out.exists()


# -- learning ----------------------------------------------------------------------------------------------------------


def test_events_lie_where_the_task_says() -> None:
    task = replace(TINY, frames=12, events=3, symbols=8, patches=6)
    examples, held_out = make_examples(task, 5)
    again, _ = make_examples(task, 5)
    assert torch.equal(examples.tokens, again.tokens)
    assert len(held_out.symbols) == 16
    # each symbol has a quarter of them as followers, in training and in test alike
    pairs = torch.cat(
        [torch.stack([p.symbols[:, :-1], p.symbols[:, 1:]], 2).flatten(0, 1) for p in (examples, held_out)]
    )
    followers = [set(pairs[pairs[:, 0] == s, 1].tolist()) for s in range(8)]
    assert max(map(len, followers)) == 2
    # an event shows itself in its own part: there, tokens of examples with the same symbol come close
    parts = examples.tokens.view(48, 3, -1, task.width)
    for j in range(3):
        same = (examples.symbols[:, j] == examples.symbols[0, j]).nonzero().flatten()[:2]
        near = torch.cdist(parts[same[0], j], parts[same[1], j]).min()
        assert near < 0.45 * task.width**0.5  # two tokens of independent noise of 0.15 lie 0.21 sqrt(d) apart


def test_merged_memory_keeps_the_mass(tmp_path: Path) -> None:
    run = Run("csat", 1, TINY, str(tmp_path / "a.pt"))
    assert merge(run, _nothing)["seconds_an_example"] > 0
    where = torch.load(run.assignments, weights_only=True)
    examples, _ = make_examples(TINY, 1)
    whole, none = memory_of(examples, "all", TINY, None)
    assert none is None
    tokens, weight = memory_of(examples, "merged", TINY, where[0])
    assert weight is not None
    assert tokens.shape[1] == weight.shape[1] == TINY.kept == 8
    assert torch.equal(weight.sum(dim=1), torch.full((48,), 32.0))
    torch.testing.assert_close((weight[..., None] * tokens).sum(dim=1), whole.sum(dim=1), rtol=1e-4, atol=1e-3)
    assert memory_of(examples, "uniform", TINY, None)[0].shape[1] == TINY.kept


def test_decoder_does_not_look_ahead() -> None:
    model = Decoder(TINY, LEARNERS["exact"], seed=0).eval()
    memory = torch.randn(3, TINY.tokens, TINY.width + 16, generator=torch.Generator().manual_seed(0))
    one, other = torch.tensor([[0, 1]] * 3), torch.tensor([[0, 3]] * 3)
    with torch.no_grad():
        torch.testing.assert_close(model(one, memory, None), model(other, memory, None))  # the last is not looked at
        assert not torch.allclose(model(one, memory, None)[:, 1], model(one + 1, memory, None)[:, 1])


def test_learners_start_equal() -> None:
    """Equal parameters, save what a method needs; what they share starts the same."""
    models = {name: Decoder(TINY, learner, seed=2) for name, learner in LEARNERS.items()}
    exact = dict(models["exact"].named_parameters())
    for name, model in models.items():
        for key, value in exact.items():
            assert torch.equal(dict(model.named_parameters())[key], value), (name, key)
    own = {
        name: sum(p.numel() for p in m.parameters()) - sum(p.numel() for p in exact.values())
        for name, m in models.items()
    }
    assert own["csat"] == own["performer"] == own["nystrom"] == own["csat published"] == 0
    assert own["linformer"] == 2 * TINY.kept * TINY.tokens


def test_training_learns_and_is_the_same_again() -> None:
    task = replace(TINY, train_examples=256, batch=32, steps=80, model_width=32, peak_rate=1e-2)
    run = Run("exact", 0, task, "")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first = train(run, _nothing)
    assert (
        first["accuracy"] > 0.6
    )  # guessing from the symbol before: every symbol has one follower, the first is 1 of 4
    assert first["losses"][-1] < 0.5 * first["losses"][0]
    assert first["perplexity"] > 1
    assert train(run, _nothing)["losses"] == first["losses"]
    torch.set_num_threads(threads)


def test_learning_from_end_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(learning_report, "QUICK", TINY)
    out = tmp_path / "out.json"
    learners = ["exact", "csat", "csat published + LISTA"]
    code = bench_attention.main(
        [
            *("--part", "learning", "--quick", "--seeds", "1", "--threads", "1", "--json", str(out)),
            *("--learners", *learners),
        ]
    )
    assert code == 0
    table = json.loads(out.read_text())["tables"][0]
    assert [row[0] for row in table["rows"]] == learners
    runs = table["values"]["runs"]
    assert all(0 <= run["accuracy"] <= 1 and run["perplexity"] > 1 for row in runs.values() for run in row)
    rows = {row[0]: row for row in table["rows"]}
    assert float(rows["csat"][6]) > float(rows["csat"][5])  # merging is counted
    assert rows["exact"][6] == rows["exact"][5]


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_trains(name: str, tmp_path: Path) -> None:
    run = Run(name, 0, replace(TINY, steps=2), str(tmp_path / "a.pt"))
    if LEARNERS[name].memory == "merged":
        merge(run, _nothing)
    result = train(run, _nothing)
    assert len(result["losses"]) == 2
    assert result["perplexity"] > 1


GIVEN = {
    "exact": 0.99, "nystrom": 0.98, "performer": 0.97, "csat": 0.95, "csat published": 0.2,
    "csat published + LISTA": 0.3, "csat + LISTA": 0.94, "csat in the layer": 0.985, "uniform frames": 0.1,
}  # fmt: skip


def _learning(
    given: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> tuple[dict[str, Any], Path]:
    """The report of hand-made accuracies, and its file."""

    def fake(function: Any, run: Run, **limits: Any) -> Outcome:
        if function is merge:
            return Outcome("ok", {"seconds_an_example": 0.01})
        made = {"accuracy": given[run.learner], "whole": 0.5, "perplexity": 1.1, "peak_bytes": MB, "loss": 1.0}
        parameters = 25 if "LISTA" in run.learner else 10
        return Outcome("ok", {**made, "seconds_a_step": 0.02, "losses": [1.0], "parameters": parameters})

    monkeypatch.setattr(learning_report, "run_apart", fake)
    out = tmp_path / "out.json"
    arguments = ["--part", "learning", "--seeds", "2", "--json", str(out), *more, "--learners", *given]
    monkeypatch.setattr("sys.argv", ["bench_attention.py", *arguments])
    assert bench_attention.main(arguments) == 0
    return json.loads(out.read_text()), out


@pytest.mark.parametrize(
    ("changes", "better"),
    [
        ({}, "performer 0.970"),
        ({"csat": 0.975}, ""),
        ({"csat": 0.975, "csat + LISTA": 0.98}, "csat + LISTA 0.980"),
        ({"csat": 0.975, "csat published": 0.98}, "csat published 0.980"),
        ({"csat": 0.975, "csat published + LISTA": 0.975}, "csat published + LISTA 0.975"),
        ({"csat": 0.975, "uniform frames": 0.99}, "uniform frames 0.990"),
    ],
)
def test_the_default_is_held_against_every_rival(
    changes: dict[str, float], better: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {**GIVEN, **changes}
    data, _ = _learning(given, tmp_path, monkeypatch)
    assert [verdict["met"] for verdict in data["verdicts"]] == [True, not better]
    words = data["verdicts"][1]["found"].split(". ")
    assert words[0] == f"{given['csat']:.3f}, exact 0.990" + (f"; as good or better: {better}" if better else "")
    against = "performer, csat published, csat published + LISTA, csat + LISTA, uniform frames"
    assert words[1] == f"Against: {against}"
    assert words[2].startswith("Left out: exact (")
    assert "nystrom (reads all tokens" in words[2]
    assert "csat in the layer (" in words[2]
    table = data["tables"][0]
    assert table["rows"][3][6] == "340.0 ± 0.0"  # 20 ms, and 32 examples of 10 ms
    assert table["note"].endswith("Parameters beyond the least, 10: csat published + LISTA 15, csat + LISTA 15.")


@pytest.mark.parametrize("older", [False, True])
def test_printed_again_from_its_numbers(
    older: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = _learning(GIVEN, tmp_path, monkeypatch, "--quick", "--steps", "7")
    said = capsys.readouterr().out
    data["missing"] = ["learning: linformer, seed 1: time: over 300 s", "sdpa, n = 8: failed"]
    if older:  # before the sizes of the task were kept
        del data["tables"][0]["values"]["task"]
    data["tables"].insert(0, {"title": "Time", "values": None})
    out.write_text(json.dumps(data))
    monkeypatch.setattr(learning_report, "run_apart", lambda *_, **__: pytest.fail("it was trained"))
    arguments = ["--from-json", str(out), "--json", str(tmp_path / "again.json")]
    monkeypatch.setattr("sys.argv", ["bench_attention.py", *arguments])
    assert bench_attention.main(arguments) == 1  # what was missing still is
    once_more = capsys.readouterr().out
    assert said[said.index("16 frames of") :] in once_more
    assert "7 steps of 32" in once_more
    learnt = shlex.join(["--part", "learning", "--seeds", "2", "--quick", "--steps", "7", "--learners", *GIVEN])
    assert f"Measured by `python scripts/bench_attention.py {learnt}`" in once_more
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["tables"][0]["rows"] == data["tables"][1]["rows"]
    assert again["verdicts"] == data["verdicts"]
    assert again["missing"] == data["missing"][:1]
    with pytest.raises(SystemExit, match="printed again itself"):
        bench_attention.main(["--from-json", str(tmp_path / "again.json")])
