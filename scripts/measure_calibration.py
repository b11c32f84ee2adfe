"""Measure what percentiles are worth on a library whose moments are known.

Each query of the truth is asked twice: of the whole library (its answer is there), and of the library without its video
(no answer is there; videos that show the same must not be in the library). How often is the best answer confident, and
how well do several readings of the same scores tell the two apart? They are Longreel's percentile
(pipeline/calibration.py), and percentiles of the best raw cosine, of the best cosine above the query's median, and of
the same divided by the spread of the query's scores.

Example:

    python scripts/measure_calibration.py --store longreel-store --truth moments.jsonl --out calibration.json
    python scripts/measure_calibration.py --store longreel-store --truth moments.jsonl --page docs/evaluation.md

Printed are tables in Markdown; --page puts them into a page, between its two comments "calibration" and "end of
calibration". The file of --out holds the same figures, with what was measured of which library. All vectors of the
library are its sample here.

Shapes: V vectors of the library, Q queries, B queries of the background, D width.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.background_queries import background_queries, bank_version
from pipeline.calibration import calibrate_words
from pipeline.evaluation.library import match_videos
from pipeline.evaluation.moments import TruthMoment, read_truth
from pipeline.index_kinds import unit_rows
from pipeline.library import Library

Floats = npt.NDArray[np.floating[Any]]

LEVELS = (50, 80, 90, 95, 99)
START, END = "<!-- calibration -->", "<!-- end of calibration -->"
OURS = "percentile of Longreel"
READINGS: dict[str, Callable[[Floats], Floats]] = {
    "raw cosine": lambda scores: scores.max(axis=1),
    "above the query's median": lambda scores: scores.max(axis=1) - np.median(scores, axis=1),
    "the same, by the spread": lambda scores: (
        (scores.max(axis=1) - scores.mean(axis=1)) / np.maximum(scores.std(axis=1), 1e-6)
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path, metavar="DIR", help="folder of the library")
    parser.add_argument("--truth", required=True, type=Path, metavar="FILE", help="right moments, JSONL")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables into this page")
    options = parser.parse_args(arguments)
    with Library.open(options.store, create=False) as library:
        figures = measure(library, read_truth(options.truth))
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        options.page.write_text(put_between(page, table(figures)), encoding="utf-8")
    print(table(figures))
    return 0


def put_between(page: str, text: str) -> str:
    """The page with ``text`` between its two comments.

    Raises:
        SystemExit: it does not have both, in order.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"the page has no place for the tables: it needs the lines {START} and {END}")
    return f"{before}{start}\n\n{text}\n\n{end}{after}"


def measure(library: Library, truth: Sequence[TruthMoment]) -> dict[str, Any]:
    """All figures; percentiles in percent, ``separation`` as the area under the ROC curve."""
    records = match_videos(library, truth)
    vectors = library.catalog.vectors_since(0, library.catalog.count_vectors())
    rows, owner = unit_rows(vectors.embedding), np.array(vectors.video)
    queries = np.asarray(library.encoder.encode_query([moment.query for moment in truth]), dtype=np.float32)
    bank = np.asarray(library.encoder.encode_query(background_queries()), dtype=np.float32)
    best = (queries @ rows.T).argmax(axis=1)
    right = np.array(
        [
            records[moment.video].id == owner[i]
            and any(span.contains((vectors.start_seconds[i] + vectors.end_seconds[i]) / 2) for span in moment.spans)
            for moment, i in zip(truth, best, strict=True)
        ]
    )
    found: dict[str, Any] = {}
    for name in (OURS, *READINGS):
        present, absent = rated(name, queries, bank, rows), np.empty(len(truth))
        for video in {record.id for record in records.values()}:
            mine = np.array([records[moment.video].id == video for moment in truth])
            absent[mine] = rated(name, queries[mine], bank, rows[owner != video])
        kinds = {
            "present_absent": (present, absent),
            "right_absent": (present[right], absent),
            "right_wrong": (present[right], present[~right]),
        }
        found[name] = {
            **{f"separation_{kind}": separation(high, low) for kind, (high, low) in kinds.items()},
            **{f"separation_{kind}_95": separation_interval(high, low) for kind, (high, low) in kinds.items()},
            "confident": {
                str(level): {
                    "right": share(present[right] >= level),
                    "present": share(present >= level),
                    "absent": share(absent >= level),
                    "right_of_confident": share(right[present >= level]),
                    "counts": {
                        "right": int((present[right] >= level).sum()),
                        "present": int((present >= level).sum()),
                        "absent": int((absent >= level).sum()),
                    },
                }
                for level in LEVELS
            },
        }
    return {
        "model": library.model,
        "fingerprint": library.manifest.fingerprint,
        "bank": bank_version(),
        "background_queries": len(bank),
        "videos": len(set(owner)),
        "vectors": len(rows),
        "queries": len(truth),
        "right": share(right),
        "right_count": int(right.sum()),
        "readings": found,
    }


def rated(name: str, queries: Floats, bank: Floats, rows: Floats) -> npt.NDArray[np.float64]:
    """The percentile [Q] of each query's best answer among ``rows [V, D]``, by a reading."""
    asked, background = queries @ rows.T, bank @ rows.T
    if name != OURS:
        return percentiles(READINGS[name](asked), READINGS[name](background))
    calibration = calibrate_words(bank, rows[background.argmax(axis=1)], rows)
    assert calibration is not None
    best = rows[asked.argmax(axis=1)]
    return np.array([calibration.rating(one, rows)(row[None])[0] for one, row in zip(queries, best, strict=True)])


def percentiles(values: Floats, background: Floats) -> npt.NDArray[np.float64]:
    """Of each value, the share of ``background [B]`` below it, 0 to 100."""
    return 100.0 * np.searchsorted(np.sort(background), values, side="left") / len(background)


def separation(high: Floats, low: Floats) -> float | None:
    """The chance that one of ``high`` is above one of ``low``, ties counted half; ``None`` where one is empty."""
    if not len(high) or not len(low):
        return None
    return float(np.mean((high[:, None] > low[None]) + 0.5 * (high[:, None] == low[None])))


def separation_interval(high: Floats, low: Floats, draws: int = 2000) -> tuple[float, float] | None:
    """Between what the separation lies at 95 %: the percentiles of so many bootstrap samples, of a fixed seed."""
    if not len(high) or not len(low):
        return None
    chance = np.random.default_rng(0)
    above = (high[:, None] > low[None]) + 0.5 * (high[:, None] == low[None])
    found = [
        above[np.ix_(chance.integers(len(high), size=len(high)), chance.integers(len(low), size=len(low)))].mean()
        for _ in range(draws)
    ]
    first, last = np.percentile(found, [2.5, 97.5])
    return float(first), float(last)


def share(true: npt.NDArray[np.bool_]) -> float | None:
    """In percent; ``None`` of nothing."""
    return 100.0 * float(true.mean()) if len(true) else None


def table(figures: dict[str, Any]) -> str:
    """The figures in Markdown."""

    def cell(value: float | None, digits: int = 0) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    ours = figures["readings"][OURS]["confident"]
    queries, right = figures["queries"], figures["right_count"]
    lines = [
        f"{figures['model']}: {queries} queries, {figures['videos']} videos, {figures['vectors']} vectors; "
        f"the best answer is right for {right} of them ({cell(figures['right'])} %).",
        "",
        f"| confident from | right answers, of {right} | answer there, of {queries} | answer not there, of {queries} "
        "| right, of the confident |",
        "|---|---|---|---|---|",
    ]
    for level, row in ours.items():
        counts = row["counts"]
        cells = [f"{counts[name]} ({cell(row[name])} %)" for name in ("right", "present", "absent")]
        cells.append(f"{counts['right']} of {counts['present']} ({cell(row['right_of_confident'])} %)")
        lines.append(f"| {level} | {' | '.join(cells)} |")
    lines += ["", "| reading of the score | there or not | right or not there | right or wrong |", "|---|---|---|---|"]
    for name, row in figures["readings"].items():
        cells = []
        for kind in ("present_absent", "right_absent", "right_wrong"):
            between = row[f"separation_{kind}_95"]
            spread = "" if between is None else f" ({between[0]:.2f} to {between[1]:.2f})"
            cells.append(f"{cell(row[f'separation_{kind}'], 2)}{spread}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
