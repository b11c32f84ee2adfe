"""Attention over video tokens: what each form costs, and what a model trained with it learns.

    python scripts/bench_attention.py --quick            both parts, reduced, under five minutes on two cores
    python scripts/bench_attention.py                    both parts in full: about an hour on two cores
    python scripts/bench_attention.py --part efficiency  time and peak memory from 512 to 65,536 tokens
    python scripts/bench_attention.py --part learning    the same small transformer trained with each attention
    python scripts/bench_attention.py --part efficiency --device cuda --dtype bfloat16
    python scripts/bench_attention.py --json out.json --plot docs/plots
    python scripts/bench_attention.py --from-json out.json    the learning tables and verdicts again, from their numbers

Efficiency: q queries attend to a stream of n tokens (8 heads of 64), with q = n, as papers have it, and with q = 64, as
a captioner has it. Each row runs in a process of its own; its memory is the peak above what was in use once its inputs
were there. Compression is counted in the time of the forms that compress, and shown apart. Beside the time stands how
far the output is from exact attention. A row that does not fit the limits of time or memory is printed as such.

Learning: a memory of video-like tokens holds planted events; a decoder must say which, in order. Every attention gets
the same model, steps, data and seeds, and a learning rate tuned for exact attention alone.

Tables go to stdout, progress to stderr. The exit code is 1 where something could not be measured.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

SIZES = [512 * 2**i for i in range(8)]
PARTS = ("efficiency", "learning")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # Before torch is loaded, and for the processes of the rows.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    from benching import efficiency_report, learning_report
    from benching.tables import Report, require_matplotlib

    _make_folders(options)
    if options.plot is not None:
        require_matplotlib()
    efficiency_report.check(options)
    learning_report.check(options)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch finds no CUDA device here", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    if options.from_json is not None:
        return learning_report.again(options, parse)
    report = Report("Attention over video tokens", seeds=",".join(map(str, range(options.seeds))))
    if options.part in (None, "efficiency"):
        efficiency_report.run(report, options)
    if options.part in (None, "learning"):
        learning_report.run(report, options)
    return report.end(options.json)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    text = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=text[0], epilog=text[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, help="one part only (both)")
    parser.add_argument("--quick", action="store_true", help="fewer sizes, seeds and steps: under five minutes")
    parser.add_argument("--seeds", type=_positive, default=None, help="seeds of each row (5; 3 with --quick)")
    parser.add_argument("--threads", type=_positive, default=_cores(), help="torch threads (one a core: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write plots there (needs matplotlib)")
    group = parser.add_argument_group("efficiency")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    group.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    group.add_argument("--tokens", type=_positive, nargs="+", metavar="N", help="sizes n (512 doubling to 65,536)")
    group.add_argument(
        "--queries", type=_queries, nargs="+", default=["n", "64"], metavar="Q", help="'n' or a number (n 64)"
    )
    group.add_argument("--ratio", type=_positive, default=16, help="merging keeps n / RATIO tokens (%(default)s)")
    group.add_argument("--limit-seconds", type=_above_zero, help="for one call (120; 20 with --quick)")
    group.add_argument(
        "--limit-gb", type=_above_zero, help="for the process of a row (80%% of the memory that is free)"
    )
    group.add_argument("--methods", nargs="+", metavar="NAME", help="only these rows")
    group = parser.add_argument_group("learning")
    group.add_argument("--steps", type=_positive, help="training steps of each run")
    group.add_argument("--learners", nargs="+", metavar="NAME", help="only these attentions")
    group.add_argument(
        "--from-json", type=Path, metavar="FILE", help="train nothing: print that part again from what --json wrote"
    )
    options = parser.parse_args(arguments)
    if options.from_json is not None and options.part == "efficiency":
        parser.error("--from-json prints the learning part: it does not go with --part efficiency")
    options.seeds = options.seeds or (3 if options.quick else 5)
    options.tokens = sorted(options.tokens or ([512, 4096, 8192] if options.quick else SIZES))
    options.limit_seconds = options.limit_seconds or (20.0 if options.quick else 120.0)
    return options


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def _queries(text: str) -> str:
    if text == "n":
        return text
    try:
        return str(_positive(text))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be 'n' or a whole number of at least 1, got {text!r}") from None


def _make_folders(options: argparse.Namespace) -> None:
    """Make the folders of --json and --plot before anything is measured; a message where that cannot be."""
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        if path is None:
            continue
        folder = path.parent if option == "--json" else path
        if option == "--json" and path.is_dir():
            raise SystemExit(f"--json {path}: is a folder, must be a file")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SystemExit(
                f"{option} {path}: the folder {folder} is not there and cannot be made: {error.strerror}"
            ) from error
        if not os.access(folder, os.W_OK):
            raise SystemExit(f"{option} {path}: the folder {folder} cannot be written to")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
