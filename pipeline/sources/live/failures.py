"""FFmpeg's errors made ours. Its own messages hold the address with its password, so none is passed on or chained."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.errors import (
    NotAStream,
    SourceError,
    StreamCodec,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamTimeout,
    StreamUnauthorised,
)
from pipeline.sources.live.kinds import kind_of, shown
from pipeline.sources.redact import redact_text

if TYPE_CHECKING:
    from av.error import FFmpegError

__all__ = ["opening_error", "reading_error"]


def opening_error(error: FFmpegError, url: str, open_seconds: float, took_seconds: float) -> SourceError:
    """What went wrong while a stream was opened, which took so long to fail."""
    from av import error as av_error

    name, words = shown(url), redact_text(error.strerror or type(error).__name__, url)
    kinds: tuple[tuple[tuple[type[BaseException], ...], type[SourceError], str], ...] = (
        (
            (av_error.HTTPUnauthorizedError,),
            StreamUnauthorised,
            "the server wants a user and a password" + (", and not these" if _has_login(url) else ""),
        ),
        ((av_error.HTTPForbiddenError,), StreamUnauthorised, "the server forbids it (403)"),
        ((av_error.PermissionError,), StreamUnauthorised, "permission denied"),
        ((av_error.HTTPNotFoundError,), StreamNotFound, "the server has no such stream (404)"),
        ((av_error.FileNotFoundError,), StreamNotFound, words),
        ((av_error.HTTPError,), StreamRefused, f"the server will not serve it ({words})"),
        ((av_error.ConnectionRefusedError,), StreamRefused, "nobody listens there (connection refused)"),
        ((av_error.ConnectionResetError, av_error.BrokenPipeError), StreamRefused, "the server closed the connection"),
        ((av_error.ExitError, av_error.TimeoutError), StreamTimeout, f"no answer within {open_seconds:g} s"),
        ((av_error.EOFError,), StreamEnded, "it ended before its first picture"),
        ((av_error.InvalidDataError,), NotAStream, "what comes is no video that any demuxer knows"),
        ((av_error.DecoderNotFoundError, av_error.DemuxerNotFoundError), StreamCodec, words),
        ((av_error.PatchWelcomeError, av_error.NotImplementedError), StreamCodec, words),
    )
    if took_seconds >= open_seconds and isinstance(error, (av_error.InvalidDataError, av_error.OSError)):
        # What was interrupted sometimes takes its half answer for a bad one.
        return StreamTimeout(f"{name}: no answer within {open_seconds:g} s")
    for found, ours, text in kinds:
        if isinstance(error, found):
            return ours(f"{name}: {text}")
    unresolved = _unresolved(url)
    if unresolved is None and error.errno == errno.EIO:
        return StreamEnded(f"{name}: broke off before its first picture")
    return unresolved or StreamRefused(f"{name}: cannot be opened: {words}")


def reading_error(error: FFmpegError, url: str, read_seconds: float) -> SourceError:
    """What went wrong in the middle of a stream."""
    from av import error as av_error

    name = shown(url)
    if isinstance(error, (av_error.ExitError, av_error.TimeoutError)):
        return StreamTimeout(f"{name}: nothing came for {read_seconds:g} s")
    words = redact_text(error.strerror or type(error).__name__, url)
    return StreamEnded(f"{name}: broke off ({words})")


def _has_login(url: str) -> bool:
    try:
        return "@" in urlsplit(url).netloc
    except ValueError:
        return False


def _unresolved(url: str) -> SourceError | None:
    """FFmpeg does not tell a name that nobody knows from any other trouble; so it is looked up once more."""
    if "://" not in url or kind_of(url) == "file":
        return None
    try:
        host = urlsplit(url).hostname
        if host:
            socket.getaddrinfo(host, None)
    except OSError as error:
        return StreamNotFound(f"{shown(url)}: there is no such host ({error.strerror or type(error).__name__})")
    except ValueError:  # whose words hold the password
        return StreamNotFound(f"{shown(url)}: its host is no name that a host may have")
    return None
