"""How the engine goes on when workers die, with doubles in place of Ray's actors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from encoders.base import EncoderInfo
from encoders.errors import EncoderOptionError
from jobs import pool as pool_module
from jobs.engine import Engine
from jobs.errors import WorkerLost
from jobs.placement import Stage
from jobs.pool import WorkerPool
from jobs.settings import EncoderOptions, RunSettings
from tests.pipeline.fakes import ToneEncoder


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own ``kill`` would start a cluster to look for the double in."""
    monkeypatch.setattr("ray.kill", lambda _worker, no_restart: None)


class Method:
    """As a method of an actor's handle: ``remote`` gives what can be awaited."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def remote(self, *arguments: Any) -> Any:
        async def answer() -> Any:
            return self._function(*arguments)

        return answer()


class Worker:
    """Dies at the first call and is away for a while, in which every call fails at once."""

    def __init__(self, away_seconds: float) -> None:
        self._back_at: float | None = None
        self._away_seconds = away_seconds
        self.calls = 0
        self.pid = Method(self._pid)
        self.inspect = Method(self._inspect)

    def _alive(self) -> None:
        from ray.exceptions import ActorUnavailableError

        if self._back_at is None or time.monotonic() < self._back_at:
            raise ActorUnavailableError("the actor is restarting", None)

    def _pid(self) -> int:
        self._alive()
        return 2

    def _inspect(self, *_arguments: Any) -> str:
        self.calls += 1
        if self._back_at is None:
            self._back_at = time.monotonic() + self._away_seconds
        self._alive()
        return "facts"


def pool_of(worker: Any, pid: int) -> WorkerPool:
    pool = WorkerPool(Stage("decode", 1, 1.0), [worker])
    pool._pids = {worker: pid}
    return pool


async def inspect(worker: Worker) -> Any:
    engine = Engine(RunSettings(), {"CPU": 2.0})
    engine._decoders = pool_of(worker, 1)
    return await asyncio.wait_for(engine.inspect("a.mp4", "a.mp4", None), 60)


def test_a_worker_that_restarts_is_waited_for_and_costs_one_attempt() -> None:
    worker = Worker(away_seconds=1.0)
    assert asyncio.run(inspect(worker)) == "facts"
    assert worker.calls == 2


def test_a_worker_that_stays_away_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_BACK_SECONDS", 0.2)
    worker = Worker(away_seconds=3600)
    with pytest.raises(WorkerLost, match=r"3 times .*did not come back"):
        asyncio.run(inspect(worker))
    assert worker.calls == 1


class Numbered:
    """A worker whose process has one number after the other."""

    def __init__(self, *pids: int) -> None:
        self.asked = 0
        self._pids = pids
        self.pid = Method(self._next)

    def _next(self) -> int:
        self.asked += 1
        return self._pids[min(self.asked, len(self._pids)) - 1]


@pytest.mark.parametrize(("anew", "asked"), [(True, 3), (False, 1)])
def test_a_killed_worker_is_used_again_when_its_process_is_another(anew: bool, asked: int) -> None:
    worker = Numbered(7, 7, 8)

    async def run() -> None:
        pool = pool_of(worker, 7)
        pool.expect(worker, anew=anew)
        assert pool.is_away(worker)
        await pool.is_back(worker)
        assert not pool.is_away(worker)

    asyncio.run(run())
    assert worker.asked == asked


@pytest.mark.parametrize(
    ("asked", "library", "able", "tried"),
    [
        ("auto", "bf16", True, ["bf16"]),
        ("auto", "fp16", False, ["fp16", "auto"]),
        ("auto", "", True, ["auto"]),
        ("fp32", "bf16", True, ["fp32"]),
    ],
)
def test_the_librarys_precision_is_taken_where_the_device_can(
    asked: str, library: str, able: bool, tried: list[str]
) -> None:
    loads: list[str] = []

    def load(options: EncoderOptions) -> Any:
        loads.append(options.precision)
        if options.precision == library and not able:
            raise EncoderOptionError("precision 'fp16' is for GPUs")
        return replace(ToneEncoder().info, precision=options.precision, precision_reason="measured")

    async def run() -> EncoderInfo:
        engine = Engine(RunSettings(encoder=EncoderOptions(precision=asked)), {"CPU": 2.0}, library)
        return await engine._load_first(SimpleNamespace(load=Method(load)))

    info = asyncio.run(run())
    assert loads == tried
    if loads == [library]:
        assert info.precision_reason == "as in this library"
    elif library and asked == "auto":
        assert info.precision_reason == "measured; not the library's fp16: precision 'fp16' is for GPUs"
    else:
        assert info.precision_reason == "measured"


class Failing:
    """A worker of one process after the other; its work fails with each of ``errors`` in turn."""

    def __init__(self, errors: list[Exception], restarts: bool) -> None:
        self._errors, self._restarts, self._number = errors, restarts, 7
        self.killed = 0
        self.pid = Method(lambda: self._number)
        self.inspect = Method(self._inspect)

    def kill(self) -> None:
        self.killed += 1
        self._number += 1

    def _inspect(self, *_arguments: Any) -> str:
        if self._errors:
            self._number += self._restarts
            raise self._errors.pop(0)
        return "facts"


@pytest.mark.parametrize(
    ("restarts", "killed"), [(True, 0), (False, 1)], ids=["one that died by itself", "one that lives"]
)
def test_only_a_worker_that_lives_is_restarted(restarts: bool, killed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that died comes back by itself; killed as well, its next process would die on the next attempt."""
    from ray.exceptions import ActorDiedError

    worker = Failing([ActorDiedError()], restarts)
    monkeypatch.setattr("ray.kill", lambda actor, no_restart: actor.kill())

    async def run() -> Any:
        engine = Engine(RunSettings(), {"CPU": 2.0})
        engine._decoders = pool_of(worker, 7)
        return await asyncio.wait_for(engine.inspect("a.mp4", "a.mp4", None), 60)

    assert asyncio.run(run()) == "facts"
    assert worker.killed == killed
