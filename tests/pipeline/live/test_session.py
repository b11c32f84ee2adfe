"""A stream's session writes to a real catalog: windows replace each other, captions hold on, lags are told."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from pipeline.digest import DigestOptions
from pipeline.errors import SourceError, StreamBusy
from pipeline.ingest import IngestOptions
from pipeline.live.digest import LiveDigest
from pipeline.live.loop import StreamTask, open_session
from pipeline.live.options import LiveSettings, RetentionOptions, WindowOptions
from pipeline.live.session import Lags, StreamSession
from pipeline.live.types import LiveCaption, LiveState
from tests.pipeline.fakes import ToneEncoder
from tests.pipeline.live.playing import START, watched

URL = "udp://127.0.0.1:9999"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=2) as opened:
        yield opened


class Told:
    """A caption file that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[float, float, str]] = []
        self.closed = False

    def write(self, cue: object) -> None:
        self.said.append((cue.start_seconds, cue.end_seconds, cue.text))  # type: ignore[attr-defined]

    def extend(self, end_seconds: float) -> None:
        start, _, text = self.said[-1]
        self.said[-1] = (start, end_seconds, text)

    def close(self) -> None:
        self.closed = True


def opened(
    catalog: Catalog, *, name: str = "gate", settings: LiveSettings | None = None, **more: object
) -> tuple[StreamSession, StreamTask]:
    settings = settings or LiveSettings()
    task = StreamTask.of(URL, name, settings, IngestOptions(), 48)
    return open_session(catalog, task, settings, "model", "recipe", **more)


def feed(session: StreamSession, script: list[tuple[str, int]], say: bool = True) -> None:
    digest = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions())
    for block in watched(script):
        session.take(block)
        taken = digest.take([(session.video_id, block)])[0]
        session.commit(taken.windows)
        for content in taken.closed if say else ():
            closed = content.closed
            words = "nothing new" if closed.still else f"window {closed.index}"
            session.caption(
                LiveCaption(session.video_id, closed.index, closed.span, words, "m", 0.5, None, extends=closed.still)
            )


def test_what_was_seen_lies_in_the_catalog(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    feed(session, [("moving", 12), ("gap", 8), ("moving", 5)])
    session.close()
    record = catalog.video("gate")
    assert record.state == "done"
    segments = catalog.segments_of(record.id)
    assert [(s.span.start_seconds, s.span.end_seconds) for s in segments] == [(0, 10), (10, 12), (20, 25)]
    vectors = catalog.vectors_of(record.id)
    assert sorted(set(vectors.segment)) == sorted(segment.id for segment in segments), "provisional forms are gone"
    captions = catalog.captions_of(record.id)
    assert [(c.span.start_seconds, c.text) for c in captions] == [(0, "window 0"), (10, "window 1"), (20, "window 2")]
    first, second = catalog.connections_of(record.id)
    assert (first.start_seconds, first.end_seconds, first.reason) == (0, 12, "lost")
    assert (second.start_seconds, second.end_seconds) == (20, 25)
    assert catalog.utc_of(record.id, 21) == START + timedelta(seconds=21)


def test_a_caption_holds_on_while_nothing_happens(catalog: Catalog) -> None:
    told = Told()
    session, _ = opened(catalog, files=[told])
    feed(session, [("still", 40), ("moving", 4)])
    session.close()
    captions = catalog.captions_of(session.video_id)
    assert [(c.span.start_seconds, c.span.end_seconds, c.text) for c in captions] == [
        (0, 40, "window 0"),
        (40, 44, "window 2"),
    ]
    assert told.said == [(0, 40, "window 0"), (40, 44, "window 2")]
    assert told.closed
    assert session.counts.captions == 2


def test_it_goes_on_where_it_stopped(catalog: Catalog) -> None:
    session, task = opened(catalog)
    assert (task.first_utc, task.resume_seconds, task.next_connection) == (None, 0.0, 0)
    feed(session, [("moving", 12)])
    session.close()
    again, task = opened(catalog)
    assert again.video_id == session.video_id
    assert task.first_utc == START
    assert task.resume_seconds == 12.0
    assert task.next_connection == 1
    again.close()


def test_a_worker_that_died_is_gone_on_from(catalog: Catalog) -> None:
    session, task = opened(catalog)
    feed(session, [("moving", 12)])
    sampled = session.counts.frames_sampled
    session.crashed("its process died")
    assert session.state is LiveState.RECONNECTING
    task = session.resumed(task)
    assert (task.resume_seconds, task.next_connection, task.next_window) == (12.0, 1, 2)
    assert session.counts.frames_sampled == sampled, "what was counted stays counted"
    assert catalog.connections_of(session.video_id)[0].reason == "its process died"
    session.close()


def test_one_process_at_a_time(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    with pytest.raises(StreamBusy, match=str(os.getpid())):
        opened(catalog)
    session.close()
    opened(catalog)[0].close()


def test_a_failure_is_written_down(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    session.close(SourceError("no camera there"))
    (record,) = catalog.streams()
    assert (record.state, record.error_type, record.error_message) == (
        LiveState.FAILED,
        "SourceError",
        "no camera there",
    )


def test_somebody_asks_it_to_stop(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    assert session.beat(0.0) is False
    catalog.request_stop(session.video_id)
    assert session.beat(1.0) is False, "not asked again so soon"
    assert session.beat(5.0) is True
    session.close()


def test_without_an_index_nothing_is_kept_to_search(catalog: Catalog) -> None:
    told = Told()
    session, _ = opened(catalog, files=[told], index=False)
    feed(session, [("moving", 12)])
    session.close()
    assert catalog.segments_of(session.video_id) == []
    assert catalog.captions_of(session.video_id) == []
    assert [text for *_, text in told.said] == ["window 0", "window 1"]


def test_old_windows_go(catalog: Catalog) -> None:
    retention = RetentionOptions(hours=20 / 3600)
    session, _ = opened(catalog, settings=replace(LiveSettings(), retention=retention))
    feed(session, [("moving", 55)])
    session.prune()
    spans = [segment.span for segment in catalog.segments_of(session.video_id)]
    assert spans[0].start_seconds == 30, "what reaches into the last 20 s stays"
    assert all(c.span.end_seconds > 35 for c in catalog.captions_of(session.video_id))
    session.close()


def test_recorded_files_count_and_go_first(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    folder.mkdir()
    now = datetime.now(timezone.utc).timestamp()
    for number in range(4):
        file = folder / f"{number}.ts"
        file.write_bytes(b"x" * 1_000_000)
        os.utime(file, (now - 100 + number, now - 100 + number))
    retention = RetentionOptions(bytes=2_500_000)
    session, _ = opened(catalog, settings=replace(LiveSettings(), retention=retention), recordings=folder)
    feed(session, [("moving", 30)])
    held = catalog.stream_bytes(session.video_id)
    assert 0 < held < 400_000
    session.prune()
    assert sorted(file.name for file in folder.iterdir()) == ["2.ts", "3.ts"]
    assert catalog.stream_bytes(session.video_id) == held
    session.close()


def test_lags_are_told_from_the_wall_clock(catalog: Catalog) -> None:
    ticks = itertools.count()
    session, _ = opened(catalog, now=lambda: START + timedelta(seconds=14 + next(ticks) * 0.0))
    feed(session, [("moving", 10)])
    assert session.caption_lag.percentile(0.5) == pytest.approx(4.0, abs=0.01)
    assert session.freshness.percentile(1.0) == pytest.approx(14.0, abs=0.01), "its first second waited longest"
    session.close()


def test_percentiles() -> None:
    lags = Lags()
    assert lags.percentile(0.5) is None
    for value in range(100):
        lags.add(float(value))
    assert (lags.percentile(0.5), lags.percentile(0.95)) == (50.0, 95.0)
    lags.add(-1.0)
    assert lags.percentile(0.0) == 0.0, "clocks may differ; no lag is below nothing"
