"""The compressed form of a window: m merged tokens, each with its weight, time span and patch.

Shapes: m merged tokens, d width of a token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError

__all__ = ["TokenSet", "read_metadata", "time_order"]

_FORMAT = "longreel-token-set"
_VERSION = "1"
_PARTS = {"weight": torch.float32, "start_seconds": torch.float64, "end_seconds": torch.float64, "patch": torch.int64}


@dataclass(frozen=True, eq=False)
class TokenSet:
    """m merged tokens; all tensors on one device, in order of ``start_seconds`` when a compressor made them.

    ``tokens [m, d]`` floating point; ``weight [m]`` float32, how many patch tokens of sampled frames each stands for;
    ``start_seconds [m]``, ``end_seconds [m]`` float64, the half-open span that each covers; ``patch [m]`` int64, the
    patch index where all members share one, else -1.

    Raises:
        CompressionError: lengths, types or devices disagree, there is no token, a weight is not above zero, or a span
            does not end after it starts.
    """

    tokens: Tensor
    weight: Tensor
    start_seconds: Tensor
    end_seconds: Tensor
    patch: Tensor

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or 0 in self.tokens.shape or not self.tokens.is_floating_point():
            raise CompressionError(
                f"tokens must be floating point [m, d], m and d at least 1, "
                f"got {self.tokens.dtype} {list(self.tokens.shape)}"
            )
        m = len(self.tokens)
        for name, dtype in _PARTS.items():
            part: Tensor = getattr(self, name)
            if part.shape != (m,):
                raise CompressionError(f"{name} must be [{m}] as there are {m} tokens, got {list(part.shape)}")
            if part.dtype != dtype:
                raise CompressionError(f"{name} must be {dtype}, got {part.dtype}")
            if part.device != self.tokens.device:
                raise CompressionError(f"{name} is on {part.device}, the tokens on {self.tokens.device}")
        ok = torch.isfinite(self.weight) & (self.weight > 0)
        if not bool(ok.all()):
            raise CompressionError(f"weights must be finite and above 0, got {self.weight[~ok][0].item()}")
        ok = torch.isfinite(self.start_seconds) & torch.isfinite(self.end_seconds)
        ok &= self.end_seconds > self.start_seconds
        if not bool(ok.all()):
            bad = int((~ok).nonzero()[0])
            start, end = self.start_seconds[bad].item(), self.end_seconds[bad].item()
            raise CompressionError(f"the span [{start}, {end}) of token {bad} must be finite and end after it starts")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def width(self) -> int:
        """d, the width of a token."""
        return int(self.tokens.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        return self.tokens.dtype

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def total_weight(self) -> float:
        """How many patch tokens of sampled frames the set stands for."""
        return float(self.weight.sum(dtype=torch.float64))

    @property
    def span(self) -> tuple[float, float]:
        """``(start_seconds, end_seconds)`` of the least half-open span that holds those of all tokens."""
        return float(self.start_seconds.min()), float(self.end_seconds.max())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TokenSet:
        """The same set on another device, or with ``tokens`` in another floating-point type (the rest keep theirs)."""
        return TokenSet(
            self.tokens.to(device=device, dtype=_floating(dtype) if dtype is not None else self.dtype),
            **{name: getattr(self, name).to(device=device) for name in _PARTS},
        )

    def to_bytes(self, dtype: torch.dtype = torch.float16) -> bytes:
        """A safetensors file in memory: the tokens as ``dtype``, everything else as it is.

        Raises:
            CompressionError: a token does not fit ``dtype`` (float16 ends at 65504).
        """
        from safetensors.torch import save

        tokens = self.tokens.to(device="cpu", dtype=_floating(dtype))
        if not bool(torch.isfinite(tokens).all()):
            raise CompressionError(
                f"a token of size {float(self.tokens.abs().max()):g} does not fit {dtype}, "
                f"which ends at {torch.finfo(dtype).max:g}; use torch.bfloat16 or torch.float32"
            )
        parts = {"tokens": tokens, **{name: getattr(self, name).cpu() for name in _PARTS}}
        payload: bytes = save(
            {name: part.contiguous() for name, part in parts.items()}, {"format": _FORMAT, "version": _VERSION}
        )
        return payload

    @classmethod
    def from_bytes(cls, payload: bytes) -> TokenSet:
        """The set that ``to_bytes`` wrote, on the CPU, its tokens in the type they were written in.

        Raises:
            CompressionError: the bytes are damaged, or hold something else, or were written by a newer version.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        metadata = read_metadata(payload, "token set")
        if metadata.get("format") != _FORMAT:
            raise CompressionError(f"not a token set: its format is {metadata.get('format')!r}, expected {_FORMAT!r}")
        if metadata.get("version") != _VERSION:
            raise CompressionError(f"token set version {metadata.get('version')!r} is not known, expected {_VERSION!r}")
        try:
            parts: dict[str, Tensor] = load(payload)
        except (SafetensorError, ValueError, KeyError) as error:
            raise CompressionError(f"damaged token set of {len(payload)} bytes: {error}") from error
        if set(parts) != {"tokens", *_PARTS}:
            raise CompressionError(
                f"a token set holds tokens, {', '.join(_PARTS)}; this one {', '.join(sorted(parts))}"
            )
        return cls(**parts)


def time_order(start_seconds: Tensor, end_seconds: Tensor, patch: Tensor) -> Tensor:
    """The order ``[m]`` of tokens by start, then end, then patch, then as they came."""
    order = torch.argsort(patch, stable=True)  # the least significant first, each sort stable
    order = order[torch.argsort(end_seconds[order], stable=True)]
    return order[torch.argsort(start_seconds[order], stable=True)]


def _floating(dtype: torch.dtype) -> torch.dtype:
    if not dtype.is_floating_point:
        raise CompressionError(f"tokens are kept in a floating-point type, got {dtype}")
    return dtype


def read_metadata(payload: bytes, what: str) -> dict[str, Any]:
    """The metadata of safetensors bytes (8 bytes of header length, then the header as JSON); ``what`` they should hold.

    Raises:
        CompressionError: the header is cut off or no JSON.
    """
    length = int.from_bytes(payload[:8], "little")
    if len(payload) < 8 or length > len(payload) - 8:
        raise CompressionError(f"damaged {what}: {len(payload)} bytes are too few for its header")
    try:
        header = json.loads(payload[8 : 8 + length])
    except ValueError as error:
        raise CompressionError(f"damaged {what} of {len(payload)} bytes: its header is no JSON") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return metadata if isinstance(metadata, dict) else {}
