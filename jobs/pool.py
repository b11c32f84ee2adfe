"""The workers of one stage: actors that are borrowed one at a time, and are waited for when their process has died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from csat_fusion.errors import LongreelError
from jobs.errors import UnexpectedError, WorkerLost
from jobs.placement import Stage
from jobs.workers import PartStateLost

__all__ = ["LostWorker", "WorkerPool", "answer", "tried"]

_BACK_SECONDS = 60.0  # for a worker whose process died to answer again
_BUSY_SECONDS = 1.0  # without an answer: it is at work
_SAME_SECONDS = 5.0  # for a kill to arrive; and a worker that came back elsewhere may have its old number
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class LostWorker(Exception):
    """A worker or its node died: worth another attempt."""


class WorkerPool:
    """The actors of ``stage``. Their class has a method ``pid``.

    Args:
        workers: handles of actors that are starting.
        at_rest: errors of a borrower after which its worker has nothing more to do. After any other one it may still be
            at work, and is started anew.
    """

    def __init__(self, stage: Stage, workers: list[Any], at_rest: type[Exception] = LongreelError) -> None:
        self.stage = stage
        self.workers = workers
        self._at_rest = at_rest
        self._free: asyncio.Queue[Any] = asyncio.Queue()
        for worker in workers:
            self._free.put_nowait(worker)
        self._pids: dict[Any, int] = {}
        self._returning: dict[Any, asyncio.Task[bool]] = {}

    async def placed(self) -> None:
        """Wait until all have started."""
        pids = await asyncio.gather(*(answer(worker.pid.remote()) for worker in self.workers))
        self._pids = dict(zip(self.workers, pids, strict=True))

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Any]:
        """A worker of one's own."""
        worker = await self._free.get()
        try:
            await self.is_back(worker)
            yield worker
        except BaseException as error:
            if not isinstance(error, self._at_rest):
                if not isinstance(error, LostWorker):
                    _restart(worker)
                self.expect(worker, anew=True, lost=isinstance(error, LostWorker))
            raise
        finally:
            self._free.put_nowait(worker)

    def is_away(self, worker: Any) -> bool:
        """Whether it is being waited for."""
        return worker in self._returning

    def expect(self, worker: Any, *, anew: bool = False, lost: bool = False) -> None:
        """Nobody uses ``worker`` until it has answered; ``anew``: its process is another one by then. ``lost``: it is
        not known whether it was this worker that died; one that lives is restarted."""
        if worker not in self._returning:
            self._returning[worker] = asyncio.create_task(self._comes_back(worker, anew, lost))

    async def is_back(self, worker: Any) -> None:
        """Wait for a worker that died.

        Raises:
            LostWorker: it did not come back.
        """
        task = self._returning.get(worker)
        if task is not None and not await asyncio.shield(task):
            raise LostWorker(f"its process died and did not come back within {_BACK_SECONDS:.0f} s")

    async def _comes_back(self, worker: Any, anew: bool, lost: bool) -> bool:
        """Ask until ``worker`` answers: calls to an actor that is being restarted fail at once, they do not wait."""
        clock = asyncio.get_running_loop().time
        began, pause = clock(), 0.05
        try:
            # Ray starts one that died by itself. Killed as well, it would be its next process that dies, on the next
            # attempt, and so on until there are no attempts left.
            if lost and await self._lives(worker):
                _restart(worker)
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

    async def _lives(self, worker: Any) -> bool:
        """Whether its process is the one that it was."""
        try:
            pid: int = await asyncio.wait_for(answer(worker.pid.remote()), _BUSY_SECONDS)
        except LostWorker:
            return False
        except asyncio.TimeoutError:  # it is at work
            return True
        return pid == self._pids.get(worker)

    def kill(self) -> None:
        """End them for good."""
        import ray

        for task in self._returning.values():
            task.cancel()
        for worker in self.workers:
            with contextlib.suppress(Exception):  # the cluster may be gone already
                ray.kill(worker, no_restart=True)


def _restart(worker: Any) -> None:
    import ray

    with contextlib.suppress(Exception):  # it may be dead already
        ray.kill(worker, no_restart=False)


async def tried(attempts: int, once: Callable[[], Awaitable[_T]], uri: str) -> _T:
    """``once``, and again where a worker died on it.

    Raises:
        WorkerLost: when workers died again and again.
    """
    for attempt in range(1, attempts + 1):
        try:
            return await once()
        except LostWorker as error:
            _log.info("a worker died on %s (attempt %d): %s", uri, attempt, error)
            last = error
    raise WorkerLost(f"{uri}: a worker process died {attempts} times on it ({last})") from last


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
