"""Fitting without labels: a measurement and a sparse decoder, learnt by distilling exact attention.

The teacher is exact softmax attention over the tokens of one's own videos, the student the compressed one, and the
loss the squared error of the student's context relative to that of the window's mean token. Queries are tokens of the
same window less the centre of all tokens, with noise. What is learnt depends on the reading
(:mod:`csat_fusion.attention.csat`): ``published`` a matrix for keys and one for values over the n tokens of a window,
as in Linformer (Wang et al., 2020, arXiv 2006.04768); ``feature`` a matrix over the features of a head; ``merged``
none, as its measurement is made from each window anew. All learn LISTA (Gregor and LeCun, 2010) as denoiser of the
context, where asked for.

Shapes: B windows, n tokens of a window, d width, m rows, H heads, dh = d / H, q queries.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from csat_fusion.attention.csat import READINGS, csat_attention
from csat_fusion.attention.csat_module import CSATCrossAttention
from csat_fusion.attention.decoder import ContextDecoder
from csat_fusion.compressors.batched import ward_assignment
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement
from csat_fusion.measurements.learned import LearnedMeasurement
from csat_fusion.measurements.merging import MergingMeasurement

__all__ = ["FitConfig", "Fitted", "fit", "load_fitted"]

_FORMAT = "longreel-csat-fit"
_VERSION = "1"
_ATTENDED = 64.0  # tokens that an exact query attends to, where no scale is given


@dataclass(frozen=True)
class FitConfig:
    """What a fit was made for; part of its checkpoint.

    ``reading``, ``rows`` (m, or r features of a head), ``tokens`` (n), ``width`` (d), ``heads``; ``scale`` of the
    scores; ``averaging``: rows of the measurement are means; ``denoiser``: LISTA is learnt; ``lista_steps``; ``seed``.

    Raises:
        CompressionError: a value outside what is allowed.
    """

    reading: str
    rows: int
    tokens: int
    width: int
    heads: int = 1
    scale: float = 1.0
    averaging: bool = False
    denoiser: bool = True
    lista_steps: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise CompressionError(f"reading must be one of {', '.join(READINGS)}, got {self.reading!r}")
        for name in ("rows", "tokens", "width", "heads", "lista_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CompressionError(f"{name} must be a whole number, at least 1, got {value!r}")
        if self.width % self.heads:
            raise CompressionError(f"{self.heads} heads do not divide the width {self.width}")
        most = self.width // self.heads if self.reading == "feature" else self.tokens
        if self.rows > most:
            what = "features of a head" if self.reading == "feature" else "tokens of a window"
            raise CompressionError(f"rows must be at most the {most} {what}, got {self.rows}")
        if not (isinstance(self.scale, int | float) and math.isfinite(self.scale) and self.scale > 0):
            raise CompressionError(f"scale must be finite and above 0, got {self.scale!r}")
        if self.reading == "merged" and not self.denoiser:
            raise CompressionError("the merged reading has nothing to learn but its denoiser; denoiser must be True")


class Fitted(nn.Module):
    """What ``fit`` gives: the measurements, the denoiser, and what they were made for.

    Args:
        config: see :class:`FitConfig`.
        error_before, error_after: of windows that were held out, relative to that of their mean token.
    """

    def __init__(
        self, config: FitConfig, *, error_before: float = math.nan, error_after: float = math.nan, step: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.error_before, self.error_after, self.step = error_before, error_after, step
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(config.width))  # of the tokens: a signed measurement of it is noise
        head = config.width // config.heads
        over = head if config.reading == "feature" else config.tokens

        def learned(offset: int) -> LearnedMeasurement:
            seed = 2 * config.seed + offset
            return LearnedMeasurement(config.rows, over, seed=seed, averaging=config.averaging)

        self.key_measurement = None if config.reading == "merged" else learned(1)
        self.value_measurement = learned(2) if config.reading == "published" else None
        self.denoiser: ContextDecoder | None = None
        if config.denoiser:
            measured = self.key_measurement if config.reading == "feature" else None
            # The least threshold: an untrained decoder should leave the context alone as far as it can.
            self.denoiser = ContextDecoder(head, measurement=measured, steps=config.lista_steps, threshold=1e-4)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, assignment: Tensor | None = None) -> Tensor:
        """Compressed attention ``[B, q, d]`` of ``query [B, q, d]`` to ``key, value [B, n, d]``, tokens as they come.

        The centre of the tokens that it was fitted to is taken away from all three, and given back to the context.
        ``assignment [B, n]``: where the merged reading puts each token; made from the keys where None.
        """
        config = self.config
        if key.shape[-2:] != (config.tokens, config.width):
            raise CompressionError(
                f"this fit is for windows of {config.tokens} tokens of width {config.width}, got {list(key.shape[-2:])}"
            )
        centre = self.centre.to(key.dtype)
        query, key, value = query - centre, key - centre, value - centre
        phi: Measurement | tuple[Measurement, Measurement] | None = self.key_measurement
        if config.reading == "merged":
            if assignment is None:
                assignment = ward_assignment(key, config.rows)
            phi = MergingMeasurement(assignment, rows=config.rows)
        elif self.key_measurement is not None and self.value_measurement is not None:
            phi = (self.key_measurement, self.value_measurement)
        context = csat_attention(
            query,
            key,
            value,
            phi,
            reading=config.reading,  # type: ignore[arg-type]
            heads=config.heads,
            scale=config.scale,
            denoiser=self.denoiser,
        )
        return context + centre

    def cross_attention(self, embed_dim: int, num_heads: int, **options: Any) -> CSATCrossAttention:
        """A fresh :class:`CSATCrossAttention` with copies of what was learnt, to be trained on from there.

        Its projections are random, and what comes out of them has another centre and another scale of scores: this is
        a start. For attention over tokens as they are, call the fit itself.

        Raises:
            CompressionError: its heads are of another width than those of the fit, and the denoiser or the measurement
                is for that.
        """
        config = self.config
        head, mine = embed_dim // num_heads, config.width // config.heads
        if head != mine and (config.denoiser or config.reading == "feature"):
            raise CompressionError(
                f"this fit is for heads of width {mine}, {embed_dim} / {num_heads} heads are {head} wide"
            )
        made = CSATCrossAttention(
            embed_dim,
            num_heads,
            budget=config.rows,
            reading=config.reading,  # type: ignore[arg-type]
            measurement=copy.deepcopy(self.key_measurement),
            denoiser=copy.deepcopy(self.denoiser),
            **options,
        )
        if self.value_measurement is not None:
            made.value_measurement = copy.deepcopy(self.value_measurement)
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file with the configuration in its metadata; a file of that name is replaced at once."""
        from safetensors.torch import save_file

        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        facts = {"error_before": self.error_before, "error_after": self.error_after, "step": self.step}
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "config": json.dumps(asdict(self.config) | {"facts": facts}),
        }
        # Clones: the decoder of the feature reading holds the same measurement.
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.state_dict().items()}
        try:
            save_file(tensors, part, metadata)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


def load_fitted(path: str | os.PathLike[str]) -> Fitted:
    """The fit that ``save`` wrote, on the CPU.

    Raises:
        CompressionError: the file is damaged, or something else, or of a newer version.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    with open(path, "rb"):  # a missing file is an OSError that names it
        pass
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except SafetensorError as error:
        raise CompressionError(f"{path} is no safetensors file, or damaged: {error}") from error
    if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
        raise CompressionError(
            f"{path} is a {metadata.get('format')!r} of version {metadata.get('version')!r}, "
            f"expected {_FORMAT!r} of version {_VERSION!r}"
        )
    try:
        values = json.loads(metadata["config"])
        facts = values.pop("facts")
        unknown = set(values) - {field.name for field in fields(FitConfig)}
        if unknown:
            raise KeyError(", ".join(sorted(unknown)))
        fitted = Fitted(FitConfig(**values), **facts)
        fitted.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CompressionError(f"{path} holds no fit that can be read: {error}") from error
    return fitted.eval()


def fit(
    windows: Sequence[Tensor],
    *,
    rows: int,
    reading: str = "published",
    heads: int = 1,
    scale: float | None = None,
    averaging: bool = False,
    denoiser: bool = True,
    lista_steps: int = 4,
    steps: int = 500,
    batch: int = 8,
    queries: int = 32,
    noise: float = 0.1,
    learning_rate: float | None = None,
    hold_out: float = 0.2,
    seed: int = 0,
    progress: Callable[[int, float, float], bool | None] | None = None,
) -> Fitted:
    """Learn a measurement and a denoiser from windows of tokens, and give what was best on those held out.

    Args:
        windows: at least 2, each ``[n, d]`` floating point and finite, all of one shape; on their device it is learnt.
        rows: m of ``published`` and ``merged``, r of ``feature``.
        reading, heads, averaging, denoiser, lista_steps, seed: see :class:`FitConfig`.
        scale: of the scores; ``None``: such that exact queries attend to about 64 tokens, or an eighth of fewer.
        steps, batch, queries: optimiser steps (Adam, the rate falling along a cosine), windows and queries a step.
        learning_rate: ``None``: 0.01, or 0.03 for averaging rows, whose parameters are logarithms.
        noise: of a query, in standard deviations of each feature of the window's tokens.
        hold_out: the share of windows, the last ones, that is not learnt from; at least one. In order of time, so that
            no neighbour of theirs is learnt from, or, with several videos, so that the last video is new.
        progress: called with the step, the loss and the error of the held-out windows (NaN between two looks); where
            it gives True, fitting stops there and gives the best so far.

    Returns:
        The state with the least error on held-out windows: at worst the untrained one. ``error_before`` and
        ``error_after`` say what was gained; 1.0 is the error of replacing a window by its mean token. What is best is
        chosen by the same windows, so ``error_after`` is a validation error, a little on the bright side.

    Raises:
        CompressionError: windows are too few, differ in shape, type or device, or are not finite; a value is outside
            what is allowed.
    """
    stack = _stacked(windows)
    if learning_rate is None:
        learning_rate = 0.03 if averaging else 0.01
    _check_numbers(steps, batch, queries, noise, learning_rate, hold_out, scale)
    generator = torch.Generator().manual_seed(seed)
    apart = min(len(stack) - 1, max(1, round(hold_out * len(stack))))
    learnt, held = stack[:-apart], stack[-apart:]
    config = FitConfig(
        reading, rows, stack.shape[1], stack.shape[2], heads, 1.0, averaging, denoiser, lista_steps, seed
    )
    if scale is None:
        scale = _scale_for(learnt - learnt.mean(dim=(0, 1)), config, generator, noise)
    config = replace(config, scale=float(scale))
    student = Fitted(config).to(stack.device, stack.dtype)
    student.centre.copy_(learnt.mean(dim=(0, 1)))
    assigned = [ward_assignment(part, rows) if reading == "merged" else None for part in (learnt, held)]
    asked = _queries(held, queries, noise, generator)
    best = before = _error(student, asked, held, assigned[1])
    state = {name: value.clone() for name, value in student.state_dict().items()}
    taken = 0
    with torch.enable_grad(), torch.autocast(stack.device.type, enabled=False):
        optimiser = torch.optim.Adam(student.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        every = max(1, steps // 20)
        for step in range(1, steps + 1):
            chosen = torch.randint(len(learnt), (min(batch, len(learnt)),), generator=generator).to(stack.device)
            part = learnt[chosen]
            where = None if assigned[0] is None else assigned[0][chosen]
            loss = _loss(student, _queries(part, queries, noise, generator), part, where)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            error = math.nan
            if step % every == 0 or step == steps:
                error = _error(student, asked, held, assigned[1])
                if error < best:
                    best, taken = error, step
                    state = {name: value.clone() for name, value in student.state_dict().items()}
            if progress is not None and progress(step, float(loss.detach()), error):
                break
    student.load_state_dict(state)
    student.error_before, student.error_after, student.step = before, best, taken
    return student.eval()


def _loss(student: Fitted, query: Tensor, window: Tensor, assignment: Tensor | None) -> Tensor:
    """Squared error of the contexts, each relative to that of its window's mean token: ``[]``."""
    config = student.config
    with torch.no_grad():
        centred = query - student.centre  # a query is what it differs by; of keys it would not matter
        exact = csat_attention(centred, window, window, None, heads=config.heads, scale=config.scale)
        worst = (exact - window.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
    found = student(query, window, window, assignment)
    error: Tensor = (found - exact).square().sum(dim=(1, 2))
    # A window of equal tokens has no error to be relative to, and none to learn from.
    return torch.where(worst > 0, error / torch.where(worst > 0, worst, 1.0), 0.0).mean()


def _error(student: Fitted, query: Tensor, window: Tensor, assignment: Tensor | None) -> float:
    with torch.no_grad():
        return float(_loss(student, query, window, assignment).sqrt())


def _queries(window: Tensor, count: int, noise: float, generator: torch.Generator) -> Tensor:
    """``[B, q, d]``: tokens of each window at random, with noise."""
    batch, n, width = window.shape
    chosen = torch.randint(n, (batch, count), generator=generator).to(window.device)
    query = window.gather(1, chosen[..., None].expand(-1, -1, width))
    shake = torch.randn(query.shape, generator=generator).to(window)
    return query + noise * window.std(dim=1, keepdim=True) * shake


def _scale_for(window: Tensor, config: FitConfig, generator: torch.Generator, noise: float) -> float:
    """The scale of the scores at which the median query attends to the wanted number of tokens, exp(entropy)."""
    part = window[:16]
    query = _queries(part, 32, noise, generator)
    split = (len(part), -1, config.heads, config.width // config.heads)
    scores = query.reshape(split).transpose(1, 2) @ part.reshape(split).permute(0, 2, 3, 1)
    wanted = math.log(max(1.5, min(_ATTENDED, config.tokens / 8)))
    low, high = -20.0, 20.0  # of the logarithm
    spread = float(scores.std())
    if not spread > 0:
        return 1.0  # all tokens alike: every scale gives the same
    for _ in range(50):
        middle = (low + high) / 2
        log = (scores * (math.exp(middle) / spread)).log_softmax(dim=-1)
        entropy = float(-(log.exp() * log).sum(dim=-1).median())
        low, high = (middle, high) if entropy > wanted else (low, middle)
    return math.exp(low) / spread


def _stacked(windows: Sequence[Tensor]) -> Tensor:
    """``[B, n, d]`` in float32 at least."""
    if len(windows) < 2:
        raise CompressionError(f"fitting needs at least 2 windows, one of them to be held out, got {len(windows)}")
    first = windows[0]
    for i, window in enumerate(windows):
        if not isinstance(window, Tensor) or not window.is_floating_point() or window.ndim != 2 or 0 in window.shape:
            got = f"{window.dtype} {list(window.shape)}" if isinstance(window, Tensor) else type(window).__name__
            raise CompressionError(f"window {i} must be floating point [n, d], n and d at least 1, got {got}")
        if (window.shape, window.dtype, window.device) != (first.shape, first.dtype, first.device):
            raise CompressionError(
                f"window {i} is {window.dtype} {list(window.shape)} on {window.device}, "
                f"the first {first.dtype} {list(first.shape)} on {first.device}; all must be alike"
            )
        if not bool(torch.isfinite(window).all()):
            raise CompressionError(f"window {i} holds a value that is not finite")
    return torch.stack([window.detach() for window in windows]).to(torch.promote_types(first.dtype, torch.float32))


def _check_numbers(
    steps: int, batch: int, queries: int, noise: float, learning_rate: float, hold_out: float, scale: float | None
) -> None:
    for name, number in (("steps", steps), ("batch", batch), ("queries", queries)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise CompressionError(f"{name} must be a whole number, at least 1, got {number!r}")
    if not (math.isfinite(noise) and noise >= 0):
        raise CompressionError(f"noise must be finite and at least 0, got {noise!r}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise CompressionError(f"learning_rate must be finite and above 0, got {learning_rate!r}")
    if not 0 < hold_out < 1:
        raise CompressionError(f"hold_out must be above 0 and below 1, got {hold_out!r}")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise CompressionError(f"scale must be finite and above 0, got {scale!r}")
