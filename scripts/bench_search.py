"""Measures the vector index kinds: latency of single queries, recall, memory, building, adding and removing.

    python scripts/bench_search.py                 1,000,000 vectors of 512 dimensions
    python scripts/bench_search.py --quick         50,000, in seconds
    python scripts/bench_search.py --kinds ivf,hnsw --vectors 200000

The vectors are made from a seed and look like embeddings of video: a direction that all share, themes, scenes within
themes of very different lengths, and frames within scenes. Queries are further frames of those scenes, disturbed a
little (near) or much (far, as words are from pictures).
Each kind runs in a process of its own, so that memory is its own. ``hnsw`` is a rival that is not shipped: it cannot
forget vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.index import IndexOptions, load_faiss
from pipeline.index_kinds import INDEX_KINDS, IndexKind, unit_rows

DEPTH = 10
CHANGED = 1000
CHUNK = 32_768
VARIANTS: dict[str, dict[str, str]] = {
    "exact": {"kind": "exact"},
    "ivf": {"kind": "ivf", "storage": "fp16"},
    "ivf-int8": {"kind": "ivf", "storage": "int8"},
    "hnsw": {"kind": "hnsw"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--kinds", default="exact,ivf,ivf-int8", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="50,000 vectors, 300 queries")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.vectors, arguments.queries = 50_000, 300
    if arguments.child:
        print(json.dumps(measure(arguments.child, Path(arguments.folder), arguments.threads)))
        return
    kinds = arguments.kinds.split(",")
    for kind in kinds:
        if kind not in VARIANTS:
            parser.error(f"kind {kind!r}: must be one of {', '.join(VARIANTS)}")
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), arguments)
        rows = []
        for kind in kinds:
            command = [sys.executable, __file__, "--child", kind, "--folder", name, "--threads", str(arguments.threads)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{kind}: done", file=sys.stderr)
    report(arguments, rows)


# -- the data ------------------------------------------------------------------------------------------------------


class Scenes:
    """Draws embeddings: shared direction, themes, scenes, frames."""

    def __init__(self, count: int, dimension: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.dimension = dimension
        scenes = max(1, count // 100)
        themes = unit_rows(rng.standard_normal((max(1, scenes // 50), dimension), dtype=np.float32))
        shared = unit_rows(rng.standard_normal((1, dimension), dtype=np.float32))
        themes = unit_rows(0.7 * shared + themes)
        which = rng.integers(0, len(themes), scenes)
        scale = np.float32(0.6 / np.sqrt(dimension))
        self.scenes = unit_rows(themes[which] + scale * rng.standard_normal((scenes, dimension), dtype=np.float32))
        lengths = rng.lognormal(0.0, 1.0, scenes)
        self.share = lengths / lengths.sum()

    def draw(self, count: int, rng: np.random.Generator, noise: float) -> npt.NDArray[np.float32]:
        """``count`` frames ``[count, D]``; ``noise`` is the length of what tells them from their scene."""
        which = rng.choice(len(self.scenes), count, p=self.share)
        spread = np.float32(noise / np.sqrt(self.dimension))
        drawn = rng.standard_normal((count, self.dimension), dtype=np.float32)
        return unit_rows(self.scenes[which] + spread * drawn)


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Draw vectors and queries into files, with the true nearest of each query."""
    scenes = Scenes(arguments.vectors, arguments.dimension, arguments.seed)
    rng = np.random.default_rng(arguments.seed + 1)
    # Near queries are like another picture of a scene, far ones (cosine about 0.4) like words for it.
    near, far = (scenes.draw(arguments.queries, rng, noise) for noise in (0.7, 2.0))
    queries = np.concatenate([near, far])
    shape = (arguments.vectors + CHANGED, arguments.dimension)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float16, shape=shape)
    best_scores = np.full((len(queries), DEPTH), -np.inf, dtype=np.float32)
    best = np.full((len(queries), DEPTH), -1, dtype=np.int64)
    for start in range(0, shape[0], CHUNK):
        rows = scenes.draw(min(CHUNK, shape[0] - start), rng, 0.5).astype(np.float16)
        vectors[start : start + len(rows)] = rows
        rows = rows[: max(0, arguments.vectors - start)]  # the last ones are added later
        scores = np.concatenate([best_scores, queries @ rows.astype(np.float32).T], axis=1)
        ids = np.concatenate([best, np.broadcast_to(np.arange(start, start + len(rows)), (len(queries), len(rows)))], 1)
        top = np.argpartition(-scores, DEPTH - 1, axis=1)[:, :DEPTH]
        best_scores, best = np.take_along_axis(scores, top, 1), np.take_along_axis(ids, top, 1)
    vectors.flush()
    middle = arguments.queries
    np.savez(folder / "queries.npz", near=near, far=far, near_truth=best[:middle], far_truth=best[middle:])


# -- one kind ------------------------------------------------------------------------------------------------------


class Hnsw(IndexKind):
    """A rival: a navigable graph over float16 vectors."""

    name = "hnsw"

    def prepare(self, sample: npt.NDArray[Any], count: int) -> None:
        faiss = self._faiss
        fp16 = faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexHNSWSQ(self.dimension, fp16, 16, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = 64
        self._index.hnsw.efSearch = 64
        self._index.train(np.zeros((1, self.dimension), dtype=np.float32))

    def add(self, ids: npt.NDArray[np.int64], vectors: npt.NDArray[Any]) -> None:
        self._index.add(vectors.astype(np.float32))

    def remove(self, ids: npt.NDArray[np.int64]) -> int:
        raise NotImplementedError

    def search(
        self, queries: npt.NDArray[Any], k: int, allowed_ids: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        return self._search(self._index, queries, k, None)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def save(self, path: Path) -> dict[str, Any]:
        self._faiss.write_index(self._index, str(path))
        return {}

    def load(self, path: Path, settings: dict[str, Any]) -> None:
        self._index = self._read(path, "IndexHNSWSQ")


def measure(variant: str, folder: Path, threads: int) -> dict[str, Any]:
    """Build one kind from the files in ``folder`` and measure it."""
    faiss = load_faiss()
    faiss.omp_set_num_threads(threads)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    loaded = np.load(folder / "queries.npz")
    queries = loaded["near"]
    count = len(vectors) - CHANGED
    settings = dict(VARIANTS[variant])
    name = settings.pop("kind")
    kinds = {**INDEX_KINDS, "hnsw": Hnsw}
    result: dict[str, Any] = {"variant": variant}
    before = private_bytes()
    kind = kinds[name](faiss, vectors.shape[1], IndexOptions(**settings))  # type: ignore[arg-type]

    started = time.perf_counter()
    sample = np.random.default_rng(0).choice(count, kind.sample_size(count), replace=False)
    kind.prepare(vectors[np.sort(sample)], count)
    del sample
    result["prepare_seconds"] = time.perf_counter() - started
    for start in range(0, count, CHUNK):
        end = min(start + CHUNK, count)
        kind.add(np.arange(start, end), vectors[start:end])
    kind.tune(vectors[: count : max(1, count // 96)])
    result["build_seconds"] = time.perf_counter() - started
    result["memory_bytes"] = private_bytes() - before
    result["detail"] = f"{kind.lists} lists, {kind.probes} probed" if hasattr(kind, "lists") else ""

    times = []
    found = []
    asked = queries if name != "exact" else queries[:50]
    kind.search(asked[:5], DEPTH)
    for query in asked:
        started = time.perf_counter()
        ids, _ = kind.search(query[None], DEPTH)
        times.append(time.perf_counter() - started)
        found.append(ids[0])
    result["p50_ms"], result["p99_ms"] = (float(np.percentile(times, q)) * 1e3 for q in (50, 99))
    result["recall"] = recall(np.array(found), loaded["near_truth"])
    far = loaded["far"][: len(asked)]
    result["far_recall"] = recall(kind.search(far, DEPTH)[0], loaded["far_truth"])

    started = time.perf_counter()
    kind.add(np.arange(count, count + CHANGED), vectors[count:])
    result["add_seconds"] = time.perf_counter() - started
    ids, _ = kind.search(vectors[count : count + 50].astype(np.float32), 1)
    assert (ids[:, 0] >= count).mean() > 0.9, "what was added is not found"
    if name != "hnsw":
        gone = np.random.default_rng(1).choice(count, CHANGED, replace=False)
        started = time.perf_counter()
        assert kind.remove(gone) == CHANGED
        result["remove_seconds"] = time.perf_counter() - started
        ids, _ = kind.search(vectors[np.sort(gone)[:50]].astype(np.float32), DEPTH)
        assert not np.isin(ids, gone).any(), "what was removed is still found"
    return result


def recall(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """Share of the true nearest that were found; ``truth`` may hold more queries than were asked."""
    return float(np.mean([len(np.intersect1d(a, b)) / DEPTH for a, b in zip(found, truth, strict=False)]))


def private_bytes() -> int:
    """Memory that is this process's own: resident, less what is mapped from files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


# -- the table -----------------------------------------------------------------------------------------------------


def report(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    faiss = load_faiss()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    print(
        f"bench_search: {arguments.vectors:,} vectors of {arguments.dimension}, {arguments.queries} queries, "
        f"recall@{DEPTH}, seed {arguments.seed}, {arguments.threads} threads"
    )
    print(f"Python {platform.python_version()}, numpy {np.__version__}, faiss {faiss.__version__}; {cpu}")
    print(f"command: python {' '.join(sys.argv)}\n")
    heads = ["kind", "p50 ms", "p99 ms", f"recall@{DEPTH}", "of far queries", "memory MB", "build s"]
    heads += [f"add {CHANGED:,} s", "of build", f"remove {CHANGED:,} s", "detail"]
    print(f"| {' | '.join(heads)} |")
    print(f"|{'---|' * len(heads)}")
    for row in rows:
        removed = f"{row['remove_seconds']:.4f}" if "remove_seconds" in row else "cannot"
        print(
            f"| {row['variant']} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} "
            f"| {row['recall']:.3f} | {row['far_recall']:.3f} "
            f"| {row['memory_bytes'] / 1e6:,.0f} | {row['build_seconds']:.1f} | {row['add_seconds']:.3f} "
            f"| {row['add_seconds'] / row['build_seconds']:.2%} | {removed} | {row['detail']} |"
        )


if __name__ == "__main__":
    main()
