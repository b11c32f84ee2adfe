"""A short text that changes when the content of a source does."""

from __future__ import annotations

import hashlib
import os

from pipeline.errors import SourceUnreadable
from pipeline.sources.probe import check_readable
from pipeline.sources.redact import is_remote

__all__ = ["fingerprint"]

_ENDS_BYTES = 64 * 1024


def fingerprint(uri: str) -> str:
    """The fingerprint of a source's content: for a file its size, change time and a hash of its first and last 64 KiB;
    for an address the ETag, size and date that the server states.

    Raises:
        SourceNotFound, SourceUnreadable: a file that is not there or may not be read.
        RemoteError: an address that does not answer.
    """
    if is_remote(uri):
        from pipeline.sources.remote import remote_facts

        return "r1-" + remote_facts(uri).digest()
    size = check_readable(uri)
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(uri, "rb") as file:
            digest.update(f"{size} {os.fstat(file.fileno()).st_mtime_ns} ".encode())
            digest.update(file.read(_ENDS_BYTES))
            if size > _ENDS_BYTES:
                file.seek(max(_ENDS_BYTES, size - _ENDS_BYTES))
                digest.update(file.read(_ENDS_BYTES))
    except OSError as error:
        raise SourceUnreadable(f"{uri}: {error.strerror}") from error
    return "l1-" + digest.hexdigest()
