"""A sequence task over video-like tokens, and a small transformer that learns it with any attention.

The task: a stream of T frames of P patch tokens shows scenes that drift and cut, things that pass, and k events.
Event j lies somewhere in the j-th part of the stream, on two neighbouring patches for one second, and is one of S
symbols. Which symbol follows which is not free: each has S/4 successors, equally likely. A decoder must say the symbols
in order, one after the other. Who sees only the symbols before it guesses right once in S/4 times; who sees only the
memory must find the right second among tokens of which few matter.

Shapes: E examples, T frames, P patches, n = T*P tokens, m tokens attended to, d width of a token, k events, S symbols,
B batch.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benching.processes import Meter, Signal

__all__ = ["LEARNERS", "ON_REQUEST", "Learner", "Run", "Task", "make_examples", "merge", "train"]

FRAMES_PER_SECOND = 2.0
GAP_SECONDS = 1.0


@dataclass(frozen=True)
class Task:
    """The sizes of the task and of the model, equal for all attentions."""

    frames: int = 32
    patches: int = 16
    width: int = 32
    events: int = 8
    symbols: int = 16
    ratio: int = 16  # m = n / ratio
    train_examples: int = 2048
    test_examples: int = 512
    model_width: int = 64
    heads: int = 4
    layers: int = 2
    batch: int = 32
    steps: int = 500
    peak_rate: float = 6e-3  # of 3e-3, 6e-3 and 1e-2, the best for exact attention

    @property
    def tokens(self) -> int:
        return self.frames * self.patches

    @property
    def kept(self) -> int:
        return max(1, self.tokens // self.ratio)


@dataclass(frozen=True)
class Learner:
    """A row of the table: which attention, with what options, over which memory ("all", "merged" or "uniform")."""

    attention: str
    options: tuple[tuple[str, Any], ...] = ()
    memory: str = "all"


_LISTA = (("denoiser", "lista"),)
LEARNERS: dict[str, Learner] = {
    "exact": Learner("exact"),
    "linformer": Learner("linformer"),
    "performer": Learner("performer"),
    "nystrom": Learner("nystrom"),
    "csat published": Learner("csat-published"),
    "csat published + LISTA": Learner("csat-published", _LISTA),
    "csat": Learner("csat", memory="merged"),
    "csat + LISTA": Learner("csat", _LISTA, memory="merged"),
    "uniform frames": Learner("exact", memory="uniform"),
    "csat in the layer": Learner("csat", memory="all"),
}
# Merges what its own projection made, at every step and layer: slow on a CPU, so only when asked for.
ON_REQUEST = ("csat in the layer",)


@dataclass(frozen=True)
class Run:
    """One training: a learner and a seed; ``assignments`` is the file that :func:`merge` wrote for that seed."""

    learner: str
    seed: int
    task: Task
    assignments: str


@dataclass(frozen=True)
class Examples:
    """``tokens [E, n, d]``, ``seconds [n]`` (start of a token's frame) and ``symbols [E, k]``."""

    tokens: Tensor
    seconds: Tensor
    symbols: Tensor


# -- the task ----------------------------------------------------------------------------------------------------------


def make_examples(task: Task, seed: int) -> tuple[Examples, Examples]:
    """Training and test examples of one language of symbols, which the seed draws."""
    generator = torch.Generator().manual_seed(seed)
    looks = torch.randn(task.symbols, task.width, generator=generator)
    following = torch.rand(task.symbols, task.symbols, generator=generator).argsort(dim=1)[:, : task.symbols // 4]
    both = (task.train_examples, task.test_examples)
    train_part, test_part = (_draw(task, count, looks, following, generator) for count in both)
    return train_part, test_part


def _draw(task: Task, count: int, looks: Tensor, following: Tensor, generator: torch.Generator) -> Examples:
    frames, patches, width = task.frames, task.patches, task.width
    every = torch.arange(count)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    symbols = whole(0, task.symbols, count, task.events)
    for j in range(1, task.events):
        symbols[:, j] = following[symbols[:, j - 1], whole(0, following.shape[1], count)]
    surfaces = torch.randn(count, 2, 6, width, generator=generator)  # two scenes with six surfaces each
    layout = whole(0, 6, count, 2, patches)
    cut = whole(frames // 4, 3 * frames // 4 + 1, count)
    tokens = torch.empty(count, frames, patches, width)
    for t in range(frames):
        scene = (t >= cut).long()
        surfaces[every, scene] += 0.05 * torch.randn(count, 6, width, generator=generator)
        tokens[:, t] = surfaces[every[:, None], scene[:, None], layout[every, scene]]
    part = frames // task.events
    lasting = max(1, min(part, int(FRAMES_PER_SECOND)))
    strange = torch.randn(count, 2, width, generator=generator)
    things = [(strange[:, i], whole(0, frames - lasting + 1, count)) for i in range(2)]  # belong to no symbol
    things += [(looks[symbols[:, j]], j * part + whole(0, part - lasting + 1, count)) for j in range(task.events)]
    for look, begins in things:  # events last, so that nothing hides them
        place = whole(0, patches, count)
        for dt in range(lasting):
            for step in range(min(2, patches)):
                tokens[every, begins + dt, (place + step) % patches] = look
    tokens += 0.15 * torch.randn(tokens.shape, generator=generator)
    seconds = (torch.arange(frames) / FRAMES_PER_SECOND).repeat_interleave(patches)
    return Examples(tokens.reshape(count, -1, width), seconds, symbols)


def merge(run: Run, signal: Signal) -> dict[str, float]:
    """Merge every example of a seed once, frame by frame, and keep where each token went: ``[E, n]`` for both parts.

    The merging sees the tokens alone, so it is the same in every epoch; what it costs is returned.
    """
    from csat_fusion.compressors.base import make_compressor

    task = run.task
    compressor = make_compressor("ward", task.kept, gap_seconds=GAP_SECONDS, keep_assignment=True)
    seconds, count, found = 0.0, 0, []
    for examples in make_examples(task, run.seed):
        begun = time.perf_counter()
        places = []
        for tokens in examples.tokens:
            compressor.reset()
            for t, frame in enumerate(tokens.split(task.patches)):
                compressor.update(frame, t / FRAMES_PER_SECOND, (t + 1) / FRAMES_PER_SECOND)
            places.append(torch.as_tensor(compressor.assignment()))
            if len(places) % 64 == 0:
                signal()
        seconds += time.perf_counter() - begun
        count += len(places)
        found.append(torch.stack(places))
    torch.save(found, run.assignments)
    return {"seconds_an_example": seconds / count}


# -- the memory that an attention is given -----------------------------------------------------------------------------


def time_features(seconds: Tensor) -> Tensor:
    """``[n]`` to ``[n, 16]``: sines and cosines of periods from 1 to 64 s."""
    periods = 2.0 ** torch.linspace(0, 6, 8)
    angle = 2 * math.pi * seconds[:, None] / periods
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def memory_of(examples: Examples, kind: str, task: Task, assignment: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Tokens with their time ``[E, m, d + 16]`` and their weight ``[E, m]`` (None: one each).

    Merged tokens are means of tokens and of their time features: as the model begins with a linear map, that is the
    same as merging after it.
    """
    features = time_features(examples.seconds).expand(len(examples.tokens), -1, -1)
    whole = torch.cat([examples.tokens, features], dim=2)
    if kind == "all":
        return whole, None
    if kind == "uniform":
        frames = max(1, task.kept // task.patches)
        chosen = ((torch.arange(frames) + 0.5) * task.frames / frames).long()
        index = (chosen[:, None] * task.patches + torch.arange(task.patches)).flatten()
        return whole[:, index].clone(), None
    assert assignment is not None
    rows = int(assignment.max()) + 1
    weight = torch.zeros(len(whole), rows).scatter_add_(1, assignment, torch.ones(assignment.shape))
    total = torch.zeros(len(whole), rows, whole.shape[2])
    total.scatter_add_(1, assignment[..., None].expand_as(whole), whole)
    return total / weight.clamp(min=1)[..., None], weight


# -- the model ---------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """Causal self-attention, cross-attention of the learner's kind, and a feed-forward part, each after a norm."""

    def __init__(self, task: Task, learner: Learner, seed: int) -> None:
        super().__init__()
        from csat_fusion.attention.base import make_attention

        width = task.model_width
        self.self_attention = make_attention("exact", width, task.heads, seed=seed)
        self.cross_attention = make_attention(
            learner.attention,
            width,
            task.heads,
            budget=None if learner.attention == "exact" else task.kept,
            tokens=task.kept if learner.memory == "merged" else task.tokens,
            seed=seed + 1,
            **dict(learner.options),
        )
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor, weight: Tensor | None) -> Tensor:
        y = self.norms[0](x)
        x = x + self.self_attention(y, y, y, is_causal=True)[0]
        x = x + self.cross_attention(self.norms[1](x), memory, memory, weights=weight)[0]
        out: Tensor = x + self.feed_forward(self.norms[2](x))
        return out


class Decoder(nn.Module):
    """Says the symbols in order: symbols so far and the memory to the scores of the next one, ``[B, k, S]``."""

    def __init__(self, task: Task, learner: Learner, seed: int) -> None:
        super().__init__()
        width = task.model_width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # nn.Linear and others know no other
            self.begin = task.symbols
            self.symbol = nn.Embedding(task.symbols + 1, width)
            self.position = nn.Parameter(0.5 * torch.randn(task.events, width))
            self.memory = nn.Linear(task.width + 16, width)
            self.layers = nn.ModuleList(Layer(task, learner, 100 * seed + 10 * i) for i in range(task.layers))
            self.norm = nn.LayerNorm(width)
            self.out = nn.Linear(width, task.symbols)

    def forward(self, symbols: Tensor, memory: Tensor, weight: Tensor | None) -> Tensor:
        """``symbols [B, k]``: those already said; the last of them is not looked at."""
        before = torch.cat([torch.full_like(symbols[:, :1], self.begin), symbols[:, :-1]], dim=1)
        x = self.symbol(before) + self.position
        memory = self.memory(memory)
        for layer in self.layers:
            x = layer(x, memory, weight)
        scores: Tensor = self.out(self.norm(x))
        return scores

    @torch.no_grad()
    def say(self, memory: Tensor, weight: Tensor | None) -> Tensor:
        """The likeliest symbol at each place, given those said before: ``[B, k]``."""
        said = torch.zeros(len(memory), len(self.position), dtype=torch.long)
        for j in range(said.shape[1]):
            said[:, j] = self(said, memory, weight)[:, j].argmax(dim=-1)
        return said


def rate(task: Task, step: int) -> float:
    """A tenth of the steps up, then half a cosine down to a twentieth."""
    warm = max(1, task.steps // 10)
    if step < warm:
        return task.peak_rate * (step + 1) / warm
    return task.peak_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, task.steps - warm))))


def _optimizer(model: nn.Module, task: Task) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=task.peak_rate, weight_decay=0.01)


def _step(model: Decoder, optimizer: Any, symbols: Tensor, memory: Tensor, weight: Tensor | None) -> float:
    """One step of training, and its loss."""
    scores = model(symbols, memory, weight)
    loss = cross_entropy(scores.flatten(0, 1), symbols.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _peak_bytes(run: Run, symbols: Tensor, memory: Tensor, weight: Tensor | None) -> int:
    """Peak memory of the model, its optimizer and three steps, above the data."""

    def steps(examples: int, count: int) -> None:
        model = Decoder(run.task, LEARNERS[run.learner], run.seed)
        optimizer = _optimizer(model, run.task)
        batch = torch.arange(examples)
        for _ in range(count):
            _step(model, optimizer, symbols[batch], memory[batch], None if weight is None else weight[batch])

    steps(min(2, len(symbols)), 1)  # loads what a first step loads, so that the meter does not see it
    meter = Meter()
    steps(min(run.task.batch, len(symbols)), 3)
    peak = meter.peak_bytes()
    meter.close()
    return peak


def train(run: Run, signal: Signal) -> dict[str, Any]:
    """Train and test one learner: accuracies, perplexity, seconds a step, peak bytes, parameters, losses."""
    task, learner = run.task, LEARNERS[run.learner]
    parts = make_examples(task, run.seed)
    maps: list[Any] = [None, None]
    if learner.memory == "merged":
        maps = torch.load(Path(run.assignments), weights_only=True)
    given = [memory_of(part, learner.memory, task, where) for part, where in zip(parts, maps, strict=True)]
    symbols, held_out = (part.symbols for part in parts)
    del parts, maps
    (memory, weight), test = given[0], given[1]
    signal()
    peak = _peak_bytes(run, symbols, memory, weight)
    signal()
    model = Decoder(task, learner, run.seed)
    optimizer = _optimizer(model, task)
    generator = torch.Generator().manual_seed(run.seed + 7)
    order = torch.empty(0, dtype=torch.long)
    seconds, losses = [], []
    for step in range(task.steps):
        if len(order) < task.batch:
            order = torch.randperm(len(symbols), generator=generator)
        batch, order = order[: task.batch], order[task.batch :]
        for group in optimizer.param_groups:
            group["lr"] = rate(task, step)
        started = time.perf_counter()
        w = None if weight is None else weight[batch]
        losses.append(_step(model, optimizer, symbols[batch], memory[batch], w))
        seconds.append(time.perf_counter() - started)
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss of {run.learner} is {losses[-1]} at step {step}")
        if step % 50 == 0:
            signal()
    return {
        **_test(model.eval(), held_out, *test, task),
        "seconds_a_step": sorted(seconds)[len(seconds) // 2],
        "peak_bytes": peak,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": sum(losses[-20:]) / len(losses[-20:]),
        "losses": losses[:: max(1, task.steps // 50)],
    }


@torch.no_grad()
def _test(model: Decoder, symbols: Tensor, memory: Tensor, weight: Tensor | None, task: Task) -> dict[str, float]:
    """Perplexity of the true symbols; shares of symbols and of whole sequences said right, each after those said."""
    loss, right, whole = 0.0, 0.0, 0.0
    for at in torch.arange(len(symbols)).split(task.batch):
        w = None if weight is None else weight[at]
        scores = model(symbols[at], memory[at], w)
        loss += float(cross_entropy(scores.flatten(0, 1), symbols[at].flatten(), reduction="sum"))
        same = model.say(memory[at], w) == symbols[at]
        right += float(same.sum())
        whole += float(same.all(dim=1).sum())
    count = symbols.numel()
    return {"perplexity": math.exp(loss / count), "accuracy": right / count, "whole": whole / len(symbols)}
