"""Videos on servers (``http://``, ``https://``, ``s3://``), made local in a bounded cache.

Every wait on the network has a limit, and no message, file name or fingerprint carries a credential.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import LongreelError, RemoteError, SourceUnreadable
from pipeline.isolation import beat
from pipeline.sources.cache import FileCache
from pipeline.sources.redact import is_remote, redact, redact_text

__all__ = ["RemoteFacts", "list_prefix", "localize", "remote_facts"]

CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0
_ATTEMPTS = 3
_GROW_BYTES = 16 * 1024 * 1024  # room is asked for in such steps when a server does not state the size

# A piece gives a sign of life when it is whole, so a slow link must bring one within the time after which a decoder
# counts as hung. Pieces grow on a link that brings them fast: each costs a request.
_PIECE_BYTES = 1024 * 1024
_LARGEST_PIECE_BYTES = 8 * 1024 * 1024
_FAST_SECONDS = 0.5
_HTTP_BLOCK_BYTES = 256 * 1024

T = TypeVar("T")
Progress = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class RemoteFacts:
    """What a server states about a file; None where it does not."""

    size_bytes: int | None
    etag: str | None
    modified: str | None

    def digest(self) -> str:
        """A text that changes when the stated facts do. A server that states none gives a new one every time, so that
        stale content is never taken for current."""
        text = repr((self.size_bytes, self.etag, self.modified)) if self.stated else secrets.token_hex(16)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def stated(self) -> bool:
        """Whether the server states anything at all."""
        return any(fact is not None for fact in (self.size_bytes, self.etag, self.modified))


def remote_facts(uri: str, *, stall_seconds: float = STALL_SECONDS) -> RemoteFacts:
    """Ask the server about ``uri`` without downloading it.

    Raises:
        RemoteError: it refused, timed out, or there is no such thing.
    """

    def ask() -> RemoteFacts:
        info = _filesystem(uri, stall_seconds).info(uri)
        if info.get("type") == "directory":
            raise RemoteError(f"{redact(uri)}: is a prefix, not an object; end it with '/' to take what lies below")
        modified = info.get("Last-Modified") or info.get("LastModified")
        return RemoteFacts(
            size_bytes=info.get("size"),
            etag=str(info["ETag"]) if info.get("ETag") else None,
            modified=str(modified) if modified else None,
        )

    return _attempt(uri, ask)


def list_prefix(uri: str, *, stall_seconds: float = STALL_SECONDS) -> list[str]:
    """The addresses of all objects below an ``s3://`` prefix, sorted.

    Raises:
        RemoteError: it cannot be listed, or there is nothing.
    """

    def ask() -> list[str]:
        found = _filesystem(uri, stall_seconds).find(uri)
        return sorted(f"s3://{path}" for path in found)

    return _attempt(uri, ask)


@contextlib.contextmanager
def localize(
    uri: str,
    cache_dir: str | os.PathLike[str],
    max_bytes: int,
    progress: Progress | None = None,
    *,
    version: str | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> Iterator[Path]:
    """A local copy of a remote file, downloaded into the cache unless it is there; it stays while the context is open.
    A local path is given back as it is.

    Args:
        max_bytes: bound on the whole cache.
        progress: called with the bytes so far and the total (None when not known).
        version: tells copies apart where the server states nothing to tell them by: calls with the same one share a
            copy, as the parts of a video do; without one, each call downloads anew.
        stall_seconds: the longest wait for the next bytes.

    Raises:
        RemoteError: the server refused, timed out or broke off.
        CacheTooSmall: the file is larger than the cache may be.
        SourceUnreadable: the disk refused.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    facts = remote_facts(uri, stall_seconds=stall_seconds)
    shown = redact(uri)
    cache = FileCache(cache_dir, max_bytes)
    identity = f"{shown} {version if version is not None and not facts.stated else facts.digest()}"
    key = hashlib.blake2b(identity.encode(), digest_size=20).hexdigest()

    def download(part: Path) -> None:
        cache.reserve(part, facts.size_bytes if facts.size_bytes is not None else _GROW_BYTES, shown)
        _attempt(uri, lambda: _download(uri, part, facts, cache, progress, stall_seconds))

    with cache.entry(key, download) as path:
        yield path


def _download(
    uri: str, part: Path, facts: RemoteFacts, cache: FileCache, progress: Progress | None, stall_seconds: float
) -> None:
    from fsspec.callbacks import Callback

    shown = redact(uri)

    class Counting(Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.done = 0
            self.reserved = facts.size_bytes if facts.size_bytes is not None else _GROW_BYTES

        def relative_update(self, inc: int = 1) -> None:
            self.done += inc
            if self.done > self.reserved:
                if facts.size_bytes is not None:
                    raise RemoteError(f"{shown}: the server sends more than the {facts.size_bytes:,} bytes it stated")
                self.reserved = self.done + _GROW_BYTES
                if self.reserved > cache.max_bytes >= self.done:
                    self.reserved = cache.max_bytes
                cache.reserve(part, self.reserved, shown)
            beat()
            if progress is not None:
                progress(self.done, facts.size_bytes)

    counting = Counting()
    try:
        # Opened without cutting it, so that the reserved size stays while bytes come in.
        with open(part, "r+b") as file:
            system = _filesystem(uri, stall_seconds)
            if uri.lower().startswith("s3://"):  # its get_file wants a path, and would cut the file first
                size = facts.size_bytes or 0
                length = _PIECE_BYTES
                start = 0
                while start < size:
                    began = time.monotonic()
                    piece = system.cat_file(uri, start=start, end=min(size, start + length))
                    if not piece:
                        break  # less came than was stated: said below
                    fast = time.monotonic() - began < _FAST_SECONDS
                    length = min(length * 2, _LARGEST_PIECE_BYTES) if fast else _PIECE_BYTES
                    file.write(piece)
                    counting.relative_update(len(piece))
                    start += len(piece)
            else:
                system.get_file(uri, file, callback=counting, chunk_size=_HTTP_BLOCK_BYTES)
            file.flush()
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise SourceUnreadable(f"{shown}: cannot be kept in {cache.folder}: {error.strerror}") from error
        raise
    if facts.size_bytes is not None and counting.done != facts.size_bytes:
        raise _ShortBody(f"{counting.done:,} of {facts.size_bytes:,} bytes came")
    os.truncate(part, counting.done)


class _ShortBody(ConnectionError):
    """The server closed the connection before everything came."""


def _filesystem(uri: str, stall_seconds: float) -> Any:
    import fsspec

    if uri.lower().startswith("s3://"):
        return fsspec.filesystem(
            "s3",
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": min(CONNECT_SECONDS, stall_seconds),
                "read_timeout": stall_seconds,
                "retries": {"max_attempts": 1},
            },
            max_concurrency=1,
        )
    import aiohttp

    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=min(CONNECT_SECONDS, stall_seconds), sock_read=stall_seconds
    )
    return fsspec.filesystem(
        uri.partition("://")[0].lower(),
        skip_instance_cache=True,
        use_listings_cache=False,
        encoded="%" in uri,  # an address that is quoted already must stay as it was signed
        client_kwargs={"timeout": timeout, "trust_env": True},
    )


# -- errors ------------------------------------------------------------------------------------------------------------

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})
_STATUS_WORDS = {401: "needs credentials", 403: "refused (no permission)", 404: "is not there", 410: "is gone"}


def _attempt(uri: str, act: Callable[[], T]) -> T:
    """Do it, again after a short pause when the trouble may pass, and turn what is raised into our errors."""
    for attempt in range(1, _ATTEMPTS + 1):
        beat()
        try:
            return act()
        except LongreelError:
            raise
        except Exception as error:  # noqa: BLE001 (fsspec, aiohttp and botocore raise a dozen kinds; all are translated)
            text, may_pass = _explain(error)
            if may_pass and attempt < _ATTEMPTS:
                time.sleep(0.2 * 2**attempt)
                continue
            tried = f" (tried {attempt} times)" if attempt > 1 else ""
            # Without the cause: its text and arguments hold the whole address.
            raise RemoteError(redact_text(f"{redact(uri)}: {text}{tried}", uri)) from None
    raise AssertionError("unreachable")


def _explain(error: BaseException) -> tuple[str, bool]:
    """What happened in words, and whether trying again may help. Looks through the causes for the telling one."""
    import asyncio

    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    for one in chain:
        status = getattr(one, "status", None)
        if not isinstance(status, int):
            response = getattr(one, "response", None)
            metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
            status = metadata.get("HTTPStatusCode")
        if isinstance(status, int) and status >= 400:
            words = _STATUS_WORDS.get(status, "failed" if status >= 500 else "refused")
            return f"the server answered {status}: it {words}", status >= 500 or status == 429
    for one in chain:
        name = type(one).__name__
        if isinstance(one, (TimeoutError, asyncio.TimeoutError)) or "Timeout" in name:
            return "the server does not answer in time", False
        if isinstance(one, _ShortBody):
            return f"the server broke off: {one}", True
        if name in ("ClientPayloadError", "ServerDisconnectedError", "ResponseStreamingError", "IncompleteReadError"):
            return "the server broke off before everything came", True
        if isinstance(one, ConnectionRefusedError) or name in ("ClientConnectorError", "EndpointConnectionError"):
            return "cannot connect (refused, or no such host)", False
        if name in ("NoCredentialsError", "PartialCredentialsError"):
            return "no credentials for S3; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", False
    if isinstance(error, FileNotFoundError):
        return "the server answered 404: it is not there", False
    if isinstance(error, PermissionError):
        return "the server answered 403: it refused (no permission)", False
    return f"{type(error).__name__}: {error}", isinstance(error, ConnectionError)
