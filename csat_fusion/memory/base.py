"""The one interface of long memories: a state of fixed size, however long the stream.

Shapes: P patch tokens a frame, d width of a token, m rows or tokens of the state, k tokens given back.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import check_tokens
from csat_fusion.errors import CompressionError
from csat_fusion.tables import Entry, Table
from csat_fusion.tokens import TokenSet, read_metadata

__all__ = ["MEMORIES", "Memory", "make_memory"]

_VERSION = "1"
_Self = TypeVar("_Self", bound="Memory")


class Memory(ABC):
    """Takes the tokens of one frame after the other into a state of fixed size that can be asked for any span.

    Two memories of one kind and configuration merge; a span can be forgotten. Not safe for several threads at once.
    """

    def __init__(self) -> None:
        self._like: Tensor | None = None  # [0, d]: width, type and device of the stream
        self._patches = 0
        self._frames_seen = 0
        self._last_start_seconds = -math.inf
        self._span = (math.inf, -math.inf)

    @property
    def frames_seen(self) -> int:
        """Frames added, those of merged memories included; forgetting does not lower it."""
        return self._frames_seen

    @property
    def span(self) -> tuple[float, float]:
        """``(start_seconds, end_seconds)`` of what was added, whether forgotten since or not.

        Raises:
            CompressionError: nothing was added yet.
        """
        self._like_known()
        return self._span

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """The most that the state takes: fixed by the configuration, P, d and the type of the tokens; 0 before the
        first frame."""

    def add(self, tokens: Tensor, start_seconds: float, end_seconds: float) -> None:
        """Take the tokens of the next frame; gradients do not pass.

        Args:
            tokens: ``[P, d]`` floating point; P, d, type and device stay the same over a stream.
            start_seconds, end_seconds: the half-open span that the frame stands for; a frame never starts before the
                one before it.

        Raises:
            CompressionError: anything of that does not hold; the state is as before the call.
        """
        tokens = self._checked(tokens, start_seconds, end_seconds)
        if start_seconds < self._last_start_seconds:
            raise CompressionError(
                f"frames must come in order of time: one at {start_seconds} s after one at {self._last_start_seconds} s"
            )
        with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
            self._take(tokens, float(start_seconds), float(end_seconds))
        if self._like is None:
            self._like = tokens.new_empty((0, tokens.shape[1]))
            self._patches = len(tokens)
        self._frames_seen += 1
        self._last_start_seconds = float(start_seconds)
        self._span = (min(self._span[0], float(start_seconds)), max(self._span[1], float(end_seconds)))

    def merge(self: _Self, other: _Self) -> None:
        """Take in what another memory of the same kind and configuration holds; ``other`` stays as it is.

        The two should hold different frames: one that is in both counts twice. Frames added later come after both.

        Raises:
            CompressionError: kind, configuration, P, d, type or device differ; the state is as before the call.
        """
        if type(other) is not type(self):
            raise CompressionError(f"a {type(self).__name__} cannot take in a {type(other).__name__}")
        if other is self:
            raise CompressionError("a memory cannot take in itself: every frame would count twice")
        mine, theirs = self._config(), other._config()
        if mine != theirs:
            apart = ", ".join(f"{key} {mine[key]!r} and {theirs[key]!r}" for key in mine if mine[key] != theirs[key])
            raise CompressionError(f"memories merge only if configured alike; these differ in {apart}")
        if other._like is None:
            return
        if self._like is not None:
            for what, one, two in (
                ("patches", self._patches, other._patches),
                ("width", self._like.shape[1], other._like.shape[1]),
                ("type", self._like.dtype, other._like.dtype),
                ("device", self._like.device, other._like.device),
            ):
                if one != two:
                    raise CompressionError(f"memories merge only if their {what} is one; here {one} and {two}")
        with torch.no_grad(), torch.autocast(other._like.device.type, enabled=False):
            self._take_in(other)
        self._like, self._patches = other._like, other._patches
        self._frames_seen += other._frames_seen
        self._last_start_seconds = max(self._last_start_seconds, other._last_start_seconds)
        self._span = (min(self._span[0], other._span[0]), max(self._span[1], other._span[1]))

    @abstractmethod
    def recover(self, start_seconds: float, end_seconds: float) -> TokenSet:
        """What the memory knows of ``[start_seconds, end_seconds)``; no span in it leaves the one asked for.

        Raises:
            CompressionError: the span is not one, or nothing of it is held.
        """

    @abstractmethod
    def forget(self, start_seconds: float, end_seconds: float) -> TokenSet:
        """Take ``[start_seconds, end_seconds)`` out of the memory; gives what was taken out.

        Raises:
            CompressionError: the span is not one, or nothing of it is held; the state is as before the call.
        """

    def to_bytes(self) -> bytes:
        """A safetensors file in memory: the state exactly as it is, with the configuration inside.

        Raises:
            CompressionError: nothing was added yet.
        """
        from safetensors.torch import save

        like = self._like_known()
        about = {
            "format": self._format(),
            "version": _VERSION,
            **self._config(),
            "frames_seen": self._frames_seen,
            "last_start_seconds": self._last_start_seconds,
            "span": list(self._span),
            "patches": self._patches,
            "width": like.shape[1],
            "dtype": str(like.dtype).removeprefix("torch."),
            **self._facts(),
        }
        parts = {name: part.cpu().contiguous() for name, part in self._parts().items()}
        # One entry, because several would come in any order, and the same state gives the same bytes.
        payload: bytes = save(parts, {"memory": json.dumps(about)})
        return payload

    @classmethod
    def from_bytes(cls: type[_Self], payload: bytes) -> _Self:
        """The memory that ``to_bytes`` wrote, on the CPU.

        Raises:
            CompressionError: the bytes are damaged, or hold something else, or were written by a newer version.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        about = _about(payload)
        if about.get("format") != cls._format():
            raise CompressionError(f"its format is {about.get('format')!r}, expected {cls._format()!r}")
        if about.get("version") != _VERSION:
            raise CompressionError(f"version {about.get('version')!r} is not known, expected {_VERSION!r}")
        try:
            parts: dict[str, Tensor] = load(payload)
            memory = cls._restored(about, parts)
            memory._like = torch.empty(0, about["width"], dtype=getattr(torch, about["dtype"]))
            memory._patches = about["patches"]
            memory._frames_seen = about["frames_seen"]
            memory._last_start_seconds = about["last_start_seconds"]
            memory._span = (about["span"][0], about["span"][1])
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CompressionError(f"damaged memory of {len(payload)} bytes: {error}") from error
        return memory

    def _checked(self, tokens: Tensor, start_seconds: float, end_seconds: float) -> Tensor:
        check_span(start_seconds, end_seconds)
        return check_tokens(tokens, start_seconds, self._like, self._patches)

    def _like_known(self) -> Tensor:
        if self._like is None:
            raise CompressionError("nothing was added to this memory yet")
        return self._like

    @classmethod
    def _format(cls) -> str:
        return f"longreel-{cls.__name__}"

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """What two memories must share to merge, as JSON."""

    def _facts(self) -> dict[str, Any]:
        """What else of the state is no tensor, as JSON."""
        return {}

    @abstractmethod
    def _parts(self) -> dict[str, Tensor]: ...

    @classmethod
    @abstractmethod
    def _restored(cls: type[_Self], about: dict[str, Any], parts: dict[str, Tensor]) -> _Self: ...

    @abstractmethod
    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float) -> None:
        """Take a checked frame; raise before the state changes, or not at all."""

    @abstractmethod
    def _take_in(self: _Self, other: _Self) -> None: ...


def check_span(start_seconds: float, end_seconds: float) -> None:
    """Raise unless ``[start_seconds, end_seconds)`` is finite and not empty."""
    if not (math.isfinite(start_seconds) and math.isfinite(end_seconds) and end_seconds > start_seconds):
        raise CompressionError(f"a span must be finite and end after it starts, got [{start_seconds}, {end_seconds})")


def _about(payload: bytes) -> dict[str, Any]:
    """What ``to_bytes`` wrote of a memory beside its tensors."""
    try:
        about = json.loads(read_metadata(payload, "memory").get("memory", "{}"))
    except (ValueError, TypeError) as error:
        if isinstance(error, CompressionError):
            raise
        raise CompressionError(f"damaged memory of {len(payload)} bytes: its header is no JSON") from error
    return about if isinstance(about, dict) else {}


MEMORIES = Table(
    "memory",
    {
        "sketch": Entry("csat_fusion.memory.sketch", "SketchMemory"),
        "adaptive": Entry("csat_fusion.memory.adaptive", "AdaptiveMemory"),
    },
)


def make_memory(name: str, size: int, **options: Any) -> Memory:
    """The memory of that name in ``MEMORIES``: ``size`` is the rows of a sketch, the tokens of an adaptive memory.

    Raises:
        CompressionError: no memory has that name, or a value is outside what is allowed.
    """
    made: Memory = MEMORIES.find(name).make(size, given=("rows", "budget"), **options)
    return made
