"""Captions of what is in a library: a segment's token set -> a captioner -> the catalog.

Token sets that were kept at indexing are used where the captioner reads the tokens of the library's own encoder; for
other segments the video is read again and their frames go through the captioner's encoder and the same compression.

Shapes: T frames, P tokens of a frame, d width of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csat_fusion.errors import CompressionError
from pipeline.catalog.records import CaptionRecord, SegmentRow, VideoRecord
from pipeline.digest import TokenOptions
from pipeline.errors import LibraryError, OptionError
from pipeline.ingest import DecodeOptions, IngestOptions, inspect_in, watch_in
from pipeline.isolation import Isolated
from pipeline.media import Block, Span

if TYPE_CHECKING:
    from csat_fusion.compressors.base import Compressor
    from csat_fusion.tokens import TokenSet
    from encoders.captioning import Captioner, CaptionerInfo
    from pipeline.library import Library

__all__ = ["CaptionedVideo", "caption_library", "caption_segments"]

_BATCH = 16  # segments that are captioned, and kept, at once


@dataclass(frozen=True)
class CaptionedVideo:
    """What became of a video's captions.

    Attributes:
        captions: those of this captioner, in time order, the ones that were there before included.
        from_kept, from_frames: how many segments were captioned now, by where their tokens came from.
        without: segments that have none: no frame of theirs could be decoded, or the captioner had no words.
    """

    video: VideoRecord
    captions: tuple[CaptionRecord, ...]
    from_kept: int
    from_frames: int
    without: int


def caption_library(
    library: Library,
    captioner: Captioner,
    videos: Sequence[str] | None = None,
    *,
    again: bool = False,
    options: IngestOptions | None = None,
    captioned: Callable[[CaptionRecord], None] = lambda caption: None,
) -> Iterator[CaptionedVideo]:
    """Caption these videos, or all that are done, one after the other; see :func:`caption_segments`."""
    records = library.videos(state="done") if videos is None else [library.catalog.video(one) for one in videos]
    for record in records:
        yield caption_segments(library, record.id, captioner, again=again, options=options, captioned=captioned)


def caption_segments(
    library: Library,
    video: str,
    captioner: Captioner,
    *,
    again: bool = False,
    limit: int | None = None,
    options: IngestOptions | None = None,
    captioned: Callable[[CaptionRecord], None] = lambda caption: None,
) -> CaptionedVideo:
    """Caption the segments of a video and keep the captions in the catalog.

    They are kept a few at a time: what is there when it is interrupted stays, and is not done again. The writer lock is
    held while some are written, not while they are made.

    Args:
        video: by id, URI or name.
        again: caption segments, too, that have a caption by this captioner.
        limit: only so many segments, spread evenly over the video; the same ones each time.
        options: how frames are read and compressed where they have to be read again; as for indexing.
        captioned: called with each caption once it is kept.

    Raises:
        OptionError: a limit below 1.
        UnknownVideo: no such video.
        SourceError: the video has to be read again, and cannot be.
        LibraryBusy: another process writes to this library.
        LibraryError: the file has changed since it was indexed, or was indexed anew meanwhile; a token set in the
            catalog is damaged.
        EncoderError: the captioner cannot caption.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"limit is {limit}; allowed: 1 or more, or None for all segments")
    catalog = library.catalog
    record = catalog.video(video)
    name = captioner.info.name
    done = set() if again else catalog.captioned_segments(record.id, name)
    rows = catalog.segments_of(record.id)
    if limit is not None and len(rows) > limit:
        rows = [rows[(2 * i + 1) * len(rows) // (2 * limit)] for i in range(limit)]
    todo = [row for row in rows if row.id not in done]
    kept, missing = _kept(library, captioner.info, record.uri, todo)
    counts = {"kept": 0, "frames": 0}
    read_again = _from_frames(record, missing, captioner, options or IngestOptions()) if missing else iter(())
    for where, sets in (("kept", kept), ("frames", read_again)):
        for batch in _batches(sets):
            found = captioner.caption(
                [tokens for _, tokens in batch],
                spans=[(row.span.start_seconds, row.span.end_seconds) for row, _ in batch],
            )
            new = {
                row.id: CaptionRecord(record.id, name, caption.text, row.span, caption.confidence)
                for (row, _), caption in zip(batch, found, strict=True)
                if caption.text
            }
            with library.writing("caption") as writer:
                writer.keep_captions(record.id, name, new)
            counts[where] += len(new)
            for caption_kept in new.values():
                captioned(caption_kept)
    ours = tuple(one for one in catalog.captions_of(record.id) if one.model == name)
    without = len(todo) - counts["kept"] - counts["frames"]
    return CaptionedVideo(record, ours, counts["kept"], counts["frames"], without)


def _kept(
    library: Library, info: CaptionerInfo, uri: str, rows: Sequence[SegmentRow]
) -> tuple[Iterator[tuple[SegmentRow, TokenSet]], list[SegmentRow]]:
    """Segments with a token set that this captioner can read, read one by one; and those without."""
    from csat_fusion.tokens import TokenSet

    if not info.reads or info.reads != library.manifest.fingerprint:
        return iter(()), list(rows)
    there = library.catalog.segments_with_tokens(row.id for row in rows)

    def sets() -> Iterator[tuple[SegmentRow, TokenSet]]:
        for row in rows:
            found = library.catalog.token_set(row.id) if row.id in there else None
            if found is None:
                continue
            try:
                tokens = TokenSet.from_bytes(found.payload)
            except CompressionError as error:
                raise LibraryError(f"{uri}: the token set kept for {row.span} cannot be read: {error}") from error
            yield row, tokens

    return sets(), [row for row in rows if row.id not in there]


@dataclass(eq=False)
class _Reading:
    """A segment whose frames are being read."""

    row: SegmentRow
    compressor: Compressor
    frames: int = 0


def _from_frames(
    record: VideoRecord, rows: Sequence[SegmentRow], captioner: Captioner, options: IngestOptions
) -> Iterator[tuple[SegmentRow, TokenSet]]:
    """Token sets of these segments, in time order, from the video's frames; none for a segment without a frame."""
    from pipeline.watch import WatchTask

    decode, info = options.decode, captioner.info
    waiting = sorted(rows, key=lambda row: row.span)
    reading: list[_Reading] = []
    with Isolated() as child:
        _check_unchanged(child, record, decode)
        task = WatchTask(
            source=record.uri,
            uri=record.uri,
            cache_dir=decode.cache_dir,
            cache_bytes=decode.cache_bytes,
            fingerprint=record.fingerprint,
            span=Span(waiting[0].span.start_seconds, max(row.span.end_seconds for row in rows)),
            short_side=min(info.image_height, info.image_width),
            decoder=decode.decoder,
            threads=decode.threads,
            sampling=options.sampling,
            gate=options.gate,
            segments=options.segments,
        )
        for message in watch_in(child, task, decode.stall_seconds):
            if not isinstance(message, Block):
                continue
            wanted = [i for i in range(len(message)) if _cuts(_stands_for(message, i), rows)]
            tokens = captioner.tokens(message.images[wanted]) if wanted else None
            for place, i in enumerate(wanted):
                assert tokens is not None
                seen = _stands_for(message, i)
                while waiting and waiting[0].span.start_seconds < seen.end_seconds:
                    reading.append(_Reading(waiting.pop(0), _compressor(options.digest.tokens)))
                for one in reading:
                    # what a look-alike stands for beyond its segment is of the next one, too
                    for cut in _cuts(seen, [one.row]):
                        weight = float(message.weight[i])
                        one.compressor.update(tokens[place], cut.start_seconds, cut.end_seconds, weight=weight)
                        one.frames += 1
                over = [one for one in reading if one.row.span.end_seconds <= seen.start_seconds]
                reading = [one for one in reading if one not in over]
                yield from _results(over)
        yield from _results(reading)


def _stands_for(block: Block, frame: int) -> Span:
    return Span(float(block.start_seconds[frame]), float(block.end_seconds[frame]))


def _cuts(seen: Span, rows: Iterable[SegmentRow]) -> list[Span]:
    """What of a frame's span lies in each of these segments."""
    return [
        Span(max(seen.start_seconds, row.span.start_seconds), min(seen.end_seconds, row.span.end_seconds))
        for row in rows
        if seen.overlaps(row.span)
    ]


def _results(read: Iterable[_Reading]) -> Iterator[tuple[SegmentRow, TokenSet]]:
    for one in read:
        if one.frames:
            yield one.row, one.compressor.result()


def _compressor(options: TokenOptions) -> Compressor:
    from csat_fusion import make_compressor

    return make_compressor(options.compressor, options.budget, gap_seconds=options.gap_seconds)


def _check_unchanged(child: Isolated, record: VideoRecord, decode: DecodeOptions) -> None:
    info, _ = inspect_in(child, record.uri, record.uri, decode, record.fingerprint)
    if info is not None:
        raise LibraryError(f"{record.uri}: the file has changed since it was indexed; index it again first")


def _batches(
    sets: Iterator[tuple[SegmentRow, TokenSet]],
) -> Iterator[list[tuple[SegmentRow, TokenSet]]]:
    batch: list[tuple[SegmentRow, TokenSet]] = []
    for one in sets:
        batch.append(one)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
