"""Windows of streams: they replace each other, they are pruned, and whoever follows the catalog sees the same."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

import pipeline.catalog.parts
from pipeline.catalog import Catalog
from pipeline.catalog.models import removals, thumbnails, token_sets, vectors
from pipeline.errors import LibraryError, OptionError
from pipeline.live.types import Connection, LiveState
from pipeline.media import Span
from tests.catalog.content import DIMENSION, caption, open_stream, put_window, window
from tests.catalog.test_streams import NOON

ROOT = Path(__file__).parents[2]


def stored_bytes(catalog: Catalog) -> int:
    """What is really there."""
    total = 0
    with catalog._read() as rows:
        for column in (thumbnails.c.jpeg, token_sets.c.payload, vectors.c.embedding):
            total += rows.execute(select(func.coalesce(func.sum(func.length(column)), 0))).scalar_one()
    return total


class Follower:
    """Follows the catalog as the vector index does; ``ids`` are those that it has."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.seq, self.ids = catalog, 0, set[int]()

    def follow(self) -> set[int]:
        until = self.catalog.current_seq()
        gone = self.catalog.removals_since(self.seq)
        if self.seq < self.catalog.removals_floor():
            self.seq, self.ids = 0, set()
        else:
            self.ids -= set(gone.tolist())
        self.ids |= set(self.catalog.vectors_since(self.seq, 10_000, until).id.tolist())
        self.seq = until
        return self.ids


def test_a_window_grows(either: Catalog) -> None:
    video = open_stream(either)
    follower = Follower(either)
    first = put_window(either, video, 0, 0.0, 2.0, closed=False, sampled=4, encoded=1)
    assert follower.follow() == set(either.vectors_of(video).id.tolist())
    either.add_caption(first.segment_id, caption(video, "a door", 0.0, 2.0))
    second = put_window(either, video, 0, 0.0, 4.0, replaces=first.part_id, closed=False, sampled=8, encoded=2)
    assert second.part_id != first.part_id
    assert [segment.id for segment in either.segments_of(video)] == [second.segment_id]
    assert either.captions_of(video) == [], "they were of what went"
    assert len(follower.follow()) == 2
    last = put_window(either, video, 0, 0.0, 4.0, replaces=second.part_id, sampled=8, encoded=2, vectors=3)
    assert last == second, "the same span, so the same ids"
    assert follower.follow() == set(either.vectors_of(video).id.tolist())
    known = either.video(video)
    assert (known.segments, known.vectors, known.duration_seconds) == (1, 3, 4.0)
    assert (known.frames_sampled, known.frames_encoded, known.skipped_by_gate) == (8, 2, 6)
    (part,) = either.parts(video)
    assert (part.state, part.span, part.facts) == ("done", Span(0, 4), {"device": "cpu", "closed": True})
    assert either.stream_bytes(video) == either.stream(video).bytes == stored_bytes(either) == 12 + 3 * 2 * DIMENSION


def test_doing_it_again_changes_nothing(either: Catalog) -> None:
    video = open_stream(either)
    put_window(either, video, 0, 0.0, 2.0)
    before = list(either.dump())
    put_window(either, video, 0, 0.0, 2.0)
    assert list(either.dump()) == before
    assert either.video(video).frames_sampled == 10


def test_bad_windows_are_refused(either: Catalog) -> None:
    video = open_stream(either)
    first = put_window(either, video, 0, 0.0, 2.0)
    before = list(either.dump())
    either.dimension = DIMENSION + 1
    with pytest.raises(LibraryError, match=f"stream {video}, segment 1: vectors of width 8, this library's have 9"):
        either.commit_window(video, "live", "r1", window(1, 2.0, 4.0), first.part_id)
    assert list(either.dump()) == before
    either.dimension = DIMENSION
    other = open_stream(either, "rtsp://cam/2")
    put_window(either, other, 1, 2.0, 4.0, replaces=first.part_id)
    assert either.video(video).segments == 1, "a stream replaces only what is its own"
    with pytest.raises(OptionError, match="max_bytes -1"):
        either.prune_stream_to(video, -1)


def test_a_window_without_vectors(either: Catalog) -> None:
    video = open_stream(either)
    first = put_window(either, video, 0, 0.0, 2.0, vectors=0)
    put_window(either, video, 0, 0.0, 3.0, vectors=0, replaces=first.part_id)
    assert (either.video(video).segments, either.count_vectors(), either.current_seq()) == (1, 0, 0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), st.floats(0.1, 5.0)),
        st.tuples(st.just("close"), st.floats(0.1, 5.0)),
        st.tuples(st.just("prune"), st.floats(0.0, 40.0)),
        st.tuples(st.just("prune_to"), st.integers(0, 500)),
        st.tuples(st.just("follow"), st.none()),
        st.tuples(st.just("stop"), st.none()),
    ),
    max_size=25,
)


@given(steps=steps, every=st.sampled_from([1, 10, 10_000]), kept=st.sampled_from([0, 5, 20_000]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_life_of_a_stream(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]], every: int, kept: int
) -> None:
    """Counts are those of the last forms, bytes are what is there, a follower has what is there, and only old windows
    go; whatever happens, and however soon removals are forgotten."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Catalog(tmp_path_factory.mktemp("life") / "c.sqlite3", dimension=DIMENSION) as catalog,
    ):
        patch.setattr(pipeline.catalog.parts, "_TRIM_EVERY", every)
        patch.setattr(pipeline.catalog.parts, "_KEPT_REMOVALS", kept)
        video, follower = open_stream(catalog), Follower(catalog)
        end, start, index, part = 0.0, 0.0, 0, None
        forms: dict[int, int] = {}
        there: list[Span] = []
        for step, value in steps:
            if step in ("grow", "close"):
                assert isinstance(value, float)
                end += value
                forms[index] = len(forms) + 3
                if part is not None:
                    there = [span for span in there if span.start_seconds != start]
                part = put_window(
                    catalog, video, index, start, end, replaces=part, closed=step == "close", sampled=forms[index]
                ).part_id
                there.append(Span(start, end))
                if step == "close":
                    index, start, part = index + 1, end, None
            elif step == "prune":
                assert isinstance(value, float)
                pruned = catalog.prune_stream(video, value)
                kept_spans = [span for span in there[:-1] if span.end_seconds > value] + there[-1:]
                assert pruned.windows == len(there) - len(kept_spans)
                there = kept_spans
            elif step == "prune_to":
                assert isinstance(value, int)
                pruned = catalog.prune_stream_to(video, value)
                there = there[pruned.windows :]
                assert catalog.stream_bytes(video) <= value or len(there) <= 1
                if pruned.windows and there:
                    assert catalog.stream_bytes(video) + pruned.bytes // pruned.windows > value, "no more than needed"
            elif step == "follow":
                follower.follow()
            else:
                catalog.end_stream(video, LiveState.ENDED)
                open_stream(catalog)
                if part is not None:  # what was open stays as it is
                    index, start, part = index + 1, end, None
            assert [segment.span for segment in catalog.segments_of(video)] == there
            assert catalog.stream_bytes(video) == stored_bytes(catalog)
        record = catalog.video(video)
        assert record.frames_sampled == sum(forms.values())
        assert record.duration_seconds == (end if forms else None)
        assert follower.follow() == set(catalog.vectors_of(video).id.tolist())


def test_pruning_takes_all_that_hangs_on_a_window(either: Catalog) -> None:
    video = open_stream(either)
    other = open_stream(either, "rtsp://cam/2")
    for number, start in enumerate((0.0, 40.0, 50.0)):
        either.add_connection(video, Connection(number, start, NOON))
    for i in range(6):
        done = put_window(either, video, i, 10.0 * i, 10.0 * i + 10.0)
        either.add_caption(done.segment_id, caption(video, f"window {i}", 10.0 * i, 10.0 * i + 10.0))
    put_window(either, other, 0, 0.0, 10.0)
    gone = set(either.vectors_of(video, Span(0, 20)).id.tolist())
    pruned = either.prune_stream(video, 25.0)
    assert (pruned.windows, pruned.bytes, pruned.until_seconds) == (2, 2 * (12 + 2 * 2 * DIMENSION), 20.0)
    assert set(either.removals_since(0).tolist()) == gone
    assert [one.text for one in either.captions_of(video)] == ["window 2", "window 3", "window 4", "window 5"]
    assert either.search_captions("1") == []
    assert either.stream_bytes(other) == 12 + 2 * 2 * DIMENSION
    assert [one.number for one in either.connections_of(video)] == [0, 1, 2]
    assert either.prune_stream(video, 25.0).windows == 0
    assert either.prune_stream(video, 1e9).windows == 3, "the latest stays: it may be written still"
    assert [one.number for one in either.connections_of(video)] == [0, 2], "media time began with the first"
    assert either.utc_of(video, 55.0) is not None
    assert either.prune_stream_to(video, 0).windows == 0
    assert either.video(video).frames_sampled == 60, "what was seen was seen"


def test_many_windows_are_pruned_in_pieces(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.catalog.windows._PRUNED_AT_ONCE", 3)
    video = open_stream(catalog)
    for i in range(11):
        put_window(catalog, video, i, float(i), i + 1.0)
    each = catalog.stream_bytes(video) // 11
    pruned = catalog.prune_stream_to(video, 4 * each)
    assert (pruned.windows, pruned.bytes, pruned.until_seconds) == (7, 7 * each, 7.0)


def test_removals_are_forgotten(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.catalog.parts, "_TRIM_EVERY", 20)
    monkeypatch.setattr(pipeline.catalog.parts, "_KEPT_REMOVALS", 10)
    video = open_stream(catalog)
    part = None
    for i in range(200):  # one window that grows: two vectors come, two go
        part = put_window(catalog, video, 0, 0.0, i + 1.0, replaces=part).part_id
    with catalog._read() as rows:
        assert rows.execute(select(func.count()).select_from(removals)).scalar_one() <= 10 + 20
    assert 0 < catalog.removals_floor() <= catalog.current_seq()


def test_captions_hold_on(either: Catalog) -> None:
    video = open_stream(either)
    done = put_window(either, video, 0, 0.0, 2.0)
    number = either.add_caption(done.segment_id, caption(video, "a still room", 0.0, 2.0))
    assert either.extend_caption(number, 60.0)
    assert either.extend_caption(number, 30.0), "an earlier end changes nothing"
    assert [one.span for one in either.captions_of(video, Span(59, 61))] == [Span(0, 60)]
    put_window(either, video, 1, 2.0, 4.0)
    either.prune_stream(video, 3.0)
    assert not either.extend_caption(number, 70.0), "it is gone"
    with pytest.raises(LibraryError, match="no segment"):
        either.add_caption(done.segment_id, caption(video, "late", 0.0, 2.0))
    with pytest.raises(LibraryError, match="no segment"):
        either.add_caption(either.segments_of(video)[0].id, caption("another", "x", 0.0, 2.0))


WRITER = """
import sys
from datetime import datetime, timezone
from pipeline.catalog import Catalog
from pipeline.live.types import Connection, LiveState
from tests.catalog.content import caption, open_stream, put_window
target, uri, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Catalog(target, dimension=8) as catalog:
    video = open_stream(catalog, uri)
    record = catalog.stream(video)
    catalog.add_connection(video, Connection(record.next_connection, record.resume_seconds, datetime.now(timezone.utc)))
    print("ready", flush=True)
    for i in range(record.next_window, record.next_window + count):
        start = catalog.stream(video).resume_seconds
        form = put_window(catalog, video, i, start, start + 1.0, closed=False)
        form = put_window(catalog, video, i, start, start + 2.0, replaces=form.part_id)
        catalog.add_caption(form.segment_id, caption(video, f"scene {i} of {uri}", start, start + 2.0))
        catalog.heartbeat_stream(video, LiveState.PLAYING, {"frames_received": i})
        catalog.prune_stream_to(video, 400)
    catalog.end_stream(video, LiveState.ENDED)
"""


def writer(target: str, uri: str, count: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, target, uri, str(count)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_several_processes_and_killed_ones(either: Catalog, target: str) -> None:
    """Three streams written by three processes while a reader follows; the third is killed again and again."""
    calm = [writer(target, f"rtsp://cam/{i}", 25) for i in range(2)]
    follower = Follower(either)
    for i in range(3):
        wild = writer(target, "rtsp://cam/wild", 10_000)
        time.sleep(0.1 + 0.1 * i)
        follower.follow()
        wild.send_signal(signal.SIGKILL)
        wild.communicate()
    for process in calm:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert follower.follow() == {int(one) for one in either.ids_matching(pipeline.catalog.filters.Filter())}
    by_uri = {record.uri: record for record in either.streams()}
    assert {uri: record.state.value for uri, record in by_uri.items() if uri != "rtsp://cam/wild"} == {
        "rtsp://cam/0": "ended",
        "rtsp://cam/1": "ended",
    }
    for record in by_uri.values():
        spans = [segment.span for segment in either.segments_of(record.video_id)]
        assert spans == sorted(spans)
        assert all(left.end_seconds <= right.start_seconds for left, right in itertools.pairwise(spans))
        assert all(span.duration_seconds == 2.0 for span in spans[:-1] if record.uri != "rtsp://cam/wild")
        assert record.bytes <= 400 + 12 + 2 * 2 * DIMENSION  # the wild one may have died before it pruned
    assert sum(record.bytes for record in by_uri.values()) == stored_bytes(either)
    said = {one.text for record in by_uri.values() for one in either.captions_of(record.video_id)}
    assert {hit.caption.text for hit in either.search_captions("scene", limit=1000)} == said
    (dead,) = either.mark_interrupted_streams()
    assert dead == by_uri["rtsp://cam/wild"].video_id
