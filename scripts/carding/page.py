"""The tables of a model card, made of the files that scripts/evaluate_tiny.py wrote.

What is made stands between ``<!-- made: NAME -->`` and ``<!-- end: NAME -->``; the rest of the page is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

__all__ = ["BLOCKS", "filled"]

_BLOCK = re.compile(r"<!-- made: (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end: (?P<end>[\w-]+) -->", re.DOTALL)

Values = dict[str, Any]


def filled(page: str, folder: Path, beside: str) -> str:
    """The page with every block made anew from the JSON files of ``folder``, which the page names ``beside``.

    Raises:
        InputError: a block of an unknown name or without its end, or a file that cannot be read.
    """

    def made(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in BLOCKS or found["end"] != name:
            raise InputError(f"block {name!r} that ends with {found['end']!r}: there are {', '.join(BLOCKS)}")
        part, render = BLOCKS[name]
        path = folder / f"{part}.json"
        body = "Not measured yet.\n"
        if path.exists():
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path}: not JSON: {error}") from error
            if "unavailable" in values:
                body = f"Not to be had: {values['unavailable']}\n"
            else:
                body = render(values, beside) + _made_by(values)
        return f"<!-- made: {name} -->\n\n{body}\n<!-- end: {name} -->"

    opened = len(re.findall(r"<!-- made: ", page))
    if opened != len(_BLOCK.findall(page)):
        raise InputError(f"{opened} blocks begin, {len(_BLOCK.findall(page))} of them end")
    return _BLOCK.sub(made, page)


def _made_by(values: Values) -> str:
    quick = "**A quick look at little of it, not to be quoted.** " if values.get("quick") else ""
    return f"\n{quick}`{values['command']}`; {values['versions']}\n"


def table(header: list[str], rows: list[list[object]]) -> str:
    from benching.tables import markdown

    clean = [[re.sub(r"\s+", " ", str(cell)) for cell in row] for row in rows]
    return markdown(header, clean) + "\n"


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _model(v: Values, beside: str) -> str:
    rows: list[list[object]] = [
        ["parameters", f"{v['parameters'] / 1e6:.1f} million" if v["parameters"] else "-"],
        ["weights file", f"{v['size_bytes'] / 1e6:.1f} MB" if v["size_bytes"] else "-"],
        ["weights", f"`{v['weights']}`"],
        ["fingerprint", f"`{v['fingerprint']}`"],
        ["picture", f"{v['image_height']} x {v['image_width']} pixels"],
        ["patch tokens", f"{v['grid'][0]} x {v['grid'][1]}, {v['token_width']} wide"],
        ["joint space", f"{v['dimension']} dimensions"],
        ["text", f"at most {v['context_length']} tokens, marks included"],
        ["trained on", v["card"]["trained_on"] or "-"],
        ["licence", v["card"]["licence"] or "-"],
        ["languages", ", ".join(v["card"]["languages"]) or "-"],
    ]
    rows += [["limit", limit] for limit in v["card"]["limits"]]
    return table(["", v["model_name"]], rows)


def _retrieval(v: Values, beside: str) -> str:
    def row(name: str, part: Values) -> list[object]:
        recall = [number(part.get(f"R@{k}")) for k in (1, 5, 10)]
        rank = f"{part['median_rank']:g}" if "median_rank" in part else "-"
        return [name, *recall, rank, number(part.get("mean_reciprocal_rank"), 3)]

    parts = []
    for title, key in (("Text to image", "text_to_image"), ("Image to text", "image_to_text")):
        rows = [row(v["model_name"], v[key]), row("chance", v[key]["chance"])]
        rows += [row(anchor["name"], anchor[key]) for anchor in v["anchors"]]
        parts.append(table([f"{title}, %", "R@1", "R@5", "R@10", "median rank", "MRR"], rows))
    facts = f"{v['pack']}, split {v['split']}: {v['pictures']} pictures, {v['texts']} texts"
    if v["shortened"]:
        facts += f" ({v['shortened']} were longer than the model reads and lost words at their end)"
    parts.append("\n".join([f"{facts}.", *(f"{a['name']}: {a['source']}." for a in v["anchors"])]) + "\n")
    return "\n".join(parts)


def _failures(v: Values, beside: str) -> str:
    texts = [[w["rank"], w["text"], w["key"], w["taken"]["caption"], w["taken"]["key"]] for w in v["worst_texts"]]
    pictures = [[w["rank"], w["key"], w["caption"], w["taken"]] for w in v["worst_pictures"]]
    return "\n".join(
        [
            "Sentences whose picture was found last:\n",
            table(["rank", "sentence", "its picture", "taken instead: a picture of", "key"], texts),
            "Pictures whose sentences were found last:\n",
            table(["rank", "picture", "one of its sentences", "taken instead"], pictures),
        ]
    )


def _classification(v: Values, beside: str) -> str:
    rows = []
    for p in v["packs"]:
        rows.append(
            [f"{p['pack']} {p['split']}", p["pictures"], p["classes"]]
            + [number(p[name]) for name in ("top1", "top5", "mean_per_class")]
            + [number(p["chance"]["top1"])]
        )
    header = ["zero-shot, %", "pictures", "classes", "top-1", "top-5", "top-1, mean of classes", "chance, top-1"]
    parts = [table(header, rows)]
    for p in v["packs"]:
        named = {kind: ", ".join(f"{c['label']} {c['top1']:.0f}" for c in p[kind]) for kind in ("best", "worst")}
        parts.append(f"{p['pack']}: best {named['best']}; worst {named['worst']}.\n")
    return "\n".join(parts)


def _captions(v: Values, beside: str) -> str:
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    rows: list[list[object]] = [[v["model_name"], *(number(v[name]) for name in names)]]
    if v["people"]:
        rows.append(["people, each against the others", *(number(v["people"][name]) for name in names)])
    parts = [table(["%", *names], rows)]
    parts.append(
        f"{v['captions']} captions, {v['different']} of them different; {v['pack']}, split {v['split']}. "
        f"{len(v['examples'])} that nobody picked, the first of a permutation with seed {v['seed']}:\n"
    )
    shown: list[list[object]] = [
        [e["key"], e["caption"] or "(nothing)", number(e["confidence"], 2), number(e["cider"]), e["references"][0]]
        for e in v["examples"]
    ]
    parts.append(table(["picture", "caption", "confidence", "CIDEr", "people, one of five"], shown))
    return "\n".join(parts)


def _drawings(v: Values, beside: str) -> str:
    found = v["text_to_image"]
    recall = ", ".join(f"R@{k} {found[f'R@{k}']:.1f}" for k in (1, 5, 10))
    said = f"Text to image among {v['pictures']} drawn pictures (seed {v['seed']}): {recall} %. Those found worst:\n"
    return f"{said}\n![drawn pictures that are found worst]({beside}/{v['sheet']})\n"


def _speed(v: Values, beside: str) -> str:
    rows: list[list[object]] = [
        ["frames a second", number(v["frames_per_second"])],
        ["frames a second, patch tokens kept", number(v["frames_per_second_with_tokens"])],
        ["milliseconds a query", number(v["query_milliseconds"])],
    ]
    size = f"{v['frame'][0]} x {v['frame'][1]}"
    note = f"\nFrames of {size} pixels, resizing included. Precision: {v['precision_reason']}.\n"
    return table(["", f"{v['threads']} threads, {v['precision']}, {v['device']}"], rows) + note


def _moments(v: Values, beside: str) -> str:
    figures = {
        "R1@0.3": "R@1, IoU 0.3",
        "R1@0.5": "R@1, IoU 0.5",
        "R5@0.3": "R@5, IoU 0.3",
        "mAP": "mAP",
        "mean_iou": "mean IoU",
        "peak_inside": "peak inside",
    }
    parts = []
    for title, key in (("asked of its own video", "in_video"), ("asked of all videos of the set", "in_library")):
        rows: list[list[object]] = []
        for s in v["sets"]:
            way = s[key]
            for name, scores in (
                (v["model_name"], way),
                ("mean-pooled windows", way["baseline"]),
                ("chance", way["chance"]),
            ):
                rows.append([s["name"], way["queries"], name, *(number(scores.get(f)) for f in figures)])
        parts.append(table(["set", "queries", f"{title}, %", *figures.values()], rows))
    for s in v["sets"]:
        for title, key in (("of its own video", "in_video"), ("of all", "in_library")):
            parts.append(f"{s['name']}, asked {title}: {_peaks(s[key])}.\n")
    return "\n".join(parts)


def _peaks(way: Values) -> str:
    """What so many queries can tell of peaks inside."""
    if "peak_inside_95" not in way:
        raise InputError("moments.json is of an earlier version, without intervals: measure the part moments again")
    low, high = way["peak_inside_95"]
    chance = way["chance"]["peak_inside"]
    times = f"{way['peak_inside'] / chance:.1f} times chance" if chance else "chance is 0"
    beside = way["peak_inside_beside_baseline"]
    return (
        f"peak inside {way['peak_inside']:.1f} % ({low:.1f} to {high:.1f} at 95 %), {times}; {beside['alone']} queries "
        f"are right here alone, {beside['other_alone']} with mean-pooled windows alone, which luck would split as "
        f"unevenly in {100 * beside['luck']:.0f} % of trials"
    )


def _videos(v: Values, beside: str) -> str:
    rows: list[list[object]] = []
    for s in v["sets"]:
        plain = s["in_video"]["baseline"]["per_video"]
        for video, scores in s["in_video"]["per_video"].items():
            figures = [number(scores[name]) for name in ("R1@0.3", "R5@0.3", "mean_iou", "peak_inside")]
            rows.append([video, scores["queries"], *figures, number(plain[video]["peak_inside"])])
    header = ["video", "queries", "R@1, IoU 0.3", "R@5, IoU 0.3", "mean IoU", "peak inside", "of mean-pooled windows"]
    return table(header, rows)


def _curves(v: Values, beside: str) -> str:
    rows: list[list[object]] = []
    for stage, entry in v["stages"].items():
        last = "; ".join(f"{name} {points[-1][1]:.3g}" for name, points in entry["checks"].items()) or "-"
        first = f"{entry['loss'][0][1]:.3g}" if entry["loss"] else "-"
        end = f"{entry['loss'][-1][1]:.3g}" if entry["loss"] else "-"
        rows.append([stage, entry["steps"], first, end, last])
    plots = "\n".join(f"![curves]({beside}/{name})" for name in v["plots"])
    return table(["stage", "steps", "loss at first", "loss at last", "validation at last"], rows) + f"\n{plots}\n"


BLOCKS: dict[str, tuple[str, Callable[[Values, str], str]]] = {
    # block: (the file it is made of, how)
    "model": ("model", _model),
    "retrieval": ("retrieval", _retrieval),
    "failures": ("retrieval", _failures),
    "classification": ("classification", _classification),
    "captions": ("captions", _captions),
    "drawings": ("drawings", _drawings),
    "speed": ("speed", _speed),
    "moments": ("moments", _moments),
    "videos": ("moments", _videos),
    "curves": ("curves", _curves),
}
