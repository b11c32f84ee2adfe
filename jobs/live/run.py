"""Runs live streams side by side: watches each in an actor of its own, encodes and captions what they give together.

This process writes everything down. A stream that crashes its decoder costs itself a reconnect, never the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from csat_fusion.errors import LongreelError
from jobs.errors import WorkerLost
from jobs.live.workers import LiveEncodeWorker, LiveModels, LiveTaken, StreamWorker, WindowKey
from jobs.placement import Stage, check_nodes, check_placement
from jobs.pool import LostWorker, answer
from jobs.settings import RunSettings
from jobs.workers import ray_class
from pipeline.live.loop import StreamTask
from pipeline.live.session import StreamSession
from pipeline.live.types import LiveBlock, LiveCaption

__all__ = ["LiveEngine", "LiveReporter", "RunningStream", "StreamResult", "together"]

_log = logging.getLogger(__name__)
_BLOCKS_AHEAD = 2  # that a stream may be ahead of its encoder, before its own queue fills and its policy decides
_AT_ONCE = 64  # blocks that an encoder takes together
_DRAIN_SECONDS = 30.0  # for the last windows and their words, once a stream is over
_RESTART_SECONDS = (0.5, 30.0)  # first and longest pause before a crashed worker is asked again
_STREAM_CPUS = 0.1  # that a stream reserves: decoding a camera takes a part of a core, and shares it


class LiveReporter:
    """Is told what happens; this one says nothing."""

    def note(self, message: str) -> None: ...
    def stream_started(self, session: StreamSession, uri: str) -> None: ...
    def state_changed(self, session: StreamSession) -> None: ...
    def captioned(self, session: StreamSession, caption: LiveCaption) -> None: ...
    def beat(self, sessions: Sequence[StreamSession]) -> None: ...
    def stream_ended(self, session: StreamSession, error: LongreelError | None) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class StreamResult:
    """How a stream ended; ``error`` where it failed."""

    session: StreamSession
    error: LongreelError | None


@dataclass(eq=False)
class RunningStream:
    """A stream under way."""

    task: StreamTask
    session: StreamSession
    encoder: int = 0
    worker: Any = None
    stopping: bool = False
    captions_left: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.session.video_id


@dataclass(eq=False)
class _Waiting:
    """A block on its way through an encoder."""

    stream: RunningStream
    block: LiveBlock
    ref: Any
    done: asyncio.Future[None]


class LiveEngine:
    """The actors of some streams. An async context manager; leaving it ends them.

    Raises (on entering):
        PlacementError: the cluster has not what they ask for.
        EncoderError: model or captioner cannot be loaded.
    """

    def __init__(
        self, settings: RunSettings, streams: int, resources: dict[str, float], reporter: LiveReporter
    ) -> None:
        self._settings, self._reporter = settings, reporter
        self._captioner = settings.captions.model
        gpus = settings.workers.encode_gpus
        gpus = gpus if gpus >= 0 else (1.0 if resources.get("GPU") else 0.0)
        wanted = settings.workers.encoders or (int(resources.get("GPU", 0) / gpus) if gpus else 1)
        count = max(1, min(wanted, streams))
        room = max(0.05, resources.get("CPU", 1.0) - streams * _STREAM_CPUS)
        share = min(settings.workers.encode_cpus, int(1e4 * room / count) / 1e4)
        self.stages = (
            Stage("stream", streams, _STREAM_CPUS),
            Stage("encode", count, share, gpus, settings.workers.encode_memory_bytes),
        )
        check_placement(self.stages, resources)
        self._encoders: list[Any] = []
        self._queues: list[asyncio.Queue[_Waiting]] = []
        self._words: list[deque[tuple[RunningStream, WindowKey]]] = []
        self._words_wait: list[asyncio.Event] = []
        self._loops: list[asyncio.Task[None]] = []
        self.broken: asyncio.Future[None] | None = None
        self.models: LiveModels

    async def __aenter__(self) -> LiveEngine:
        import ray

        check_nodes(self.stages, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        settings = self._settings
        kind = ray_class(LiveEncodeWorker, max_concurrency=2, **self.stages[1].ray_options())
        self.broken = asyncio.get_running_loop().create_future()
        try:
            self._encoders = [
                kind.remote(settings.model, settings.captions, settings.ingest.digest, settings.live, settings.encoder)
                for _ in range(self.stages[1].count)
            ]
            self.models, *_ = await asyncio.gather(*(answer(one.load.remote()) for one in self._encoders))
        except BaseException:
            self._kill()
            raise
        for number in range(len(self._encoders)):
            self._queues.append(asyncio.Queue())
            self._words.append(deque())
            self._words_wait.append(asyncio.Event())
            self._loops.append(asyncio.create_task(self._encode(number)))
            if self._captioner:
                self._loops.append(asyncio.create_task(self._caption(number)))
        for loop in self._loops:
            loop.add_done_callback(self._loop_ended)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._kill()

    def _kill(self) -> None:
        import ray

        for worker in self._encoders:
            with contextlib.suppress(Exception):  # the cluster may be gone already
                ray.kill(worker, no_restart=True)

    def _loop_ended(self, loop: asyncio.Task[None]) -> None:
        error = None if loop.cancelled() else loop.exception()
        if error is not None and self.broken is not None and not self.broken.done():
            self.broken.set_exception(error)

    # -- a stream ------------------------------------------------------------------------------------------------------

    async def run(self, stream: RunningStream) -> StreamResult:
        """Watch one stream to its end: it ended, was stopped, or failed for good."""
        import ray

        stream.encoder = hash(stream.id) % len(self._encoders)
        kind = ray_class(StreamWorker, max_concurrency=2, **self.stages[0].ray_options())
        stream.worker = kind.remote()
        error: LongreelError | None = None
        try:
            await self._watch_on(stream)
            await self._said(stream)
        except LongreelError as failed:
            error = failed
        finally:
            with contextlib.suppress(Exception):
                ray.kill(stream.worker, no_restart=True)
            self._encoders[stream.encoder].drop.remote(stream.id)
        await asyncio.to_thread(stream.session.close, error)
        self._reporter.stream_ended(stream.session, error)
        return StreamResult(stream.session, error)

    async def stop(self, stream: RunningStream) -> None:
        """Ask a stream to end; :meth:`run` returns once its last window is written down."""
        stream.stopping = True
        with contextlib.suppress(LostWorker):
            await answer(stream.worker.stop.remote())

    async def _watch_on(self, stream: RunningStream) -> None:
        """Watch; where the worker's process dies, as often as it takes."""
        pause, longest = _RESTART_SECONDS
        crashes = 0
        while True:
            began = time.monotonic()
            try:
                await self._watch(stream)
                return
            except LostWorker as lost:
                if stream.stopping:
                    return
                if time.monotonic() - began > longest:
                    pause, crashes = _RESTART_SECONDS[0], 0
                crashes += 1
                limit = self._settings.live.source.max_attempts
                if limit and crashes >= limit:
                    raise WorkerLost(f"{stream.session.name}: its worker died {crashes} times ({lost})") from lost
                _log.warning("%s: its worker died (%s); again in %.1f s", stream.session.name, lost, pause)
                stream.session.crashed(f"its decoder's process died ({lost})")
                self._reporter.state_changed(stream.session)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                if _asked_to_stop(stream):
                    return
                pause = min(2 * pause, longest)
                stream.task = stream.session.resumed(stream.task)

    async def _watch(self, stream: RunningStream) -> None:
        blocks = stream.worker.watch.options(
            num_returns="streaming", _generator_backpressure_num_objects=_BLOCKS_AHEAD
        ).remote(stream.task)
        loop = asyncio.get_running_loop()
        async for ref in blocks:
            block: LiveBlock = await answer(ref)
            if await asyncio.to_thread(stream.session.take, block):
                self._reporter.state_changed(stream.session)
            waiting = _Waiting(stream, block, ref, loop.create_future())
            self._queues[stream.encoder].put_nowait(waiting)
            del ref, block
            await waiting.done
            if await asyncio.to_thread(stream.session.beat, time.monotonic()) and not stream.stopping:
                await self.stop(stream)

    async def _said(self, stream: RunningStream) -> None:
        """Wait for the words of the last windows."""
        if stream.captions_left:
            stream.idle.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stream.idle.wait(), _DRAIN_SECONDS)

    # -- encoding and captioning ---------------------------------------------------------------------------------------

    async def _encode(self, number: int) -> None:
        """Everything that waits goes through together: the more there is, the better it is done."""
        queue = self._queues[number]
        while True:
            batch = [await queue.get()]
            again: list[_Waiting] = []  # a stream's blocks go one after the other
            seen = {batch[0].stream.id}
            while len(batch) < _AT_ONCE and not queue.empty():
                item = queue.get_nowait()
                (again if item.stream.id in seen else batch).append(item)
                seen.add(item.stream.id)
            for item in again:
                queue.put_nowait(item)
            try:
                taken: list[LiveTaken] = await answer(
                    self._encoders[number].take.remote([one.stream.id for one in batch], *(one.ref for one in batch))
                )
            except LostWorker as lost:
                # It comes back empty: windows that were open are lost beyond what was searchable already.
                _log.warning("an encode worker died (%s); the open windows of %d streams are lost", lost, len(seen))
                self._reporter.note(f"an encode worker died and is started again ({lost})")
                await self._reloaded(number)
                taken = [LiveTaken((), ())] * len(batch)
            except LongreelError as error:
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(error)
                continue
            for one, result in zip(batch, taken, strict=True):
                await self._committed(number, one, result)

    async def _committed(self, number: int, one: _Waiting, result: LiveTaken) -> None:
        try:
            await asyncio.to_thread(one.stream.session.commit, result.windows)
        except LongreelError as error:
            one.done.set_exception(error)
            return
        if self._captioner:
            for closed in result.closed:
                one.stream.captions_left += 1
                self._words[number].append((one.stream, (one.stream.id, closed.index)))
            self._words_wait[number].set()
        one.done.set_result(None)

    async def _reloaded(self, number: int) -> None:
        pause, longest = _RESTART_SECONDS
        while True:
            try:
                await answer(self._encoders[number].load.remote())
                return
            except LostWorker:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _caption(self, number: int) -> None:
        waiting = self._words[number]
        most = self._settings.live.captions.waiting
        while True:
            await self._words_wait[number].wait()
            self._words_wait[number].clear()
            while waiting:
                chosen = list(waiting)
                waiting.clear()
                skipped = _too_many(chosen, most)
                kept = [one for one in chosen if one not in skipped]
                for stream, _ in skipped:
                    stream.session.skip(1)
                captions: list[LiveCaption] = []
                try:
                    captions = await answer(
                        self._encoders[number].caption.remote([key for _, key in kept], [key for _, key in skipped])
                    )
                except LostWorker:
                    _log.warning("%d windows lost their words with their encode worker", len(kept))
                except LongreelError as error:
                    # A captioner that is out of reach costs words, not the streams.
                    for stream, _ in kept:
                        stream.session.skip(1, f"{type(error).__name__}: {error}")
                    self._reporter.note(f"{len(kept)} windows got no words: {type(error).__name__}: {error}")
                by_id = {stream.id: stream for stream, _ in kept}
                for caption in captions:
                    stream = by_id[caption.stream]
                    shown = await asyncio.to_thread(stream.session.caption, caption)
                    self._reporter.captioned(stream.session, shown)
                for stream, _ in chosen:
                    stream.captions_left -= 1
                    if not stream.captions_left:
                        stream.idle.set()


def _asked_to_stop(stream: RunningStream) -> bool:
    return stream.stopping  # it may have changed while somebody waited


def _too_many(waiting: list[tuple[RunningStream, WindowKey]], most: int) -> list[tuple[RunningStream, WindowKey]]:
    """The oldest windows of each stream beyond the newest ``most``."""
    by_stream: dict[str, list[tuple[RunningStream, WindowKey]]] = {}
    for one in waiting:
        by_stream.setdefault(one[0].id, []).append(one)
    return [one for own in by_stream.values() for one in own[: max(0, len(own) - most)]]


async def together(
    engine: LiveEngine,
    streams: Sequence[RunningStream],
    reporter: LiveReporter,
    stop: asyncio.Event,
    duration_seconds: float | None,
) -> list[StreamResult]:
    """All streams to their ends; ``stop``, or the end of ``duration_seconds``, ends them."""
    broken = engine.broken
    assert broken is not None
    running = [asyncio.create_task(engine.run(stream)) for stream in streams]

    async def watch_clock() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), duration_seconds)
        await asyncio.gather(*(engine.stop(stream) for stream in streams if stream.worker is not None))

    async def beats() -> None:
        while True:
            await asyncio.sleep(1.0)
            reporter.beat([stream.session for stream in streams])

    beside = [asyncio.create_task(watch_clock()), asyncio.create_task(beats())]
    try:
        everything = asyncio.gather(*running)
        either: list[asyncio.Future[Any]] = [everything, broken]
        done, _ = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if broken in done:
            broken.result()  # raises
        return list(await everything)
    finally:
        for task in [*beside, *running]:
            task.cancel()
        await asyncio.gather(*beside, *running, return_exceptions=True)
