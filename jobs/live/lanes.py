"""An encode worker with all that waits for it: blocks of any number of streams, and windows that want words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import LongreelError
from jobs.live.running import RESTART_SECONDS, LiveReporter, RunningStream, unforeseen
from jobs.live.workers import LiveTaken, LiveWords, WindowKey
from jobs.pool import LostWorker, answer
from pipeline.live.types import LiveBlock

if TYPE_CHECKING:
    from encoders.vlm.counts import VlmCounts

__all__ = ["EncodeLane"]

_log = logging.getLogger(__name__)
_AT_ONCE = 64  # blocks that an encoder takes together
_ATTEMPTS = 2  # at a batch with which an encode worker died
DRAIN_SECONDS = 30.0  # for the last windows and their words, once a stream is over
_Wanted = tuple[RunningStream, WindowKey]


@dataclass(eq=False)
class _Waiting:
    """A block on its way through an encoder; ``closed``: so many windows are complete with it."""

    stream: RunningStream
    ref: Any
    closed: int
    done: asyncio.Future[None]


class EncodeLane:
    """The streams of one encode worker.

    What goes wrong with one stream costs that one: a block that cannot be taken, a catalog that refuses a window, a
    caption that cannot be written. Where the worker dies, its streams go on with the next one.

    Args:
        worker: handle of a :class:`jobs.live.workers.LiveEncodeWorker`.
        captions: windows get words.
        most: windows of a stream that may wait for words.
    """

    def __init__(self, worker: Any, reporter: LiveReporter, *, captions: bool, most: int) -> None:
        self.worker = worker
        self.streams = 0  # that are under way here
        self.asked: VlmCounts | None = None  # what asking a captioner behind an address has cost
        self._reporter = reporter
        self._captions, self._most = captions, most
        self._blocks: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._wanted: deque[_Wanted] = deque()
        self._more_wanted = asyncio.Event()

    def loops(self) -> list[asyncio.Task[None]]:
        """Begin to work; they end by being cancelled, or where the lane cannot go on."""
        loops = [asyncio.create_task(self._encode())]
        if self._captions:
            loops.append(asyncio.create_task(self._caption()))
        return loops

    async def take(self, stream: RunningStream, block: LiveBlock, ref: Any) -> None:
        """The next block of a stream, until it is committed; one after the other of each stream.

        Raises:
            LongreelError: the stream cannot go on.
        """
        waiting = _Waiting(stream, ref, len(block.closed), asyncio.get_running_loop().create_future())
        self._blocks.put_nowait(waiting)
        await waiting.done

    async def finish(self, stream: RunningStream) -> None:
        """Wait for the words of a stream's last windows, not for ever; then it is over, and nothing more is written of
        it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stream.idle.wait(), DRAIN_SECONDS)
        if stream.words_left:
            stream.session.skip(stream.words_left, f"no words within {DRAIN_SECONDS:.0f} s after the stream's end")
        stream.over = True

    def forget(self, stream: RunningStream) -> None:
        """The stream is over."""
        stream.over = True
        self.worker.drop.remote(stream.id)

    # -- encoding ------------------------------------------------------------------------------------------------------

    async def _encode(self) -> None:
        """Everything that waits goes through together: the more there is, the better it is done."""
        while True:
            batch = [await self._blocks.get()]
            while len(batch) < _AT_ONCE and not self._blocks.empty():
                batch.append(self._blocks.get_nowait())
            for one, result in zip(batch, await self._taken(batch), strict=True):
                error: LongreelError | None = None
                try:
                    await self._committed(one, result)
                except LongreelError as failed:
                    error = failed
                except Exception as defect:  # noqa: BLE001 - it costs this stream, not the others
                    error = unforeseen(one.stream.session.name, defect)
                if one.done.done():
                    continue  # the stream was given up meanwhile
                if error is None:
                    one.done.set_result(None)
                else:
                    one.done.set_exception(error)

    async def _taken(self, batch: Sequence[_Waiting]) -> list[LiveTaken | LongreelError]:
        """What became of each block, or why it cannot be taken."""
        for _ in range(_ATTEMPTS):
            try:
                ids = [one.stream.id for one in batch]
                found: list[LiveTaken | LongreelError] = await answer(
                    self.worker.take.remote(ids, *(one.ref for one in batch))
                )
                return found
            except LostWorker as lost:
                # It comes back empty: what was open is lost beyond what was searchable already.
                _log.warning("an encode worker died (%s) with the open windows of its streams", lost)
                self._reporter.note(f"an encode worker died and is started again ({lost})")
                await self._restored(batch)
            except LongreelError as error:
                if len(batch) == 1:
                    return [error]
                # Whose block it was is not said, and some may have been taken: each begins anew, and alone.
                _log.warning("%d blocks could not be taken together: %s", len(batch), error)
                await self._restored(batch)
                return [result for one in batch for result in await self._taken([one])]
        for one in batch:
            one.stream.session.note(f"an encode worker died {_ATTEMPTS} times: up to a second was not looked at")
        return [LiveTaken((), ())] * len(batch)

    async def _restored(self, batch: Sequence[_Waiting]) -> None:
        """Wait for the worker; it knows nothing of these streams then, whether it was it that died or not."""
        pause, longest = RESTART_SECONDS
        while True:
            try:
                await answer(self.worker.load.remote())
                await asyncio.gather(*(answer(self.worker.drop.remote(one.stream.id)) for one in batch))
                return
            except LostWorker:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _committed(self, one: _Waiting, result: LiveTaken | LongreelError) -> None:
        stream = one.stream
        if isinstance(result, LongreelError):
            raise result
        if stream.over:
            return
        await stream.kept(stream.session.commit, result.windows)
        if result.failed:
            stream.session.note(result.failed)
        if self._captions:
            if lost := one.closed - len(result.closed):
                stream.session.skip(lost, "windows were lost with an encode worker")
            stream.wait_for_words(len(result.closed))
            self._wanted.extend((stream, (stream.id, closed.index)) for closed in result.closed)
            self._more_wanted.set()

    # -- words ---------------------------------------------------------------------------------------------------------

    async def _caption(self) -> None:
        while True:
            await self._more_wanted.wait()
            self._more_wanted.clear()
            chosen = list(self._wanted)
            self._wanted.clear()
            try:
                await self._say(chosen)
            finally:
                for stream, _ in chosen:
                    stream.wait_for_words(-1)

    async def _say(self, chosen: Sequence[_Wanted]) -> None:
        skipped = too_many(chosen, self._most)
        kept = [one for one in chosen if one not in skipped]
        _skip(skipped)
        words = LiveWords()
        try:
            words = await answer(self.worker.caption.remote([key for _, key in kept], [key for _, key in skipped]))
        except LostWorker:
            _log.warning("%d windows lost their words with their encode worker", len(kept))
            _skip(kept, "windows were lost with an encode worker")
        except LongreelError as error:
            # A captioner that is out of reach costs words, not the streams.
            _skip(kept, f"{type(error).__name__}: {error}")
            self._reporter.note(f"{len(kept)} windows got no words: {type(error).__name__}: {error}")
        _skip([one for one in kept if one[1] in words.unknown], "windows were lost with an encode worker")
        if words.missing:
            _skip([one for one in kept if one[1] in words.missing], words.reason)
            self._reporter.note(f"{len(words.missing)} windows got no words: {words.reason}")
        if words.asked is not None:
            self.asked = words.asked if self.asked is None else self.asked + words.asked
        by_id = {stream.id: stream for stream, _ in kept}
        for caption in words.captions:
            stream = by_id[caption.stream]
            if stream.over:
                continue
            try:
                shown = await stream.kept(stream.session.caption, caption)
            except LongreelError as error:
                stream.session.skip(1, f"{type(error).__name__}: {error}")
            except Exception as defect:  # noqa: BLE001 - it costs this caption, not the streams
                stream.session.skip(1, str(unforeseen(stream.session.name, defect)))
            else:
                self._reporter.captioned(stream.session, shown)


def _skip(wanted: Sequence[_Wanted], reason: str = "") -> None:
    for stream, _ in wanted:
        if not stream.over:
            stream.session.skip(1, reason)


def too_many(waiting: Sequence[_Wanted], most: int) -> list[_Wanted]:
    """The oldest windows of each stream beyond the newest ``most``."""
    by_stream: dict[str, list[_Wanted]] = {}
    for one in waiting:
        by_stream.setdefault(one[0].id, []).append(one)
    return [one for own in by_stream.values() for one in own[: max(0, len(own) - most)]]
