"""Ending a blocked read of FFmpeg at once, from another thread.

FFmpeg asks a callback several times a second whether it should give up, while it waits for a network. PyAV's callback
compares ``time.monotonic()`` with a timeout and offers no way to say "now". So PyAV is given a clock of ours, which is
the usual one, but far ahead of its time in threads that are to end. PyAV looks it up by name from release 17 on; should
one not do so any more, the timeouts still hold, and the contract suite of live sources fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["Interrupt"]

_ended: set[int] = set()  # threads that are to end, by their ident


class _Clock:
    """The module ``time`` as PyAV sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def monotonic() -> float:
        now = time.monotonic()
        # It goes on a million times as fast, too: a read that begins only now ends at once as well.
        return now * 1e6 if threading.get_ident() in _ended else now


class Interrupt:
    """Ends whatever one thread waits for: FFmpeg's network, or what was registered with :meth:`on_set`.

    The thread enters it (``with interrupt:``); anyone may call :meth:`set`, also before. Of one use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._thread: int | None = None
        self._calls: list[Callable[[], None]] = []

    def __enter__(self) -> Interrupt:
        import av.container.core as core

        module = vars(core)
        if not isinstance(module["time"], _Clock):
            module["time"] = _Clock()
        with self._lock:
            self._thread = threading.get_ident()
            if self._event.is_set():
                _ended.add(self._thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._thread is not None:
                _ended.discard(self._thread)
            self._thread = None

    def is_set(self) -> bool:
        """Whether everything under it is to end."""
        return self._event.is_set()

    def set(self) -> None:
        """Whoever waits under this interrupt stops waiting."""
        with self._lock:
            self._event.set()
            if self._thread is not None:
                _ended.add(self._thread)
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def wait(self, seconds: float) -> bool:
        """Sleep; True, and at once, when it was set."""
        return self._event.wait(max(0.0, seconds))

    def on_set(self, call: Callable[[], None]) -> None:
        """``call`` is called when it is set, at once where it is already."""
        with self._lock:
            if not self._event.is_set():
                self._calls.append(call)
                return
        call()

    def forget(self, call: Callable[[], None]) -> None:
        """``call`` need not be called any more: what it would have ended is over."""
        with self._lock:
            self._calls = [other for other in self._calls if other != call]
