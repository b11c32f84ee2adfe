"""What every index kind must do, and what the index that follows a catalog must do with any of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog.records import VectorRows
from pipeline.errors import IndexDamaged, OptionError, QueryError
from pipeline.index import IndexOptions, VectorIndex, load_faiss
from pipeline.index_kinds import INDEX_KINDS, IndexKind, IvfKind, ideal_lists, unit_rows

DIMENSION = 24
VARIANTS = [("exact", "fp16"), ("ivf", "fp16"), ("ivf", "int8")]


def clustered(count: int, *, seed: int = 0, clusters: int = 40, noise: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = unit_rows(np.random.default_rng(99).standard_normal((clusters, DIMENSION)))
    spread = noise / np.sqrt(DIMENSION) * rng.standard_normal((count, DIMENSION))
    return unit_rows(centres[rng.integers(0, clusters, count)] + spread).astype(np.float16)


def make(kind: str, storage: str = "fp16") -> IndexKind:
    return INDEX_KINDS[kind](load_faiss(), DIMENSION, IndexOptions(storage=storage))


def filled(kind: str, storage: str, vectors: np.ndarray, ids: np.ndarray) -> IndexKind:
    index = make(kind, storage)
    index.prepare(vectors[: index.sample_size(len(vectors))], len(vectors))
    index.add(ids, vectors)
    index.tune(vectors[::7])
    return index


def brute_force(vectors: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    scored = [(one, float(vector.astype(np.float32) @ query)) for one, vector in vectors.items()]
    return sorted(scored, key=lambda pair: -pair[1])[:k]


def test_the_table_covers_the_variants() -> None:
    assert {kind for kind, _ in VARIANTS} == set(INDEX_KINDS)
    assert all(name == kind.name for name, kind in INDEX_KINDS.items())


@pytest.mark.parametrize(("kind", "storage"), VARIANTS)
class TestEveryKind:
    def test_finds_what_was_added(self, kind: str, storage: str) -> None:
        vectors = clustered(3000)
        ids = np.arange(3000, dtype=np.int64) + (1 << 62)  # ids take all of their 63 bits
        index = filled(kind, storage, vectors, ids)
        assert len(index) == 3000
        found, scores = index.search(vectors[:50].astype(np.float32), 1)
        assert (found[:, 0] == ids[:50]).mean() >= 0.98
        assert scores[:, 0] == pytest.approx(1.0, abs=0.02)

    def test_recall(self, kind: str, storage: str) -> None:
        vectors = clustered(3000)
        index = filled(kind, storage, vectors, np.arange(3000, dtype=np.int64))
        queries = unit_rows(
            clustered(60, seed=5) + 0.2 / np.sqrt(DIMENSION) * np.random.default_rng(1).normal(size=(60, DIMENSION))
        )
        truth = np.argsort(-(queries @ vectors.astype(np.float32).T), axis=1)[:, :10]
        found, scores = index.search(queries, 10)
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)])
        assert recall >= {"fp16": 0.95, "int8": 0.9}[storage]
        assert (np.diff(scores, axis=1) <= 0).all()  # best first

    def test_removed_ones_are_never_found(self, kind: str, storage: str) -> None:
        vectors = clustered(2000)
        ids = np.arange(2000, dtype=np.int64)
        index = filled(kind, storage, vectors, ids)
        gone = ids[::3]
        assert index.remove(np.concatenate([gone, [10**12]])) == len(gone)
        assert len(index) == 2000 - len(gone)
        found, _ = index.search(vectors[gone[:100]].astype(np.float32), 20)
        assert not np.isin(found, gone).any()
        assert index.remove(gone) == 0
        index.add(gone, vectors[gone])  # and come back
        found, _ = index.search(vectors[gone[:50]].astype(np.float32), 1)
        assert (found[:, 0] == gone[:50]).mean() >= 0.98

    def test_only_allowed_ids(self, kind: str, storage: str) -> None:
        vectors = clustered(2000)
        index = filled(kind, storage, vectors, np.arange(2000, dtype=np.int64))
        allowed = np.array([5, 900, 1999, 777777], dtype=np.int64)  # one of which is not there
        found, scores = index.search(vectors[:3].astype(np.float32), 5, allowed)
        assert np.isin(found[:, :3], allowed).all()
        assert (found[:, 3:] == -1).all()
        assert np.isneginf(scores[:, 3:]).all()

    def test_empty_and_emptied(self, kind: str, storage: str) -> None:
        index = make(kind, storage)
        index.prepare(np.zeros((0, DIMENSION), dtype=np.float16), 0)
        query = clustered(2).astype(np.float32)
        assert (index.search(query, 3)[0] == -1).all()
        vectors = clustered(10)
        index.add(np.arange(10, dtype=np.int64), vectors)
        assert index.search(vectors[4:5].astype(np.float32), 1)[0][0, 0] == 4
        assert index.remove(np.arange(10, dtype=np.int64)) == 10
        assert len(index) == 0
        assert (index.search(query, 3)[0] == -1).all()
        index.add(np.arange(10, dtype=np.int64), vectors)
        assert len(index) == 10

    def test_saved_and_read_back(self, kind: str, storage: str, tmp_path: Path) -> None:
        vectors = clustered(1500)
        index = filled(kind, storage, vectors, np.arange(1500, dtype=np.int64))
        again = make(kind, storage)
        again.load(tmp_path / "i", index.save(tmp_path / "i"))
        queries = clustered(20, seed=3).astype(np.float32)
        for left, right in zip(index.search(queries, 7), again.search(queries, 7), strict=True):
            np.testing.assert_array_equal(left, right)
        assert again.remove(np.arange(700, dtype=np.int64)) == 700  # what makes removal cheap was saved as well
        (tmp_path / "i").write_bytes(b"no index")
        with pytest.raises(IndexDamaged, match="i"):
            make(kind, storage).load(tmp_path / "i", {"probes": 1})

    def test_another_width_is_refused(self, kind: str, storage: str, tmp_path: Path) -> None:
        settings_ = filled(kind, storage, clustered(100), np.arange(100, dtype=np.int64)).save(tmp_path / "i")
        other = INDEX_KINDS[kind](load_faiss(), DIMENSION + 1, IndexOptions(storage=storage))
        with pytest.raises(IndexDamaged, match="width"):
            other.load(tmp_path / "i", settings_)


class FakeSource:
    """The catalog's side of the bargain, in memory."""

    def __init__(self) -> None:
        self.seq = 0
        self.live: dict[int, tuple[int, np.ndarray]] = {}
        self.removed: list[tuple[int, int]] = []
        self.read_rows = 0
        self.floor = 0

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        for one, vector in zip(ids, vectors, strict=True):
            self.seq += 1
            self.live[int(one)] = (self.seq, vector)

    def remove(self, ids: np.ndarray) -> None:
        self.seq += 1
        self.removed += [(self.seq, int(one)) for one in ids]
        for one in ids:
            del self.live[int(one)]

    def current_seq(self) -> int:
        return self.seq

    def count_vectors(self) -> int:
        return len(self.live)

    def vectors_since(self, seq: int, limit: int, until: int | None = None) -> VectorRows:
        rows = sorted((s, one, v) for one, (s, v) in self.live.items() if s > seq and (until is None or s <= until))[
            :limit
        ]
        self.read_rows += len(rows)
        embedding = np.array([v for _, _, v in rows], dtype=np.float16).reshape(len(rows), DIMENSION)
        zeros = np.zeros(len(rows))
        return VectorRows(
            np.array([s for s, _, _ in rows], dtype=np.int64),
            np.array([one for _, one, _ in rows], dtype=np.int64),
            embedding,
            zeros,
            zeros,
            zeros,
            [""] * len(rows),
            [0] * len(rows),
        )

    def removals_since(self, seq: int) -> np.ndarray:
        return np.array([one for s, one in self.removed if s > seq], dtype=np.int64)

    def removals_floor(self) -> int:
        return self.floor

    def forget(self) -> None:
        self.removed, self.floor = [], self.seq

    def sample_vectors(self, count: int) -> np.ndarray:
        found = [v for _, v in list(self.live.values())[:count]]
        return np.array(found, dtype=np.float16).reshape(len(found), DIMENSION)


POOL = clustered(400, seed=8, clusters=400, noise=1.0)


def assert_like_brute_force(index: VectorIndex, source: FakeSource) -> None:
    queries = clustered(5, seed=11, clusters=400).astype(np.float32)
    assert len(index) == len(source.live)
    ids, scores = index.search(queries, 10)
    for query, found, score in zip(queries, ids, scores, strict=True):
        expected = brute_force({one: v for one, (_, v) in source.live.items()}, query, 10)
        assert len([one for one in found if one >= 0]) == len(expected)
        # By score, since equal scores may stand in any order.
        np.testing.assert_allclose(score[: len(expected)], [s for _, s in expected], atol=2e-3)
        assert {int(one) for one in found if one >= 0} <= set(source.live)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "remove", "sync", "reopen", "forget"]), st.integers(1, 60)), max_size=12
    ),
    tail=st.sampled_from([0, 30, 20_000]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_changes_equals_brute_force(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], tail: int
) -> None:
    folder = tmp_path_factory.mktemp("index")
    source = FakeSource()
    options = IndexOptions(tail_vectors=tail)
    index = VectorIndex.open(folder, source, DIMENSION, options)
    rng = np.random.default_rng(len(steps))
    for step, amount in steps:
        if step == "add":
            absent = np.array(sorted(set(range(400)) - set(source.live)))[:amount]
            source.add(absent, POOL[absent])
        elif step == "remove" and source.live:
            live = np.array(list(source.live))
            source.remove(rng.choice(live, min(amount, len(live)), replace=False))
        elif step == "sync":
            index.sync()
        elif step == "forget":
            source.forget()
        elif step == "reopen":
            index.close()
            index = VectorIndex.open(folder, source, DIMENSION, options)
    index.sync()
    assert_like_brute_force(index, source)
    index.close()
    with VectorIndex.open(folder, source, DIMENSION, options) as again:
        assert_like_brute_force(again, source)


@pytest.mark.parametrize("saved", [False, True])
def test_one_that_missed_forgotten_removals_is_built_anew(tmp_path: Path, saved: bool) -> None:
    source = FakeSource()
    source.add(np.arange(50), POOL[:50])
    index = VectorIndex.open(tmp_path, source, DIMENSION, IndexOptions(tail_vectors=0 if saved else 20_000))
    source.remove(np.arange(0, 50, 2))
    source.add(np.arange(50, 60), POOL[50:60])
    source.forget()
    if saved:
        index.close()
        index = VectorIndex.open(tmp_path, source, DIMENSION, IndexOptions(tail_vectors=0))
    else:
        assert index.sync()
    assert_like_brute_force(index, source)
    assert index.sync() == 0
    source.remove(np.arange(1, 11, 2))
    assert index.sync() == 5
    assert_like_brute_force(index, source)
    index.close()


def test_ivf_follows_too(tmp_path: Path) -> None:
    source = FakeSource()
    vectors = clustered(4000, seed=2)
    options = IndexOptions(kind="ivf", tail_vectors=100)
    with VectorIndex.open(tmp_path, source, DIMENSION, options) as index:
        for i in range(0, 4000, 500):
            ids = np.arange(i, i + 500)
            source.add(ids, vectors[ids])
            assert index.sync() >= 500
        source.remove(np.arange(0, 4000, 2))
        index.sync()
        assert index.kind == "ivf"
        assert len(index) == 2000
        found, _ = index.search(vectors[1:400:2].astype(np.float32), 1)
        assert (found[:, 0] == np.arange(1, 400, 2)).mean() > 0.95
        source.remove(np.array(list(source.live)))
        index.sync()
        assert len(index) == 0
    with VectorIndex.open(tmp_path, source, DIMENSION, options) as index:
        assert len(index) == 0


def test_auto_changes_kind_with_hysteresis(tmp_path: Path) -> None:
    source = FakeSource()
    options = IndexOptions(exact_limit=300)
    vectors = clustered(1600)
    with VectorIndex.open(tmp_path, source, DIMENSION, options) as index:
        source.add(np.arange(300), vectors[:300])
        index.maintain()
        assert index.kind == "exact"
        source.add(np.arange(300, 310), vectors[300:310])
        index.sync()
        assert index.kind == "exact"  # a query does not wait for training
        index.maintain()
        assert index.kind == "ivf"
        source.remove(np.arange(0, 100))
        index.maintain()
        assert index.kind == "ivf"  # 210: not below half
        source.remove(np.arange(100, 200))
        index.maintain()
        assert index.kind == "exact"
        source.add(np.arange(400, 1600), vectors[400:1600])
        index.sync()
        assert index.kind == "ivf"  # four times the limit: long overdue


def test_a_few_new_vectors_rewrite_nothing_and_reread_nothing(tmp_path: Path) -> None:
    source = FakeSource()
    vectors = clustered(1200)
    options = IndexOptions(tail_vectors=500)
    source.add(np.arange(1000), vectors[:1000])
    VectorIndex.open(tmp_path, source, DIMENSION, options).close()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert any(name.endswith(".faiss") for name in before)
    source.add(np.arange(1000, 1200), vectors[1000:])
    source.read_rows = 0
    with VectorIndex.open(tmp_path, source, DIMENSION, options) as index:
        assert len(index) == 1200
        assert source.read_rows == 200
        assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "state", "empty state", "other", "behind", "other width"])
def test_a_damaged_index_is_rebuilt_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str) -> None:
    source = FakeSource()
    vectors = clustered(800)
    source.add(np.arange(800), vectors)
    options = IndexOptions(tail_vectors=10)
    VectorIndex.open(tmp_path, source, DIMENSION, options).close()
    (file,) = tmp_path.glob("*.faiss")
    state = tmp_path / "state.json"
    raw = bytearray(file.read_bytes())
    if harm == "cut":
        file.write_bytes(raw[: len(raw) // 2])
    elif harm == "flip":
        raw[len(raw) // 2] ^= 0xFF
        file.write_bytes(raw)
    elif harm == "gone":
        file.unlink()
    elif harm == "state":
        state.write_text("{")
    elif harm == "empty state":
        state.write_text("[]")
    elif harm == "other":  # the index of another library: right form, wrong content
        source.live.pop(3)
    elif harm == "behind":  # the catalog was put back from a backup
        source.seq = 5
        source.live = {one: pair for one, pair in source.live.items() if pair[0] <= 5}
    elif harm == "other width":
        state.write_text(json.dumps(json.loads(state.read_text()) | {"dimension": 7}))
    with caplog.at_level(logging.WARNING), VectorIndex.open(tmp_path, source, DIMENSION, options) as index:
        assert_like_brute_force(index, source)
    assert "rebuilt from the catalog" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING), VectorIndex.open(tmp_path, source, DIMENSION, options) as index:
        assert_like_brute_force(index, source)
    assert not caplog.text  # mended


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource()
    source.add(np.arange(50), clustered(50))
    (tmp_path / "index").write_text("a file in its place")
    options = IndexOptions(tail_vectors=1)
    folder = tmp_path / "index" / "deep"
    with caplog.at_level(logging.WARNING), VectorIndex.open(folder, source, DIMENSION, options) as index:
        assert len(index) == 50
    assert "could not be saved" in caplog.text


def test_bad_queries_and_options_are_refused(tmp_path: Path) -> None:
    with VectorIndex.open(tmp_path, FakeSource(), DIMENSION) as index:
        with pytest.raises(QueryError, match=r"\[Q, 24\]"):
            index.search(np.zeros((1, 5), dtype=np.float32), 1)
        with pytest.raises(QueryError, match="finite"):
            index.search(np.full((1, DIMENSION), np.nan, dtype=np.float32), 1)
    with pytest.raises(OptionError, match="auto, exact, ivf"):
        IndexOptions(kind="hnsw")
    with pytest.raises(OptionError, match="fp16, int8"):
        IndexOptions(storage="fp32")


def test_number_of_lists() -> None:
    assert ideal_lists(0) == 1
    assert ideal_lists(1_000_000) == 4096
    assert ideal_lists(50_000) == 1024
    assert all(ideal_lists(n) * 39 <= n for n in (39, 100, 5000))
    assert IvfKind.sample_size(10) == 10


def test_ivf_finds_what_to_remove_by_a_hash_table(tmp_path: Path) -> None:
    # Without it removal would still work, by looking at every vector.
    index = filled("ivf", "fp16", clustered(500), np.arange(500, dtype=np.int64))
    again = make("ivf")
    again.load(tmp_path / "i", index.save(tmp_path / "i"))
    for one in (index, again):
        assert one._index.direct_map.type == load_faiss().DirectMap.Hashtable
