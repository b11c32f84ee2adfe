"""A small real server that speaks OpenAI's chat completions, and that can be told to misbehave.

It looks at the pictures it is sent and says how many there are and how bright, so that its answers depend on what was
asked, and on nothing else.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

__all__ = ["Handler", "VlmServer", "answer_with", "completion", "say", "serving", "status"]

Fault = Callable[["Handler"], None]


class VlmServer:
    """``faults`` are taken one a request, first come first served; with none left it answers as it should.

    Attributes:
        requests: bodies as they came; headers: of each.
        key: what must be sent; empty: nothing.
        most_at_once: requests that were being answered at one time.
        pause_seconds: before each good answer.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: deque[Fault] = deque()
        self.key = ""
        self.pause_seconds = 0.0
        self.now = self.most_at_once = 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.vlm = self  # type: ignore[attr-defined]
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def name(self, model: str = "seer:7b") -> str:
        return f"vlm:{model}@{self.url}"

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def serving() -> Iterator[VlmServer]:
    server = VlmServer()
    try:
        yield server
    finally:
        server.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def vlm(self) -> VlmServer:
        return self.server.vlm  # type: ignore[attr-defined,no-any-return]

    def do_POST(self) -> None:
        vlm = self.vlm
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with vlm.lock:
            vlm.requests.append(body)
            vlm.headers.append(dict(self.headers))
            fault = vlm.faults.popleft() if vlm.faults else None
            vlm.now += 1
            vlm.most_at_once = max(vlm.most_at_once, vlm.now)
        try:
            if self.path != "/v1/chat/completions":
                status(404, {"error": {"message": f"no such path: {self.path}"}})(self)
            elif vlm.key and self.headers["Authorization"] != f"Bearer {vlm.key}":
                sent = self.headers["Authorization"]  # a careless server repeats what it was sent
                status(401, {"error": {"message": f"incorrect key: {sent}", "code": "invalid_api_key"}})(self)
            elif fault is not None:
                fault(self)
            else:
                time.sleep(vlm.pause_seconds)
                self.send(200, completion(said(body)))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with vlm.lock:
                vlm.now -= 1

    def send(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a key nor a proxy of whoever runs the tests has a say."""
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def completion(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as the protocol has it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
    }


def pictures_of(body: dict[str, Any]) -> list[np.ndarray]:
    """The pictures in a request."""
    found = []
    for part in body["messages"][-1]["content"]:
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/jpeg;base64"
            found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    return found


def said(body: dict[str, Any]) -> str:
    pictures = pictures_of(body)
    level = round(float(np.mean([picture.mean() for picture in pictures])))
    text = f"{len(pictures)} pictures, level {level} ."
    return json.dumps({"caption": text}) if "response_format" in body else text


# -- what can go wrong -------------------------------------------------------------------------------------------------


def status(code: int, content: Any = None, **headers: str) -> Fault:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler: handler.send(
        code, {"error": {"message": "of no avail"}} if content is None else content, named
    )


def answer_with(content: Any, **headers: str) -> Fault:
    """An answer with status 200."""
    return status(200, content, **headers)


def say(text: str | None, finish: str = "stop", **message: Any) -> Fault:
    return answer_with(completion(text, finish, **message))


def hang(handler: Handler) -> None:
    """Takes the request and says nothing."""
    handler.vlm.over.wait(20)
    handler.close_connection = True


def drip(handler: Handler) -> None:
    """Now and then a byte, so that no single read takes long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.vlm.over.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def hang_up(handler: Handler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_short(handler: Handler) -> None:
    """Half of an answer, then the end of the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def speak_otherwise(handler: Handler) -> None:
    """Something that is not HTTP."""
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


def flood(handler: Handler) -> None:
    """An answer without an end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while not handler.vlm.over.is_set():
        handler.wfile.write(b" " * 65536)
