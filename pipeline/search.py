"""From a query vector to moments: near vectors are found, their neighbours in time joined, overlaps kept out.

Shapes: D width of the joint space, N vectors of a stretch of video, S sample of the library. Scores are cosines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.catalog.filters import Filter
from pipeline.catalog.records import CaptionRecord, VectorRows
from pipeline.errors import OptionError, QueryError
from pipeline.index_kinds import unit_rows
from pipeline.media import Span

if TYPE_CHECKING:
    from pipeline.calibration import Calibration
    from pipeline.catalog.catalog import Catalog

__all__ = ["Filter", "Moment", "SearchOptions", "cut_to", "grow", "search"]

Scores = npt.NDArray[np.float32]

_FIRST_CANDIDATES = 64
_ROUNDING = 1e-3  # two float16 forms of one vector differ by less


@dataclass(frozen=True)
class Moment:
    """An answer: the half-open span ``[start_seconds, end_seconds)`` of a video, and where in it the peak is.

    ``score`` is the peak's cosine with the query; ``percentile`` says of how many questions in a hundred that have no
    particular answer in this library the best answer is worse (``None`` where that cannot be told, see
    :mod:`pipeline.calibration`); ``caption`` gives the words kept for the peak, if any. ``utc_start`` is the wall clock
    at its start (ISO 8601), ``None`` where nobody knows when the video was recorded.

    ``visual_rank`` and ``caption_rank`` say which answer it was, from 1, to what is seen and to what captions say;
    where captions were asked, the score is another one (see :mod:`pipeline.search_captions`).
    """

    video: str
    uri: str
    name: str
    start_seconds: float
    end_seconds: float
    peak_seconds: float
    score: float
    percentile: float | None = None
    caption: str | None = None
    utc_start: str | None = None
    visual_rank: int | None = None
    caption_rank: int | None = None

    @property
    def span(self) -> Span:
        return Span(self.start_seconds, self.end_seconds)

    def to_dict(self) -> dict[str, Any]:
        """The moment as in the JSON contract."""
        return asdict(self)


@dataclass(frozen=True)
class SearchOptions:
    """How vectors become moments.

    Attributes:
        oversample: how many vectors to find for each moment asked for; neighbours in time will fall together.
        fall: a moment goes on while the score stays above ``peak - fall * (peak - background)``, where the background
            is the median score of the query over the library. 0 keeps the peak only, 1 everything above the median.
        gap_seconds: neighbours further apart than this are not joined.
        longest_seconds: a moment does not grow beyond this; a single vector that covers more stays whole.
        background_vectors: size of the sample that gives the background.
        scan_limit: a filter that leaves at most so many vectors is answered by comparing with all of them.
        confident_percentile: a moment of this percentile or above is a confident match.
    """

    oversample: int = 8
    fall: float = 0.25
    gap_seconds: float = 1.0
    longest_seconds: float = 60.0
    background_vectors: int = 1024
    scan_limit: int = 20_000
    confident_percentile: float = 90.0

    def __post_init__(self) -> None:
        if self.oversample < 1 or self.background_vectors < 1 or self.scan_limit < 0:
            raise OptionError("search: oversample and background_vectors must be at least 1, scan_limit not negative")
        if not 0 <= self.fall <= 1:
            raise OptionError(f"search fall {self.fall}: must be from 0 to 1")
        if not (self.gap_seconds >= 0 and self.longest_seconds > 0):
            raise OptionError("search: gap_seconds must not be negative, longest_seconds must be above 0")
        if not 0 <= self.confident_percentile <= 100:
            raise OptionError(f"search confident_percentile {self.confident_percentile}: must be from 0 to 100")

    def is_confident(self, moment: Moment) -> bool:
        """Whether a moment is a confident match; one without a percentile is not."""
        return moment.percentile is not None and moment.percentile >= self.confident_percentile


class SearchableIndex(Protocol):
    """What a search needs of the vector index."""

    def __len__(self) -> int: ...
    def search(
        self, queries: npt.NDArray[Any], k: int, allowed_ids: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.int64], Scores]: ...


def search(
    catalog: Catalog,
    index: SearchableIndex,
    query: npt.NDArray[Any],
    *,
    limit: int = 10,
    where: Filter | None = None,
    background: npt.NDArray[Any] | None = None,
    calibration: Calibration | None = None,
    options: SearchOptions | None = None,
) -> list[Moment]:
    """The moments nearest to a query, best first; no two of one video overlap.

    Args:
        catalog, index: of one library, the index up to date.
        query: ``[D]``, of any length above zero.
        limit: how many at most.
        where: what to look at.
        background: embeddings ``[S, D]`` sampled from the library: what an ordinary score is.
        calibration: of this library and kind of query: gives moments their percentiles; needs ``background``.

    Raises:
        QueryError: a query of another shape, of zero length or not finite, or a limit below 1.
    """
    options = options or SearchOptions()
    where = where or Filter()
    query = np.asarray(query, dtype=np.float32)
    if query.ndim != 1 or not np.isfinite(query).all() or not np.linalg.norm(query) > 0:
        raise QueryError(f"a query must be a finite vector [D] longer than zero, got shape {list(query.shape)}")
    if limit < 1:
        raise QueryError(f"limit {limit}: must be at least 1")
    if background is not None and len(background) and background.shape[1] != len(query):
        raise QueryError(f"a query of this library has {background.shape[1]} values, got {len(query)}")
    query = unit_rows(query[None])[0]
    if not len(index):
        return []
    level = _background_level(background, query)
    rate = None
    if calibration is not None and background is not None and len(background):
        rate = calibration.rating(query, background)
    found: list[Moment] = []
    for candidates in _candidates(catalog, index, query, limit, where, options):
        found = _moments(catalog, candidates, query, level, rate, limit, where, options)
        if len(found) >= limit:
            break
    return found


def _background_level(background: npt.NDArray[Any] | None, query: Scores) -> float:
    if background is None or not len(background):
        return 0.0
    return float(np.median(unit_rows(background) @ query))


def _candidates(
    catalog: Catalog, index: SearchableIndex, query: Scores, limit: int, where: Filter, options: SearchOptions
) -> Iterator[VectorRows]:
    """Nearest vectors, first some, then more: a video of one long scene may use up the first ones for a few moments."""
    count = max(_FIRST_CANDIDATES, limit * options.oversample)
    allowed = None
    total = len(index)
    if not where.is_empty:
        total = catalog.count_matching(where)
        if total <= options.scan_limit:
            ids, embedding = catalog.ids_and_embeddings_matching(where)
            order = ids[np.argsort(-(unit_rows(embedding) @ query), kind="stable")] if len(ids) else ids
            while True:
                yield catalog.vectors_by_id(order[:count])
                if count >= len(order):
                    return
                count *= 4
        allowed = catalog.ids_matching(where)
    while True:
        ids, _ = index.search(query[None], min(count, total), allowed)
        yield catalog.vectors_by_id(ids[0][ids[0] >= 0])
        if count >= total:
            return
        count *= 4


def _moments(
    catalog: Catalog,
    candidates: VectorRows,
    query: Scores,
    level: float,
    rate: Callable[[Scores], list[float]] | None,
    limit: int,
    where: Filter,
    options: SearchOptions,
) -> list[Moment]:
    if not len(candidates):
        return []
    # Scored again from the catalog, so that a score does not depend on the kind of index. Ties by place, so that the
    # same library always answers the same.
    units = unit_rows(candidates.embedding)
    scores = units @ query
    order = sorted(
        range(len(candidates)),
        key=lambda i: (-float(scores[i]), candidates.video[i], float(candidates.start_seconds[i])),
    )
    names = catalog.names_of(set(candidates.video))
    places = catalog.places(where, sorted(names))
    taken: dict[str, list[Span]] = {}
    found: list[Moment] = []
    for i in order:
        video = candidates.video[i]
        if len(found) >= limit:
            break
        if video not in names:  # removed a moment ago
            continue
        cut = cut_to(Span(float(candidates.start_seconds[i]), float(candidates.end_seconds[i])), video, places)
        others = taken.setdefault(video, [])
        if cut is None or any(cut[0].overlaps(other) for other in others):
            continue
        peak, place = cut
        window = Span(peak.start_seconds - options.longest_seconds, peak.end_seconds + options.longest_seconds)
        timeline = catalog.vectors_of(video, _clipped(window, place))
        spans, timeline_scores = _timeline(timeline, query, place)
        top = float(scores[i])
        floor = top - options.fall * max(top - level, 0.0) - _ROUNDING
        grown = grow(spans, timeline_scores, peak, floor, others, options)
        others.append(grown)
        uri, name = names[video]
        peak_seconds = (peak.start_seconds + peak.end_seconds) / 2
        found.append(
            Moment(
                video=video,
                uri=uri,
                name=name,
                start_seconds=grown.start_seconds,
                end_seconds=grown.end_seconds,
                peak_seconds=peak_seconds,
                score=top,
                percentile=None if rate is None else rate(units[i : i + 1])[0],
                caption=_caption(catalog, video, peak),
                visual_rank=len(found) + 1,
            )
        )
    return found


def _timeline(rows: VectorRows, query: Scores, clip: Span | None) -> tuple[list[Span], list[float]]:
    spans: list[Span] = []
    scores: list[float] = []
    if len(rows):
        for start, end, score in zip(
            rows.start_seconds, rows.end_seconds, unit_rows(rows.embedding) @ query, strict=True
        ):
            clipped = _clipped(Span(float(start), float(end)), clip)
            if clipped is not None:
                spans.append(clipped)
                scores.append(float(score))
    return spans, scores


def grow(
    spans: list[Span], scores: list[float], peak: Span, floor: float, taken: list[Span], options: SearchOptions
) -> Span:
    """Extend a peak over its neighbours in time, the better side first, while their scores stay at or above ``floor``.

    It stops at gaps, at moments already taken, and before becoming longer than allowed.

    Args:
        spans: of the vectors around the peak, in time order; ``scores`` are theirs.
        peak: where to start; it overlaps none of ``taken``.
    """
    start, end = peak.start_seconds, peak.end_seconds
    left = [i for i, span in enumerate(spans) if span.start_seconds < start]
    right = [i for i, span in enumerate(spans) if span.end_seconds > end and span.start_seconds >= start]

    def acceptable(i: int) -> bool:
        if scores[i] < floor:
            return False
        low, high = min(start, spans[i].start_seconds), max(end, spans[i].end_seconds)
        if spans[i].end_seconds < start - options.gap_seconds or spans[i].start_seconds > end + options.gap_seconds:
            return False
        return high - low <= options.longest_seconds and not any(Span(low, high).overlaps(other) for other in taken)

    while True:
        before = left[-1] if left and acceptable(left[-1]) else None
        after = right[0] if right and acceptable(right[0]) else None
        if before is None and after is None:
            return Span(start, end)
        if after is None or (before is not None and scores[before] >= scores[after]):
            chosen = left.pop()
        else:
            chosen = right.pop(0)
        start, end = min(start, spans[chosen].start_seconds), max(end, spans[chosen].end_seconds)


def cut_to(span: Span, video: str, places: dict[str, list[Span]] | None) -> tuple[Span, Span | None] | None:
    """The part of a span of a video that a filter looks at, and the place in which it lies; the longest where it lies
    in several. ``None`` when it lies in none.

    Args:
        places: from :meth:`pipeline.catalog.Catalog.places`.
    """
    if places is None:
        return span, None
    parts = ((_clipped(span, place), place) for place in places.get(video, ()))
    inside = [(part, place) for part, place in parts if part is not None]
    return max(inside, key=lambda one: one[0].duration_seconds, default=None)


def _clipped(span: Span, to: Span | None) -> Span | None:
    """The part of a span inside another, or ``None`` when there is none."""
    if to is None:
        return span
    start, end = max(span.start_seconds, to.start_seconds), min(span.end_seconds, to.end_seconds)
    return Span(start, end) if end > start else None


def _caption(catalog: Catalog, video: str, peak: Span) -> str | None:
    captions = catalog.captions_of(video, peak)
    if not captions:
        return None

    def shared(caption: CaptionRecord) -> float:
        part = _clipped(caption.span, peak)
        return part.duration_seconds if part else 0.0

    return max(captions, key=shared).text
