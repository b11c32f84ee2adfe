"""A model on an image-text pack: retrieval between pictures and sentences, zero-shot classification by labels.

Sentences go through ``encode_query`` and class names through the card's ``label_templates``, so the prompt templates of
the model's card are part of what is measured, as they are part of what ``longreel query`` does.

Shapes: I pictures, T texts, D width of the joint space, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.evaluation.packs import ImageTextPack
from pipeline.evaluation.ranking import (
    ClassificationScores,
    RetrievalScores,
    classification_scores,
    retrieval_scores,
)

if TYPE_CHECKING:
    from encoders.base import Encoder

__all__ = [
    "StepCallback",
    "class_names",
    "encode_pictures",
    "encode_sentences",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "retrieval_scores",
]

StepCallback = Callable[[str, int, int], None]
"""``(what, done, total)``, for a progress bar."""

_TEXTS_AT_ONCE = 256


def evaluate_retrieval(
    encoder: Encoder, pack: ImageTextPack, split: str, *, limit: int | None = None, progress: StepCallback | None = None
) -> RetrievalScores:
    """Retrieval between the pictures of a split and all of their captions; see :func:`retrieval_scores`.

    ``limit``: only the first so many pictures, for a quick look; fewer rivals make every figure better.

    Raises:
        PackError, EncodingFailed, and what the encoder raises.
        InputError: a limit below 1, or a picture of the split without a caption.
    """
    chosen = limited(pack.split(split), limit)
    texts = [text for i in chosen for text in pack.rows[i]["captions"]]
    owner = [row for row, i in enumerate(chosen) for _ in pack.rows[i]["captions"]]
    if not texts:
        raise InputError(f"{pack.path}: no picture of the split {split!r} has a caption")
    image = encode_pictures(encoder, pack, chosen, progress=progress)
    text, shortened = encode_sentences(encoder, texts, progress=progress)
    return replace(retrieval_scores(image, text, owner), shortened=shortened)


def evaluate_zero_shot(
    encoder: Encoder, pack: ImageTextPack, split: str, *, limit: int | None = None, progress: StepCallback | None = None
) -> ClassificationScores:
    """Classification of the pictures of a labelled split by words alone, among all labels of the pack.

    A class is the mean of the unit vectors of its label and its synonyms, each through the card's templates, brought
    back to unit length (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
    arXiv 2103.00020, section 3.1.4).

    Raises:
        PackError, EncodingFailed, and what the encoder raises.
        InputError: a pack without labels, or a limit below 1.
    """
    from encoders.cards import encode_with_templates

    names = class_names(pack)
    order = {label: c for c, label in enumerate(names)}
    chosen = limited(pack.split(split), limit)
    words = [word for synonyms in names.values() for word in synonyms]
    owner = [c for c, synonyms in enumerate(names.values()) for _ in synonyms]
    vectors = encode_with_templates(encoder.encode_text, words, encoder.info.card.label_templates).numpy()
    classes = np.zeros((len(names), vectors.shape[1]))
    np.add.at(classes, owner, vectors)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    image = encode_pictures(encoder, pack, chosen, progress=progress)
    return classification_scores(image, classes, [order[pack.rows[i]["label"]] for i in chosen])


def class_names(pack: ImageTextPack) -> dict[str, list[str]]:
    """Each label of a pack with all its words (itself first, then synonyms), in order of first appearance.

    Raises:
        InputError: for a pack without labels.
    """
    if not pack.labelled:
        raise InputError(f"{pack.path}: not every picture has a label, so there are no classes to choose from")
    names: dict[str, list[str]] = {}
    for row in pack.rows:
        known = names.setdefault(row["label"], [row["label"]])
        known += [word for word in row.get("synonyms", []) if word not in known]
    return names


def encode_pictures(
    encoder: Encoder, pack: ImageTextPack, indices: Sequence[int], *, progress: StepCallback | None = None
) -> npt.NDArray[np.float32]:
    """Embeddings ``[I, D]`` of pictures of a pack, in the order of ``indices``."""
    result = np.zeros((len(indices), encoder.info.dimension), np.float32)
    done = 0
    for rows, pictures in same_size(pack, indices, encoder.info.frames_at_once):
        result[rows] = encoder.encode(pictures).embedding.numpy()
        done += len(rows)
        if progress is not None:
            progress("pictures", done, len(indices))
    return result


def encode_sentences(
    encoder: Encoder, texts: Sequence[str], *, progress: StepCallback | None = None
) -> tuple[npt.NDArray[np.float32], int]:
    """Vectors ``[T, D]`` of sentences as queries, and how many were longer than the model reads.

    Those lose whole words at their end until they fit: a test set is not ours to choose, and what its longest sentences
    say stands at their start. Everywhere else a text too long stays an error.
    """
    from encoders.errors import TextTooLong

    result = np.zeros((len(texts), encoder.info.dimension), np.float32)
    shortened = 0
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = list(texts[start : start + _TEXTS_AT_ONCE])
        try:
            result[start : start + len(some)] = encoder.encode_query(some).numpy()
        except TextTooLong:
            for row, text in enumerate(some, start):
                result[row], short = _fitting(encoder, text)
                shortened += short
        if progress is not None:
            progress("texts", start + len(some), len(texts))
    return result, shortened


def _fitting(encoder: Encoder, text: str) -> tuple[npt.NDArray[np.float32], bool]:
    """The vector ``[D]`` of as many of its words as fit, and whether that is not all of them."""
    from encoders.errors import TextTooLong

    words = text.split()
    count = len(words)
    while True:
        try:
            return encoder.encode_query([" ".join(words[:count])])[0].numpy(), count < len(words)
        except TextTooLong:
            if count == 1:
                raise
            count -= 1


def same_size(
    pack: ImageTextPack, indices: Sequence[int], most: int
) -> Iterator[tuple[list[int], npt.NDArray[np.uint8]]]:
    """Pictures as arrays ``[T, H, W, 3]`` of at most ``most`` of one size, each with its T places in ``indices``."""

    def size(row: int) -> tuple[int, int]:
        return pack.rows[indices[row]]["h"], pack.rows[indices[row]]["w"]

    for _, alike in groupby(sorted(range(len(indices)), key=size), key=size):
        rows = list(alike)
        for start in range(0, len(rows), most):
            some = rows[start : start + most]
            yield some, np.stack([pack.picture(indices[row]) for row in some])


def limited(indices: list[int], limit: int | None) -> list[int]:
    """The first ``limit`` of them.

    Raises:
        InputError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: must be at least 1")
    return indices[:limit]
