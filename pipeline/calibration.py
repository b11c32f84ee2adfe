"""What a score is worth: how the best answer to a question stands among the best answers to questions that have no
particular answer in this library.

A raw cosine says little by itself: one sentence is near to every picture, one picture to every sentence, and models
differ. So it is first measured how far a moment stands out for a question (:meth:`Calibration.rating`), and this is
compared with how far the best moment stands out for each question of a background:

- words: a fixed bank of plain sentences on wide topics (:mod:`pipeline.background_queries`);
- pictures, and moments that are asked for by their like: vectors of the library itself, about as many of each video,
  looked up in the videos that they are not from.

The share of the background that is answered less well is the percentile. It follows the library as it grows, and lies
beside it in ``calibration/``, from where it can be deleted at any time.

That a bank of other queries tells which vectors are near to all of them is from S.-V. Bogolin and others, "Cross Modal
Retrieval with Querybank Normalisation", 2021, arXiv 2112.12777; there it changes the order of the answers, here only
what is said of them. scripts/measure_calibration.py compares the readings that this one was chosen from.

Shapes: D width of the joint space, V vectors, S sample of the library, B queries of the background, k candidates.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.background_queries import background_queries, bank_version
from pipeline.errors import DiskFull
from pipeline.index_kinds import unit_rows
from pipeline.store import write_file_atomically

if TYPE_CHECKING:
    from pipeline.catalog.catalog import Catalog

__all__ = ["LEAST_VECTORS", "Calibration", "Calibrator", "calibrate_words", "evenly"]

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Floats]

LEAST_VECTORS = 10
"""In a smaller library nothing can be said of what is usual: there are no percentiles."""

_VERSION = 1
_STALE_SHARE = 0.1  # of the vectors, that may come and go before the background is asked again
_CANDIDATES = 8  # the index may keep vectors coarsely: so many are scored again from the catalog
_LEAST_LEVEL_SHARE = 0.5  # all or nothing of a query's level was each worse for some library
_PICTURES = 128
_ROUNDING = 1e-4  # two float16 forms of one vector differ by less, in the cosine with another
_SAME = 0.995  # cosine of one sentence with itself, encoded in two precisions


class _Index(Protocol):
    @property
    def seq(self) -> int: ...
    def __len__(self) -> int: ...
    def search(
        self, queries: npt.NDArray[Any], k: int, allowed_ids: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.int64], Floats]: ...


@dataclass(frozen=True)
class Calibration:
    """How far the best vector stood out for each query of a background: ``best [B]``, in rising order.

    Attributes:
        centre: mean [D] of the background's queries; zero for pictures. What a vector scores with it is what it scores
            with any question, and is taken out.
        level_share: 0 to 1: so much of a query's own level, the median of its scores over the library, is taken out.
        seq: the catalog's last change at that time.
        vectors: how many there were.

    Raises:
        ValueError: no background, or values that are not finite, not in order or out of range.
    """

    best: npt.NDArray[np.float64]
    centre: Floats
    level_share: float
    seq: int
    vectors: int

    def __post_init__(self) -> None:
        if self.best.ndim != 1 or not len(self.best) or not np.isfinite(self.best).all():
            raise ValueError(f"best must be [B], finite, B at least 1; got shape {list(self.best.shape)}")
        if (np.diff(self.best) < 0).any():
            raise ValueError("best must be in rising order")
        if self.centre.ndim != 1 or not np.isfinite(self.centre).all() or not 0 <= self.level_share <= 1:
            raise ValueError(
                f"centre must be [D] and finite, level_share from 0 to 1; got shape {list(self.centre.shape)} and "
                f"{self.level_share}"
            )

    def percentile(self, stand: float) -> float:
        """The share of the background, 0 to 100, whose best answer stands out less than ``stand``; a tie is none."""
        return 100.0 * float(np.searchsorted(self.best, stand - _ROUNDING, side="left")) / len(self.best)

    def rating(self, query: Floats, sample: npt.NDArray[Any]) -> Callable[[Floats], list[float]]:
        """What gives vectors ``[V, D]`` of the library their percentiles for a ``query [D]``; all of unit length.

        Args:
            sample: embeddings ``[S, D]`` of the library, at least one, to tell the query's own level.
        """
        towards = query - self.centre
        level = self.level_share * float(np.median(unit_rows(sample) @ towards))
        return lambda rows: [self.percentile(float(score) - level) for score in rows @ towards]

    def holds_for(self, seq: int, vectors: int) -> bool:
        """Whether the library has changed so little since that this still holds."""
        changes = max(seq - self.seq, abs(vectors - self.vectors))  # a removal of many vectors is one change
        return self.seq <= seq and changes <= _STALE_SHARE * self.vectors


class Calibrator:
    """Makes, keeps and renews the calibrations of one library. Safe for use by several threads.

    Args:
        folder: where they are kept; made when there is something to keep. If it cannot be written, that costs time, no
            more.
        catalog: of the library.
        model: fingerprint of the model that made its vectors.
        sample: size S of the sample that tells what is usual.
    """

    def __init__(self, folder: Path, catalog: Catalog, model: str, sample: int) -> None:
        self._folder = folder
        self._catalog = catalog
        self._model = model
        self._sample_size = sample
        self._lock = threading.Lock()
        self._words: Calibration | None = None
        self._pictures: Calibration | None = None
        self._bank: Floats | None = None

    def words(self, index: _Index, encode: Encode) -> Calibration | None:
        """The calibration of queries in words; ``None`` in a library of fewer than :data:`LEAST_VECTORS`.

        Args:
            index: of this library, up to date.
            encode: gives texts their unit vectors ``[B, D]``, as it does for queries.
        """
        with self._lock:
            if len(index) < LEAST_VECTORS:
                return None
            if self._words is None and (kept := self._read("words")) is not None:
                self._words, bank = kept
                # The texts may be put to the model in other words than when the file was made.
                if encode(background_queries()[:1])[0] @ bank[0] > _SAME:
                    self._bank = bank
                else:
                    self._words = None
            if self._words is None or not self._words.holds_for(index.seq, len(index)):
                if self._bank is None:
                    self._bank = unit_rows(np.asarray(encode(background_queries()), dtype=np.float32))
                self._words = self._of_words(index, self._bank)
                self._keep("words", self._words, self._bank)
            return self._words

    def pictures(self, index: _Index) -> Calibration | None:
        """The calibration of queries by picture; ``None`` as for :meth:`words`, and where there is one video only."""
        with self._lock:
            if len(index) < LEAST_VECTORS:
                return None
            if self._pictures is None and (kept := self._read("pictures")) is not None:
                self._pictures = kept[0]
            if self._pictures is None or not self._pictures.holds_for(index.seq, len(index)):
                self._pictures = self._of_pictures(index)
                if self._pictures is not None:
                    self._keep("pictures", self._pictures, np.zeros((0, 0), dtype=np.float32))
            return self._pictures

    # -- measuring -------------------------------------------------------------------------------------------------

    def _nearest(self, queries: Floats, ids: npt.NDArray[np.int64]) -> Floats:
        """The vector [B, D] nearest to each of ``queries [B, D]``, of those of ``ids``; zeros where none is left."""
        rows = self._catalog.vectors_by_id(np.unique(ids[ids >= 0]))
        if not len(rows):
            return np.zeros_like(queries)
        units = unit_rows(rows.embedding)
        found: Floats = units[(queries @ units.T).argmax(axis=1)]
        return found

    def _of_words(self, index: _Index, bank: Floats) -> Calibration | None:
        ids, _ = index.search(bank, _CANDIDATES)
        sample = self._catalog.sample_vectors(self._sample_size)
        return calibrate_words(bank, self._nearest(bank, ids), sample, index.seq, len(index))

    def _of_pictures(self, index: _Index) -> Calibration | None:
        rows = self._catalog.sample_rows(self._sample_size)
        chosen = evenly(rows.video, _PICTURES)
        owner = np.array([rows.video[i] for i in chosen])
        videos = sorted(set(owner))
        if len(videos) < 2:
            return None
        queries = unit_rows(rows.embedding[chosen])
        best = np.zeros_like(queries)
        for video in videos:
            asked, own = owner == video, self._catalog.ids_of_video(video)
            ids, _ = index.search(queries[asked], min(len(own) + _CANDIDATES, len(index)))
            ids = np.where(np.isin(ids, own), -1, ids)
            # What is left is in the order of the index, all of it further down than what was its own.
            first = np.take_along_axis(ids, np.argsort(ids < 0, axis=1, kind="stable")[:, :_CANDIDATES], axis=1)
            best[asked] = [self._nearest(one[None], few)[0] for one, few in zip(queries[asked], first, strict=True)]
        tops = np.einsum("bd,bd->b", best, queries).astype(np.float64)
        centre = np.zeros(queries.shape[1], dtype=np.float32)
        return _calibration(tops, best, centre, 0.0, index.seq, len(index))

    # -- files -----------------------------------------------------------------------------------------------------

    def _facts(self, name: str) -> dict[str, Any]:
        facts: dict[str, Any] = {"version": _VERSION, "model": self._model, "sample": self._sample_size}
        return {**facts, "bank": bank_version()} if name == "words" else facts

    def _read(self, name: str) -> tuple[Calibration, Floats] | None:
        path = self._folder / f"{name}.npz"
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                facts = json.loads(str(arrays["facts"]))
                seq, vectors = int(facts.pop("seq")), int(facts.pop("vectors"))
                share = float(facts.pop("level_share"))
                if facts != self._facts(name):
                    return None
                kept = Calibration(arrays["best"], arrays["centre"], share, seq, vectors)
                queries = arrays["queries"].astype(np.float32)
            if name == "words" and (len(queries) != len(background_queries()) or not np.isfinite(queries).all()):
                raise ValueError(f"queries are of shape {list(queries.shape)} or not finite")
            return kept, queries
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            _log.warning("%s cannot be used and is made again: %s: %s", path, type(error).__name__, error)
            return None

    def _keep(self, name: str, made: Calibration | None, queries: Floats) -> None:
        if made is None:
            return
        buffer = io.BytesIO()
        facts = {**self._facts(name), "seq": made.seq, "vectors": made.vectors, "level_share": made.level_share}
        arrays: dict[str, Any] = {"best": made.best, "centre": made.centre, "queries": queries.astype(np.float16)}
        np.savez(buffer, facts=np.array(json.dumps(facts)), **arrays)
        try:
            self._folder.mkdir(exist_ok=True)
            write_file_atomically(self._folder / f"{name}.npz", buffer.getvalue())
        except (OSError, DiskFull) as error:
            _log.warning("the calibration could not be kept and will be made again: %s", error)


def calibrate_words(
    bank: Floats, best: Floats, sample: npt.NDArray[Any], seq: int = 0, vectors: int = 0
) -> Calibration | None:
    """The calibration of queries in words.

    Args:
        bank: the background's queries ``[B, D]``, of unit length.
        best: the vector ``[B, D]`` of the library that is nearest to each; zeros where there is none.
        sample: embeddings ``[S, D]`` of the library.
    """
    centre = bank.mean(axis=0)
    towards = bank - centre
    tops = np.einsum("bd,bd->b", best, towards).astype(np.float64)
    levels = np.median(towards @ unit_rows(sample).T, axis=1)
    # Where a query's level says much of how well it is answered at best, it is the query's own and no answer.
    slope = np.cov(tops, levels)[0, 1] / max(float(levels.var(ddof=1)), 1e-12)
    share = float(np.clip(slope, _LEAST_LEVEL_SHARE, 1.0))
    return _calibration(tops - share * levels, best, centre, share, seq, vectors)


def _calibration(
    stands: npt.NDArray[np.float64], best: Floats, centre: Floats, share: float, seq: int, vectors: int
) -> Calibration | None:
    found = best.any(axis=1)
    return Calibration(np.sort(stands[found]), centre, share, seq, vectors) if found.any() else None


def evenly(owners: Sequence[str], limit: int) -> list[int]:
    """At most ``limit`` positions, about as many for each owner, spread evenly over what each owns."""
    places: dict[str, list[int]] = {}
    for i, owner in enumerate(owners):
        places.setdefault(owner, []).append(i)
    groups = list(places.values())
    if len(groups) > limit:
        groups = [groups[i * len(groups) // limit] for i in range(limit)]
    each, most = 1, max((len(group) for group in groups), default=0)
    while each < most and sum(min(len(group), each + 1) for group in groups) <= limit:
        each += 1
    return [group[i * len(group) // n] for group in groups for n in [min(len(group), each)] for i in range(n)]
