"""Live streams: does memory stay, does the cost of a frame stay, how late are words, and how many streams fit.

    python scripts/bench_live.py                          all parts, clips drawn
    python scripts/bench_live.py --clips media/clips      real ones, played in real time as cameras
    python scripts/bench_live.py --part long --hours 2    two hours of a stream, fed as fast as it goes
    python scripts/bench_live.py --part lag --streams 8 --seconds 120
    python scripts/bench_live.py --quick                  two minutes, to see that it works

    long   resident memory, state bytes and cost a frame over simulated hours, in one process
    lag    `longreel stream` itself, on Ray: streams side by side, caption lag, freshness, drops
    model  the same, one stream with --big-model
    words  how often words change in a scene that goes on, and how right they are; with --packs only

Times depend on the machine and on what else it does; what is compared is within one run. The exit code is 1 where
something could not be measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from pipeline.media import Frame
    from scripts.benching.tables import Report

PARTS = ("long", "lag", "model", "words")
_SCENE_SECONDS = 20
# NVIDIA's blueprint for video search and summarization states these for live captions on one H100 with chunks of 10 s.
VSS = ("NVIDIA VSS, one H100 (as stated)", 33, "10 s", "4.78", "-", "6.44")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (several times for more)")
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="videos to play (drawn where none is given)")
    parser.add_argument("--packs", type=Path, metavar="FOLDER", help="with flickr8k, for the words")
    parser.add_argument("--photographs", type=int, default=60, help="of the part words (%(default)s)")
    parser.add_argument("--model", default="tiny", help="to see and to caption with (%(default)s)")
    parser.add_argument("--big-model", default="openclip:ViT-B-32/random", help="of the last part (%(default)s)")
    parser.add_argument("--hours", type=float, default=2.0, help="simulated (%(default)g)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 12], help="side by side (1 8 12)")
    parser.add_argument("--seconds", type=float, default=90.0, help="of each run of the other parts (%(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--quick", action="store_true", help="see above")
    options = parser.parse_args(arguments)
    options.part = options.part or [part for part in PARTS if part != "words" or options.packs]
    if "words" in options.part and options.packs is None:
        parser.error("--part words needs --packs")
    if options.quick:
        options.hours, options.streams, options.seconds, options.photographs = 0.1, [2], 20.0, 3
    return options


# -- hours in minutes --------------------------------------------------------------------------------------------------


def simulated(seconds: float, fps: float = 2.0, side: int = 96) -> Iterator[Frame]:
    """A camera's frames: scenes of photographs' statistics that pan, stand still, and change, for ever another."""
    from fractions import Fraction

    import numpy as np

    from pipeline.media import Frame

    time_base = Fraction(1, 1_000_000)
    chance = np.random.default_rng(0)
    step = round(1 / fps / time_base)
    height, width = side, side * 16 // 9
    scene = np.zeros((height, width, 3), np.uint8)
    left, still = 0.0, False
    for number in range(int(seconds * fps)):
        if number % int(_SCENE_SECONDS * fps) == 0:  # a new scene; every third one stands still
            coarse = chance.integers(0, 255, (6, 24, 3)).astype(np.uint8)
            scene = np.kron(coarse, np.ones((height // 6, width // 12, 1), np.uint8))[:height]
            left, still = 0.0, chance.random() < 0.33
        left += 0.0 if still else 1.5
        view = np.ascontiguousarray(scene[:, int(left) : int(left) + width])
        noisy = np.clip(view.astype(np.int16) + chance.integers(-2, 3, view.shape), 0, 255).astype(np.uint8)
        yield Frame(noisy, number * step, step, time_base)


def long_run(options: argparse.Namespace, report: Report) -> None:
    """Hours of a stream through watcher, digest, captions and catalog, without waiting."""
    from datetime import datetime, timezone

    import psutil

    from encoders.captioning import load_captioner
    from pipeline.ingest import IngestOptions
    from pipeline.library import Library
    from pipeline.live.captions import LiveCaptioner
    from pipeline.live.digest import LiveDigest
    from pipeline.live.loop import StreamTask, open_session, recipe_of
    from pipeline.live.options import LiveSettings, MemoryOptions, RetentionOptions
    from pipeline.live.types import Connection, LiveState
    from pipeline.live.watcher import LiveWatcher
    from pipeline.sources.live import StateChange
    from scripts.benching.tables import progress

    process = psutil.Process()
    ingest = IngestOptions()
    settings = LiveSettings(memory=MemoryOptions(tokens=256), retention=RetentionOptions(hours=0.25, every_seconds=5))
    total = options.hours * 3600
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch, Library.open(Path(scratch) / "library", options.model) as library:
        encoder = library.encoder
        with library.writing("bench"):
            library.store.bind(encoder.info)
        library.catalog.dimension = encoder.info.dimension
        with load_captioner(options.model) as captioner:
            fingerprint = encoder.info.fingerprint
            digest = LiveDigest(encoder, ingest.digest, settings.window, settings.memory, tokens=True)
            words = LiveCaptioner(captioner, fingerprint, settings.captions, ingest.digest.tokens)
            task = StreamTask.of("udp://239.0.0.1:1", "simulated", settings, ingest, 96)
            session, _ = open_session(
                library.catalog, task, settings, fingerprint, recipe_of(settings, ingest, fingerprint)
            )
            watcher = LiveWatcher(ingest.sampling, ingest.gate, ingest.segments, settings.window)
            now = datetime.now(timezone.utc)
            messages: list[Any] = [Connection(0, 0.0, now), StateChange(LiveState.PLAYING, "", now)]
            began, spent = time.perf_counter(), 0.0
            for frames, message in enumerate(itertools.chain(messages, simulated(total)), 1 - len(messages)):
                before = time.perf_counter()
                for block in watcher.take(message):
                    session.take(block)
                    taken = digest.take([(session.video_id, block)])[0]
                    session.commit(taken.windows)
                    for caption in words.caption([(session.video_id, content) for content in taken.closed]):
                        session.caption(caption)
                    session.beat(time.monotonic())
                spent += time.perf_counter() - before
                if frames > 0 and frames % 120 == 0:  # a simulated minute
                    rows.append(
                        {
                            "minute": frames / 120,
                            "rss": process.memory_info().rss / 2**20,
                            "state": digest.state_bytes + words.state_bytes,
                            "ms": 1000 * spent / 120,
                            "captions": session.counts.captions,
                        }
                    )
                    spent = 0.0
                    if len(rows) % 20 == 0:
                        progress(f"{rows[-1]['minute']:.0f} min simulated, {rows[-1]['rss']:.0f} MiB")
            session.close()
            wall = time.perf_counter() - began
    _tell_long(report, rows, wall)


def _tell_long(report: Report, rows: list[dict[str, float]], wall: float) -> None:
    report.section(
        "Hours of one stream",
        f"{rows[-1]['minute']:.0f} simulated minutes in {wall / 60:.1f}, 2 sampled frames a second, with captions, a "
        f"long memory of 256 tokens, and retention of a quarter of an hour. Scenes change every {_SCENE_SECONDS} s.",
    )
    marks = [row for row in rows if row["minute"] in (2, 5, 10, 30, 60, 120) or row is rows[-1]]
    marks = list({row["minute"]: row for row in marks}.values())
    report.table(
        "Memory, state and cost as a stream goes on",
        ["minute", "resident, MiB", "state, kB", "ms a frame, that minute", "captions"],
        [
            [
                f"{r['minute']:.0f}",
                f"{r['rss']:.0f}",
                f"{r['state'] / 1e3:.0f}",
                f"{r['ms']:.2f}",
                f"{r['captions']:.0f}",
            ]
            for r in marks
        ],
        "State: pictures, embeddings and tokens that the digest holds between two blocks, memory included; it "
        "rises and falls within each window.",
        rows,
    )
    early = next((row for row in rows if row["minute"] >= 2), rows[0])
    tenth = max(1, len(rows) // 10)
    last = sum(row["ms"] for row in rows[-tenth:]) / tenth
    first = sum(row["ms"] for row in rows[1 : 1 + tenth]) / tenth if len(rows) > tenth else rows[0]["ms"]
    growth = rows[-1]["rss"] / early["rss"] - 1
    report.verdict("resident memory at the end within 2% of minute 2", growth <= 0.02, f"{100 * growth:+.1f}%")
    peaks = [max(row["state"] for row in part) for part in (rows[1 : 1 + tenth], rows[-tenth:]) if part]
    if len(peaks) == 2:
        change = peaks[1] / peaks[0] - 1
        report.verdict(
            "state bytes within 2%", change <= 0.02, f"peak of the last tenth {100 * change:+.1f}% of the first"
        )
    change = last / first - 1
    report.verdict("cost a frame at the end within 10% of the beginning", change <= 0.10, f"{100 * change:+.1f}%")


# -- as it is used -----------------------------------------------------------------------------------------------------


def clips_of(options: argparse.Namespace, scratch: Path) -> list[Path]:
    """Videos to play: those given, else some that are drawn."""
    if options.clips is not None:
        endings = {".mp4", ".webm", ".mkv", ".mov", ".ts"}
        found = sorted(path for path in options.clips.iterdir() if path.suffix.lower() in endings)
        if not found:
            raise SystemExit(f"{options.clips}: no videos ({', '.join(sorted(endings))})")
        return found
    from pipeline.sources.writing import write_video

    drawn = []
    for number in range(4):
        frames = (frame.image for frame in simulated(60, fps=12.5, side=360))
        drawn.append(write_video(scratch / f"drawn-{number}.mp4", frames, rate=12))
    return drawn


def looped(clip: Path, to: Path, seconds: float) -> Path:
    """A clip that lasts at least so long, repeated without being encoded again."""
    subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-stream_loop",
            "-1",
            "-i",
            clip,
            "-map",
            "0:v:0",
            "-c",
            "copy",
            "-t",
            f"{seconds + 10}",
            to,
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return to


def run_streams(clips: list[Path], count: int, seconds: float, model: str, captions: str) -> dict[str, Any]:
    """`longreel stream` with so many streams in real time; the last status of each, and what it took."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        urls, names = [], []
        for number in range(count):
            clip = clips[number % len(clips)]
            urls.append(str(looped(clip, folder / f"{number}{clip.suffix}", seconds)))  # twice a clip is two streams
            names += ["--name", f"camera-{number}"]
        words = [sys.executable, "-m", "jobs.cli.main", "stream", *urls, *names, "--realtime", "--json"]
        words += ["--store", str(folder / "library"), "--model", model, "--duration", str(seconds)]
        if captions:
            words += ["--captions", captions]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        began = time.perf_counter()
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, timeout=seconds + 240, check=False
        )
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        ends = [event for event in events if event.get("event") == "end"]
        if done.returncode != 0 or len(ends) != count:
            raise RuntimeError(f"exit code {done.returncode}, {len(ends)} of {count} ended: {done.stderr[-400:]}")
        return {"ends": ends, "events": events, "wall": time.perf_counter() - began}


def lags(events: list[dict[str, Any]]) -> list[float]:
    return sorted(e["lag_seconds"] for e in events if e.get("event") == "caption" and e["lag_seconds"] is not None)


def at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else math.nan


def lag_run(options: argparse.Namespace, report: Report, clips: list[Path]) -> None:
    report.section(
        "Streams side by side",
        f"`longreel stream` with --realtime, {options.seconds:g} s a run, {options.model} for seeing and captions, 2 "
        "sampled frames a second, windows of at most 10 s. Lag: from the end of a window to its words, start-up and "
        "last words included. Searchable: from a second's happening to its commit, the oldest of each commit.",
    )
    rows: list[list[object]] = []
    values = []
    for count in options.streams:
        try:
            found = run_streams(clips, count, options.seconds, options.model, options.model)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            report.unavailable(f"{count} streams", str(error))
            continue
        own = lags(found["events"])
        sums = {
            key: sum(end[key] for end in found["ends"])
            for key in ("frames_received", "frames_dropped", "windows_skipped", "captions", "connections")
        }
        fresh = max((end["freshness"]["p95"] or 0.0) for end in found["ends"])
        rows.append(
            [
                count, sums["captions"], f"{sum(own) / len(own) if own else math.nan:.2f}", f"{at(own, 0.5):.2f}",
                f"{at(own, 0.95):.2f}", f"{fresh:.2f}", sums["frames_received"], sums["frames_dropped"],
                sums["windows_skipped"],
            ]
        )  # fmt: skip
        values.append({"streams": count, "lags": own, "sums": sums})
        if count == 8:
            p95 = at(own, 0.95)
            report.verdict(
                "8 streams with caption lag p95 at most 2 s and no unexplained drop",
                p95 <= 2.0 and sums["frames_dropped"] == 0,
                f"p95 {p95:.2f} s, {sums['frames_dropped']} frames dropped, {sums['windows_skipped']} windows skipped",
            )
    header = ["streams", "captions", "lag mean, s", "p50", "p95", "searchable p95, s", "frames", "dropped", "skipped"]
    report.table("Lag by number of streams", header, rows, values=values)
    report.table(
        "In the form of NVIDIA's table",
        ["system", "streams", "chunk", "average lag, s", "p50, s", "p95, s"],
        [*[["Longreel, this machine", r[0], "up to 10 s", r[2], r[3], r[4]] for r in rows], list(VSS)],
        "Another machine, another model and another task (VSS's captions come of a large vision-language model): for "
        "scale, not for comparison.",
    )


def model_run(options: argparse.Namespace, report: Report, clips: list[Path]) -> None:
    report.section("One stream with a larger model", f"{options.big_model}, no captions, {options.seconds:g} s.")
    try:
        found = run_streams(clips, 1, options.seconds, options.big_model, "")
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        report.unavailable(options.big_model, str(error))
        return
    end = found["ends"][0]
    report.table(
        options.big_model,
        ["frames", "sampled", "encoded", "dropped", "searchable p50, s", "p95"],
        [
            [
                end["frames_received"], end["frames_sampled"], end["frames_encoded"], end["frames_dropped"],
                f"{end['freshness']['p50']:.2f}", f"{end['freshness']['p95']:.2f}",
            ]
        ],
    )  # fmt: skip
    report.verdict(
        "one stream without falling behind", end["frames_dropped"] == 0, f"{end['frames_dropped']} frames dropped"
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    from scripts.benching.tables import Report

    report = Report("Live streams")
    with tempfile.TemporaryDirectory() as scratch:
        if "long" in options.part:
            long_run(options, report)
        if {"lag", "model"} & set(options.part):
            clips = clips_of(options, Path(scratch))
            if "lag" in options.part:
                lag_run(options, report, clips)
            if "model" in options.part:
                model_run(options, report, clips)
        if "words" in options.part:
            from scripts.benching.live_words import words_part

            words_part(options.model, options.packs, options.photographs, report)
    return report.end(options.json)


if __name__ == "__main__":
    sys.exit(main())
