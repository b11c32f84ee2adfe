"""`longreel stream` as it is used: real servers, real Ray, breaks in the middle, and what is left of each."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import srt
import webvtt

from pipeline.catalog import Catalog
from pipeline.store import Store
from tests.jobs.running import SLOW_TO_NOTICE, longreel, tiny_model
from tests.jobs.streaming import SCENE_SECONDS, Watching, scene_picture, scenes_film, until
from tests.sources.live import servers

pytestmark = pytest.mark.ray

LIVE = ("--set", "live.source.stall_seconds=2", "--set", "live.window.max_seconds=4")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes_film(tmp_path_factory.mktemp("film") / "film.mp4", 60)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return tiny_model(tmp_path)


@pytest.fixture
def started() -> Iterator[list[Watching]]:
    """Commands that a failed test may leave."""
    running: list[Watching] = []
    yield running
    for one in running:
        one.stop()


def seen(watching: Watching, folder: Path, scene: int, *more: str) -> list[dict[str, Any]]:
    """Where a scene is found, the best answers first."""
    answer = watching.ask("query", "--image", scene_picture(folder, scene), "--limit", "4", *more)
    moments: list[dict[str, Any]] = answer.value["moments"]
    return moments


def test_a_server_that_goes_away_for_ten_seconds(
    tmp_path: Path, film: Path, model: str, started: list[Watching]
) -> None:
    with servers.rtsp(film, tmp_path) as server:
        out = tmp_path / "gate.vtt"
        words = ["--captions", "tiny", "--out", str(out), "--name", "gate", "--model", model]
        watching = Watching(server.url, *words, *LIVE, store=tmp_path / "store")
        started.append(watching)
        watching.wait_state("playing")
        watching.wait_status(lambda event: event["seconds"] >= 2.5 * SCENE_SECONDS)
        server.kill()
        killed = time.monotonic()
        watching.wait_state("reconnecting")
        # While it is away, what was seen before is found.
        (first, *_) = seen(watching, tmp_path, 1)
        assert first["start_seconds"] < 1.5 * SCENE_SECONDS < first["end_seconds"]
        assert first["score"] > 0.99
        (listed,) = watching.ask("streams", "list").value
        assert (listed["name"], listed["state"], listed["running"]) == ("gate", "reconnecting", True)
        time.sleep(max(0.0, 10 - (time.monotonic() - killed)))
        server.start()
        again = watching.wait_state("playing", connection=1)
        watching.wait_status(lambda event: event["seconds"] >= again["start_seconds"] + 1.5 * SCENE_SECONDS)
        # While it runs: the scene is found after the break as well, at its place on the one line of time.
        both = sorted(moment["start_seconds"] for moment in seen(watching, tmp_path, 0)[:2])
        assert both[0] < SCENE_SECONDS / 2
        assert both[1] == pytest.approx(again["start_seconds"], abs=0.6)
        later = seen(watching, tmp_path, 0, "--after", again["utc"])
        assert [round(moment["start_seconds"]) for moment in later][:1] == [round(again["start_seconds"])]
        late = datetime.fromisoformat(later[0]["utc_start"]) - datetime.fromisoformat(again["utc"])
        assert late > timedelta(milliseconds=-1)  # it is told in milliseconds
        assert watching.ask("streams", "stop", "gate").value == {"asked": ["gate"], "stopped": ["gate"]}
        ran, events = watching.finish()
    assert ran.code == 0, ran.err
    end = events[-1]
    assert (end["event"], end["state"], end["error"]) == ("end", "ended", None)
    assert end["connections"] == 2
    assert end["gap_seconds"] == pytest.approx(again["start_seconds"] - _break_begins(watching), abs=1.0)
    assert end["gap_seconds"] >= 9
    # Nothing claims the time in which nothing was seen.
    begins, ends = _break_begins(watching), again["start_seconds"]
    shown = watching.ask("videos", "show", "gate").value
    spans = [(span["start_seconds"], span["end_seconds"]) for span in shown["segment_spans"]]
    assert all(end <= begins + 0.01 or start >= ends - 0.01 for start, end in spans), (spans, begins, ends)
    cues = webvtt.read(str(out)).captions
    assert cues
    assert all(left.end <= right.start for left, right in itertools.pairwise(cues))
    told = [event for event in events if event["event"] == "caption" and not event["extends"]]
    assert [event["text"] for event in told] == [cue.text for cue in cues]
    assert all(event["lag_seconds"] is not None and event["utc"] for event in told)
    first_utc = datetime.fromisoformat(told[0]["utc"])
    for event in told:
        if event["start_seconds"] < begins:
            expected = first_utc + timedelta(seconds=event["start_seconds"] - told[0]["start_seconds"])
            assert abs((datetime.fromisoformat(event["utc"]) - expected).total_seconds()) < 0.01


def _break_begins(watching: Watching) -> float:
    """Media time at which the picture went away."""
    states = [event for event in watching.events if event["event"] in ("state", "status")]
    before = itertools.takewhile(lambda event: event.get("state") != "reconnecting", states)
    reached = [event["seconds"] for event in before if event["event"] == "status"]
    after = [event["seconds"] for event in states if event["event"] == "status" and event["state"] == "reconnecting"]
    return float(max([*reached, *after[:1]]))


def test_ctrl_c_leaves_everything_whole(tmp_path: Path, film: Path, model: str, started: list[Watching]) -> None:
    outs = [tmp_path / f"{{name}}.{form}" for form in ("vtt", "srt", "jsonl", "m3u8")]
    words = [word for out in outs for word in ("--out", str(out))]
    other = scenes_film(tmp_path / "other.mp4", 50)
    watching = Watching(
        film, other, "--name", "one", "--name", "two", "--realtime", "--captions", "tiny", "--model", model, *words,
        "--record", str(tmp_path / "recorded"), *LIVE, store=tmp_path / "store",
    )  # fmt: skip
    started.append(watching)
    said: set[str] = set()
    watching.wait_for(lambda event: event["event"] == "caption" and (said.add(event["stream"]) or len(said) == 2))
    ran, events = watching.finish(signal.SIGINT)
    assert ran.code == 130
    assert [event["state"] for event in events if event.get("event") == "end"] == ["ended", "ended"]
    assert watching.left_over(but=SLOW_TO_NOTICE) == []
    for name in ("one", "two"):
        told = [e for e in events if e.get("event") == "caption" and e["stream"] == name and not e["extends"]]
        assert [cue.text for cue in webvtt.read(str(tmp_path / f"{name}.vtt")).captions] == [e["text"] for e in told]
        lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert [line["text"] for line in lines] == [event["text"] for event in told]
        assert (tmp_path / f"{name}.m3u8").read_text().endswith("#EXT-X-ENDLIST\n")
        assert list((tmp_path / "recorded" / name).glob("*.mkv"))
        ended = next(e for e in events if e.get("event") == "end" and e["stream"] == name)
        shown = watching.ask("videos", "show", name).value
        covered = shown["segment_spans"][-1]["end_seconds"]
        assert covered == pytest.approx(ended["seconds"], abs=0.2), "the window in progress is kept"
        written = longreel("captions", name, "--format", "jsonl", "--store", watching.store)
        assert [json.loads(line)["text"] for line in written.out.splitlines()] == [event["text"] for event in told]


def test_a_kill_loses_what_was_in_progress_only(
    tmp_path: Path, film: Path, model: str, started: list[Watching]
) -> None:
    out = tmp_path / "gate.srt"
    with servers.rtsp(film, tmp_path) as server:
        words = [server.url, "--name", "gate", "--model", model, "--captions", "tiny", "--out", str(out), *LIVE]
        watching = Watching(*words, store=tmp_path / "store")
        started.append(watching)
        reached = watching.wait_status(lambda event: event["seconds"] >= 3 * SCENE_SECONDS)["seconds"]
        family = watching.note_family()
        watching.process.kill()
        watching.process.wait()
        for process in family.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        (record,) = watching.ask("streams", "list", "--all").value
        assert (record["state"], record["running"]) == ("failed", False)
        spans = watching.ask("videos", "show", "gate").value["segment_spans"]
        assert spans[-1]["end_seconds"] >= reached - 4.5, "what had been flushed is there"
        said = out.read_text()
        assert [cue.index for cue in srt.parse(said, ignore_errors=False)][:1] == [1]
        # Of another library the file is none to go on with.
        other = Watching(*words, store=tmp_path / "other")
        started.append(other)
        refused, told = other.finish()
        assert (refused.code, told[-1]["error"]["type"]) == (2, "OutputError")
        assert out.read_text() == said
        # The same command goes on, on the same line of time.
        again = Watching(*words, store=tmp_path / "store")
        started.append(again)
        playing = again.wait_state("playing")
        assert playing["connection"] == 1
        again.wait_for(lambda event: event["event"] == "caption")
        assert playing["start_seconds"] > spans[-1]["end_seconds"]
        busy = Watching(*words, store=tmp_path / "store")
        started.append(busy)
        refused, told = busy.finish()
        assert refused.code == 2
        assert told[-1]["error"]["type"] == "StreamBusy"
        assert again.ask("streams", "stop", "--all").code == 0
        ran, _ = again.finish()
        assert ran.code == 0, ran.err
    cues = list(srt.parse(out.read_text(), ignore_errors=False))
    assert out.read_text().startswith(said)
    assert [cue.index for cue in cues] == list(range(1, len(cues) + 1))
    assert len(cues) > said.count(" --> ")
    assert all(left.end <= right.start for left, right in itertools.pairwise(cues))


def test_one_of_two_fails_and_the_other_goes_on(
    tmp_path: Path, film: Path, model: str, started: list[Watching]
) -> None:
    secret = "hunter2-very-secret"
    with servers.rtsp(film, tmp_path, login=("operator", "right", "basic")) as server:
        wrong = server.url.replace("operator:right", f"operator:{secret}")
        watching = Watching(
            wrong, film, "--name", "locked", "--name", "open", "--realtime", "--duration", "6", "--model", model, *LIVE,
            store=tmp_path / "store",
        )  # fmt: skip
        started.append(watching)
        ran, events = watching.finish()
    assert ran.code == 3
    ends = {event["stream"]: event for event in events if event["event"] == "end"}
    assert ends["locked"]["error"]["type"] == "StreamUnauthorised"
    assert ends["open"]["error"] is None
    assert ends["open"]["frames_encoded"] > 0
    assert secret not in ran.out + ran.err + json.dumps(events)
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_standard_input(tmp_path: Path, film: Path, model: str) -> None:
    import subprocess

    from tests.jobs.running import command, environment, settings

    if (ffmpeg := shutil.which("ffmpeg")) is None:
        pytest.skip("the program 'ffmpeg' is not installed")
    feed = subprocess.Popen(
        [ffmpeg, "-v", "error", "-t", "9", "-i", film, "-c", "copy", "-f", "mpegts", "-"], stdout=subprocess.PIPE
    )
    store = tmp_path / "store"
    done = subprocess.run(
        command("stream", "-", "--name", "feed", "--model", model, *settings(), "--store", store, "--json"),
        stdin=feed.stdout, capture_output=True, text=True, env=environment(), timeout=240, check=False,
    )  # fmt: skip
    feed.wait()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert events[-1]["seconds"] == pytest.approx(9, abs=0.3)
    assert events[-1]["frames_dropped"] == 0


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["gopher://x/y"], "UnknownScheme", "gopher"),
        (["rtsp://127.0.0.1:9/x", "rtsp://127.0.0.1:9/x"], "UsageError", "twice"),
        (["a.mp4", "b.mp4", "--name", "x"], "UsageError", "--name"),
        (["a.mp4", "--duration", "0"], "UsageError", "above 0"),
        (["a.mp4", "--no-index"], "UsageError", "--captions"),
        (["a.mp4", "--out", "x.vtt"], "UsageError", "--captions"),
        (["a.mp4", "b.mp4", "--captions", "tiny", "--out", "x.vtt"], "UsageError", "{name}"),
        (["a.mp4", "b.mp4", "--name", "x/y", "--name", "x:y", "--record", "kept"], "UsageError", "x_y"),
        (["a.mp4", "--captions", "tiny", "--out", "x.vtt", "--out", "./x.vtt"], "UsageError", "x.vtt"),
        (["a.mp4", "--captions", "tiny", "--out", "/proc/x.vtt"], "OutputError", "/proc/x.vtt"),
        (["a.mp4", "--captions", "tiny", "--out", "x.doc"], "OptionError", ".vtt"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    words: list[str], kind: str, said: str, tmp_path: Path, started: list[Watching]
) -> None:
    watching = Watching(*words, store=tmp_path / "store")
    started.append(watching)
    ran, events = watching.finish()
    assert ran.code == 2
    (told,) = events
    assert told["error"]["type"] == kind
    assert said in told["error"]["message"]


def test_files_of_a_stream_that_another_process_watches_are_left_alone(
    tmp_path: Path, model: str, started: list[Watching]
) -> None:
    """The command given twice: the second one is refused, and what the first one writes to stays as it is."""
    store = tmp_path / "store"
    playlist, segment = tmp_path / "gate.m3u8", tmp_path / "gate-00001.vtt"
    with Catalog(Store.create(store, model).catalog_path) as catalog:
        catalog.open_stream("udp://127.0.0.1:9", "gate", (), "live", "r", {})
        for file in (playlist, segment):
            file.write_text("captions")
        watching = Watching(
            "udp://127.0.0.1:9", "--name", "gate", "--captions", "tiny", "--model", model, "--out", str(playlist),
            store=store,
        )  # fmt: skip
        started.append(watching)
        ran, (told,) = watching.finish()
    assert ran.code == 2
    assert told["error"]["type"] == "StreamBusy"
    assert [file.read_text() for file in (playlist, segment)] == ["captions"] * 2


def test_a_stream_that_fails_says_why(tmp_path: Path, model: str, started: list[Watching]) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html><body>not a camera</body></html>")
    port = servers.free_port()
    watching = Watching(
        f"rtsp://127.0.0.1:{port}/live", str(page), str(tmp_path / "absent.mp4"), "--model", model, *LIVE,
        store=tmp_path / "store",
    )  # fmt: skip
    started.append(watching)
    ran, events = watching.finish()
    assert ran.code == 3
    types = [event["error"]["type"] for event in events if event["event"] == "end"]
    assert sorted(types) == ["NotAStream", "SourceNotFound", "StreamRefused"]
    until(lambda: watching.left_over(but=SLOW_TO_NOTICE) == [], "its processes end")
