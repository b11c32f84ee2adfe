"""Opening a source: the table of decoders, and the policy that chooses between them and says why."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import MediaDamaged, MediaUnreadable, OptionError, SourceUnreadable
from pipeline.media import Damage, Frame, MediaInfo, Span
from pipeline.sources.base import Source, SourceFactory, picture_size
from pipeline.sources.probe import probe
from pipeline.sources.redact import is_remote, redact

__all__ = ["DECODERS", "AutoSource", "Choice", "choose_decoder", "open_source"]

# Where each decoder lives; loaded on use, so that naming them costs nothing.
DECODERS: dict[str, str] = {
    "decord": "pipeline.sources.decord_source:DecordSource",
    "pyav": "pipeline.sources.pyav_source:PyAVSource",
}

# Containers whose every packet carries a time stamp and in which decord has been seen to work.
_DECORD_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})


# decord takes one frame for each packet and fails when the decoder's queue is full (send_packet answers EAGAIN), as it
# is after the key frames of closed groups of pictures in HEVC.
_NOT_FOR_DECORD = frozenset({"hevc", "vvc"})

# decord decodes ahead for as long as its reader is open, whatever the consumer's speed (measured: a 307 s video grew to
# 1 GB in 10 s of waiting). So it gets only files whose frames may all lie in memory.
DECORD_BYTES = 256 * 1024 * 1024


class Choice(NamedTuple):
    decoder: str
    reason: str


def choose_decoder(
    info: MediaInfo, span: Span | None = None, keyframes_only: bool = False, short_side: int | None = 224
) -> Choice:
    """The decoder that "auto" takes for these frames of this file, and the reason in words."""
    if info.container not in _DECORD_CONTAINERS:
        return Choice("pyav", f"decord is not used for {info.container} (no reliable time stamps or seeking)")
    if info.codec in _NOT_FOR_DECORD:
        return Choice("pyav", f"decord gives up where {info.codec} puts out several frames for a packet")
    for note in info.notes:
        if note.startswith(("truncated", "the stream has no time stamps")):
            return Choice("pyav", f"decord cannot count losses; {note}")
    if info.duration_seconds is None:
        return Choice("pyav", "the container states no duration")
    if info.video_streams > 1:
        return Choice("pyav", f"{info.video_streams} video streams, and decord cannot be told which")
    if keyframes_only:
        return Choice("pyav", "key frames only: PyAV leaves the others undecoded")
    if span is not None and span.start_seconds > 0:
        return Choice("pyav", "a part from the middle: PyAV seeks by time, decord by counting frames")
    if span is not None and span.end_seconds < info.duration_seconds / 2:
        return Choice("pyav", "a small part of the file, and decord reads all packets to open it")
    needed = _all_frames_bytes(info, short_side)
    if needed > DECORD_BYTES:
        return Choice("pyav", f"long: decord may keep all frames in memory, {needed / 2**20:,.0f} MiB here")
    return Choice("decord", "read from its beginning, container in order")


def _all_frames_bytes(info: MediaInfo, short_side: int | None) -> int:
    width, height = picture_size(info, short_side)
    frames = max(info.frame_count or 0, int((info.duration_seconds or 0) * (info.average_fps or 60)))
    return frames * max(width * height * 3, info.width * info.height * 3 // 2)


def load_decoder(name: str) -> SourceFactory:
    """The factory of a decoder named in the table, or as ``package.module:factory``.

    Raises:
        OptionError: no such decoder.
    """
    where = DECODERS.get(name, name)
    module, _, attribute = where.partition(":")
    if not module or not attribute:
        allowed = ", ".join(["auto", *DECODERS])
        raise OptionError(f"decoder {name!r} is not known; allowed: {allowed}, or package.module:factory")
    try:
        factory: SourceFactory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"decoder {name!r} cannot be loaded: {error}") from error
    return factory


def open_source(path: str, *, decoder: str = "auto", short_side: int | None = 224, threads: int = 0) -> Source:
    """Open a local video file.

    Args:
        path: a local path; a remote URI is made local first with ``localize``.
        decoder: "auto", a name in ``DECODERS``, or ``package.module:factory``.
        short_side: pixels of the frames' short side; None keeps the display size.
        threads: decoding threads; 0 chooses.

    Raises:
        SourceError: one of its kinds, see ``probe``; a named decoder may add MediaUnreadable.
        OptionError: no such decoder, or a setting outside its range.
    """
    if is_remote(path):
        raise SourceUnreadable(f"{redact(path)}: a remote source is made local first, with pipeline.sources.localize")
    info = probe(path)
    if decoder == "auto":
        return AutoSource(info.uri, info, short_side=short_side, threads=threads)
    reason = "asked for by name"
    return load_decoder(decoder)(info.uri, info, short_side=short_side, threads=threads, reason=reason)


class AutoSource(Source):
    """Chooses the decoder for each call of ``frames``, and changes to PyAV where decord refuses or gives up.

    The change is stated in ``decoder_reason`` and in ``damage``; no frame comes twice and none is left out.
    """

    def __init__(self, path: str, info: MediaInfo, *, short_side: int | None, threads: int) -> None:
        self.info = info
        self.damage = Damage()
        self._path = path
        self._short_side = short_side
        self._threads = threads
        self._choice = choose_decoder(info, short_side=short_side)
        self._refused: str | None = None  # decord refused this file: it is not asked again
        self._inner: Source | None = None

    @property
    def decoder(self) -> str:
        return self._choice.decoder

    @property
    def decoder_reason(self) -> str:
        return self._choice.reason

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def _use(self, choice: Choice) -> Source:
        self.close()
        self._choice = choice
        factory = load_decoder(choice.decoder)
        self._inner = factory(
            self._path, self.info, short_side=self._short_side, threads=self._threads, reason=choice.reason
        )
        return self._inner

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        choice = choose_decoder(self.info, span, keyframes_only, self._short_side)
        if self._refused is not None and choice.decoder == "decord":
            choice = Choice("pyav", self._refused)
        self.damage = Damage()
        last: int | None = None
        if choice.decoder == "decord":
            try:
                for frame in self._use(choice).frames(span, keyframes_only):
                    last = frame.pts
                    yield frame
                return
            except (MediaUnreadable, MediaDamaged) as error:
                self._refused = str(error).removeprefix(f"{self._path}: ")
                choice = Choice("pyav", self._refused)
        source = self._use(choice)
        rest = span
        if last is not None:  # go on after the last frame that was delivered
            resume_seconds = float(last * self.info.time_base)
            end_seconds = span.end_seconds if span is not None else _FAR_SECONDS
            rest = Span(resume_seconds, end_seconds)
        try:
            for frame in source.frames(rest, keyframes_only):
                self.damage = source.damage
                if last is None or frame.pts > last:
                    yield frame
        finally:
            self.damage = source.damage


_FAR_SECONDS = 1e9  # past the end of any video
