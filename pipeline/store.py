"""A library's folder: its manifest, its writer lock, and where the rest lies.

    longreel.json      the manifest: which model and preprocessing made the vectors
    catalog.sqlite3    the truth
    index/             the vector index, derived
    calibration/       what scores are worth, derived
    jobs/              logs of jobs
    writer.lock        held by the one process that writes

This module knows no models: whoever has one hands in what describes it (:class:`EncoderFacts`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import CatalogTooNew, DiskFull, LibraryBusy, LibraryError, ModelMismatch, NotALibrary

__all__ = ["EncoderFacts", "Manifest", "Store", "WriterLock", "disk_errors", "write_file_atomically"]

FORMAT_VERSION = 1
MANIFEST_NAME = "longreel.json"
_TEMPORARY_PREFIX = ".longreel-"
# What may lie in a folder that is still taken for empty: our own leavings, and what a fresh file system brings.
_IGNORED_NAMES = {"writer.lock", "lost+found", ".DS_Store"}


class EncoderFacts(Protocol):
    """What a library must know of the model that makes its vectors (``encoders.EncoderInfo`` has all of it)."""

    @property
    def name(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def preprocess(self) -> Mapping[str, Any]: ...
    @property
    def precision(self) -> str: ...
    @property
    def random(self) -> bool: ...


@dataclass(frozen=True)
class Manifest:
    """What ``longreel.json`` says. ``random`` tells that the model has untrained weights.

    A library that was made before its model was loaded (a job that goes on in the background) has an empty
    ``fingerprint`` until :meth:`Store.bind`.
    """

    format_version: int
    library_id: str
    model: str
    fingerprint: str
    preprocess: dict[str, Any]
    dimension: int
    precision: str
    random: bool
    created_at: str
    versions: dict[str, str] = field(default_factory=dict)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" from the operating system into :class:`DiskFull`; let everything else pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: no space left on the disk of the library") from error
        raise


def write_file_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one, whole.

    Raises:
        DiskFull: no space; the old file stays.
    """
    with disk_errors(path):
        temporary = path.parent / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Store:
    """An existing library folder. Opening it takes no lock and writes nothing."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def catalog_path(self) -> Path:
        return self.path / "catalog.sqlite3"

    @property
    def index_folder(self) -> Path:
        return self.path / "index"

    @property
    def calibration_folder(self) -> Path:
        return self.path / "calibration"

    @property
    def jobs_folder(self) -> Path:
        return self.path / "jobs"

    @property
    def lock_path(self) -> Path:
        return self.path / "writer.lock"

    @classmethod
    def exists(cls, path: Path | str) -> bool:
        """Whether there is a manifest; it may still be damaged."""
        return (Path(path) / MANIFEST_NAME).is_file()

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a library.

        Raises:
            NotALibrary: no folder, a file, a folder without a manifest, or a damaged manifest.
            CatalogTooNew: a newer Longreel made it.
            LibraryError: it may not be read.
        """
        folder = Path(path).absolute()
        if not folder.exists():
            raise NotALibrary(f"{folder}: no such folder")
        if not folder.is_dir():
            raise NotALibrary(f"{folder}: a file, where the folder of a library was expected")
        try:
            raw = (folder / MANIFEST_NAME).read_bytes()
        except FileNotFoundError:
            raise NotALibrary(f"{folder}: a folder without {MANIFEST_NAME}, so no library") from None
        except PermissionError as error:
            raise LibraryError(f"{folder}: the library may not be read ({error.strerror})") from error
        return cls(folder, _parse_manifest(folder / MANIFEST_NAME, raw))

    @classmethod
    def create(cls, path: Path | str, encoder: EncoderFacts | str) -> Store:
        """Make a library in an absent or empty folder, for a loaded model or for the name of one that is bound later.

        Raises:
            NotALibrary: the path is a file, or a folder that holds something else.
            LibraryError: there is a library already, or the folder may not be written.
            DiskFull: no space left.
        """
        folder = Path(path).absolute()
        if cls.exists(folder):
            raise LibraryError(f"{folder}: there is a library already")
        try:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotALibrary(f"{folder}: a file, where the folder of a library was expected") from None
        except PermissionError as error:
            raise LibraryError(f"{folder}: the folder may not be made ({error.strerror})") from error
        foreign = sorted(
            name for name in os.listdir(folder) if name not in _IGNORED_NAMES and not name.startswith(_TEMPORARY_PREFIX)
        )
        if foreign and MANIFEST_NAME not in foreign:
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise NotALibrary(f"{folder}: neither a library nor empty (it holds {shown}); name another folder")
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            library_id=uuid.uuid4().hex,
            model=encoder if isinstance(encoder, str) else encoder.name,
            fingerprint="",
            preprocess={},
            dimension=0,
            precision="",
            random=False,
            created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=_versions(),
        )
        if not isinstance(encoder, str):
            manifest = _bound(manifest, encoder)
        store = cls(folder, manifest)
        try:
            # Two that create at once: the second finds the first one's manifest once it has the lock.
            with store.lock("create", wait_seconds=10):
                if cls.exists(folder):
                    return cls.open(folder)
                store._write_manifest()
        except PermissionError as error:
            raise LibraryError(f"{folder}: the folder may not be written ({error.strerror})") from error
        return store

    @property
    def is_bound(self) -> bool:
        """Whether it is known which model makes the vectors, not only by name."""
        return bool(self.manifest.fingerprint)

    def bind(self, encoder: EncoderFacts) -> None:
        """Record the model in a library that has none yet, or check that it is the library's. Needs the writer lock.

        Raises:
            ModelMismatch: another model, or another form of the same, made this library.
        """
        self.manifest = self.open(self.path).manifest  # another writer may have bound it
        if self.is_bound:
            self.check_model(encoder)
            return
        self.manifest = _bound(self.manifest, encoder)
        self._write_manifest()

    def check_name(self, model: str) -> None:
        """Refuse a model by name alone, before it is loaded.

        A library that no model has made anything for yet takes any: the first name may have been misspelt.

        Raises:
            ModelMismatch: naming both.
        """
        if not self.is_bound:
            self.manifest = replace(self.manifest, model=model)  # on disk once it is bound
        elif model != self.manifest.model:
            raise ModelMismatch(f"{self.path}: made with model {self.manifest.model!r}, asked for {model!r}")

    def _write_manifest(self) -> None:
        content = json.dumps(vars(self.manifest), indent=2).encode() + b"\n"
        write_file_atomically(self.path / MANIFEST_NAME, content)

    @classmethod
    def open_or_create(cls, path: Path | str, encoder: EncoderFacts) -> Store:
        """Open the library and check that this model made it, or make one for it.

        Raises:
            ModelMismatch: another model, or another form of the same, made it.
            NotALibrary, CatalogTooNew, LibraryError, DiskFull: as :meth:`open` and :meth:`create`.
        """
        store = cls.open(path) if cls.exists(path) else cls.create(path, encoder)
        store.check_model(encoder)
        return store

    def check_model(self, encoder: EncoderFacts) -> None:
        """Refuse a model whose vectors cannot stand beside those of this library.

        Precision is no difference: an encoder chooses only among precisions whose vectors agree.

        Raises:
            ModelMismatch: naming both models, or what differs when the names are equal.
        """
        self.check_name(encoder.name)
        if not self.is_bound:
            return
        mine = self.manifest
        differences = []
        theirs = json.loads(json.dumps(dict(encoder.preprocess)))
        for key in sorted((mine.preprocess.keys() | theirs.keys()) - {"source"}):  # where it came from changes nothing
            if mine.preprocess.get(key) != theirs.get(key):
                differences.append(f"preprocessing {key} {mine.preprocess.get(key)!r}, now {theirs.get(key)!r}")
        if encoder.dimension != mine.dimension:
            differences.append(f"dimension {mine.dimension}, now {encoder.dimension}")
        if encoder.fingerprint != mine.fingerprint and not differences:
            differences.append(f"weights or architecture {mine.fingerprint}, now {encoder.fingerprint}")
        if differences:
            raise ModelMismatch(
                f"{self.path}: made with model {mine.model!r} as well, but in another form: {'; '.join(differences)}"
            )

    def lock(self, command: str, wait_seconds: float = 0.0) -> WriterLock:
        """Become the one writer, until the returned lock is closed or the process dies.

        Args:
            command: what is running, for others to read; it must hold no credentials.
            wait_seconds: how long to wait for another writer before giving up.

        Raises:
            LibraryBusy: another process writes; the message names it.
            LibraryError: the folder may not be written.
        """
        return WriterLock(self.lock_path, command, wait_seconds)


class WriterLock:
    """An exclusive lock on a file that says who holds it. A context manager; the system frees it on death."""

    def __init__(self, path: Path, command: str, wait_seconds: float = 0.0) -> None:
        self.path = path
        try:
            with disk_errors(path):
                # Not inherited by programs that this process starts (Python's default), so none of them keeps it.
                self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError as error:
            raise LibraryError(f"{path.parent}: the library may not be written ({error.strerror})") from error
        deadline = time.monotonic() + wait_seconds
        try:
            while True:
                try:
                    fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise LibraryBusy(
                            f"{path.parent}: {describe_holder(path)} is writing to this library"
                        ) from None
                    time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))
            holder = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "command": command,
                "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
            with disk_errors(path):
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, json.dumps(holder).encode(), 0)
        except BaseException:
            os.close(self._handle)
            raise

    def close(self) -> None:
        """Give the lock back. Closing twice is harmless."""
        if self._handle >= 0:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)  # the file stays: removing it would let two hold "the" lock
            self._handle = -1

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def describe_holder(path: Path) -> str:
    """Who holds a writer lock, in words."""
    try:
        holder = json.loads(path.read_bytes())
        return f"process {holder['pid']} on {holder['host']} ({holder['command']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has the lock and has not written its name yet


def _bound(manifest: Manifest, encoder: EncoderFacts) -> Manifest:
    return replace(
        manifest,
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        preprocess=json.loads(json.dumps(dict(encoder.preprocess))),
        dimension=encoder.dimension,
        precision=encoder.precision,
        random=encoder.random,
    )


def _parse_manifest(path: Path, raw: bytes) -> Manifest:
    try:
        values = json.loads(raw)
    except ValueError as error:
        raise NotALibrary(f"{path}: the manifest is damaged ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("format_version"), int):
        raise NotALibrary(f"{path}: the manifest is damaged (no format_version)")
    if values["format_version"] > FORMAT_VERSION:
        raise CatalogTooNew(
            f"{path}: library format {values['format_version']}, this Longreel knows up to {FORMAT_VERSION}; "
            "use a newer one"
        )
    kinds: dict[str, type] = {
        "library_id": str,
        "model": str,
        "fingerprint": str,
        "preprocess": dict,
        "dimension": int,
        "precision": str,
        "random": bool,
        "created_at": str,
        "versions": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(values.get(name), kind):
            raise NotALibrary(f"{path}: the manifest is damaged ({name} is {values.get(name)!r})")
    return Manifest(format_version=values["format_version"], **{name: values[name] for name in kinds})


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("longreel", "torch", "open_clip_torch", "decord2", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
