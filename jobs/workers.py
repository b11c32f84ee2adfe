"""The kinds of Ray actors of a batch job. They hold what is dear to start: a decoder process, a loaded model.

Decode workers look at parts and stream blocks; encode workers take the blocks of several parts, each in its own order,
and give the part's result with the last one. A part's state lives in one encode worker, so nothing is merged across
workers. Caption workers say what happens in segments that are in the catalog.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jobs.settings import CaptionSettings, EncoderOptions
from pipeline.digest import Digest, DigestOptions
from pipeline.ingest import DecodeOptions, IngestOptions, inspect_in
from pipeline.media import Block, MediaInfo, PartResult, WatchSummary

if TYPE_CHECKING:
    from encoders.base import Encoder, EncoderInfo
    from encoders.captioning import Captioner, CaptionerInfo
    from pipeline.captioning import CaptionedSegments
    from pipeline.catalog.records import SegmentRow, VideoRecord
    from pipeline.watch import WatchTask

__all__ = ["CaptionTask", "CaptionWorker", "DecodeWorker", "EncodeWorker", "PartStateLost", "Taken", "ray_class"]


class PartStateLost(Exception):
    """A block came for a part that this worker knows nothing of: it was restarted. The part is tried again."""


@dataclass(frozen=True)
class Taken:
    """An encode worker's answer to one message: how far the part has come, and its result when that was the last."""

    frames: int
    end_seconds: float | None
    result: PartResult | None = None


class DecodeWorker:
    """Holds a child process in which sources are probed and decoded; that child may crash, this worker goes on."""

    def __init__(self, options: DecodeOptions) -> None:
        from pipeline.isolation import Isolated

        self._options = options
        self._child = Isolated()

    def pid(self) -> int:
        """This worker's process, for those who test what happens when it dies."""
        return os.getpid()

    def inspect(self, source: str, uri: str, known: str | None) -> tuple[MediaInfo | None, str]:
        """Facts and fingerprint of one source; no facts when the fingerprint is the ``known`` one.

        Raises:
            SourceError: when it cannot be used.
        """
        return inspect_in(self._child, source, uri, self._options, known)

    def watch(self, task: WatchTask) -> Iterator[Block | WatchSummary]:
        """Stream one part; see :func:`pipeline.watch.watch`."""
        yield from self._child.stream(
            "pipeline.watch:watch", task, stall_seconds=self._options.stall_seconds, label=task.uri
        )


class EncodeWorker:
    """Holds a loaded model and the digests of the parts in progress.

    ``tokens_of`` is the fingerprint of the model whose token sets a captioner will read: of that one they are kept,
    whatever ``digest`` says.
    """

    def __init__(self, model: str, digest: DigestOptions, tokens_of: str = "") -> None:
        self._model = model
        self._digest_options = digest
        self._tokens_of = tokens_of
        self._encoder: Encoder | None = None
        self._parts: dict[str, tuple[int, Digest]] = {}

    def load(self, options: EncoderOptions) -> EncoderInfo:
        """Load the model (once) and say what it is.

        Raises:
            EncoderError: no such model, no weights, wrong weights.
        """
        if self._encoder is None:
            from encoders import load_encoder

            # Ray sets OMP_NUM_THREADS to the CPUs that an actor reserves; an encoder on the CPU may use more, since
            # decoding leaves cores idle most of the time. It cannot use more than its own node has, whatever the
            # cluster has in all.
            self._encoder = load_encoder(
                self._model,
                device=options.device,
                precision=options.precision,
                batch_size=options.batch_size,
                seed=options.seed,
                threads=min(options.threads, len(os.sched_getaffinity(0))),
            )
            if self._encoder.info.fingerprint == self._tokens_of:
                tokens = replace(self._digest_options.tokens, keep=True)
                self._digest_options = replace(self._digest_options, tokens=tokens)
        return self._encoder.info

    def pid(self) -> int:
        """This worker's process, for those who test what happens when it dies."""
        return os.getpid()

    def take(self, part: str, index: int, message: Block | WatchSummary, options: EncoderOptions) -> Taken:
        """Take message ``index`` of ``part``. ``options`` are for a worker that came back and has to load its model.

        Raises:
            PartStateLost: when the messages before it went to a worker that is no more.
        """
        expected = self._parts[part][0] if part in self._parts else 0
        if index != expected:
            self._parts.pop(part, None)
            raise PartStateLost(f"{part}: message {index} came, {expected} was expected")
        if part not in self._parts:
            self.load(options)  # a worker that came back after its process died has no model yet
            assert self._encoder is not None
            self._parts[part] = (0, Digest(self._encoder, self._digest_options))
        digest = self._parts[part][1]
        self._parts[part] = (index + 1, digest)
        if isinstance(message, Block):
            digest.add(message)
            return Taken(len(message), float(message.end_seconds[-1]) if len(message) else None)
        del self._parts[part]
        return Taken(0, message.covered.end_seconds if message.covered else None, digest.finish(message))

    def drop(self, part: str) -> None:
        """Forget a part that will not be finished."""
        self._parts.pop(part, None)


@dataclass(frozen=True)
class CaptionTask:
    """Some segments of a video, to be captioned.

    Attributes:
        source: where it is, credentials included.
        tokens: their token sets as they are kept, in the order of ``segments``; ``None``: the video is read again.
    """

    video: VideoRecord
    source: str
    segments: tuple[SegmentRow, ...]
    tokens: tuple[bytes, ...] | None


class CaptionWorker:
    """Holds a loaded captioner. Videos that it has to read again are decoded in a child process."""

    def __init__(self, captions: CaptionSettings, options: EncoderOptions, ingest: IngestOptions) -> None:
        self._captions = captions
        self._options = options
        self._ingest = ingest
        self._captioner: Captioner | None = None

    def pid(self) -> int:
        """This worker's process."""
        return os.getpid()

    def load(self) -> CaptionerInfo:
        """Load the captioner (once) and say what it is.

        Raises:
            EncoderError: no such captioner, no weights, wrong weights.
        """
        return self._loaded().info

    def caption(self, task: CaptionTask) -> CaptionedSegments:
        """See :func:`pipeline.captioning.captions_for`."""
        from pipeline.captioning import captions_for

        return captions_for(
            self._loaded(), task.video, task.segments, task.tokens, options=self._ingest, source=task.source
        )

    def _loaded(self) -> Captioner:
        if self._captioner is None:
            threads = min(self._options.threads, len(os.sched_getaffinity(0)))
            self._captioner = self._captions.load(replace(self._options, threads=threads))
        return self._captioner


def ray_class(worker: type[Any], **options: Any) -> Any:
    """``worker`` as a Ray actor class that comes back when its process dies."""
    import ray

    return ray.remote(worker).options(max_restarts=-1, max_task_retries=0, **options)
