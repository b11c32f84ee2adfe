"""Ingest against the plain loop that everybody writes: speed, fidelity, vectors kept, memory.

    python scripts/bench_ingest.py                          # draws a video of its own
    python scripts/bench_ingest.py VIDEO... [--runs 3]      # your videos
    python scripts/bench_ingest.py VIDEO --memory           # peak memory, once and ten times as long

The plain loop: decord or PyAV decodes, every 1/fps seconds a frame goes through open_clip's own preprocessing, fp32
batches of 32 through the image tower, one normalised vector a frame into a flat FAISS index. Ours: the same video to
committed catalog and FAISS index, decoding in its own process. Both have the model loaded and their processes started;
runs alternate, so that a machine whose speed drifts treats both alike. Ratios are medians over pairs of runs.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

MODEL = "openclip:ViT-B-32/random"


@dataclass
class Plain:
    """What the plain loop gives: seconds, and an embedding ``[T, D]`` with its time for each sampled frame."""

    seconds: float
    pts_seconds: np.ndarray
    embedding: np.ndarray


def sample_indices(pts_seconds: np.ndarray, fps: float) -> list[int]:
    """The first frame at or after each k/fps: the same frames that our sampler takes."""
    chosen, following = [], -1
    for i, t in enumerate(pts_seconds):
        cell = int((t + 1e-6) * fps)
        if cell >= following:
            chosen.append(i)
            following = cell + 1
    return chosen


def plain_decord(path: str, fps: float):
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0))
    times = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]
    indices = sample_indices(times, fps)
    for start in range(0, len(indices), 32):
        batch = indices[start : start + 32]
        for i, picture in zip(batch, reader.get_batch(batch).asnumpy(), strict=True):
            yield float(times[i]), picture


def plain_pyav(path: str, fps: float):
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first, following = None, -1
        for frame in container.decode(stream):
            first = frame.pts if first is None else first
            seconds = float((frame.pts - first) * stream.time_base)
            cell = int((seconds + 1e-6) * fps)
            if cell >= following:
                following = cell + 1
                yield seconds, frame.to_ndarray(format="rgb24")


_plain: dict[str, Any] = {}


def load_plain(model_name: str) -> None:
    """In the plain loop's process: the model with the very weights of ours, and open_clip's own preprocessing."""
    import open_clip

    from encoders import load_encoder

    arch = model_name.partition(":")[2].partition("/")[0]
    _plain["model"] = load_encoder(model_name, precision="fp32")._model.eval()
    _plain["preprocess"] = open_clip.create_model_and_transforms(arch, pretrained=None)[2]


def run_plain(path: str, decoder: str, fps: float) -> Plain:
    import faiss
    import torch
    from PIL import Image

    model, preprocess = _plain["model"], _plain["preprocess"]
    began = time.perf_counter()
    index = faiss.IndexFlatIP(model.visual.output_dim)
    times: list[float] = []
    found: list[np.ndarray] = []
    batch: list[Any] = []

    def flush() -> None:
        if batch:
            with torch.inference_mode():
                features = model.encode_image(torch.stack(batch))
                features = torch.nn.functional.normalize(features, dim=-1).numpy()
            index.add(features)
            found.append(features)
            batch.clear()

    for seconds, picture in DECODERS[decoder](path, fps):
        times.append(seconds)
        batch.append(preprocess(Image.fromarray(picture)))
        if len(batch) == 32:
            flush()
    flush()
    return Plain(time.perf_counter() - began, np.array(times), np.concatenate(found))


DECODERS = {"decord": plain_decord, "PyAV": plain_pyav}


def run_ours(path: str, encoder: Any, child: Any, options: Any, folder: Path) -> tuple[float, Any, Any]:
    """Seconds, the item's result, and its vectors, from a fresh library."""
    from pipeline.adding import add_one
    from pipeline.catalog import Catalog
    from pipeline.index import VectorIndex
    from pipeline.index_kinds import IndexOptions
    from pipeline.sources import SourceItem

    target = folder / f"run-{time.monotonic_ns()}"
    target.mkdir()
    with Catalog(target / "catalog.sqlite3", dimension=encoder.info.dimension) as catalog:
        began = time.perf_counter()
        result = add_one(catalog, encoder, SourceItem(path, os.path.basename(path)), options, child)
        with VectorIndex.open(target / "index", catalog, encoder.info.dimension, IndexOptions()) as index:
            index.sync()
        seconds = time.perf_counter() - began
        if result.state != "done":
            raise SystemExit(f"{path}: {result.error}")
        vectors = catalog.vectors_of(result.video)
    return seconds, result, vectors


def fidelity(plain: Plain, vectors: Any) -> np.ndarray:
    """Cosine between the plain embedding of each sampled frame and the stored vector that covers its time."""
    stored = vectors.embedding.astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    order = np.argsort(vectors.start_seconds)
    which = order[np.searchsorted(vectors.start_seconds[order], plain.pts_seconds + 1e-6, side="right") - 1]
    return np.einsum("td,td->t", plain.embedding, stored[which])


def bench(paths: list[str], runs: int, fps: float, model_name: str) -> list[dict[str, Any]]:
    from encoders import load_encoder
    from pipeline.ingest import IngestOptions
    from pipeline.isolation import Isolated
    from pipeline.sampling import SamplingOptions

    options = IngestOptions(sampling=SamplingOptions(fps=fps))
    no_gate = replace(options, gate=replace(options.gate, enabled=False))
    encoder = load_encoder(model_name)
    exact = load_encoder(model_name, precision="fp32")
    rows = []
    # The plain loop has a process of its own, with torch as it comes: all cores, nothing of ours set.
    plain = ProcessPoolExecutor(1, get_context("spawn"), initializer=load_plain, initargs=(model_name,))
    with plain, tempfile.TemporaryDirectory() as scratch, Isolated() as child:
        folder = Path(scratch)
        for path in paths:
            run_ours(path, encoder, child, options, folder)  # warm: imports in both processes, file cache
            plain.submit(run_plain, path, "PyAV", fps).result()
            ours, ungated, single = [], [], []
            rivals: dict[str, list[Plain]] = {name: [] for name in DECODERS}
            for _ in range(runs):
                rivals["decord"].append(plain.submit(run_plain, path, "decord", fps).result())
                ours.append(run_ours(path, encoder, child, options, folder))
                rivals["PyAV"].append(plain.submit(run_plain, path, "PyAV", fps).result())
                single.append(run_ours(path, exact, child, options, folder)[0])
                ungated.append(run_ours(path, encoder, child, no_gate, folder)[0])
            reference = rivals["PyAV"][0]
            cosine = fidelity(reference, ours[0][2])
            sampled = len(reference.pts_seconds)
            best = [min(d.seconds, p.seconds) for d, p in zip(*rivals.values(), strict=True)]
            result = ours[0][1]
            rates = {f"plain loop, {name}": median(r.seconds for r in done) for name, done in rivals.items()}
            rates |= {
                "Longreel, fp32": median(single),
                f"Longreel ({encoder.info.precision}), gate off": median(ungated),
                f"Longreel ({encoder.info.precision})": median(r[0] for r in ours),
            }
            rows.append(
                {
                    "video": os.path.basename(path),
                    "sampled": sampled,
                    "encoded": result.frames_encoded,
                    "vectors": result.vectors,
                    "vectors_share": result.vectors / sampled,
                    "cosine_p5": float(np.percentile(cosine, 5)),
                    "cosine_median": float(np.median(cosine)),
                    "frames_per_second": {name: sampled / seconds for name, seconds in rates.items()},
                    "ratio": median(b / o[0] for b, o in zip(best, ours, strict=True)),
                    "ratio_runs": [b / o[0] for b, o in zip(best, ours, strict=True)],
                }
            )
            print_rows(rows[-1:])
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"\n### {row['video']}\n")
        print("| | sampled frames a second |\n|---|---|")
        for name, value in row["frames_per_second"].items():
            print(f"| {name} | {value:.1f} |")
        print(
            f"\n{row['ratio']:.2f}x the faster plain loop (runs: {', '.join(f'{r:.2f}' for r in row['ratio_runs'])}); "
            f"{row['encoded']} of {row['sampled']} sampled frames encoded; {row['vectors']} vectors "
            f"(1/{1 / row['vectors_share']:.1f} of one a frame); cosine to the plain embedding: 5th percentile "
            f"{row['cosine_p5']:.3f}, median {row['cosine_median']:.3f}",
            flush=True,
        )


# -- memory -----------------------------------------------------------------------------------------------------------


def lengthen(path: str, target: Path, times: int) -> None:
    """The same packets again and again, their times shifted: the same video ``times`` as long, not encoded anew."""
    import av

    with av.open(str(target), "w") as out:
        made = None
        offset = 0
        for _ in range(times):
            with av.open(path) as container:
                stream = container.streams.video[0]
                if made is None:
                    made = out.add_stream_from_template(stream)
                end = 0
                for packet in container.demux(stream):
                    if packet.dts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 1))
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = made
                    out.mux(packet)
                offset += end


def measure_memory(path: str, model_name: str) -> dict[str, float]:
    """Peak resident memory of both processes, in a process of its own."""
    code = f"""
import json, resource, tempfile, threading
from pathlib import Path
import psutil
from pipeline import Library

peak, ended = [0], threading.Event()

def watch():
    # The kernel's own high-water mark of the decoding process, read while it lives: that of ended children counts the
    # moment of their fork as well, when they still were the parent.
    while not ended.wait(0.05):
        for child in psutil.Process().children(recursive=True):
            try:
                text = Path(f"/proc/{{child.pid}}/status").read_text()
                peak[0] = max(peak[0], int(text.split("VmHWM:")[1].split()[0]))
            except (OSError, IndexError):
                pass

threading.Thread(target=watch, daemon=True).start()
with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "store", model={model_name!r}) as library:
    (result,) = library.add({path!r})
    assert result.state == "done", result
ended.set()
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"encode": own / 1024, "decode": peak[0] / 1024, "sampled": result.frames_sampled}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def bench_memory(path: str, model_name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        long = Path(scratch) / f"ten-times{Path(path).suffix}"
        lengthen(path, long, 10)
        once, ten = measure_memory(path, model_name), measure_memory(str(long), model_name)
    print(f"\n### Peak memory, {os.path.basename(path)} and the same ten times as long\n")
    print("| | sampled frames | encode process, MiB | decode process, MiB | together, MiB |\n|---|---|---|---|---|")
    for name, values in (("once", once), ("ten times", ten)):
        total = values["encode"] + values["decode"]
        row = f"| {name} | {values['sampled']:.0f} | {values['encode']:.0f} | {values['decode']:.0f} | {total:.0f} |"
        print(row)
    ratio = (ten["encode"] + ten["decode"]) / (once["encode"] + once["decode"])
    print(f"\nratio of the peaks: {ratio:.3f}")


def draw(folder: Path) -> str:
    """A minute of a still room with somebody passing now and then, for machines without videos."""
    from pipeline.sources.writing import write_video

    generator = np.random.default_rng(0)
    room = np.kron(generator.integers(60, 200, (12, 20, 3)), np.ones((30, 32, 1))).astype(np.uint8)

    def frames():
        for i in range(600):
            picture = room.copy()
            if 150 <= i % 300 < 220:
                left = (i % 300 - 150) * 8
                picture[120:300, left : left + 60] = (20, 30, 60)
            yield picture

    path = folder / "drawn-room.mp4"
    write_video(path, frames(), rate=10)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", metavar="VIDEO")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs for each video (default 3)")
    parser.add_argument("--fps", type=float, default=2.0, help="sampled frames a second (default 2)")
    parser.add_argument("--model", default=MODEL, help=f"an OpenCLIP model (default {MODEL})")
    parser.add_argument(
        "--memory", action="store_true", help="measure peak memory instead of speed, on the first video"
    )
    options = parser.parse_args()
    import faiss
    import torch

    shown = " ".join(os.path.relpath(word) if os.path.exists(word) else word for word in sys.argv[1:])
    print(
        f"`python scripts/bench_ingest.py {shown}`\n\n{len(os.sched_getaffinity(0))} cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}, faiss {faiss.__version__}, model {options.model} "
        f"(seed 0), {1 if options.memory else options.runs} runs, {options.fps:g} frames a second"
    )
    with tempfile.TemporaryDirectory() as scratch:
        videos = options.videos or [draw(Path(scratch))]
        if options.memory:
            bench_memory(videos[0], options.model)
        else:
            bench(videos, options.runs, options.fps, options.model)


if __name__ == "__main__":
    main()
