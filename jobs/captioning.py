"""The caption stage of a batch job: what has no caption yet, cut into tasks for the caption workers, and kept.

A video's captions are made once it is indexed, while others still are. They are kept a few at a time, so a job that
died goes on where it was; what goes wrong costs that video's captions, and not the video.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

from csat_fusion.errors import LongreelError
from jobs.engine import Engine
from jobs.workers import CaptionTask
from pipeline.captioning import kept_and_missing, kept_tokens
from pipeline.catalog import Catalog
from pipeline.catalog.records import SegmentRow, VideoRecord

__all__ = ["caption_video", "lacks_captions"]

_SEGMENTS = 16  # of a task: they are captioned side by side, and kept together


def lacks_captions(catalog: Catalog, video: VideoRecord, captioner: str) -> int:
    """How many segments the captioner has not looked at yet.

    Args:
        captioner: its name as captions are kept under it, see :func:`encoders.captioner_names.kept_name`.
    """
    return video.segments - len(_looked_at(catalog, video, captioner))


def _looked_at(catalog: Catalog, video: VideoRecord, captioner: str) -> set[int]:
    return catalog.captioned_segments(video.id, captioner) | catalog.wordless_segments(video.id, captioner)


async def caption_video(
    catalog: Catalog, engine: Engine, video: VideoRecord, source: str, progress: Callable[[int, int], None]
) -> tuple[int, LongreelError | None]:
    """Caption the segments of a video that the captioner has not looked at yet. Where it fails on some of a task, the
    others are kept and it goes on, until it fails on a whole one.

    Args:
        catalog: of a library whose writer lock this process holds.
        source: where the video is, credentials included.
        progress: told how many of how many segments were looked at.

    Returns:
        How many captions the video has now, and what kept it from having all.

    Raises:
        LibraryError: the library itself cannot go on.
    """
    assert engine.captioner is not None
    info = engine.captioner
    rows = catalog.segments_of(video.id)
    done = _looked_at(catalog, video, info.name)
    todo = [row for row in rows if row.id not in done]
    kept, missing = kept_and_missing(catalog, info, engine.info.fingerprint, todo)
    waiting = iter([(batch, True) for batch in _batches(kept)] + [(batch, False) for batch in _batches(missing)])
    looked_at = len(rows) - len(todo)
    captions = len(catalog.captioned_segments(video.id, info.name))
    failed: LongreelError | None = None
    hopeless = False

    async def one_after_the_other() -> None:
        nonlocal captions, looked_at, failed, hopeless
        for batch, has_tokens in waiting:
            tokens = tuple(kept_tokens(catalog, video, row) for row in batch) if has_tokens else None
            try:
                found = await engine.caption(CaptionTask(video, source, tuple(batch), tokens))
            except LongreelError as error:
                failed, hopeless = failed or error, True
                return
            # whatever became of others meanwhile: it may have been paid for
            catalog.keep_captions(video.id, info.name, found.captions, found.without)
            captions += len(found.captions)
            looked_at += len(found.captions) + len(found.without)
            failed = failed or found.error
            hopeless = hopeless or (found.error is not None and not found.answered)
            if found.answered:
                progress(looked_at, len(rows))
            if hopeless:  # the rest would most likely meet the same
                return

    # As many at once as there are workers, so that no more token sets are read than are worked on.
    tasks = [asyncio.create_task(one_after_the_other()) for _ in range(engine.captioner_count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return captions, failed


def _batches(rows: Sequence[SegmentRow]) -> list[list[SegmentRow]]:
    left = iter(rows)
    return list(iter(lambda: list(islice(left, _SEGMENTS)), []))
