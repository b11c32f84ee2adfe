"""Requests that travel to a detached process, what is recorded of a command, and the job's log."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from pathlib import Path

import pytest

from jobs.job_log import job_log
from jobs.runner import SubmitRequest, new_job_id, open_or_create_store, shown_command
from jobs.settings import load_settings, settings_from_dict
from pipeline.sources import SourceItem
from pipeline.store import Store


def test_a_request_travels_unchanged() -> None:
    items = (
        SourceItem("/v/ünïcode 视频.mp4", "ünïcode 视频.mp4", ("a", "b"), datetime(2024, 5, 1, 8, tzinfo=timezone.utc)),
        SourceItem("https://user:secret@host/x.mp4?token=t", "x.mp4"),
    )
    changed = ["ingest.sampling.fps=5", "workers.attempts=7", "encoder.precision=bf16", "ingest.gate.enabled=false"]
    changed += ["captions.model=tiny", "captions.wording.beams=2", "captions.vlm.extra={top_k: 5}"]
    request = SubmitRequest(Path("/s"), items, load_settings("camera", changed), "longreel submit v", "10.0.0.1:6379")
    again = SubmitRequest.from_json(request.to_json())
    assert again == request
    assert again.settings.ingest.sampling.fps == 5
    assert (again.settings.captions.wording.beams, again.settings.captions.vlm.extra) == (2, {"top_k": 5})
    assert again.items[1].uri == "https://user:secret@host/x.mp4?token=t", "the worker needs the credentials"


def test_settings_of_an_older_version_keep_defaults_for_what_is_new() -> None:
    values = load_settings().to_dict()
    del values["workers"]["attempts"]
    del values["search"]
    assert settings_from_dict(values) == load_settings()
    assert json.loads(json.dumps(values)) == values


def test_recorded_commands_hold_no_credentials() -> None:
    words = ["submit", "https://user:geheim@host/a b.mp4?token=abcdef&camera=1", "s3://k:geheim@b/x", "--tag", "a b"]
    shown = shown_command(words)
    assert shown.startswith("longreel submit ")
    assert "geheim" not in shown
    assert "abcdef" not in shown
    assert "camera=1" in shown
    assert "'a b'" in shown


@pytest.mark.parametrize(
    "word",
    [
        "x=https://user:geheim@host/v.mp4?sig=geheim&camera=1",
        "--opt=https://host/a b.mp4?token=geheim&camera=1",
        "x=[https://u:geheim@host/a?camera=1,s3://k:geheim@bucket/b]",
        "https://host/proxy?camera=1&url=https://u:geheim@other/v&token=geheim",
        "db=postgresql://u:geheim@host/camera=1",
        "x=http://[geheim camera=1",
    ],
)
def test_recorded_commands_hold_no_credentials_inside_a_word(word: str) -> None:
    shown = shown_command(["submit", "--set", word])
    assert "geheim" not in shown
    assert "camera=1" in shown or "://***" in shown


def test_job_ids_differ() -> None:
    ids = {new_job_id() for _ in range(20)}
    assert len(ids) > 18
    assert all(len(one) == 20 for one in ids)


def test_a_store_is_made_once_and_takes_another_name_until_something_is_in_it(tmp_path: Path) -> None:
    made = open_or_create_store(tmp_path / "s", "openclip:A/random")
    again = open_or_create_store(tmp_path / "s", "openclip:A/random")
    assert again.manifest == made.manifest
    assert not Store.open(tmp_path / "s").is_bound
    assert open_or_create_store(tmp_path / "s", "openclip:B/random").manifest.library_id == made.manifest.library_id


def test_what_is_printed_during_a_job_goes_to_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "jobs" / "j.log"
    with job_log(path):
        assert not path.exists(), "a job about which nothing is said leaves no file"
        print("(raylet) A worker died")
        logging.getLogger("jobs.engine").info("tried again")
    print("after")
    logging.getLogger("jobs.engine").info("not any more")
    assert capsys.readouterr().out == "after\n"
    said = path.read_text()
    assert "(raylet) A worker died\n" in said
    assert "tried again" in said
    assert "not any more" not in said
    with job_log(path):
        print("more")
    assert path.read_text() == said + "more\n"
