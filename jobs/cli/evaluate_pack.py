"""``longreel evaluate --pack``: a model on pictures with sentences or labels."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import console
from jobs.cli.evaluate_options import EvaluateOptions, deliver
from jobs.errors import UsageError

if TYPE_CHECKING:
    from encoders.base import EncoderInfo
    from pipeline.evaluation.packs import ImageTextPack

__all__ = ["captioner_name", "run"]

_SPLITS = ("test", "val")  # what is measured on where no split is named: the first of these that a pack has
_EXAMPLES = 5

Step = Callable[[str, int, int], None]


def run(options: EvaluateOptions) -> int:
    """Judge ``--model`` on ``--pack``: retrieval for sentences, classification for labels, captions when asked.

    Raises:
        UsageError: no model, no split to measure on, captions of a labelled pack, or a model that cannot caption.
        PackError, and what loading the model and encoding raise.
    """
    from pipeline.evaluation.packs import ImageTextPack

    assert options.pack is not None
    if options.model is None:
        raise UsageError("--pack judges a model: name it, for example --model tiny; `longreel models list` shows all")
    path, split = _named(options.pack)
    pack = ImageTextPack.open(path)
    split = split or _default_split(pack)
    pack.split(split)  # an unknown one is said before a model is loaded
    if options.captions and pack.labelled:
        raise UsageError(f"--captions: the captions of {pack.path} are made from its labels, not written by people")
    value = _measure(options, options.model, pack, split)
    deliver(options, value, lambda: _show(value))
    return 0


def captioner_name(model: str) -> str:
    """The captioner that belongs to an encoder's name.

    Raises:
        UsageError: for a family of models without captioners.
    """
    scheme, _, rest = model.partition(":")
    if scheme == "openclip":
        return f"coca:{rest}"
    if model == "tiny" or scheme == "coca":
        return model
    raise UsageError(f"--captions: {model} has no caption decoder; tiny and OpenCLIP's CoCa models have one")


def _named(text: str) -> tuple[str, str | None]:
    """Path and split of ``FOLDER/NAME[:SPLIT]``; a colon in a folder's name is part of the path."""
    path, colon, split = text.rpartition(":")
    if not colon or os.sep in split or os.path.exists(text):
        return text, None
    if not path or not split:
        raise UsageError(f"--pack {text!r}: expected FOLDER/NAME[:SPLIT], for example photos/flickr8k:test")
    return path, split


def _default_split(pack: ImageTextPack) -> str:
    for split in _SPLITS:
        if split in pack.splits:
            return split
    known = ", ".join(pack.splits)
    raise UsageError(f"--pack {pack.path}: neither a split 'test' nor 'val'; name one of {known} as FOLDER/NAME:SPLIT")


def _measure(options: EvaluateOptions, model: str, pack: ImageTextPack, split: str) -> dict[str, Any]:
    from encoders import load_encoder
    from pipeline.evaluation.retrieval import evaluate_retrieval, evaluate_zero_shot

    value: dict[str, Any] = {"pack": pack.name, "split": split, "limit": options.limit}
    device = options.device or "auto"
    captioner = captioner_name(model) if options.captions else None
    with _steps() as step:
        # First, as a model may turn out to have no decoder, and the extra that scores may be missing.
        captions = None if captioner is None else _captions(captioner, device, pack, split, options.limit, step)
        with load_encoder(model, device=device) as encoder:
            value |= _facts(encoder.info)
            if pack.labelled:
                shot = evaluate_zero_shot(encoder, pack, split, limit=options.limit, progress=step)
                value["zero_shot"] = shot.to_dict()
            else:
                found = evaluate_retrieval(encoder, pack, split, limit=options.limit, progress=step)
                value["retrieval"] = found.to_dict()
    return value if captions is None else {**value, "captions": captions}


def _captions(name: str, device: str, pack: ImageTextPack, split: str, limit: int | None, step: Step) -> dict[str, Any]:
    from encoders.captioning import load_captioner
    from pipeline.evaluation.captions import evaluate_captions

    with load_captioner(name, device=device) as captioner:
        scores, pictures = evaluate_captions(captioner, pack, split, limit=limit, progress=step)
        return {
            "captioner": captioner.info.name,
            **scores.to_dict(),
            "examples": [asdict(picture) for picture in pictures[:_EXAMPLES]],
        }


def _facts(info: EncoderInfo) -> dict[str, Any]:
    return {
        "model": info.name,
        "fingerprint": info.fingerprint,
        "random_weights": info.random,
        "precision": info.precision,
        "device": info.device,
        "templates": list(info.card.templates),
        "label_templates": list(info.card.label_templates),
    }


def _show(value: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if value["random_weights"]:
        click.echo(f"note: {value['model']} has random weights, so words mean nothing to it", err=True)
    out = console()
    first = f", the first {value['limit']} pictures: not comparable" if value["limit"] else ""
    out.print(Text(f"{value['model']} on {value['pack']}, split {value['split']}{first}"))

    def table(*columns: str) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(columns):
            made.add_column(column, justify="right" if i else "left")
        return made

    if "retrieval" in value:
        found = value["retrieval"]
        shown = table("%", "R@1", "R@5", "R@10", "median rank", "MRR")
        for title, key in (("text to image", "text_to_image"), ("image to text", "image_to_text")):
            row = found[key]
            recall = [f"{row[f'R@{k}']:.1f}" for k in (1, 5, 10)]
            shown.add_row(title, *recall, f"{row['median_rank']:g}", f"{row['mean_reciprocal_rank']:.3f}")
            chance = [f"{row['chance'][f'R@{k}']:.1f}" for k in (1, 5, 10)]
            shown.add_row("  chance", *chance, "", "", style="dim")
        out.print(shown)
        out.print(f"{found['pictures']} pictures, {found['texts']} texts", style="dim")
        if found["shortened"]:
            out.print(f"{found['shortened']} texts were longer than the model reads and lost words", style="dim")
    if "zero_shot" in value:
        shot = value["zero_shot"]
        shown = table("%", "top-1", "top-5", "top-1, mean of classes")
        shown.add_row("zero-shot", f"{shot['top1']:.1f}", f"{shot['top5']:.1f}", f"{shot['mean_per_class']:.1f}")
        chance = shot["chance"]
        shown.add_row(
            "  chance", f"{chance['top1']:.1f}", f"{chance['top5']:.1f}", f"{chance['top1']:.1f}", style="dim"
        )
        out.print(shown)
        out.print(f"{shot['pictures']} pictures, {shot['classes']} classes", style="dim")
    if "captions" in value:
        words = value["captions"]
        names = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")
        shown = table("%", *names)
        shown.add_row("captions", *(f"{words[name]:.1f}" for name in names))
        out.print(shown)
        for example in words["examples"]:
            out.print(Text(f"{example['key']}: {example['caption'] or '(nothing)'}"))
            out.print(Text(f"  people: {example['references'][0]}"), style="dim")


@contextmanager
def _steps() -> Iterator[Step]:
    """A callback that draws a bar for each kind of work; on standard error, and only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        known: dict[str, Any] = {}

        def draw(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done)

        yield draw
