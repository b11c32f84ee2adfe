"""Bytes that PyAV reads through us, because FFmpeg's own reading of them could not be interrupted or ends too early:
pipes, and files that are still being written.
"""

from __future__ import annotations

import os
import select
import threading
import time
from abc import ABC, abstractmethod

from pipeline.errors import LongreelError, SourceUnreadable, StreamEnded, StreamTimeout
from pipeline.sources.live.interrupt import Interrupt

__all__ = ["Feed", "PipeFeed", "TailFeed"]

_POLL_SECONDS = 0.1


class Feed(ABC):
    """A file object that PyAV reads from. ``error`` is why it gives no more, raised or not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: LongreelError | None = None

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, as soon as there are some; none at the end."""
        try:
            return self._read(size)
        except LongreelError as error:
            self.error = error
            raise

    @abstractmethod
    def _read(self, size: int) -> bytes: ...

    @abstractmethod
    def close(self) -> None: ...


class PipeFeed(Feed):
    """Reads a pipe, or whatever standard input is.

    Args:
        owned: close ``fd`` with it.
    """

    def __init__(self, fd: int, read_seconds: float, interrupt: Interrupt, *, name: str = "-", owned: bool = False):
        super().__init__(name)
        self._fd, self._owned = fd, owned
        self._read_seconds = read_seconds
        self._interrupt = interrupt
        self._wake, waker = os.pipe()
        self._wakers = [waker]
        self._lock = threading.Lock()
        interrupt.on_set(self._wake_up)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    @classmethod
    def named(cls, path: str, read_seconds: float, interrupt: Interrupt) -> PipeFeed:
        """A named pipe; it is not waited for that somebody writes to it."""
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_NONBLOCK), read_seconds, interrupt, name=path, owned=True)
        except OSError as error:
            raise SourceUnreadable(f"{path}: {error.strerror}") from error

    def _wake_up(self) -> None:
        # Closing the writing end makes the other one readable.
        with self._lock:  # who closes it and who interrupts it may come at once
            wakers, self._wakers = self._wakers, []
        for waker in wakers:
            os.close(waker)

    def _read(self, size: int) -> bytes:
        end = time.monotonic() + self._read_seconds
        while True:
            found = dict(self._poll.poll(max(0.0, end - time.monotonic()) * 1000))
            if self._interrupt.is_set() or self._wake in found:
                raise StreamEnded(f"{self.name}: stopped")
            if self._fd in found:
                try:
                    got = os.read(self._fd, size)
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise SourceUnreadable(f"{self.name}: {error.strerror}") from error
                return got
            if time.monotonic() >= end:
                raise StreamTimeout(f"{self.name}: nothing came for {self._read_seconds:g} s")

    def close(self) -> None:
        self._interrupt.forget(self._wake_up)
        self._wake_up()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1
            if self._owned:
                os.close(self._fd)


class TailFeed(Feed):
    """Reads a file that grows, until it has not grown for ``idle_seconds``: then it is complete.

    It also ends where it was replaced by another, or cut, with that for an error: whoever opens it again reads the new
    one.
    """

    def __init__(self, path: str, idle_seconds: float, interrupt: Interrupt) -> None:
        super().__init__(path)
        self._idle_seconds = idle_seconds
        self._interrupt = interrupt
        self._fd = os.open(path, os.O_RDONLY)
        self._position = 0
        self._complete = False

    def _read(self, size: int) -> bytes:
        began = time.monotonic()
        while not self._complete:
            if self._interrupt.is_set():
                raise StreamEnded(f"{self.name}: stopped")
            got = os.read(self._fd, size)
            if not got:
                self._check_the_same()
                if self.error is not None:
                    got = os.read(self._fd, size)  # written before another file took its place
            if got:
                self._position += len(got)
                self.error = None  # it is told again after that
                return got
            self._complete = self.error is not None or time.monotonic() - began >= self._idle_seconds
            self._interrupt.wait(0.0 if self._complete else _POLL_SECONDS)
        return b""  # also when FFmpeg asks again, as it does at an end

    def _check_the_same(self) -> None:
        ours = os.fstat(self._fd)
        try:
            there = os.stat(self.name)
        except OSError:
            return  # deleted or moved away while it is read to its end
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            self.error = StreamEnded(f"{self.name}: another file has taken its place")
        elif ours.st_size < self._position:
            self.error = StreamEnded(f"{self.name}: the file was cut short")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
