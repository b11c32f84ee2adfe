"""The vector index of a library: derived from the catalog, following it, and rebuilt from it when need be.

On disk lie a snapshot of the index (``index/<change number>-<nonce>.faiss``) and ``index/state.json``, which names it
and the change of the catalog that it reflects. What came after is read from the catalog on opening, so that a thousand
new vectors never rewrite gigabytes. This is the only module that imports faiss.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.catalog.records import VectorRows
from pipeline.errors import DiskFull, FaissMissing, IndexDamaged, QueryError
from pipeline.index_kinds import AUTO, INDEX_KINDS, IndexKind, IndexOptions
from pipeline.store import disk_errors, write_file_atomically

__all__ = ["IndexOptions", "VectorIndex", "VectorSource", "load_faiss"]

_log = logging.getLogger(__name__)

_STATE_NAME = "state.json"
_STATE_VERSION = 1
_ROWS_AT_ONCE = 32_768
_OVERDUE = 4  # following alone never builds anew, unless the index is this many times past the point where it should be
_DIGEST_BLOCKS = 64
_DIGEST_BLOCK_BYTES = 1 << 16


class VectorSource(Protocol):
    """What the index needs of the catalog."""

    def current_seq(self) -> int: ...
    def count_vectors(self) -> int: ...
    def vectors_since(self, seq: int, limit: int, until: int | None = None) -> VectorRows: ...
    def removals_since(self, seq: int) -> npt.NDArray[np.int64]: ...
    def removals_floor(self) -> int: ...
    def sample_vectors(self, count: int) -> npt.NDArray[np.float16]: ...


def load_faiss() -> Any:
    """The ``faiss`` module.

    Raises:
        FaissMissing: neither of the two packages that bring it is installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise FaissMissing(
            'FAISS is not installed. Install one of: pip install "longreel[cpu]", or pip install "longreel[gpu]" '
            f"on a machine with an NVIDIA GPU ({error})"
        ) from error
    return faiss


class VectorIndex:
    """Finds the stored vectors nearest to a query. Safe for use by several threads; a context manager.

    Use :meth:`open`; then :meth:`sync` brings it up to the catalog at any time.
    """

    def __init__(self, folder: Path, catalog: VectorSource, dimension: int, options: IndexOptions) -> None:
        self._faiss = load_faiss()
        self._folder = folder
        self._catalog = catalog
        self._dimension = dimension
        self._options = options
        self._lock = threading.RLock()
        self._seq = 0
        self._changes_since_saved = 0
        self._kind: IndexKind = self._new_kind("exact")

    @classmethod
    def open(
        cls, folder: Path | str, catalog: VectorSource, dimension: int, options: IndexOptions | None = None
    ) -> VectorIndex:
        """Open the index of a library and bring it up to its catalog; build it when it is missing or damaged.

        Args:
            folder: where its files lie; made when something is to be saved.
            catalog: the truth that it follows.
            dimension: width D of the vectors.

        Raises:
            FaissMissing: FAISS is not installed.
        """
        index = cls(Path(folder), catalog, dimension, options or IndexOptions())
        try:
            index._load()
        except FileNotFoundError:
            index._rebuild()
        except (IndexDamaged, OSError) as error:
            _log.warning("the vector index is rebuilt from the catalog: %s", error)
            index._rebuild()
        index.sync()
        index._check()
        return index

    # -- use -------------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return self._kind.name

    @property
    def seq(self) -> int:
        """The change of the catalog up to which this index has followed."""
        return self._seq

    def __len__(self) -> int:
        with self._lock:
            return len(self._kind)

    def search(
        self, queries: npt.NDArray[Any], k: int, allowed_ids: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The k vectors of highest inner product with each of ``queries [Q, D]``.

        Args:
            queries: unit vectors, so that scores are cosines.
            k: how many.
            allowed_ids: when given, only these are looked at.

        Returns:
            Ids and scores ``[Q, k]``, best first; -1 and -inf where there are fewer than k.

        Raises:
            QueryError: another width, or values that are not finite.
        """
        queries = np.asarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self._dimension:
            raise QueryError(f"queries must be [Q, {self._dimension}], got {list(queries.shape)}")
        if not np.isfinite(queries).all():
            raise QueryError("a query vector is not finite")
        if allowed_ids is not None:
            allowed_ids = np.ascontiguousarray(allowed_ids, dtype=np.int64)
        with self._lock:
            return self._kind.search(queries, k, allowed_ids)

    def sync(self) -> int:
        """Follow the catalog to its present state; returns how many vectors were added and removed.

        Building anew (another kind, more lists) is left to :meth:`maintain` unless it is long overdue.
        """
        with self._lock:
            changes = self._follow()
            if self._wanted_kind(_OVERDUE) != self.kind or self._kind.outgrown(_OVERDUE):
                self._rebuild()
                changes += self._follow()
            elif self._changes_since_saved > self._tail_limit():
                self._save()
            return changes

    def maintain(self) -> None:
        """Follow the catalog, and build anew where the number of vectors asks for another kind or more lists.

        May take a minute on a large library; meant for the end of a job.
        """
        self.sync()
        with self._lock:
            due = self._wanted_kind(1) != self.kind or self._kind.outgrown(2)
        if due:
            built = self._build()  # without the lock: searches go on in the old one
            with self._lock:
                self._adopt(*built)
                self._follow()

    def close(self) -> None:
        with self._lock:
            self._kind = self._new_kind("exact")
            self._seq = 0

    def __enter__(self) -> VectorIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- following -------------------------------------------------------------------------------------------------

    def _new_kind(self, name: str) -> IndexKind:
        return INDEX_KINDS[name](self._faiss, self._dimension, self._options)

    def _wanted_kind(self, patience: float, count: int | None = None) -> str:
        if self._options.kind != AUTO:
            return self._options.kind
        count = len(self._kind) if count is None else count
        limit = self._options.exact_limit
        if self._kind.name == "ivf":
            return "exact" if count * 2 * patience < limit else "ivf"  # half: no to and fro at the limit
        return "ivf" if count > limit * patience else "exact"

    def _tail_limit(self) -> float:
        return max(self._options.tail_vectors, self._options.tail_fraction * len(self._kind))

    def _follow(self) -> int:
        # Up to one fixed change: a vector that is read must not hide a removal that came between.
        until = self._catalog.current_seq()
        if until == self._seq:
            return 0
        gone = self._catalog.removals_since(self._seq)
        if self._seq < self._catalog.removals_floor():  # asked afterwards, so that none is forgotten in between
            _log.info("the vector index is built anew: the removals after change %d are forgotten", self._seq)
            self._rebuild()
            return len(self._kind)
        # Removals first: a vector that was removed and came back stands in both.
        changes = self._kind.remove(gone)
        for rows in self._rows(self._seq, until):
            self._kind.add(rows.id, rows.embedding)
            changes += len(rows)
        self._seq = until
        self._changes_since_saved += changes
        return changes

    def _rows(self, seq: int, until: int) -> Iterator[VectorRows]:
        while len(rows := self._catalog.vectors_since(seq, _ROWS_AT_ONCE, until)):
            yield rows
            seq = int(rows.seq[-1])

    def _rebuild(self) -> None:
        self._adopt(*self._build())

    def _build(self) -> tuple[IndexKind, int]:
        """Build from the catalog, in the kind that its size asks for; with the change that it reflects."""
        until = self._catalog.current_seq()
        count = self._catalog.count_vectors()
        kind = self._new_kind(self._wanted_kind(1, count))
        kind.prepare(self._catalog.sample_vectors(kind.sample_size(count)), count)
        for rows in self._rows(0, until):
            kind.add(rows.id, rows.embedding)
        if kind.sample_size(count):
            kind.tune(self._catalog.sample_vectors(96))
        if count:
            _log.info("built the %s vector index of %d vectors from the catalog", kind.name, len(kind))
        return kind, until

    def _adopt(self, kind: IndexKind, seq: int) -> None:
        self._kind = kind
        self._seq = seq
        self._changes_since_saved = len(kind)
        if len(kind) > self._tail_limit() or self._state_path.exists():
            self._save()

    def _check(self) -> None:
        """Compare with the catalog; whatever the reason, an index that differs is built anew."""
        seq = self._catalog.current_seq()
        count = self._catalog.count_vectors()
        if seq == self._seq == self._catalog.current_seq() and count != len(self._kind):
            _log.warning(
                "the vector index holds %d vectors, the catalog %d: it is rebuilt from the catalog",
                len(self._kind),
                count,
            )
            self._rebuild()

    # -- files -----------------------------------------------------------------------------------------------------

    @property
    def _state_path(self) -> Path:
        return self._folder / _STATE_NAME

    def _load(self) -> None:
        """Read the snapshot.

        Raises:
            FileNotFoundError: none was written.
            IndexDamaged: it cannot be used.
        """
        state, path = self._read_state()
        if not path.exists():  # another process may just have written a newer one
            state, path = self._read_state()
        try:
            size, digest = path.stat().st_size, _digest(path)
        except FileNotFoundError:
            raise IndexDamaged(f"{path}: missing") from None
        if size != state["size_bytes"] or digest != state["digest"]:
            raise IndexDamaged(f"{path}: {size} bytes with digest {digest}, expected {state['size_bytes']} bytes")
        wanted = self._options.kind
        if wanted not in (AUTO, state["kind"]):
            _log.info("the vector index is built anew as %s, it was %s", wanted, state["kind"])
            raise FileNotFoundError(path)
        if state["storage"] != self._options.storage and state["kind"] == "ivf":
            _log.info("the vector index is built anew with %s storage", self._options.storage)
            raise FileNotFoundError(path)
        if state["seq"] > self._catalog.current_seq():
            raise IndexDamaged(f"{path}: reflects change {state['seq']}, which the catalog has not seen")
        kind = self._new_kind(state["kind"])
        kind.load(path, state["settings"])
        if len(kind) != state["count"]:
            raise IndexDamaged(f"{path}: holds {len(kind)} vectors, expected {state['count']}")
        self._kind = kind
        self._seq = state["seq"]
        self._changes_since_saved = 0

    def _read_state(self) -> tuple[dict[str, Any], Path]:
        raw = self._state_path.read_bytes()
        try:
            state = json.loads(raw)
            if state["version"] != _STATE_VERSION or state["dimension"] != self._dimension:
                raise IndexDamaged(f"{self._state_path}: of another version or width")
            if state["kind"] not in INDEX_KINDS:
                raise IndexDamaged(f"{self._state_path}: unknown kind {state['kind']!r}")
            for name, kind in {"seq": int, "count": int, "size_bytes": int, "settings": dict, "file": str}.items():
                if not isinstance(state[name], kind):
                    raise IndexDamaged(f"{self._state_path}: {name} is {state[name]!r}")
            return state, self._folder / Path(state["file"]).name
        except (ValueError, KeyError, TypeError) as error:
            raise IndexDamaged(f"{self._state_path}: {type(error).__name__}: {error}") from error

    def _save(self) -> None:
        """Write a snapshot. The index is derived, so that a disk that takes none costs time on opening, no more."""
        try:
            with disk_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                with _save_lock(self._folder / "lock") as mine:
                    if mine:
                        self._write_snapshot()
        except (OSError, DiskFull, RuntimeError) as error:  # faiss raises RuntimeError when it cannot write
            _log.warning("the vector index could not be saved and will be read from the catalog: %s", error)
        self._changes_since_saved = 0

    def _write_snapshot(self) -> None:
        path = self._folder / f"{self._seq}-{uuid.uuid4().hex[:8]}.faiss"
        try:
            settings = self._kind.save(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            state = {
                "version": _STATE_VERSION,
                "kind": self._kind.name,
                "storage": self._options.storage,
                "dimension": self._dimension,
                "seq": self._seq,
                "count": len(self._kind),
                "settings": settings,
                "file": path.name,
                "size_bytes": path.stat().st_size,
                "digest": _digest(path),
                "faiss": self._faiss.__version__,
            }
            write_file_atomically(self._state_path, json.dumps(state, indent=2).encode() + b"\n")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for old in self._folder.glob("*.faiss"):
            if old != path:
                old.unlink(missing_ok=True)


@contextmanager
def _save_lock(path: Path) -> Iterator[bool]:
    """Whether this process may write the snapshot now; false while another does."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    """Digest of a file's size and of up to 64 blocks spread over it, first and last included.

    It finds files cut short, holes and foreign content without reading gigabytes; a single flipped bit in between can
    misplace one vector at most, since scores come from the catalog.
    """
    hasher = blake2b(digest_size=16)
    size = path.stat().st_size
    hasher.update(str(size).encode())
    with path.open("rb") as file:
        last = max(0, size - _DIGEST_BLOCK_BYTES)
        for offset in sorted({last * i // (_DIGEST_BLOCKS - 1) for i in range(_DIGEST_BLOCKS)}):
            file.seek(offset)
            hasher.update(file.read(_DIGEST_BLOCK_BYTES))
    return hasher.hexdigest()
