"""``longreel evaluate``: its options, and who answers them."""

from __future__ import annotations

import click

from jobs.cli.common import common_options
from jobs.cli.evaluate_options import EvaluateOptions


@click.command(short_help="Judge moments, libraries, models and compressors.")
@click.option("--truth", metavar="FILE", type=click.Path(), help="The right moments (JSONL).")
@click.option("--predictions", metavar="FILE", type=click.Path(), help="Score this file of answers (JSONL).")
@click.option("--pack", metavar="FOLDER/NAME[:SPLIT]", help="Judge a model on an image-text pack.")
@click.option("--model", metavar="NAME", help="The model: of --pack, or to check that it is the library's.")
@click.option("--captions", is_flag=True, help="With --pack: caption the pictures too, and score the words.")
@click.option(
    "--compare",
    metavar="DIR|NAME=KEY=VALUE,...",
    multiple=True,
    help="Another run beside it: a library, or settings to digest the videos with again. May be given several times.",
)
@click.option("--sweep", is_flag=True, help="Turn the compression dial: recall against vectors an hour and tokens.")
@click.option("--plot", metavar="FILE", type=click.Path(), help="With --sweep: draw it (.png or .svg).")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Answers that count for each query [10]; with --pack: pictures [all]."
)
@click.option(
    "--iou",
    type=click.FloatRange(min=0.0, max=1.0, min_open=True),
    multiple=True,
    help="IoU from which an answer is right in R@k. May be given several times.  [default: 0.3, 0.5, 0.7]",
)
@click.option("--device", metavar="DEVICE", help="Where to run the model, for example cpu or cuda.")
@click.option("--out", metavar="FILE", type=click.Path(), help="Write the JSON to a file too.")
@common_options
def evaluate(
    truth: str | None,
    predictions: str | None,
    pack: str | None,
    model: str | None,
    captions: bool,
    compare: tuple[str, ...],
    sweep: bool,
    plot: str | None,
    limit: int | None,
    iou: tuple[float, ...],
    device: str | None,
    out: str | None,
    store: str | None,
    config: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Judge answers against moments that are known to be right, or a model on pictures with sentences or labels.

    \b
    Score a file of answers (QVHighlights' own files give its evaluator's figures):
      longreel evaluate --truth moments.jsonl --predictions answers.jsonl
      longreel evaluate --truth highlight_val.jsonl --predictions submission.jsonl --json

    \b
    Ask the library, beside others, or over the range of its compression:
      longreel evaluate --truth moments.jsonl --compare tome=ingest.digest.tokens.compressor=tome
      longreel evaluate --store STORE --truth moments.jsonl --sweep --plot dial.svg

    \b
    Judge a model on an image-text pack:
      longreel evaluate --pack packs/flickr8k --model tiny
      longreel evaluate --pack packs/flickr8k:test --model tiny --captions --limit 100 --out tiny.json

    \b
    A line of the truth, and one of answers; lines of one video and query belong together:
      {"video": "gate.mp4", "query": "a dog runs", "start": 3.0, "end": 7.5}
      {"video": "gate.mp4", "query": "a dog runs", "start": 2.5, "end": 7.0, "score": 0.31}

    Figures are percent: recall (R@k) and mean average precision (mAP) by overlap in time (IoU), and how often the peak
    of the first answer lies in a right moment. docs/evaluation.md says what each is.
    """
    options = EvaluateOptions(
        truth=truth,
        predictions=predictions,
        store=store,
        pack=pack,
        model=model,
        compare=compare,
        sweep=sweep,
        plot=plot,
        captions=captions,
        limit=limit,
        iou=iou,
        device=device,
        config=config,
        overrides=overrides,
        as_json=as_json,
        out=out,
    )
    way = options.way
    if way == "--predictions":
        from jobs.cli.evaluate_predictions import run
    elif way == "--pack":
        from jobs.cli.evaluate_pack import run
    else:
        from jobs.cli.evaluate_library import run
    return run(options)
