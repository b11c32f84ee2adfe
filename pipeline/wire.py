"""Messages between a process and its isolated child.

A message is a pickle, with the buffers of its arrays beside it, so that pictures are not copied into the pickle.
"""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["receive", "send"]


def send(connection: Connection[Any, Any], kind: str, value: object) -> None:
    """Send a message; blocks while the other side is behind."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps((kind, [len(view) for view in views], body), protocol=5))
    for view in views:
        if len(view):
            connection.send_bytes(view)


def receive(connection: Connection[Any, Any]) -> tuple[str, Any]:
    """The next message; blocks until it is whole.

    Raises:
        EOFError: the other side has closed.
    """
    kind, sizes, body = pickle.loads(connection.recv_bytes())
    buffers = []
    for size in sizes:
        buffer = bytearray(size)
        if size:
            connection.recv_bytes_into(buffer)
        buffers.append(buffer)
    return kind, pickle.loads(body, buffers=buffers)
