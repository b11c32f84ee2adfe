"""Runs a generator in a child process that can be killed: native decoders crash and hang, and must cost one file only.

The parent side is :class:`Isolated`. The child is a plain Python that imports this module, started once and used for
many calls; it never imports the parent's ``__main__``. Both talk over a socket pair: the parent sends a call, the child
answers with items, beats and an end. The socket's buffer is the only queue, so a slow consumer makes the child wait and
memory stays bounded; waiting for the consumer is never taken for a hang.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pipeline.errors import DecoderCrashed, DecoderHung
from pipeline.wire import receive, send

__all__ = ["Isolated", "NativeNoise", "RemoteTraceback", "beat", "is_isolated", "native_noise", "python_command"]

_BEAT_SECONDS = 0.5
_START_SECONDS = 120.0  # for the interpreter and the imports of the target's module
_DRAIN_SECONDS = 2.0
_NOISE_BYTES = 1 << 20
_LAST_LINES = 4


class RemoteTraceback(Exception):
    """The traceback, as text, of an exception that was raised in the child; it is that exception's ``__cause__``."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


# -- what code in the child may call --------------------------------------------------------------------------------


class NativeNoise:
    """What native libraries printed to the child's standard error, read as it grows."""

    def __init__(self) -> None:
        self._offset = os.fstat(2).st_size

    def read_new(self) -> bytes:
        """What was printed since the last call, at most 64 KiB."""
        size = os.fstat(2).st_size
        if size < self._offset:
            self._offset = 0  # it was cut back
        if size == self._offset:
            return b""
        text = os.pread(2, min(size - self._offset, 1 << 16), self._offset)
        self._offset = size
        return text


class _ParentGone(Exception):
    """Nobody listens any more: the child ends."""


class _Child:
    """The child's end of the socket."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._last_sent = 0.0

    def send(self, kind: str, value: object = None) -> None:
        with self._lock:
            try:
                send(self.connection, kind, value)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise _ParentGone from error
            self._last_sent = time.monotonic()

    def beat(self) -> None:
        if time.monotonic() - self._last_sent > _BEAT_SECONDS:
            self.send("beat")
            if os.fstat(2).st_size > _NOISE_BYTES:
                os.ftruncate(2, 0)


_child: _Child | None = None


def beat() -> None:
    """Say that work goes on although no item came out yet. Cheap; does nothing outside an isolated child."""
    if _child is not None:
        _child.beat()


def is_isolated() -> bool:
    """Whether this process is an isolated child."""
    return _child is not None


def native_noise() -> NativeNoise | None:
    """A reader of what native libraries print from now on; None outside an isolated child."""
    return NativeNoise() if _child is not None else None


# -- the parent --------------------------------------------------------------------------------------------------------

# Linux kills a child that asked for it when the *thread* that started it ends. All children are therefore started from
# one thread that lives as long as the process.
_spawner_lock = threading.Lock()
_spawner: ThreadPoolExecutor | None = None


def python_command(call: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a Python process that makes the call ``call`` ("module:function()") of ours.

    It finds the very packages that this process runs. ``python -m`` would look into the working folder first, where
    anything of the same name may lie.
    """
    module, _, expression = call.partition(":")
    # "-c" puts an empty path first, unless PYTHONSAFEPATH is set: not to be popped blindly.
    code = f"import sys; sys.path[:] = filter(None, sys.path); import {module}; "
    root = str(Path(__file__).resolve().parents[1])
    paths = [path for path in sys.path if path]
    if root not in paths:  # imported from the working folder, or by a finder
        paths.insert(0, root)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return [sys.executable, "-c", f"{code}sys.exit({module}.{expression})", *arguments], environment


def _spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    global _spawner
    with _spawner_lock:
        if _spawner is None:
            _spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="isolation-spawner")
        return _spawner.submit(lambda: subprocess.Popen(command, **options)).result()


class _Process:
    """One running child."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._noise: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed in end)
        # Appending, so that cutting it back leaves no hole before the next line.
        fcntl.fcntl(self._noise, fcntl.F_SETFL, fcntl.fcntl(self._noise, fcntl.F_GETFL) | os.O_APPEND)
        command, environment = python_command(
            "pipeline.isolation:_child_main()", str(theirs.fileno()), str(os.getpid())
        )
        with theirs:
            self.process = _spawn(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._noise,
                stderr=self._noise,
                env=environment,
            )
        self.connection: Connection[Any, Any] = Connection(ours.detach())

    def last_words(self) -> str:
        size = os.fstat(self._noise.fileno()).st_size
        text = os.pread(self._noise.fileno(), 4096, max(0, size - 4096)).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-_LAST_LINES:])

    def end(self, kill: bool) -> None:
        with contextlib.suppress(OSError):
            self.connection.close()  # the child ends by itself when it waits for a call
        if kill:
            self.process.kill()
        try:
            self.process.wait(timeout=_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._noise.close()


class Isolated:
    """A child process that runs generator functions, one at a time.

    The child starts with the first call and serves many; after a crash or a hang the next call starts another.
    A context manager. Not to be used by two threads at once.
    """

    def __init__(self) -> None:
        self._process: _Process | None = None
        self._busy = False

    @property
    def pid(self) -> int | None:
        """The child's process id; None when none runs."""
        return self._process.process.pid if self._process is not None else None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child. May be called more than once; a later call to ``stream`` starts another child."""
        self._drop(kill=self._busy)

    def _drop(self, kill: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(kill)

    def stream(self, target: str, *args: Any, stall_seconds: float = 60.0, label: str = "") -> Iterator[Any]:
        """Items of the generator function ``target`` ("module:function"), called in the child with ``args``.

        Arguments and items must be picklable; arrays travel without being copied into the pickle. Closing the iterator
        early closes the generator in the child.

        Args:
            stall_seconds: with neither an item nor a beat for so long, the child counts as hung and is killed. Time in
                which the consumer does not ask does not count.
            label: names the work in messages, such as the (redacted) URI.

        Raises:
            DecoderHung: see ``stall_seconds``.
            DecoderCrashed: the child died; the message names the signal and what it printed last.
            RuntimeError: another stream of this object is still open.
            Exception: what the function raised, with a ``RemoteTraceback`` as its cause.
        """
        if self._busy:
            raise RuntimeError("this Isolated already runs a stream; close that one first, or use another Isolated")
        self._busy = True
        finished = False
        try:
            process = self._call(target, args, label)
            while True:
                kind, value = self._next(process, stall_seconds, label)
                if kind == "item":
                    yield value
                elif kind == "end":
                    finished = True
                    return
                elif kind == "error":
                    finished = True
                    error, text = value
                    raise error from RemoteTraceback(text)
        except GeneratorExit:
            finished = self._cancel()
            raise
        finally:
            self._busy = False
            if not finished:
                self._drop(kill=True)

    def _call(self, target: str, args: tuple[Any, ...], label: str) -> _Process:
        """Send the call to a living child, starting one if there is none."""
        if self._process is not None and self._process.process.poll() is not None:
            self._drop(kill=False)  # it died while it had nothing to do
        for attempt in (1, 2):
            fresh = self._process is None
            if self._process is None:
                self._process = _Process()
            process = self._process
            try:
                if fresh:
                    self._expect("ready", process, label)
                send(process.connection, "call", (target, args))
                self._expect("started", process, label)
            except (BrokenPipeError, ConnectionResetError, DecoderCrashed):
                if fresh or attempt == 2:
                    raise
                self._drop(kill=True)
                continue
            return process
        raise AssertionError("unreachable")

    def _expect(self, wanted: str, process: _Process, label: str) -> None:
        kind, value = self._next(process, _START_SECONDS, label)
        while kind == "beat":
            kind, value = self._next(process, _START_SECONDS, label)
        if kind == "error":
            raise value[0] from RemoteTraceback(value[1])
        if kind != wanted:
            raise DecoderCrashed(f"{label}: the decoding process answered {kind!r}, {wanted!r} was expected")

    def _next(self, process: _Process, stall_seconds: float, label: str) -> tuple[str, Any]:
        try:
            if not process.connection.poll(stall_seconds):
                raise DecoderHung(
                    f"{label}: no frame for {stall_seconds:g} s; the decoding process was killed" + _said(process)
                )
            return receive(process.connection)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            pass
        try:
            code = process.process.wait(timeout=_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        raise DecoderCrashed(f"{label}: the decoding process {_how_it_died(code)}{_said(process)}")

    def _cancel(self) -> bool:
        """Ask the child to stop and take what is still on its way. False when it does not answer soon."""
        process = self._process
        if process is None:
            return False
        deadline = time.monotonic() + _DRAIN_SECONDS
        try:
            send(process.connection, "cancel", None)
            while process.connection.poll(max(0.0, deadline - time.monotonic())):
                kind, _ = receive(process.connection)
                if kind in ("end", "error"):
                    return True
        except (OSError, EOFError):
            pass
        return False


def _said(process: _Process) -> str:
    words = process.last_words()
    return f"; it printed last: {words}" if words else ""


def _how_it_died(code: int | None) -> str:
    if code is None:
        return "closed its end and does not end"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    meaning = {
        "SIGSEGV": "segmentation fault",
        "SIGKILL": "killed from outside, out of memory perhaps",
        "SIGABRT": "it aborted itself",
        "SIGBUS": "bus error",
        "SIGILL": "illegal instruction",
    }.get(name)
    return f"died of {name}" + (f" ({meaning})" if meaning else "")


# -- the child ---------------------------------------------------------------------------------------------------------


def _die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; elsewhere the closed socket has to do."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it ended before we could ask
        os._exit(0)


def _portable(error: BaseException) -> BaseException:
    """The exception itself when it survives pickling, else one that says the same."""
    try:
        again = pickle.loads(pickle.dumps(error, protocol=5))
    except Exception:  # noqa: BLE001 (an exception's own reduce may raise anything)
        again = None
    if type(again) is type(error) and str(again) == str(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _serve_call(child: _Child, target: str, args: tuple[Any, ...]) -> None:
    try:
        module, _, name = target.partition(":")
        function = getattr(importlib.import_module(module), name)
        child.send("started")
        items = function(*args)
        try:
            for item in items:
                child.send("item", item)
                if child.connection.poll(0):
                    break  # cancelled: nothing else comes while a call runs
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
    except _ParentGone:
        raise
    except BaseException as error:  # noqa: BLE001 (it goes on to the parent, whatever it is)
        text = re.sub(r"\s+\Z", "", traceback.format_exc())
        child.send("error", (_portable(error), text))
    else:
        child.send("end")


def _child_main() -> None:
    global _child
    import resource

    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _child = _Child(Connection(fd))
    _child.send("ready")
    while True:
        try:
            kind, value = receive(_child.connection)
        except (EOFError, ConnectionResetError):
            return
        if kind == "call":
            os.ftruncate(2, 0)
            try:
                _serve_call(_child, *value)
            except _ParentGone:
                return
