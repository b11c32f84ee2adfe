"""A folder of downloaded files that stays below a size, shared by any number of processes.

Each entry is a data file and a lock file. Whoever uses an entry holds a shared lock on its lock file, whoever makes it
an exclusive one; locks end with their process. A download writes to ``.part``, which already has its full size when
that is known, and is renamed when complete: a data file is always whole. Room is made under one lock for the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import CacheTooSmall, SourceUnreadable
from pipeline.isolation import beat

__all__ = ["FileCache", "cache_folder"]

_POLL_SECONDS = 0.05
_FOLDER_LOCK = "cache.lock"


def cache_folder(cache_dir: str) -> Path:
    """Where copies of remote files lie on this machine: ``cache_dir``, or if empty ``$LONGREEL_CACHE``, else
    ``longreel/media`` in the user's cache folder.
    """
    if cache_dir:
        return Path(cache_dir)
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("LONGREEL_CACHE") or os.path.join(root, "longreel", "media"))


class FileCache:
    """A bounded cache of files in ``folder``; the least recently used go first, those in use never.

    Args:
        max_bytes: the bound on all files together.
        wait_seconds: how long to wait for room while entries in use fill the cache.

    Raises (here and from its methods):
        SourceUnreadable: the folder cannot be made, or not be written to.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int, *, wait_seconds: float = 600.0) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.wait_seconds = wait_seconds
        with self._typed_errors():
            self.folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceUnreadable(
                f"{self.folder}: cannot keep remote files there ({error.strerror or error}); set "
                "ingest.decode.cache_dir, or LONGREEL_CACHE, to a folder that may be written to"
            ) from error

    def size_bytes(self) -> int:
        """Size of all data files, unfinished ones included."""
        total = 0
        for path in self.folder.iterdir():
            if path.suffix != ".lock":
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_size
        return total

    @contextlib.contextmanager
    def entry(self, key: str, make: Callable[[Path], None]) -> Iterator[Path]:
        """The file of ``key``, made by ``make(part_path)`` when it is not there; kept while the context is open.

        ``make`` calls ``reserve`` with the same path before and while it writes.

        Raises:
            CacheTooSmall: from ``reserve``; and what ``make`` raises.
        """
        data = self.folder / key
        descriptor = self._lock(key, fcntl.LOCK_SH)
        try:
            while not data.exists():
                # A lock cannot be raised from shared to exclusive safely: give it up and take it anew.
                os.close(descriptor)
                descriptor = -1
                descriptor = self._lock(key, fcntl.LOCK_EX)
                if not data.exists():
                    part = self.folder / f"{key}.part"
                    try:
                        make(part)
                        with self._typed_errors():
                            os.replace(part, data)
                    finally:
                        with contextlib.suppress(FileNotFoundError):
                            part.unlink()
                os.close(descriptor)
                descriptor = -1
                descriptor = self._lock(key, fcntl.LOCK_SH)
            os.utime(descriptor)  # the lock file's time is the time of last use
            yield data
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def reserve(self, part: Path, size_bytes: int, label: str) -> None:
        """Make room so that the unfinished file ``part`` may have ``size_bytes``, and give it that size.

        Raises:
            CacheTooSmall: it is larger than the whole cache, or entries in use leave no room for too long.
        """
        if size_bytes > self.max_bytes:
            raise CacheTooSmall(
                f"{label}: needs {size_bytes:,} bytes, and the whole cache in {self.folder} may hold {self.max_bytes:,}"
            )
        give_up = time.monotonic() + self.wait_seconds
        while True:
            with self._typed_errors(), self._folder_locked():
                own = part.stat().st_size if part.exists() else 0
                if self._make_room(self.max_bytes - size_bytes + own):
                    with open(part, "ab") as file:
                        file.truncate(size_bytes)
                    return
            if time.monotonic() > give_up:
                raise CacheTooSmall(
                    f"{label}: needs {size_bytes:,} bytes, but entries in use fill the cache in {self.folder} "
                    f"({self.max_bytes:,} bytes) since {self.wait_seconds:g} s; allow it more"
                )
            beat()
            time.sleep(_POLL_SECONDS)

    def _make_room(self, allowed_bytes: int) -> bool:
        """Remove entries, oldest first, until all files together have at most ``allowed_bytes``."""
        total = self.size_bytes()
        for key in self._oldest_first():
            if total <= allowed_bytes:
                break
            total -= self._evict(key)
        return total <= allowed_bytes

    def _oldest_first(self) -> list[str]:
        used: list[tuple[float, str]] = []
        for path in self.folder.iterdir():
            if path.suffix == ".lock" or path.name == _FOLDER_LOCK:
                continue
            key = path.name.removesuffix(".part")
            try:
                used.append(((self.folder / f"{key}.lock").stat().st_mtime, key))
            except FileNotFoundError:
                used.append((0.0, key))
        return [key for _, key in sorted(set(used))]

    def _evict(self, key: str) -> int:
        """Remove an entry that nobody uses, and what a dead download left; the bytes that this freed."""
        lock = self.folder / f"{key}.lock"
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return 0
        freed = 0
        for path in (self.folder / key, self.folder / f"{key}.part"):
            with contextlib.suppress(FileNotFoundError):
                freed += path.stat().st_size
                path.unlink()
        lock.unlink()  # whoever waits for it sees that it is another file now, and takes the lock anew
        os.close(descriptor)
        return freed

    def _lock(self, key: str, mode: int) -> int:
        """Wait for an entry's lock; the descriptor that holds it."""
        path = self.folder / f"{key}.lock"
        while True:
            with self._typed_errors():
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                    return descriptor
                os.close(descriptor)
            except FileNotFoundError:  # evicted between opening and looking
                os.close(descriptor)
            except BlockingIOError:
                os.close(descriptor)
                beat()  # another process downloads it, and fails by its own time limits if it must
                time.sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def _folder_locked(self) -> Iterator[None]:
        with open(self.folder / _FOLDER_LOCK, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
