"""Fixtures that all tests share, and the rule for skips.

A test that cannot run here is skipped with its reason. With ``LONGREEL_REQUIRE_ALL=1`` (set by ``.ci/run``) a skip is
a failure, so that a check never passes because its tools are missing. A reason that starts with ``not here:`` names
something that no set-up would change (running as root, no GPU) and stays a skip.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

ALLOWED_SKIP = "not here:"


def pytest_configure() -> None:
    # A shell without job control starts what runs in the background with SIGINT ignored, and programs that the tests
    # start would inherit that: Ctrl-C could not be tested.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def require_all() -> bool:
    """Whether every test must run."""
    return os.environ.get("LONGREEL_REQUIRE_ALL", "") not in ("", "0")


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """``require_tool("ffmpeg")``: the program's path; skips the test where it is not installed."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"the program {name!r} is not installed")
        return path

    return find


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of shared real videos; skips the test, with the reason, where there is none."""
    named = os.environ.get("LONGREEL_MEDIA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "media"
    if not (folder / "clips").is_dir():
        pytest.skip(f"no shared media: {folder} has no folder 'clips' (set LONGREEL_MEDIA)")
    return folder


@pytest.fixture(scope="session")
def live_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of H.264 with sound for ``tests/sources/live/servers.py`` to serve: numbers over a real clip."""
    from tests.sources.live.servers import make_clip

    named = os.environ.get("LONGREEL_MEDIA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "media"
    real = folder / "clips" / "sam2_01_dog.mp4"
    return make_clip(tmp_path_factory.mktemp("live") / "clip.mp4", real if real.is_file() else None)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not require_all() or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIP):
        report.outcome = "failed"
        report.longrepr = f"skipped, and LONGREEL_REQUIRE_ALL lets no test be skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
