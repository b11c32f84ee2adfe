"""The encode side of live streams: looks in, windows to commit and token sets to caption out.

The looks of all streams that wait go through the model together. A stream's state is the looks of its open window and
the last one before it, so it does not grow with the stream.

Shapes: K looks, P patches of a look, d their width, D width of the joint space, m merged tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.digest import DigestOptions, SegmentDigest, checked_embedding
from pipeline.errors import EncodingFailed
from pipeline.live.options import MemoryOptions, WindowOptions
from pipeline.live.types import ClosedWindow, LiveBlock, LiveWindow
from pipeline.media import Span

if TYPE_CHECKING:
    from torch import Tensor

    from csat_fusion.memory.base import Memory
    from csat_fusion.tokens import TokenSet
    from encoders.base import Encoder
    from encoders.captioning import KeyFrame

__all__ = ["ClosedContent", "LiveDigest", "StreamDigest", "Taken"]

_LEAST_SECONDS = 1e-6


@dataclass(frozen=True, eq=False)
class _Look:
    """A frame that went through the model."""

    image: npt.NDArray[np.uint8]
    embedding: npt.NDArray[np.float32]
    tokens: Tensor | None
    start_seconds: float
    weight: int

    @property
    def bytes(self) -> int:
        tokens = 0 if self.tokens is None else self.tokens.numel() * self.tokens.element_size()
        return self.image.nbytes + self.embedding.nbytes + tokens


@dataclass(frozen=True, eq=False)
class ClosedContent:
    """What a captioner is given of a complete window: its token set, its looks as key frames, and the mean of their
    embeddings over time ``[D]``, of length 1."""

    closed: ClosedWindow
    tokens: TokenSet | None
    looks: tuple[KeyFrame, ...]
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Taken:
    """What became of a block: windows to commit, the complete ones last in their form, and those to caption.

    ``failed`` says why its looks could not be encoded: they are left out.
    """

    windows: tuple[LiveWindow, ...]
    closed: tuple[ClosedContent, ...]
    failed: str = ""


class LiveDigest:
    """One model and the digests of any number of streams.

    Args:
        tokens: the captioner reads the model's patch tokens, so they are compressed also where none are kept.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: DigestOptions,
        window: WindowOptions,
        memory: MemoryOptions | None = None,
        *,
        tokens: bool = False,
    ) -> None:
        self._encoder = encoder
        self._keep = options.tokens.keep
        self._options = replace(options, tokens=replace(options.tokens, keep=options.tokens.keep or tokens))
        self._window, self._memory = window, memory or MemoryOptions()
        self._streams: dict[str, StreamDigest] = {}

    def take(self, blocks: Sequence[tuple[str, LiveBlock]]) -> list[Taken]:
        """The next blocks of these streams, each stream's in order; what became of each. A picture for which the model
        gives nothing usable costs the looks of its block, and no other stream anything.

        Raises:
            EncoderError: the model cannot go on; the streams' states are as before.
        """
        try:
            seen = self._encoded([block for _, block in blocks])
        except EncodingFailed as error:
            if len(blocks) > 1:
                return [one for block in blocks for one in self.take([block])]
            name, block = blocks[0]
            (taken,) = self.take([(name, block.without_looks())])
            return [replace(taken, failed=str(error))]
        found = []
        for (name, block), looks in zip(blocks, seen, strict=True):
            stream = self._streams.get(name)
            if stream is None:
                facts = {
                    "model": self._encoder.info.name,
                    "precision": self._encoder.info.precision,
                    "device": self._encoder.info.device,
                }
                stream = StreamDigest(self._options, self._window, self._memory, keep=self._keep, facts=facts)
                self._streams[name] = stream
            found.append(stream.take(block, looks))
        return found

    def drop(self, name: str) -> None:
        """Forget a stream."""
        self._streams.pop(name, None)

    def memory(self, name: str) -> Memory | None:
        """The long memory of a stream, if it has one."""
        stream = self._streams.get(name)
        return None if stream is None else stream.memory

    @property
    def state_bytes(self) -> int:
        """Of all streams: pictures, embeddings and tokens held between two blocks."""
        return sum(stream.state_bytes for stream in self._streams.values())

    def _encoded(self, blocks: Sequence[LiveBlock]) -> list[list[_Look]]:
        """The looks of each block; pictures of one size go through the model together."""
        found: list[list[_Look | None]] = [[None] * len(block) for block in blocks]
        sizes: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for b, block in enumerate(blocks):
            for i in range(len(block)):
                sizes.setdefault(block.images[i].shape, []).append((b, i))
        for places in sizes.values():
            images = np.stack([blocks[b].images[i] for b, i in places])
            seconds = [float(blocks[b].start_seconds[i]) for b, i in places]
            seen = self._encoder.encode(images, tokens=self._options.tokens.keep)
            embedding = checked_embedding(seen.embedding, self._encoder.info, seconds)
            for row, (b, i) in enumerate(places):
                tokens = None if seen.tokens is None else seen.tokens[row].clone()  # not the whole batch with it
                weight = int(blocks[b].weight[i])
                found[b][i] = _Look(blocks[b].images[i].copy(), embedding[row].copy(), tokens, seconds[row], weight)
        return [[look for look in looks if look is not None] for looks in found]


class StreamDigest:
    """The open window of one stream, and the look that stands before it.

    Where it comes to a window that has begun already (its process was started anew), the window's span here begins with
    the first look that it is given.
    """

    def __init__(
        self,
        options: DigestOptions,
        window: WindowOptions,
        memory: MemoryOptions,
        *,
        keep: bool,
        facts: dict[str, Any],
    ) -> None:
        self._options, self._window = options, window
        self._keep, self._facts = keep, facts
        self._last: _Look | None = None  # the newest look: what it stands for is known when the next one comes
        self._settled: list[tuple[_Look, Span]] = []  # of the open window, with the span that each stands for
        self._opened: tuple[int, float] | None = None  # the open window as the stream has it
        self._start = 0.0  # of what is known of it
        self._flushed = float("-inf")
        self._sampled = 0
        self.memory: Memory | None = None
        if memory.tokens:
            from csat_fusion.memory.adaptive import AdaptiveMemory

            self.memory = AdaptiveMemory(memory.tokens, fine_seconds=memory.fine_seconds)

    @property
    def state_bytes(self) -> int:
        looks = [look for look, _ in self._settled] + ([self._last] if self._last is not None else [])
        return sum(look.bytes for look in looks) + (self.memory.state_bytes if self.memory is not None else 0)

    def take(self, block: LiveBlock, looks: Sequence[_Look]) -> Taken:
        """The stream's next block with its looks, encoded."""
        if self._last is not None and block.extended:
            self._last = replace(self._last, weight=self._last.weight + block.extended)
        self._sampled += block.extended
        windows, contents = [], []
        waiting = list(zip(looks, (int(w) for w in block.window), strict=True))
        for closed in block.closed:
            while waiting and waiting[0][1] <= closed.index:
                self._enter(waiting.pop(0)[0], closed.index, closed.span.start_seconds)
            if self._last is None:
                continue  # the stream ended before its first look
            self._begin(closed.index, closed.span.start_seconds)
            window, content = self._close(replace(closed, span=Span(self._start, closed.span.end_seconds)))
            windows.append(window)
            contents.append(content)
        if block.opened is not None:
            for look, _ in waiting:
                self._enter(look, *block.opened)
            self._begin(*block.opened)
        open_window = self._provisional(block)
        return Taken((*windows, *([open_window] if open_window is not None else [])), tuple(contents))

    def _begin(self, index: int, start_seconds: float) -> None:
        if self._opened == (index, start_seconds):
            return
        self._opened, self._start = (index, start_seconds), start_seconds
        self._settled = []
        self._sampled = 0
        self._flushed = float("-inf")

    def _enter(self, look: _Look, index: int, start_seconds: float) -> None:
        """A look comes: the one before it stands until then."""
        new_window = self._opened != (index, start_seconds)
        self._begin(index, start_seconds)
        if self._last is None:
            self._start = max(self._start, look.start_seconds)
        elif not new_window or look.start_seconds - self._start > _LEAST_SECONDS:
            self._settle(look.start_seconds)  # in a new window it goes on until something new is seen
        self._last = look
        self._sampled += look.weight

    def _settle(self, end_seconds: float) -> None:
        assert self._last is not None
        span = self._standing(end_seconds)
        self._settled.append((self._last, span))
        if self.memory is not None and self._last.tokens is not None:
            self.memory.add(self._last.tokens, span.start_seconds, span.end_seconds)

    def _standing(self, end_seconds: float) -> Span:
        """The span in the open window that the newest look stands for, if that ends there."""
        assert self._last is not None
        start = max(self._last.start_seconds, self._start)
        return Span(start, max(end_seconds, start + _LEAST_SECONDS))

    def _close(self, closed: ClosedWindow) -> tuple[LiveWindow, ClosedContent]:
        self._settle(closed.span.end_seconds)
        digest = self._digested(self._settled)
        tokens = digest.token_set()
        record = digest.record(closed.index, closed.span, closed.boundary, tokens if self._keep else None)
        window = LiveWindow(closed.index, record, True, self._sampled, len(self._settled), self._facts)
        looks = tuple(_key_frame(look, span) for look, span in self._settled)
        content = ClosedContent(closed, tokens, looks, _mean(self._settled))
        self._settled = []
        self._opened = None
        if closed.boundary in ("shot", "gap", "end"):
            self._last = None  # it shows nothing of what comes
        elif self._last is not None:
            self._last = replace(self._last, weight=0)  # what it goes on to stand for is counted anew
        return window, content

    def _provisional(self, block: LiveBlock) -> LiveWindow | None:
        """The open window as far as it has come, now and then: it can be searched before it is complete."""
        if self._last is None or self._opened is None:
            return None
        until = block.until_seconds
        if until - self._start <= _LEAST_SECONDS or until - self._flushed < self._window.flush_seconds:
            return None
        self._flushed = until
        digest = self._digested([*self._settled, (self._last, self._standing(until))], vectors_only=True)
        index, _ = self._opened
        record = digest.record(index, Span(self._start, until), "open")
        return LiveWindow(index, record, False, self._sampled, len(digest), self._facts)

    def _digested(self, looks: Sequence[tuple[_Look, Span]], vectors_only: bool = False) -> SegmentDigest:
        options = self._options
        if vectors_only:
            options = replace(options, tokens=replace(options.tokens, keep=False))
        digest = SegmentDigest(options)
        for look, span in looks:
            tokens = None if vectors_only else look.tokens
            digest.add(look.image, look.embedding, tokens, span.start_seconds, span, max(1, look.weight))
        return digest


def _mean(looks: Sequence[tuple[_Look, Span]]) -> npt.NDArray[np.float32]:
    """Of the looks' embeddings, each as long as it stands."""
    total = sum(look.embedding.astype(np.float64) * span.duration_seconds for look, span in looks)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-12), np.float32)


def _key_frame(look: _Look, span: Span) -> KeyFrame:
    from encoders.captioning import KeyFrame

    return KeyFrame(look.image, span.start_seconds, span.start_seconds, span.end_seconds)
