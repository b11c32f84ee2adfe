"""Asks compressed token sets in words: what recall costs when the patch tokens are compressed.

A library is searched by fused frame embeddings, which no token budget touches. To see what a token set still knows, a
segment's frame embeddings are read back out of it: at the time of a frame, the tokens whose spans cover it (the nearest
in time where none does), each by its weight for a second of its span, are averaged, and one linear map takes this mean
to the joint space. The embeddings read out so are fused, indexed and asked as the model's own ones are, so that the
loss shows in the same measures. The map is fitted once for a model and a library, by ridge regression from the mean of
all the patch tokens of a frame to its embedding, before anything is compressed and without any question: the penalty is
the one that predicts left-out frames best (generalised cross-validation: G. Golub, M. Heath, G. Wahba, "Generalized
cross-validation as a method for choosing a good ridge parameter", 1979). A model whose embedding is no linear function
of its mean token loses something by the map alone: the figures at all tokens say how much.

Shapes: T frames, m merged tokens, d width of a patch token, D width of the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.evaluation.tape import Tape, TapedPart, frame_spans
from pipeline.fuse import VectorOptions, fuse_vectors
from pipeline.media import PartResult

if TYPE_CHECKING:
    from csat_fusion import TokenSet

__all__ = ["TokenReadout", "fit_readout", "read_out", "token_means"]

_PENALTIES = np.logspace(-6, 2, 25)  # of the mean square of a feature
_CHUNK = 256  # frames that are read from the tape at once


@dataclass(frozen=True)
class TokenReadout:
    """``matrix [d, D]`` and ``offset [D]`` from a mean token to an embedding.

    ``cosine`` is the mean cosine, over the frames that it was fitted on, of what it gives to the model's embeddings.
    """

    matrix: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    cosine: float

    def embed(self, mean_tokens: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """``[T, d]`` -> ``[T, D]`` of unit length."""
        return _unit(mean_tokens @ self.matrix + self.offset).astype(np.float32)


def fit_readout(tape: Tape) -> TokenReadout:
    """The map of a tape with tokens.

    Raises:
        InputError: the tape has no tokens, or fewer than two frames.
    """
    if tape.tokens is None or len(tape) < 2:
        raise InputError(f"{tape.folder}: a tape with tokens of two frames or more is needed, this has {len(tape)}")
    chunks = [np.asarray(tape.tokens[i : i + _CHUNK], np.float64).mean(axis=1) for i in range(0, len(tape), _CHUNK)]
    mean = np.concatenate(chunks)
    target = np.asarray(tape.embedding, np.float64)
    centre, middle = mean.mean(axis=0), target.mean(axis=0)
    x, y = mean - centre, target - middle
    # One decomposition serves every penalty.
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    uty = u.T @ y
    rest = float((y**2).sum() - (uty**2).sum())  # what no penalty reaches
    size = float((x**2).mean()) * len(x) or 1.0
    best, least = _PENALTIES[-1], np.inf
    for penalty in _PENALTIES:
        shrink = s**2 / (s**2 + penalty * size)
        error = float((((1 - shrink)[:, None] * uty) ** 2).sum()) + max(rest, 0.0)
        free = 1.0 - (shrink.sum() + 1) / len(x)  # the offset takes one
        score = error / free**2 if free > 0 else np.inf
        if score < least:
            best, least = penalty, score
    matrix = vt.T @ ((s / (s**2 + best * size))[:, None] * uty)
    readout = TokenReadout(matrix, middle - centre @ matrix, 0.0)
    cosine = float((readout.embed(mean) * _unit(target)).sum(axis=1).mean())
    return replace(readout, cosine=cosine)


def token_means(
    tokens: TokenSet, start_seconds: npt.NDArray[np.float64], end_seconds: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """``[T, d]``: for each frame that stands for ``[start_seconds, end_seconds) [T]``, the mean of the tokens that
    cover its middle."""
    middle = (start_seconds + end_seconds)[:, None] / 2  # [T, 1]
    first = tokens.start_seconds.numpy()
    last = tokens.end_seconds.numpy()
    away = np.maximum(np.maximum(first - middle, middle - last), 0.0)  # [T, m]
    inside = (first <= middle) & (middle < last)
    nearest = away <= away.min(axis=1, keepdims=True)
    claims = np.where(inside.any(axis=1, keepdims=True), inside, nearest)
    share = claims * (tokens.weight.numpy().astype(np.float64) / (last - first))
    means: npt.NDArray[np.float64] = share @ tokens.tokens.double().numpy() / share.sum(axis=1, keepdims=True)
    return means


def read_out(part: TapedPart, result: PartResult, readout: TokenReadout, options: VectorOptions) -> PartResult:
    """``result`` with vectors that are read out of its segments' token sets, fused as ``options`` say.

    Raises:
        InputError: a segment without a token set.
    """
    from csat_fusion import TokenSet

    frames = {number: facts for number, _, facts in frame_spans(part)}
    segments = []
    for segment in result.segments:
        if segment.tokens is None:
            raise InputError(f"segment {segment.index} of {result.summary.info.uri} has no token set to be read")
        start, end, weight = frames[segment.index].T
        kept = TokenSet.from_bytes(segment.tokens.payload)
        embedding = readout.embed(token_means(kept, start, end))
        vectors = fuse_vectors(embedding, weight.astype(np.float32), start.copy(), end.copy(), options)
        segments.append(replace(segment, vectors=vectors))
    return replace(result, segments=tuple(segments))


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = rows / np.maximum(length, 1e-12)
    return unit
