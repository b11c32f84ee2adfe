"""What Ray costs: the same videos indexed in this process and by a batch job on Ray, both after start-up.

    python scripts/bench_ray.py VIDEO... [--runs 3]

Start-up (Ray, workers, model) is measured apart and printed. The work is the whole of it: inspect, decode, encode,
fuse, commit, vector index. Runs alternate; ratios are medians over pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from encoders import load_encoder
from jobs.batch import BatchJob
from jobs.engine import Engine, start_ray, stop_ray
from jobs.reporting import NullReporter
from jobs.runner import new_job_id
from jobs.settings import load_settings
from pipeline.adding import add_one
from pipeline.catalog import Catalog
from pipeline.index import VectorIndex
from pipeline.index_kinds import IndexOptions
from pipeline.isolation import Isolated
from pipeline.sources import find_sources

MODEL = "openclip:ViT-B-32/random"


def finish(catalog: Catalog, folder: Path, dimension: int) -> None:
    with VectorIndex.open(folder / "index", catalog, dimension, IndexOptions()) as index:
        index.sync()


def in_process(items: Any, encoder: Any, child: Isolated, settings: Any, folder: Path) -> float:
    with Catalog(folder / "catalog.sqlite3", dimension=encoder.info.dimension) as catalog:
        began = time.perf_counter()
        for item in items:
            result = add_one(catalog, encoder, item, settings.ingest, child)
            assert result.state == "done", result
        finish(catalog, folder, encoder.info.dimension)
        return time.perf_counter() - began


async def on_ray(items: Any, engine: Engine, settings: Any, folder: Path) -> float:
    with Catalog(folder / "catalog.sqlite3", dimension=engine.info.dimension) as catalog:
        job = new_job_id()
        catalog.create_job(job, {}, "bench_ray")
        began = time.perf_counter()
        summary = await BatchJob(catalog, engine, settings, job, NullReporter()).run(items)
        finish(catalog, folder, engine.info.dimension)
        seconds = time.perf_counter() - began
        assert summary.count("done") == len(items), summary
        return seconds


async def bench(items: Any, runs: int, model: str) -> None:
    settings = load_settings(overrides=[f"model={model}"])
    began = time.perf_counter()
    encoder = load_encoder(model)
    child = Isolated()
    model_seconds = time.perf_counter() - began
    # The precision and batches that were measured here, so that both do the very same work.
    settings = load_settings(
        overrides=[
            f"model={model}",
            f"encoder.precision={encoder.info.precision}",
            f"encoder.batch_size={encoder.info.batch_size}",
        ]
    )
    began = time.perf_counter()
    resources = start_ray(None, settings.workers)
    ray_seconds = time.perf_counter() - began
    rows: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        async with Engine(settings, resources) as engine:
            workers_seconds = time.perf_counter() - began - ray_seconds
            for run in range(runs + 1):
                folders = [Path(scratch) / f"{run}-{kind}" for kind in ("process", "ray")]
                for folder in folders:
                    folder.mkdir()
                # The first pair warms both up and is not counted.
                pair = (
                    await asyncio.to_thread(in_process, items, encoder, child, settings, folders[0]),
                    await on_ray(items, engine, settings, folders[1]),
                )
                if run:
                    rows.append(pair)
            stages = engine.stages
    stop_ray()
    child.close()
    encoder.close()
    print(
        f"start-up: model {model_seconds:.1f} s; Ray {ray_seconds:.1f} s, its workers and their model "
        f"{workers_seconds:.1f} s; stages: {', '.join(f'{s.count} {s.name}' for s in stages)}\n"
    )
    print("| run | in process, s | on Ray, s | Ray / in process |\n|---|---|---|---|")
    for i, (process, ray) in enumerate(rows, 1):
        print(f"| {i} | {process:.2f} | {ray:.2f} | {ray / process:.3f} |")
    print(f"\nmedian ratio {median(ray / process for process, ray in rows):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs that count (default 3)")
    parser.add_argument("--model", default=MODEL, help=f"an OpenCLIP model (default {MODEL})")
    options = parser.parse_args()
    import ray
    import torch

    shown = " ".join(os.path.relpath(word) if os.path.exists(word) else word for word in sys.argv[1:])
    items = find_sources(options.videos)
    print(
        f"`python scripts/bench_ray.py {shown}`\n\n{len(os.sched_getaffinity(0))} cores, Python "
        f"{platform.python_version()}, ray {ray.__version__}, torch {torch.__version__}, {options.model} (seed 0), "
        f"{len(items)} videos, {options.runs} runs"
    )
    asyncio.run(bench(items, options.runs, options.model))


if __name__ == "__main__":
    main()
