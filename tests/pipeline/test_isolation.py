"""The killable child: crashes, hangs, slow consumers, early ends, and a parent that dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.errors import DecoderCrashed, DecoderHung, NotAVideo
from pipeline.isolation import Isolated, RemoteTraceback, beat, native_noise

DOUBLES = "tests.pipeline.doubles:"


@pytest.fixture
def isolated() -> Iterator[Isolated]:
    with Isolated() as child:
        yield child


def wait_for(condition: object, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_items_come_in_order_and_one_child_serves_many_calls(isolated: Isolated) -> None:
    assert list(isolated.stream(DOUBLES + "count", 5)) == [0, 1, 2, 3, 4]
    first = isolated.pid
    assert list(isolated.stream(DOUBLES + "count", 0)) == []
    assert list(isolated.stream(DOUBLES + "pid")) == [first]
    assert first != os.getpid()


def test_arrays_arrive_whole_and_writable(isolated: Isolated) -> None:
    pictures = list(isolated.stream(DOUBLES + "pictures", 3, 500))
    assert [int(p[0, 0, 0]) for p in pictures] == [0, 1, 2]
    assert all((p == p[0, 0, 0]).all() and p.shape == (500, 500, 3) for p in pictures)
    pictures[0][:] = 9
    assert pictures[1][0, 0, 0] == np.uint8(1)


def test_a_segmentation_fault_is_a_typed_error_and_the_next_call_works(isolated: Isolated) -> None:
    stream = isolated.stream(DOUBLES + "segfault_after", 2, label="bad.mp4")
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(DecoderCrashed, match=r"bad\.mp4: .*SIGSEGV.*h264.*the last thing it said"):
        next(stream)
    assert list(isolated.stream(DOUBLES + "count", 2)) == [0, 1]


def test_a_hang_is_killed_after_the_set_time(isolated: Isolated) -> None:
    stream = isolated.stream(DOUBLES + "hang_after", 1, stall_seconds=0.6, label="stuck.mp4")
    assert next(stream) == 0
    pid, began = isolated.pid, time.monotonic()
    with pytest.raises(DecoderHung, match=r"stuck\.mp4: no frame for 0\.6 s"):
        next(stream)
    assert 0.5 < time.monotonic() - began < 30, "it would hang for an hour"
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert list(isolated.stream(DOUBLES + "count", 2)) == [0, 1]


def test_beats_keep_a_slow_call_alive(isolated: Isolated) -> None:
    assert list(isolated.stream(DOUBLES + "slow_with_beats", 1.8, stall_seconds=1.0)) == ["done"]


def test_a_slow_consumer_is_not_a_hang_and_makes_the_child_wait(isolated: Isolated) -> None:
    stream = isolated.stream(DOUBLES + "pictures", 400, 600, stall_seconds=0.5)  # 400 MB in all
    next(stream)
    assert isolated.pid is not None
    child = psutil.Process(isolated.pid)
    before = child.memory_info().rss
    time.sleep(1.2)
    assert child.memory_info().rss - before < 30e6
    assert sum(1 for _ in stream) == 399
    assert child.memory_info().rss - before < 30e6


def test_exceptions_keep_their_class_and_bring_their_traceback(isolated: Isolated) -> None:
    with pytest.raises(NotAVideo, match=r"^x\.mp4: no video$") as ours:
        list(isolated.stream(DOUBLES + "raises", "ours"))
    assert isinstance(ours.value.__cause__, RemoteTraceback)
    assert "doubles.py" in str(ours.value.__cause__)
    pid = isolated.pid
    with pytest.raises(ZeroDivisionError, match="nothing to divide by"):
        list(isolated.stream(DOUBLES + "raises", "builtin"))
    with pytest.raises(RuntimeError, match="Local: cannot be pickled"):
        list(isolated.stream(DOUBLES + "raises", "local"))
    assert isolated.pid == pid  # an exception does not cost the child


def test_an_exit_is_a_crash_that_names_the_code(isolated: Isolated) -> None:
    with pytest.raises(DecoderCrashed, match="exit code 7"):
        list(isolated.stream(DOUBLES + "exits"))


def test_unknown_functions_are_errors(isolated: Isolated) -> None:
    with pytest.raises(AttributeError, match="nothing_here"):
        list(isolated.stream(DOUBLES + "nothing_here"))
    with pytest.raises(ModuleNotFoundError):
        list(isolated.stream("no.such.module:f"))


def test_leaving_early_closes_the_generator_and_keeps_the_child(isolated: Isolated, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    stream = isolated.stream(DOUBLES + "touch_when_closed", str(mark))
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    pid = isolated.pid
    stream.close()  # type: ignore[attr-defined]
    assert mark.read_text() == "closed"
    assert isolated.pid == pid
    assert list(isolated.stream(DOUBLES + "count", 3)) == [0, 1, 2]


def test_a_child_that_does_not_let_go_is_killed(isolated: Isolated) -> None:
    stream = isolated.stream(DOUBLES + "stubborn", 5)
    next(stream)
    pid = isolated.pid
    assert pid is not None
    began = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5
    assert not psutil.pid_exists(pid)
    assert list(isolated.stream(DOUBLES + "count", 1)) == [0]


def test_only_one_stream_at_a_time(isolated: Isolated) -> None:
    stream = isolated.stream(DOUBLES + "count", 3)
    next(stream)
    with pytest.raises(RuntimeError, match="already runs"):
        next(isolated.stream(DOUBLES + "count", 3))
    assert list(stream) == [1, 2]


def test_a_child_killed_between_calls_is_replaced(isolated: Isolated) -> None:
    list(isolated.stream(DOUBLES + "count", 1))
    assert isolated.pid is not None
    os.kill(isolated.pid, signal.SIGKILL)
    assert list(isolated.stream(DOUBLES + "count", 2)) == [0, 1]


def test_ctrl_c_in_the_group_does_not_kill_the_child(isolated: Isolated) -> None:
    stream = isolated.stream(DOUBLES + "count", 2_000)
    next(stream)
    assert isolated.pid is not None
    os.kill(isolated.pid, signal.SIGINT)
    assert sum(1 for _ in stream) == 1_999


def test_native_noise_is_kept_from_the_terminal(isolated: Isolated, capfd: pytest.CaptureFixture[str]) -> None:
    (text,) = list(isolated.stream(DOUBLES + "noisy", 3))
    assert text == b"to standard output\nnoise 0\nnoise 1\nnoise 2\n"
    assert capfd.readouterr() == ("", "")


def test_outside_a_child_beats_and_noise_do_nothing() -> None:
    beat()
    assert native_noise() is None


def test_the_child_outlives_the_thread_that_started_it(isolated: Isolated) -> None:
    streams: list[Iterator[int]] = []

    def start() -> None:
        streams.append(isolated.stream(DOUBLES + "count", 1000))
        next(streams[0])

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert sum(1 for _ in streams[0]) == 999


def test_close_ends_the_child() -> None:
    child = Isolated()
    list(child.stream(DOUBLES + "count", 1))
    pid = child.pid
    child.close()
    child.close()
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_the_child_dies_with_its_parent() -> None:
    """Also while it works and looks at no socket."""
    script = (
        "from pipeline.isolation import Isolated\n"
        "import time\n"
        "child = Isolated()\n"
        f"stream = child.stream({DOUBLES + 'hang_after'!r}, 1)\n"
        "next(stream)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()

    def gone() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        return True

    assert wait_for(gone)


@pytest.mark.parametrize("safe", ["", "1"])
def test_packages_of_the_same_name_in_the_working_folder_are_not_taken_for_ours(tmp_path: Path, safe: str) -> None:
    for name in ("pipeline", "csat_fusion"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    script = tmp_path / "elsewhere" / "script.py"  # a script's path begins with its own folder, not the working one
    script.parent.mkdir()
    script.write_text(
        "from pipeline.isolation import Isolated\n"
        "with Isolated() as child: print(list(child.stream('tests.pipeline.doubles:count', 3)))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": safe}
    told = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("[0, 1, 2]\n", "")
