"""A batch job that captions: which videos it skips, and what it says of those that it is stopped at; with a double in
place of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from encoders.vlm.counts import VlmCounts
from jobs.batch import BatchJob, skip_done
from jobs.reporting import JobSummary, NullReporter
from jobs.settings import load_settings
from jobs.workers import CaptionTask
from pipeline.captioning import CaptionedSegments
from pipeline.catalog import Catalog
from pipeline.catalog.records import CaptionRecord, VideoRecord
from pipeline.errors import UnknownVideo
from pipeline.sources import SourceItem
from pipeline.sources.fingerprint import fingerprint
from tests.catalog.content import DIMENSION, part_result, plan

SETTINGS = load_settings()
RECIPE = SETTINGS.ingest.recipe_key("seen")
VLM = "vlm:seer:7b@http://localhost:8000/v1"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=DIMENSION) as opened:
        yield opened


@pytest.fixture
def film(catalog: Catalog, tmp_path: Path) -> VideoRecord:
    """A video of 20 segments that is indexed, and is still the same."""
    path = tmp_path / "film.mp4"
    path.write_bytes(b"pictures")
    video, (part,) = plan(catalog, str(path), parts=1, seconds=200.0, fingerprint=fingerprint(str(path)), recipe=RECIPE)
    catalog.commit_part(part.id, part_result(part.span, segments=20))
    return catalog.finish_video(video)


def item(video: VideoRecord) -> SourceItem:
    return SourceItem(video.uri, video.name)


def keep(catalog: Catalog, video: VideoRecord, model: str, words: int, without: int = 0) -> None:
    rows = catalog.segments_of(video.id)
    found = {row.id: CaptionRecord(video.id, model, "Words", row.span, None) for row in rows[:words]}
    catalog.keep_captions(video.id, model, found, [row.id for row in rows[words : words + without]])


# -- skipped -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    [
        VLM,
        VLM + "/",
        VLM + "/chat/completions",
        "vlm:seer:7b@HTTP://LocalHost:8000/v1/",
        "vlm: seer:7b @http://localhost:8000/v1",
    ],
)
def test_a_captioner_may_be_typed_in_any_way(catalog: Catalog, film: VideoRecord, typed: str) -> None:
    keep(catalog, film, VLM, 20)
    todo, skipped = skip_done(catalog, [item(film)], RECIPE, typed)
    assert (todo, [(one.state, one.captions) for one in skipped]) == ([], [("skipped", 20)])
    another = typed.replace("7b", "70b")
    assert skip_done(catalog, [item(film)], RECIPE, another) == ([item(film)], [])


def test_segments_without_words_are_looked_at_and_are_no_captions(catalog: Catalog, film: VideoRecord) -> None:
    keep(catalog, film, VLM, 12, without=7)
    assert skip_done(catalog, [item(film)], RECIPE, VLM)[0] == [item(film)]
    keep(catalog, film, VLM, 12, without=8)
    todo, skipped = skip_done(catalog, [item(film)], RECIPE, VLM)
    assert (todo, [one.captions for one in skipped]) == ([], [12])


# -- stopped -----------------------------------------------------------------------------------------------------------


class Engine:
    """Finds every video as it is; captions a task, and holds on to the next."""

    def __init__(self, catalog: Catalog, job: str) -> None:
        self._catalog, self._job = catalog, job
        self.info, self.captioner = SimpleNamespace(fingerprint="seen"), SimpleNamespace(name=VLM, reads="")
        self.captioner_count = self.videos_at_once = 1
        self.asked: VlmCounts | None = None
        self.tasks = 0

    async def inspect(self, source: str, uri: str, known: str | None) -> tuple[None, str]:
        assert known is not None
        return None, known

    async def caption(self, task: CaptionTask) -> CaptionedSegments:
        self.tasks += 1
        self.asked = VlmCounts(requests=16, captions=16, tokens_in=1600)
        if self.tasks > 1:
            self._catalog.request_cancel(self._job)
            await asyncio.sleep(3600)
        return CaptionedSegments(
            {row.id: CaptionRecord(task.video.id, VLM, "Words", row.span, None) for row in task.segments}
        )


def stopped_at_captions(catalog: Catalog, films: list[VideoRecord]) -> JobSummary:
    catalog.create_job("job", {}, "longreel submit")
    catalog.update_job("job", state="running", pid=1)
    prices = replace(SETTINGS.captions.vlm, price_in=10.0)
    settings = replace(SETTINGS, captions=replace(SETTINGS.captions, model=VLM, vlm=prices))
    engine: Any = Engine(catalog, "job")

    async def run() -> JobSummary:
        return await BatchJob(catalog, engine, settings, "job", NullReporter()).run([item(one) for one in films])

    return asyncio.run(run())


def test_a_video_is_what_it_is_when_the_job_is_cancelled_while_it_is_captioned(
    catalog: Catalog, film: VideoRecord, tmp_path: Path
) -> None:
    later = replace(film, uri=str(tmp_path / "later.mp4"), name="later.mp4")
    summary = stopped_at_captions(catalog, [film, later])
    assert summary.cancelled
    first, second = summary.items
    assert (first.state, first.segments, first.captions) == ("skipped", 20, 16)
    assert first.captions_error is not None
    assert first.captions_error["type"] == "Interrupted"
    assert "before all segments were captioned" in first.captions_error["message"]
    assert second.state == "cancelled"
    states = {one.name: (one.state, one.numbers.get("captions")) for one in catalog.items("job")}
    assert states == {"film.mp4": ("skipped", 16), "later.mp4": ("cancelled", None)}
    assert (summary.exit_code, summary.without_captions) == (3, 1)
    with pytest.raises(UnknownVideo):
        catalog.video("later.mp4")


def test_what_asking_cost_is_in_the_summary(catalog: Catalog, film: VideoRecord) -> None:
    summary = stopped_at_captions(catalog, [film])
    told = summary.to_dict()["asked"]
    assert (told["requests"], told["tokens_in"], told["cost"]) == (16, 1600, pytest.approx(0.016))
    assert "asked" not in JobSummary("job").to_dict()
