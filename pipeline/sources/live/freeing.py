"""Gives back the memory of connections that are over."""

from __future__ import annotations

import gc
import threading
import time

__all__ = ["free_decoders"]

_SECONDS = 5.0  # at least, between two times: it holds up every thread of the process for a moment

_lock = threading.Lock()
_last = float("-inf")


def free_decoders() -> None:
    """Free decoders that nobody uses any more.

    PyAV's containers and streams hold each other, so a closed one's decoder, with pictures of a hundred megabytes and
    its threads, stays until Python looks for such rings. It looks by their number, not by their weight: a camera that
    comes and goes would fill the memory first.
    """
    global _last
    now = time.monotonic()
    with _lock:
        if now - _last < _SECONDS:
            return
        _last = now
    gc.collect()
