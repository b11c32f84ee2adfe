"""The one interface of all token compressors, their table of names, and the checks that they share.

Shapes: P patch tokens a frame, d width of a token, n tokens seen so far, m tokens kept.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.budget import Budget, Cosine, Ratio, parse_budget
from csat_fusion.compressors.table import COMPRESSORS
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet

__all__ = ["Compressor", "make_compressor"]

# Squares of larger values, summed over a wide token and times a weight, could leave float32.
LARGEST_VALUE = 1e15


class Compressor(ABC):
    """Takes the tokens of one frame after the other and keeps at most ``budget`` that stand for all of them.

    After every frame, the weights sum to the tokens seen times their weight, and the spans cover what was given.
    Give a compressor one video or segment; ``reset`` makes it ready for the next. Not safe for several threads at once.

    Args:
        budget: how many tokens to keep, at least 1; or a share of those seen or a fidelity (see
            :mod:`csat_fusion.compressors.budget`); ``None`` (no limit) only where ``unlimited`` says so. A fidelity
            only where ``by_cosine`` says so.
        gap_seconds: tokens with more unseen time than this between their spans are not merged, at least 0. Methods
            that never merge across time ignore it.
        keep_assignment: remember where each token went (memory grows with the stream).
    """

    #: reads each frame once and never looks ahead
    causal: ClassVar[bool] = True
    #: keeps exactly ``min(n, budget)`` tokens; others keep at most that many
    exact_budget: ClassVar[bool] = False
    #: ``budget`` may be None
    unlimited: ClassVar[bool] = False
    #: ``budget`` may be a :class:`Cosine`
    by_cosine: ClassVar[bool] = False

    def __init__(self, budget: Budget | str, *, gap_seconds: float = 1.0, keep_assignment: bool = False) -> None:
        budget = parse_budget(budget)
        if budget is None and not self.unlimited:
            raise CompressionError(f"{type(self).__name__} needs a budget of at least 1 token, got None")
        if isinstance(budget, Cosine) and not self.by_cosine:
            raise CompressionError(
                f"{type(self).__name__} cannot keep to a fidelity ({budget}); give a number of tokens or a ratio"
            )
        self._budget = budget
        self._gap_seconds = gap("gap_seconds", gap_seconds)
        self._keep_assignment = flag("keep_assignment", keep_assignment)
        self._like: Tensor | None = None  # [0, d]: width, type and device of the stream
        self._forget()

    @property
    def budget(self) -> Budget:
        """The most tokens that ``result`` gives, as a number, a share or a fidelity; ``None``: no limit."""
        return self._budget

    def _limit(self, seen: int) -> int:
        """The most tokens to keep of ``seen``, by a number or a share; ``seen`` where there is none."""
        if isinstance(self._budget, Ratio):
            return self._budget.limit(seen)
        return seen if self._budget is None or isinstance(self._budget, Cosine) else min(seen, self._budget)

    @property
    def gap_seconds(self) -> float:
        return self._gap_seconds

    @property
    def frames_seen(self) -> int:
        return self._frames_seen

    def update(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float = 1.0) -> None:
        """Take the tokens of the next frame; they are copied, gradients do not pass.

        Args:
            tokens: ``[P, d]`` floating point; P, d, type and device stay the same over a stream.
            start_seconds, end_seconds: the half-open span that the frame stands for; a frame never starts before the
                one before it.
            weight: how many sampled frames this one stands for, above 0.

        Raises:
            CompressionError: anything of that does not hold; the state is as before the call.
        """
        with _one_thread():
            tokens = self._checked(tokens, start_seconds, end_seconds, weight)
            # Distances in half precision would choose wrong pairs: autocast around the caller does not reach in here.
            with torch.inference_mode(), torch.autocast(tokens.device.type, enabled=False):
                self._take(tokens, float(start_seconds), float(end_seconds), float(weight))
        if self._like is None:
            self._like = tokens.new_empty((0, tokens.shape[1]))
        self._patches = len(tokens)
        self._last_start_seconds = float(start_seconds)
        self._frames_seen += 1

    def result(self) -> TokenSet:
        """What is kept now, as a copy in the type and on the device of the input; the stream may go on.

        Raises:
            CompressionError: no frame was given yet.
        """
        if self._frames_seen == 0:
            raise CompressionError("no frame was given yet, so there are no tokens")
        return self._read()

    def assignment(self) -> Tensor:
        """For every token seen, its index in ``result()``: ``[n]`` int64 on the CPU, in the order given.

        Raises:
            CompressionError: the compressor was not made with ``keep_assignment=True``, or no frame was given yet.
        """
        if not self._keep_assignment:
            raise CompressionError("assignments are kept only by a compressor made with keep_assignment=True")
        if self._frames_seen == 0:
            raise CompressionError("no frame was given yet, so there is no assignment")
        return self._assign()

    def reset(self) -> None:
        """Forget everything seen; the options stay."""
        self._forget()
        self._clear()

    def _forget(self) -> None:
        self._like = None
        self._patches = 0
        self._frames_seen = 0
        self._last_start_seconds = -math.inf

    def _checked(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> Tensor:
        if not (finite(start_seconds) and finite(end_seconds) and end_seconds > start_seconds):
            raise CompressionError(
                f"a frame's span must be finite and end after it starts, got [{start_seconds}, {end_seconds})"
            )
        if start_seconds < self._last_start_seconds:
            raise CompressionError(
                f"frames must come in order of time: one at {start_seconds} s after one at {self._last_start_seconds} s"
            )
        if not (finite(weight) and weight > 0):
            raise CompressionError(f"a frame's weight must be finite and above 0, got {weight}")
        return check_tokens(tokens, start_seconds, self._like, self._patches, "; reset() before another kind of frame")

    @abstractmethod
    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        """Take a checked frame; raise before the state changes, or not at all."""

    @abstractmethod
    def _read(self) -> TokenSet: ...

    @abstractmethod
    def _assign(self) -> Tensor: ...

    @abstractmethod
    def _clear(self) -> None: ...


def check_tokens(tokens: Tensor, start_seconds: float, like: Tensor | None, patches: int, remedy: str = "") -> Tensor:
    """The tokens of a frame without their gradient, where they are ``[P, d]`` and, with ``like [0, d]``, as before.

    ``remedy`` ends the message of another P.

    Raises:
        CompressionError: shape, type, device or a value is not what it must be.
    """
    if not isinstance(tokens, Tensor) or not tokens.is_floating_point() or tokens.ndim != 2 or 0 in tokens.shape:
        got = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise CompressionError(f"tokens must be a floating-point tensor [P, d], P and d at least 1, got {got}")
    if like is not None:
        if len(tokens) != patches:
            raise CompressionError(
                f"the frame at {start_seconds} s has {len(tokens)} tokens, those before it {patches}{remedy}"
            )
        if (tokens.shape[1], tokens.dtype, tokens.device) != (like.shape[1], like.dtype, like.device):
            raise CompressionError(
                f"the frame at {start_seconds} s has width {tokens.shape[1]}, {tokens.dtype} on {tokens.device}, "
                f"those before it width {like.shape[1]}, {like.dtype} on {like.device}"
            )
    peak = float(tokens.detach().abs().amax())  # one read for NaN, infinity and too large
    if not peak <= LARGEST_VALUE:
        raise CompressionError(
            f"the frame at {start_seconds} s holds a token value of size {peak:g}; "
            f"values must be finite and at most {LARGEST_VALUE:g} in size"
        )
    return tokens.detach()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread for the caller's small products, and its own number again afterwards.

    A product of 49 tokens gains next to nothing from a second thread, and where other processes want the same cores it
    waits for that thread far longer than it computes (measured: 75 ms a frame instead of 4).
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def number(value: Any) -> float:
    """``value`` as a float; NaN where it is no real number."""
    if isinstance(value, bool):
        return math.nan
    return float(value) if isinstance(value, Real) else math.nan


def finite(value: Any) -> bool:
    """Whether it is a number that is neither infinite nor NaN."""
    return math.isfinite(number(value))


def gap(name: str, value: Any) -> float:
    """``value`` where it is a number of at least 0, infinite ones too; else a ``CompressionError`` that says so."""
    if not number(value) >= 0:
        raise CompressionError(f"{name} must be at least 0, got {value!r}")
    return number(value)


def share_of(name: str, value: Any, *, zero: bool = False) -> float:
    """``value`` where it is above 0 (with ``zero``: at least 0) and at most 1; else a ``CompressionError``."""
    share = number(value)
    if not 0 <= share <= 1 or (share == 0 and not zero):
        limits = "from 0 to 1" if zero else "above 0 and at most 1"
        raise CompressionError(f"{name} must be {limits}, got {value!r}")
    return share


def flag(name: str, value: Any) -> bool:
    """``value`` where it is True or False; else a ``CompressionError`` that says so."""
    if not isinstance(value, bool):
        raise CompressionError(f"{name} must be True or False, got {value!r}")
    return value


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Means are kept in float32, or in float64 for float64 tokens: half precision would drift."""
    return torch.promote_types(dtype, torch.float32)


def make_compressor(name: str, budget: Budget | str, *, gap_seconds: float = 1.0, **options: Any) -> Compressor:
    """The compressor of that name in ``COMPRESSORS``, with ``options`` of its class.

    Raises:
        CompressionError: no compressor or option has that name, or a value is outside what is allowed.
    """
    entry = COMPRESSORS.find(name)
    made: Compressor = entry.make(budget, given=("budget",), gap_seconds=gap_seconds, **options)
    return made
