"""A job whose processes are killed again and again leaves the same catalog as one that nobody disturbed."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.catalog import Catalog
from tests.jobs.running import SLOW_TO_NOTICE, Running, describe, draw_film, longreel, settings, tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

FILMS = 4
# In this order, each at a random moment of the work. The driver's death ends a run, the others must not.
VICTIMS = (
    "encode worker",
    "decode worker",
    "driver",
    "decoder",
    "encode worker",
    "driver at start",
    "decode worker",
    "driver",
    "encode worker",
    "decoder",
    "driver",
    "decode worker",
)


def is_victim(process: psutil.Process, victim: str) -> bool:
    words = describe(process)
    if victim == "decoder":
        return "import pipeline.isolation" in words
    return words.startswith({"decode worker": "ray::DecodeWorker", "encode worker": "ray::EncodeWorker"}[victim])


@dataclass
class Killer:
    """Runs the same submit until it ends by itself, hitting one process after the other on the way."""

    arguments: list[str | Path]
    random: random.Random
    victims: list[str] = field(default_factory=lambda: list(VICTIMS))
    hit: list[str] = field(default_factory=list)

    def run(self) -> dict[str, Any] | None:
        """One run: its summary, or None when its driver was killed."""
        running = Running("submit", *self.arguments)
        decoders_hit = 0
        try:
            while self.victims:
                victim = self.victims[0]
                if not self._wait(running, victim):
                    break
                time.sleep(self.random.uniform(0, 0.5))
                if victim.startswith("driver"):
                    if running.process.poll() is not None:
                        break
                    running.note_family()
                    running.process.kill()
                    self._count()
                    assert running.end().code == -signal.SIGKILL
                    assert running.left_over(but=SLOW_TO_NOTICE) == [], "what the driver started ends with it"
                    return None
                found = [p for p in running.note_family().values() if is_victim(p, victim)]
                if found:
                    self.random.choice(found).kill()
                    self._count()
                    decoders_hit += victim == "decoder"
            ran = running.end()
            assert ran.code in (0, 3), ran.err
            summary: dict[str, Any] = ran.summary if ran.out else running.events[-1]
        finally:
            running.stop()
        failed = [item for item in summary["items"] if item["state"] == "failed"]
        assert {item["error"]["type"] for item in failed} <= {"DecoderCrashed"}, failed
        assert len(failed) <= decoders_hit, "only a decoder's death costs a video, and only one"
        return summary

    def _count(self) -> None:
        self.hit.append(self.victims.pop(0))

    def _wait(self, running: Running, victim: str) -> bool:
        """Until it is time to strike; False when the job ended before."""
        wanted = 1 if victim == "driver at start" else self.random.randint(1, 3)
        kind = "note" if victim == "driver at start" else "progress"
        seen = 0

        def enough(event: dict[str, Any]) -> bool:
            nonlocal seen
            seen += event.get("event") == kind
            return seen >= wanted or "items" in event

        return "items" not in running.wait_for(enough)


def content(store: Path) -> list[tuple[str, dict[str, Any]]]:
    with closing(sqlite3.connect(store / "catalog.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with Catalog(store / "catalog.sqlite3", create=False) as catalog:
        return list(catalog.dump())


def test_killed_at_random_and_taken_up_again(tmp_path: Path) -> None:
    films = tmp_path / "films"
    first = draw_film(films / "0.mp4", 40, seed=1, rate=25, size=(240, 320), keyframe_every=25)
    for number in range(1, FILMS):
        shutil.copy(first, films / f"{number}.mp4")
    work = settings(
        "ingest.part_seconds=4",
        "ingest.sampling.mode=all",
        "ingest.gate.enabled=false",
    )
    common: list[str | Path] = [films, "--model", tiny_model(tmp_path), "--json", *work]
    calm, store = tmp_path / "calm", tmp_path / "store"
    undisturbed = longreel("submit", *common, "--store", calm)
    assert undisturbed.code == 0, undisturbed.err

    killer = Killer([*common, "--store", store], random.Random(20))
    for _ in range(40):
        summary = killer.run()
        if summary is not None and summary["failed"] == 0:
            if not killer.victims:
                break
            # Everything is done, and some processes were not hit yet: take something away, to have work again.
            names = [f"{number}.mp4" for number in killer.random.sample(range(FILMS), 2)]
            assert longreel("videos", "remove", *names, "--yes", "--store", store).code == 0
    assert killer.hit == list(VICTIMS)

    disturbed, expected = content(store), content(calm)
    assert len(expected) > FILMS * 40
    assert [row for row in disturbed if row not in expected] == []
    assert disturbed == expected
    # The index has come through as well: every film is found at its own place.
    for number in range(FILMS):
        answers = [
            longreel("query", "--like", f"{number}.mp4@21", "--limit", "40", "--store", where, "--json").value
            for where in (store, calm)
        ]
        assert answers[0] == answers[1]
        assert any(m["name"] == f"{number}.mp4" and m["start_seconds"] <= 21 for m in answers[0]["moments"])
