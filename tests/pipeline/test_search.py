"""From vectors to moments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog, video_id_for
from pipeline.errors import OptionError, QueryError
from pipeline.index import VectorIndex
from pipeline.index_kinds import unit_rows
from pipeline.media import PartResult, SegmentRecord, Span, VectorBlock, WatchSummary
from pipeline.search import Filter, Moment, SearchOptions, grow, search
from tests.catalog.content import DIMENSION, media_info

E = np.eye(DIMENSION, dtype=np.float32)


def put(
    catalog: Catalog, uri: str, embedding: np.ndarray, seconds: np.ndarray | float = 1.0, start: float = 0.0
) -> str:
    """A video whose vectors ``[V, D]`` follow each other, each ``seconds`` long."""
    lengths = np.broadcast_to(np.asarray(seconds, dtype=np.float64), len(embedding))
    ends = start + np.cumsum(lengths)
    block = VectorBlock(
        unit_rows(embedding).astype(np.float16), ends - lengths, ends, np.ones(len(embedding), dtype=np.float32)
    )
    span = Span(start, float(ends[-1]))
    video = video_id_for(uri)
    (part,) = catalog.plan_video(video, uri, uri.rsplit("/", 1)[-1], [], None, "f", "r", media_info(uri), [span])
    summary = WatchSummary(media_info(uri), "decord", "", span)
    catalog.commit_part(part.id, PartResult((SegmentRecord(0, span, "end", block),), summary))
    catalog.finish_video(video)
    return video


def ask(catalog: Catalog, folder: Path, query: np.ndarray, **options: object) -> list[Moment]:
    with VectorIndex.open(folder, catalog, DIMENSION) as index:
        background = catalog.sample_vectors(500)
        return search(catalog, index, query, background=background, **options)  # type: ignore[arg-type]


def scenes(*numbers: int, each: int = 5, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.repeat(E[list(numbers)], each, axis=0)
    return unit_rows(rows + noise * rng.standard_normal(rows.shape).astype(np.float32))


def test_a_moment_is_the_scene(catalog: Catalog, tmp_path: Path) -> None:
    video = put(catalog, "/v/a.mp4", scenes(0, 1, 2, 1))
    other = put(catalog, "/v/b.mp4", scenes(3, 4))
    first, second = ask(catalog, tmp_path, E[1], limit=2)
    spans = {(moment.start_seconds, moment.end_seconds) for moment in (first, second)}
    assert spans == {(5.0, 10.0), (15.0, 20.0)}
    assert first.video == second.video == video
    assert (first.uri, first.name, first.caption) == ("/v/a.mp4", "a.mp4", None)
    assert (first.visual_rank, second.visual_rank, first.caption_rank) == (1, 2, None)
    assert 0.97 < second.score <= first.score <= 1.001
    assert first.start_seconds <= first.peak_seconds < first.end_seconds
    (found,) = ask(catalog, tmp_path, E[4], limit=1)
    assert (found.video, found.start_seconds, found.end_seconds) == (other, 5.0, 10.0)
    assert set(found.to_dict()) == {
        "video", "uri", "name", "start_seconds", "end_seconds", "peak_seconds", "score", "percentile", "caption",
        "utc_start", "visual_rank", "caption_rank",
    }  # fmt: skip


def test_the_best_score_is_the_true_maximum(catalog: Catalog, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((60, DIMENSION))
    put(catalog, "/v/a.mp4", rows)
    stored = catalog.vectors_since(0, 100).embedding
    for query in rng.standard_normal((5, DIMENSION)):
        best = (unit_rows(stored) @ unit_rows(query[None])[0]).max()
        moments = ask(catalog, tmp_path, query * 7)  # the length of a query does not matter
        assert moments[0].score == pytest.approx(float(best), abs=1e-6)
        assert [m.score for m in moments] == sorted((m.score for m in moments), reverse=True)


def test_one_long_scene_does_not_hide_the_others(catalog: Catalog, tmp_path: Path) -> None:
    put(catalog, "/v/long.mp4", scenes(0, each=900, noise=0.01))
    late = put(catalog, "/v/late.mp4", scenes(0, 5, each=3, noise=0.3))
    moments = ask(catalog, tmp_path, E[0], limit=100)  # more than the first candidates give
    assert late in {moment.video for moment in moments}
    long = [moment for moment in moments if moment.video != late]
    assert len(long) >= 15  # no moment is longer than a minute
    assert sum(moment.end_seconds - moment.start_seconds for moment in long) == pytest.approx(900)
    assert len(ask(catalog, tmp_path, E[0], limit=3)) == 3


def test_a_static_hour_stays_whole_and_gaps_are_not_joined(catalog: Catalog, tmp_path: Path) -> None:
    put(catalog, "/v/static.mp4", scenes(0, 1, each=1), seconds=np.array([3600.0, 5.0]))
    (moment,) = ask(catalog, tmp_path, E[0], limit=1)
    assert (moment.start_seconds, moment.end_seconds) == (0.0, 3600.0)
    spans = [Span(0, 1), Span(1, 2), Span(5, 6)]
    options = SearchOptions(gap_seconds=1.0)
    assert grow(spans, [0.9, 1.0, 0.9], spans[1], 0.5, [], options) == Span(0, 2)
    assert grow(spans, [0.9, 1.0, 0.9], spans[1], 0.5, [], SearchOptions(gap_seconds=3)) == Span(0, 6)


def test_growing_stops() -> None:
    spans = [Span(i, i + 1) for i in range(10)]
    scores = [0.9, 0.2, 0.9, 0.95, 1.0, 0.9, 0.8, 0.1, 0.9, 0.9]
    options = SearchOptions()
    assert grow(spans, scores, spans[4], 0.5, [], options) == Span(2, 7)  # where the score falls
    assert grow(spans, scores, spans[4], 0.85, [], options) == Span(2, 6)
    assert grow(spans, scores, spans[4], 0.5, [Span(2.5, 2.6)], options) == Span(3, 7)  # at what is taken
    assert grow(spans, scores, spans[4], 0.0, [], SearchOptions(longest_seconds=3)) == Span(2, 5)  # the better first
    assert grow([], [], Span(3, 4), 0.5, [], options) == Span(3, 4)


def test_filters(catalog: Catalog, tmp_path: Path) -> None:
    a = put(catalog, "/v/a.mp4", scenes(0, 1))
    b = put(catalog, "/v/b.mp4", scenes(0, 2))
    for scan_limit in (0, 20_000):  # through the index, and without it
        options = SearchOptions(scan_limit=scan_limit)
        found = ask(catalog, tmp_path, E[0], where=Filter(video_id=b), options=options)
        assert {moment.video for moment in found} == {b}
        found = ask(catalog, tmp_path, E[0], where=Filter(start_seconds=3.5, end_seconds=7), options=options)
        assert {moment.video for moment in found} == {a, b}
        assert all(3.5 <= moment.start_seconds < moment.end_seconds <= 7 for moment in found)
        assert all(moment.start_seconds <= moment.peak_seconds < moment.end_seconds for moment in found)
        assert ask(catalog, tmp_path, E[0], where=Filter(tag="none"), options=options) == []
        assert ask(catalog, tmp_path, E[0], where=Filter(start_seconds=1000), options=options) == []
        assert len(ask(catalog, tmp_path, E[0], where=Filter(tag=None), limit=1, options=options)) == 1


def test_nothing_to_find(catalog: Catalog, tmp_path: Path) -> None:
    assert ask(catalog, tmp_path, E[0]) == []
    video = put(catalog, "/v/a.mp4", scenes(0))
    with VectorIndex.open(tmp_path, catalog, DIMENSION) as index:
        catalog.remove_video(video)  # and the index has not followed yet
        assert search(catalog, index, E[0]) == []


@pytest.mark.parametrize("bad", [np.zeros(DIMENSION), np.full(DIMENSION, np.inf), np.ones((1, DIMENSION))])
def test_bad_queries(catalog: Catalog, tmp_path: Path, bad: np.ndarray) -> None:
    put(catalog, "/v/a.mp4", scenes(0))
    with pytest.raises(QueryError, match="finite vector"):
        ask(catalog, tmp_path, bad)
    with pytest.raises(QueryError, match="limit 0"):
        ask(catalog, tmp_path, E[0], limit=0)
    with pytest.raises(QueryError, match="has 8 values, got 5"):
        ask(catalog, tmp_path, np.ones(5))


@pytest.mark.parametrize(
    "bad",
    [{"fall": 1.5}, {"oversample": 0}, {"longest_seconds": 0}, {"gap_seconds": -1}, {"gap_seconds": float("nan")}],
)
def test_bad_options(bad: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="search"):
        SearchOptions(**bad)  # type: ignore[arg-type]


videos_strategy = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 90), st.floats(0, 5)), min_size=1, max_size=25),
    min_size=1,
    max_size=3,
)


@given(
    videos=videos_strategy,
    limit=st.integers(1, 12),
    fall=st.floats(0, 1),
    gap=st.floats(0, 10),
    window=st.one_of(st.none(), st.tuples(st.floats(0, 100), st.floats(1, 100))),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_moments_never_overlap(
    tmp_path_factory: pytest.TempPathFactory,
    videos: list[list[tuple[int, float, float]]],
    limit: int,
    fall: float,
    gap: float,
    window: tuple[float, float] | None,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("search")
    rng = np.random.default_rng(seed)
    where = Filter() if window is None else Filter(start_seconds=window[0], end_seconds=sum(window))
    with Catalog(folder / "c.sqlite3", dimension=DIMENSION) as catalog:
        ends = {}
        for i, rows in enumerate(videos):
            kinds, lengths, noise = zip(*rows, strict=True)
            vectors = E[list(kinds)] + np.array(noise)[:, None] * 0.1 * rng.standard_normal((len(rows), DIMENSION))
            ends[put(catalog, f"/{i}.mp4", vectors, np.array(lengths))] = sum(lengths)
        options = SearchOptions(fall=fall, gap_seconds=gap)
        moments = ask(catalog, folder / "index", E[0], limit=limit, options=options, where=where)
    assert len(moments) <= limit
    assert [m.score for m in moments] == sorted((m.score for m in moments), reverse=True)
    for moment in moments:
        assert 0 <= moment.start_seconds <= moment.peak_seconds < moment.end_seconds <= ends[moment.video] + 1e-6
        if window is not None:
            assert window[0] <= moment.start_seconds
            assert moment.end_seconds <= sum(window)
    for left, right in combinations(moments, 2):
        if left.video == right.video:
            assert not Span(left.start_seconds, left.end_seconds).overlaps(Span(right.start_seconds, right.end_seconds))
    if window is None:
        assert moments  # something is always nearest


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=DIMENSION) as opened:
        yield opened
