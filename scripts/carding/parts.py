"""The measurements of a model card, each a plain dictionary for a JSON file of its own.

Percentages are 0 to 100. Pictures of the packs are named by their keys, never copied.

Shapes: I pictures, T texts, D width of the joint space.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import InputError
from pipeline.evaluation.captions import caption_scores, evaluate_captions
from pipeline.evaluation.packs import ImageTextPack
from pipeline.evaluation.retrieval import (
    class_names,
    encode_pictures,
    encode_sentences,
    evaluate_zero_shot,
    limited,
    retrieval_scores,
)

if TYPE_CHECKING:
    from encoders import Encoder
    from encoders.captioning import Captioner
    from pipeline.evaluation.library import LibraryScores
    from pipeline.evaluation.moments import TruthMoment

__all__ = ["ANCHORS", "captions", "classification", "moments", "people", "retrieval", "speed"]

Step = Callable[[str, float, "float | None"], None]

# Flickr8k, test split of 1,000 pictures, from the paper; its image tower was trained on all of ImageNet.
ANCHORS = [
    {
        "name": "m-RNN",
        "source": "J. Mao and others, Deep Captioning with Multimodal Recurrent Neural Networks, 2014, arXiv 1412.6632",
        "image_to_text": {"R@1": 14.5, "R@10": 48.5},
        "text_to_image": {"R@1": 11.5, "R@10": 42.4},
    }
]
_WORST = 10
_EXAMPLES = 10


def retrieval(
    encoder: Encoder, pack: ImageTextPack, split: str, limit: int | None = None, step: Step | None = None
) -> dict[str, Any]:
    """Retrieval on a split, and its failures: the texts and the pictures whose right answers stand lowest.

    Beside each stands what was taken instead: of a text the first caption of the picture ranked first, of a picture the
    caption ranked first.
    """
    chosen = limited(pack.split(split), limit)
    texts = [text for i in chosen for text in pack.rows[i]["captions"]]
    owner = np.array([row for row, i in enumerate(chosen) for _ in pack.rows[i]["captions"]])
    image = encode_pictures(encoder, pack, chosen, progress=step)
    text, shortened = encode_sentences(encoder, texts, progress=step)
    scores = retrieval_scores(image, text, owner)

    def row(picture: int) -> dict[str, Any]:
        return {"key": pack.rows[chosen[picture]]["key"], "caption": pack.rows[chosen[picture]]["captions"][0]}

    worst_texts = [
        {
            "text": texts[t],
            "key": row(int(owner[t]))["key"],
            "rank": int(scores.text_ranks[t]),
            "taken": row(int(np.argmax(image @ text[t]))),
        }
        for t in np.argsort(-scores.text_ranks, kind="stable")[:_WORST]
    ]
    worst_pictures = [
        {**row(i), "rank": int(scores.image_ranks[i]), "taken": texts[int(np.argmax(text @ image[i]))]}
        for i in np.argsort(-scores.image_ranks, kind="stable")[:_WORST].tolist()
    ]
    return {
        "pack": pack.name,
        "split": split,
        "limit": limit,
        **scores.to_dict(),
        "shortened": shortened,
        "anchors": ANCHORS if (pack.name, split, limit) == ("flickr8k", "test", None) else [],
        "worst_texts": worst_texts,
        "worst_pictures": worst_pictures,
    }


def classification(
    encoder: Encoder, pack: ImageTextPack, split: str, limit: int | None = None, step: Step | None = None
) -> dict[str, Any]:
    """Zero-shot classification, with the classes that are named best and worst (ties by name)."""
    scores = evaluate_zero_shot(encoder, pack, split, limit=limit, progress=step)
    names = list(class_names(pack))
    ordered = sorted(scores.per_class.items(), key=lambda item: (-item[1], names[item[0]]))
    return {
        "pack": pack.name,
        "split": split,
        "limit": limit,
        **scores.to_dict(),
        "best": [{"label": names[c], "top1": value} for c, value in ordered[:_WORST]],
        "worst": [{"label": names[c], "top1": value} for c, value in ordered[::-1][:_WORST]],
    }


def captions(
    captioner: Captioner,
    pack: ImageTextPack,
    split: str,
    limit: int | None = None,
    seed: int = 0,
    step: Step | None = None,
) -> dict[str, Any]:
    """Captions scored, beside those of people, with ten examples that nobody picked.

    The examples are the first ten of a permutation of the pictures by ``seed``.
    """
    scores, pictures = evaluate_captions(captioner, pack, split, limit=limit, progress=step)
    order = np.random.default_rng(seed).permutation(len(pictures))
    return {
        "pack": pack.name,
        "split": split,
        "limit": limit,
        "captioner": captioner.info.name,
        **scores.to_dict(),
        "different": len({picture.caption for picture in pictures}),
        "people": people(pack, [picture.index for picture in pictures]),
        "seed": seed,
        "examples": [asdict(pictures[i]) for i in order[:_EXAMPLES]],
    }


def people(pack: ImageTextPack, indices: Sequence[int]) -> dict[str, Any] | None:
    """How people score by the same measure: each sentence against the others of its picture, averaged over the turns.

    They have one reference fewer than a model, which costs some points. ``None`` where a picture has fewer than two
    captions, or their number differs.
    """
    written = [pack.rows[i]["captions"] for i in indices]
    turns = len(written[0])
    if turns < 2 or any(len(texts) != turns for texts in written):
        return None
    each = [
        caption_scores([texts[k] for texts in written], [texts[:k] + texts[k + 1 :] for texts in written]).to_dict()
        for k in range(turns)
    ]
    return {name: statistics.fmean(scores[name] for scores in each) for name in each[0]}


def speed(encoder: Encoder, seconds: float = 5.0, height: int = 360, width: int = 640) -> dict[str, Any]:
    """Frames a second of ``height`` x ``width`` pixels, resizing included, and milliseconds a query of six words.

    The median of runs of a batch that fills the lanes, over so many seconds for each, after one that is not timed.
    """
    rng = np.random.default_rng(0)
    info = encoder.info
    frames = rng.integers(0, 256, (info.frames_at_once, height, width, 3), dtype=np.uint8)

    def median(work: Callable[[], object]) -> float:
        work()
        took: list[float] = []
        while not took or sum(took) < seconds:
            began = time.perf_counter()
            work()
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    return {
        "precision": info.precision,
        "precision_reason": info.precision_reason,
        "threads": info.lanes,
        "device": info.device,
        "frame": [height, width],
        "frames_per_second": len(frames) / median(lambda: encoder.encode(frames)),
        "frames_per_second_with_tokens": (
            len(frames) / median(lambda: encoder.encode(frames, tokens=True)) if info.patches else None
        ),
        "query_milliseconds": 1000 * median(lambda: encoder.encode_query(["a dog runs through the snow"])),
    }


def moments(
    model: str, folder: Path, *, device: str = "auto", limit: int | None = None, step: Step | None = None
) -> dict[str, Any]:
    """Moments of real video: each folder below ``folder`` with a ``moments.jsonl`` becomes a library and is judged.

    The libraries are made as ``longreel submit`` makes them by default, and thrown away. ``limit``: only so many
    moments of each, for a quick look.

    Under ``answers`` is what was answered first to each query, with what is right: for one's own eyes, as the queries
    of test data may not be ours to copy. Everything else is figures.

    Raises:
        InputError: there is no such folder, or a video of the truth cannot be indexed.
    """
    from pipeline.evaluation.moments import read_truth

    found = sorted(path.parent for path in folder.glob("*/moments.jsonl"))
    if not found:
        raise InputError(f"{folder}: no folder in it has a moments.jsonl")
    sets, answers = [], []
    for each in found:
        truth = read_truth(each / "moments.jsonl")[:limit]
        scores = _library(model, each, truth, device, step)
        sets.append({"name": each.name, **scores.to_dict(), "refused": len(scores.refused)})
        answers += _answers(scores, truth)
    return {"limit": limit, "sets": sets, "answers": answers}


def _library(model: str, folder: Path, truth: Sequence[TruthMoment], device: str, step: Step | None) -> LibraryScores:
    from jobs.settings import load_settings
    from pipeline.evaluation.library import evaluate_library
    from pipeline.library import Library

    settings = load_settings()
    videos = [str(folder / name) for name in dict.fromkeys(moment.video for moment in truth)]
    with (
        tempfile.TemporaryDirectory(prefix="longreel-card-") as place,
        Library.open(
            Path(place) / "library",
            model,
            device=device,
            index_options=settings.index,
            search_options=settings.search,
        ) as library,
    ):
        for done, video in enumerate(videos):
            if step is not None:
                step(f"watching {folder.name}", done, len(videos))
            for item in library.add(video, options=settings.ingest):
                if item.state != "done":
                    raise InputError(f"{video}: {item.state}, so its moments cannot be judged: {item.error}")
        return evaluate_library(library, truth, progress=step)


def _answers(scores: LibraryScores, truth: Sequence[TruthMoment]) -> list[dict[str, Any]]:
    """What was answered first to each query of its own video."""
    first = {}
    for prediction in scores.in_video.predictions:
        best = first.get(prediction.query_id)
        if best is None or prediction.score > best.score:
            first[prediction.query_id] = prediction
    judged = {score.query_id: score for score in scores.in_video.scores.per_query}
    rows = []
    for moment in truth:
        answer = first.get(moment.query_id)
        score = judged[moment.query_id]
        rows.append(
            {
                "video": moment.video,
                "query": moment.query,
                "right": [[span.start_seconds, span.end_seconds] for span in moment.spans],
                "answer": answer and [answer.start_seconds, answer.end_seconds],
                "peak": answer and answer.peak_seconds,
                "iou": score.first_iou,
                "peak_inside": score.peak_inside,
            }
        )
    return rows
