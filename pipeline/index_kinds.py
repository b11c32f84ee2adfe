"""The kinds of vector index. A new one is a class here, a line in ``INDEX_KINDS`` and an entry in the contract suite.

Shapes: V vectors, D width, Q queries, k answers a query, S sample. Scores are inner products, which for unit vectors
are cosines. This module is handed the ``faiss`` module by :mod:`pipeline.index`, the one that imports it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import IndexDamaged, OptionError

__all__ = ["INDEX_KINDS", "ExactKind", "IndexKind", "IndexOptions", "IvfKind", "ideal_lists", "unit_rows"]

Floats = npt.NDArray[np.floating[Any]]
Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

AUTO = "auto"
_STORAGES = ("fp16", "int8")
_TRAINING_ROWS_PER_LIST = 40
_TUNING_QUERIES = 96
_WORTH_SHARING = 32_768  # vectors that one query looks at
_TUNING_DEPTH = 10


@dataclass(frozen=True)
class IndexOptions:
    """How vectors are kept for searching.

    Attributes:
        kind: a name of ``INDEX_KINDS``, or ``auto``: exact up to ``exact_limit`` vectors, ``ivf`` above it (and back
            below half of it).
        storage: what ``ivf`` keeps of a vector: ``fp16``, or ``int8`` for half the memory at some recall. Scores are
            the same: what is found is scored again from the catalog.
        recall_target: share of the true ten nearest that ``ivf`` must find on its own sample; it probes as many lists
            as that takes.
        tail_vectors, tail_fraction: the file on disk is written anew when more changes than both came after it; until
            then they are read from the catalog on opening.
    """

    kind: str = AUTO
    exact_limit: int = 50_000
    storage: str = "fp16"
    recall_target: float = 0.98
    tail_vectors: int = 20_000
    tail_fraction: float = 0.1

    def __post_init__(self) -> None:
        kinds = (AUTO, *INDEX_KINDS)
        if self.kind not in kinds:
            raise OptionError(f"index kind {self.kind!r}: must be one of {', '.join(kinds)}")
        if self.storage not in _STORAGES:
            raise OptionError(f"index storage {self.storage!r}: must be one of {', '.join(_STORAGES)}")
        if self.exact_limit < 0:
            raise OptionError(f"index exact_limit {self.exact_limit}: must not be negative")
        if not 0 < self.recall_target <= 1:
            raise OptionError(f"index recall_target {self.recall_target}: must be above 0 and at most 1")
        if self.tail_vectors < 0 or self.tail_fraction < 0:
            raise OptionError("index tail_vectors and tail_fraction must not be negative")


class IndexKind(ABC):
    """Vectors by id, searched by inner product. Not safe for use by several threads at once."""

    name: ClassVar[str]

    def __init__(self, faiss: Any, dimension: int, options: IndexOptions) -> None:
        self._faiss = faiss
        self.dimension = dimension
        self.options = options

    @staticmethod
    def sample_size(count: int) -> int:
        """How many vectors :meth:`prepare` wants to see for a library of ``count``."""
        return 0

    @abstractmethod
    def prepare(self, sample: Floats, count: int) -> None:
        """Get ready for about ``count`` vectors like those of ``sample [S, D]``. Called once, before the first add."""

    @abstractmethod
    def add(self, ids: Ids, vectors: Floats) -> None:
        """Add ``vectors [V, D]``; no id may be there already."""

    @abstractmethod
    def remove(self, ids: Ids) -> int:
        """Remove those of the ids that are there; returns how many were."""

    @abstractmethod
    def search(self, queries: Floats, k: int, allowed_ids: Ids | None = None) -> tuple[Ids, Scores]:
        """Ids and scores ``[Q, k]``, best first; -1 and -inf where there are fewer than k."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def save(self, path: Path) -> dict[str, Any]:
        """Write the index to a file; returns what else :meth:`load` needs to know."""

    @abstractmethod
    def load(self, path: Path, settings: dict[str, Any]) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            IndexDamaged: the file is no index of this kind and width.
        """

    def tune(self, sample: Floats) -> None:  # noqa: B027 - most kinds have nothing to tune
        """Choose search settings on vectors ``[S, D]`` of the library. Called when all are added."""

    def outgrown(self, times: float) -> bool:
        """Whether the structure is that many times too small for what it holds, so that building anew would pay."""
        return False

    def _search(self, index: Any, queries: Floats, k: int, parameters: Any) -> tuple[Ids, Scores]:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if not len(self) or not len(queries) or k < 1:
            shape = (len(queries), max(k, 0))
            return np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
        scores, ids = index.search(queries, k, params=parameters)
        return ids, np.where(ids >= 0, scores, np.float32(-np.inf)).astype(np.float32, copy=False)

    def _read(self, path: Path, kind: str) -> Any:
        try:
            index = self._faiss.read_index(str(path))
        except RuntimeError as error:
            raise IndexDamaged(f"{path}: {error}") from error
        if type(index).__name__ != kind or index.d != self.dimension:
            raise IndexDamaged(
                f"{path}: holds {type(index).__name__} of width {index.d}, not {kind} of {self.dimension}"
            )
        return index


class ExactKind(IndexKind):
    """Compares with every vector. Nothing to tune and nothing missed; the time grows with the library.

    Vectors are kept as float16, which is how the catalog has them: nothing is lost, and a single query is several
    times faster than over float32.
    """

    name = "exact"

    def __init__(self, faiss: Any, dimension: int, options: IndexOptions) -> None:
        super().__init__(faiss, dimension, options)
        fp16 = faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexIDMap2(faiss.IndexScalarQuantizer(dimension, fp16, faiss.METRIC_INNER_PRODUCT))

    def prepare(self, sample: Floats, count: int) -> None:
        pass

    def add(self, ids: Ids, vectors: Floats) -> None:
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    def remove(self, ids: Ids) -> int:
        if not len(ids) or not len(self):
            return 0
        return int(self._index.remove_ids(self._faiss.IDSelectorBatch(ids)))

    def search(self, queries: Floats, k: int, allowed_ids: Ids | None = None) -> tuple[Ids, Scores]:
        parameters = None
        if allowed_ids is not None:
            parameters = self._faiss.SearchParameters(sel=self._faiss.IDSelectorBatch(allowed_ids))
        return self._search(self._index, queries, k, parameters)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def save(self, path: Path) -> dict[str, Any]:
        self._faiss.write_index(self._index, str(path))
        return {}

    def load(self, path: Path, settings: dict[str, Any]) -> None:
        self._index = self._read(path, "IndexIDMap2")


class IvfKind(IndexKind):
    """Vectors in lists around k-means centres; a query looks only into the lists of the nearest centres.

    Vectors are kept as float16 or 8-bit integers. A hash table from id to place makes removal cheap.
    """

    name = "ivf"

    def __init__(self, faiss: Any, dimension: int, options: IndexOptions) -> None:
        super().__init__(faiss, dimension, options)
        self._index: Any = None
        self._probes = 1

    @staticmethod
    def sample_size(count: int) -> int:
        return min(count, ideal_lists(count) * _TRAINING_ROWS_PER_LIST)

    def prepare(self, sample: Floats, count: int) -> None:
        faiss = self._faiss
        sample = np.ascontiguousarray(sample, dtype=np.float32)
        lists = min(ideal_lists(count), max(1, len(sample)))
        if len(sample) < 256:
            # Hardly anything to learn from: the corners of the cube give 8-bit storage its full range.
            corners = np.concatenate([np.ones((1, self.dimension)), -np.ones((1, self.dimension))])
            sample = np.concatenate([sample, corners.astype(np.float32)])
        kind = faiss.ScalarQuantizer.QT_fp16 if self.options.storage == "fp16" else faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(self.dimension), self.dimension, lists, kind, faiss.METRIC_INNER_PRODUCT, False
        )
        index.cp.niter = 8  # more changes recall by little
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = _TRAINING_ROWS_PER_LIST
        index.train(sample)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        self._index = index
        self._probes = self._least_probes()

    def add(self, ids: Ids, vectors: Floats) -> None:
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    def remove(self, ids: Ids) -> int:
        if not len(ids) or not len(self):
            return 0
        # The hash table answers only to a list of ids, in time proportional to the list.
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        return int(self._index.remove_ids(self._faiss.IDSelectorArray(ids)))

    def search(self, queries: Floats, k: int, allowed_ids: Ids | None = None) -> tuple[Ids, Scores]:
        options: dict[str, Any] = {"nprobe": self._probes}
        if allowed_ids is not None:
            # Where few vectors may be found, more lists have to be looked into to find k.
            scarce = len(self) / max(1, len(allowed_ids))
            options["nprobe"] = min(self.lists, math.ceil(self._probes * scarce))
            options["sel"] = self._faiss.IDSelectorBatch(allowed_ids)
        # A single query is spread over the cores list by list where that is work enough to share; otherwise waiting for
        # each other costs more than it gains, above all on a busy machine. Many are spread query by query.
        looked_at = options["nprobe"] * len(self) / self.lists
        self._index.parallel_mode = 1 if len(queries) < 4 and looked_at > _WORTH_SHARING else 0
        return self._search(self._index, queries, k, self._faiss.SearchParametersIVF(**options))

    def tune(self, sample: Floats) -> None:
        """Double the number of lists looked into until the sample's true nearest are found often enough.

        The sample is disturbed to a cosine of 0.7: a query in words is further from every picture than pictures of one
        scene are from each other.
        """
        sample = unit_rows(np.asarray(sample[:_TUNING_QUERIES], dtype=np.float32))
        if not len(sample) or len(self) <= _TUNING_DEPTH:
            return
        noise = unit_rows(np.random.default_rng(0).standard_normal(sample.shape).astype(np.float32))
        queries = unit_rows(sample + noise)
        self._probes = int(self._index.nlist)
        truth, _ = self.search(queries, _TUNING_DEPTH)
        self._probes = self._least_probes()
        while self._probes < self._index.nlist:
            found, _ = self.search(queries, _TUNING_DEPTH)
            hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
            if hits >= self.options.recall_target * truth.size:
                break
            self._probes = min(int(self._index.nlist), self._probes * 2)

    def outgrown(self, times: float) -> bool:
        return ideal_lists(len(self)) >= times * int(self._index.nlist)

    def __len__(self) -> int:
        return int(self._index.ntotal) if self._index is not None else 0

    @property
    def lists(self) -> int:
        return int(self._index.nlist)

    @property
    def probes(self) -> int:
        """How many lists a query looks into."""
        return self._probes

    @probes.setter
    def probes(self, value: int) -> None:
        self._probes = value

    def save(self, path: Path) -> dict[str, Any]:
        self._faiss.write_index(self._index, str(path))
        return {"probes": self._probes}

    def load(self, path: Path, settings: dict[str, Any]) -> None:
        self._index = self._read(path, "IndexIVFScalarQuantizer")
        self._probes = int(settings["probes"])

    def _least_probes(self) -> int:
        return max(min(16, self.lists), self.lists // 64)


def ideal_lists(count: int) -> int:
    """Number of lists for ``count`` vectors: the power of two near 4 sqrt(count), at most one for 39 vectors."""
    wanted = 1 << round(math.log2(4 * math.sqrt(max(count, 1))))
    return max(1, min(wanted, count // 39, 65_536))


def unit_rows(vectors: Floats) -> Scores:
    """Rows of length one ``[V, D]`` float32; a row of zeros stays."""
    vectors = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Scores = (vectors / np.where(length > 0, length, 1)).astype(np.float32, copy=False)
    return scaled


INDEX_KINDS: dict[str, type[IndexKind]] = {kind.name: kind for kind in (ExactKind, IvfKind)}
