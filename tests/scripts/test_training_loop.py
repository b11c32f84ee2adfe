"""The training loop: what a step sees, what is kept, and what is refused."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scripts.training import loop
from scripts.training.loop import Chance, Plan, TrainingError, train

PLAN = Plan(7, 0.1, "adamw", 0.1, 0.3, 0.9, save_steps=2, log_steps=1, check_steps=3)


class Stage:
    """A line through points drawn by chance; ``stop`` is the step that is interrupted."""

    name = "line"

    def __init__(self, stop: int | None = None, width: int = 3) -> None:
        self.stop, self.width = stop, width
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network: nn.Module = nn.Sequential(nn.Linear(width, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def loss(self, step: int, chance: Chance) -> tuple[Tensor, dict[str, float]]:
        if step == self.stop:
            raise KeyboardInterrupt
        x = torch.randn(8, self.width, generator=chance.torch)
        y = torch.rand(8, 1)  # as dropout draws: from the global source, which the loop sets
        loss = (self.network(x) - y).square().mean()
        return loss, {"drawn": float(chance.numpy.random())}

    def check(self, network: nn.Module) -> dict[str, float]:
        assert not network.training
        return {"mean": float(network(torch.ones(1, self.width)))}


def quiet(message: str) -> None:
    pass


def run(folder: Path, stage: Stage | None = None, plan: Plan = PLAN, seed: int = 5) -> nn.Module:
    folder.mkdir(exist_ok=True)
    return train(stage or Stage(), plan, folder, seed, quiet)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_stopped_at_any_step_it_ends_the_same(tmp_path: Path, optimizer: str) -> None:
    plan = replace(PLAN, optimizer=optimizer)
    want = run(tmp_path / "whole", plan=plan)
    for stop in range(PLAN.steps):
        folder = tmp_path / f"stopped{stop}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, Stage(stop), plan)
        (folder / "line.partial").write_bytes(b"torn")
        with (folder / "curves.jsonl").open("a") as file:
            file.write('{"stage": "line", "step": 1, "check": {"mean": 1}')  # cut by a kill, though it ends with }
        got = run(folder, plan=plan)
        for key, value in want.state_dict().items():
            assert torch.equal(got.state_dict()[key], value), key
        assert (folder / "curves.jsonl").read_bytes() == (tmp_path / "whole" / "curves.jsonl").read_bytes()


def test_curves_keep_the_lines_of_other_stages(tmp_path: Path) -> None:
    other = '{"stage": "other", "step": 99, "loss": 1.0}\n'
    (tmp_path / "curves.jsonl").write_text(other + '{"stage": "line", "step": 1, "loss": 2.0}\n')
    run(tmp_path)
    text = (tmp_path / "curves.jsonl").read_text()
    assert text.startswith(other)
    seen = [json.loads(line) for line in text.splitlines()[1:]]
    assert [(line["step"], "check" in line) for line in seen] == [
        (1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (6, False), (6, True), (7, False),
        (7, True),
    ]  # fmt: skip
    assert set(seen[0]) == {"stage", "step", "loss", "rate", "norm", "drawn"}


def test_a_finished_stage_is_only_read(tmp_path: Path) -> None:
    want = run(tmp_path)
    before = (tmp_path / "line.pt").stat().st_mtime_ns
    got = run(tmp_path, Stage(stop=0))
    assert torch.equal(got.state_dict()["0.weight"], want.state_dict()["0.weight"])
    assert (tmp_path / "line.pt").stat().st_mtime_ns == before


def test_the_global_source_of_chance_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("plan", "seed", "width", "said"),
    [
        (replace(PLAN, steps=8), 5, 3, "another plan or seed"),
        (PLAN, 6, 3, "another plan or seed"),
        (PLAN, 5, 2, "another network"),
    ],
)
def test_what_a_checkpoint_is_of(tmp_path: Path, plan: Plan, seed: int, width: int, said: str) -> None:
    run(tmp_path)
    with pytest.raises(TrainingError, match=rf"line\.pt is of {said}"):
        run(tmp_path, Stage(width=width), plan, seed)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path)
    path, curve = tmp_path / "line.pt", tmp_path / "curves.jsonl"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"line\.pt cannot be read"):
            run(tmp_path)
    torch.save({"plan": {}}, path)
    with pytest.raises(TrainingError, match=r"line\.pt lacks seed, step"):
        run(tmp_path)
    path.write_bytes(whole)
    for wrong in ("{torn\n", "[1]\n", "{}\n"):
        curve.write_text('{"stage": "other", "step": 1}\n' + wrong)
        with pytest.raises(TrainingError, match=r"curves\.jsonl:2: not a line of a curve"):
            run(tmp_path)


def test_what_is_not_finite_stops_the_stage(tmp_path: Path) -> None:
    class Odd(Stage):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.kind = kind

        def loss(self, step: int, chance: Chance) -> tuple[Tensor, dict[str, float]]:
            loss, figures = super().loss(step, chance)
            if step == 3 and self.kind == "loss":
                loss = loss * math.nan
            if step == 3 and self.kind == "length of the gradients":
                loss = loss + (0 * loss).sqrt()  # finite itself
            return loss, figures

        def check(self, network: nn.Module) -> dict[str, float]:
            return {"mean": math.inf if self.kind == "figures" else 0.0}

    for kind, said in [
        ("loss", "line: the loss at step 3 is nan"),
        ("length of the gradients", "line: the length of the gradients at step 3 is"),
        ("figures", "figures on the validation split are not finite: {'mean': inf}"),
    ]:
        folder = tmp_path / kind.split()[0]
        with pytest.raises(TrainingError, match=re.escape(said)):
            run(folder, Odd(kind))
        state = torch.load(folder / "line.pt", weights_only=True)
        assert state["step"] == 2
        assert all(bool(value.isfinite().all()) for value in state["network"].values())


def test_an_unknown_optimizer(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="optimizer 'best' is not one of adamw, sgd"):
        run(tmp_path, plan=replace(PLAN, optimizer="best"))


def test_norms_and_biases_do_not_decay() -> None:
    groups = loop._optimizer(Stage().network, PLAN).param_groups
    assert [[p.ndim for p in group["params"]] for group in groups] == [[2, 2], [1, 1, 1, 1]]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_the_average_follows_as_a_plain_loop_would() -> None:
    network = Stage().network
    average = copy.deepcopy(network)
    want = {key: value.clone() for key, value in network.state_dict().items()}
    for step in range(5):
        with torch.no_grad():
            for value in network.state_dict().values():
                value += step + 1
        loop._follow(average, network, 0.75)
        for key, value in network.state_dict().items():
            want[key] = 0.75 * want[key] + 0.25 * value if value.is_floating_point() else value.clone()
    for key, value in average.state_dict().items():
        torch.testing.assert_close(value, want[key])
    assert int(average.state_dict()["1.num_batches_tracked"]) == 15


def test_the_rate_rises_straight_and_falls_as_half_a_cosine() -> None:
    plan = Plan(100, 1.0, warmup=0.1)
    rates = [loop._schedule(step, plan) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


def test_each_step_and_stage_and_seed_has_chance_of_its_own() -> None:
    def drawn(seed: int, stage: str, step: int) -> tuple[float, float]:
        chance = Chance(seed, stage, step)
        return float(chance.numpy.random()), float(torch.rand((), generator=chance.torch, dtype=torch.float64))

    asked = [(seed, stage, step) for seed in (0, 1) for stage in ("sight", "words") for step in (0, 1, 10**6)]
    seen = [drawn(*each) for each in asked]
    assert len({value for each in seen for value in each}) == 2 * len(asked)
    assert seen == [drawn(*each) for each in asked]
