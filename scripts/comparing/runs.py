"""One training of one method with one seed, and where its outcome is kept.

Shapes: B clips of a batch, C clips, L text tokens.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InputError
from scripts.comparing.data import PARTS, Clips, given, merged_path, open_clips, read_bank, read_merged
from scripts.comparing.figures import judge, matched, objective
from scripts.comparing.methods import METHODS, kept
from scripts.comparing.model import Compared, Sizes, own_parameters, tokenizer
from scripts.training.loop import Chance

__all__ = ["Plan", "Results", "Run", "batch_of", "clips_of", "make_model", "optimizer", "rate_at", "step_of", "train"]


@dataclass(frozen=True)
class Plan:
    """What all runs have in common. ``learn`` clips are learnt from; the next ``choose`` ones of the same bank choose
    the rate; the first ``judge`` of the other bank are what the figures are of. ``context``: text tokens at most."""

    steps: int
    batch: int
    learn: int
    choose: int
    judge: int
    context: int
    sizes: Sizes = field(default_factory=Sizes)
    weight_decay: float = 0.05
    warmup: float = 0.1
    smoothing: float = 0.1
    half: bool = True


@dataclass(frozen=True)
class Run:
    """``bank``: the folder of the banks. ``work``: that of the merged tokens."""

    method: str
    ratio: int
    seed: int
    rate: float
    plan: Plan
    bank: Path
    work: Path

    @property
    def key(self) -> tuple[str, int, int, float]:
        return self.method, self.ratio, self.seed, self.rate


def clips_of(run: Run, part: str, first: int, last: int) -> Clips:
    """Clips ``first`` to ``last`` (left out) of a bank, with merged tokens where the method reads such."""
    bank = read_bank(run.bank / PARTS[part])
    merged = {}
    if METHODS[run.method].reads == "merged":
        rows = kept(bank.tokens.shape[1], run.ratio)
        merged[rows] = read_merged(merged_path(run.work, part, rows))
    words = tokenizer(run.plan.context)
    return open_clips(bank, lambda texts: words(texts), merged, first, last)


def make_model(run: Run, clips: Clips) -> Compared:
    words = tokenizer(run.plan.context)
    tokens, width = clips.bank.tokens.shape[1:]
    return Compared(
        run.method, tokens, width, run.ratio, run.plan.context, len(words.encoder), run.seed, run.plan.sizes
    )


def batch_of(clips: Clips, plan: Plan, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Which clips, and which sentence of each; the same for every method."""
    chance = Chance(seed, "compare", step)
    chosen = torch.randint(len(clips), (plan.batch,), generator=chance.torch)
    first = clips.texts.first
    which = torch.rand(plan.batch, generator=chance.torch, dtype=torch.float64)
    sentence = first[chosen] + (which * (first[chosen + 1] - first[chosen])).long()
    return chosen, sentence


def step_of(model: Compared, clips: Clips, run: Run, visual: Any, sentence: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of captioning and of matching."""
    from scripts.training.words import caption_loss

    ids, groups = clips.texts.ids[sentence], clips.texts.number[sentence]
    with torch.autocast("cpu", torch.bfloat16, enabled=run.plan.half):
        prepared = model.prepared(visual)
        latents, words = model.coca.text(ids)
        logits = model.decoder.read(prepared, words[:, :-1])
        matching = matched(model, prepared, latents, groups, run.plan.smoothing)
    return caption_loss(logits, ids, run.plan.smoothing), matching


def optimizer(model: Compared, plan: Plan) -> torch.optim.Optimizer:
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in model.parameters():
        parts[parameter.ndim > 1].append(parameter)
    groups = [{"params": parts[0], "weight_decay": 0.0}, {"params": parts[1], "weight_decay": plan.weight_decay}]
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98))


def rate_at(step: int, plan: Plan) -> float:
    """The share of the highest rate: a tenth of the steps up, then half a cosine down."""
    warm = max(1, round(plan.warmup * plan.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, plan.steps - warm)))


def train(run: Run, signal: Callable[[], None]) -> dict[str, Any]:
    """Train one model and judge it; ``{"failed": why}`` where its loss does not stay finite."""
    begun = time.perf_counter()
    plan = run.plan
    clips = clips_of(run, "learn", 0, plan.learn)
    model = make_model(run, clips).train()
    learner = optimizer(model, plan)
    losses: list[tuple[float, float]] = []
    for step in range(plan.steps):
        for group in learner.param_groups:
            group["lr"] = run.rate * rate_at(step, plan)
        chosen, sentence = batch_of(clips, plan, run.seed, step)
        writing, matching = step_of(model, clips, run, given(clips, run.method, model.rows, chosen), sentence)
        loss = writing + matching
        if not math.isfinite(loss.item()):
            return {"failed": f"the loss is {loss.item()} at step {step}"}
        learner.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        learner.step()
        losses.append((writing.item(), matching.item()))
        signal()
    model.eval()
    taught = time.perf_counter() - begun
    held_out = objective(model, clips_of(run, "learn", plan.learn, plan.learn + plan.choose), run.method)
    signal()
    figures = judge(model, clips_of(run, "judge", 0, plan.judge), run.method)
    last = losses[-20:]
    return {
        **figures,
        "held_out": held_out,
        "writing": sum(one for one, _ in last) / len(last),
        "matching": sum(one for _, one in last) / len(last),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "own_parameters": own_parameters(model),
        "rows": model.rows,
        "seconds": time.perf_counter() - begun,
        "training_seconds": taught,
    }


class Results:
    """Outcomes in a file, a line each, written as they come; the first line says of what.

    Raises:
        InputError: the file is of another plan or bank, or is none of ours.
    """

    def __init__(self, path: Path, plan: Plan, bank: dict[str, Any]) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        header = {"plan": asdict(plan), "bank": bank}
        if path.is_file():
            self._read(json.loads(json.dumps(header)))
        else:
            self._write({"header": header}, "x")

    def _read(self, header: dict[str, Any]) -> None:
        whole = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # what a kill cut off has no end of line
        try:
            lines = [json.loads(line) for line in whole]
            found = lines[0]["header"] if lines else None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path} holds no outcomes of this comparison: {error}") from error
        if found != header:
            differing = [
                f"{part} {name} {(found or {}).get(part, {}).get(name)!r} there, {value!r} here"
                for part, values in header.items()
                for name, value in values.items()
                if (found or {}).get(part, {}).get(name) != value
            ]
            raise InputError(
                f"{self.path} holds the outcomes of another comparison ({'; '.join(differing) or 'more in it'}): "
                f"name another folder, or delete it"
            )
        self.lines = lines[1:]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
        os.replace(partial, self.path)

    def _write(self, line: dict[str, Any], mode: str = "a") -> None:
        with self.path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def add(self, kind: str, key: list[Any], value: dict[str, Any]) -> None:
        line = {"kind": kind, "key": key, "value": value}
        self._write(line)
        self.lines.append(json.loads(json.dumps(line)))

    def get(self, kind: str, key: list[Any]) -> dict[str, Any] | None:
        """The outcome kept under a key, the last one; None where there is none."""
        wanted = json.loads(json.dumps(key))
        found = [line["value"] for line in self.lines if line["kind"] == kind and line["key"] == wanted]
        return found[-1] if found else None
