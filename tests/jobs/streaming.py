"""Films for live streams, and the command that watches them while a test looks."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.encoders.models import pictures
from tests.jobs.running import Ran, Running, environment, longreel, settings

RATE = 10
SIZE = (96, 128)
SCENE_SECONDS = 3


def scene(number: int) -> npt.NDArray[np.uint8]:
    """The picture of a scene, as every film here shows it."""
    return pictures(number + 1, *SIZE, seed=5)[number]


def scenes_film(path: Path, seconds: float) -> Path:
    """A film of unlike scenes, each for three seconds, with a block that moves; as servers of live video want it: key
    frames often, no reordering, one slice a picture."""
    shown = pictures(int(seconds / SCENE_SECONDS) + 1, *SIZE, seed=5)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "x264-params": "bframes=0:sliced-threads=0:scenecut=0"}
        video: Any = container.add_stream("libx264", rate=RATE, options=options)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        video.codec_context.gop_size = RATE // 2
        for number in range(int(seconds * RATE)):
            picture = shown[int(number / RATE / SCENE_SECONDS)].copy()
            left = number * 3 % (SIZE[1] - 16)
            picture[-16:, left : left + 16] = 255
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    return path


def scene_picture(folder: Path, number: int) -> Path:
    """The picture of a scene as a file to ask by."""
    path = folder / f"scene-{number}.png"
    Image.fromarray(scene(number)).save(path)
    return path


class Watching(Running):
    """``longreel stream ... --json`` that goes on while the test looks."""

    def __init__(self, *arguments: str | Path, store: Path, stdin: Any = None) -> None:
        self.store = store
        super().__init__("stream", *arguments, *settings(), "--store", store, "--json", env=environment())

    def wait_state(self, state: str, **more: Any) -> dict[str, Any]:
        """Until a stream is in this state."""
        return self.wait_for(
            lambda event: (
                event["event"] == "state"
                and event["state"] == state
                and all(event[key] == value for key, value in more.items())
            )
        )

    def wait_status(self, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Until a status is as wanted."""
        return self.wait_for(lambda event: event["event"] == "status" and enough(event))

    def ask(self, *arguments: str | Path) -> Ran:
        return longreel(*arguments, "--store", self.store, "--json")

    def finish(self, sent: signal.Signals | None = None) -> tuple[Ran, list[dict[str, Any]]]:
        """Wait for its end, after a signal if there is one; all events that it told."""
        if sent is not None:
            self.process.send_signal(sent)
        ran = self.end()
        events = self.events + [json.loads(line) for line in ran.out.splitlines()]
        return ran, events


def until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)
