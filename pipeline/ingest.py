"""The one loop of the data, for one part, and what is planned around it: inspect, cut into parts, decide what is done.

It knows nothing of who runs it: :class:`pipeline.library.Library` runs it in this process, ``jobs`` runs its two halves
(:mod:`pipeline.watch`, :mod:`pipeline.digest`) on Ray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.digest import Digest, DigestOptions
from pipeline.errors import LongreelError, OptionError, UnexpectedError
from pipeline.gate import GateOptions
from pipeline.isolation import Isolated, beat
from pipeline.media import Block, MediaInfo, PartResult, Span, WatchSummary
from pipeline.sampling import SamplingOptions
from pipeline.segments import SegmentOptions
from pipeline.sources.redact import redact_text

if TYPE_CHECKING:
    from encoders.base import Encoder, EncoderInfo
    from pipeline.catalog.records import VideoRecord
    from pipeline.watch import WatchTask

T = TypeVar("T")

__all__ = [
    "OPEN_END_SECONDS",
    "DecodeOptions",
    "IngestOptions",
    "ItemResult",
    "error_values",
    "ingest_part",
    "inspect_in",
    "inspect_source",
    "item_from_record",
    "part_spans",
    "read_ahead",
    "unexpected_as_typed",
    "watch_in",
    "watch_task",
]

OPEN_END_SECONDS = 1e9
"""Where the last part of a video ends: headers promise too little as well as too much, so it runs to the true end."""

_BLOCKS_AHEAD = 4  # that decoding may be ahead of encoding: bounds memory
_INSPECT = "pipeline.ingest:inspect_source"
_RECIPE_VERSION = 1  # raised when the loop itself changes what it makes of the same video and options


@dataclass(frozen=True)
class DecodeOptions:
    """``decoder``: "auto", "decord", "pyav" or ``package.module:factory``; ``stall_seconds`` without a sign of life end
    it.

    ``threads`` 0 lets the decoder choose. Remote files are copied into ``cache_dir`` (empty: ``$LONGREEL_CACHE``, else
    ``longreel/media`` in the user's cache folder), which holds at most ``cache_bytes``.
    """

    decoder: str = "auto"
    stall_seconds: float = 60.0
    threads: int = 0
    cache_dir: str = ""
    cache_bytes: int = 20 * 1024**3

    def cache_folder(self) -> str:
        """Where copies of remote files lie on this machine."""
        from pipeline.sources.cache import cache_folder

        return str(cache_folder(self.cache_dir))

    def __post_init__(self) -> None:
        if not self.stall_seconds > 0:
            raise OptionError(f"decode.stall_seconds is {self.stall_seconds}; allowed: more than 0")
        if self.threads < 0:
            raise OptionError(f"decode.threads is {self.threads}; allowed: 0 (automatic) or more")
        if self.cache_bytes < 1:
            raise OptionError(f"decode.cache_bytes is {self.cache_bytes}; allowed: 1 or more")


@dataclass(frozen=True)
class IngestOptions:
    """Everything that decides what is made of a video. ``part_seconds`` is the length of the parts that work is cut
    into.
    """

    part_seconds: float = 600.0
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    gate: GateOptions = field(default_factory=GateOptions)
    segments: SegmentOptions = field(default_factory=SegmentOptions)
    digest: DigestOptions = field(default_factory=DigestOptions)

    def __post_init__(self) -> None:
        if not self.part_seconds >= 1:
            raise OptionError(f"part_seconds is {self.part_seconds}; allowed: 1 or more")

    def recipe_key(self, fingerprint: str) -> str:
        """A short hash of all that decides the result: these options (not where or how fast) and the encoder."""
        values: dict[str, Any] = asdict(self)
        decoder = values.pop("decode")["decoder"]
        text = json.dumps([_RECIPE_VERSION, values, decoder, fingerprint], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class ItemResult:
    """What became of one video: a line of a job's result. ``state``: done, failed, skipped or cancelled.

    ``captions`` is how many it has by the job's captioner, ``captions_error`` why it has not all of them; both are None
    where the job makes none.
    """

    uri: str
    video: str | None
    state: str
    error: dict[str, str] | None = None
    duration_seconds: float | None = None
    segments: int = 0
    vectors: int = 0
    frames_sampled: int = 0
    frames_encoded: int = 0
    lost_seconds: float = 0.0
    captions: int | None = None
    captions_error: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the JSON contract has it."""
        return asdict(self)


def error_values(error: BaseException) -> dict[str, str]:
    """An error as the JSON contract has it."""
    return {"type": type(error).__name__, "message": str(error)}


def item_from_record(record: VideoRecord, state: str, error: LongreelError | None = None) -> ItemResult:
    """A job's line for a video that the catalog knows; ``error`` is what it failed with."""
    return ItemResult(
        uri=record.uri,
        video=record.id,
        state=state,
        error=error_values(error) if error is not None else None,
        duration_seconds=record.duration_seconds,
        segments=record.segments,
        vectors=record.vectors,
        frames_sampled=record.frames_sampled,
        frames_encoded=record.frames_encoded,
        lost_seconds=record.lost_seconds,
    )


def inspect_source(
    source: str, uri: str, cache_dir: str, cache_bytes: int, known: str | None
) -> Iterator[tuple[MediaInfo | None, str]]:
    """Probe one source; runs where it can be killed. Gives one pair: the facts, and the content's fingerprint.

    ``cache_dir`` is as in :class:`DecodeOptions`. With the fingerprint ``known`` the source is not opened, if remote
    not downloaded, and the facts are None.
    """
    # From their own modules: the package's names `probe` and `fingerprint` are also those of its modules.
    from pipeline.sources.cache import cache_folder
    from pipeline.sources.fingerprint import fingerprint
    from pipeline.sources.probe import probe
    from pipeline.sources.redact import shown_as
    from pipeline.sources.remote import localize

    beat()
    # First the fingerprint, then the content: what changes in between is seen as changed the next time.
    current = fingerprint(source)
    if current == known:
        yield None, current
        return
    local = localize(source, cache_folder(cache_dir), cache_bytes, progress=lambda *_: beat(), version=current)
    with local as path, shown_as(str(path), uri):
        yield replace(probe(str(path)), uri=uri), current


def inspect_in(
    child: Isolated, source: str, uri: str, decode: DecodeOptions, known: str | None
) -> tuple[MediaInfo | None, str]:
    """:func:`inspect_source`, in ``child``.

    Raises:
        SourceError: when it cannot be used.
    """
    ((info, fingerprint),) = child.stream(
        _INSPECT,
        source,
        uri,
        decode.cache_dir,
        decode.cache_bytes,
        known,
        stall_seconds=decode.stall_seconds,
        label=uri,
    )
    return info, fingerprint


@contextlib.contextmanager
def unexpected_as_typed(uri: str, source: str) -> Iterator[None]:
    """Within it, what nobody foresaw costs ``source`` (shown as ``uri``) only: a slip of ours, or of a library, shows
    itself on one input.

    Raises:
        UnexpectedError: in place of any exception that is none of ours.
    """
    try:
        yield
    except LongreelError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise UnexpectedError(redact_text(f"{uri}: unexpected error: {said}", source)) from error


def part_spans(duration_seconds: float | None, part_seconds: float) -> list[Span]:
    """Cut a video into parts of about ``part_seconds``; the last one is open-ended.

    A video of unknown duration is one part. A rest shorter than half a part joins the part before.
    """
    count = 1 if duration_seconds is None else max(1, math.floor(duration_seconds / part_seconds + 0.5))
    edges = [i * part_seconds for i in range(count)] + [OPEN_END_SECONDS]
    return [Span(a, b) for a, b in pairwise(edges)]


def watch_task(
    source: str, uri: str, fingerprint: str, span: Span, info: EncoderInfo, options: IngestOptions
) -> WatchTask:
    """The decode side's orders for one part of ``source``, which is shown as ``uri`` and has this fingerprint."""
    from pipeline.watch import WatchTask

    return WatchTask(
        source=source,
        uri=uri,
        cache_dir=options.decode.cache_dir,
        cache_bytes=options.decode.cache_bytes,
        fingerprint=fingerprint,
        span=span,
        short_side=min(info.image_height, info.image_width),
        decoder=options.decode.decoder,
        threads=options.decode.threads,
        sampling=options.sampling,
        gate=options.gate,
        segments=options.segments,
    )


def watch_in(child: Isolated, task: WatchTask, stall_seconds: float) -> Iterator[Block | WatchSummary]:
    """:func:`pipeline.watch.watch`, in ``child``.

    Raises:
        SourceError: what the decode side met.
        UnexpectedError: what nobody foresaw.
    """
    with unexpected_as_typed(task.uri, task.source):
        yield from child.stream("pipeline.watch:watch", task, stall_seconds=stall_seconds, label=task.uri)


def ingest_part(task: WatchTask, encoder: Encoder, options: IngestOptions, child: Isolated) -> PartResult:
    """Do one part: decode in ``child``, encode here, the two overlapping.

    Raises:
        SourceError, UnexpectedError: what the decode side met.
    """
    digest = Digest(encoder, options.digest)
    messages = watch_in(child, task, options.decode.stall_seconds)
    summary = None
    with contextlib.closing(read_ahead(messages, _BLOCKS_AHEAD)) as ahead:
        for message in ahead:
            if isinstance(message, Block):
                digest.add(message)
            else:
                assert isinstance(message, WatchSummary)
                summary = message
    assert summary is not None
    return digest.finish(summary)


def read_ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """``items``, drawn by a thread that is up to ``count`` ahead: who makes them and who uses them need not wait for
    each other. Closing it closes ``items``.
    """
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(count)
    stop = threading.Event()

    def put(is_item: bool, value: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((is_item, value), timeout=0.1)
                return

    def draw() -> None:
        ended: BaseException | None = None
        try:
            for item in items:
                put(True, item)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 (raised again where the items are used)
            ended = error
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            put(False, ended)

    thread = threading.Thread(target=draw, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = waiting.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        stop.set()
        thread.join()
