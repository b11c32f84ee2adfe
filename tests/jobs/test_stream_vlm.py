"""`longreel stream` with a model behind an address: what it is told, what one refusal costs, and what asking cost; a
real server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.encoders.vlm_server import VlmServer, say, serving, status, without_keys
from tests.jobs.running import tiny_model
from tests.jobs.streaming import SCENE_SECONDS, Watching, scenes_film

pytestmark = pytest.mark.ray


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[VlmServer]:
    without_keys(monkeypatch)
    with serving() as one:
        yield one


def prompt(body: dict[str, Any]) -> str:
    text: str = body["messages"][-1]["content"][0]["text"]
    return text


def test_a_model_behind_an_address_captions_a_stream(tmp_path: Path, server: VlmServer) -> None:
    """Five scenes as fast as they decode, one after the other; the third is refused, which costs that one."""
    film = scenes_film(tmp_path / "film.mp4", 5 * SCENE_SECONDS)
    server.faults.extend(
        [say("A red ball"), say("A green ball"), status(400), say("A blue ball"), say("A red ball again")]
    )
    watching = Watching(
        film, "--name", "gate", "--captions", server.name(), "--model", tiny_model(tmp_path),
        "--out", str(tmp_path / "gate.txt"), "--set", "live.source.policy=wait",
        "--set", "live.captions.earlier=2", "--set", "live.captions.waiting=100",
        "--set", "captions.vlm.concurrency=1", "--set", "captions.vlm.price_in=10", store=tmp_path / "store",
    )  # fmt: skip
    try:
        ran, events = watching.finish()
    finally:
        watching.stop()
    assert ran.code == 0, ran.err
    told = [event["text"] for event in events if event["event"] == "caption"]
    assert told == ["A red ball", "A green ball", "A blue ball", "A red ball again"]
    (end,) = [event for event in events if event["event"] == "end"]
    assert (end["windows"], end["captions"], end["windows_skipped"]) == (5, 4, 1)
    assert any("VlmRefused" in message for message in end["messages"])
    (asked,) = [event for event in events if event["event"] == "asked"]
    assert asked["captioner"] == server.name()
    assert (asked["requests"], asked["captions"], asked["failures"]) == (5, 4, 1)
    assert (asked["tokens_in"], asked["cost"], asked["currency"]) == (400, pytest.approx(0.004), "USD")
    first, second, *_, last = (prompt(body) for body in server.requests)
    assert "earlier moments" not in first
    assert ": A red ball." in second
    assert last.count(" ball.") == 2, "the last words, and those of the scene that looked most alike"
    assert ": A blue ball." in last
    assert [line.split("  ", 1)[1] for line in (tmp_path / "gate.txt").read_text().splitlines()] == told
