"""Time and peak memory of one attention over n video tokens, each row in a process of its own.

What a row does: q queries of H heads attend to a stream of n tokens ``[n, H dh]`` that serve as keys and as values.
Projections are left out for all rows: they would cost the exact ones n of them and merging ones only m. A method's own
matrices (random or learned) are made before the clock starts, but count as memory.

Shapes: T frames, P patches a frame, n = T*P tokens, m kept tokens, q queries, H heads, dh width of a head.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benching.processes import Meter, Signal

__all__ = ["METHODS", "Method", "Row", "measure", "video_stream"]

FRAMES_PER_SECOND = 2.0
GAP_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """One row of the table: a method at one n and q."""

    method: str
    tokens: int  # n
    queries: int  # q
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    heads: int = 8
    width: int = 64  # dh
    patches: int = 64  # P
    ratio: int = 16  # m = n / ratio
    device: str = "cpu"
    dtype: str = "float32"
    slow_seconds: float = 10.0  # calls slower than this are made fewer times

    @property
    def kept(self) -> int:
        """m."""
        return max(1, self.tokens // self.ratio)


# A stage takes what the one before gave; a method is up to two of them: compress the stream, attend to what is left.
Compress = Callable[[Tensor], Any]
Attend = Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Method:
    """How to make a method's two stages for a row (``compress`` may be None), and what to say of it."""

    make: Callable[[Row], tuple[Compress | None, Attend]]
    note: str
    #: numbers that stand for the n tokens once they are seen, for all heads together
    state: Callable[[Row], int]


def video_stream(frames: int, patches: int, width: int, seed: int) -> Tensor:
    """Synthetic patch tokens ``[frames * patches, width]`` float32 of a video at two frames a second.

    A cut every 8 s on average. A scene has a background of 12 surfaces laid out over the grid, which drifts slowly, and
    something that moves over it, one patch a frame, on about a tenth of the patches; every token has its own noise.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, math.isqrt(patches))
    columns = -(-patches // rows)
    tokens = torch.empty(frames, patches, width)
    place = torch.arange(patches)
    scene_end = 0
    for t in range(frames):
        if t >= scene_end:
            scene_end = t + int(torch.randint(8, 25, (1,), generator=generator))
            surfaces = torch.randn(12, width, generator=generator)
            corners = torch.rand(12, 2, generator=generator) * torch.tensor([float(rows), float(columns)])
            grid = torch.stack([place // columns, place % columns], dim=1).float()
            layout = torch.cdist(grid, corners).argmin(dim=1)
            thing = torch.randn(width, generator=generator)
            size = max(1, round(math.sqrt(patches / 10)))
            top, left = (int(torch.randint(0, 1000, (1,), generator=generator)) for _ in range(2))
        surfaces = surfaces + 0.03 * torch.randn(12, width, generator=generator)
        frame = surfaces[layout]
        column = (place % columns - left - t) % columns
        row = (place // columns - top) % rows
        frame = torch.where(((column < size) & (row < size))[:, None], thing, frame)
        tokens[t] = frame + 0.2 * torch.randn(patches, width, generator=generator)
    return tokens.reshape(frames * patches, width)


# -- methods -----------------------------------------------------------------------------------------------------------


def _split(tokens: Tensor, heads: int) -> Tensor:
    """``[t, H dh]`` to ``[1, H, t, dh]``, without a copy."""
    return tokens.reshape(1, len(tokens), heads, -1).transpose(1, 2)


def _eager(row: Row) -> tuple[None, Attend]:
    """Scores and their softmax written out in memory, as attention was before fused kernels."""

    def attend(query: Tensor, tokens: Tensor) -> Tensor:
        key = _split(tokens, row.heads)
        scores = (_split(query, row.heads) / math.sqrt(row.width)) @ key.transpose(-2, -1)
        return scores.softmax(dim=-1) @ key

    return None, attend


def _sdpa(row: Row) -> tuple[None, Attend]:
    def attend(query: Tensor, tokens: Tensor) -> Tensor:
        key = _split(tokens, row.heads)
        return torch.nn.functional.scaled_dot_product_attention(_split(query, row.heads), key, key)

    return None, attend


def _merged(name: str, kept: int | None = None) -> Callable[[Row], tuple[Compress, Attend]]:
    def make(row: Row) -> tuple[Compress, Attend]:
        from csat_fusion.attention.weighted import weighted_attention
        from csat_fusion.compressors.base import make_compressor

        compressor = make_compressor(name, min(kept or row.kept, row.tokens), gap_seconds=GAP_SECONDS)

        def compress(tokens: Tensor) -> Any:
            compressor.reset()
            for t, frame in enumerate(tokens.split(row.patches)):
                compressor.update(frame, t / FRAMES_PER_SECOND, (t + 1) / FRAMES_PER_SECOND)
            return compressor.result()

        def attend(query: Tensor, kept: Any) -> Tensor:
            key = kept.tokens[None]
            return weighted_attention(query[None], key, key, kept.weight[None], heads=row.heads)

        return compress, attend

    return make


def _linformer(rows: Callable[[Row], int]) -> Callable[[Row], tuple[None, Attend]]:
    def make(row: Row) -> tuple[None, Attend]:
        from csat_fusion.attention.linformer import linformer_attention

        generator = torch.Generator().manual_seed(0)
        shape = (min(rows(row), row.tokens), row.tokens)
        mixes = [torch.randn(shape, generator=generator).div_(math.sqrt(shape[0])) for _ in range(2)]
        mix_k, mix_v = (mix.to(row.device, getattr(torch, row.dtype)) for mix in mixes)
        del mixes

        def attend(query: Tensor, tokens: Tensor) -> Tensor:
            key = tokens[None]
            return linformer_attention(query[None], key, key, mix_k, mix_v, heads=row.heads)

        return None, attend

    return make


def _performer(features: Callable[[Row], int]) -> Callable[[Row], tuple[None, Attend]]:
    def make(row: Row) -> tuple[None, Attend]:
        from csat_fusion.attention.performer import orthogonal_features, performer_attention

        omega = orthogonal_features(features(row), row.width).to(row.device, getattr(torch, row.dtype))

        def attend(query: Tensor, tokens: Tensor) -> Tensor:
            key = tokens[None]
            return performer_attention(query[None], key, key, omega, heads=row.heads)

        return None, attend

    return make


def _nystrom(landmarks: Callable[[Row], int]) -> Callable[[Row], tuple[None, Attend]]:
    def make(row: Row) -> tuple[None, Attend]:
        from csat_fusion.attention.nystrom import nystrom_attention

        def attend(query: Tensor, tokens: Tensor) -> Tensor:
            key = tokens[None]
            return nystrom_attention(query[None], key, key, landmarks(row), heads=row.heads)

        return None, attend

    return make


def _published(kind: str) -> Callable[[Row], tuple[None, Attend]]:
    def make(row: Row) -> tuple[None, Attend]:
        from csat_fusion.attention.csat import csat_attention
        from csat_fusion.attention.decoder import ContextDecoder
        from csat_fusion.measurements.base import make_measurement

        phis = [make_measurement(kind, _half(row), row.tokens, seed=seed).to(row.device) for seed in (1, 2)]
        decode = ContextDecoder(row.width, learned=False).to(row.device)

        def attend(query: Tensor, tokens: Tensor) -> Tensor:
            key = tokens[None]
            return csat_attention(
                query[None], key, key, (phis[0], phis[1]), reading="published", heads=row.heads, denoiser=decode
            )

        return None, attend

    return make


def _feature(row: Row) -> tuple[None, Attend]:
    from csat_fusion.attention.csat import csat_attention
    from csat_fusion.measurements.base import make_measurement

    phi = make_measurement("hadamard", _features(row), row.width, seed=1).to(row.device)

    def attend(query: Tensor, tokens: Tensor) -> Tensor:
        key = tokens[None]
        return csat_attention(query[None], key, key, phi, reading="feature", heads=row.heads)

    return None, attend


def _half(row: Row) -> int:
    """Rows where keys and values are kept apart: half as many of each in the state of m tokens."""
    return max(1, row.kept // 2)


def _features(row: Row) -> int:
    """r of dh features, for all n tokens in the state of m whole ones."""
    return max(1, row.width // row.ratio)


def _width(row: Row) -> int:
    return row.heads * row.width


def _all_state(row: Row) -> int:
    return row.tokens * _width(row)  # keys are values


def _kept_state(row: Row) -> int:
    return row.kept * (_width(row) + 3)  # keys are values; weight, start and end


METHODS: dict[str, Method] = {
    "eager": Method(_eager, "exact; scores and softmax written out", _all_state),
    "sdpa": Method(_sdpa, "exact; torch's fused kernel", _all_state),
    "linformer": Method(
        _linformer(_half), "m/2 rows for keys and for values", lambda row: 2 * _half(row) * _width(row)
    ),
    "linformer, 256": Method(
        _linformer(lambda row: 256), "256 rows, as its paper has", lambda row: 2 * 256 * _width(row)
    ),
    "performer": Method(
        _performer(lambda row: row.kept), "m random features", lambda row: row.kept * row.heads * (row.width + 1)
    ),
    "performer, 256": Method(
        _performer(lambda row: 256), "256 features, as its paper has", lambda row: 256 * row.heads * (row.width + 1)
    ),
    # Landmarks of queries move with every new query, and all n keys are needed again.
    "nystrom": Method(_nystrom(_half), "m/2 landmarks of queries and of keys; new queries need all keys", _all_state),
    "nystrom, 64": Method(_nystrom(lambda row: 64), "64 landmarks, as its paper has; likewise", _all_state),
    "csat published": Method(
        _published("gaussian"),
        "as printed, two Gaussian Phi of m/2 rows, 8 steps of ISTA",
        lambda row: 2 * _half(row) * _width(row),
    ),
    "csat published, Hadamard": Method(
        _published("hadamard"), "the same with subsampled Hadamard Phi", lambda row: 2 * _half(row) * _width(row)
    ),
    "csat feature": Method(
        _feature, "dh/{ratio} measured features of all n tokens", lambda row: row.tokens * row.heads * _features(row)
    ),
    "csat ward": Method(_merged("ward"), "merged, log weight, exact Ward, frame by frame; the default", _kept_state),
    "csat ward, 256": Method(
        _merged("ward", 256), "the same with m = 256 whatever n", lambda row: min(256, row.tokens) * (_width(row) + 3)
    ),
    "csat ward-batched": Method(
        _merged("ward-batched"), "merged, log weight, Ward in rounds, frame by frame", _kept_state
    ),
}


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(row: Row, signal: Signal) -> dict[str, Any]:
    """Seconds and peak bytes of ``row`` for each of its seeds (fewer where a call is slow): runs in its own process.

    For each seed the call is made twice: once metered for memory, then timed. The first call warms up, at a small n.
    """
    with torch.inference_mode():
        small = Row(**{**row.__dict__, "tokens": min(row.tokens, 4 * row.patches), "queries": min(row.queries, 64)})
        stages = METHODS[row.method].make(small)
        for _ in range(2):
            _call(stages, *_inputs(small, 0), row.device)
        del stages
        result: dict[str, Any] = {
            "asked": len(row.seeds),
            "seconds": [],
            "compress_seconds": [],
            "bytes": [],
            "compress_bytes": [],
        }
        for seed in row.seeds:
            query, tokens = _inputs(row, seed)
            meter = Meter(row.device)
            stages = METHODS[row.method].make(row)  # its weights are made outside the clock, but are memory
            signal()
            compressed, attended, peaks = _call(stages, query, tokens, row.device, meter)
            meter.close()
            result["bytes"].append(max(peaks))
            result["compress_bytes"].append(peaks[0] if stages[0] is not None else 0)
            slow = compressed + attended > row.slow_seconds
            if not (slow and seed == row.seeds[0]):  # a slow first call is long past its warming up: it counts
                signal()
                compressed, attended, _ = _call(stages, query, tokens, row.device)
            result["seconds"].append(compressed + attended)
            result["compress_seconds"].append(compressed)
            del stages, query, tokens
            if slow and (len(result["seconds"]) >= 2 or compressed + attended > 3 * row.slow_seconds):
                break
        return result


def _inputs(row: Row, seed: int) -> tuple[Tensor, Tensor]:
    """Queries ``[q, H dh]`` and the stream ``[n, H dh]`` on the row's device."""
    dtype = getattr(torch, row.dtype)
    tokens = video_stream(-(-row.tokens // row.patches), row.patches, row.heads * row.width, seed)[: row.tokens]
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    query = torch.randn(row.queries, row.heads * row.width, generator=generator)
    return query.to(row.device, dtype), tokens.to(row.device, dtype)


def _call(
    stages: tuple[Compress | None, Attend], query: Tensor, tokens: Tensor, device: str, meter: Meter | None = None
) -> tuple[float, float, list[int]]:
    """Seconds of compressing and of attending, and the peak bytes of each."""
    compress, attend = stages
    peaks = []
    started = _now(device)
    kept = compress(tokens) if compress is not None else tokens
    between = _now(device)
    if meter is not None and compress is not None:
        peaks.append(meter.peak_bytes())
        meter.restart()
    attending = _now(device)
    out = attend(query, kept)
    ended = _now(device)
    if meter is not None:
        peaks.append(meter.peak_bytes())
    if not bool(torch.isfinite(out).all()):
        raise RuntimeError("the attention gave a value that is not finite")
    return (between - started if compress is not None else 0.0), ended - attending, peaks


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
