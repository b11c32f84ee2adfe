"""What a job tells: the JSON contract, lines, progress bars."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from jobs.reporting import (
    JobSummary,
    JsonReporter,
    LineReporter,
    NullReporter,
    Reporter,
    RichReporter,
    clock,
    describe_item,
    precise_clock,
    shorten,
)
from pipeline.ingest import ItemResult
from tests.jobs.running import ITEM_KEYS, SUBMIT_KEYS

DONE = ItemResult("/v/a.mp4", "id-a", "done", None, 61.5, 3, 5, 120, 40, 2.25)
FAILED = ItemResult("/v/b [x].mp4", "id-b", "failed", {"type": "NotAVideo", "message": "/v/b [x].mp4: text"})
SKIPPED = ItemResult("/v/c.mp4", "id-c", "skipped", None, 5.0, 1, 1, 10, 2)
CANCELLED = ItemResult("/v/d.mp4", "id-d", "cancelled")
TOLD = replace(SKIPPED, captions=1)
UNTOLD = replace(DONE, captions=2, captions_error={"type": "EncoderError", "message": "no words"})
SUMMARY = JobSummary("job-1", [DONE, FAILED, SKIPPED, CANCELLED])


def play(reporter: Reporter) -> None:
    reporter.job_started("job-1", 4)
    reporter.note("loading [bold]model[/bold]")
    reporter.video_started(DONE.uri, "a.mp4", 61.5)
    reporter.video_progress(DONE.uri, 10.0, 7)
    reporter.video_progress(DONE.uri, 20.0, 14)
    reporter.video_progress("never started", 1.0, 1)
    for item in SUMMARY.items:
        reporter.video_ended(item.uri.rpartition("/")[2], item)
    reporter.job_ended(SUMMARY)


def test_the_json_contract() -> None:
    stream = io.StringIO()
    play(JsonReporter(stream))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert list(lines[-1]) == SUBMIT_KEYS
    assert {key: lines[-1][key] for key in SUBMIT_KEYS[:-1]} == {
        "job": "job-1",
        "done": 1,
        "failed": 1,
        "skipped": 1,
        "cancelled": 1,
    }
    assert [list(item) for item in lines[-1]["items"]] == [ITEM_KEYS] * 4
    assert lines[-1]["items"][0] == {
        "uri": "/v/a.mp4",
        "video": "id-a",
        "state": "done",
        "error": None,
        "duration_seconds": 61.5,
        "segments": 3,
        "vectors": 5,
        "frames_sampled": 120,
        "frames_encoded": 40,
        "lost_seconds": 2.25,
        "captions": None,
        "captions_error": None,
    }
    assert lines[-1]["items"][1]["error"] == {"type": "NotAVideo", "message": "/v/b [x].mp4: text"}
    progress = [line for line in lines if line.get("event") == "progress" and line["uri"] == DONE.uri]
    assert [line["done_seconds"] for line in progress] == [10.0], "a line a second at most"
    assert [line["state"] for line in lines if line.get("event") == "ended"] == [item.state for item in SUMMARY.items]


@pytest.mark.parametrize(
    ("items", "code"),
    [([], 0), ([DONE, SKIPPED], 0), ([DONE, FAILED], 3), ([CANCELLED], 3), ([TOLD], 0), ([UNTOLD], 3)],
)
def test_exit_codes(items: list[ItemResult], code: int) -> None:
    assert JobSummary("j", items).exit_code == code


def test_a_line_for_each_video() -> None:
    stream = io.StringIO()
    play(LineReporter(stream))
    assert stream.getvalue().splitlines() == [
        "job job-1: 4 videos",
        "loading [bold]model[/bold]",
        "[1/4] done a.mp4, 1:02: 3 segments, 5 vectors (40 of 120 sampled frames encoded), 2.2 s lost to damage",
        "[2/4] failed b [x].mp4: NotAVideo: /v/b [x].mp4: text",
        "[3/4] skipped c.mp4",
        "[4/4] cancelled d.mp4",
    ]


@pytest.mark.parametrize("ends_well", [True, False])
def test_bars_leave_the_terminal_as_it_was(ends_well: bool) -> None:
    stream = io.StringIO()
    reporter = RichReporter(Console(file=stream, force_terminal=True, width=100, color_system=None))
    if ends_well:
        play(reporter)
    else:
        reporter.job_started("job-1", 4)
    reporter.close()
    written = stream.getvalue()
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l"), "the cursor is shown again"
    if ends_well:
        assert "b [x].mp4: NotAVideo: /v/b [x].mp4: text" in written, "brackets in names are no markup"
        assert "[bold]model[/bold]" in written


def test_nothing_is_said_when_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    play(NullReporter())
    assert capsys.readouterr() == ("", "")


def test_times_and_names() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3600, 36_061)] == ["0:00", "1:00", "1:01", "1:00:00", "10:01:01"]
    assert [precise_clock(s) for s in (0, 59.96, 62.54, 3600.04)] == ["0:00.0", "1:00.0", "1:02.5", "1:00:00.0"]
    assert shorten("short.mp4") == "short.mp4"
    long = shorten("a" * 40 + "end.mp4")
    assert len(long) <= 36
    assert long.startswith("aaa")
    assert long.endswith("end.mp4")
    assert describe_item("x", ItemResult("x", None, "done")) == (
        "done x: 0 segments, 0 vectors (0 of 0 sampled frames encoded)"
    )


def test_captions_are_told() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    reporter.captions_progress(SKIPPED.uri, "c.mp4", 16, 40)
    reporter.video_ended("a.mp4", UNTOLD)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first == {"event": "captions", "uri": SKIPPED.uri, "done_segments": 16, "segments": 40}
    assert (second["captions"], second["captions_error"]) == (2, {"type": "EncoderError", "message": "no words"})
    assert describe_item("c.mp4", TOLD) == "skipped c.mp4, 1 captions"
    assert describe_item("a.mp4", UNTOLD).endswith("lost to damage; 2 captions, then EncoderError: no words")
    assert JobSummary("j", [TOLD, UNTOLD]).without_captions == 1


def test_captions_of_a_video_that_was_indexed_before_have_a_bar() -> None:
    out = io.StringIO()
    reporter = RichReporter(Console(file=out, force_terminal=True, width=160))
    reporter.job_started("job-1", 1)
    reporter.captions_progress(SKIPPED.uri, "c.mp4", 16, 40)
    bar = reporter._progress.tasks[-1]
    assert (bar.completed, bar.total, bar.fields["detail"]) == (16, 40, "captions of 16 of 40 segments")
    reporter.video_ended("c.mp4", TOLD)
    reporter.close()
    assert len(reporter._progress.tasks) == 1
    assert "1 captions" in out.getvalue()
