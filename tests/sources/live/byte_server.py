"""A server that sends exactly what a test wants."""

from __future__ import annotations

import contextlib
import socket
import threading

__all__ = ["ByteServer"]


class ByteServer:
    """A TCP server that says exactly what a test wants, one answer for each connection in turn, the last one for ever.

    An answer is a list of bytes to send and of seconds to wait. After the last one the connection is closed, unless
    that is ``None``: then it stays open and silent.

    Args:
        http: each answer begins with the head of an HTTP answer of no stated length.
    """

    def __init__(self, *answers: list[bytes | float | None], http: bool = True, scheme: str = "http") -> None:
        self._answers = list(answers)
        self._http, self._scheme = http, scheme
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._stop = threading.Event()
        self.connections = 0

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._socket.getsockname()[1]}/live.ts"

    def __enter__(self) -> ByteServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._socket.close()
        for one in self._open:
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            answer = self._answers[min(self.connections, len(self._answers) - 1)]
            self.connections += 1
            self._open.append(client)
            threading.Thread(target=self._answer, args=(client, answer), daemon=True).start()

    def _answer(self, client: socket.socket, answer: list[bytes | float | None]) -> None:
        with contextlib.suppress(OSError):
            if self._http:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
            for piece in answer:
                if piece is None:
                    self._stop.wait(60)
                elif isinstance(piece, bytes):
                    client.sendall(piece)
                else:
                    self._stop.wait(piece)
            client.close()
