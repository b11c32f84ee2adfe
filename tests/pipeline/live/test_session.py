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
from pipeline.errors import LibraryError, OutputError, SourceError, StreamBusy, UnknownVideo
from pipeline.ingest import IngestOptions
from pipeline.live.digest import LiveDigest
from pipeline.live.loop import StreamTask, open_session
from pipeline.live.options import LiveSettings, RetentionOptions, WindowOptions
from pipeline.live.session import Lags, StreamSession
from pipeline.live.types import Connection, LiveCaption, LiveState, StreamCounts
from pipeline.media import Span
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
    settings = replace(LiveSettings(), retention=retention)
    session, _ = opened(catalog, settings=settings, now=lambda: START + timedelta(seconds=55))
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
    mine = folder / "holiday.mkv"  # which is none of ours, and older than any
    names = [f"20260102T030405.000Z_{number:09d}.000s.mkv" for number in range(4)]
    for number, file in enumerate([mine, *(folder / name for name in names)]):
        file.write_bytes(b"x" * 1_000_000)
        os.utime(file, (now - 100 + number, now - 100 + number))
    retention = RetentionOptions(bytes=2_500_000)
    session, _ = opened(catalog, settings=replace(LiveSettings(), retention=retention), recordings=folder)
    feed(session, [("moving", 30)])
    held = catalog.stream_bytes(session.video_id)
    assert 0 < held < 400_000
    session.prune()
    assert sorted(file.name for file in folder.iterdir()) == [*names[2:], "holiday.mkv"]
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


# -- what goes wrong ---------------------------------------------------------------------------------------------------


class Full(Told):
    """A caption file on a disk that is full for a while."""

    full = True

    def write(self, cue: object) -> None:
        if self.full:
            raise OutputError("gate.vtt: cannot be written (No space left on device)")
        super().write(cue)

    def extend(self, end_seconds: float) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().extend(end_seconds)


def test_a_file_that_cannot_be_written_costs_nothing_else(catalog: Catalog) -> None:
    full, told = Full(), Told()
    session, _ = opened(catalog, files=[full, told])
    feed(session, [("still", 40), ("moving", 4)])
    assert len(told.said) == session.counts.captions == 2
    assert [c.text for c in catalog.captions_of(session.video_id)] == ["window 0", "window 2"]
    assert sum("No space left" in message for message in session.counts.messages) == 2
    with pytest.raises(OutputError, match=r"gate\.vtt"):
        session.close()
    assert told.closed
    assert full.closed
    record = catalog.stream(session.video_id)
    assert (record.state, record.error_type) == (LiveState.FAILED, "OutputError")


def test_a_file_that_could_be_written_again_is_no_failure(catalog: Catalog) -> None:
    full = Full()
    session, _ = opened(catalog, files=[full])
    feed(session, [("moving", 12)])
    full.full = False
    feed(session, [("moving", 24)])
    session.close()
    assert catalog.stream(session.video_id).state is LiveState.ENDED


def test_a_window_that_was_pruned_before_there_were_words_for_it(catalog: Catalog) -> None:
    told = Told()
    session, _ = opened(catalog, files=[told])
    feed(session, [("moving", 32)], say=False)
    catalog.prune_stream(session.video_id, 25.0)
    for number in range(3):
        span = Span(10.0 * number, 10.0 * number + 10)
        session.caption(LiveCaption(session.video_id, number, span, f"window {number}", "m", None, None))
    assert [c.text for c in catalog.captions_of(session.video_id)] == ["window 2"]
    assert [text for *_, text in told.said] == ["window 0", "window 1", "window 2"], "in the file there is room"
    session.close()


def test_what_a_caption_says_of_the_time_that_is_kept_stays_when_its_window_goes(catalog: Catalog) -> None:
    """A scene that stands still for longer than is kept has words all the same, for as long as is kept."""
    retention = RetentionOptions(hours=300 / 3600)
    settings = replace(LiveSettings(), retention=retention)
    clock = [START]
    session, _ = opened(catalog, settings=settings, now=lambda: clock[0])
    script = watched([("still", 1000)])
    digest = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions())
    for block in script:
        session.take(block)
        clock[0] = START + timedelta(seconds=block.until_seconds)
        taken = digest.take([(session.video_id, block)])[0]
        session.commit(taken.windows)
        for closed in (content.closed for content in taken.closed):
            one = LiveCaption(session.video_id, closed.index, closed.span, "a yard", "m", None, None, closed.index > 0)
            session.caption(one)
            if closed.span.end_seconds > 500:
                (caption,) = catalog.captions_of(session.video_id)
                assert caption.span.duration_seconds >= 300 - WindowOptions().still_seconds / 2
                assert caption.span.end_seconds == closed.span.end_seconds
        session.prune()
    assert catalog.segments_of(session.video_id)[0].span.start_seconds > 500
    session.close()


def test_what_is_kept_ages_while_the_camera_is_away(catalog: Catalog) -> None:
    clock = [START + timedelta(seconds=55)]
    settings = replace(LiveSettings(), retention=RetentionOptions(hours=1))
    session, _ = opened(catalog, settings=settings, now=lambda: clock[0])
    feed(session, [("moving", 55)])
    session.prune()
    assert len(catalog.segments_of(session.video_id)) == 6
    clock[0] += timedelta(hours=2)
    session.prune()
    assert len(catalog.segments_of(session.video_id)) == 1, "the latest stays"
    session.close()


def test_connections_of_a_camera_that_breaks_off_again_and_again(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    block = watched([("still", 1)])[-1]
    for number in range(600):
        start = 60.0 * number
        one = Connection(number, start, START + timedelta(seconds=start), reason="lost")
        session.take(replace(block, connections=(one,), until_seconds=max(0.0, start - 30)))
    assert len(session.connections) <= 257
    assert (session.connections[0].number, session.connections[-1].number) == (0, 599)
    assert [one.end_seconds for one in session.connections[-3:]] == [60.0 * 597 + 30, 60.0 * 598 + 30, None]
    assert len(catalog.connections_of(session.video_id)) == 600, "without retention everything is kept"
    catalog.prune_stream(session.video_id, 30_000.0)
    assert len(catalog.connections_of(session.video_id)) == 101, "of a stream without windows as well"
    session.close()
    assert len(opened(catalog)[0].connections) == 101


def test_messages_of_a_worker_that_dies_again_and_again(catalog: Catalog) -> None:
    session, task = opened(catalog)
    block = watched([("still", 1)])[-1]
    for number in range(100):
        messages = [f"at {number}.{one}" for one in range(20)]
        session.take(replace(block, counts=StreamCounts(frames_received=1, messages=messages)))
        task = session.resumed(task)
    assert len(session.counts.messages) == 20
    assert session.counts.frames_received == 100
    session.close()


def test_a_worker_that_died_before_it_gave_anything(catalog: Catalog) -> None:
    first, _ = opened(catalog)
    feed(first, [("moving", 12)])
    first.close()
    again, task = opened(catalog)
    assert again.counts.seconds == 12.0
    again.crashed("its process died")
    task = again.resumed(task)
    assert (task.resume_seconds, task.next_connection, task.next_window) == (12.0, 1, 2)
    again.close()


def test_what_was_searchable_stays_when_the_encoder_is_started_anew(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    digest = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions())
    lost = False
    for block in watched([("moving", 16)]):
        if not lost and block.until_seconds > 6:
            lost = True
            digest.drop(session.video_id)
        session.take(block)
        session.commit(digest.take([(session.video_id, block)])[0].windows)
    spans = [(s.span.start_seconds, s.span.end_seconds) for s in catalog.segments_of(session.video_id)]
    assert spans == [(0, pytest.approx(4.5, abs=1)), (pytest.approx(6, abs=1), 10), (10, 16)]
    assert spans[0][1] <= spans[1][0]
    vectors = catalog.vectors_of(session.video_id)
    assert vectors.end_seconds[-1] == 16
    session.close()


def test_a_stream_that_was_removed_while_it_ran(catalog: Catalog) -> None:
    told = Told()
    session, _ = opened(catalog, files=[told])
    feed(session, [("moving", 12)])
    catalog.remove_video(session.video_id)
    session.state = LiveState.PLAYING
    with pytest.raises(UnknownVideo):
        session.beat(0.0)
    with pytest.raises(LibraryError):
        session.close()
    assert told.closed


def test_nothing_is_said_of_a_stream_that_is_over(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    feed(session, [("moving", 2)])
    session.close()
    session.state = LiveState.PLAYING
    assert not session.beat(100.0)
    assert catalog.stream(session.video_id).state is LiveState.ENDED
