"""The decode side of the loop: source -> shots -> sample -> gate. It runs in a process that can be killed.

It gives :class:`Block` after :class:`Block` of frames worth encoding, each frame with the span that it stands for, and
last a :class:`WatchSummary`. Whatever the video's length, it holds a few frames: memory is bounded by ``block_frames``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.gate import Gate, GateOptions
from pipeline.isolation import beat
from pipeline.media import Block, ClosedSegment, Frame, Span, WatchSummary
from pipeline.sampling import Sampler, SamplingOptions
from pipeline.segments import Segmenter, SegmentOptions, ShotDetector
from pipeline.sources import localize, open_source
from pipeline.sources.cache import cache_folder
from pipeline.sources.redact import shown_as

__all__ = ["WatchTask", "watch"]


@dataclass(frozen=True)
class WatchTask:
    """A part to look at: plain values that travel to another process or machine.

    ``source`` is where the bytes are (a path, or an address that may hold credentials), ``uri`` what may be shown of
    it. ``span`` is the part's time range, ``None`` for the whole video; ``short_side`` in pixels is what the encoder
    wants. Remote files are kept in ``cache_dir`` (empty: this machine's own folder for them), which holds at most
    ``cache_bytes``; ``fingerprint`` is the content's (see :func:`pipeline.sources.fingerprint.fingerprint`), so that
    the parts of a video share one copy.
    """

    source: str
    uri: str
    cache_dir: str
    cache_bytes: int
    span: Span | None = None
    short_side: int = 224
    decoder: str = "auto"
    threads: int = 0
    block_frames: int = 8
    fingerprint: str | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    gate: GateOptions = field(default_factory=GateOptions)
    segments: SegmentOptions = field(default_factory=SegmentOptions)


@dataclass
class _Look:
    """A frame that passed the gate, and what it has stood for so far."""

    image: npt.NDArray[np.uint8]
    pts_seconds: float
    start_seconds: float
    segment: int
    weight: int = 1
    end_seconds: float = 0.0


def watch(task: WatchTask) -> Iterator[Block | WatchSummary]:
    """Look at one part.

    Raises:
        SourceError: when the source cannot be opened, or breaks in a way that its decoders cannot go on from.
    """
    beat()
    with (
        localize(
            task.source,
            cache_folder(task.cache_dir),
            task.cache_bytes,
            progress=lambda *_: beat(),
            version=task.fingerprint,
        ) as path,
        shown_as(str(path), task.uri),
        open_source(str(path), decoder=task.decoder, short_side=task.short_side, threads=task.threads) as source,
    ):
        # A frame belongs to the part that holds its PTS, with all of the time that it is on screen: a part begins with
        # its own first frame and ends where its last one does, so that parts meet without a gap wherever the border is.
        eyes = _Watcher(task, source.info.average_fps)
        last: Frame | None = None
        first_seconds = 0.0
        for frame in source.frames(task.span, keyframes_only=task.sampling.mode == "keyframes"):
            beat()
            if last is None and task.span is not None and task.span.start_seconds > 0:
                first_seconds = frame.pts_seconds
                eyes.begin(first_seconds)
            last = frame
            yield from eyes.see(frame)
        covered = None
        if last is not None:
            covered = Span(first_seconds, max(last.end_seconds, first_seconds + 1e-6))
            goes_on = task.span is not None and covered.end_seconds >= task.span.end_seconds
            yield from eyes.finish(covered.end_seconds, "part" if goes_on else "end")
        yield WatchSummary(
            info=source.info,
            decoder=source.decoder,
            decoder_reason=source.decoder_reason,
            covered=covered,
            frames_decoded=eyes.frames_decoded,
            frames_sampled=eyes.frames_sampled,
            frames_encoded=eyes.frames_encoded,
            skipped_by_gate=eyes.frames_sampled - eyes.frames_sampled_and_encoded,
            damage=source.damage,
        )


class _Watcher:
    """Shots, sampling and gate over a stream of frames; gives blocks as they fill."""

    def __init__(self, task: WatchTask, average_fps: float | None) -> None:
        self._task = task
        self._block_frames = task.block_frames
        self._shots = ShotDetector(task.segments, average_fps)
        self._sampler = Sampler(task.sampling)
        self._gate = Gate(task.gate)
        self.begin(0.0)
        self._unsettled: deque[tuple[Frame, bool]] = deque()  # it may yet turn out that a shot begins here
        self._cuts: set[int] = set()
        self._spare: Frame | None = None  # the last one seen: stands for a segment in which none was sampled
        self._look: _Look | None = None
        self._ready: list[_Look] = []
        self._closed: list[ClosedSegment] = []
        self.frames_decoded = 0
        self.frames_sampled = 0
        self.frames_encoded = 0
        self.frames_sampled_and_encoded = 0

    def begin(self, seconds: float) -> None:
        """The first segment begins at ``seconds``."""
        self._segmenter = Segmenter(self._task.segments, seconds)
        self._segment_start = seconds

    def see(self, frame: Frame) -> Iterator[Block]:
        self.frames_decoded += 1
        self._unsettled.append((frame, self._sampler.wants(frame)))
        self._cuts.update(self._shots.push(frame))
        while len(self._unsettled) > self._shots.lag:
            self._settle(*self._unsettled.popleft())
        yield from self._blocks(self._block_frames)

    def finish(self, end_seconds: float, boundary: str) -> Iterator[Block]:
        while self._unsettled:
            self._settle(*self._unsettled.popleft())
        for segment in self._segmenter.finish(end_seconds, boundary):
            self._end_segment(segment)
        yield from self._blocks(1)

    def _settle(self, frame: Frame, sampled: bool) -> None:
        seconds = frame.pts_seconds
        is_cut = frame.pts in self._cuts
        self._cuts.discard(frame.pts)
        for segment in self._segmenter.advance(seconds, is_cut):
            self._end_segment(segment)
        self._spare = frame
        if not sampled:
            return
        self.frames_sampled += 1
        passes = self._gate.passes(frame.image, seconds)
        if self._look is not None and not passes:
            self._look.weight += 1
            return
        self.frames_sampled_and_encoded += 1
        self._begin_look(frame, seconds)

    def _begin_look(self, frame: Frame, seconds: float) -> None:
        first = self._look is None
        if self._look is not None:
            self._end_look(seconds)
        # A segment's first frame stands for the segment from its beginning.
        start_seconds = self._segment_start if first else seconds
        self._look = _Look(frame.image, frame.pts_seconds, start_seconds, self._segmenter.index)
        self.frames_encoded += 1

    def _end_look(self, end_seconds: float) -> None:
        assert self._look is not None
        self._look.end_seconds = end_seconds
        self._ready.append(self._look)
        self._look = None

    def _end_segment(self, segment: ClosedSegment) -> None:
        end_seconds = segment.span.end_seconds
        if self._look is None and self._spare is not None:
            # Shorter than the sampling grid, or one still picture shown for longer than a segment may last.
            spare = self._spare
            self._look = _Look(spare.image, spare.pts_seconds, segment.span.start_seconds, segment.index)
            self.frames_encoded += 1
        if self._look is not None:
            self._end_look(end_seconds)
        self._closed.append(segment)
        self._segment_start = end_seconds
        self._gate.reset()

    def _blocks(self, at_least: int) -> Iterator[Block]:
        while len(self._ready) >= at_least:
            shape = self._ready[0].image.shape
            looks: list[_Look] = []
            # A stream may change its picture size on the way; a block has one.
            while self._ready and len(looks) < self._block_frames and self._ready[0].image.shape == shape:
                looks.append(self._ready.pop(0))
            # A segment is closed in the block of its last frame, not before.
            first_left = self._ready[0].segment if self._ready else self._segmenter.index
            done = tuple(s for s in self._closed if s.index < first_left)
            self._closed = [s for s in self._closed if s.index >= first_left]
            yield Block(
                images=np.stack([k.image for k in looks]),
                pts_seconds=np.array([k.pts_seconds for k in looks], np.float64),
                start_seconds=np.array([k.start_seconds for k in looks], np.float64),
                end_seconds=np.array([k.end_seconds for k in looks], np.float64),
                weight=np.array([k.weight for k in looks], np.int64),
                segment=np.array([k.segment for k in looks], np.int64),
                closed=done,
            )
