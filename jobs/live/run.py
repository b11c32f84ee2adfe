"""Runs live streams side by side: watches each in an actor of its own, encodes and captions what they give together.

This process writes everything down. A stream that crashes its decoder costs itself a reconnect, never the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import LongreelError
from jobs.errors import WorkerLost
from jobs.live.lanes import DRAIN_SECONDS, EncodeLane
from jobs.live.running import RESTART_SECONDS, LiveReporter, RunningStream, StreamResult, unforeseen
from jobs.live.workers import LiveEncodeWorker, LiveModels, StreamWorker
from jobs.placement import Stage, check_nodes, check_placement
from jobs.pool import LostWorker, answer
from jobs.settings import RunSettings
from jobs.workers import ray_class
from pipeline.errors import DiskFull, LibraryBusy
from pipeline.live.types import LiveBlock

if TYPE_CHECKING:
    from encoders.vlm.counts import VlmCounts

__all__ = ["LiveEngine", "LiveReporter", "RunningStream", "StreamResult", "together"]

_log = logging.getLogger(__name__)
_BLOCKS_AHEAD = 2  # that a stream may be ahead of its encoder, before its own queue fills and its policy decides
_BEAT_SECONDS = 1.0
_STREAM_CPUS = 0.1  # that a stream reserves: decoding a camera takes a part of a core, and shares it


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
        self._lanes: list[EncodeLane] = []
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
            for worker in self._encoders:
                _kill(worker)
            raise
        words, most = bool(self._captioner), settings.live.captions.waiting
        self._lanes = [EncodeLane(one, self._reporter, captions=words, most=most) for one in self._encoders]
        self._loops = [loop for lane in self._lanes for loop in lane.loops()]
        for loop in self._loops:
            loop.add_done_callback(self._loop_ended)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for worker in self._encoders:
            _kill(worker)

    @property
    def asked(self) -> VlmCounts | None:
        """What asking a captioner behind an address has cost so far; ``None``: there is none."""
        counts = [lane.asked for lane in self._lanes if lane.asked is not None]
        return sum(counts[1:], counts[0]) if counts else None

    def _loop_ended(self, loop: asyncio.Task[None]) -> None:
        error = None if loop.cancelled() else loop.exception()
        if error is not None and self.broken is not None and not self.broken.done():
            self.broken.set_exception(error)

    # -- a stream ------------------------------------------------------------------------------------------------------

    async def run(self, stream: RunningStream) -> StreamResult:
        """Watch one stream to its end: it ended, was stopped, or failed for good. However it ends, and also where this
        is cancelled, its end is written down and its files are whole."""
        stream.lane = min(self._lanes, key=lambda lane: lane.streams)
        stream.lane.streams += 1
        error: LongreelError | None = None
        try:
            await self._watched(stream)
        except LongreelError as failed:
            error = failed
        except BrokenPipeError:  # nobody reads what we print: all streams end
            await self._ended(stream, None, words=False)
            raise
        except asyncio.CancelledError:
            await self._ended(stream, self._why_broken(), words=False)
            raise
        except Exception as defect:  # noqa: BLE001 - it costs this stream, not the others
            error = unforeseen(stream.session.name, defect)
        return await self._ended(stream, error)

    def _why_broken(self) -> LongreelError | None:
        broken = self.broken
        error = broken.exception() if broken is not None and broken.done() and not broken.cancelled() else None
        return error if isinstance(error, LongreelError) else None

    async def _watched(self, stream: RunningStream) -> None:
        """Until the stream ends, or has been asked to for so long that it will not."""
        await _first_of(self._watch_on(stream), self._beats(stream), _overdue(stream))

    async def _ended(self, stream: RunningStream, error: LongreelError | None, *, words: bool = True) -> StreamResult:
        """Write down that the stream is over, with its last words."""
        assert stream.lane is not None
        stream.stopping.set()  # from now on nothing is waited for
        _kill(stream.worker)
        if words:
            await stream.lane.finish(stream)
        with contextlib.suppress(Exception):
            stream.lane.forget(stream)
        stream.lane.streams -= 1
        try:
            await asyncio.to_thread(stream.session.close, error)
        except LongreelError as failed:
            error = error or failed
        except Exception as defect:  # noqa: BLE001 - it costs this stream, not the others
            error = error or unforeseen(stream.session.name, defect)
        self._reporter.stream_ended(stream.session, error)
        return StreamResult(stream.session, error)

    def stop(self, stream: RunningStream) -> None:
        """Ask a stream to end; :meth:`run` returns once its last window is written down."""
        stream.stopping.set()
        if stream.worker is not None:
            stream.worker.stop.remote()

    async def _beats(self, stream: RunningStream) -> None:
        """Say that the stream lives, whatever it waits for, and hear whether somebody asks it to stop.

        Raises:
            LibraryError: the stream was removed, or another process watches it now.
        """
        while True:
            try:
                if await asyncio.to_thread(stream.session.beat, time.monotonic()) and not stream.stopping.is_set():
                    self.stop(stream)
            except (DiskFull, LibraryBusy) as error:
                stream.session.note(f"{type(error).__name__}: {error}")
            await asyncio.sleep(_BEAT_SECONDS)

    async def _watch_on(self, stream: RunningStream) -> None:
        """Watch; where the worker's process dies, as often as it takes. Each time it is another actor: of one that did
        not answer it is not known whether it still watches."""
        kind = ray_class(StreamWorker, max_concurrency=2, **self.stages[0].ray_options())
        pause, longest = RESTART_SECONDS
        crashes = 0
        while True:
            began = time.monotonic()
            stream.worker = kind.remote()
            try:
                await self._watch(stream)
                return
            except LostWorker as lost:
                _kill(stream.worker)
                if stream.stopping.is_set():
                    return
                if time.monotonic() - began > longest:
                    pause, crashes = RESTART_SECONDS[0], 0
                crashes += 1
                limit = self._settings.live.source.max_attempts
                if limit and crashes >= limit:
                    raise WorkerLost(f"{stream.session.name}: its worker died {crashes} times ({lost})") from lost
                _log.warning("%s: its worker died (%s); again in %.1f s", stream.session.name, lost, pause)
                stream.session.crashed(f"its decoder's process died ({lost})")
            self._reporter.state_changed(stream.session)
            await stream.pause(pause * random.uniform(0.8, 1.2))
            if stream.stopping.is_set():
                return
            pause = min(2 * pause, longest)
            stream.task = await stream.kept(stream.session.resumed, stream.task)

    async def _watch(self, stream: RunningStream) -> None:
        assert stream.lane is not None
        blocks = stream.worker.watch.options(
            num_returns="streaming", _generator_backpressure_num_objects=_BLOCKS_AHEAD
        ).remote(stream.task)
        async for ref in blocks:
            block: LiveBlock = await answer(ref)
            if await stream.kept(stream.session.take, block):
                self._reporter.state_changed(stream.session)
            await stream.lane.take(stream, block, ref)
            del ref, block  # nothing is held while the next one is waited for


def _kill(worker: Any) -> None:
    import ray

    with contextlib.suppress(Exception):  # the cluster may be gone already
        ray.kill(worker, no_restart=True)


async def _overdue(stream: RunningStream) -> None:
    """Ends where a stream that was asked to stop does not: its worker hangs, or never began."""
    await stream.stopping.wait()
    await asyncio.sleep(DRAIN_SECONDS)
    stream.session.note(f"it did not stop within {DRAIN_SECONDS:.0f} s")


async def _first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Until one of these ends, which ends the others.

    Raises:
        Exception: that of the one that failed.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
        for stream in streams:
            engine.stop(stream)

    async def beats() -> None:
        while True:
            await asyncio.sleep(1.0)
            reporter.beat([stream.session for stream in streams])

    clock, told = asyncio.create_task(watch_clock()), asyncio.create_task(beats())
    beside = [clock, told]
    everything = asyncio.gather(*running)
    try:
        either: list[asyncio.Future[Any]] = [everything, broken, told]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for one in (broken, told):
            if one.done():
                one.result()  # raises
        return list(await everything)
    finally:
        for task in [*beside, *running]:
            task.cancel()
        await asyncio.gather(*beside, *running, everything, return_exceptions=True)
