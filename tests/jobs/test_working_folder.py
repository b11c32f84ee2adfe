"""What lies in the folder in which a command is given is never taken for our own code."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.jobs.running import draw_film, environment, longreel, settings, tiny_model

OURS = ("configs", "csat_fusion", "encoders", "jobs", "pipeline")


@pytest.mark.ray
def test_a_detached_job_from_a_folder_with_packages_of_our_names(tmp_path: Path) -> None:
    """The detached process, Ray's workers and the decoding child each look for their modules anew."""
    here = tmp_path / "here"
    for name in OURS:
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    # As an installed command: its path begins with the folder of the script.
    script = tmp_path / "bin" / "longreel"
    script.parent.mkdir()
    script.write_text("from jobs.cli.main import main\nraise SystemExit(main())\n")
    film = draw_film(tmp_path / "film.mp4", 2, seed=1)
    store = tmp_path / "store"
    words = ["submit", film, "--store", store, "--model", tiny_model(tmp_path), *settings(), "--detach"]
    told = subprocess.run(
        [sys.executable, script, *map(str, words)],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told
    deadline = time.monotonic() + 120
    while (job := longreel("jobs", "show", "--store", store, "--json").value)["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.5)
    assert (job["state"], job["counts"]["done"]) == ("finished", 1), job
