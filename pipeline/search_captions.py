"""Search by what captions say, alone or together with what is seen.

Two rankings become one by reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009): a moment scores the sum of
``1 / (60 + rank)`` over the rankings that have it. Ranks can be added where cosines and BM25 cannot, and there is
nothing to tune. A caption and a visual moment of one video that overlap are one moment, with the visual one's times,
which are the finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.catalog.filters import Filter
from pipeline.media import Span
from pipeline.search import Moment, cut_to

if TYPE_CHECKING:
    from pipeline.catalog.catalog import Catalog

__all__ = ["FUSED_RANKS", "caption_moments", "fuse"]

FUSED_RANKS = 50  # of each ranking; the next one would add less than 1/110
_K = 60  # the constant of the paper: how much the first ranks stand out
_MORE = 4  # captions that overlap a better one of their video make no moment


def caption_moments(catalog: Catalog, text: str, *, limit: int = 10, where: Filter | None = None) -> list[Moment]:
    """The moments whose captions have any of these words, best first; no two of one video overlap.

    The score is that of the full-text search: it compares answers to one question only.

    Raises:
        QueryError: a limit below 1.
    """
    where = where or Filter()
    count = limit
    while True:
        hits = catalog.search_captions(text, where, count)
        names = catalog.names_of({hit.caption.video_id for hit in hits})
        places = catalog.places(where, sorted(names))
        found: list[Moment] = []
        taken: dict[str, list[Span]] = {}
        for hit in hits:
            video = hit.caption.video_id
            cut = cut_to(hit.caption.span, video, places)
            if video not in names or cut is None:
                continue
            span, others = cut[0], taken.setdefault(video, [])
            if any(span.overlaps(other) for other in others):
                continue
            others.append(span)
            found.append(
                Moment(
                    video=video,
                    uri=names[video][0],
                    name=names[video][1],
                    start_seconds=span.start_seconds,
                    end_seconds=span.end_seconds,
                    peak_seconds=(span.start_seconds + span.end_seconds) / 2,
                    score=hit.score,
                    caption=hit.caption.text,
                    caption_rank=len(found) + 1,
                )
            )
        if len(found) >= limit or len(hits) < count:
            return found[:limit]
        count *= _MORE


def fuse(seen: Sequence[Moment], said: Sequence[Moment], limit: int) -> list[Moment]:
    """One ranking of two: what is seen and what captions say. No two moments of one video overlap.

    Args:
        seen, said: each best first, without overlaps; their ranks are their places.
        limit: how many at most.
    """
    found: list[Moment] = []
    used: set[int] = set()
    for rank, moment in enumerate(seen, 1):
        near = [i for i, other in enumerate(said) if _overlap(moment, other)]
        used.update(near)
        # The best rank counts, once: a long moment has many captions, and is not better for that.
        words = said[near[0]] if near else None
        found.append(
            replace(
                moment,
                score=_score(rank) + (_score(near[0] + 1) if near else 0.0),
                caption=moment.caption if words is None else words.caption,
                visual_rank=rank,
                caption_rank=near[0] + 1 if near else None,
            )
        )
    for i, moment in enumerate(said):
        if i not in used:
            found.append(replace(moment, score=_score(i + 1), visual_rank=None, caption_rank=i + 1))
    # Of equals, what is seen goes first: everything can be seen, not everything is said.
    found.sort(key=lambda one: (-one.score, one.visual_rank or len(seen) + 1, one.caption_rank or 0))
    return found[:limit]


def _score(rank: int) -> float:
    return 1.0 / (_K + rank)


def _overlap(left: Moment, right: Moment) -> bool:
    return left.video == right.video and left.span.overlaps(right.span)
