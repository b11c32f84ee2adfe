"""Runs each row of a benchmark in a process of its own, within limits of time and memory; meters its peak memory."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

__all__ = ["Meter", "Outcome", "run_apart"]

_POLL_SECONDS = 0.05
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class Meter:
    """Peak memory in bytes above what was in use when the meter was made; ``close`` it before anything is timed.

    On the CPU: the most resident memory (``VmHWM``, which Linux can set back) above the resident memory at the start.
    For that, allocations above 128 kB go back to the system when freed: kept ones would be used again unseen, and
    fragments of them would count. On CUDA: ``max_memory_allocated`` in the same way.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        gc.collect()
        if device == "cpu":
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
            libc.malloc_trim(0)
            self._base = _status_bytes("VmRSS")
        else:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            self._base = torch.cuda.memory_allocated()
        self.restart()

    def restart(self) -> None:
        """The peak is from now on; what it is counted above stays."""
        if self._device == "cpu":
            Path("/proc/self/clear_refs").write_text("5")
        else:
            torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        peak = _status_bytes("VmHWM") if self._device == "cpu" else torch.cuda.max_memory_allocated()
        return max(0, peak - self._base)

    def close(self) -> None:
        """Allocation as it is in a process that has run for a while: glibc raises both limits this far by itself."""
        if self._device == "cpu":
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _status_bytes(field: str, pid: int | str = "self") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {field}: memory can be metered on Linux only")


@dataclass(frozen=True)
class Outcome:
    """How a row ended: ``kind`` is "ok", "time", "memory" or "failed"; ``value`` what it gave, ``detail`` why not."""

    kind: str
    value: Any = None
    detail: str = ""


Signal = Callable[[], None]


def run_apart(
    function: Callable[[Any, Signal], Any],
    argument: Any,
    *,
    threads: int,
    limit_seconds: float,
    limit_bytes: int,
    preload: Sequence[str] = (),
) -> Outcome:
    """``function(argument, signal)`` in a process of its own with so many torch threads.

    The process is ended when it neither called ``signal`` nor finished for ``limit_seconds``, or when its resident
    memory is over ``limit_bytes``. The function and its argument must be importable and picklable. ``preload``: further
    modules that are loaded once for all calls, and must not compute when loaded.
    """
    context = multiprocessing.get_context("forkserver")
    # A server that has torch loaded and has not computed yet: a new process takes milliseconds and starts clean. (Any
    # optimizer loads torch._dynamo, for a second.)
    context.set_forkserver_preload(["torch", "torch._dynamo", *preload])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, function, argument, threads), daemon=True)
    process.start()
    there.close()
    assert process.pid is not None
    deadline = time.monotonic() + limit_seconds + 30  # loading modules does not count
    outcome = None
    try:
        while outcome is None:
            if here.poll(_POLL_SECONDS):
                try:
                    kind, value = here.recv()
                except EOFError:
                    process.join()
                    outcome = Outcome("failed", detail=f"the process ended with code {process.exitcode}")
                    break
                if kind == "signal":
                    deadline = time.monotonic() + limit_seconds
                else:
                    outcome = Outcome(kind, value) if kind == "ok" else Outcome(kind, detail=value)
            elif time.monotonic() > deadline:
                outcome = Outcome("time", detail=f"over {limit_seconds:g} s")
            elif _resident(process.pid) > limit_bytes:
                outcome = Outcome("memory", detail=f"over {limit_bytes / 1e9:.1f} GB")
    finally:
        if outcome is None or outcome.kind in ("time", "memory"):
            process.kill()
        process.join()
        here.close()
    return outcome


def _resident(pid: int) -> int:
    try:
        return _status_bytes("VmRSS", pid)
    except (FileNotFoundError, ProcessLookupError, RuntimeError):
        return 0  # it has just ended: the pipe tells how


def _child(connection: Connection, function: Callable[[Any, Signal], Any], argument: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        value = function(argument, lambda: connection.send(("signal", None)))
    except (MemoryError, torch.OutOfMemoryError) as error:
        connection.send(("memory", str(error).split("\n")[0]))
    except BrokenPipeError:  # the benchmark was ended: no one listens, and nothing is to be said
        return
    except Exception as error:  # noqa: BLE001 - the boundary of a row: it is recorded, the other rows go on
        if "allocate memory" in str(error):  # what torch raises where the system refuses
            connection.send(("memory", "the system refused the allocation"))
        else:
            traceback.print_exc(file=sys.stderr)
            connection.send(("failed", f"{type(error).__name__}: {error}"))
    else:
        connection.send(("ok", value))
    connection.close()
