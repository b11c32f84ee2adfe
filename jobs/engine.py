"""Starts or joins Ray, places the workers of a batch job, and runs one part at a time on them.

Why actors and not Ray Data: a poisoned file must cost that file only. Ray Data retries and fails whole blocks of rows
that mix inputs, cancels the whole dataset, and has no place for the state that a part's compression carries from frame
to frame. Here a decoder that dies is a typed error of one part, a part is cancelled alone, and memory is bounded by a
fixed number of blocks in flight for each part.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import LongreelError
from encoders.captioner_names import is_elsewhere
from encoders.errors import EncoderOptionError
from jobs.errors import EngineError, PlacementError
from jobs.placement import Stage, check_nodes, check_placement, plan_stages
from jobs.pool import LostWorker, WorkerPool, answer, tried
from jobs.settings import EncoderOptions, RunSettings
from jobs.workers import CaptionTask, CaptionWorker, DecodeWorker, EncodeWorker, Taken, ray_class
from pipeline.errors import SourceError
from pipeline.media import MediaInfo, PartResult

if TYPE_CHECKING:
    from encoders.base import EncoderInfo
    from encoders.captioning import CaptionerInfo
    from encoders.vlm.counts import VlmCounts
    from pipeline.captioning import CaptionedSegments
    from pipeline.watch import WatchTask

__all__ = ["Engine", "start_ray", "stop_ray"]

_BLOCKS_AHEAD = 4  # blocks that a decoder may be ahead of its encoder: the bound on memory for each part
_PLACE_SECONDS = 120.0


def start_ray(address: str | None, options: Any, log_folder: str | None = None) -> dict[str, float]:
    """Start Ray on this machine, or join the cluster at ``address``; what it has of each resource.

    Raises:
        EngineError: when it cannot be started or reached.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    # Not wanted by a command line tool: usage reports to the network, and a warning about a future default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.job_config import JobConfig

    # Ray puts the driver's working folder first on its workers' path: a folder in it that is called as one of our
    # packages would be taken for ours. Jobs that come through Ray's client are spared that; otherwise they are alike.
    job_config = JobConfig(_client_job=True, _py_driver_sys_path=_own_paths())
    arguments: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "longreel"}
    arguments["job_config"] = job_config
    if address:
        arguments["address"] = address
    else:
        arguments |= {"address": "local", "include_dashboard": False, "object_store_memory": options.object_store_bytes}
    try:
        with _quiet_ray(), _own_sigterm():
            ray.init(**arguments)
    except Exception as error:
        where = f"reach the Ray cluster at {address}" if address else "start Ray on this machine"
        raise EngineError(f"cannot {where}: {error}") from error
    return dict(ray.cluster_resources())


def _own_paths() -> list[str]:
    """The folder of our packages, when it is a checkout that the workers may not find by themselves."""
    root = Path(__file__).resolve().parents[1]
    return [] if root.name in ("site-packages", "dist-packages") else [str(root)]


def stop_ray() -> None:
    """Leave the cluster; a Ray of our own ends with all its workers."""
    import ray

    with _quiet_ray():
        ray.shutdown()


@contextlib.contextmanager
def _quiet_ray() -> Any:
    # Ray logs "Started a local Ray instance" through its own logger whatever level was asked for.
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _own_sigterm() -> Any:
    # Ray sets handlers of its own for SIGTERM: one prints a stack trace, one leaves by SystemExit.
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class Engine:
    """The workers of one job. An async context manager; leaving it ends them.

    ``info`` is the encoder's, ``captioner`` the captioner's where the settings name one, ``asked`` what asking it has
    cost so far where it is behind an address.

    Args:
        library_precision: of the library's vectors, if it has any: taken, without measuring, where the settings leave
            the precision open and the device can compute in it.

    Raises (on entering):
        PlacementError: the cluster has not what the stages ask for.
        EncoderError: the model or the captioner cannot be loaded.
    """

    def __init__(self, settings: RunSettings, resources: dict[str, float], library_precision: str = "") -> None:
        self._settings = settings
        self._library_precision = library_precision if settings.encoder.precision == "auto" else ""
        captioner = settings.captions.model
        elsewhere = bool(captioner) and is_elsewhere(captioner)
        self.stages = plan_stages(settings.workers, resources, captions=bool(captioner), captions_elsewhere=elsewhere)
        check_placement(self.stages, resources)
        self._cores = resources.get("CPU", 1.0)
        self._encoder_options = self._with_threads(self.stages[1])
        self._pools: list[WorkerPool] = []
        self._load: dict[Any, int] = {}
        self.info: EncoderInfo
        self.captioner: CaptionerInfo | None = None
        self.asked: VlmCounts | None = None

    @property
    def captioner_count(self) -> int:
        return sum(stage.count for stage in self.stages if stage.name == "caption")

    @property
    def videos_at_once(self) -> int:
        """How many videos keep all workers busy: one for each decoder and captioner, and one that is inspected."""
        return self.stages[0].count + self.captioner_count + 1

    async def __aenter__(self) -> Engine:
        import ray

        settings = self._settings
        check_nodes(self.stages, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        decode, encode, *caption = self.stages
        try:
            reads = ""
            if caption:
                self._captioners = self._started(
                    caption[0], CaptionWorker, settings.captions, self._with_threads(caption[0]), settings.ingest
                )
                await self._placed()
                infos = await asyncio.gather(*(answer(worker.load.remote()) for worker in self._captioners.workers))
                self.captioner, reads = infos[0], infos[0].reads
            self._encoders = self._started(encode, EncodeWorker, settings.model, settings.ingest.digest, reads)
            self._decoders = self._started(decode, DecodeWorker, settings.ingest.decode, at_rest=SourceError)
            self._load = dict.fromkeys(self._encoders.workers, 0)
            await self._placed()
            first, *others = self._encoders.workers
            self.info = await self._load_first(first)
            # What the first one measured holds for all, also for one that comes back: same precision, same batches.
            self._encoder_options = replace(
                self._encoder_options, precision=self.info.precision, batch_size=self.info.batch_size
            )
            await asyncio.gather(*(answer(worker.load.remote(self._encoder_options)) for worker in others))
        except BaseException:
            self._kill()
            raise
        return self

    def _with_threads(self, stage: Stage) -> EncoderOptions:
        """How a model runs on the CPU: those of a stage share the cores; each more thread than a core costs all."""
        options = self._settings.encoder
        return replace(options, threads=options.threads or max(1, int(self._cores / stage.count)))

    def _started(
        self, stage: Stage, kind: type[Any], *arguments: Any, at_rest: type[Exception] = LongreelError
    ) -> WorkerPool:
        actor = ray_class(kind, **stage.ray_options())
        pool = WorkerPool(stage, [actor.remote(*arguments) for _ in range(stage.count)], at_rest)
        self._pools.append(pool)
        return pool

    async def _load_first(self, encoder: Any) -> EncoderInfo:
        info: EncoderInfo
        refused = ""
        if self._library_precision:
            options = replace(self._encoder_options, precision=self._library_precision)
            try:
                info = await answer(encoder.load.remote(options))
            except EncoderOptionError as error:
                refused = f"; not the library's {self._library_precision}: {error}"
            else:
                return replace(info, precision_reason="as in this library")
        info = await answer(encoder.load.remote(self._encoder_options))
        return replace(info, precision_reason=info.precision_reason + refused)

    async def __aexit__(self, *exc: object) -> None:
        self._kill()

    def _kill(self) -> None:
        for pool in self._pools:
            pool.kill()

    async def _placed(self) -> None:
        import ray

        try:
            await asyncio.wait_for(asyncio.gather(*(pool.placed() for pool in self._pools)), _PLACE_SECONDS)
        except asyncio.TimeoutError:
            asked = ", ".join(f"{s.name} {s.count} x {s.ray_options()}" for s in self.stages)
            free = await asyncio.to_thread(ray.available_resources)
            left = ", ".join(f"{name} {free.get(name, 0.0):g}" for name in ("CPU", "GPU", "memory"))
            raise PlacementError(
                f"the workers could not be placed within {_PLACE_SECONDS:.0f} s: other jobs hold what they need. "
                f"Asked: {asked}; free in the whole cluster, after those that were placed: {left}"
            ) from None

    async def inspect(self, source: str, uri: str, known: str | None) -> tuple[MediaInfo | None, str]:
        """Facts and fingerprint of a source, found by any decode worker; no facts when the fingerprint is ``known``.

        Raises:
            SourceError: when it cannot be used.
            WorkerLost: when workers died on it again and again.
        """

        async def once() -> tuple[MediaInfo | None, str]:
            async with self._decoders.borrowed() as decoder:
                facts: tuple[MediaInfo | None, str] = await answer(decoder.inspect.remote(source, uri, known))
                return facts

        return await tried(self._settings.workers.attempts, once, uri)

    async def run_part(self, key: str, task: WatchTask, on_progress: Callable[[Taken], None]) -> PartResult:
        """Decode and encode one part.

        Raises:
            SourceError: what the decode side met.
            WorkerLost: when workers died on it again and again.
        """
        attempt = 0

        async def once() -> PartResult:
            nonlocal attempt
            attempt += 1
            return await self._attempt(f"{key}.{attempt}", task, on_progress)

        return await tried(self._settings.workers.attempts, once, task.uri)

    async def _attempt(self, key: str, task: WatchTask, on_progress: Callable[[Taken], None]) -> PartResult:
        encoders = self._encoders
        encoder = min(encoders.workers, key=lambda worker: (encoders.is_away(worker), self._load[worker]))
        self._load[encoder] += 1
        try:
            await encoders.is_back(encoder)
            pending: deque[Any] = deque()
            async with self._decoders.borrowed() as decoder:
                blocks = decoder.watch.options(
                    num_returns="streaming", _generator_backpressure_num_objects=_BLOCKS_AHEAD
                ).remote(task)
                index = 0
                async for ref in blocks:
                    pending.append(encoder.take.remote(key, index, ref, self._encoder_options))
                    del ref  # or the block would stay in the object store
                    index += 1
                    if len(pending) >= _BLOCKS_AHEAD:
                        on_progress(await answer(pending.popleft()))
            # The decoder is free for the next part while this one's last blocks are encoded.
            result: PartResult | None = None
            while pending:
                taken: Taken = await answer(pending.popleft())
                on_progress(taken)
                result = taken.result
            if result is None:
                raise LostWorker("the stream of blocks ended without its summary")
            return result
        except BaseException as error:
            encoder.drop.remote(key)
            if isinstance(error, LostWorker):  # perhaps it was this one: then no call would reach it now
                encoders.expect(encoder)
            raise
        finally:
            self._load[encoder] -= 1

    async def caption(self, task: CaptionTask) -> CaptionedSegments:
        """Captions of some segments of a video; what asking for them cost is added to ``asked``.

        Raises:
            SourceError: the video has to be read again, and cannot be.
            LibraryError: it has changed meanwhile, or a token set is damaged.
            WorkerLost: when workers died on it again and again.
        """

        async def once() -> CaptionedSegments:
            async with self._captioners.borrowed() as captioner:
                found: CaptionedSegments = await answer(captioner.caption.remote(task))
                return found

        found = await tried(self._settings.workers.attempts, once, task.video.uri)
        if found.asked is not None:
            self.asked = found.asked if self.asked is None else self.asked + found.asked
        return found
