"""SRT through Haivision's library, loaded when it is first needed: PyAV's own build of FFmpeg speaks no SRT.

What an address may say after ``?``: ``mode`` (caller or listener), ``passphrase``, ``pbkeylen`` (0, 16, 24 or 32
bytes), ``streamid`` and ``latency`` (milliseconds).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import struct
import threading
import time
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipeline.errors import (
    ExtraMissing,
    OptionError,
    SourceError,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamTimeout,
    StreamUnauthorised,
)
from pipeline.sources.live.feeds import Feed
from pipeline.sources.live.interrupt import Interrupt
from pipeline.sources.live.kinds import shown

__all__ = ["SrtFeed"]

_LIBRARIES = ("srt-gnutls", "srt-openssl", "srt")
_MESSAGE_BYTES = 1456 * 2
_POLL_MS = 100
_CONNECT_POLL_SECONDS = 0.01
_LOG_CRITICAL = 2

# From srt.h: names of options, errors and reasons of rejection.
_LATENCY, _PASSPHRASE, _PBKEYLEN, _CONNTIMEO, _STREAMID, _RCVTIMEO, _RCVSYN = 23, 26, 27, 36, 46, 14, 2
_STATE_CONNECTED = 5  # those below are on the way there, those above are over
_TIMED_OUT, _NOTHING_YET, _NO_SERVER = 6003, 6002, 1001
_BAD_SECRET, _UNSECURE, _REASON_TIMEOUT = 10, 11, 16
_UNAUTHORISED, _NOT_FOUND = frozenset({_BAD_SECRET, _UNSECURE, 1401, 1403}), frozenset({1404})
_OPTIONS = {"passphrase": _PASSPHRASE, "pbkeylen": _PBKEYLEN, "streamid": _STREAMID, "latency": _LATENCY}


@cache
def _library() -> Any:
    """The loaded library.

    Raises:
        ExtraMissing: there is none.
    """
    for name in _LIBRARIES:
        where = ctypes.util.find_library(name)
        if where is not None:
            library = ctypes.CDLL(where)
            library.srt_getlasterror_str.restype = ctypes.c_char_p
            library.srt_rejectreason_str.restype = ctypes.c_char_p
            library.srt_startup()
            library.srt_setloglevel(_LOG_CRITICAL)  # it writes to the terminal
            return library
    raise ExtraMissing(
        "srt:// needs the SRT library of the system, and there is none; Debian and Ubuntu have it as "
        "libsrt1.5-gnutls, and their ffmpeg brings it along"
    )


class SrtFeed(Feed):
    """The bytes of one SRT connection.

    Raises:
        OptionError: the address asks for something that is not known.
        ExtraMissing: no SRT library.
    """

    def __init__(self, url: str, open_seconds: float, read_seconds: float, interrupt: Interrupt) -> None:
        super().__init__(shown(url))
        self._open_seconds, self._read_seconds = open_seconds, read_seconds
        self._interrupt = interrupt
        self._host, self._port, self._listens, self._settings = _parsed(url)
        self._srt = _library()
        self._lock = threading.Lock()
        self._sockets: list[int] = []
        self._socket: int | None = None
        interrupt.on_set(self.close)

    def _read(self, size: int) -> bytes:
        """Connects with the first read, so that whoever may be interrupted is inside."""
        if self._socket is None:
            self._socket = self._accepted() if self._listens else self._connected()
        buffer = ctypes.create_string_buffer(max(size, _MESSAGE_BYTES))
        end = time.monotonic() + self._read_seconds
        while True:
            got = int(self._srt.srt_recvmsg(self._socket, buffer, len(buffer)))
            if got > 0:
                return buffer.raw[:got]
            if self._interrupt.is_set():
                raise StreamEnded(f"{self.name}: stopped")
            if got == 0:
                return b""
            code, words = self._last_error()
            if code not in (_TIMED_OUT, _NOTHING_YET):
                raise StreamEnded(f"{self.name}: broke off ({words})")
            if time.monotonic() >= end:
                raise StreamTimeout(f"{self.name}: nothing came for {self._read_seconds:g} s")

    def _made(self) -> int:
        made = int(self._srt.srt_create_socket())
        with self._lock:
            self._sockets.append(made)
        if self._interrupt.is_set():  # perhaps before there was a socket to close
            raise StreamEnded(f"{self.name}: stopped")
        self._set(made, _RCVTIMEO, _POLL_MS)
        self._set(made, _CONNTIMEO, int(self._open_seconds * 1000))
        for name, value in self._settings.items():
            self._set(made, _OPTIONS[name], value)
        return made

    def _set(self, made: int, option: int, value: int | str) -> None:
        raw = struct.pack("i", value) if isinstance(value, int) else value.encode()
        if self._srt.srt_setsockflag(made, option, raw, len(raw)) < 0:
            name = next((n for n, o in _OPTIONS.items() if o == option), str(option))
            raise OptionError(f"{self.name}: SRT does not take this {name} ({self._last_error()[1]})")

    def _connected(self) -> int:
        """Call the server. Nothing interrupts SRT's own waiting for it, and it holds up who closes the socket."""
        made = self._made()
        where = self._address()
        self._set(made, _RCVSYN, 0)
        if self._srt.srt_connect(made, where, len(where)) < 0:
            raise self._not_connected(made)
        end = time.monotonic() + self._open_seconds
        while (state := int(self._srt.srt_getsockstate(made))) < _STATE_CONNECTED:
            if self._interrupt.wait(_CONNECT_POLL_SECONDS):
                raise StreamEnded(f"{self.name}: stopped")
            if time.monotonic() >= end:
                raise StreamTimeout(f"{self.name}: no answer within {self._open_seconds:g} s")
        if state != _STATE_CONNECTED:
            raise self._not_connected(made)
        self._set(made, _RCVSYN, 1)
        return made

    def _not_connected(self, made: int) -> SourceError:
        if self._interrupt.is_set():
            return StreamEnded(f"{self.name}: stopped")
        code, words = self._last_error()
        reason = int(self._srt.srt_getrejectreason(made))
        if reason:
            words = (self._srt.srt_rejectreason_str(reason) or b"").decode(errors="replace")
        if reason in _UNAUTHORISED:
            return StreamUnauthorised(f"{self.name}: the server wants a passphrase, and not this one")
        if reason in _NOT_FOUND:
            return StreamNotFound(f"{self.name}: the server has no such stream")
        if code == _NO_SERVER or reason == _REASON_TIMEOUT:
            return StreamTimeout(f"{self.name}: no answer within {self._open_seconds:g} s")
        return StreamRefused(f"{self.name}: the server will not serve it ({words})")

    def _accepted(self) -> int:
        """Wait for somebody to send."""
        listener = self._made()
        where = self._address()
        if self._srt.srt_bind(listener, where, len(where)) < 0 or self._srt.srt_listen(listener, 1) < 0:
            raise StreamRefused(f"{self.name}: cannot listen there ({self._last_error()[1]})")
        end = time.monotonic() + self._open_seconds
        while not self._interrupt.is_set():
            listeners = (ctypes.c_int * 1)(listener)
            made = int(self._srt.srt_accept_bond(listeners, 1, ctypes.c_int64(_POLL_MS)))
            if made >= 0:
                with self._lock:
                    self._sockets.append(made)
                return made
            if time.monotonic() >= end:
                raise StreamTimeout(f"{self.name}: nobody sent anything within {self._open_seconds:g} s")
        raise StreamEnded(f"{self.name}: stopped")

    def _address(self) -> bytes:
        """The peer's, or ours to listen on, as a ``sockaddr``."""
        try:
            family, _, _, _, where = socket.getaddrinfo(self._host or "0.0.0.0", self._port, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise StreamNotFound(f"{self.name}: there is no such host ({error.strerror or error})") from error
        head = struct.pack("=H", family) + struct.pack("!H", self._port)
        packed = socket.inet_pton(family, str(where[0]))
        if family == socket.AF_INET6:
            return head + struct.pack("=I", 0) + packed + struct.pack("=I", 0)
        return head + packed + bytes(8)

    def _last_error(self) -> tuple[int, str]:
        code = int(self._srt.srt_getlasterror(None))
        return code, (self._srt.srt_getlasterror_str() or b"").decode(errors="replace")

    def close(self) -> None:
        self._interrupt.forget(self.close)
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for made in sockets:
            self._srt.srt_close(made)


def _parsed(url: str) -> tuple[str, int, bool, dict[str, int | str]]:
    """Host, port, whether it listens, and what is to be set."""
    try:
        # A stream id as the documentation of SRT writes it, #!::r=name, is no fragment.
        parts = urlsplit(url.replace("#", "%23"))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("srt://")
    if port is None:
        raise OptionError(f"{shown(url)}: no port; allowed: srt://host:port?options")
    settings: dict[str, int | str] = {}
    mode = "listener" if not host else "caller"
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "mode":
            mode = value
        elif name in ("pbkeylen", "latency"):
            if not value.isdigit():
                raise OptionError(f"{shown(url)}: {name} is {value!r}; allowed: a whole number")
            settings[name] = int(value)
        elif name in _OPTIONS:
            settings[name] = value
        else:
            raise OptionError(f"{shown(url)}: {name!r} is not known; allowed: mode, {', '.join(_OPTIONS)}")
    if mode not in ("caller", "listener"):
        raise OptionError(f"{shown(url)}: mode is {mode!r}; allowed: caller, listener")
    if not host and mode == "caller":
        raise OptionError(f"{shown(url)}: no host; a caller needs one")
    return host, port, mode == "listener", settings
