"""A live stream in this process: its captions one by one, its windows in the library. `longreel stream` does the same
on Ray, many streams at once.

    with Library.open("library", model="tiny") as library:
        for caption in stream_captions(library, "rtsp://camera/live", captioner="tiny"):
            print(caption.utc, caption.text)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

from pipeline.errors import LongreelError, OptionError
from pipeline.gate import GateOptions
from pipeline.ingest import IngestOptions
from pipeline.live.captions import LiveCaptioner, WordsMissing
from pipeline.live.digest import LiveDigest
from pipeline.live.options import LiveSettings, WindowOptions
from pipeline.live.session import StreamSession
from pipeline.live.types import LiveBlock, LiveCaption
from pipeline.live.watcher import LiveWatcher
from pipeline.sampling import SamplingOptions
from pipeline.segments import SegmentOptions
from pipeline.sources.live import LiveOptions, LiveStream, kind_of, shown

if TYPE_CHECKING:
    from encoders.base import EncoderInfo
    from encoders.captioning import Captioner, CaptionerInfo
    from pipeline.catalog import Catalog
    from pipeline.library import Library

__all__ = [
    "StreamTask",
    "live_blocks",
    "open_session",
    "recipe_of",
    "side_of",
    "stream_captions",
    "stream_name",
    "stream_uri",
]


@dataclass(frozen=True)
class StreamTask:
    """A stream to watch: plain values that travel to another process or machine.

    ``url`` may hold credentials, ``uri`` is what may be shown of it. A stream that goes on after an earlier run brings
    the wall clock of its first frame ever, how far its media time came, and its next connection and window numbers.
    ``short_side`` in pixels is what the model wants.
    """

    url: str
    uri: str
    name: str
    options: LiveOptions
    window: WindowOptions
    sampling: SamplingOptions
    gate: GateOptions
    segments: SegmentOptions
    short_side: int = 224
    first_utc: datetime | None = None
    resume_seconds: float = 0.0
    next_connection: int = 0
    next_window: int = 0
    record_folder: str = ""

    @classmethod
    def of(
        cls,
        url: str,
        name: str,
        settings: LiveSettings,
        ingest: IngestOptions,
        short_side: int,
        record_folder: str = "",
    ) -> StreamTask:
        """The task of a stream, from the settings."""
        return cls(
            url=url,
            uri=stream_uri(url, name),
            name=name,
            options=settings.source,
            window=settings.window,
            sampling=ingest.sampling,
            gate=ingest.gate,
            segments=ingest.segments,
            short_side=short_side,
            record_folder=record_folder,
        )


def stream_uri(url: str, name: str) -> str:
    """What the library knows a stream by: its address as it may be shown, a file's from wherever one stands, and of
    standard input, which is another each time, the name that it was given."""
    kind = kind_of(url)
    if kind == "stdin":
        return f"stdin:{name}"
    if kind == "tail":
        return f"tail:{os.path.abspath(url.partition(':')[2])}"
    if kind == "file":
        return os.path.abspath(url.removeprefix("file://"))
    return shown(url)


def stream_name(url: str) -> str:
    """What a stream is called that nobody gave a name: a file's own name, else the address as it may be shown."""
    if kind_of(url) in ("file", "tail"):
        return os.path.basename(url)
    return "stdin" if url == "-" else shown(url)


def live_blocks(
    task: StreamTask, opened: Callable[[LiveStream], None] = lambda stream: None
) -> Generator[LiveBlock, None, None]:
    """Watch a stream until it ends, fails or is stopped; the last block says which.

    Args:
        opened: called with the stream before it connects, for whoever wants to stop it.

    Raises:
        SourceError: the stream failed for good; blocks of what it gave before have been given.
    """
    stream = LiveStream(
        task.url,
        task.options,
        short_side=task.short_side,
        first_utc=task.first_utc,
        resume_seconds=task.resume_seconds,
        number=task.next_connection,
        record_folder=task.record_folder or None,
    )
    opened(stream)
    watcher = LiveWatcher(
        task.sampling, task.gate, task.segments, task.window, first_window=task.next_window, counts=stream.counts
    )
    with closing(stream):
        try:
            for message in stream.messages():
                yield from watcher.take(message)
        except LongreelError:
            yield from watcher.finish()
            raise
        yield from watcher.finish()


def side_of(encoder: EncoderInfo, captioner: CaptionerInfo | None) -> int:
    """Pixels of the short side of a stream's pictures: what the model wants, and a captioner that looks at pictures."""
    side = min(encoder.image_height, encoder.image_width)
    if captioner is not None and captioner.key_frames:
        side = max(side, min(captioner.image_height, captioner.image_width))
    return side


def recipe_of(settings: LiveSettings, ingest: IngestOptions, fingerprint: str) -> str:
    """A short hash of all that decides what is made of a stream's frames."""
    parts = [asdict(ingest.sampling), asdict(ingest.gate), asdict(ingest.segments), asdict(ingest.digest)]
    text = repr([parts, asdict(settings.window), asdict(settings.memory), fingerprint])
    return blake2b(text.encode(), digest_size=8).hexdigest()


def open_session(
    catalog: Catalog,
    task: StreamTask,
    settings: LiveSettings,
    fingerprint: str,
    recipe_key: str,
    *,
    tags: Sequence[str] = (),
    **session: object,
) -> tuple[StreamSession, StreamTask]:
    """Open a stream in the catalog, or go on with it; its session, and the task that goes on where it stopped.

    Raises:
        StreamBusy: another living process has this stream.
    """
    options = asdict(replace(settings, source=LiveOptions()))
    record = catalog.open_stream(
        task.uri, task.name, tags, fingerprint=fingerprint, recipe_key=recipe_key, options=options
    )
    task = replace(
        task,
        first_utc=record.first_utc,
        resume_seconds=record.resume_seconds,
        next_connection=record.next_connection,
        next_window=record.next_window,
    )
    made = StreamSession(
        catalog,
        record.video_id,
        record.name,
        fingerprint,
        recipe_key,
        connections=catalog.connections_of(record.video_id),
        until_seconds=record.resume_seconds,
        next_window=record.next_window,
        retention=settings.retention,
        **session,  # type: ignore[arg-type]
    )
    return made, task


def stream_captions(
    library: Library,
    url: str,
    *,
    captioner: Captioner,
    name: str | None = None,
    settings: LiveSettings | None = None,
    ingest: IngestOptions | None = None,
    duration_seconds: float | None = None,
    on_block: Callable[[LiveBlock, StreamSession], None] = lambda block, session: None,
) -> Iterator[LiveCaption]:
    """Watch one stream in this process: captions as they come, everything else into the library.

    Closing the iterator ends the stream; what was seen is in the library then.

    Raises:
        OptionError: a duration that is not above 0.
        SourceError: the stream failed for good.
        StreamBusy: another process has this stream.
        EncoderError: the model cannot be loaded, or cannot go on.
    """
    if duration_seconds is not None and not duration_seconds > 0:
        raise OptionError(f"duration is {duration_seconds} s; allowed: more than 0")
    settings, ingest = settings or LiveSettings(), ingest or IngestOptions()
    encoder = library.encoder
    if library.store.is_bound:  # others may write while this stream is watched
        library.store.check_model(encoder.info)
    else:
        with library.writing("stream"):
            library.store.bind(encoder.info)
    catalog = library.catalog
    catalog.dimension = encoder.info.dimension
    side = side_of(encoder.info, captioner.info)
    task = StreamTask.of(url, name or stream_name(url), settings, ingest, side)
    recipe = recipe_of(settings, ingest, encoder.info.fingerprint)
    reads = captioner.info.reads == encoder.info.fingerprint
    digest = LiveDigest(encoder, ingest.digest, settings.window, settings.memory, tokens=reads)
    words = LiveCaptioner(captioner, encoder.info.fingerprint, settings.captions, ingest.digest.tokens)
    session, task = open_session(catalog, task, settings, encoder.info.fingerprint, recipe)
    streams: list[LiveStream] = []
    error: BaseException | None = None
    deadline = None if duration_seconds is None else time.monotonic() + duration_seconds
    with ExitStack() as stack:
        stack.callback(lambda: session.close(error))
        blocks = stack.enter_context(closing(live_blocks(task, streams.append)))
        try:
            for block in blocks:
                session.take(block)
                taken = digest.take([(session.video_id, block)])[0]
                session.commit(taken.windows)
                if taken.failed:
                    session.note(taken.failed)
                on_block(block, session)
                lost: WordsMissing | None = None
                try:
                    said = words.caption([(session.video_id, content) for content in taken.closed])
                except WordsMissing as missing:
                    said, lost = list(missing.made), missing
                for caption in said:
                    yield session.caption(caption)
                if lost is not None:
                    raise lost
                over = deadline is not None and time.monotonic() >= deadline
                if session.beat(time.monotonic()) or over:
                    streams[0].stop()
        except LongreelError as failed:
            error = failed
            raise
