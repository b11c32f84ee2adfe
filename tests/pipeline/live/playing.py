"""Streams of our own making: what is seen, when a connection breaks, and a model that shows what it was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.gate import GateOptions
from pipeline.live.options import WindowOptions
from pipeline.live.types import Connection, LiveBlock, LiveState
from pipeline.live.watcher import LiveWatcher, blocks
from pipeline.media import Frame
from pipeline.sampling import SamplingOptions
from pipeline.segments import SegmentOptions
from pipeline.sources.live import StateChange

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
SIDE = 48
RATE = 4  # frames a second, of which 2 are sampled
LIVE_TIME_BASE = Fraction(1, 1_000_000)


def picture(scene: int, shift: float = 0.0) -> npt.NDArray[np.uint8]:
    """A scene ``[H, W, 3]`` with a block that has moved so far: another scene is a cut, another place is news."""
    coarse = np.random.default_rng(scene).integers(0, 255, (6, 12, 3)).astype(np.uint8)
    image = np.kron(coarse, np.ones((SIDE // 6, 8, 1), np.uint8))
    left = int(shift) % (SIDE * 2 - 16)
    image[16:32, left : left + 16] = 255 if scene % 2 else 0
    return image


def play(script: Sequence[tuple[str, int]]) -> Iterator[Any]:
    """Messages of a stream: ("still", 4) and ("moving", 4) show a new scene for so many seconds, ("on", 4) goes on with
    the last one as it is, ("gap", 9) is a time without a connection."""
    second, scene, shift, number = 0.0, 0, 0.0, 0
    yield StateChange(LiveState.CONNECTING, "", START)
    yield Connection(number, 0.0, START)
    yield StateChange(LiveState.PLAYING, "", START)
    for what, seconds in script:
        if what == "gap":
            yield StateChange(LiveState.RECONNECTING, "the server went away", START + timedelta(seconds=second))
            second += seconds
            number += 1
            yield Connection(number, second, START + timedelta(seconds=second), reason="lost")
            yield StateChange(LiveState.PLAYING, "", START + timedelta(seconds=second))
            continue
        if what != "on":
            scene, shift = scene + 1, 0.0
        for _ in range(seconds * RATE):
            shift += 9.0 if what == "moving" else 0.0
            step = round(1 / RATE / LIVE_TIME_BASE)
            yield Frame(picture(scene, shift), round(second / LIVE_TIME_BASE), step, LIVE_TIME_BASE)
            second += 1 / RATE
    yield StateChange(LiveState.ENDED, "the end", START + timedelta(seconds=second))


def watched(script: Sequence[tuple[str, int]], window: WindowOptions | None = None) -> list[LiveBlock]:
    """The blocks that a watcher makes of it."""
    watcher = LiveWatcher(SamplingOptions(), GateOptions(), SegmentOptions(), window or WindowOptions())
    return list(blocks(watcher, play(script)))
