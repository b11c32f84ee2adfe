"""Indexes sources in this process: the loop of :mod:`pipeline.ingest` over the parts of each, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from csat_fusion.errors import LongreelError
from pipeline.catalog import Catalog, video_id_for
from pipeline.errors import LibraryError
from pipeline.ingest import (
    IngestOptions,
    ItemResult,
    ingest_part,
    inspect_in,
    item_from_record,
    part_spans,
    unexpected_as_typed,
    watch_task,
)
from pipeline.isolation import Isolated
from pipeline.sources import SourceItem
from pipeline.sources.redact import redact

if TYPE_CHECKING:
    from encoders.base import Encoder

__all__ = ["add_one", "add_sources"]


def add_sources(
    catalog: Catalog, encoder: Encoder, items: Iterable[SourceItem], options: IngestOptions
) -> Iterator[ItemResult]:
    """Index ``items`` into ``catalog``, giving each one's result as it ends.

    A source that cannot be used is recorded and given as failed; the others go on. The caller holds the writer lock.

    Raises:
        LibraryError: the library itself cannot go on (a full disk, say).
    """
    with Isolated() as child:
        for item in items:
            yield add_one(catalog, encoder, item, options, child)


def add_one(
    catalog: Catalog, encoder: Encoder, item: SourceItem, options: IngestOptions, child: Isolated
) -> ItemResult:
    """Index one source, decoding in ``child``; see :func:`add_sources`."""
    uri = redact(item.uri)
    try:
        return _add(catalog, encoder, item, uri, options, child)
    except LibraryError:
        raise
    except LongreelError as error:
        record = catalog.fail_video(video_id_for(uri), uri, item.name, error, tags=item.tags)
        return item_from_record(record, "failed", error)


def _add(
    catalog: Catalog, encoder: Encoder, item: SourceItem, uri: str, options: IngestOptions, child: Isolated
) -> ItemResult:
    video_id = video_id_for(uri)
    recipe_key = options.recipe_key(encoder.info.fingerprint)
    known = catalog.find_video(video_id)
    done = known.done_fingerprint(recipe_key) if known is not None else None
    with unexpected_as_typed(uri, item.uri):
        info, fingerprint = inspect_in(child, item.uri, uri, options.decode, done)
    if info is None:
        assert known is not None
        catalog.describe_video(video_id, item.name, item.tags, item.start_time)
        return item_from_record(known, "skipped")
    spans = part_spans(info.duration_seconds, options.part_seconds)
    parts = catalog.plan_video(
        video_id, uri, item.name, item.tags, item.start_time, fingerprint, recipe_key, info, spans
    )
    for part in parts:
        if part.state == "done":
            continue
        task = watch_task(item.uri, uri, fingerprint, part.span, encoder.info, options)
        try:
            result = ingest_part(task, encoder, options, child)
        except LongreelError as error:
            catalog.fail_part(part.id, error)
            raise
        catalog.commit_part(part.id, result)
    return item_from_record(catalog.finish_video(video_id), "done")
