"""A tape: what a model saw of videos, kept so that everything after the model can be done again without decoding.

:func:`record` runs the loop of :mod:`pipeline.ingest` once and keeps, of every frame that passed the gate, its
embedding, its patch tokens where wanted, and what it stands for. :func:`replay` makes a library of it under any
``DigestOptions``: the frames go through the very code that a submit goes through (digest, catalog, index), only that
the model's answers come from the tape. Vectors and token sets are those of a submit, bit for bit; thumbnails are not
kept.

A tape lies in a folder of the caller's: 4 bytes for each number, for ViT-B-32 2 kB a frame, and 150 kB with tokens.

Shapes: T frames, P patches, d width of a patch token, D width of the joint space.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.catalog import video_id_for
from pipeline.digest import Digest, DigestOptions
from pipeline.errors import InputError
from pipeline.evaluation.library import Progress
from pipeline.ingest import (
    IngestOptions,
    inspect_in,
    part_spans,
    read_ahead,
    unexpected_as_typed,
    watch_in,
    watch_task,
)
from pipeline.isolation import Isolated
from pipeline.library import Library
from pipeline.media import Block, MediaInfo, PartResult, Span, WatchSummary
from pipeline.sources import SourceItem
from pipeline.sources.redact import redact
from pipeline.store import disk_errors

if TYPE_CHECKING:
    from encoders.base import Encoder, EncoderInfo, FrameTokens
    from pipeline.index import IndexOptions
    from pipeline.search import SearchOptions

__all__ = ["Tape", "TapedPart", "TapedVideo", "record", "replay"]

Transform = Callable[["TapedPart", PartResult], PartResult]

_BLOCKS_AHEAD = 4
_NUMBER_BYTES = 6  # of a frame's number, which stands in for its picture


@dataclass(frozen=True)
class TapedPart:
    """A part: its ``blocks`` with frame numbers for pictures (see :func:`numbers_of`), and what its watch summed up."""

    span: Span
    blocks: tuple[Block, ...]
    summary: WatchSummary

    @property
    def frames(self) -> npt.NDArray[np.int64]:
        """Numbers ``[T]`` of its frames on the tape."""
        return np.concatenate([numbers_of(block.images) for block in self.blocks] or [np.zeros(0, np.int64)])


@dataclass(frozen=True)
class TapedVideo:
    """A video on the tape, with all that the catalog is told of it."""

    item: SourceItem
    uri: str
    fingerprint: str
    info: MediaInfo
    parts: tuple[TapedPart, ...]


@dataclass
class Tape:
    """Recorded videos. ``embedding [T, D]`` and ``tokens [T, P, d]`` (``None``: not recorded) lie on disk, float32.

    A context manager: closing it deletes its files.
    """

    info: EncoderInfo
    options: IngestOptions
    folder: Path
    videos: tuple[TapedVideo, ...]
    embedding: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.float32] | None
    closed: bool = field(default=False)

    def close(self) -> None:
        """Delete the tape's files. Closing twice is harmless."""
        self.closed = True
        for name in _FILES:
            (self.folder / name).unlink(missing_ok=True)

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.embedding)


_FILES = ("embedding.f32", "tokens.f32")


def record(
    encoder: Encoder,
    items: Sequence[SourceItem],
    options: IngestOptions,
    folder: Path,
    *,
    tokens: bool = False,
    progress: Progress | None = None,
) -> Tape:
    """Decode and encode ``items`` once, as a submit with ``options`` would; the tape lies in ``folder``.

    Args:
        options: all but ``options.digest``, which :func:`replay` is given, counts.
        tokens: keep patch tokens too.

    Raises:
        InputError: there is a tape in the folder.
        SourceError: a video cannot be used: a comparison without it would not be one.
        TokensUnavailable: tokens of a model that has none.
        DiskFull: no room for the tape.
    """
    if any((folder / name).exists() for name in _FILES):
        raise InputError(f"{folder}: holds a tape already")
    videos = []
    count, info = 0, encoder.info
    with disk_errors(folder), contextlib.ExitStack() as stack:
        child = stack.enter_context(Isolated())
        file = stack.enter_context((folder / _FILES[0]).open("xb"))
        token_file = stack.enter_context((folder / _FILES[1]).open("xb")) if tokens else None
        recorder = _Recorder(encoder, file, token_file)
        for i, item in enumerate(items):
            videos.append(_record_video(recorder, item, options, child, f"{i + 1}/{len(items)} {item.name}", progress))
        count = recorder.count
    return Tape(
        info,
        options,
        folder,
        tuple(videos),
        _mapped(folder / _FILES[0], (count, info.dimension)),
        _mapped(folder / _FILES[1], (count, info.patches, info.token_width)) if tokens else None,
    )


def replay(
    tape: Tape,
    encoder: Encoder,
    folder: Path,
    digest: DigestOptions,
    *,
    transform: Transform | None = None,
    index_options: IndexOptions | None = None,
    search_options: SearchOptions | None = None,
) -> Library:
    """A library in the absent or empty ``folder``, made of the tape under ``digest``. The caller closes it.

    Args:
        encoder: the model that the tape was recorded with, for the library's text queries; the caller closes it.
        transform: changes what is committed of each part.

    Raises:
        InputError: another model recorded the tape, or token sets are asked of a tape without tokens.
    """
    if tape.closed:
        raise InputError(f"{tape.folder}: the tape is closed")
    if encoder.info.fingerprint != tape.info.fingerprint:
        raise InputError(f"{tape.folder}: recorded with {tape.info.name}, asked for with {encoder.info.name}")
    if digest.tokens.keep and tape.tokens is None:
        raise InputError(f"{tape.folder}: token sets are asked of a tape without tokens")
    digest = replace(digest, thumbnail_pixels=0)
    player = cast("Encoder", _Player(tape))
    options = replace(tape.options, digest=digest)
    library = Library.open(folder, encoder=encoder, index_options=index_options, search_options=search_options)
    try:
        with library.writing("evaluate") as catalog:
            for video in tape.videos:
                video_id = video_id_for(video.uri)
                parts = catalog.plan_video(
                    video_id,
                    video.uri,
                    video.item.name,
                    video.item.tags,
                    video.item.start_time,
                    video.fingerprint,
                    options.recipe_key(tape.info.fingerprint),
                    video.info,
                    [part.span for part in video.parts],
                )
                for planned, part in zip(parts, video.parts, strict=True):
                    worker = Digest(player, digest)
                    for block in part.blocks:
                        worker.add(block)
                    result = worker.finish(part.summary)
                    catalog.commit_part(planned.id, result if transform is None else transform(part, result))
                catalog.finish_video(video_id)
    except BaseException:
        library.close()
        raise
    return library


def _record_video(
    recorder: _Recorder, item: SourceItem, options: IngestOptions, child: Isolated, what: str, progress: Progress | None
) -> TapedVideo:
    uri = redact(item.uri)
    with unexpected_as_typed(uri, item.uri):
        info, fingerprint = inspect_in(child, item.uri, uri, options.decode, None)
    assert info is not None
    parts = []
    for span in part_spans(info.duration_seconds, options.part_seconds):
        task = watch_task(item.uri, uri, fingerprint, span, recorder.info, options)
        digest = Digest(cast("Encoder", recorder), DigestOptions(thumbnail_pixels=0))  # for its batches alone
        blocks: list[Block] = []
        summary = None
        messages = watch_in(child, task, options.decode.stall_seconds)
        number = recorder.count
        with contextlib.closing(read_ahead(messages, _BLOCKS_AHEAD)) as ahead:
            for message in ahead:
                if isinstance(message, Block):
                    digest.add(message)
                    blocks.append(replace(message, images=pictures_of(np.arange(number, number + len(message)))))
                    number += len(message)
                    if progress is not None and len(message):
                        progress(what, float(message.end_seconds[-1]), info.duration_seconds)
                else:
                    summary = message
        assert summary is not None
        digest.finish(summary)
        assert recorder.count == number  # every frame of every block was encoded, in order
        parts.append(TapedPart(span, tuple(blocks), summary))
    return TapedVideo(item, uri, fingerprint, info, tuple(parts))


class _Recorder:
    """Passes frames on to an encoder and writes its answers down."""

    def __init__(self, encoder: Encoder, file: IO[bytes], token_file: IO[bytes] | None) -> None:
        self._encoder = encoder
        self._file = file
        self._token_file = token_file
        self.info = encoder.info
        self.count = 0

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        seen = self._encoder.encode(frames, tokens=tokens or self._token_file is not None)
        self._file.write(np.ascontiguousarray(seen.embedding, dtype="<f4").tobytes())
        if self._token_file is not None:
            assert seen.tokens is not None
            self._token_file.write(np.ascontiguousarray(seen.tokens, dtype="<f4").tobytes())
        self.count += len(frames)
        return seen


class _Player:
    """Answers for frame numbers as the encoder did for the frames."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self.info = tape.info

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        import torch

        from encoders.base import FrameTokens

        numbers = numbers_of(frames)
        embedding = torch.from_numpy(np.array(self._tape.embedding[numbers]))
        if not tokens:
            return FrameTokens(embedding)
        assert self._tape.tokens is not None
        return FrameTokens(embedding, torch.from_numpy(np.array(self._tape.tokens[numbers])))


def pictures_of(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Frame numbers ``[T]`` as pictures ``[T, 1, 2, 3]``, so that a block can carry them."""
    raw = np.ascontiguousarray(numbers, dtype="<i8").view(np.uint8).reshape(len(numbers), 8)
    return raw[:, :_NUMBER_BYTES].reshape(len(numbers), 1, 2, 3).copy()


def numbers_of(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The inverse of :func:`pictures_of`."""
    raw = np.zeros((len(pictures), 8), np.uint8)
    raw[:, :_NUMBER_BYTES] = pictures.reshape(len(pictures), _NUMBER_BYTES)
    return raw.view("<i8")[:, 0].astype(np.int64)


def _mapped(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if 0 in shape:  # nothing to map
        return np.zeros(shape, dtype=np.float32)
    mapped: Any = np.memmap(path, dtype="<f4", mode="r", shape=shape)
    return cast("npt.NDArray[np.float32]", mapped)


def frame_spans(part: TapedPart) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """For each segment of the part: its number, its frames' numbers ``[T]`` and, ``[T, 3]``, their start, end and
    weight."""
    if not part.blocks:
        return
    segment = np.concatenate([block.segment for block in part.blocks])
    numbers = part.frames
    columns = [
        np.concatenate([getattr(block, name) for block in part.blocks]).astype(np.float64)
        for name in ("start_seconds", "end_seconds", "weight")
    ]
    facts = np.stack(columns, axis=1)
    for number in np.unique(segment):
        mine = segment == number
        yield int(number), numbers[mine], facts[mine]
