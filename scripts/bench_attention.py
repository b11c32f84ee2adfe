"""Attention over video tokens: what each form costs, and what a model trained with it learns.

    python scripts/bench_attention.py --quick            both parts, reduced, under five minutes on two cores
    python scripts/bench_attention.py                    both parts in full: about an hour on two cores
    python scripts/bench_attention.py --part efficiency  time and peak memory from 512 to 65,536 tokens
    python scripts/bench_attention.py --part learning    the same small transformer trained with each attention
    python scripts/bench_attention.py --part efficiency --device cuda --dtype bfloat16
    python scripts/bench_attention.py --json out.json --plot docs/plots

Efficiency: q queries attend to a stream of n tokens (8 heads of 64), with q = n, as papers have it, and with q = 64, as
a captioner has it. Each row runs in a process of its own; its memory is the peak above what was in use once its inputs
were there. Compression is counted in the time of the forms that compress, and shown apart. A row that does not fit
the limits of time or memory is printed as such.

Learning: a memory of video-like tokens holds planted events; a decoder must say which, in order. Every attention gets
the same model, steps, data and seeds, and a learning rate tuned for exact attention.

Tables go to stdout, progress to stderr. The exit code is 1 where something could not be measured.
"""

from __future__ import annotations

import argparse
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

    if options.plot is not None:
        require_matplotlib()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch finds no CUDA device here", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
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
    group.add_argument("--queries", nargs="+", default=["n", "64"], metavar="Q", help="'n' or a number (n 64)")
    group.add_argument("--ratio", type=_positive, default=16, help="merging keeps n / RATIO tokens (%(default)s)")
    group.add_argument("--limit-seconds", type=float, help="for one call (120; 20 with --quick)")
    group.add_argument("--limit-gb", type=float, help="for the process of a row (80%% of the memory that is free)")
    group.add_argument("--methods", nargs="+", metavar="NAME", help="only these rows")
    group = parser.add_argument_group("learning")
    group.add_argument("--steps", type=_positive, help="training steps of each run")
    group.add_argument("--learners", nargs="+", metavar="NAME", help="only these attentions")
    options = parser.parse_args(arguments)
    for queries in options.queries:
        if queries != "n" and not (queries.isdigit() and int(queries)):
            parser.error(f"--queries {queries}: must be 'n' or a number of at least 1")
    options.seeds = options.seeds or (3 if options.quick else 5)
    options.tokens = sorted(options.tokens or ([512, 4096, 8192] if options.quick else SIZES))
    options.limit_seconds = options.limit_seconds or (20.0 if options.quick else 120.0)
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
