"""The queue between a stream's reader and whoever looks at its frames: bounded, with a policy for when it is full."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

from pipeline.media import Frame

__all__ = ["FrameQueue"]

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """Frames and other messages in order. Only frames are bounded, and only frames are dropped.

    Args:
        policy: "drop-oldest", "drop-newest" or "wait".
        capacity: frames that wait, at most.
    """

    def __init__(self, policy: str, capacity: int) -> None:
        self.policy, self.capacity = policy, capacity
        self.dropped = 0
        self._items: deque[T | Frame] = deque()
        self._frames = 0
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T | Frame) -> bool:
        """Add at the end, by the policy. False where it was not added: it was dropped, or nobody reads any more."""
        with self._changed:
            if self._closed:
                return False
            if isinstance(item, Frame):
                if self._frames >= self.capacity and self.policy == "wait":
                    while self._frames >= self.capacity and not self._is_closed():
                        self._changed.wait()
                    if self._is_closed():
                        return False
                elif self._frames >= self.capacity and self.policy == "drop-newest":
                    self.dropped += 1
                    return False
                while self._frames >= self.capacity:  # more than one where the capacity fell
                    self.dropped += 1
                    self._drop_oldest()
                self._frames += 1
            self._items.append(item)
            self._changed.notify_all()
            return True

    def _is_closed(self) -> bool:
        return self._closed  # it may have changed while somebody waited

    def _drop_oldest(self) -> None:
        for index, item in enumerate(self._items):
            if isinstance(item, Frame):
                del self._items[index]
                self._frames -= 1
                return

    def get(self, seconds: float) -> T | Frame | None:
        """The oldest item, waiting at most so long; None where nothing came."""
        end = time.monotonic() + seconds
        with self._changed:
            while not self._items:
                left = end - time.monotonic()
                if left <= 0 or self._closed:
                    return None
                self._changed.wait(left)
            item = self._items.popleft()
            if isinstance(item, Frame):
                self._frames -= 1
                self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nothing more is taken in, and nobody waits; what is there can still be had."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)
