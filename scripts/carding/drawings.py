"""Failures that can be shown: drawn pictures, because photographs of the packs may not be copied.

Shapes: n pictures of S x S pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.ranking import retrieval_scores
from pipeline.evaluation.retrieval import encode_sentences

if TYPE_CHECKING:
    from encoders import Encoder
    from encoders.captioning import Captioner

__all__ = ["draw_sheet", "drawings"]

_SIDE = 96
_SHOWN = 8


def drawings(
    encoder: Encoder, captioner: Captioner | None, sheet: Path, count: int = 400, seed: int = 0
) -> dict[str, Any]:
    """Retrieval among drawn pictures with a true sentence each, and a sheet (PNG) of those that are found worst.

    The drawings are of the kind that the bundled model was trained on, from a seed of their own. The sheet has, below
    each picture, its true sentence, the rank that it was found at, the sentence that was taken for it, and what the
    captioner said.
    """
    from scripts.training.drawn import drawn_pictures

    # far from the seeds that training counts up from 0
    pictures, sentences = drawn_pictures(count, _SIDE, np.random.default_rng((seed, 0xCA2D)))
    kept = [i for i, text in enumerate(sentences) if text not in sentences[:i]]
    pictures, sentences = pictures[kept], [sentences[i] for i in kept]
    image = encoder.encode(pictures).embedding.numpy()
    text, _ = encode_sentences(encoder, sentences)
    scores = retrieval_scores(image, text, np.arange(len(sentences)))
    worst = np.argsort(-scores.text_ranks, kind="stable")[:_SHOWN]
    said = [""] * len(worst)
    if captioner is not None:
        from encoders.captioning import caption_pictures

        said = [caption.text for caption in caption_pictures(captioner, pictures[worst])]
    shown = [
        {
            "sentence": sentences[i],
            "rank": int(scores.text_ranks[i]),
            "taken": sentences[int(np.argmax(text @ image[i]))],
            "said": caption,
        }
        for i, caption in zip(worst.tolist(), said, strict=True)
    ]
    draw_sheet(sheet, pictures[worst], shown)
    return {"seed": seed, **scores.to_dict(), "sheet": sheet.name, "worst": shown}


def draw_sheet(path: Path, pictures: np.ndarray, rows: list[dict[str, Any]], columns: int = 4) -> None:
    """Write the sheet of ``pictures [n, S, S, 3]``."""
    import textwrap

    from benching.tables import require_matplotlib

    pyplot = require_matplotlib()
    lines = -(-len(pictures) // columns)
    figure, axes = pyplot.subplots(
        2 * lines,
        columns,
        figsize=(2.4 * columns, 3.6 * lines),
        dpi=80,
        squeeze=False,
        gridspec_kw={"height_ratios": [2.3, 1.3] * lines, "hspace": 0.03, "wspace": 0.08},
    )
    for place in axes.flat:
        place.axis("off")
    for i, (picture, row) in enumerate(zip(pictures, rows, strict=True)):
        above, below = axes[i // columns * 2 : i // columns * 2 + 2, i % columns]
        above.imshow(picture)
        parts = [row["sentence"], f"rank {row['rank']}", f"taken: {row['taken']}"]
        # an untrained model says signs that no font has, and without end
        parts += [f"said: {row['said']}".encode("latin-1", "replace").decode("latin-1")] if row["said"] else []
        text = [line for part in parts for line in textwrap.wrap(textwrap.shorten(part, 90, placeholder=" ..."), 38)]
        below.text(0, 1, "\n".join(text), fontsize=6.5, va="top", transform=below.transAxes)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.0)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
