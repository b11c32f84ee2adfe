"""One training loop for every stage: seeded, resumable after a kill, with an average of the weights and curves on disk.

A step's batch depends on the seed, the stage and the step's number only, so a run that was killed and goes on sees what
it would have seen. Checkpoints are replaced in one move; lines of the curve beyond the checkpoint are taken back.

Lines of ``curves.jsonl`` are of two kinds, both with ``stage`` and ``step`` (from 1):

    loss, rate, norm and the stage's own figures    of one step's batch; rate is the learning rate, norm the gradients'
    check                                           figures on the validation split, of the averaged weights
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from csat_fusion.errors import LongreelError

__all__ = ["Chance", "Plan", "Stage", "TrainingError", "load_weights", "read_state", "train"]


class TrainingError(LongreelError):
    """Training that cannot begin or go on: what it was given does not fit."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage learns.

    ``rate`` is the highest learning rate, reached after ``warmup`` of the steps and followed by half a cosine.
    ``average`` is the decay of the average of weights (0 for none); ``clip_norm`` bounds the length of the gradients.
    Steps between checkpoints, lines of the curve, and looks at the validation split: ``save_steps``, ``log_steps``,
    ``check_steps``; each also happens after the last step.
    """

    steps: int
    rate: float
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    warmup: float = 0.05
    average: float = 0.999
    clip_norm: float = 1.0
    save_steps: int = 100
    log_steps: int = 20
    check_steps: int = 500


class Chance:
    """The sources of chance of one step: ``numpy`` and ``torch``, both decided by seed, stage and step."""

    def __init__(self, seed: int, stage: str, step: int) -> None:
        words = np.random.SeedSequence([seed, *stage.encode(), step]).generate_state(2, np.uint64)
        self.numpy = np.random.default_rng(words[0])
        self.torch = torch.Generator().manual_seed(int(words[1] >> np.uint64(1)))


class Stage(Protocol):
    """What the loop needs to know of a stage. ``network`` holds everything that learns."""

    name: str
    network: nn.Module

    def loss(self, step: int, chance: Chance) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a batch drawn by ``chance``, and figures for the curve."""
        ...

    def check(self, network: nn.Module) -> dict[str, float]:
        """Figures on the validation split, of the network with averaged weights."""
        ...


def train(stage: Stage, plan: Plan, folder: Path, seed: int, tell: Callable[[str], None] = print) -> nn.Module:
    """Train a stage up to its last step, from its checkpoint in ``folder`` if any; return the averaged network.

    Raises:
        TrainingError: for a checkpoint or a curve that cannot be read, a checkpoint of another plan, seed or network,
            an unknown optimizer, and a loss, gradients or figures that are not finite.
    """
    device = next(stage.network.parameters()).device
    path, curve = folder / f"{stage.name}.pt", folder / "curves.jsonl"
    optimizer = _optimizer(stage.network, plan)
    average = copy.deepcopy(stage.network).requires_grad_(False)
    start = _resume(path, curve, stage, plan, optimizer, average, seed)
    if start:
        tell(f"{stage.name}: goes on at step {start} of {plan.steps}")
    began, seen = time.monotonic(), start
    for step in range(start, plan.steps):
        stage.network.train()
        rate = plan.rate * _schedule(step, plan)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chance = Chance(seed, stage.name, step)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(chance.numpy.integers(1 << 62)))  # dropout and stochastic depth draw from this
            loss, figures = stage.loss(step, chance)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(
                f"{stage.name}: the loss at step {step} is {float(loss.detach())}; lower its rate {plan.rate}"
            )
        norm = float(nn.utils.clip_grad_norm_(stage.network.parameters(), plan.clip_norm))
        if not math.isfinite(norm):  # the step would spoil the weights, and a checkpoint keep them
            raise TrainingError(
                f"{stage.name}: the length of the gradients at step {step} is {norm}; lower its rate {plan.rate}"
            )
        optimizer.step()
        # a young average must forget the first weights faster than an old one
        _follow(average, stage.network, min(plan.average, (1 + step) / (10 + step)))
        done = step + 1
        if done % plan.log_steps == 0 or done == plan.steps:
            pace = (done - seen) / max(time.monotonic() - began, 1e-9)
            began, seen = time.monotonic(), done
            record = {"loss": float(loss.detach()), "rate": rate, "norm": norm, **figures}
            _append(curve, {"stage": stage.name, "step": done, **record})
            left = (plan.steps - done) / pace / 60
            shown = " ".join(f"{key} {value:.3g}" for key, value in record.items())
            tell(f"{stage.name} {done}/{plan.steps} {shown} | {pace:.2f} steps/s, {left:.0f} min left")
        if done % plan.check_steps == 0 or done == plan.steps:
            figures = _check(stage, average)
            _append(curve, {"stage": stage.name, "step": done, "check": figures})
            tell(f"{stage.name} {done}: " + " ".join(f"{key} {value:.4g}" for key, value in figures.items()))
            began, seen = time.monotonic(), done
        if done % plan.save_steps == 0 or done == plan.steps:
            state = {
                "plan": asdict(plan),
                "seed": seed,
                "step": done,
                "network": stage.network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
            }
            partial = path.with_suffix(".partial")
            torch.save(state, partial)
            os.replace(partial, path)
    return average.eval()


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights, and what batch norms keep, towards the network's: ``decay`` of them stays."""
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _check(stage: Stage, average: nn.Module) -> dict[str, float]:
    average.eval()
    with torch.no_grad():
        figures = stage.check(average)
    if not all(math.isfinite(value) for value in figures.values()):
        raise TrainingError(f"{stage.name}: figures on the validation split are not finite: {figures}")
    return figures


def _schedule(step: int, plan: Plan) -> float:
    """The share of the highest rate at a step (from 0): a straight rise, then half a cosine."""
    warm = max(1, round(plan.warmup * plan.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, plan.steps - warm)))


def _optimizer(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Weights of one dimension (norms, biases, scales) do not decay."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate, momentum=0.9, nesterov=True)
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
    raise TrainingError(f"optimizer {plan.optimizer!r} is not one of adamw, sgd")


def _resume(
    path: Path,
    curve: Path,
    stage: Stage,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    average: nn.Module,
    seed: int,
) -> int:
    """Take what the checkpoint holds, if there is one, and the curve up to there; the number of steps done."""
    start = 0
    if path.is_file():
        state = read_state(path, "plan", "seed", "step", "network", "optimizer", "average")
        if state["plan"] != asdict(plan) or state["seed"] != seed:
            raise TrainingError(f"{path} is of another plan or seed; name another folder, or delete it to begin again")
        load_weights(stage.network, state["network"], path)
        load_weights(average, state["average"], path)
        optimizer.load_state_dict(state["optimizer"])
        start = int(state["step"])
    if curve.is_file():
        kept = [line for line in _lines(curve) if line["stage"] != stage.name or line["step"] <= start]
        partial = curve.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(partial, curve)
    return start


def read_state(path: Path, *keys: str, mapped: bool = False) -> dict[str, Any]:
    """A file that training keeps, with at least these keys; ``mapped`` tensors stay on the disk until they are used.

    Raises:
        TrainingError: where it cannot be read, or lacks one.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} cannot be read; delete it to make it again: {error}") from error
    missing = [key for key in keys if not isinstance(state, dict) or key not in state]
    if missing:
        raise TrainingError(f"{path} lacks {', '.join(missing)}: it is no file of this training")
    found: dict[str, Any] = state
    return found


def load_weights(network: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Set a network's weights to those of a checkpoint.

    Raises:
        TrainingError: for those of another network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(
            f"{path} is of another network (other packs or another recipe); name another folder: {error}"
        ) from error


def _lines(curve: Path) -> list[dict[str, Any]]:
    """The whole lines of a curve; the last is not whole where a kill cut it."""
    lines = []
    for number, line in enumerate(curve.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            content = json.loads(line)
            content["stage"], content["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{curve}:{number}: not a line of a curve ({error!r}); delete the file") from error
        lines.append(content)
    return lines


def _append(curve: Path, line: dict[str, Any]) -> None:
    with curve.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
