"""The tables and verdicts of the comparison, from the outcomes that a file keeps.

Every row is printed, also those where our own form loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.benching.tables import Report, mean, plot_lines, spread
from scripts.comparing.cost import WORDS
from scripts.comparing.figures import FIGURES
from scripts.comparing.methods import CONTROLS, EXACT, METHODS, OURS
from scripts.comparing.runs import Plan
from scripts.comparing.verdicts import Difference, compared

__all__ = ["MARKS", "Row", "put_between_marks", "tell"]

MARKS = ("<!-- learning comparison -->", "<!-- /learning comparison -->")
_JUDGED = {"t2c_r1": "R@1", "cider": "CIDEr"}
_LOSERS = ("linformer", "performer")


@dataclass(frozen=True)
class Row:
    """A method at a keep ratio: its outcomes by seed, and what it costs (empty where not measured)."""

    method: str
    ratio: int
    rate: float
    outcomes: dict[int, dict[str, Any]]
    cost: dict[str, float]

    @property
    def label(self) -> list[str]:
        return [self.method, "all" if self.method == EXACT else f"1/{self.ratio}" if self.ratio > 1 else "1 token"]

    def by_seed(self, figure: str) -> dict[int, float]:
        return {seed: float(one[figure]) for seed, one in self.outcomes.items() if figure in one}

    def values(self, figure: str) -> list[float]:
        return list(self.by_seed(figure).values())


def tell(
    report: Report,
    plan: Plan,
    bank: dict[str, Any],
    rows: Sequence[Row],
    search: dict[str, dict[float, dict[str, Any]]],
    rate: float | None,
    plots: Path | None,
) -> None:
    """All tables, then the verdicts, then the plots."""
    report.section("Learning comparison", _explain(plan, bank))
    exact = next((row for row in rows if row.method == EXACT), None)
    _main_table(report, plan, bank, rows, exact)
    _other_way(report, rows)
    _cost_table(report, plan, rows, exact)
    _search_table(report, search, rate)
    if exact is not None:
        _judge(report, rows, exact)
    if plots is not None:
        _plot(plots, rows)


def _explain(plan: Plan, bank: dict[str, Any]) -> str:
    sizes = plan.sizes
    return (
        f"Clips of {bank['frames']} frames of {bank['tokens'] // bank['frames']} tokens ({bank['tokens']} in all, of "
        f"width {bank['width']}), seen by {bank['eyes']} that learns no more; {plan.learn} to learn from, "
        f"{plan.judge} others to be judged by. Every model begins from the same values and sees the same batches "
        f"({plan.steps} steps of {plan.batch}, AdamW, a tenth of the steps up and half a cosine down): a text tower of "
        f"{sizes.text_layers} layer(s), a caption decoder of {sizes.layers}, and a pooler of {sizes.queries} learned "
        f"queries whose output is matched with the text's; all {sizes.width} wide with {sizes.heads} heads. "
        f"The cross-attentions of decoder and pooler are what is compared; times are added to the tokens of all alike. "
        f"Methods that shrink keep as many numbers as n over the ratio keys and values are.\n\n"
        f"Retrieval: {bank['sentences']} unlike sentences and {plan.judge} clips; a sentence that is true of two clips "
        f"has two right answers, and the better placed counts. Chance of R@1 is about {100 / plan.judge:.1f}. "
        f"Captions: greedy, against all right sentences of a clip, in percent. Order: how often the true sentence is "
        f"likelier than one that is true of the clip backwards ({bank['foils']} clips); chance is 50. Mean ± standard "
        f"deviation over seeds.\n\n"
        f"Controls, which are no method: `sampled frames` is exact attention to as many tokens, of evenly spaced "
        f"frames; `mean token` to the clip's mean alone. One rate for all: every method was tried at every "
        f"rate, on one seed and one ratio, and the rate taken at which they lose least, on average, on {plan.choose} "
        f"clips held out (two tasks are learnt at once, and like different rates; with a rate of its own for each "
        f"method, a difference could be one of rates). What is not equal: Linformer and LISTA bring "
        f"parameters of their own. Phi of `csat published` is random and stays so; it decodes by ISTA, as printed. "
        f"`csat` reads tokens that Ward merging made once for each clip, as they do not change; its cost is apart."
    )


def _main_table(report: Report, plan: Plan, bank: dict[str, Any], rows: Sequence[Row], exact: Row | None) -> None:
    header = ["attention", "keeps", *(f"R@{k}" for k in (1, 5, 10)), "BLEU-4", "CIDEr", "order"]
    header += ["time of a step", "time of a caption", "memory of the call"]
    table = []
    for row in rows:
        figures = [spread(row.values(name), 1) for name in ("t2c_r1", "t2c_r5", "t2c_r10", "bleu4", "cider", "order")]
        clips = {"step_seconds": plan.batch, "caption_seconds": 1, "peak_bytes": 0}  # to be merged, each time anew
        shares = [_share(row, exact, name, count) for name, count in clips.items()]
        table.append([*row.label, *figures, *shares])
    values = {"/".join(row.label): {"rate": row.rate, "outcomes": row.outcomes, "cost": row.cost} for row in rows}
    note = (
        "R@k: sentence to clip, percent. Time and memory as shares of exact attention's; in brackets, with the merging "
        "of the clips. That is done once for each: a clip that is read once costs so much, one that is read over and "
        "over (in training, or where token sets are kept) what stands before."
    )
    report.table("Same data, steps and parameters, another cross-attention", header, table, note, values)
    _tell_order(report, bank, rows)


def _tell_order(report: Report, bank: dict[str, Any], rows: Sequence[Row]) -> None:
    """Say so where no method reads the order of events: figures about chance are easily taken for equal ones."""
    figures = [mean(row.values("order")) for row in rows if row.values("order")]
    if not bank["foils"] or not figures:
        return
    luck = 2 * 50 / bank["foils"] ** 0.5  # two standard deviations of a coin
    if max(figures) < 50 + luck:
        report.remark(
            f"Order: no method is above chance by more than luck (50 ± {luck:.1f} for {bank['foils']} clips; the "
            f"highest has {max(figures):.1f}). None learns in so few steps what comes first, so this comparison says "
            f"nothing of reading it."
        )


def _share(row: Row, exact: Row | None, name: str, merged: int) -> str:
    """Of what exact attention takes; in brackets with ``merged`` clips merged too, where a method does so."""
    if exact is None or not exact.cost.get(name) or name not in row.cost:
        return "-"
    share = f"{row.cost[name] / exact.cost[name]:.2f}"
    extra = row.cost.get("merge_seconds", 0.0) * merged
    return f"{share} ({(row.cost[name] + extra) / exact.cost[name]:.2f})" if extra else share


def _other_way(report: Report, rows: Sequence[Row]) -> None:
    header = ["attention", "keeps", *(f"R@{k}" for k in (1, 5, 10)), "loss held out", "loss writing", "loss matching"]
    names = ("c2t_r1", "c2t_r5", "c2t_r10")
    table = [
        [
            *row.label,
            *(spread(row.values(name), 1) for name in names),
            *(spread(row.values(name), 2) for name in ("held_out", "writing", "matching")),
        ]
        for row in rows
    ]
    note = (
        "R@k: clip to sentence, percent. Losses: of both tasks on clips held out, and of each over the last 20 steps."
    )
    report.table("The other way round, and losses", header, table, note)


def _cost_table(report: Report, plan: Plan, rows: Sequence[Row], exact: Row | None) -> None:
    header = ["attention", "keeps", "parameters", "of them its own", "step, ms", "with merging, ms", "call, ms"]
    header += ["caption, ms", "state, kB", "peak of the call, MB"]
    table = []
    for row in rows:
        cost, first = row.cost, next(iter(row.outcomes.values()), {})
        step, extra = cost.get("step_seconds"), cost.get("merge_seconds", 0.0) * plan.batch
        table.append(
            [
                *row.label,
                f"{first['parameters']:,}" if "parameters" in first else "-",
                f"{first['own_parameters']:,}" if "own_parameters" in first else "-",
                *("-" if one is None else f"{1e3 * one:.0f}" for one in (step, None if step is None else step + extra)),
                *(_scaled(cost, name, 1e3) for name in ("call_seconds", "caption_seconds")),
                _scaled(cost, "state_bytes", 1e-3),
                _scaled(cost, "peak_bytes", 1e-6),
            ]
        )
    merging = {row.ratio: row.cost["merge_seconds"] for row in rows if "merge_seconds" in row.cost}
    spent = ", ".join(f"{1e3 * seconds:.1f} ms a clip to 1/{ratio}" for ratio, seconds in sorted(merging.items()))
    report.table(
        "Cost",
        header,
        table,
        f"Measured when no run of this comparison shared the machine, all methods in turn: a training step of "
        f"{plan.batch} clips; one cross-attention, forward and back, of a batch ({plan.context} queries a clip); a "
        f"caption of {min(WORDS, plan.context)} words. "
        f"State: what one cross-attention must keep of a clip to answer further queries. Peak: of the call, above its "
        f"inputs. Merging takes {spent or 'no time'}, once; `with merging` counts it anew for every clip of a step.",
    )


def _scaled(cost: dict[str, float], name: str, factor: float) -> str:
    return f"{factor * cost[name]:.1f}" if name in cost else "-"


def _search_table(report: Report, search: dict[str, dict[float, dict[str, Any]]], chosen: float | None) -> None:
    rates = sorted({rate for tried in search.values() for rate in tried})
    if len(rates) < 2:
        report.remark(f"The rate is {', '.join(f'{rate:g}' for rate in rates)} for all: none was searched.")
        return
    names = {"held_out": "loss", **_JUDGED}
    digits = {"held_out": 3}
    header = ["attention", *(f"{label} at {rate:g}" for rate in rates for label in names.values())]
    table = []
    for method, tried in search.items():
        cells = []
        for rate in rates:
            outcome = tried.get(rate, {})
            missing = "not finite" if "failed" in outcome else "-"
            cells += [f"{outcome[n]:.{digits.get(n, 1)}f}" if n in outcome else missing for n in names]
        table.append([method, *cells])
    note = "One seed, the middle ratio. Loss: on held-out clips, of both tasks; R@1 (sentence to clip) and CIDEr are "
    note += "those of the clips judged by, and choose nothing. "
    note += "No rate is chosen yet." if chosen is None else f"Lowest mean loss, controls aside: {chosen:g}, for all."
    if chosen in (rates[0], rates[-1]):
        note += " It is at the edge of what was tried."
    report.table("Search of the rate, for every method alike", header, table, note)


def _judge(report: Report, rows: Sequence[Row], exact: Row) -> None:
    table = []
    found: dict[tuple[str, int, str], Difference] = {}
    for row in rows:
        if row is exact:
            continue
        cells = []
        for figure in _JUDGED:
            difference = compared(row.by_seed(figure), exact.by_seed(figure))
            cells.append("-" if difference is None else str(difference))
            if difference is not None:
                found[row.method, row.ratio, figure] = difference
        table.append([*row.label, *cells])
    if not table:
        return
    values = {"/".join(map(str, key)): asdict(value) for key, value in found.items()}
    margins = [
        f"{label} {0.05 * mean(exact.values(figure)):.1f}" for figure, label in _JUDGED.items() if exact.values(figure)
    ]
    report.table(
        "Difference from exact attention",
        ["attention", "keeps", *_JUDGED.values()],
        table,
        "Mean difference seed by seed ± its standard error (interval at 95%, Student's t). Better, worse: the interval "
        "leaves out zero. Equals: it holds zero and lies within a twentieth of exact attention's figure "
        f"({', '.join(margins)}). Open: these seeds cannot tell. Errors are over seeds, for these test clips.",
        values,
    )
    for ratio in sorted({row.ratio for row in rows if METHODS[row.method].shrinks}):
        for method in OURS:
            _verdict(report, f"{method} at 1/{ratio} at least equals exact attention", found, method, ratio, True)
        for method in _LOSERS:
            _verdict(report, f"{method} at 1/{ratio} loses to exact attention", found, method, ratio, False)
    _against_rivals(report, rows)


def _verdict(
    report: Report, target: str, found: dict[tuple[str, int, str], Difference], method: str, ratio: int, equal: bool
) -> None:
    """``equal``: the target is met where it is equal or better in both figures; otherwise, where worse in both."""
    own = {label: found[method, ratio, figure] for figure, label in _JUDGED.items() if (method, ratio, figure) in found}
    if len(own) < len(_JUDGED):
        return
    words = [one.at_least_equal for one in own.values()]
    if equal:
        met = True if all(words) else False if False in words else None
    else:
        met = True if words == [False] * len(words) else False if True in words else None
    found_text = "; ".join(f"{label} {one}" for label, one in own.items())
    if met is None:
        report.remark(f"**{target}: open.** {found_text}")
    else:
        report.verdict(target, met, found_text)


def _against_rivals(report: Report, rows: Sequence[Row]) -> None:
    """Our default beside each rival and control of the same state."""
    ours = {row.ratio: row for row in rows if row.method == OURS[0]}
    for ratio, own in sorted(ours.items()):
        said = []
        for row in rows:
            if row.ratio == ratio and row.method not in (OURS[0], EXACT):
                parts = [
                    f"{label} {difference}"
                    for figure, label in _JUDGED.items()
                    if (difference := compared(own.by_seed(figure), row.by_seed(figure))) is not None
                ]
                if parts:
                    said.append(f"- {row.method}: {'; '.join(parts)}")
        if said:
            report.remark(f"`{OURS[0]}` at 1/{ratio} less each other of the same state:\n\n" + "\n".join(said))


def _plot(folder: Path, rows: Sequence[Row]) -> None:
    for figure in _JUDGED:
        series: dict[str, tuple[list[float], list[float]]] = {}
        bars: dict[str, list[float]] = {}
        ratios = sorted({row.ratio for row in rows if METHODS[row.method].shrinks})
        for method in dict.fromkeys(row.method for row in rows):
            own = [row for row in rows if row.method == method and row.values(figure)]
            if not own:
                continue
            if METHODS[method].shrinks:
                x = [1 / row.ratio for row in own]
                y = [mean(row.values(figure)) for row in own]
                bars[method] = [_deviation(row.values(figure)) for row in own]
            else:  # it has no ratio: a level
                x = [1 / ratio for ratio in ratios]
                y = [mean(own[0].values(figure))] * len(x)
                bars[method] = [0.0] * len(x)
            series[method] = (x, y)
        name = figure.replace("_", "-")
        plot_lines(
            folder / f"fusion-learning-{name}.png",
            series,
            title=f"{FIGURES[figure]} with each cross-attention, mean and deviation over seeds",
            x_label="share of the tokens kept",
            y_label=f"{FIGURES[figure]}, percent",
            log_x=True,
            deviations=bars,
            bold=[EXACT, OURS[0]],
        )


def _deviation(values: Sequence[float]) -> float:
    from scripts.benching.tables import deviation

    return deviation(values)


def put_between_marks(path: Path, text: str) -> None:
    """Replace what lies between the marks of a document, headings one level lower.

    Raises:
        InputError: a document without both marks, in their order.
    """
    from pipeline.errors import InputError

    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    begin, end = whole.find(MARKS[0]), whole.find(MARKS[1])
    if not 0 <= begin < end:
        raise InputError(f"{path}: must have the lines {MARKS[0]} and {MARKS[1]}, which the tables are put between")
    lower = "\n".join(f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines())
    path.write_text(f"{whole[: begin + len(MARKS[0])]}\n\n{lower}\n\n{whole[end:]}", encoding="utf-8")


assert set(CONTROLS) <= set(METHODS)
