"""Jobs, items and errors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import datetime, timezone
from typing import NoReturn

import pytest

from pipeline.catalog import Catalog
from pipeline.errors import InputError, NotAVideo, OptionError
from tests.catalog.content import add


def test_a_job_from_queued_to_finished(catalog: Catalog) -> None:
    job = catalog.create_job("job-1", {"fps": 2.0}, "longreel submit clips")
    assert (job.state, job.config, job.command, job.pid) == ("queued", {"fps": 2.0}, "longreel submit clips", None)
    assert sum(job.counts.values()) == 0
    now = datetime.now(timezone.utc)
    job = catalog.update_job("job-1", state="running", pid=7, host="here", started_at=now)
    assert (job.state, job.pid, job.host, job.started_at) == ("running", 7, "here", now)
    catalog.set_item("job-1", "/b.mp4", name="b.mp4")
    catalog.set_items("job-1", {"/a.mp4": {"state": "skipped"}, "/c.mp4": {}})
    catalog.set_item("job-1", "/b.mp4", state="done", video_id="v", numbers={"vectors": 3})
    catalog.set_item("job-1", "/c.mp4", state="failed", error_type="NotAVideo", error_message="text")
    items = catalog.items("job-1")
    assert [(item.uri, item.index, item.state) for item in items] == [
        ("/b.mp4", 0, "done"),
        ("/a.mp4", 1, "skipped"),
        ("/c.mp4", 2, "failed"),
    ]
    assert (items[0].name, items[0].video_id, items[0].numbers) == ("b.mp4", "v", {"vectors": 3})
    assert (items[2].error_type, items[2].error_message) == ("NotAVideo", "text")
    assert [item.uri for item in catalog.items("job-1", state="failed")] == ["/c.mp4"]
    counts = catalog.update_job("job-1", state="finished", ended_at=now).counts
    assert counts == {"pending": 0, "done": 1, "failed": 1, "skipped": 1, "cancelled": 0}


def test_finding_jobs(catalog: Catalog) -> None:
    with pytest.raises(InputError, match="no job was ever started"):
        catalog.job("latest")
    for name in ("20260101-aa", "20260101-bb", "20260202-cc", "x%y"):
        catalog.create_job(name, {}, "c")
    assert catalog.job("latest").id == "x%y"
    assert catalog.job("202602").id == "20260202-cc"
    assert [job.id for job in catalog.jobs(limit=2)] == ["x%y", "20260202-cc"]
    assert len(catalog.jobs()) == 4
    with pytest.raises(InputError, match="ambiguous: 20260101-aa, 20260101-bb"):
        catalog.job("20260101")
    for absent in ("nothing", "", "x_"):
        with pytest.raises(InputError, match="no job"):
            catalog.job(absent)
    with pytest.raises(InputError, match="already"):
        catalog.create_job("x%y", {}, "c")


def test_unknown_fields_and_states_are_refused(catalog: Catalog) -> None:
    catalog.create_job("j", {}, "c")
    with pytest.raises(OptionError, match="'colour': must be one of state"):
        catalog.update_job("j", colour="red")
    with pytest.raises(OptionError, match="'lost': must be one of queued, running"):
        catalog.update_job("j", state="lost")
    with pytest.raises(OptionError, match="'running': must be one of pending, done"):
        catalog.set_item("j", "/a", state="running")
    with pytest.raises(InputError, match="no job 'k'"):
        catalog.set_item("k", "/a")
    with pytest.raises(OptionError, match="pending, done"):
        catalog.items("j", state="x")


def test_cancelling(catalog: Catalog) -> None:
    catalog.create_job("waiting", {}, "c")
    assert catalog.request_cancel("waiting").state == "cancelled"
    catalog.create_job("going", {}, "c")
    catalog.update_job("going", state="running", pid=os.getpid())
    assert not catalog.cancel_requested("going")
    assert catalog.request_cancel("going").state == "running"  # the job itself ends, when it sees this
    assert catalog.cancel_requested("going")
    catalog.update_job("going", state="cancelled")
    with pytest.raises(InputError, match="going is cancelled"):
        catalog.request_cancel("going")
    assert not catalog.cancel_requested("nothing")


def test_jobs_of_dead_processes_are_interrupted(catalog: Catalog) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    host = socket.gethostname()
    for name, pid, where in (("dead", dead.pid, host), ("alive", os.getpid(), host), ("elsewhere", dead.pid, "moon")):
        catalog.create_job(name, {}, "c")
        catalog.update_job(name, state="running", pid=pid, host=where)
    catalog.create_job("queued", {}, "c")
    assert catalog.mark_interrupted_jobs() == ["dead"]
    assert catalog.job("dead").state == "interrupted"
    assert catalog.job("dead").ended_at is not None
    assert {catalog.job(name).state for name in ("alive", "elsewhere")} == {"running"}
    # With the writer lock in hand no other job can be running, whatever its process number says.
    assert sorted(catalog.mark_interrupted_jobs(alone=True)) == ["alive", "elsewhere"]
    assert catalog.job("queued").state == "queued"


def test_looking_for_dead_jobs_waits_for_no_writer(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.create_job("alive", {}, "c")
    catalog.update_job("alive", state="running", pid=os.getpid(), host=socket.gethostname())

    def refuse() -> NoReturn:
        raise AssertionError("nothing is to be written")

    monkeypatch.setattr(catalog, "_write", refuse)
    assert catalog.mark_interrupted_jobs() == []
    with pytest.raises(AssertionError, match="nothing is to be written"):
        catalog.mark_interrupted_jobs(alone=True)


def test_a_job_that_died_before_it_began_is_interrupted(catalog: Catalog) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    catalog.create_job("detached", {}, "c")
    catalog.update_job("detached", pid=dead.pid, host=socket.gethostname())
    assert catalog.mark_interrupted_jobs() == ["detached"]


def test_errors_are_kept_when_the_video_goes(catalog: Catalog) -> None:
    catalog.create_job("j", {}, "c")
    catalog.create_job("k", {}, "c")
    video = add(catalog)
    catalog.record_error(NotAVideo("just text"), job_id="j", video_id=video, uri="/a.mp4", at_seconds=1.5)
    catalog.record_error(NotAVideo("no job"))
    catalog.fail_video(video, "/videos/a.mp4", "a.mp4", ValueError("gone"), job_id="k")
    catalog.remove_video(video)
    (error,) = catalog.errors("j")
    assert (error.type, error.message, error.uri, error.at_seconds) == ("NotAVideo", "just text", "/a.mp4", 1.5)
    assert [one.message for one in catalog.errors("k")] == ["gone"]
    assert len(catalog.errors()) == 3
    assert [one.message for one in catalog.errors(video_id=video)] == ["just text", "gone"]
