"""Runs the command line as a person does, in a process of its own, and draws the films that it is given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from pipeline.sources.writing import write_video
from tests.encoders.models import pictures, write_config

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 240

SUBMIT_KEYS = ["job", "done", "failed", "skipped", "cancelled", "items"]
ITEM_KEYS = [
    "uri",
    "video",
    "state",
    "error",
    "duration_seconds",
    "segments",
    "vectors",
    "frames_sampled",
    "frames_encoded",
    "lost_seconds",
    "captions",
    "captions_error",
]

# A model and workers that start fast.
QUICK = ("encoder.precision=fp32", "encoder.batch_size=8", "workers.object_store_bytes=100000000")


# Two of Ray's own watchers ask a cluster that was ended early for a minute before they end by themselves.
SLOW_TO_NOTICE = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def settings(*values: str) -> list[str]:
    """``--set`` for each of ``values``, after those that make a trial quick."""
    return [word for value in (*QUICK, *values) for word in ("--set", value)]


def tiny_model(folder: Path) -> str:
    """The name of a model that loads in no time; its configuration is written to ``folder``."""
    return f"openclip:{write_config(folder, 'vit')}/random"


@dataclass(frozen=True)
class Ran:
    """What a finished command gave."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; every line must be one."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def items(self) -> dict[str, dict[str, Any]]:
        """The summary's items by the last part of their URI."""
        return {item["uri"].rpartition("/")[2]: item for item in self.summary["items"]}

    @property
    def value(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error that ``--json`` told; it is the last line."""
        told: dict[str, str] = self.events[-1]["error"]
        return told


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, with our packages importable and without what would change a command's meaning."""
    dropped = {"LONGREEL_STORE", "LONGREEL_CACHE", "RAY_ADDRESS"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "jobs.cli.main", *map(str, arguments)]


def longreel(
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = TIMEOUT_SECONDS,
    before: Callable[[], None] | None = None,
) -> Ran:
    """Run a command to its end."""
    done = subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=env or environment(),
        cwd=cwd,
        timeout=timeout,
        preexec_fn=before,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class Running:
    """A command that goes on while the test looks; a process group of its own, as a terminal gives it."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env or environment(),
            start_new_session=True,
        )
        self.events: list[dict[str, Any]] = []
        self.family: dict[int, psutil.Process] = {}

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """Read events until one is as wanted, noting the processes that the command has started so far."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            self.events.append(event)
            if wanted(event):
                self.note_family()
                return event
            assert time.monotonic() < deadline, f"nothing as wanted among {self.events}"
        raise AssertionError(f"the command ended (code {self.process.wait()}) after {self.events}")

    def note_family(self) -> dict[int, psutil.Process]:
        """All processes that descend from the command now; remembered for :meth:`left_over`."""
        try:
            now = {child.pid: child for child in psutil.Process(self.process.pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            now = {}
        self.family |= now
        return now

    def end(self, timeout: float = TIMEOUT_SECONDS) -> Ran:
        """Wait for its end; what it wrote after the events already read stands in ``out``."""
        out, err = self.process.communicate(timeout=timeout)
        return Ran(self.process.returncode, out, err)

    def left_over(self, patience_seconds: float = 20.0, but: tuple[str, ...] = ()) -> list[str]:
        """Command lines of those of its family that still live after a while; those that begin as ``but`` may."""
        mine = [process for process in self.family.values() if not describe(process).startswith(but or ("\0",))]
        psutil.wait_procs(mine, timeout=patience_seconds)
        return [words for words in map(describe, mine) if words]

    def stop(self) -> None:
        """End it and all that it started, whatever state a failed test left it in."""
        self.note_family()
        for process in [*self.family.values(), psutil.Process(self.process.pid)] if self.process.poll() is None else []:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.communicate(timeout=30)


def describe(process: psutil.Process) -> str:
    """Its command line; empty when it has gone."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def draw_film(
    path: Path,
    seconds: float,
    seed: int,
    *,
    rate: int = 10,
    scene_seconds: float = 2.0,
    size: tuple[int, int] = (96, 128),
    keyframe_every: int = 10,
) -> Path:
    """A film of still scenes, each another picture, with a block that moves through them."""
    scenes = pictures(int(seconds / scene_seconds) + 1, *size, seed=seed)

    def frame(number: int) -> npt.NDArray[np.uint8]:
        picture = scenes[int(number / rate / scene_seconds)].copy()
        left = number * 5 % (size[1] - 24)
        picture[size[0] // 2 : size[0] // 2 + 24, left : left + 24] = 255 if number // 5 % 2 else 0
        return picture

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, map(frame, range(int(seconds * rate))), rate=rate, keyframe_every=keyframe_every)


def draw_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    import av

    container: Any = av.open(str(path), "w")
    with container:
        stream: Any = container.add_stream("aac", rate=48_000)
        for i in range(40):
            frame: Any = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy_store(store: Path, to: Path) -> Path:
    """Another library with the same content, for a test that changes it."""
    return Path(shutil.copytree(store, to))


def spans_of(store: Path, video: str) -> list[tuple[float, float]]:
    """The segments of a video, as the command line shows them."""
    shown = longreel("videos", "show", video, "--store", store, "--json").value
    return [(span["start_seconds"], span["end_seconds"]) for span in shown["segment_spans"]]


def assert_covered(spans: Sequence[tuple[float, float]], end_seconds: float) -> None:
    """The spans follow on each other from 0 to the end, without a gap."""
    assert spans[0][0] == 0.0
    assert all(left[1] == right[0] for left, right in pairwise(spans)), spans
    assert abs(spans[-1][1] - end_seconds) < 0.2
