"""What each method costs: time of a training step, of the attention call and of a caption; memory of the call.

Measured when no run shares the machine: times in one process that takes all methods in turn, round after round, so
that a machine whose speed drifts treats all alike; memory in a process for each.

Shapes: B clips of a batch, L text tokens, d width, m tokens attended to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scripts.benching.processes import Meter
from scripts.comparing.data import Clips, given, merged_batch
from scripts.comparing.methods import METHODS
from scripts.comparing.model import Compared
from scripts.comparing.runs import Run, batch_of, clips_of, make_model, optimizer, step_of

__all__ = ["WORDS", "Costs", "peak_of", "state_bytes", "times_of"]

WORDS = 12
_SINGLE = 4


@dataclass(frozen=True)
class Costs:
    """``rounds`` of every one of ``runs``, of which only method, ratio, plan and folders count."""

    runs: tuple[Run, ...]
    rounds: int


class _Bench:
    """One method with a batch that it was given."""

    def __init__(self, run: Run, clips: Clips) -> None:
        self.run, self.clips = run, clips
        self.model = make_model(run, clips).train()
        self.learner = optimizer(self.model, run.plan)
        chosen, self.sentence = batch_of(clips, run.plan, run.seed, 0)
        self.visual = given(clips, run.method, self.model.rows, chosen)
        self.chosen = chosen
        self.inputs = call_inputs(self.model, self.visual, run.plan.context)

    def step(self) -> None:
        for group in self.learner.param_groups:
            group["lr"] = 1e-5
        writing, matching = step_of(self.model, self.clips, self.run, self.visual, self.sentence)
        self.learner.zero_grad(set_to_none=True)
        (writing + matching).backward()
        self.learner.step()

    def call(self) -> None:
        _call(*self.inputs, self.run.plan.half)

    def merge(self) -> None:
        merged_batch(self.clips.bank, self.model.rows, self.chosen)

    @torch.inference_mode()
    def caption(self) -> None:
        from encoders.openclip.stepping import Steps

        self.model.eval()
        steps = Steps(self.model.decoder, self.model.prepared(self.visual))
        ids = torch.ones(len(self.visual), dtype=torch.long)
        for _ in range(min(WORDS, self.run.plan.context)):
            ids = steps.next(ids).argmax(dim=-1)
        self.model.train()


def times_of(costs: Costs, signal: Callable[[], None]) -> list[dict[str, float]]:
    """For each run: median seconds of a step, of one attention call (forward and back), of a clip's caption, and of
    merging a clip, where the method reads merged tokens."""
    benches = []
    for run in costs.runs:
        clips = clips_of(run, "learn", 0, run.plan.learn)
        benches.append(_Bench(run, clips))
        for name in _acts(run):
            getattr(benches[-1], name)()
            signal()
    spent: list[dict[str, list[float]]] = [{name: [] for name in _acts(run)} for run in costs.runs]
    for _ in range(costs.rounds):
        for bench, own in zip(benches, spent, strict=True):
            for name, values in own.items():
                act = getattr(bench, name)
                begun = time.perf_counter()
                act()
                values.append(time.perf_counter() - begun)
            signal()
    return [
        {
            f"{name}_seconds": _median(values) / (len(bench.visual) if name in ("caption", "merge") else 1)
            for name, values in own.items()
        }
        for bench, own in zip(benches, spent, strict=True)
    ]


def _acts(run: Run) -> tuple[str, ...]:
    return (
        ("step", "call", "caption", "merge") if METHODS[run.method].reads == "merged" else ("step", "call", "caption")
    )


def peak_of(run: Run, signal: Callable[[], None]) -> dict[str, float]:
    """Bytes of state of one cross-attention for a clip; peak bytes of its call for a batch, above its inputs."""
    bench = _Bench(run, clips_of(run, "learn", 0, run.plan.learn))
    # loads what a first call loads, so that the meter does not see it
    _call(*call_inputs(bench.model, _first(bench.visual), run.plan.context), run.plan.half)
    attention, query, memory = call_inputs(bench.model, bench.visual, run.plan.context)
    attention.zero_grad(set_to_none=True)
    signal()
    meter = Meter()
    _call(attention, query, memory, run.plan.half)
    peak = meter.peak_bytes()
    meter.close()
    return {"peak_bytes": peak, "state_bytes": state_bytes(bench.model, run)}


def state_bytes(model: Compared, run: Run) -> int:
    """Of one cross-attention and one clip, in single precision: what has to be kept to answer further queries."""
    attention = model.attentions[0]
    return int(attention.state_numbers(model.read_tokens) * attention.num_heads * _SINGLE)


def call_inputs(model: Compared, visual: Any, context: int) -> tuple[Any, Tensor, Any]:
    """A cross-attention of the decoder, queries ``[B, L, d]`` and the memory, cut off from what made them."""
    prepared = model.prepared(visual)
    memory = replace(prepared, tokens=model.norm(prepared.tokens).detach().requires_grad_(True))
    query = torch.randn(
        len(visual), context, model.norm.normalized_shape[0], generator=torch.Generator().manual_seed(0)
    )
    return model.attentions[0], query.requires_grad_(True), memory


def _call(attention: Any, query: Tensor, memory: Any, half: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out, _ = attention(query, memory.tokens, memory.tokens, weights=memory.weights)
    out.float().sum().backward()


def _first(visual: Any) -> Any:
    """The first clip of a batch."""
    parts = {name: getattr(visual, name) for name in ("tokens", "weights", "start_seconds", "end_seconds", "span")}
    return replace(visual, **{name: None if part is None else part[:1] for name, part in parts.items()})


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
