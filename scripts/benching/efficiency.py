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

from benching.efficiency_state import (
    Row,
    State,
    all_tokens,
    batched_ward,
    features_of,
    half,
    measured_features,
    mixed,
    random_features,
    ward,
)
from benching.processes import Meter, Signal

__all__ = ["METHODS", "Method", "Row", "attention_error", "measure", "video_stream"]

FRAMES_PER_SECOND = 2.0
GAP_SECONDS = 1.0


# A stage takes what the one before gave; a method is up to two of them: compress the stream, attend to what is left.
Compress = Callable[[Tensor], Any]
Attend = Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Method:
    """How to make a method's two stages for a row (``compress`` may be None), and what to say of it."""

    make: Callable[[Row], tuple[Compress | None, Attend]]
    note: str
    #: bytes that stand for the n tokens, for all heads together
    state: State


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


def _written_down(row: Row, seed: int) -> Any:
    """Gaussian Phi as a matrix. Drawn by torch: by the hash 2^28 entries, two of n = 65,536, take over a minute."""
    from csat_fusion.measurements.learned import MatrixMeasurement

    generator = torch.Generator().manual_seed(seed)
    return MatrixMeasurement(torch.randn(half(row), row.tokens, generator=generator).div_(math.sqrt(half(row))))


def _by_name(kind: str) -> Callable[[Row, int], Any]:
    def make(row: Row, seed: int) -> Any:
        from csat_fusion.measurements.base import make_measurement

        return make_measurement(kind, half(row), row.tokens, seed=seed)

    return make


def _published(phi: Callable[[Row, int], Any]) -> Callable[[Row], tuple[None, Attend]]:
    def make(row: Row) -> tuple[None, Attend]:
        from csat_fusion.attention.csat import csat_attention
        from csat_fusion.attention.decoder import ContextDecoder

        phis = [phi(row, seed).to(row.device) for seed in (1, 2)]
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

    phi = make_measurement("hadamard", features_of(row), row.width, seed=1).to(row.device)

    def attend(query: Tensor, tokens: Tensor) -> Tensor:
        key = tokens[None]
        return csat_attention(query[None], key, key, phi, reading="feature", heads=row.heads)

    return None, attend


METHODS: dict[str, Method] = {
    "eager": Method(_eager, "exact; scores and softmax written out", all_tokens),
    "sdpa": Method(_sdpa, "exact; torch's fused kernel", all_tokens),
    "linformer": Method(_linformer(half), "m/2 rows for keys and for values", mixed(half, lambda row: row.size)),
    "linformer, 256": Method(
        _linformer(lambda row: 256), "256 rows, a usual setting", mixed(lambda row: 256, lambda row: row.size)
    ),
    "performer": Method(_performer(lambda row: row.kept), "m random features", random_features(lambda row: row.kept)),
    "performer, 256": Method(
        _performer(lambda row: 256), "256 features, a usual setting", random_features(lambda row: 256)
    ),
    # Landmarks of queries move with every new query, and all n keys are needed again.
    "nystrom": Method(_nystrom(half), "m/2 landmarks of queries and of keys; new queries need all keys", all_tokens),
    "nystrom, 64": Method(_nystrom(lambda row: 64), "64 landmarks, a usual setting; likewise", all_tokens),
    "csat published": Method(
        _published(_written_down),
        "as printed, two Gaussian Phi of m/2 rows, 8 steps of ISTA; Phi is written down (float32) before the clock",
        mixed(half, lambda row: 4),
    ),
    "csat published, Phi from a hash, not kept": Method(
        _published(_by_name("gaussian")),
        "the same, with every entry of Phi made again when it is needed",
        mixed(half, lambda row: 0),
    ),
    "csat published, Hadamard": Method(
        _published(_by_name("hadamard")), "the same with subsampled Hadamard Phi", mixed(half, lambda row: 0)
    ),
    "csat feature": Method(_feature, "dh/{ratio} measured features of all n tokens", measured_features),
    "csat ward": Method(
        _merged("ward"), "merged, log weight, exact Ward, frame by frame; the default", ward(lambda row: row.kept)
    ),
    "csat ward, 256": Method(
        _merged("ward", 256), "the same with m = 256 whatever n", ward(lambda row: min(256, row.tokens))
    ),
    "csat ward-batched": Method(
        _merged("ward-batched"), "merged, log weight, Ward in rounds, frame by frame", batched_ward
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
            "error": [],
            "effective_tokens": [],
        }
        for seed in row.seeds:
            query, tokens = _inputs(row, seed)
            meter = Meter(row.device)
            stages = METHODS[row.method].make(row)  # its weights are made outside the clock, but are memory
            meter.restart()  # what making them took for a while is not
            signal()
            compressed, attended, peaks, out = _call(stages, query, tokens, row.device, meter)
            meter.close()
            error, effective = attention_error(row, query, tokens, out, seed)
            result["error"].append(error)
            result["effective_tokens"].append(effective)
            del out
            result["bytes"].append(max(peaks))
            result["compress_bytes"].append(peaks[0] if stages[0] is not None else 0)
            slow = compressed + attended > row.slow_seconds
            if not (slow and seed == row.seeds[0]):  # a slow first call is long past its warming up: it counts
                signal()
                compressed, attended, _, _ = _call(stages, query, tokens, row.device)
            result["seconds"].append(compressed + attended)
            result["compress_seconds"].append(compressed)
            del stages, query, tokens
            if slow and (len(result["seconds"]) >= 2 or compressed + attended > 3 * row.slow_seconds):
                break
        return result


def _inputs(row: Row, seed: int) -> tuple[Tensor, Tensor]:
    """Queries ``[q, H dh]`` and the stream ``[n, H dh]`` on the row's device.

    A query is a token with noise of half its size: with q = n each token asks, as in self-attention; otherwise q tokens
    drawn at random, in the order of time.
    """
    dtype = getattr(torch, row.dtype)
    tokens = video_stream(-(-row.tokens // row.patches), row.patches, row.heads * row.width, seed)[: row.tokens]
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    places = torch.arange(row.tokens)
    if row.queries != row.tokens:
        places = torch.randint(row.tokens, (row.queries,), generator=generator).sort().values
    query = torch.randn(row.queries, row.heads * row.width, generator=generator).mul_(0.5).add_(tokens[places])
    return query.to(row.device, dtype), tokens.to(row.device, dtype)


def attention_error(row: Row, query: Tensor, tokens: Tensor, out: Tensor, seed: int) -> tuple[float, float]:
    """Of 64 of the queries: the distance to exact attention, and how many tokens (exp of the entropy) that attends to.

    Root mean square, as a share of what the mean of all tokens is off; float32 whatever the row's type.
    """
    if out.ndim == 4:  # [1, H, q, dh]
        out = out.transpose(1, 2).reshape(1, row.queries, -1)
    generator = torch.Generator().manual_seed(seed + 2_000_003)
    chosen = torch.randperm(row.queries, generator=generator)[:64].to(query.device)
    key = _split(tokens.float(), row.heads)
    logs = ((_split(query[chosen].float(), row.heads) / math.sqrt(row.width)) @ key.mT).log_softmax(dim=-1)
    share = logs.exp()
    exact = (share @ key).transpose(1, 2).reshape(len(chosen), -1)
    off = (out[0, chosen].float() - exact).square().sum()
    base = (tokens.float().mean(dim=0) - exact).square().sum()
    return float((off / base.clamp_min(1e-30)).sqrt()), float((-(share * logs).sum(dim=-1)).exp().mean())


def _call(
    stages: tuple[Compress | None, Attend], query: Tensor, tokens: Tensor, device: str, meter: Meter | None = None
) -> tuple[float, float, list[int], Tensor]:
    """Seconds of compressing and of attending, the peak bytes of each, and the attention output."""
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
    return (between - started if compress is not None else 0.0), ended - attending, peaks, out


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
