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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from csat_fusion.errors import LongreelError
from encoders.errors import EncoderOptionError
from jobs.errors import EngineError, PlacementError, UnexpectedError, WorkerLost
from jobs.placement import Stage, check_nodes, check_placement, plan_stages
from jobs.settings import RunSettings
from jobs.workers import DecodeWorker, EncodeWorker, PartStateLost, Taken, ray_class
from pipeline.errors import SourceError
from pipeline.media import MediaInfo, PartResult

if TYPE_CHECKING:
    from encoders.base import EncoderInfo
    from pipeline.watch import WatchTask

__all__ = ["Engine", "LostWorker", "answer", "start_ray", "stop_ray"]

_BLOCKS_AHEAD = 4  # blocks that a decoder may be ahead of its encoder: the bound on memory for each part
_PLACE_SECONDS = 120.0
_BACK_SECONDS = 60.0  # for a worker whose process died to answer again
_SAME_SECONDS = 5.0  # for a kill to arrive; and a worker that came back elsewhere may have its old number
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


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

    Args:
        library_precision: of the library's vectors, if it has any: taken, without measuring, where the settings leave
            the precision open and the device can compute in it.

    Raises (on entering):
        PlacementError: the cluster has not what the stages ask for.
        EncoderError: the model cannot be loaded.
    """

    def __init__(self, settings: RunSettings, resources: dict[str, float], library_precision: str = "") -> None:
        self._settings = settings
        self._library_precision = library_precision if settings.encoder.precision == "auto" else ""
        self._decode_stage, self._encode_stage = plan_stages(settings.workers, resources)
        check_placement((self._decode_stage, self._encode_stage), resources)
        self._decoders: list[Any] = []
        self._encoders: list[Any] = []
        self._free: asyncio.Queue[Any] = asyncio.Queue()
        self._load: dict[Any, int] = {}
        self._pids: dict[Any, int] = {}
        self._returning: dict[Any, asyncio.Task[bool]] = {}
        # On the CPU the encoders share the cores of their nodes; each more thread than a core would cost both.
        threads = settings.encoder.threads or max(1, int(resources.get("CPU", 1) / self._encode_stage.count))
        self._encoder_options = replace(settings.encoder, threads=threads)
        self.info: EncoderInfo

    @property
    def decoder_count(self) -> int:
        return self._decode_stage.count

    @property
    def stages(self) -> tuple[Stage, Stage]:
        return self._decode_stage, self._encode_stage

    async def __aenter__(self) -> Engine:
        import ray

        settings = self._settings
        check_nodes(self.stages, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        decoder = ray_class(DecodeWorker, **self._decode_stage.ray_options())
        encoder = ray_class(EncodeWorker, **self._encode_stage.ray_options())
        try:
            self._encoders = [
                encoder.remote(settings.model, settings.ingest.digest) for _ in range(self._encode_stage.count)
            ]
            self._decoders = [decoder.remote(settings.ingest.decode) for _ in range(self._decode_stage.count)]
            for worker in self._decoders:
                self._free.put_nowait(worker)
            self._load = dict.fromkeys(self._encoders, 0)
            await self._placed()
            first, *others = self._encoders
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
        import ray

        for task in self._returning.values():
            task.cancel()
        for worker in [*self._decoders, *self._encoders]:
            with contextlib.suppress(Exception):  # the cluster may be gone already
                ray.kill(worker, no_restart=True)

    async def _placed(self) -> None:
        import ray

        workers = [*self._encoders, *self._decoders]
        waiting = [worker.pid.remote() for worker in workers]
        try:
            pids = await asyncio.wait_for(asyncio.gather(*(answer(ref) for ref in waiting)), _PLACE_SECONDS)
            self._pids = dict(zip(workers, pids, strict=True))
        except asyncio.TimeoutError:
            asked = ", ".join(f"{s.name} {s.count} x {s.ray_options()}" for s in self.stages)
            free = await asyncio.to_thread(ray.available_resources)
            left = ", ".join(f"{name} {free.get(name, 0.0):g}" for name in ("CPU", "GPU", "memory"))
            raise PlacementError(
                f"the workers could not be placed within {_PLACE_SECONDS:.0f} s: other jobs hold what they need. "
                f"Asked: {asked}; free in the whole cluster, after those that were placed: {left}"
            ) from None

    async def worker_pids(self) -> dict[str, list[int]]:
        """Process ids by stage."""
        return {
            "decode": [await answer(w.pid.remote()) for w in self._decoders],
            "encode": [await answer(w.pid.remote()) for w in self._encoders],
        }

    async def inspect(self, source: str, uri: str, known: str | None) -> tuple[MediaInfo | None, str]:
        """Facts and fingerprint of a source, found by any decode worker; no facts when the fingerprint is ``known``.

        Raises:
            SourceError: when it cannot be used.
            WorkerLost: when workers died on it again and again.
        """

        async def once() -> tuple[MediaInfo | None, str]:
            async with self._decoder() as decoder:
                facts: tuple[MediaInfo | None, str] = await answer(decoder.inspect.remote(source, uri, known))
                return facts

        return await self._tried(once, uri)

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

        return await self._tried(once, task.uri)

    async def _tried(self, once: Callable[[], Awaitable[_T]], uri: str) -> _T:
        for attempt in range(1, self._settings.workers.attempts + 1):
            try:
                return await once()
            except LostWorker as error:
                _log.info("a worker died on %s (attempt %d): %s", uri, attempt, error)
                last = error
        attempts = self._settings.workers.attempts
        raise WorkerLost(f"{uri}: a worker process died {attempts} times on it ({last})") from last

    async def _attempt(self, key: str, task: WatchTask, on_progress: Callable[[Taken], None]) -> PartResult:
        encoder = min(self._encoders, key=lambda worker: (worker in self._returning, self._load[worker]))
        self._load[encoder] += 1
        try:
            await self._is_back(encoder)
            pending: deque[Any] = deque()
            async with self._decoder() as decoder:
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
                self._expect(encoder)
            raise
        finally:
            self._load[encoder] -= 1

    @asynccontextmanager
    async def _decoder(self) -> AsyncIterator[Any]:
        """A decode worker of one's own. One that was left in the middle of its work is started anew."""
        import ray

        decoder = await self._free.get()
        try:
            await self._is_back(decoder)
            yield decoder
        except BaseException as error:
            # A source's error ends the stream of blocks; with any other one the decoder may still be at work.
            if not isinstance(error, SourceError):
                with contextlib.suppress(Exception):  # it may be dead already
                    ray.kill(decoder, no_restart=False)
                self._expect(decoder, anew=True)
            raise
        finally:
            self._free.put_nowait(decoder)

    def _expect(self, worker: Any, *, anew: bool = False) -> None:
        """Nobody uses ``worker`` until it has answered; ``anew``: its process is another one by then."""
        if worker not in self._returning:
            self._returning[worker] = asyncio.create_task(self._comes_back(worker, anew))

    async def _is_back(self, worker: Any) -> None:
        task = self._returning.get(worker)
        if task is not None and not await asyncio.shield(task):
            raise LostWorker(f"its process died and did not come back within {_BACK_SECONDS:.0f} s")

    async def _comes_back(self, worker: Any, anew: bool) -> bool:
        """Ask until ``worker`` answers: calls to an actor that is being restarted fail at once, they do not wait."""
        clock = asyncio.get_running_loop().time
        began, pause = clock(), 0.05
        try:
            while (left := began + _BACK_SECONDS - clock()) > 0:
                with contextlib.suppress(LostWorker, asyncio.TimeoutError):
                    pid: int = await asyncio.wait_for(answer(worker.pid.remote()), left)
                    if not anew or pid != self._pids.get(worker) or clock() - began > _SAME_SECONDS:
                        self._pids[worker] = pid
                        return True
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)
            return False
        finally:
            del self._returning[worker]


class LostWorker(Exception):
    """A worker or its node died: worth another attempt."""


async def answer(ref: Any) -> Any:
    """The value of ``ref``; errors of our own as themselves, deaths of workers as :class:`LostWorker`."""
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.ObjectLostError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        PartStateLost,
    )
    try:
        return await ref
    except lost as error:
        raise LostWorker(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    except exceptions.RayTaskError as error:
        cause = error.cause
        while isinstance(cause, exceptions.RayTaskError):
            cause = cause.cause
        if isinstance(cause, lost):
            raise LostWorker(f"{type(cause).__name__}: {str(cause).splitlines()[0]}") from error
        if isinstance(cause, LongreelError):
            raise cause from None
        # A defect of ours, or of a library, shows itself on one input: it costs that one, and the log has the rest.
        _log.error("unexpected error in a worker: %s", error)
        said = f"{type(cause or error).__name__}: {cause or error}".strip().splitlines()[0]
        raise UnexpectedError(f"unexpected error in a worker: {said}") from error
