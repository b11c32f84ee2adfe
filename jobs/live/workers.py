"""The two kinds of Ray actors of live streams.

A stream worker watches one stream: its decoder may crash, others go on. An encode worker holds the model and the
captioner, and the open windows of its streams; it takes the blocks of all of them that wait at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jobs.settings import CaptionSettings, EncoderOptions
from pipeline.digest import DigestOptions
from pipeline.live.loop import StreamTask, live_blocks
from pipeline.live.options import LiveSettings
from pipeline.live.types import ClosedWindow, LiveBlock, LiveCaption, LiveWindow

if TYPE_CHECKING:
    from encoders.base import EncoderInfo
    from encoders.captioning import Captioner, CaptionerInfo
    from encoders.vlm.counts import VlmCounts
    from pipeline.live.captions import LiveCaptioner
    from pipeline.live.digest import ClosedContent, LiveDigest
    from pipeline.sources.live import LiveStream

__all__ = ["LiveEncodeWorker", "LiveModels", "LiveTaken", "LiveWords", "StreamWorker", "WindowKey"]

WindowKey = tuple[str, int]
"""A stream's id and the number of its window."""


class StreamWorker:
    """Watches one stream. Its methods run in threads: it can be stopped while it watches."""

    def __init__(self) -> None:
        self._stream: LiveStream | None = None
        self._stopped = threading.Event()

    def pid(self) -> int:
        """This worker's process."""
        return os.getpid()

    def watch(self, task: StreamTask) -> Iterator[LiveBlock]:
        """See :func:`pipeline.live.loop.live_blocks`."""

        def opened(stream: LiveStream) -> None:
            self._stream = stream
            if self._stopped.is_set():
                stream.stop()

        yield from live_blocks(task, opened)

    def stop(self) -> None:
        """The stream ends; what it has seen is still given."""
        self._stopped.set()
        if self._stream is not None:
            self._stream.stop()


@dataclass(frozen=True)
class LiveModels:
    """What an encode worker has loaded: the model, and the captioner where streams get words."""

    encoder: EncoderInfo
    captioner: CaptionerInfo | None = None


@dataclass(frozen=True)
class LiveTaken:
    """What became of one block: windows to commit, and those that wait for words. ``failed``: why its looks could not
    be encoded."""

    windows: tuple[LiveWindow, ...]
    closed: tuple[ClosedWindow, ...]
    failed: str = ""


@dataclass(frozen=True)
class LiveWords:
    """Captions of windows. ``unknown``: this worker was restarted since it was given these. ``missing`` could not be
    captioned, for the ``reason``. ``asked`` is what asking cost, of a captioner behind an address."""

    captions: tuple[LiveCaption, ...] = ()
    unknown: tuple[WindowKey, ...] = ()
    missing: tuple[WindowKey, ...] = ()
    reason: str = ""
    asked: VlmCounts | None = None


class LiveEncodeWorker:
    """A model, a captioner, and the open windows of some streams. Encoding and captioning may run at once."""

    def __init__(
        self,
        model: str,
        captions: CaptionSettings,
        digest: DigestOptions,
        settings: LiveSettings,
        encoder: EncoderOptions,
    ) -> None:
        self._model, self._captions = model, captions
        self._digest_options, self._settings, self._encoder_options = digest, settings, encoder
        self._digest: LiveDigest | None = None
        self._words: LiveCaptioner | None = None
        self._captioner: Captioner | None = None
        self._models: LiveModels | None = None
        self._contents: dict[WindowKey, ClosedContent] = {}
        self._loading = threading.Lock()

    def pid(self) -> int:
        """This worker's process."""
        return os.getpid()

    def load(self) -> LiveModels:
        """Load model and captioner (once) and say what they are.

        Raises:
            EncoderError: no such model, no weights, wrong weights; a captioner that cannot be loaded.
        """
        with self._loading:
            if self._models is None:
                self._models = self._loaded()
            return self._models

    def _loaded(self) -> LiveModels:
        from encoders import load_encoder
        from pipeline.live.captions import LiveCaptioner
        from pipeline.live.digest import LiveDigest

        options = self._encoder_options
        threads = min(options.threads or os.cpu_count() or 1, len(os.sched_getaffinity(0)))
        encoder = load_encoder(
            self._model,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch_size,
            seed=options.seed,
            threads=threads,
        )
        reads = False
        captioner = None
        if self._captions.model:
            captioner = self._captioner = self._captions.load(replace(options, threads=threads))
            reads = captioner.info.reads == encoder.info.fingerprint
            self._words = LiveCaptioner(
                captioner, encoder.info.fingerprint, self._settings.captions, self._digest_options.tokens
            )
        self._digest = LiveDigest(
            encoder, self._digest_options, self._settings.window, self._settings.memory, tokens=reads
        )
        return LiveModels(encoder.info, None if captioner is None else captioner.info)

    def take(self, streams: Sequence[str], *blocks: LiveBlock) -> list[LiveTaken]:
        """The next blocks of these streams; a stream's own come in order.

        Raises:
            EncoderError: the model cannot go on.
        """
        self.load()
        assert self._digest is not None
        taken = self._digest.take(list(zip(streams, blocks, strict=True)))
        found = []
        for stream, one in zip(streams, taken, strict=True):
            if self._words is not None:
                for content in one.closed:
                    self._contents[stream, content.closed.index] = content
            found.append(LiveTaken(one.windows, tuple(content.closed for content in one.closed), one.failed))
        return found

    def caption(self, windows: Sequence[WindowKey], skipped: Sequence[WindowKey] = ()) -> LiveWords:
        """Words for these windows; those ``skipped`` get none.

        Raises:
            EncoderError: a picture cannot be looked at.
        """
        from encoders.vlm.counts import asked_since, counts_of
        from pipeline.live.captions import WordsMissing

        for key in skipped:
            self._contents.pop(key, None)
        found = [(key, self._contents.pop(key, None)) for key in windows]
        known = [(key[0], content) for key, content in found if content is not None]
        words = LiveWords(unknown=tuple(key for key, content in found if content is None))
        if self._words is None or not known:
            return words
        before = counts_of(self._captioner)
        try:
            words = replace(words, captions=tuple(self._words.caption(known)))
        except WordsMissing as failed:
            words = replace(words, captions=failed.made, missing=failed.missing, reason=str(failed))
        return replace(words, asked=asked_since(self._captioner, before))

    def drop(self, stream: str) -> None:
        """Forget a stream that is over."""
        if self._digest is not None:
            self._digest.drop(stream)
        if self._words is not None:
            self._words.drop(stream)
        for key in list(self._contents):  # blocks may be taken meanwhile
            if key[0] == stream:
                self._contents.pop(key, None)

    def state_bytes(self) -> dict[str, Any]:
        """Bytes held between two blocks, for those who measure."""
        return {
            "digest": 0 if self._digest is None else self._digest.state_bytes,
            "words": 0 if self._words is None else self._words.state_bytes,
            "waiting": len(self._contents),
        }
