"""Jobs that go on by themselves, are cancelled, meet another writer, and are stopped by Ctrl-C."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.running import (
    SLOW_TO_NOTICE,
    Ran,
    Running,
    command,
    draw_film,
    environment,
    longreel,
    settings,
    tiny_model,
)

pytestmark = pytest.mark.ray

WORK = settings("ingest.part_seconds=4", "ingest.sampling.mode=all", "ingest.gate.enabled=false")


class Place:
    """Films that take a while, and a library that is not there yet. ``held``: no film ends before :meth:`go`."""

    def __init__(self, folder: Path, film: Path, count: int, *, held: bool = False) -> None:
        self.films = folder / "films"
        self.films.mkdir()
        for number in range(count):
            shutil.copy(film, self.films / f"{'hold' if held else ''}{number}.mp4")
        self.store = folder / "store"
        self.arguments: list[str | Path] = ["submit", self.films, "--model", tiny_model(folder), *WORK, "--json"]
        self.arguments += ["--store", self.store]
        if held:
            self.arguments += ["--set", "ingest.decode.decoder=tests.jobs.doubles:by_name"]

    def go(self) -> None:
        """Let the films that are held end."""
        (self.films / "go").touch()

    def ask(self, *arguments: str) -> Ran:
        return longreel(*arguments, "--store", self.store, "--json")

    def wait_for_state(self, job: str, *states: str) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while True:
            shown: dict[str, Any] = self.ask("jobs", "show", job).value
            if shown["state"] in states:
                return shown
            assert time.monotonic() < deadline, shown
            time.sleep(0.5)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return draw_film(path, 40, seed=1, rate=25, size=(240, 320), keyframe_every=25)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts commands, and ends those that a failed test leaves running."""
    started: list[Running] = []

    def begin(*arguments: str | Path) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield begin
    for running in started:
        running.stop()


def in_work(event: dict[str, Any]) -> bool:
    return event.get("event") == "progress"


def test_detached_busy_and_finished(tmp_path: Path, film: Path) -> None:
    place = Place(tmp_path, film, count=1, held=True)
    started = time.monotonic()
    detached = longreel(*place.arguments, "--detach")
    assert detached.code == 0, detached.err
    assert list(detached.value) == ["job", "log"]
    job = detached.value["job"]
    running = place.wait_for_state(job, "running")
    took = time.monotonic() - started
    assert running["pid"]
    assert running["counts"]["pending"] == 1, f"after {took:.0f} s"
    second = longreel(*place.arguments)
    assert (second.code, second.error["type"]) == (2, "LibraryBusy")
    assert f"process {running['pid']} " in second.error["message"]
    assert "longreel submit" in second.error["message"]
    place.go()
    finished = place.wait_for_state(job, "finished", "cancelled", "interrupted")
    assert finished["state"] == "finished"
    assert finished["counts"]["done"] == 1
    assert [one["job"] for one in place.ask("jobs", "list").value] == [job], "the refused submit left no job behind"
    log = Path(detached.value["log"]).read_text()
    assert f'"job": "{job}"' in log.splitlines()[-1]


def test_cancelled_from_elsewhere(tmp_path: Path, film: Path, start: Callable[..., Running]) -> None:
    place = Place(tmp_path, film, count=3, held=True)
    running = start(*place.arguments)
    running.wait_for(in_work)
    told = place.ask("jobs", "cancel")
    assert (told.code, told.value["state"]) == (0, "running")
    ran = running.end()
    assert ran.code == 3, ran.err
    summary = ran.summary
    assert summary["cancelled"] >= 1
    assert summary["failed"] == 0
    assert {item["state"] for item in summary["items"]} <= {"done", "cancelled"}
    assert running.left_over() == []
    (job,) = place.ask("jobs", "list").value
    assert job["state"] == "cancelled"
    assert job["counts"]["cancelled"] == summary["cancelled"]
    again = place.ask("jobs", "cancel")
    assert (again.code, again.error["type"]) == (2, "InputError")
    assert "is cancelled" in again.error["message"]


def test_cancelled_before_it_began(tmp_path: Path, film: Path) -> None:
    place = Place(tmp_path, film, count=1, held=True)
    job = longreel(*place.arguments, "--detach").value["job"]
    assert place.ask("jobs", "cancel", job).code == 0
    assert place.wait_for_state(job, "cancelled", "finished", "interrupted")["state"] == "cancelled"
    assert [video["state"] for video in place.ask("videos", "list").value] in ([], ["pending"])


def test_ctrl_c_and_going_on(tmp_path: Path, film: Path, start: Callable[..., Running]) -> None:
    place = Place(tmp_path, film, count=1, held=True)
    shutil.copy(film, place.films / "free.mp4")  # comes first by name
    running = start(*place.arguments)
    running.wait_for(lambda event: event.get("event") == "ended")
    running.wait_for(in_work)
    os.killpg(running.process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    ran = running.end()
    assert ran.code == 130
    assert ran.error["type"] == "Interrupted"
    assert "Submit the same again" in ran.error["message"]
    assert running.left_over() == []
    assert "Traceback" not in ran.err
    (job,) = place.ask("jobs", "list").value
    assert job["state"] == "interrupted"
    place.go()
    again = longreel(*place.arguments)
    assert again.code == 0, again.err
    assert (again.summary["done"], again.summary["skipped"]) == (1, 1)


# Not SIGTERM while Ray starts: for a moment Ray has a handler of its own in place, in which the signal can be lost.
@pytest.mark.parametrize(
    ("moment", "number"),
    [("starting Ray", signal.SIGINT), ("loading", signal.SIGINT), ("loading", signal.SIGTERM)],
)
def test_stopped_before_the_work_began(
    tmp_path: Path, film: Path, start: Callable[..., Running], number: signal.Signals, moment: str
) -> None:
    place = Place(tmp_path, film, count=1, held=True)
    running = start(*place.arguments)
    running.wait_for(lambda event: moment in event.get("message", ""))
    time.sleep(1.5)
    running.note_family()
    os.killpg(running.process.pid, number) if number == signal.SIGINT else running.process.send_signal(number)
    ran = running.end()
    assert ran.code == 130, ran
    assert ran.error["type"] == "Interrupted"
    assert running.left_over(but=SLOW_TO_NOTICE) == []
    assert "Traceback" not in ran.err
    assert [job["state"] for job in place.ask("jobs", "list").value] == ["interrupted"]


def test_ctrl_c_in_a_terminal_leaves_it_whole(tmp_path: Path, film: Path) -> None:
    place = Place(tmp_path, film, count=2, held=True)
    words = command(*(word for word in place.arguments if word != "--json"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(words[0], words, environment(TERM="xterm", COLUMNS="100"))
    written = b""
    deadline = time.monotonic() + 120
    pressed = False
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            written += os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end was closed
            break
        if not pressed and b"frames encoded" in written:
            os.write(terminal, b"\x03")  # the terminal makes a signal of it, for all of its foreground
            pressed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert pressed
    assert os.waitstatus_to_exitcode(status) == 130
    assert written.rfind(b"\x1b[?25h") > written.rfind(b"\x1b[?25l"), "the cursor is shown again"
    assert b"Submit the same again" in written
    for noise in (b"Traceback", b"raylet", b"SIGTERM", b"WARNING"):
        assert noise not in written


def test_a_detached_job_survives_the_terminal(tmp_path: Path, film: Path) -> None:
    """It is in a session of its own, and holds none of the descriptors of the command that started it."""
    place = Place(tmp_path, film, count=1, held=True)
    arguments = [*place.arguments, "--detach"]
    running = Running(*arguments, env=environment())
    ran = running.end(timeout=60)  # would wait for the job if it held our pipes
    job = ran.value["job"]
    shown = place.ask("jobs", "show", job).value
    assert shown["state"] in ("queued", "running")
    assert os.getsid(shown["pid"]) == shown["pid"]
    os.kill(shown["pid"], signal.SIGTERM)
    assert place.wait_for_state(job, "interrupted", "finished")["state"] == "interrupted"
