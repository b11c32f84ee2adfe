"""A batch job: for each video inspect -> plan -> parts -> commit (-> captions), many at a time, on Ray.

This process is the library's one writer. Everything that a part found is committed in one transaction, ids follow from
the content and the recipe, so a job that dies at any moment is taken up by submitting again: what is done is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import LongreelError
from encoders.captioner_names import kept_name
from jobs.captioning import caption_video, lacks_captions
from jobs.engine import Engine
from jobs.errors import Interrupted
from jobs.reporting import JobSummary, Reporter
from jobs.settings import RunSettings
from jobs.workers import Taken
from pipeline.catalog import Catalog, video_id_for
from pipeline.errors import LibraryError
from pipeline.ingest import ItemResult, error_values, item_from_record, part_spans, watch_task
from pipeline.sources import SourceItem
from pipeline.sources.redact import redact

if TYPE_CHECKING:
    from pipeline.catalog.records import PartRecord

__all__ = ["BatchJob", "skip_done"]

_CANCEL_POLL_SECONDS = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def skip_done(
    catalog: Catalog, items: Sequence[SourceItem], recipe_key: str, captioner: str = ""
) -> tuple[list[SourceItem], list[ItemResult]]:
    """Split into what there is to do and what is done and unchanged, with each segment looked at by ``captioner``, if
    there is to be one. Its name may be typed in any way.

    Remote sources are asked for their fingerprint where they are worked on, not here. Name, tags and start time of what
    is done are taken over, as :meth:`pipeline.catalog.Catalog.describe_video` says.
    """
    from pipeline.sources.fingerprint import fingerprint
    from pipeline.sources.redact import is_remote

    captioner = kept_name(captioner) if captioner else ""
    todo, skipped = [], []
    for item in items:
        record = catalog.find_video(video_id_for(redact(item.uri)))
        current = None
        if record is not None and record.state == "done" and not is_remote(item.uri):
            with contextlib.suppress(LongreelError):  # whatever is wrong with it now is found, and said, by the job
                current = fingerprint(item.uri)
        done = record is not None and current is not None and record.is_done(current, recipe_key)
        if record is not None and done and not (captioner and lacks_captions(catalog, record, captioner)):
            catalog.describe_video(record.id, item.name, item.tags, item.start_time)
            captions = len(catalog.captioned_segments(record.id, captioner)) if captioner else None
            skipped.append(replace(item_from_record(record, "skipped"), captions=captions))
        else:
            todo.append(item)
    return todo, skipped


class BatchJob:
    """Runs a list of sources through the engine into the catalog.

    Args:
        catalog: of a library whose writer lock this process holds.
        job_id: a job that the catalog knows.
    """

    def __init__(
        self, catalog: Catalog, engine: Engine, settings: RunSettings, job_id: str, reporter: Reporter
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._settings = settings
        self._job_id = job_id
        self._reporter = reporter
        self._recipe_key = settings.ingest.recipe_key(engine.info.fingerprint)
        self._results: dict[str, ItemResult] = {}

    async def run(self, items: Sequence[SourceItem]) -> JobSummary:
        """Do all ``items``; one that fails is recorded and the others go on.

        Raises:
            LibraryError: the library itself cannot go on (a full disk, say); what was committed stays.
        """
        summary = JobSummary(self._job_id)
        queue = iter(items)

        async def worker() -> None:
            for item in queue:
                await self._video(item)

        workers = [asyncio.create_task(worker()) for _ in range(min(len(items), self._engine.videos_at_once))]
        everything = asyncio.gather(*workers)
        cancel = asyncio.create_task(self._wait_for_cancel())
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        stopped = _stop_on_signals()
        try:
            ends: list[asyncio.Future[Any]] = [everything, cancel, stopped]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            summary.interrupted = stopped.done()
            if everything.done():
                everything.result()
            elif cancel.done():
                cancel.result()
                summary.cancelled = True
        finally:
            for task in [*workers, cancel]:
                task.cancel()
            await asyncio.gather(everything, cancel, return_exceptions=True)
            _restore_signals(stopped, handlers)
        summary.items = [self._results.get(item.uri) or self._cancelled(item) for item in items]
        if self._engine.asked is not None:
            summary.asked = self._engine.asked.to_dict(self._settings.captions.vlm)
        return summary

    async def _wait_for_cancel(self) -> None:
        while not self._catalog.cancel_requested(self._job_id):
            await asyncio.sleep(_CANCEL_POLL_SECONDS)

    def _cancelled(self, item: SourceItem) -> ItemResult:
        uri = redact(item.uri)
        video_id = video_id_for(uri)
        self._catalog.set_item(self._job_id, uri, video_id=video_id, name=item.name, state="cancelled")
        result = ItemResult(uri=uri, video=video_id, state="cancelled")
        self._reporter.video_ended(item.name, result)
        return result

    async def _video(self, item: SourceItem) -> None:
        """One video to its end: done, failed or skipped."""
        uri = redact(item.uri)
        video_id = video_id_for(uri)
        try:
            result = await self._ingest(item, uri, video_id)
            if self._engine.captioner is not None:
                result = await self._captioned(item, result, video_id)
        except LibraryError:
            raise  # not this video's fault: nothing can be kept any more
        except LongreelError as error:
            record = self._catalog.fail_video(video_id, uri, item.name, error, job_id=self._job_id, tags=item.tags)
            result = item_from_record(record, "failed", error)
        self._end(item, result)

    def _end(self, item: SourceItem, result: ItemResult) -> None:
        """Say and write down what became of a video."""
        self._results[item.uri] = result
        self._record(item, result)
        self._reporter.video_ended(item.name, result)

    async def _ingest(self, item: SourceItem, uri: str, video_id: str) -> ItemResult:
        known = self._catalog.find_video(video_id)
        done = known.done_fingerprint(self._recipe_key) if known is not None else None
        info, fingerprint = await self._engine.inspect(item.uri, uri, done)
        if info is None:
            assert known is not None
            self._catalog.describe_video(video_id, item.name, item.tags, item.start_time)
            return item_from_record(known, "skipped")
        parts = self._catalog.plan_video(
            video_id,
            uri,
            item.name,
            item.tags,
            item.start_time,
            fingerprint,
            self._recipe_key,
            info,
            part_spans(info.duration_seconds, self._settings.ingest.part_seconds),
        )
        self._reporter.video_started(uri, item.name, info.duration_seconds)
        progress = _Progress(self._reporter, uri, parts)
        waiting = [
            asyncio.create_task(self._part(item.uri, uri, fingerprint, part, progress))
            for part in parts
            if part.state != "done"
        ]
        try:
            await asyncio.gather(*waiting)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return item_from_record(self._catalog.finish_video(video_id), "done")

    async def _captioned(self, item: SourceItem, result: ItemResult, video_id: str) -> ItemResult:
        """The result of a video that is indexed, once it has its captions, or not; that costs it nothing else."""
        video = self._catalog.video(video_id)

        def progress(done: int, total: int) -> None:
            self._reporter.captions_progress(result.uri, item.name, done, total)

        error: LongreelError | None
        try:
            captions, error = await caption_video(self._catalog, self._engine, video, item.uri, progress)
        except asyncio.CancelledError:
            # The job ends here, and the video is indexed all the same: nothing else would say so.
            assert self._engine.captioner is not None
            captions = len(self._catalog.captioned_segments(video_id, self._engine.captioner.name))
            error = Interrupted(f"{result.uri}: the job was stopped before all segments were captioned")
            self._end(item, self._with_captions(result, captions, error))
            raise
        return self._with_captions(result, captions, error)

    def _with_captions(self, result: ItemResult, captions: int, error: LongreelError | None) -> ItemResult:
        if error is None:
            return replace(result, captions=captions)
        self._catalog.record_error(error, job_id=self._job_id, video_id=result.video, uri=result.uri)
        return replace(result, captions=captions, captions_error=error_values(error))

    async def _part(self, source: str, uri: str, fingerprint: str, part: PartRecord, progress: _Progress) -> None:
        task = watch_task(source, uri, fingerprint, part.span, self._engine.info, self._settings.ingest)
        try:
            result = await self._engine.run_part(part.id, task, lambda taken: progress.update(part, taken))
        except LongreelError as error:
            self._catalog.fail_part(part.id, error)
            raise
        self._catalog.commit_part(part.id, result)

    def _record(self, item: SourceItem, result: ItemResult) -> None:
        error = result.error or {}
        numbers = {
            key: getattr(result, key)
            for key in ("duration_seconds", "segments", "vectors", "frames_sampled", "frames_encoded", "lost_seconds")
        }
        if result.captions is not None:
            numbers |= {"captions": result.captions, "captions_error": result.captions_error}
        self._catalog.set_item(
            self._job_id,
            result.uri,
            video_id=result.video,
            name=item.name,
            state=result.state,
            error_type=error.get("type"),
            error_message=error.get("message"),
            numbers=numbers,
        )


class _Progress:
    """Adds up how far the parts of one video have come."""

    def __init__(self, reporter: Reporter, uri: str, parts: Sequence[PartRecord]) -> None:
        self._reporter = reporter
        self._uri = uri
        self._seconds = {
            part.id: part.covered.duration_seconds if part.state == "done" and part.covered else 0.0 for part in parts
        }
        self._frames = 0

    def update(self, part: PartRecord, taken: Taken) -> None:
        if taken.end_seconds is not None:
            self._seconds[part.id] = taken.end_seconds - part.span.start_seconds
        self._frames += taken.frames
        self._reporter.video_progress(self._uri, sum(self._seconds.values()), self._frames)


def _stop_on_signals() -> asyncio.Future[None]:
    """Done at the first SIGINT or SIGTERM; a second SIGINT breaks off at once, as usual."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)
        loop.remove_signal_handler(signal.SIGINT)

    with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: whoever is, decides
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
    return stopped


def _restore_signals(stopped: asyncio.Future[None], handlers: dict[signal.Signals, Any]) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ValueError, RuntimeError):
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
    stopped.cancel()
