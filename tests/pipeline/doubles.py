"""Generators that behave badly on purpose, run in an isolated child by the tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.errors import NotAVideo
from pipeline.isolation import beat, native_noise


def count(n: int) -> Iterator[int]:
    yield from range(n)


def pictures(n: int, side: int) -> Iterator[npt.NDArray[np.uint8]]:
    for i in range(n):
        yield np.full((side, side, 3), i % 251, dtype=np.uint8)


def pid() -> Iterator[int]:
    yield os.getpid()


def segfault_after(n: int) -> Iterator[int]:
    import ctypes

    yield from range(n)
    os.write(2, b"[h264 @ 0x1] the last thing it said\n")
    ctypes.string_at(0)


def hang_after(n: int) -> Iterator[int]:
    yield from range(n)
    time.sleep(3600)


def stubborn(n: int) -> Iterator[int]:
    """Ignores what it can ignore, and sleeps when it is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield from range(n)
    finally:
        time.sleep(3600)


def slow_with_beats(seconds: float) -> Iterator[str]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
        beat()
    yield "done"


def raises(kind: str) -> Iterator[int]:
    yield 1
    if kind == "ours":
        raise NotAVideo("x.mp4: no video")
    if kind == "builtin":
        raise ZeroDivisionError("nothing to divide by")

    class Local(Exception):
        pass

    raise Local("cannot be pickled")


def exits() -> Iterator[int]:
    yield 1
    os._exit(7)


def noisy(lines: int) -> Iterator[bytes]:
    noise = native_noise()
    assert noise is not None
    print("to standard output")
    sys.stdout.flush()
    for i in range(lines):
        os.write(2, b"noise %d\n" % i)
    yield noise.read_new()


def touch_when_closed(path: str) -> Iterator[int]:
    try:
        i = 0
        while True:
            yield i
            i += 1
    finally:
        with open(path, "w") as file:
            file.write("closed")


def slips(*_: object) -> Iterator[int]:
    yield from ()
    raise PermissionError("not foreseen")
