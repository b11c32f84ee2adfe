"""Captions of what is in a library: a segment's token set or key frames -> a captioner -> the catalog.

Token sets that were kept at indexing are used where the captioner reads the tokens of the library's own encoder; for
other segments the video is read again and their frames go through the captioner's encoder and the same compression. A
captioner that looks at pictures is given the key frames of what is read again.

Shapes: T frames, P tokens of a frame, d width of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from csat_fusion.errors import CompressionError
from encoders.errors import EncoderError
from encoders.vlm.counts import VlmCounts, asked_since, counts_of
from pipeline.catalog.records import CaptionRecord, SegmentRow, VideoRecord
from pipeline.digest import TokenOptions
from pipeline.errors import LibraryError, OptionError
from pipeline.ingest import DecodeOptions, IngestOptions, inspect_in, watch_in
from pipeline.isolation import Isolated
from pipeline.media import Block, Span

if TYPE_CHECKING:
    import torch

    from csat_fusion.compressors.base import Compressor
    from csat_fusion.tokens import TokenSet
    from encoders.captioning import Caption, Captioner, CaptionerInfo, KeyFrame
    from pipeline.catalog import Catalog
    from pipeline.library import Library

__all__ = [
    "CaptionedSegments",
    "CaptionedVideo",
    "caption_library",
    "caption_segments",
    "captions_for",
    "kept_and_missing",
    "kept_tokens",
]

_BATCH = 16  # segments that are captioned, and kept, at once
_PICTURES = 4  # times as many pictures as key frames are held of a segment that is being read


@dataclass(frozen=True)
class CaptionedVideo:
    """What became of a video's captions.

    Attributes:
        captions: those of this captioner, in time order, the ones that were there before included.
        from_kept, from_frames: how many segments were captioned now, by where their tokens came from.
        without: segments that it has none for: no frame of theirs could be decoded, or it had no words. It is not asked
            for these again.
    """

    video: VideoRecord
    captions: tuple[CaptionRecord, ...]
    from_kept: int
    from_frames: int
    without: int


@dataclass(frozen=True)
class CaptionedSegments:
    """What became of some segments of a video.

    Attributes:
        captions: by the segment's id.
        without: ids of segments that it had no words for, or of which no frame could be decoded.
        error: what kept it from captioning the others; they are in neither.
        asked: what asking for them cost, of a captioner behind an address.
    """

    captions: dict[int, CaptionRecord]
    without: frozenset[int] = frozenset()
    error: EncoderError | None = None
    asked: VlmCounts | None = None

    @property
    def answered(self) -> bool:
        """Whether it said of any of them what there is to say."""
        return bool(self.captions or self.without)


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
    held while some are written, not while they are made. Where the captioner fails on some segments of several, the
    others are kept and it goes on, until it fails on all that it is given at once.

    Args:
        video: by id, URI or name.
        again: caption segments, too, that have a caption by this captioner, or that it had no words for.
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
    rows = catalog.segments_of(record.id)
    if limit is not None and len(rows) > limit:
        rows = [rows[(2 * i + 1) * len(rows) // (2 * limit)] for i in range(limit)]
    silent = set() if again else catalog.wordless_segments(record.id, name)
    done = set() if again else catalog.captioned_segments(record.id, name) | silent
    todo = [row for row in rows if row.id not in done]
    kept, missing = kept_and_missing(catalog, captioner.info, library.manifest.fingerprint, todo)
    counts = {"kept": 0, "frames": 0}
    without = sum(row.id in silent for row in rows)
    from_kept = (_from_payload(record, row, kept_tokens(catalog, record, row)) for row in kept)
    from_frames = _from_frames(record, missing, captioner, options or IngestOptions(), record.uri)
    failed: EncoderError | None = None
    for where, asked, contents in (("kept", kept, from_kept), ("frames", missing, from_frames)):
        unseen = {row.id for row in asked}
        for batch in _batches(contents):
            new = _captions(captioner, record, batch)
            unseen -= {one.row.id for one in batch}
            _keep(library, record, name, new.captions, new.without)
            counts[where] += len(new.captions)
            without += len(new.without)
            for caption_kept in new.captions.values():
                captioned(caption_kept)
            if new.error is not None:
                failed = failed or new.error
                if not new.answered:  # the rest would most likely meet the same
                    raise failed
        _keep(library, record, name, {}, unseen)
        without += len(unseen)
    if failed is not None:
        raise failed
    ours = tuple(one for one in catalog.captions_of(record.id) if one.model == name)
    return CaptionedVideo(record, ours, counts["kept"], counts["frames"], without)


def _keep(
    library: Library, video: VideoRecord, name: str, captions: dict[int, CaptionRecord], without: Collection[int]
) -> None:
    if captions or without:
        with library.writing("caption") as writer:
            writer.keep_captions(video.id, name, captions, without)


def captions_for(
    captioner: Captioner,
    video: VideoRecord,
    rows: Sequence[SegmentRow],
    tokens: Sequence[bytes] | None,
    *,
    options: IngestOptions,
    source: str,
) -> CaptionedSegments:
    """Captions of some segments of a video; no catalog is needed.

    Args:
        tokens: their token sets as they are kept; ``None``: the video is read again.
        options: how frames are read and compressed then.
        source: where the video is; its URI, and the credentials that the catalog does not hold.

    Raises:
        SourceError, LibraryError: as :func:`caption_segments`. What the captioner fails with is in the result.
    """
    contents = (
        _from_frames(video, rows, captioner, options, source)
        if tokens is None
        else (_from_payload(video, row, payload) for row, payload in zip(rows, tokens, strict=True))
    )
    before = counts_of(captioner)
    captions: dict[int, CaptionRecord] = {}
    unseen, without = {row.id for row in rows}, set[int]()
    error: EncoderError | None = None
    for batch in _batches(contents):
        found = _captions(captioner, video, batch)
        captions |= found.captions
        without |= found.without
        unseen -= {one.row.id for one in batch}
        error = error or found.error
        if found.error is not None and not found.answered:
            unseen = set()
            break
    return CaptionedSegments(captions, frozenset(without | unseen), error, asked_since(captioner, before))


def kept_and_missing(
    catalog: Catalog, info: CaptionerInfo, fingerprint: str, rows: Sequence[SegmentRow]
) -> tuple[list[SegmentRow], list[SegmentRow]]:
    """Segments with a token set, by the encoder of this ``fingerprint``, that this captioner can read; and those for
    which the video has to be read again."""
    fits = info.reads != "" and info.reads == fingerprint
    there = catalog.segments_with_tokens(row.id for row in rows) if fits else set()
    return [row for row in rows if row.id in there], [row for row in rows if row.id not in there]


def kept_tokens(catalog: Catalog, video: VideoRecord, row: SegmentRow) -> bytes:
    """The token set of a segment.

    Raises:
        LibraryError: it is gone.
    """
    found = catalog.token_set(row.id)
    if found is None:
        raise LibraryError(f"{video.uri}: the token set of {row.span} is gone: it was removed or indexed anew")
    return found.payload


@dataclass(frozen=True, eq=False)
class _Content:
    """What a captioner is given of a segment: its token set, or its key frames."""

    row: SegmentRow
    tokens: TokenSet | None
    key_frames: Sequence[KeyFrame] = ()


def _captions(captioner: Captioner, video: VideoRecord, batch: Sequence[_Content]) -> CaptionedSegments:
    error: EncoderError | None = None
    found: Sequence[Caption | None]
    try:
        found = captioner.caption(
            [one.tokens for one in batch],
            spans=[(one.row.span.start_seconds, one.row.span.end_seconds) for one in batch],
            key_frames=[one.key_frames for one in batch],
        )
    except EncoderError as failed:
        error, found = failed, failed.captions or [None] * len(batch)
    name = captioner.info.name
    captions, without = {}, set()
    for one, caption in zip(batch, found, strict=True):
        if caption is not None and caption.text:
            captions[one.row.id] = CaptionRecord(video.id, name, caption.text, one.row.span, caption.confidence)
        elif caption is not None:
            without.add(one.row.id)
    return CaptionedSegments(captions, frozenset(without), error)


def _from_payload(video: VideoRecord, row: SegmentRow, payload: bytes) -> _Content:
    from csat_fusion.tokens import TokenSet

    try:
        return _Content(row, TokenSet.from_bytes(payload))
    except CompressionError as error:
        raise LibraryError(f"{video.uri}: the token set kept for {row.span} cannot be read: {error}") from error


class _Reading:
    """A segment whose frames are being read; knows what a captioner is given of it."""

    def __init__(self, row: SegmentRow, info: CaptionerInfo, options: TokenOptions) -> None:
        self.row = row
        self._count = info.key_frames
        self._pictures: list[KeyFrame] = []
        self._compressor = None if self._count else _compressor(options)
        self._seen = False

    def see(
        self, image: npt.NDArray[np.uint8], tokens: torch.Tensor | None, seconds: float, cut: Span, weight: float
    ) -> None:
        """A frame of it, which stands for ``cut``."""
        self._seen = True
        if self._compressor is not None:
            assert tokens is not None
            self._compressor.update(tokens, cut.start_seconds, cut.end_seconds, weight=weight)
            return
        from encoders.captioning import KeyFrame

        within = min(max(seconds, cut.start_seconds), cut.end_seconds)
        # a picture of its own, which does not hold its whole block
        self._pictures.append(KeyFrame(image.copy(), within, cut.start_seconds, cut.end_seconds))
        if len(self._pictures) > _PICTURES * self._count:
            self._pictures = _thinned(self._pictures, _PICTURES // 2 * self._count)

    def content(self) -> _Content | None:
        """``None``: not one frame of it was seen."""
        if not self._seen:
            return None
        if self._compressor is not None:
            return _Content(self.row, self._compressor.result())
        from encoders.captioning import cover

        return _Content(self.row, None, cover(self._pictures, self._count))


def _thinned(pictures: Sequence[KeyFrame], count: int) -> list[KeyFrame]:
    """The most covering ``count`` of them, each of which stands for the time up to the next as well."""
    from encoders.captioning import cover

    kept = cover(pictures, count)
    starts = [pictures[0].start_seconds, *(one.start_seconds for one in kept[1:])]
    ends = [*starts[1:], max(one.end_seconds for one in pictures)]
    return [
        replace(one, start_seconds=start, end_seconds=end) for one, start, end in zip(kept, starts, ends, strict=True)
    ]


def _from_frames(
    record: VideoRecord, rows: Sequence[SegmentRow], captioner: Captioner, options: IngestOptions, source: str
) -> Iterator[_Content]:
    """Of these segments, in time order, what the captioner wants, from the video's frames; a segment without a frame is
    left out.
    """
    from pipeline.watch import WatchTask

    if not rows:
        return
    decode, info = options.decode, captioner.info
    waiting = sorted(rows, key=lambda row: row.span)
    reading: list[_Reading] = []
    with Isolated() as child:
        _check_unchanged(child, record, decode, source)
        task = WatchTask(
            source=source,
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
            tokens = captioner.tokens(message.images[wanted]) if wanted and not info.key_frames else None
            for place, i in enumerate(wanted):
                seen = _stands_for(message, i)
                while waiting and waiting[0].span.start_seconds < seen.end_seconds:
                    reading.append(_Reading(waiting.pop(0), info, options.digest.tokens))
                for one in reading:
                    # what a look-alike stands for beyond its segment is of the next one, too
                    for cut in _cuts(seen, [one.row]):
                        one.see(
                            message.images[i],
                            None if tokens is None else tokens[place],
                            float(message.pts_seconds[i]),
                            cut,
                            float(message.weight[i]),
                        )
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


def _results(read: Iterable[_Reading]) -> Iterator[_Content]:
    for one in read:
        content = one.content()
        if content is not None:
            yield content


def _compressor(options: TokenOptions) -> Compressor:
    from csat_fusion import make_compressor

    return make_compressor(options.compressor, options.budget, gap_seconds=options.gap_seconds)


def _check_unchanged(child: Isolated, record: VideoRecord, decode: DecodeOptions, source: str) -> None:
    info, _ = inspect_in(child, source, record.uri, decode, record.fingerprint)
    if info is not None:
        raise LibraryError(f"{record.uri}: the file has changed since it was indexed; index it again first")


def _batches(contents: Iterator[_Content]) -> Iterator[list[_Content]]:
    batch: list[_Content] = []
    for one in contents:
        batch.append(one)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
