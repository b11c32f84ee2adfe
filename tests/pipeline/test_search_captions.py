"""What captions say, and both rankings as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalog import Catalog
from pipeline.errors import QueryError
from pipeline.index import VectorIndex
from pipeline.live.types import Connection
from pipeline.media import Span
from pipeline.search import Filter, Moment, cut_to, search
from pipeline.search_captions import caption_moments, fuse
from tests.catalog.content import DIMENSION, caption, open_stream, put_window
from tests.catalog.test_streams import NOON


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=DIMENSION) as opened:
        yield opened


def said(catalog: Catalog, *scenes: tuple[str, float, float, str], uri: str = "rtsp://cam/1") -> str:
    """A stream of ten windows of ten seconds, with these captions (text, start, end, model)."""
    video = open_stream(catalog, uri)
    catalog.add_connection(video, Connection(0, 0.0, NOON))
    windows = [put_window(catalog, video, i, 10.0 * i, 10.0 * i + 10.0) for i in range(10)]
    for text, start, end, model in scenes:
        catalog.add_caption(windows[int(start // 10)].segment_id, caption(video, text, start, end, model))
    return video


def places(moments: list[Moment]) -> list[tuple[float, float]]:
    return [(moment.start_seconds, moment.end_seconds) for moment in moments]


def test_captions_become_moments(catalog: Catalog) -> None:
    video = said(catalog, ("a red kite", 0, 10, "m"), ("a dog", 10, 20, "m"), ("a kite and a red dog", 50, 60, "m"))
    moments = caption_moments(catalog, "red dogs")
    assert places(moments)[0] == (50.0, 60.0)
    assert set(places(moments)) == {(0.0, 10.0), (10.0, 20.0), (50.0, 60.0)}
    first = moments[0]
    assert (first.video, first.uri, first.name, first.peak_seconds) == (video, "rtsp://cam/1", "gate", 55.0)
    assert (first.caption, first.percentile, first.visual_rank) == ("a kite and a red dog", None, None)
    assert [moment.caption_rank for moment in moments] == [1, 2, 3]
    assert [moment.score for moment in moments] == sorted((moment.score for moment in moments), reverse=True)
    assert places(caption_moments(catalog, "red dogs", limit=1)) == [(50.0, 60.0)]
    assert caption_moments(catalog, "zebra") == caption_moments(catalog, "🐕") == []
    with pytest.raises(QueryError, match="limit 0"):
        caption_moments(catalog, "dog", limit=0)


def test_two_tracks_of_one_scene_are_one_moment(catalog: Catalog) -> None:
    said(
        catalog,
        *[("a dog sleeps", 0.0, 100.0, f"model{i}") for i in range(8)],  # each says the same of a still scene
        ("a dog", 80.0, 90.0, "m"),
        ("the dog and a cat, and a bird, and a man", 0.0, 10.0, "n"),
        uri="rtsp://cam/still",
    )
    other = said(catalog, ("here is a big brown dog on a small table", 30.0, 40.0, "m"))
    moments = caption_moments(catalog, "dog", limit=2)
    assert len(moments) == 2, "it looks further when the best captions fall together"
    assert {moment.video for moment in moments} >= {other}


def test_moments_are_cut_to_what_was_asked(catalog: Catalog) -> None:
    video = said(catalog, ("a dog", 0.0, 10.0, "m"), ("dogs", 20.0, 60.0, "m"))
    where = Filter(video_id=video, start_seconds=5.0, end_seconds=25.0)
    assert sorted(places(caption_moments(catalog, "dog", where=where))) == [(5.0, 10.0), (20.0, 25.0)]
    where = Filter(after=NOON + timedelta(seconds=33))
    (moment,) = caption_moments(catalog, "dog", where=where)
    assert places([moment]) == [(33.0, 60.0)]
    assert moment.start_seconds <= moment.peak_seconds < moment.end_seconds
    assert caption_moments(catalog, "dog", where=Filter(after=NOON + timedelta(seconds=61))) == []


def test_what_is_seen_is_cut_to_what_was_recorded_later(catalog: Catalog, tmp_path: Path) -> None:
    video = said(catalog)
    with VectorIndex.open(tmp_path / "index", catalog, DIMENSION) as index:
        query = catalog.vectors_of(video).embedding[7].astype(np.float32)  # of [35, 40)
        everything = search(catalog, index, query, limit=1)
        (moment,) = search(catalog, index, query, limit=1, where=Filter(after=NOON + timedelta(seconds=37)))
        assert (everything[0].start_seconds, moment.start_seconds) == (35.0, 37.0)
        assert moment.score == pytest.approx(1.0, abs=1e-3)
        assert moment.start_seconds <= moment.peak_seconds < moment.end_seconds
        (moment,) = search(catalog, index, query, limit=1, where=Filter(after=NOON + timedelta(seconds=93)))
        assert 93.0 <= moment.start_seconds < moment.end_seconds <= 100.0
        assert search(catalog, index, query, where=Filter(after=NOON + timedelta(hours=1))) == []


def test_the_longest_part_of_a_span_counts() -> None:
    span = Span(0.0, 10.0)
    places = {"v": [Span(0.0, 2.0), Span(4.0, 20.0)], "w": []}
    assert cut_to(span, "v", places) == (Span(4.0, 10.0), Span(4.0, 20.0))
    assert cut_to(span, "v", {"v": [Span(10.0, 11.0)]}) is None
    assert cut_to(span, "w", places) is cut_to(span, "x", places) is None
    assert cut_to(span, "v", None) == (span, None)


def moment(video: str, start: float, end: float, **values: object) -> Moment:
    return replace(Moment(video, video, video, start, end, (start + end) / 2, 0.5), **values)  # type: ignore[arg-type]


def test_ranks_add_up() -> None:
    seen = [moment("a", 0, 10, percentile=50.0), moment("b", 0, 10), moment("a", 20, 30)]
    heard = [moment("c", 0, 10, caption="one"), moment("b", 5, 40, caption="two"), moment("a", 40, 50, caption="three")]
    found = fuse(seen, heard, 10)
    assert [(one.video, one.start_seconds) for one in found] == [("b", 0), ("a", 0), ("c", 0), ("a", 20), ("a", 40)]
    both, first, second, third, fourth = found
    assert both.score == 1 / 62 + 1 / 62
    assert (both.end_seconds, both.caption, both.visual_rank, both.caption_rank) == (10, "two", 2, 2)
    assert (first.score, first.percentile, first.visual_rank, first.caption_rank) == (1 / 61, 50.0, 1, None)
    assert (second.score, second.caption, second.visual_rank, second.caption_rank) == (1 / 61, "one", None, 1)
    assert third.score == fourth.score == 1 / 63, "of equals, what is seen goes first"
    assert fuse(seen, heard, 2) == found[:2]
    assert fuse([], [], 5) == []
    assert [one.score for one in fuse(seen, [], 5)] == [1 / 61, 1 / 62, 1 / 63]


def test_a_long_moment_is_not_better_for_its_many_captions() -> None:
    seen = [moment("a", 0, 100)]
    heard = [moment("a", 10 * i, 10 * i + 10) for i in range(10)]
    (found,) = fuse(seen, heard, 10)
    assert (found.score, found.caption_rank) == (2 / 61, 1)


def lists() -> st.SearchStrategy[list[Moment]]:
    """Moments of three videos of which none overlap, in any order."""

    def cut(drawn: list[tuple[str, int, int]]) -> list[Moment]:
        ends: dict[str, int] = {}
        found = []
        for video, gap, length in drawn:
            start = ends.get(video, 0) + gap
            ends[video] = start + length
            found.append(moment(video, start, start + length))
        return found

    drawn = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 20)), max_size=12)
    return drawn.map(cut).flatmap(st.permutations)


@given(seen=lists(), heard=lists(), limit=st.integers(1, 30))
def test_laws_of_fusion(seen: list[Moment], heard: list[Moment], limit: int) -> None:
    found = fuse(seen, heard, limit)
    assert len(found) <= limit
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for left, right in combinations(found, 2):
        assert left.video != right.video or not left.span.overlaps(right.span)
    everything = fuse(seen, heard, 100)
    assert everything[:limit] == found
    assert sorted(one.visual_rank for one in everything if one.visual_rank) == list(range(1, len(seen) + 1))
    for one in everything:
        ranks = [rank for rank in (one.visual_rank, one.caption_rank) if rank is not None]
        assert one.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
        source = seen[one.visual_rank - 1] if one.visual_rank else heard[(one.caption_rank or 0) - 1]
        assert (source.video, source.span) == (one.video, one.span)
    for i, one in enumerate(heard):  # nothing that was said is lost
        at_least = [other for other in everything if other.video == one.video and other.span.overlaps(one.span)]
        assert at_least
        assert max(other.score for other in at_least) >= 1 / (60 + i + 1) - 1e-12
