"""Fit CSAT to your own videos, without labels: learn a measurement and a sparse decoder from their tokens.

Exact attention over the tokens of the videos is the teacher, compressed attention the student. The report is on the
last fifth of the windows, which are not learnt from but by which the best state is chosen (a validation error); 1.00 is
the error of replacing a window by its mean token. The checkpoint is one safetensors file:

    from csat_fusion import load_fitted
    attend = load_fitted("fit.safetensors")          # attend(query, key, value) over tokens as they come
    layer = attend.cross_attention(embed_dim=768, num_heads=12)  # a layer that starts from it, to be trained on

Examples:

    python scripts/fit_csat.py footage/*.mp4 --model openclip:ViT-B-32/laion2b_s34b_b79k --rows 64 --out fit.safetensors
    python scripts/fit_csat.py clip.mp4 --reading merged --rows 1/16 --heads 12 --out lista.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files, or addresses that longreel submit takes")
    parser.add_argument("--out", required=True, metavar="FILE", help="the checkpoint to write (.safetensors)")
    parser.add_argument(
        "--model", default="openclip:ViT-B-32/laion2b_s34b_b79k", help="whose patch tokens (%(default)s)"
    )
    parser.add_argument("--reading", default="published", choices=("published", "merged", "feature"))
    parser.add_argument("--rows", default="1/16", help="m, a number or a share of a window's tokens (%(default)s)")
    parser.add_argument("--averaging", action="store_true", help="rows of the measurement are weighted means")
    parser.add_argument("--no-denoiser", action="store_true", help="learn no LISTA, the measurement alone")
    parser.add_argument("--lista-steps", type=int, default=4, metavar="N")
    parser.add_argument("--heads", type=int, default=12, metavar="H", help="heads that attend apart (%(default)s)")
    parser.add_argument("--fps", type=float, default=2.0, help="frames a second to take (%(default)s)")
    parser.add_argument("--window", type=float, default=8.0, metavar="SECONDS", help="length of a window (%(default)s)")
    parser.add_argument("--most-windows", type=int, default=512, metavar="N", help="windows to use (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="optimiser steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(arguments)


def read_windows(options: argparse.Namespace) -> list[object]:
    """Windows ``[n, d]`` of patch tokens, as many frames in each, none across two videos."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from encoders import load_encoder
    from pipeline.sampling import Sampler, SamplingOptions
    from pipeline.sources import open_source

    encoder = load_encoder(options.model, device=options.device)
    length = max(2, round(options.window * options.fps))
    found: list[object] = []
    bar = tqdm(desc="frames", unit="frame", disable=options.quiet)
    for video in options.videos:
        sampler = Sampler(SamplingOptions(fps=options.fps))
        pictures: list[np.ndarray] = []
        with open_source(video) as source:
            for frame in source.frames():
                if not sampler.wants(frame):
                    continue
                pictures.append(frame.image)
                bar.update()
                if len(pictures) == length:
                    tokens = encoder.encode(np.stack(pictures), tokens=True).tokens
                    assert tokens is not None
                    found.append(torch.as_tensor(tokens).float().cpu().flatten(0, 1))
                    pictures.clear()
                    if len(found) == options.most_windows:
                        bar.close()
                        return found
    bar.close()
    return found


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    from csat_fusion.compressors.budget import Ratio, parse_budget
    from csat_fusion.errors import CompressionError, LongreelError

    try:
        out = Path(options.out)
        if not out.parent.is_dir():
            raise CompressionError(f"--out {out}: there is no folder {out.parent}")
        for name, value in (("steps", options.steps), ("lista-steps", options.lista_steps), ("heads", options.heads)):
            if value < 1:
                raise CompressionError(f"--{name} must be at least 1, got {value}")
        if not options.fps > 0 or not options.window > 0 or options.most_windows < 2:
            raise CompressionError("--fps and --window must be above 0, --most-windows at least 2")
        missing = [video for video in options.videos if "://" not in video and not Path(video).is_file()]
        if missing:
            raise CompressionError(f"there is no file {missing[0]}")
        budget = parse_budget(options.rows)
        if not isinstance(budget, int | Ratio):
            raise CompressionError(f"--rows must be a number or a share, got {options.rows!r}")
        windows = read_windows(options)
        if len(windows) < 2:
            raise CompressionError(
                f"{len(windows)} windows of {options.window:g} s at {options.fps:g} frames a second; at least 2 are "
                f"needed: give more video, or a shorter --window"
            )
        return run(options, windows, budget)
    except LongreelError as error:
        print(f"fit_csat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fit_csat: stopped before there was anything to keep", file=sys.stderr)
        return 130


def run(options: argparse.Namespace, windows: list[object], budget: object) -> int:
    import math

    import torch
    from tqdm import tqdm

    from csat_fusion.compressors.budget import Ratio
    from csat_fusion.fitting import fit

    tokens, width = windows[0].shape  # type: ignore[attr-defined]
    over = width // options.heads if options.reading == "feature" else tokens
    rows = budget.limit(over) if isinstance(budget, Ratio) else budget
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    bar = tqdm(total=options.steps, desc="fitting", unit="step", disable=options.quiet)
    best = math.inf
    stopped = False

    def progress(step: int, loss: float, error: float) -> bool:
        nonlocal best
        if error < best:
            best = error
            bar.set_postfix(validation=f"{best:.3f}")
        bar.update()
        return stopped

    import signal

    def stop(*_: object) -> None:  # the best so far is kept
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGINT, stop)
    given = [window.to(device) for window in windows]  # type: ignore[attr-defined]
    try:
        fitted = fit(
            given,
            rows=rows,
            reading=options.reading,
            heads=options.heads,
            averaging=options.averaging,
            denoiser=not options.no_denoiser,
            lista_steps=options.lista_steps,
            steps=options.steps,
            seed=options.seed,
            progress=progress,
        )
    finally:
        signal.signal(signal.SIGINT, before)
        bar.close()
    fitted.save(options.out)
    held = max(1, round(0.2 * len(windows)))
    kind = "measurement and LISTA" if fitted.key_measurement is not None and fitted.denoiser is not None else "LISTA"
    if fitted.denoiser is None:
        kind = "measurement"
    print(f"{options.reading}: {rows} of {over}, {options.heads} heads, {len(windows)} windows, {held} held out")
    print()
    print("| validation error of the context | |")
    print("|---|---|")
    print("| the window's mean token | 1.000 |")
    print(f"| untrained | {fitted.error_before:.3f} |")
    if options.reading == "published":  # what needs no training, at the same number of tokens
        merged = fit(given, rows=rows, reading="merged", heads=options.heads, steps=1, seed=options.seed)
        print(f"| merged, untrained | {merged.error_before:.3f} |")
    print(f"| {kind} learnt, step {fitted.step} | {fitted.error_after:.3f} |")
    print()
    if stopped:
        print("stopped early; the best so far is kept")
    if fitted.step == 0:
        print("nothing that was learnt beat the untrained state, which is what the file holds")
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
