"""What was recorded after a time, before one, or between two: of streams by their connections, of files by their start
time."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import pipeline.catalog.filtering
from pipeline.catalog import Catalog
from pipeline.catalog.anchors import FOREVER_SECONDS, spans_between
from pipeline.catalog.filters import Filter
from pipeline.errors import QueryError
from pipeline.live.types import Connection, utc_at
from pipeline.media import Span
from tests.catalog.content import caption, media_info, open_stream, part_result, put_window
from tests.catalog.test_streams import NOON


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def file(catalog: Catalog, uri: str, start_time: datetime | None, seconds: float = 60.0) -> str:
    """A file with a vector every ten seconds."""
    span = Span(0, seconds)
    (part,) = catalog.plan_video(uri, uri, uri, [], start_time, "f", "r", media_info(uri, seconds), [span])
    catalog.commit_part(part.id, part_result(span, segments=1, vectors=round(seconds / 10)))
    catalog.finish_video(uri)
    return uri


def stream(catalog: Catalog, uri: str, *anchors: tuple[float, float], seconds: float = 60.0) -> str:
    """A stream with a vector and a caption every ten seconds; ``anchors`` are media times and seconds after noon."""
    video = open_stream(catalog, uri)
    for number, (start, utc) in enumerate(anchors):
        catalog.add_connection(video, Connection(number, start, later(utc)))
    for i in range(round(seconds / 10)):
        done = put_window(catalog, video, i, 10.0 * i, 10.0 * i + 10.0, vectors=1)
        catalog.add_caption(done.segment_id, caption(video, f"a dog in scene{i}", 10.0 * i, 10.0 * i + 10.0))
    return video


def seen(catalog: Catalog, where: Filter) -> dict[str, list[float]]:
    """Starts of the vectors that a filter lets through, by video; captions, where there are some, must agree."""
    rows = catalog.vectors_by_id(catalog.ids_matching(where).tolist())
    found: dict[str, list[float]] = {}
    for video, start in sorted(zip(rows.video, rows.start_seconds.tolist(), strict=True)):
        found.setdefault(video, []).append(start)
    assert catalog.count_matching(where) == len(rows)
    assert len(catalog.ids_and_embeddings_matching(where)[0]) == len(rows)
    said: dict[str, list[float]] = {}
    for hit in catalog.search_captions("dog", where, limit=1000):
        said.setdefault(hit.caption.video_id, []).append(hit.caption.span.start_seconds)
    assert {video: sorted(starts) for video, starts in said.items()} == {
        video: starts for video, starts in found.items() if catalog.captions_of(video)
    }
    return found


def test_files_and_streams(either: Catalog) -> None:
    early, during, late = (file(either, f"/{i}.mp4", later(start)) for i, start in enumerate((-600, -25, 100)))
    unknown = file(either, "/unknown.mp4", None)
    live = stream(either, "rtsp://cam/1", (0.0, -30.0), (40.0, 300.0))
    quiet = open_stream(either, "rtsp://cam/quiet")
    found = seen(either, Filter(after=NOON))
    assert found == {
        during: [20.0, 30.0, 40.0, 50.0],
        late: [0.0, 10.0, 20.0, 30.0, 40.0, 50.0],
        live: [30.0, 40.0, 50.0],
    }
    assert seen(either, Filter(after=later(200))) == {live: [40.0, 50.0]}, "a reconnect has its own time"
    assert seen(either, Filter(after=later(100_000))) == {}
    assert seen(either, Filter(after=NOON, video_id=during, start_seconds=35.0)) == {during: [30.0, 40.0, 50.0]}
    assert sum(map(len, seen(either, Filter(after=later(-10_000))).values())) == 24, "all but the unknown"
    places = either.places(Filter(after=NOON), [early, during, late, unknown, live, quiet])
    assert places == {
        early: [Span(600.0, FOREVER_SECONDS)],
        during: [Span(25.0, FOREVER_SECONDS)],
        late: [Span(0.0, FOREVER_SECONDS)],
        live: [Span(30.0, FOREVER_SECONDS)],
    }
    assert either.places(Filter(after=NOON, start_seconds=10, end_seconds=28), [during, live]) == {
        during: [Span(25.0, 28.0)],
        live: [],
    }
    assert either.places(Filter(end_seconds=5), [during]) == {during: [Span(0, 5)]}
    assert either.places(Filter(tag="x"), [during]) is None


def test_before_a_time_and_between_two(either: Catalog) -> None:
    """The same files and stream; what lies around noon, and nothing of before or after that."""
    early, during, _late = (file(either, f"/{i}.mp4", later(start)) for i, start in enumerate((-600, -25, 100)))
    file(either, "/unknown.mp4", None)
    live = stream(either, "rtsp://cam/1", (0.0, -30.0), (40.0, 300.0))
    assert seen(either, Filter(before=NOON)) == {
        early: [0.0, 10.0, 20.0, 30.0, 40.0, 50.0],
        during: [0.0, 10.0, 20.0],
        live: [0.0, 10.0, 20.0],
    }
    assert seen(either, Filter(after=later(-20), before=later(8))) == {
        during: [0.0, 10.0, 20.0, 30.0],
        live: [10.0, 20.0, 30.0],
    }
    assert seen(either, Filter(after=later(20), before=later(90))) == {during: [40.0, 50.0]}, "the stream was away"
    assert seen(either, Filter(after=later(-700), before=later(-500))) == {early: [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]}
    assert seen(either, Filter(before=later(-10_000))) == {}
    assert sum(map(len, seen(either, Filter(before=later(10_000))).values())) == 24, "all but the unknown"
    assert either.places(Filter(after=later(-20), before=later(8)), [during, live]) == {
        during: [Span(5.0, 33.0)],
        live: [Span(10.0, 38.0)],
    }
    assert either.places(Filter(before=later(-28)), [during, live]) == {during: [], live: [Span(0.0, 2.0)]}


def test_a_clock_that_was_set_back(either: Catalog) -> None:
    live = stream(either, "rtsp://cam/1", (0.0, 0.0), (30.0, -100.0))
    assert seen(either, Filter(after=later(10))) == {live: [10.0, 20.0]}
    assert either.places(Filter(after=later(-80)), [live]) == {live: [Span(0.0, 30.0), Span(50.0, FOREVER_SECONDS)]}
    assert seen(either, Filter(after=later(-80))) == {live: [0.0, 10.0, 20.0, 50.0]}


def test_more_streams_than_one_expression_takes(either: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.catalog.filtering, "_CONDITIONS", 3)
    for i in range(8):
        stream(either, f"rtsp://cam/{i}", (0.0, float(i)), seconds=10.0)
    assert sorted(seen(either, Filter(after=later(12.0))).values()) == [[0.0]] * 5


def test_a_time_needs_a_zone() -> None:
    with pytest.raises(QueryError, match="after 2026-01-31T12:00:00 has no time zone"):
        Filter(after=datetime(2026, 1, 31, 12))
    assert Filter().is_empty
    assert not Filter(after=NOON).is_empty
    assert not Filter(before=NOON).is_empty
    with pytest.raises(QueryError, match="before 2026-01-31T12:00:00 has no time zone"):
        Filter(before=datetime(2026, 1, 31, 12))
    with pytest.raises(QueryError, match="must be later than after"):
        Filter(after=NOON, before=NOON)


@given(
    anchors=st.lists(st.tuples(st.integers(1, 100), st.integers(-500, 500)), min_size=1, max_size=5),
    after=st.none() | st.integers(-600, 600),
    length=st.none() | st.integers(1, 600),
    asked=st.integers(0, 2000),
)
@example(anchors=[(10, 0), (10, 100)], after=10, length=None, asked=0)  # the first ends where it would begin
def test_spans_are_where_the_clock_is_between(
    anchors: list[tuple[int, int]], after: int | None, length: int | None, asked: int
) -> None:
    found, start = [], 0
    for number, (lasts, utc) in enumerate(anchors):
        found.append(Connection(number, float(start), later(utc)))
        start += lasts
    least = None if after is None else later(after)
    most = None if length is None else later((after or 0) + length)
    spans = spans_between(found, least, most)
    assert spans == sorted(spans)
    assert all(left.end_seconds < right.start_seconds for left, right in itertools.pairwise(spans))
    at = asked + 0.5
    clock = utc_at(found, at)
    assert clock is not None
    assert any(span.contains(at) for span in spans) == (
        (least is None or clock > least) and (most is None or clock < most)
    )


def test_times_keep_their_zone() -> None:
    east = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
    assert spans_between([Connection(0, 0.0, east)], later(5.0), None) == [Span(5.0, FOREVER_SECONDS)]
