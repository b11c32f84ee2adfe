"""Cost: time of compression beside that of encoding, and state and time a frame of streams without end.

All on one torch thread, the encoder too, each round measuring everything in turn, so that a machine whose speed drifts
treats all alike.

Shapes: T frames, P patches a frame, d width, m kept tokens.
"""

from __future__ import annotations

import gc
import inspect
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benching.jobs import FAILURES
from benching.methods import DEFAULT, Method, run
from benching.synthetic import synthetic_stream
from benching.tables import Report, deviation, mean, progress, spread
from benching.tokens import Stream
from csat_fusion.compressors.base import Compressor
from csat_fusion.tokens import TokenSet

__all__ = [
    "STATE_NOTE",
    "compression_cost",
    "encoding_rounds",
    "endless_cost",
    "judge_cost",
    "print_state",
    "set_bytes",
    "state_bytes",
]

BUDGET = 128
STATE_NOTE = (
    "All keep m tokens when read, m * d numbers (a token set four more each: weight, span, patch). While the stream "
    "runs, they hold more: ward a float32 table of (m + P)^2 costs, offline methods (causal: no) most often all n "
    "tokens; the cost part has the bytes of each."
)
TARGET = 0.05


def encoding_rounds(model: str, precision: str) -> tuple[str, Callable[[], float]]:
    """What was loaded, and a function that gives seconds a frame of encoding sixteen frames on one thread."""
    from encoders import load_encoder

    encoder = load_encoder(f"openclip:{model}/random", precision=precision, threads=1)
    frames = np.random.default_rng(0).integers(0, 255, (16, 224, 224, 3), dtype=np.uint8)
    encoder.encode(frames, tokens=True)

    def once() -> float:
        began = time.perf_counter()
        encoder.encode(frames, tokens=True)
        return (time.perf_counter() - began) / len(frames)

    return f"{model} {encoder.info.precision}", once


def seconds_a_frame(method: Method, stream: Stream, seed: int) -> float:
    """From the first frame to the result, a frame."""
    query = stream.tokens[len(stream.tokens) // 2, :8]
    compressor = method.make(BUDGET, seed, query)
    gc.collect()
    began = time.perf_counter()
    run(compressor, stream).result()
    return (time.perf_counter() - began) / len(stream.tokens)


def compression_cost(
    methods: Sequence[Method],
    streams: Sequence[Stream],
    encoders: dict[str, Callable[[], float]],
    report: Report,
    title: str,
    note: str,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds a frame of each method and each encoder, one value for each of ``streams`` (a round each)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spent: dict[str, list[float]] = {method.label: [] for method in methods}
    encoding: dict[str, list[float]] = {name: [] for name in encoders}
    failed: set[str] = set()
    try:
        for i, stream in enumerate(streams):
            progress(f"cost: {title}, round {i + 1} of {len(streams)}")
            for name, once in encoders.items():
                encoding[name].append(once())
            for method in methods:
                if method.label in failed:
                    continue
                try:
                    if i == 0:
                        seconds_a_frame(method, stream.part(0, 4), i)  # warm
                    spent[method.label].append(seconds_a_frame(method, stream, i))
                except FAILURES as error:
                    failed.add(method.label)
                    report.unavailable(f"cost of {method.label}", f"{type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads)
    rows = [
        [f"encoding, {name}", "-", spread([1e3 * s for s in values]), *["-"] * len(encoding)]
        for name, values in encoding.items()
    ]
    for method in methods:
        values = spent[method.label]
        if method.label in failed:
            continue
        shares = [f"{mean([v / e for v, e in zip(values, each, strict=True)]):.1%}" for each in encoding.values()]
        label = f"**{method.label}**" if method.label == DEFAULT else method.label
        causal = "yes" if method.make(4, query=torch.ones(1, 8)).causal else "no"
        rows.append([label, causal, spread([1e3 * s for s in values]), *shares])
    header = ["", "causal", "ms a frame", *(f"share of {name}" for name in encoding)]
    report.table(title, header, rows, note, {"encoding": encoding, "compression": spent})
    return spent, encoding


def judge_cost(report: Report, title: str, spent: dict[str, list[float]], encoding: dict[str, list[float]]) -> None:
    """The target, against each of the encodings."""
    values = spent.get(DEFAULT)
    target = f"{title}: the default takes under {TARGET:.0%} of the encoding"
    if not values or not encoding:
        report.verdict(target, None, "no times")
        return
    for name, times in encoding.items():
        shares = [v / e for v, e in zip(values, times, strict=True)]
        wide = f" ± {deviation(shares):.1%}" if len(shares) > 1 else ""
        report.verdict(f"{target} by {name}", mean(shares) < TARGET, f"{mean(shares):.1%}{wide}")


# -- streams without end ----------------------------------------------------------------------------------------------


def state_bytes(compressor: Compressor) -> int:
    """Bytes of all tensors and arrays that the object holds, each storage once, and of Python's own containers,
    numbers and texts."""
    seen: set[int] = set()
    total = 0
    waiting: list[object] = list(_fields(compressor))
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                total += storage.nbytes()
        elif isinstance(value, np.ndarray):
            total += value.nbytes if value.base is None else 0
            if value.base is not None:
                waiting.append(value.base)
        elif isinstance(value, list | tuple | set | frozenset | deque):
            total += sys.getsizeof(value)
            waiting.extend(value)
        elif isinstance(value, dict):
            total += sys.getsizeof(value)
            waiting.extend([*value.keys(), *value.values()])
        elif isinstance(value, int | float | complex | str | bytes | np.generic):
            total += sys.getsizeof(value)
        elif not inspect.isclass(value) and not inspect.isroutine(value):
            waiting.extend(_fields(value))
    return total


def _fields(value: object) -> list[object]:
    """What an object holds, in its dictionary or its slots."""
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name) for name in names if hasattr(value, name))]


def set_bytes(kept: TokenSet) -> int:
    """Bytes of a token set's columns."""
    columns = (kept.tokens, kept.weight, kept.start_seconds, kept.end_seconds, kept.patch)
    return sum(column.numel() * column.element_size() for column in columns)


def print_state(
    methods: Sequence[Method], report: Report, widths: Sequence[int] = (64, 768), frames: int = 128
) -> dict[str, dict[int, tuple[int, int]]]:
    """What each method holds when ``frames`` have been seen, and what is kept when it is read."""
    found: dict[str, dict[int, tuple[int, int]]] = {}
    rows = []
    for method in methods:
        cells: list[str] = []
        try:
            for width in widths:
                stream = synthetic_stream(0, frames=frames, width=width)
                compressor = run(method.make(BUDGET, 0, stream.tokens[0, :8]), stream)
                held = state_bytes(compressor)  # before it is read: some remember what they gave
                kept = set_bytes(compressor.result())
                found.setdefault(method.label, {})[width] = (kept, held)
                cells += [f"{kept / 1e6:.3f}", f"{held / 1e6:.3f}"]
        except FAILURES as error:
            report.unavailable(f"state of {method.label}", f"{type(error).__name__}: {error}")
            continue
        label = f"**{method.label}**" if method.label == DEFAULT else method.label
        rows.append([label, "yes" if compressor.causal else "no", *cells])
    note = (
        f"MB after {frames} frames of 49 tokens, budget {BUDGET}: the tokens with weight, span and patch when read, "
        "and everything the object holds while the stream runs, Python's lists and numbers counted. ward: beside the "
        "tokens a float32 table of (m + P)^2 costs; of methods that look at the whole window (causal: no) most hold "
        "all tokens, more with every frame."
    )
    header = ["method", "causal", *(f"{what}, d = {width}" for width in widths for what in ("read", "streaming"))]
    report.table("State of each method", header, rows, note, found)
    return found


def endless_frames(width: int, seed: int) -> Iterator[Tensor]:
    """Frames ``[49, width]`` without end, new scenes and events all the time."""
    while True:
        yield from synthetic_stream(seed, width=width).tokens
        seed += 1


def endless_cost(
    methods: Sequence[Method], lengths: Sequence[int], report: Report, width: int = 768, last: int = 128
) -> dict[str, dict[int, tuple[int, float]]]:
    """State in bytes, and the median seconds of the ``last`` updates, when so many frames have been seen."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, dict[int, tuple[int, float]]] = {method.label: {} for method in methods}
    try:
        compressors = {method.label: method.make(BUDGET) for method in methods}
        spent: dict[str, list[float]] = {method.label: [] for method in methods}
        for i, tokens in enumerate(endless_frames(width, 1000)):
            for label, compressor in compressors.items():
                began = time.perf_counter()
                compressor.update(tokens, i / 2, (i + 1) / 2)
                spent[label].append(time.perf_counter() - began)
            if i + 1 in lengths:
                for label, compressor in compressors.items():
                    found[label][i + 1] = (state_bytes(compressor), median(spent[label][-last:]))
                progress(f"cost: {i + 1} frames")
            if i + 1 >= max(lengths):
                break
    finally:
        torch.set_num_threads(threads)
    rows = []
    for label, values in found.items():
        rows += [[label, f"{n:,}", f"{size / 1e6:.2f}", f"{1e3 * s:.2f}"] for n, (size, s) in values.items()]
    note = (
        f"Synthetic stream, 49 patches of width {width}, budget {BUDGET} tokens; "
        f"median of the last {last} updates before each length."
    )
    report.table("State and time a new frame", ["method", "frames seen", "state, MB", "ms a frame"], rows, note, found)
    own = found.get(DEFAULT, {})
    sizes, times = [size for size, _ in own.values()], [s for _, s in own.values()]
    target = f"state and time a new frame constant from {min(lengths):,} to {max(lengths):,} frames"
    if sizes:
        ratio, slower = max(sizes) / min(sizes), max(times) / times[0]
        report.verdict(
            target,
            ratio <= 1.05 and slower <= 1.2,
            f"bytes {ratio:.3f} (at most 1.05), time {slower:.2f} (at most 1.2)",
        )
    else:
        report.verdict(target, None, "the default was not measured")
    return found
