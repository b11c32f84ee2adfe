"""Jobs from the command line to the answers, on Ray, with drawn films and a tiny model."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs.running import (
    ITEM_KEYS,
    SUBMIT_KEYS,
    Ran,
    assert_covered,
    copy_store,
    draw_film,
    draw_sound,
    environment,
    longreel,
    settings,
    spans_of,
    tiny_model,
)
from tests.sources.servers import MediaServer

pytestmark = pytest.mark.ray

SPACED = "name with spaces & ünïcode 视频.mp4"
SECRETS = ("pass word", "pass%20word", "hunter2hunter2")
START_TIME = "2024-05-01T08:30:00+00:00"


@dataclass
class World:
    """One job's input, its library and what it said."""

    folder: Path
    store: Path
    model: str
    inputs: list[str]
    env: dict[str, str]
    ran: Ran

    def submit(self, *arguments: str | Path, store: Path | None = None) -> Ran:
        return longreel(
            "submit", *arguments, "--store", store or self.store, "--model", self.model, "--json", env=self.env
        )

    def ask(self, *arguments: str | Path, store: Path | None = None) -> Ran:
        return longreel(*arguments, "--store", store or self.store, "--json", env=self.env)


PARTS = settings("ingest.part_seconds=3")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    top = tmp_path_factory.mktemp("world")
    films = top / "films"
    draw_film(films / SPACED, 10, seed=1)
    draw_film(films / "inner" / "short.mkv", 4, seed=2)
    whole = draw_film(top / "whole.mp4", 6, seed=3).read_bytes()
    (films / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (films / "text.mp4").write_text("this is no video\n" * 100)
    (films / "empty.mp4").touch()
    draw_sound(films / "sound.mp4")
    draw_film(top / "listed" / "listed.mp4", 5, seed=4)
    record = {"uri": "listed/listed.mp4", "name": "Gate", "tags": ["gate"], "start_time": START_TIME}
    (top / "list.jsonl").write_text(json.dumps(record) + "\n")
    model = tiny_model(top)
    with MediaServer(draw_film(top / "served" / "film.mp4", 4, seed=5).read_bytes()) as server:
        url = server.url("/login/film.mp4", "user:pass%20word@") + "?token=hunter2hunter2&camera=7"
        inputs = [str(films), str(top / "list.jsonl"), url]
        made = World(top, top / "store", model, inputs, environment(LONGREEL_CACHE=str(top / "cache")), Ran(0, "", ""))
        made.ran = made.submit(*inputs, *PARTS, "--tag", "all")
        yield made


def test_broken_files_cost_themselves_only(world: World) -> None:
    assert world.ran.code == 3, world.ran.err
    summary = world.ran.summary
    assert (summary["done"], summary["failed"], summary["skipped"], summary["cancelled"]) == (4, 4, 0, 0)
    items = world.ran.items
    failed = {name: item["error"]["type"] for name, item in items.items() if item["state"] == "failed"}
    assert failed == {
        "empty.mp4": "NotAVideo",
        "text.mp4": "NotAVideo",
        "truncated.mp4": "MediaUnreadable",
        "sound.mp4": "NoVideoStream",
    }
    assert all(item["uri"] in item["error"]["message"] for item in items.values() if item["error"])
    assert items[SPACED]["duration_seconds"] == pytest.approx(10, abs=0.01)
    for name in (SPACED, "short.mkv", "listed.mp4"):
        item = items[name]
        assert item["state"] == "done"
        assert item["error"] is None
        assert item["lost_seconds"] == 0
        assert item["frames_sampled"] >= item["frames_encoded"] > 0
        assert item["vectors"] >= item["segments"] > 1


def test_the_json_contract(world: World) -> None:
    assert list(world.ran.summary) == SUBMIT_KEYS
    assert all(list(item) == ITEM_KEYS for item in world.ran.summary["items"])
    assert len(world.ran.summary["items"]) == 8
    ended = [event for event in world.ran.events if event.get("event") == "ended"]
    assert {event["uri"] for event in ended} == {item["uri"] for item in world.ran.summary["items"]}


def test_parts_cover_a_video_without_gaps(world: World) -> None:
    spans = spans_of(world.store, SPACED)
    assert_covered(spans, 10.0)
    assert {3.0, 6.0} <= {start for start, _ in spans}, "parts of 3 s begin there"
    assert {2.0, 4.0, 8.0} <= {start for start, _ in spans}, "the film's own cuts are found"


def test_names_tags_and_start_times(world: World) -> None:
    shown = world.ask("videos", "show", "Gate").value
    assert (shown["name"], shown["tags"], shown["start_time"]) == ("Gate", ["all", "gate"], START_TIME)
    assert [video["name"] for video in world.ask("videos", "list", "--tag", "gate").value] == ["Gate"]
    listed = world.ask("videos", "list").value
    assert {video["name"]: video["state"] for video in listed} == {
        SPACED: "done",
        "short.mkv": "done",
        "Gate": "done",
        "film.mp4": "done",
        "empty.mp4": "failed",
        "text.mp4": "failed",
        "truncated.mp4": "failed",
        "sound.mp4": "failed",
    }
    assert SPACED in longreel("videos", "list", "--store", world.store).out


def test_credentials_are_nowhere(world: World) -> None:
    (item,) = [item for item in world.ran.summary["items"] if item["uri"].startswith("http")]
    assert item["state"] == "done"
    assert item["uri"].endswith("/login/film.mp4?camera=7")
    for text in (world.ran.out, world.ran.err, world.ask("jobs", "show").out, world.ask("videos", "list").out):
        assert not [secret for secret in SECRETS if secret in text]
    found = []
    for folder in (world.store, world.folder / "cache"):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes() + str(path).encode()
            found += [(path, secret) for secret in SECRETS if secret.encode() in content]
    assert not found
    assert rays_logs_with((world.folder / "list.jsonl").stat().st_mtime, SECRETS) == []


def rays_logs_with(since: float, secrets: Sequence[str]) -> list[tuple[Path, str]]:
    """Files that Ray wrote since then and that hold one of the secrets; at least one log must have been there."""
    found, read = [], 0
    parent = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    for folder, _, names in os.walk(Path(parent) / "ray"):  # passes over folders that vanish
        for path in (Path(folder) / name for name in names):
            try:
                if not path.is_file() or path.is_symlink() or path.stat().st_mtime < since:
                    continue
                content = path.read_bytes()
            except FileNotFoundError:  # of another session, which ends just now
                continue
            read += path.suffix in (".log", ".out", ".err")
            found += [(path, secret) for secret in secrets if secret.encode() in content]
    assert read, f"no log of Ray in {parent}/ray"
    return found


def test_moments(world: World) -> None:
    answer = world.ask("query", "--like", f"{SPACED}@5")
    assert answer.code == 0
    assert list(answer.value) == [
        *("query", "model", "confident", "confident_percentile", "best_percentile", "moments", "mode"),
    ]
    first = answer.value["moments"][0]
    assert list(first) == [
        *("video", "uri", "name", "start_seconds", "end_seconds", "peak_seconds", "score", "percentile", "caption"),
        *("utc_start", "visual_rank", "caption_rank"),
    ]
    assert first["name"] == SPACED
    assert first["start_seconds"] <= 5 < first["end_seconds"]
    assert first["score"] == pytest.approx(1.0, abs=1e-3)
    shown = longreel("query", "--like", f"{SPACED}@5", "--store", world.store)
    assert SPACED in shown.out
    only = world.ask("query", "--like", f"{SPACED}@5", "--video", "Gate", "--limit", "2").value["moments"]
    assert {moment["name"] for moment in only} == {"Gate"}
    tagged = world.ask("query", "--like", f"{SPACED}@5", "--tag", "gate", "--from", "1", "--to", "3").value["moments"]
    assert {moment["name"] for moment in tagged} == {"Gate"}
    assert all(1 <= moment["start_seconds"] < moment["end_seconds"] <= 3 for moment in tagged)


def test_a_picture_finds_its_moment(world: World) -> None:
    import av

    with av.open(str(world.folder / "films" / SPACED)) as container:
        frame = next(frame for frame in container.decode(video=0) if frame.time is not None and frame.time >= 7)
    picture = world.folder / "asked.png"
    frame.to_image().save(picture)
    first = world.ask("query", "--image", picture).value["moments"][0]
    assert first["name"] == SPACED
    assert first["start_seconds"] <= 7 < first["end_seconds"]


def test_nothing_matched_is_exit_code_4(world: World) -> None:
    for arguments in (["--tag", "no-such-tag"], ["--added-after", "2999-01-01"], ["--from", "500"]):
        answer = world.ask("query", "--like", f"{SPACED}@5", *arguments)
        assert (answer.code, answer.value["moments"]) == (4, [])
    assert longreel("query", "--like", f"{SPACED}@5", "--tag", "x", "--store", world.store).code == 4


def test_jobs_remember(world: World) -> None:
    (job,) = world.ask("jobs", "list").value
    assert job["job"] == world.ran.summary["job"]
    assert job["state"] == "finished"
    assert job["counts"] == {"pending": 0, "done": 4, "failed": 4, "skipped": 0, "cancelled": 0}
    assert job["command"].startswith("longreel submit ")
    shown = world.ask("jobs", "show").value
    assert {item["uri"]: item["state"] for item in shown["items"]} == {
        item["uri"]: item["state"] for item in world.ran.summary["items"]
    }
    errors = world.ask("jobs", "errors").value
    assert sorted(error["type"] for error in errors) == ["MediaUnreadable", "NoVideoStream", "NotAVideo", "NotAVideo"]
    assert "NoVideoStream" in longreel("jobs", "errors", job["job"][:10], "--store", world.store).out


def test_submitting_again_starts_no_ray(world: World) -> None:
    good = [world.folder / "films" / SPACED, world.folder / "films" / "inner", world.folder / "list.jsonl"]
    again = world.submit(*good, *PARTS)
    assert again.code == 0
    assert (again.summary["done"], again.summary["skipped"]) == (0, 3)
    assert not [event for event in again.events if "Ray" in event.get("message", "")]
    first = world.ran.items
    for name, item in again.items.items():
        assert item == {**first[name], "state": "skipped"}


def test_tags_and_names_reach_what_is_done_already(world: World, tmp_path: Path) -> None:
    store = copy_store(world.store, tmp_path / "store")
    listed = tmp_path / "again.jsonl"
    record = {"uri": str(world.folder / "films" / "inner" / "short.mkv"), "name": "Yard", "start_time": START_TIME}
    listed.write_text(json.dumps(record) + "\n")
    again = world.submit(listed, world.inputs[2], world.folder / "listed", *PARTS, "--tag", "new", store=store)
    assert (again.code, again.summary["skipped"]) == (0, 3), again.err
    shown = {v["name"]: v for v in world.ask("videos", "list", "--tag", "new", store=store).value}
    assert sorted(shown) == ["Gate", "Yard", "film.mp4"], "a folder gives no name, so Gate keeps its own"
    tags = {name: world.ask("videos", "show", name, store=store).value["tags"] for name in shown}
    assert tags == {"Gate": ["all", "gate", "new"], "Yard": ["all", "new"], "film.mp4": ["all", "new"]}
    assert world.ask("videos", "show", "Yard", store=store).value["start_time"] == START_TIME


def test_another_model_is_refused_with_both_names(world: World) -> None:
    other = "openclip:ViT-B-32/random"
    refused = longreel("submit", world.folder / "films", "--store", world.store, "--model", other, "--json")
    assert refused.code == 2
    assert refused.error["type"] == "ModelMismatch"
    assert other in refused.error["message"]
    assert world.model in refused.error["message"]


def test_removing_a_video(world: World, tmp_path: Path) -> None:
    store = copy_store(world.store, tmp_path / "store")
    removed = world.ask("videos", "remove", "Gate", store=store)
    assert (removed.code, len(removed.value["removed"])) == (0, 1)
    assert "Gate" not in {video["name"] for video in world.ask("videos", "list", store=store).value}
    moments = world.ask("query", "--like", f"{SPACED}@5", "--limit", "50", store=store).value["moments"]
    assert moments
    assert "Gate" not in {moment["name"] for moment in moments}
    gone = world.ask("videos", "show", "Gate", store=store)
    assert (gone.code, gone.error["type"]) == (2, "UnknownVideo")
    asked = longreel("videos", "remove", "short.mkv", "--store", store)
    assert asked.code == 130, "nobody answered the question"
    assert "short.mkv" in {video["name"] for video in world.ask("videos", "list", store=store).value}


def vectors_by_video(store: Path) -> dict[str, set[str]]:
    with closing(sqlite3.connect(store / "catalog.sqlite3")) as connection:
        rows = connection.execute("SELECT videos.name, vectors.id FROM vectors JOIN videos ON videos.id = video_id")
        found: dict[str, set[str]] = {}
        for name, vector in rows:
            found.setdefault(name, set()).add(vector)
    return found


def test_what_changed_is_done_anew(world: World, tmp_path: Path) -> None:
    """A changed file in one job, retrying in the next, a changed setting in the last."""
    store = copy_store(world.store, tmp_path / "store")
    before = vectors_by_video(store)
    changed = world.folder / "films" / "inner" / "short.mkv"
    kept = changed.read_bytes()
    try:
        draw_film(changed, 6, seed=77)
        again = world.submit(world.folder / "films" / SPACED, changed, world.inputs[2], *PARTS, store=store)
        states = {name: item["state"] for name, item in again.items.items()}
        assert states == {SPACED: "skipped", "short.mkv": "done", "film.mp4?camera=7": "skipped"}
        assert again.items["short.mkv"]["duration_seconds"] == pytest.approx(6, abs=0.01)
        after = vectors_by_video(store)
        assert not before["short.mkv"] & after["short.mkv"]
        assert before[SPACED] == after[SPACED]
        assert_covered(spans_of(store, "short.mkv"), 6.0)
        moments = world.ask("query", "--like", "short.mkv@5", "--limit", "50", store=store).value["moments"]
        assert moments[0]["name"] == "short.mkv"
        assert len({(m["video"], m["start_seconds"]) for m in moments}) == len(moments)
    finally:
        changed.write_bytes(kept)
        os.utime(changed)

    # The text becomes a film: retrying the first job's failures does that one.
    mended = world.folder / "films" / "text.mp4"
    text = mended.read_bytes()
    try:
        draw_film(mended, 4, seed=6)
        retried = world.ask("jobs", "retry", world.ran.summary["job"], "--failed", store=store)
        assert retried.code == 3
        assert retried.items["text.mp4"]["state"] == "done"
        assert {item["state"] for name, item in retried.items.items() if name != "text.mp4"} == {"failed"}
        assert len(retried.items) == 4
        shown = world.ask("videos", "show", "text.mp4", store=store).value
        assert (shown["state"], shown["tags"], shown["error"]) == ("done", ["all"], None)
    finally:
        mended.write_bytes(text)

    finer = settings("ingest.part_seconds=3", "ingest.sampling.fps=5")
    again = world.submit(world.folder / "films" / SPACED, *finer, store=store)
    assert again.items[SPACED]["state"] == "done"
    assert again.items[SPACED]["frames_sampled"] == 50
    assert not before[SPACED] & vectors_by_video(store)[SPACED]
    assert world.ask("jobs", "retry", "latest", store=store).error["type"] == "NothingToDo"


def test_decoders_that_crash_and_hang(tmp_path: Path) -> None:
    for seed, name in enumerate(("crash.mp4", "good.mp4", "hang.mp4", "other.mp4", "slip.mp4")):
        draw_film(tmp_path / "films" / name, 4, seed=seed)
    values = settings("ingest.decode.decoder=tests.jobs.doubles:by_name", "ingest.decode.stall_seconds=3")
    model = tiny_model(tmp_path)
    ran = longreel("submit", tmp_path / "films", "--store", tmp_path / "s", "--model", model, "--json", *values)
    assert ran.code == 3, ran.err
    items = ran.items
    assert {name: item["state"] for name, item in items.items()} == {
        "crash.mp4": "failed",
        "good.mp4": "done",
        "hang.mp4": "failed",
        "other.mp4": "done",
        "slip.mp4": "failed",
    }
    assert items["slip.mp4"]["error"]["type"] == "UnexpectedError"
    assert "ZeroDivisionError: a slip of ours" in items["slip.mp4"]["error"]["message"]
    assert "Traceback" not in ran.err
    log = tmp_path / "s" / "jobs" / f"{ran.summary['job']}.log"
    assert "doubles.py" in log.read_text(), "the traceback is in the job's log"
    assert items["crash.mp4"]["error"]["type"] == "DecoderCrashed"
    assert "segmentation fault" in items["crash.mp4"]["error"]["message"]
    assert items["hang.mp4"]["error"]["type"] == "DecoderHung"
    assert "no frame for 3 s" in items["hang.mp4"]["error"]["message"]
    for name in ("good.mp4", "other.mp4"):
        assert_covered(spans_of(tmp_path / "s", name), 4.0)
