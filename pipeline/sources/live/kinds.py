"""What may be watched live, and how each kind is opened. A new kind is one line in :data:`KINDS`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import StreamNotFound, UnknownScheme
from pipeline.sources.live.interrupt import Interrupt
from pipeline.sources.live.options import LiveOptions
from pipeline.sources.probe import check_readable
from pipeline.sources.redact import redact

if TYPE_CHECKING:
    from pipeline.sources.live.feeds import Feed

__all__ = ["KINDS", "Kind", "Opening", "kind_of", "patience_seconds", "shown"]


@dataclass(frozen=True)
class Opening:
    """What PyAV is to open: an address, or a ``feed`` of bytes of our own."""

    address: str = ""
    feed: Feed | None = None
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One kind of live source.

    Attributes:
        form: how an address of it looks, for people.
        open: prepares the opening; raises what can be known to fail without opening.
        live: it goes on by itself, at the pace of the clock. One that does not waits for the consumer, as files do.
        ends: where its bytes end the stream is over. Of the others nobody can tell an end from an outage.
        reconnects: it can be opened again and goes on where it then is.
        clocked: its packets come as they happen, so that the newest one tells what time it is. Of what is sent in
            pieces (HLS) or may have begun long ago (files) the first one has to do.
    """

    form: str
    open: Callable[[str, LiveOptions, Interrupt], Opening]
    live: bool = True
    ends: bool = False
    reconnects: bool = True
    clocked: bool = True


# Little is looked at before the first picture: half a second, or so many bytes.
_QUICK = {"analyzeduration": "500000", "probesize": "1000000"}
_DEVICES = ("v4l2", "lavfi")  # FFmpeg's names of what a device may be
_NO_FILES = {"protocol_whitelist": "http,https,tcp,tls,crypto,data,hls,httpproxy"}
# What a playlist names is played whatever the names end in: only servers can be asked anyway.
_HLS = {"extension_picky": "0", "allowed_extensions": "ALL", "allowed_segment_extensions": "ALL"}
_HLS |= {"live_start_index": "-1"}
_LOGIN_IN_GRAPH = re.compile(r"(\\*:\\*/\\*/)[^/@\s]*@")  # of FFmpeg's filters, where colons are escaped
_PLAYLIST_SECONDS = 30.0  # between two pieces of a playlist: they are seldom longer than ten


def _rtsp(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    how = {
        "auto": {"rtsp_flags": "prefer_tcp"},
        "tcp": {"rtsp_transport": "tcp"},
        "udp": {"rtsp_transport": "udp"},
    }[options.transport]
    return Opening(url, options={**_QUICK, **how})


def _rtmp(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    return Opening(url, options={**_QUICK, "rtmp_live": "live"})


def _http(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    return Opening(url, options={**_QUICK, **_NO_FILES, **_HLS})


def _udp(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    # What comes faster than it is read is lost, not an error.
    return Opening(url, options={**_QUICK, "overrun_nonfatal": "1", "reuse": "1"})


def _tcp(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    return Opening(url, options=_QUICK)


def _srt(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    from pipeline.sources.live.srt import SrtFeed

    return Opening(feed=SrtFeed(url, options.open_seconds, 2 * options.stall_seconds, interrupt), options=_QUICK)


def _device(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    name, _, where = url.partition(":")[2].partition(":")
    if name == "v4l2" and not os.path.exists(where):
        raise StreamNotFound(f"{url}: there is no {where}")
    return Opening(where, format=name)


def _tail(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    from pipeline.sources.live.feeds import TailFeed

    path = _path_of(url.partition(":")[2])
    check_readable(path)
    return Opening(feed=TailFeed(path, 2 * options.stall_seconds, interrupt), options=_QUICK)


def _stdin(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    from pipeline.sources.live.feeds import PipeFeed

    return Opening(feed=PipeFeed(0, 2 * options.stall_seconds, interrupt), options=_QUICK)


def _file(url: str, options: LiveOptions, interrupt: Interrupt) -> Opening:
    path = _path_of(url)
    if _is_pipe(path):
        from pipeline.sources.live.feeds import PipeFeed

        return Opening(feed=PipeFeed.named(path, 2 * options.stall_seconds, interrupt), options=_QUICK)
    check_readable(path)
    return Opening(f"file:{path}", options={"protocol_whitelist": "file"})


_LIVE_RTSP = Kind("rtsp://host/path", _rtsp)
_LIVE_RTMP = Kind("rtmp://host/app/name", _rtmp)
_LIVE_HTTP = Kind("http://host/live.m3u8", _http)

KINDS: dict[str, Kind] = {
    "rtsp": _LIVE_RTSP,
    "rtsps": _LIVE_RTSP,
    "rtmp": _LIVE_RTMP,
    "rtmps": _LIVE_RTMP,
    "http": _LIVE_HTTP,
    "https": _LIVE_HTTP,
    "udp": Kind("udp://@:port", _udp),
    "rtp": Kind("rtp://@:port", _udp),
    "tcp": Kind("tcp://host:port", _tcp),
    "srt": Kind("srt://host:port", _srt),
    "device": Kind("device:v4l2:/dev/video0 (or device:lavfi:GRAPH)", _device),
    "tail": Kind("tail:PATH", _tail, live=False, ends=True, clocked=False),
    "stdin": Kind("-", _stdin, live=False, ends=True, reconnects=False, clocked=False),
    "file": Kind("PATH", _file, live=False, ends=True, reconnects=False, clocked=False),
}


def kind_of(url: str) -> str:
    """The name in :data:`KINDS` of an address: its scheme, "stdin" for ``-``, "file" for a path.

    Raises:
        UnknownScheme: no kind has this scheme.
    """
    if url == "-":
        return "stdin"
    scheme, separator, _ = url.partition("://")
    if separator and "/" not in scheme:
        scheme = scheme.lower()
        if scheme == "file":
            return "file"
        if scheme in KINDS and "://" in KINDS[scheme].form:
            return scheme
        raise _unknown(url, repr(scheme))
    head, colon, rest = url.partition(":")
    if head == "device" and colon:
        name, _, where = rest.partition(":")
        if name not in _DEVICES or not where:
            raise _unknown(url, f"the device {name!r}")
        return "device"
    return "tail" if head == "tail" and colon else "file"


def _unknown(url: str, what: str) -> UnknownScheme:
    servers = ", ".join(f"{name}://" for name, kind in KINDS.items() if "://" in kind.form)
    others = ", ".join(kind.form for kind in KINDS.values() if "://" not in kind.form)
    return UnknownScheme(f"{shown(url)}: {what} cannot be watched; allowed: {servers}, {others}")


def patience_seconds(url: str, options: LiveOptions) -> float:
    """How long nothing may come before a connection is given up: twice the stall time, and of a playlist, whose pieces
    come one by one, at least half a minute.
    """
    twice = 2 * options.stall_seconds
    is_playlist = kind_of(url) in ("http", "https") and "m3u8" in url.partition("?")[0].lower()
    return max(twice, _PLAYLIST_SECONDS) if is_playlist else twice


def shown(url: str) -> str:
    """The address as it may be shown, logged and stored: without user, password and secret parameters."""
    if url.startswith("device:"):
        return _LOGIN_IN_GRAPH.sub(r"\1", url)
    return redact(url, stream=True)


def _path_of(url: str) -> str:
    path = url.removeprefix("file://") if url.startswith("file://") else url
    return os.path.abspath(path)


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False
