"""A small HTTP server that behaves well or badly by path, for tests."""

from __future__ import annotations

import base64
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit


class MediaServer:
    """Serves ``content`` at /ok/...; other first parts of a path misbehave. ``hits`` counts GETs by path."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.etag = '"1"'
        self.hits: Counter[str] = Counter()
        self.stop = threading.Event()
        owner = self

        class Handler(_Handler):
            server_owner = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.port}{path}"

    def __enter__(self) -> MediaServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_owner: MediaServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        owner = self.server_owner
        path = urlsplit(self.path).path
        owner.hits[path] += 1
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        owner = self.server_owner
        parts = urlsplit(self.path)
        kind = parts.path.split("/")[1]
        content = owner.content
        if kind == "missing":
            return self._status(404)
        if kind == "refused":
            return self._status(403)
        if kind == "broken":
            return self._status(500)
        if kind == "signed" and parse_qs(parts.query).get("X-Amz-Signature") != ["a+b/c="]:
            return self._status(403)
        if kind == "login":
            wanted = "Basic " + base64.b64encode(b"user:pass word").decode()
            if self.headers.get("Authorization") != wanted:
                return self._status(401)
        if kind == "silent":
            owner.stop.wait(30)
            self.close_connection = True
            return None
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        if kind not in ("unsized", "bare"):
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        if kind not in ("nofacts", "bare"):
            self.send_header("ETag", owner.etag)
        self.end_headers()
        if not body:
            return None
        if kind == "stalls":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            owner.stop.wait(30)
            self.close_connection = True
        elif kind == "short" or (kind == "flaky" and owner.hits[parts.path] == 1):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif kind == "slow":
            for start in range(0, len(content), 1 + len(content) // 10):
                self.wfile.write(content[start : start + 1 + len(content) // 10])
                time.sleep(0.03)
        else:
            self.wfile.write(content)
        return None

    def _status(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()
