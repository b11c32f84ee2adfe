"""The same small CoCa model trained with each cross-attention over the tokens of clips: what is learnt, at what cost.

    python scripts/compare_fusion.py --bank run --out compared      banks of scripts/train_tiny.py's video stage
    python scripts/compare_fusion.py --packs packs --out compared   the same, made by the bundled model as it ships
    python scripts/compare_fusion.py --drawn tiny --out compared    drawn clips, no photographs, seen by any encoder
    python scripts/compare_fusion.py --bank run --out trial --quick one seed, one ratio, few steps: two minutes
    python scripts/compare_fusion.py --bank run --out compared --report --json out.json --plot docs/plots

Exact attention, Linformer, Performer, CSAT as published and CSAT's default form with and without LISTA, at keep ratios
1/4, 1/8 and 1/16, at least three seeds each; and two controls. Every method is tried at every rate; all rows have the
rate at which they lose least on held-out clips, on average. A finished run is a line of results.jsonl in the output
folder, so the same command goes on where a killed one stopped. Costs are measured at the end, when no run shares the
machine.

Tables go to stdout, progress to stderr. The exit code is 1 where something could not be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.comparing.methods import CONTROLS, METHODS, kept, ratios_of

if TYPE_CHECKING:
    from scripts.benching.tables import Report
    from scripts.comparing.report import Row
    from scripts.comparing.runs import Plan, Results, Run

RATES = (1e-3, 2e-3, 4e-3)
LIMIT_SECONDS = 900.0
LIMIT_BYTES = 10 * 10**9
ROUNDS, QUICK_ROUNDS = 15, 3  # of the measurement of times
_CONTEXT = 28  # text tokens; a twentieth of the sentences about photographs are longer, and are cut
_PRELOAD = ("open_clip", "scripts.comparing.runs", "scripts.comparing.cost", "pipeline.evaluation.captions")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    clips = parser.add_mutually_exclusive_group(required=True)
    clips.add_argument("--bank", type=Path, metavar="FOLDER", help="with clips.bank and clips_check.bank")
    clips.add_argument(
        "--packs", type=Path, metavar="FOLDER", help="with flickr8k: make the banks of it (kept in --out)"
    )
    clips.add_argument("--drawn", metavar="MODEL", help="draw the clips, seen by this encoder (kept in --out)")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="results and merged tokens")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"only these of: {', '.join(METHODS)}")
    parser.add_argument("--ratios", nargs="+", type=_ratio, metavar="1/R", help="keep ratios (1/4 1/8 1/16)")
    parser.add_argument("--seeds", type=_positive, help="of each row (3; 1 with --quick)")
    parser.add_argument("--steps", type=_positive, help="training steps of each run (300; 20 with --quick)")
    parser.add_argument("--batch", type=_positive, default=32, help="clips in a step (%(default)s)")
    parser.add_argument(
        "--rates", nargs="+", type=_rate, metavar="X", help=f"to search among ({' '.join(f'{r:g}' for r in RATES)})"
    )
    parser.add_argument(
        "--clips", type=_positive, metavar="N", help="learn from so many at most (all; 500 with --quick)"
    )
    parser.add_argument(
        "--judged", type=_positive, metavar="N", help="judge by so many at most (all; 100 with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="see above")
    parser.add_argument("--jobs", type=_positive, default=_cores(), help="runs side by side (%(default)s)")
    parser.add_argument("--threads", type=_positive, default=1, help="torch threads of a run (%(default)s)")
    parser.add_argument("--float32", action="store_true", help="train in float32 instead of under bfloat16 autocast")
    parser.add_argument("--report", action="store_true", help="run nothing: print what --out holds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write plots there (needs matplotlib)")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the tables between the marks of a document")
    options = parser.parse_args(arguments)
    for name in options.methods or ():
        if name not in METHODS:
            parser.error(f"--methods {name!r}: must be of {', '.join(repr(n) for n in METHODS)}")
    quick = options.quick
    options.methods = options.methods or [name for name, method in METHODS.items() if method.usual]
    options.ratios = tuple(sorted(set(options.ratios or ([8] if quick else [4, 8, 16]))))
    options.seeds = options.seeds or (1 if quick else 3)
    options.steps = options.steps or (20 if quick else 300)
    options.rates = tuple(sorted(set(options.rates or ([RATES[1]] if quick else RATES))))
    options.clips = options.clips or (500 if quick else None)
    options.judged = options.judged or (100 if quick else None)
    return options


@dataclass
class Comparison:
    """All runs of one command."""

    options: argparse.Namespace
    plan: Plan
    bank: dict[str, Any]
    results: Results
    report: Report

    def run_of(self, method: str, ratio: int, seed: int, rate: float) -> Run:
        from scripts.comparing.runs import Run

        folder = self.options.bank or self.options.out
        return Run(method, ratio, seed, rate, self.plan, folder.resolve(), self.options.out.resolve())

    def do(self) -> None:
        """Search, train, measure; what is done already is not done again."""
        self.merge()
        self.train([self.run_of(*key) for key in self.searched()])
        self.train([self.run_of(*key) for key in self.wanted()])
        self.measure()

    def searched(self) -> list[tuple[str, int, int, float]]:
        """Method, ratio, seed and rate of the runs that a rate is chosen by."""
        middle = {name: ratios_of(name, self.options.ratios) for name in self.options.methods}
        return [
            (name, ratios[len(ratios) // 2], 0, rate) for name, ratios in middle.items() for rate in self.options.rates
        ]

    def search(self) -> dict[str, dict[float, dict[str, Any]]]:
        """The outcome of each method at each rate that was tried."""
        found: dict[str, dict[float, dict[str, Any]]] = {name: {} for name in self.options.methods}
        for key in self.searched():
            if (outcome := self.results.get("run", list(key))) is not None:
                found[key[0]][key[3]] = outcome
        return found

    def rate(self) -> float | None:
        """The rate of all rows; controls have no say, nor methods that were not tried at every rate."""
        from scripts.comparing.verdicts import common_rate

        search = self.search()
        voters = [name for name in search if name not in CONTROLS] or list(search)
        losses = {name: {rate: one.get("held_out") for rate, one in search[name].items()} for name in voters}
        return common_rate(losses, self.options.rates)

    def wanted(self) -> list[tuple[str, int, int, float]]:
        """The runs of the tables, seed by seed; none before the rate is known."""
        rate = self.rate()
        if rate is None:
            return []
        return [
            (name, ratio, seed, rate)
            for seed in range(self.options.seeds)
            for name in self.options.methods
            for ratio in ratios_of(name, self.options.ratios)
        ]

    def merge(self) -> None:
        from scripts.benching.tables import progress
        from scripts.comparing.data import PARTS, merge_bank, merged_path, read_bank, take

        if not any(METHODS[name].reads == "merged" for name in self.options.methods):
            return
        folder, out = self.options.bank or self.options.out, self.options.out
        counts = {"learn": self.plan.learn + self.plan.choose, "judge": self.plan.judge}
        for part, name in PARTS.items():
            bank = take(read_bank(folder / name), 0, counts[part])
            for ratio in self.options.ratios:
                rows = kept(bank.tokens.shape[1], ratio)
                merge_bank(merged_path(out, part, rows), bank, rows, progress)

    def train(self, runs: list[Run]) -> None:
        """Those that are not done, some side by side."""
        from scripts.benching.processes import run_apart
        from scripts.benching.tables import progress, versions_line
        from scripts.comparing.runs import train

        left = [run for run in runs if self.results.get("run", list(run.key)) is None]
        if not left:
            return
        self.results.add("session", [], {"versions": versions_line(jobs=self.options.jobs)})
        limits: dict[str, Any] = {"limit_seconds": LIMIT_SECONDS, "limit_bytes": LIMIT_BYTES, "preload": _PRELOAD}

        lanes = ThreadPoolExecutor(self.options.jobs)
        try:
            under_way = {
                lanes.submit(run_apart, train, run, threads=self.options.threads, **limits): run for run in left
            }
            for done, future in enumerate(as_completed(under_way), 1):
                run, outcome = under_way[future], future.result()
                name = _named(run)
                if outcome.kind == "ok":
                    self.results.add("run", list(run.key), outcome.value)
                    said = outcome.value.get("failed") or (
                        f"R@1 {outcome.value['t2c_r1']:.1f}, CIDEr {outcome.value['cider']:.1f}, "
                        f"held out {outcome.value['held_out']:.3f}, {outcome.value['seconds']:.0f} s"
                    )
                else:
                    said = f"{outcome.kind}: {outcome.detail}"
                    self.report.unavailable(name, said)
                progress(f"{done} of {len(left)}: {name}: {said}")
        finally:  # after Ctrl-C, those not begun are not begun
            lanes.shutdown(cancel_futures=True)

    def measure(self) -> None:
        """Times of all rows in one process, then the memory of each in its own; alone on the machine."""
        from scripts.benching.processes import run_apart
        from scripts.benching.tables import progress
        from scripts.comparing.cost import Costs, peak_of, times_of

        keys = [key for key in self.wanted() if key[2] == 0]
        limits: dict[str, Any] = {"threads": self.options.threads, "limit_seconds": LIMIT_SECONDS}
        limits |= {"limit_bytes": LIMIT_BYTES, "preload": _PRELOAD}
        names = [[method, ratio] for method, ratio, *_ in keys]
        if keys and self.results.get("times", names) is None:
            costs = Costs(tuple(self.run_of(*key) for key in keys), QUICK_ROUNDS if self.options.quick else ROUNDS)
            outcome = run_apart(times_of, costs, **limits)
            if outcome.kind == "ok":
                self.results.add("times", names, {"rows": outcome.value})
            else:
                self.report.unavailable("times", f"{outcome.kind}: {outcome.detail}")
            progress(f"times: {outcome.kind}")
        for key in keys:
            if self.results.get("peak", list(key[:2])) is None:
                outcome = run_apart(peak_of, self.run_of(*key), **limits)
                if outcome.kind == "ok":
                    self.results.add("peak", list(key[:2]), outcome.value)
                else:
                    self.report.unavailable(f"memory of {key[0]} at 1/{key[1]}", f"{outcome.kind}: {outcome.detail}")

    def rows(self) -> list[Row]:
        """What is known, a row for each method and ratio; what is missing is told to the report."""
        from scripts.comparing.report import Row

        keys = self.wanted()
        names = [[method, ratio] for method, ratio, seed, _ in keys if seed == 0]
        times = (self.results.get("times", names) or {"rows": [{} for _ in names]})["rows"]
        found: dict[tuple[str, int], Row] = {}
        for method, ratio, seed, rate in keys:
            if seed == 0:
                cost = dict(times[names.index([method, ratio])]) | (self.results.get("peak", [method, ratio]) or {})
                found[method, ratio] = Row(method, ratio, rate, {}, cost)
                if not {"step_seconds", "peak_bytes"} <= cost.keys():
                    self.report.unavailable(f"cost of {method} at 1/{ratio}", "not measured yet")
            outcome = self.results.get("run", [method, ratio, seed, rate])
            name = _named(self.run_of(method, ratio, seed, rate))
            if outcome is None:
                self.report.unavailable(name, "not run yet")
            elif "failed" in outcome:
                self.report.unavailable(name, outcome["failed"])
            else:
                found[method, ratio].outcomes[seed] = outcome
        if not keys:
            self.report.unavailable("all rows", "no rate is known at which a method learns")
        order = list(METHODS)
        return sorted(found.values(), key=lambda row: (order.index(row.method), row.ratio))

    def tell(self) -> None:
        from scripts.comparing.report import tell

        sessions = [line["value"]["versions"] for line in self.results.lines if line["kind"] == "session"]
        for versions in dict.fromkeys(sessions):
            self.report.remark(f"Trained with: {versions}.")
        tell(self.report, self.plan, self.bank, self.rows(), self.search(), self.rate(), self.options.plot)


def opened(options: argparse.Namespace) -> tuple[Plan, dict[str, Any]]:
    """The plan for the clips there are, and what is said of them.

    Raises:
        InputError: banks that are not there, do not belong together, or are too small.
    """
    from pipeline.errors import InputError
    from scripts.comparing.data import PARTS, bank_mark, read_bank
    from scripts.comparing.model import tokenizer
    from scripts.comparing.runs import Plan

    folder = options.bank or options.out
    learn, judge = (read_bank(folder / name) for name in PARTS.values())
    if learn.tokens.shape[1:] != judge.tokens.shape[1:]:
        raise InputError(
            f"{folder}: clips.bank has {list(learn.tokens.shape[1:])} tokens a clip, clips_check.bank "
            f"{list(judge.tokens.shape[1:])}"
        )
    choose = min(400, len(learn) // 5, (options.clips or len(learn)) // 2)
    most = len(learn) - choose
    if choose < 2 or most < 2 or len(judge) < 2:
        raise InputError(f"{folder}: {len(learn)} and {len(judge)} clips; at least 10 and 2 are needed, and --clips 4")
    judged = min(len(judge), options.judged or len(judge))
    own = [text for texts in judge.sentences[:judged] for text in texts]
    ids = tokenizer(_CONTEXT)([text for texts in (*learn.sentences, *judge.sentences) for text in texts])
    tokens = learn.tokens.shape[1]
    bank = {
        "learn": bank_mark(learn),
        "judge": bank_mark(judge),
        "tokens": tokens,
        "frames": learn.embedding.shape[1],
        "width": learn.tokens.shape[2],
        "eyes": options.drawn or "the bundled model's image tower",
        "sentences": len(set(own)),
        "foils": sum(foil is not None for foil in judge.foils[:judged]),
    }
    plan = Plan(
        steps=options.steps,
        batch=options.batch,
        learn=min(most, options.clips or most),
        choose=choose,
        judge=judged,
        context=int((ids > 0).sum(1).max()),
        half=not options.float32,
    )
    return plan, bank


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for the processes of the runs
    from csat_fusion.errors import LongreelError
    from scripts.benching.tables import Report, progress, require_matplotlib
    from scripts.comparing.report import put_between_marks
    from scripts.comparing.runs import Results

    if options.plot is not None:
        require_matplotlib()
    try:
        _need_scorer()
        options.out.mkdir(parents=True, exist_ok=True)
        if not options.bank and not options.report:
            from scripts.comparing.data import drawn_banks, photographed_banks

            counts, frames, seed = (700, 150) if options.quick else (6000, 400), 8, 0
            if options.drawn:
                drawn_banks(options.out, options.drawn, counts, frames, seed, progress)
            else:
                photographed_banks(options.out, options.packs, counts, frames, seed, progress)
        plan, bank = opened(options)
        results = Results(options.out / "results.jsonl", plan, bank)
        said = io.StringIO()
        with contextlib.redirect_stdout(_Both(sys.stdout, said)):
            report = Report("Learning with each cross-attention", seeds=",".join(map(str, range(options.seeds))))
            comparison = Comparison(options, plan, bank, results, report)
            if not options.report:
                comparison.do()
            comparison.tell()
            code = report.end(options.json)
        if options.into is not None:
            put_between_marks(options.into, said.getvalue())
    except (LongreelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with what is not done", file=sys.stderr)
        return 130
    return code


class _Both(io.TextIOBase):
    """Writes to two places."""

    def __init__(self, *places: TextIO) -> None:
        self._places = places

    def write(self, text: str) -> int:
        for place in self._places:
            place.write(text)
        return len(text)

    def flush(self) -> None:
        for place in self._places:
            place.flush()


def _need_scorer() -> None:
    """Stop before anything is trained where the captions could not be scored."""
    from pipeline.evaluation.captions import caption_scores

    caption_scores(["a dog"], [["a dog"]])


def _named(run: Run) -> str:
    return f"{run.method}{f' at 1/{run.ratio}' if run.ratio > 1 else ''}, seed {run.seed}, rate {run.rate:g}"


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def _ratio(text: str) -> int:
    first, _, last = text.rpartition("/")
    if first not in ("", "1") or not last.isdigit() or int(last) < 2:
        raise argparse.ArgumentTypeError(f"must be a share such as 1/8, got {text!r}")
    return int(last)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
