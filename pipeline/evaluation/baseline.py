"""The plain way to search video, to be beaten: cut it into windows and let the mean of each stand for it.

The windows are the library's own segments; one that is longer than ``longest_seconds`` is cut into equal pieces that
are not. A window's vector is the mean of the library's vectors inside it, by the weight and the share of each that lies
there, of unit length; the answer is the window of the highest cosine, its peak the middle.

Shapes: W windows, V vectors, D width of the joint space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import OptionError
from pipeline.media import Span

if TYPE_CHECKING:
    from pipeline.catalog import Catalog

__all__ = ["LONGEST_SECONDS", "PooledVideo", "PooledWindows", "pool_video", "windows_of"]

LONGEST_SECONDS = 10.0
"""What a pooled window may last: about what the moments of everyday questions do."""


class PooledVideo:
    """The windows of a video: ``spans`` and ``embedding [W, D]`` float32, of unit length."""

    def __init__(self, video: str, spans: Sequence[Span], embedding: npt.NDArray[np.float32]) -> None:
        self.video, self.spans, self.embedding = video, tuple(spans), embedding


class PooledWindows:
    """The windows of many videos, to be asked."""

    def __init__(self, pooled: Sequence[PooledVideo]) -> None:
        self._spans = [(each.video, span) for each in pooled for span in each.spans]
        filled = [each.embedding for each in pooled if len(each.embedding)]
        self._embedding = np.concatenate(filled) if filled else np.zeros((0, 0), dtype=np.float32)
        self._video = np.array([video for video, _ in self._spans])

    def nearest(
        self, query: npt.NDArray[np.float32], limit: int, video: str | None = None
    ) -> list[tuple[str, Span, float]]:
        """Video, span and cosine of the ``limit`` windows nearest to ``query [D]``, of one video or of all.

        Best first; equal ones in the order of videos and time.
        """
        mine = np.arange(len(self._spans)) if video is None else np.flatnonzero(self._video == video)
        if not len(mine):
            return []
        scores = self._embedding[mine] @ (query / np.linalg.norm(query))
        order = np.argsort(-scores, kind="stable")[:limit]
        return [(*self._spans[mine[i]], float(scores[i])) for i in order]


def windows_of(segments: Sequence[Span], longest_seconds: float) -> list[Span]:
    """``segments``, those longer than ``longest_seconds`` in equal pieces.

    Raises:
        OptionError: a length that is not above 0.
    """
    if not longest_seconds > 0:
        raise OptionError(f"pooled windows of {longest_seconds} s: must be longer than 0")
    found: list[Span] = []
    for segment in segments:
        pieces = max(1, math.ceil(segment.duration_seconds / longest_seconds - 1e-9))
        edges = np.linspace(segment.start_seconds, segment.end_seconds, pieces + 1)
        found.extend(Span(float(a), float(b)) for a, b in pairwise(edges))
    return found


def pool_video(catalog: Catalog, video_id: str, longest_seconds: float = LONGEST_SECONDS) -> PooledVideo:
    """The pooled windows of a video; those in which no vector lies are left out."""
    rows = catalog.vectors_of(video_id)
    windows = windows_of([segment.span for segment in catalog.segments_of(video_id)], longest_seconds)
    if not len(rows) or not windows:
        return PooledVideo(video_id, (), np.zeros((0, rows.embedding.shape[1]), dtype=np.float32))
    start = np.array([w.start_seconds for w in windows])[:, None]
    end = np.array([w.end_seconds for w in windows])[:, None]
    shared = np.minimum(end, rows.end_seconds) - np.maximum(start, rows.start_seconds)  # [W, V]
    share = np.maximum(shared, 0.0) / (rows.end_seconds - rows.start_seconds) * rows.weight
    mean = share @ rows.embedding.astype(np.float64)
    length = np.linalg.norm(mean, axis=1)
    kept = np.flatnonzero(length > 0)
    return PooledVideo(video_id, [windows[i] for i in kept], (mean[kept] / length[kept, None]).astype(np.float32))
