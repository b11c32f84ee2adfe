"""The caption stage of a batch job, with a double in place of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from csat_fusion.errors import LongreelError
from encoders.errors import EncoderError
from jobs.captioning import caption_video, lacks_captions
from jobs.workers import CaptionTask
from pipeline.captioning import CaptionedSegments
from pipeline.catalog import Catalog
from pipeline.catalog.records import CaptionRecord, VideoRecord
from pipeline.errors import DiskFull
from tests.catalog.content import DIMENSION, part_result, plan

SEGMENTS = 40  # two batches of 16, and one of 8


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=DIMENSION) as opened:
        yield opened


@pytest.fixture
def video(catalog: Catalog) -> VideoRecord:
    """A video of many segments, all with token sets."""
    name, (part,) = plan(catalog, parts=1, seconds=400.0)
    catalog.commit_part(part.id, part_result(part.span, segments=SEGMENTS))
    return catalog.finish_video(name)


class Engine:
    """Says what it is asked, and meets an error from the ``fails_at``-th task on.

    It has no words for segments whose index ``silent`` is true of, and is refused those that ``refused`` is true of.
    """

    silent: Callable[[int], bool] = staticmethod(lambda index: False)
    refused: Callable[[int], bool] = staticmethod(lambda index: False)

    def __init__(self, workers: int = 1, reads: str = "seen", fails_at: int | None = None) -> None:
        self.captioner, self.info = SimpleNamespace(name="m", reads=reads), SimpleNamespace(fingerprint="seen")
        self.captioner_count = workers
        self.tasks: list[CaptionTask] = []
        self.at_work = self.most_at_work = 0
        self._fails_at = fails_at

    async def caption(self, task: CaptionTask) -> CaptionedSegments:
        self.tasks.append(task)
        number = len(self.tasks)
        self.at_work += 1
        self.most_at_work = max(self.at_work, self.most_at_work)
        await asyncio.sleep(0.01)
        self.at_work -= 1
        if self._fails_at is not None and number >= self._fails_at:
            raise EncoderError(f"task {number}")
        refused = [row for row in task.segments if self.refused(row.index)]
        answered = [row for row in task.segments if row not in refused]
        return CaptionedSegments(
            {
                row.id: CaptionRecord(task.video.id, "m", f"{row.index}", row.span, None)
                for row in answered
                if not self.silent(row.index)
            },
            frozenset(row.id for row in answered if self.silent(row.index)),
            EncoderError(f"segment {refused[0].index} is refused") if refused else None,
        )


def run(catalog: Catalog, engine: Engine, video: VideoRecord) -> tuple[int, LongreelError | None, list[int]]:
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        assert total == SEGMENTS
        seen.append(done)

    double: Any = engine
    captions, error = asyncio.run(caption_video(catalog, double, video, "user:pw@there", progress))
    return captions, error, seen


def test_all_segments_are_captioned_a_few_at_a_time(catalog: Catalog, video: VideoRecord) -> None:
    assert lacks_captions(catalog, video, "m") == SEGMENTS
    engine = Engine()
    assert run(catalog, engine, video) == (SEGMENTS, None, [16, 32, 40])
    assert [len(task.segments) for task in engine.tasks] == [16, 16, 8]
    assert {task.source for task in engine.tasks} == {"user:pw@there"}
    for task in engine.tasks:
        found = [catalog.token_set(row.id) for row in task.segments]
        assert task.tokens == tuple(one.payload for one in found if one is not None)
    assert [one.text for one in catalog.captions_of(video.id)] == [f"{i}" for i in range(SEGMENTS)]
    assert not lacks_captions(catalog, video, "m")
    assert lacks_captions(catalog, video, "another"), "each captioner has a track of its own"
    again = Engine()
    assert (run(catalog, again, video), again.tasks) == ((SEGMENTS, None, []), [])


def test_what_the_captioner_cannot_read_is_read_again(catalog: Catalog, video: VideoRecord) -> None:
    for reads in ("another", ""):
        engine = Engine(reads=reads, fails_at=1)
        run(catalog, engine, video)
        assert [task.tokens for task in engine.tasks] == [None]


def test_only_what_is_missing_is_asked_for(catalog: Catalog, video: VideoRecord) -> None:
    rows = catalog.segments_of(video.id)
    old = {row.id: CaptionRecord(video.id, "m", "Old", row.span, None) for row in rows[::2]}
    catalog.keep_captions(video.id, "m", old)
    engine = Engine()
    assert run(catalog, engine, video) == (SEGMENTS, None, [36, 40])
    assert [row.index for task in engine.tasks for row in task.segments] == list(range(1, SEGMENTS, 2))
    assert sum(one.text == "Old" for one in catalog.captions_of(video.id)) == SEGMENTS // 2


def test_all_workers_are_used(catalog: Catalog, video: VideoRecord) -> None:
    for workers, at_once in ((2, 2), (9, 3)):
        engine = Engine(workers)
        captions, error, _ = run(catalog, engine, video)
        assert (captions, error, engine.most_at_work) == (SEGMENTS, None, at_once)
        with catalog._write() as rows:
            rows.exec_driver_sql("DELETE FROM captions")


def test_an_error_ends_it_and_what_was_made_stays(catalog: Catalog, video: VideoRecord) -> None:
    engine = Engine(fails_at=2)
    captions, error, seen = run(catalog, engine, video)
    assert (captions, str(error), seen) == (16, "task 2", [16])
    assert (len(engine.tasks), len(catalog.captions_of(video.id))) == (2, 16)
    assert run(catalog, Engine(), video)[:2] == (SEGMENTS, None)


def test_a_segment_without_words_is_not_asked_about_again(catalog: Catalog, video: VideoRecord) -> None:
    engine = Engine()
    engine.silent = lambda index: index % 2 == 1
    assert run(catalog, engine, video) == (SEGMENTS // 2, None, [16, 32, 40])
    assert not lacks_captions(catalog, video, "m")
    again = Engine()
    assert (run(catalog, again, video), again.tasks) == ((SEGMENTS // 2, None, []), [])


def test_a_refused_segment_costs_that_one_and_is_asked_about_again(catalog: Catalog, video: VideoRecord) -> None:
    engine = Engine()
    engine.refused = lambda index: index in (3, 20)
    captions, error, seen = run(catalog, engine, video)
    assert (captions, str(error), seen) == (38, "segment 3 is refused", [15, 30, 38])
    assert lacks_captions(catalog, video, "m") == 2
    again = Engine()
    assert run(catalog, again, video) == (SEGMENTS, None, [40])
    assert [row.index for row in again.tasks[0].segments] == [3, 20]


def test_one_that_is_refused_all_goes_no_further(catalog: Catalog, video: VideoRecord) -> None:
    engine = Engine()
    engine.refused = lambda index: index < 16
    assert (run(catalog, engine, video)[0], len(engine.tasks)) == (0, 1)


def test_what_others_were_given_meanwhile_is_kept(catalog: Catalog, video: VideoRecord) -> None:
    """Two are asked at once; the second fails, and the first comes back after it."""
    engine = Engine(2)
    ask = engine.caption

    async def slow_or_failing(task: CaptionTask) -> CaptionedSegments:
        if task.segments[0].index == 16:
            raise EncoderError("the second")
        await asyncio.sleep(0.05)
        return await ask(task)

    engine.caption = slow_or_failing  # type: ignore[method-assign]
    captions, error, _ = run(catalog, engine, video)
    assert (captions, str(error)) == (16, "the second")
    assert len(catalog.captions_of(video.id)) == 16


def test_a_library_that_cannot_go_on_is_no_matter_of_captions(
    catalog: Catalog, video: VideoRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(catalog, "keep_captions", full)
    with pytest.raises(DiskFull):
        run(catalog, Engine(2), video)
