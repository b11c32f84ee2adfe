"""A real clip over real RTSP, captioned as it comes, with its server away for ten seconds: what is found before, during
and after."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import av
import pytest
import webvtt
from PIL import Image

from tests.jobs.streaming import Watching
from tests.sources.live import servers

pytestmark = [pytest.mark.media, pytest.mark.ray]

# Seconds of the clip, each in another shot or scene of it, that do not look like each other.
BEFORE, AGAIN = 5.0, 20.0


@pytest.fixture
def started() -> Iterator[list[Watching]]:
    """Commands that a failed test may leave."""
    running: list[Watching] = []
    yield running
    for one in running:
        one.stop()


def picture_at(clip: Path, seconds: float, folder: Path) -> Path:
    """A frame of the clip as a file to ask by."""
    with av.open(str(clip)) as container:
        container.seek(int(seconds * av.time_base))
        frame = next(f for f in container.decode(video=0) if f.time is not None and f.time >= seconds)
        path = folder / f"at-{seconds:g}.png"
        Image.fromarray(frame.to_ndarray(format="rgb24")).save(path)
    return path


def test_a_real_clip_with_its_server_away_for_ten_seconds(media: Path, tmp_path: Path, started: list[Watching]) -> None:
    clip = media / "long" / "long_mix.mp4"
    pictures = {seconds: picture_at(clip, seconds, tmp_path) for seconds in (BEFORE, AGAIN)}
    out = tmp_path / "gate.vtt"
    with servers.rtsp(clip, tmp_path) as server:
        watching = Watching(
            server.url, "--name", "gate", "--captions", "tiny", "--model", "tiny", "--out", str(out),
            "--set", "live.source.stall_seconds=2", store=tmp_path / "store",
        )  # fmt: skip
        started.append(watching)

        def found(at: float, *more: str) -> list[dict[str, Any]]:
            asked = ("query", "--image", str(pictures[at]), "--limit", "3", *more)
            moments: list[dict[str, Any]] = watching.ask(*asked).value["moments"]
            return moments

        watching.wait_state("playing")
        watching.wait_status(lambda event: event["seconds"] >= AGAIN + 6)
        server.kill()
        killed = time.monotonic()
        gone = watching.wait_state("reconnecting")
        for at in (BEFORE, AGAIN):  # what was seen is found while the server is away
            (moment, *_) = found(at)
            assert moment["start_seconds"] - 0.5 <= at <= moment["end_seconds"] + 0.5
        time.sleep(max(0.0, 10 - (time.monotonic() - killed)))
        server.start()
        again = watching.wait_state("playing", connection=1)
        watching.wait_status(lambda event: event["seconds"] >= again["start_seconds"] + AGAIN + 6)
        # From its beginning again, on the same line of time: each scene once before the break and once after it.
        back = again["utc"]
        for at in (BEFORE, AGAIN):
            (earlier, *_) = found(at, "--before", back)
            (later, *_) = found(at, "--after", back)
            assert earlier["start_seconds"] - 0.5 <= at <= earlier["end_seconds"] + 0.5
            assert later["start_seconds"] - 0.5 <= again["start_seconds"] + at <= later["end_seconds"] + 0.5
            utc = datetime.fromisoformat(later["utc_start"])
            expected = datetime.fromisoformat(back) + timedelta(seconds=later["start_seconds"] - again["start_seconds"])
            assert abs((utc - expected).total_seconds()) < 0.01
        assert watching.ask("streams", "stop", "gate").code == 0
        ran, events = watching.finish()
    assert ran.code == 0, ran.err
    end = events[-1]
    assert (end["state"], end["connections"]) == ("ended", 2)
    # Nothing claims the time without a picture: no window, no caption, and a search between has no answer.
    spans = [
        (one["start_seconds"], one["end_seconds"])
        for one in watching.ask("videos", "show", "gate").value["segment_spans"]
    ]
    last = max(finish for _, finish in spans if finish <= again["start_seconds"])
    assert again["start_seconds"] - last >= 9
    assert all(finish <= last or start >= again["start_seconds"] - 0.01 for start, finish in spans)
    first_utc = datetime.fromisoformat(back) - timedelta(seconds=again["start_seconds"])
    inside = [(first_utc + timedelta(seconds=last + more)).isoformat() for more in (1.0, 8.0)]
    nothing = watching.ask("query", "a dog", "--after", inside[0], "--before", inside[1])
    assert (nothing.code, nothing.value["moments"]) == (4, [])
    # Its words: in order, none over the break, in the file as they were told, and as late as real time allows.
    cues = webvtt.read(str(out)).captions
    told = [event for event in events if event["event"] == "caption" and not event["extends"]]
    assert [cue.text for cue in cues] == [event["text"] for event in told]
    assert len(told) >= 4
    assert all(left.end_in_seconds <= right.start_in_seconds for left, right in itertools.pairwise(cues))
    assert all(cue.end_in_seconds <= last + 0.01 or cue.start_in_seconds >= int(again["start_seconds"]) for cue in cues)
    assert statistics.median(event["lag_seconds"] for event in told) < 10, "windows are of ten seconds"
    assert gone["reason"]
