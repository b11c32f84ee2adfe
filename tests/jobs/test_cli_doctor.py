"""``longreel doctor`` and its checks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.checks import base, cluster, disk, library, machine, media, software
from jobs.checks.base import CHECKS, Check, Context, bad, good, run_checks, size_text, warn
from jobs.cli.main import main
from pipeline.sources.selftest import CodecTrial, try_codec
from pipeline.store import Store


def doctor(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def only(monkeypatch: pytest.MonkeyPatch, *functions: str) -> None:
    monkeypatch.setattr(base, "CHECKS", {"some": tuple(f"{__name__}:{name}" for name in functions)})


def fine(_context: Context) -> Iterator[Check]:
    yield good("fine", "all is well")


def doubtful(_context: Context) -> Iterator[Check]:
    yield warn("doubtful", "slow", "buy another")


def broken(_context: Context) -> Iterator[Check]:
    yield bad("broken", "not there", "install it")


def explodes(_context: Context) -> Iterator[Check]:
    yield good("before", "reached")
    raise ZeroDivisionError("by nothing\nat all")


def test_the_whole_of_it_here(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every check of the table, for real: this installation can do what the other tests need."""
    code = doctor("--json", "--store", str(tmp_path / "store"))
    report = json.loads(capsys.readouterr().out)
    failed = [check for check in report["checks"] if check["status"] == "fail"]
    assert (code, report["ok"], failed) == (0, True, [])
    assert {check["group"] for check in report["checks"]} == set(CHECKS)
    by_name = {check["name"]: check for check in report["checks"]}
    assert {
        "python",
        "torch",
        "faiss",
        "cpu",
        "h264",
        "av1",
        "model cache",
        "bundled model",
        "placement",
        "library",
    } <= set(by_name)
    assert all(check["advice"] for check in report["checks"] if check["status"] != "ok")
    assert all("\n" not in check["detail"] + check["advice"] for check in report["checks"])
    assert not (tmp_path / "store").exists(), "the doctor changes nothing"


def test_a_warning_is_no_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "fine", "doubtful")
    assert doctor() == 0
    out = capsys.readouterr().out
    assert "buy another" in out
    assert "1 ok, 1 warning, 0 failures" in out


def test_a_failure_is_exit_code_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "fine", "broken")
    assert doctor() == 2
    assert "install it" in capsys.readouterr().out
    assert doctor("--json") == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_check_that_raises_is_a_failed_check_and_the_rest_go_on(tmp_path: Path) -> None:
    table = {"some": (f"{__name__}:explodes", "no.such.module:check_it", f"{__name__}:fine")}
    found = list(run_checks(Context(tmp_path), table))
    assert [(check.name, check.status) for check in found] == [
        ("before", "ok"),
        ("explodes", "fail"),
        ("it", "fail"),
        ("fine", "ok"),
    ]
    assert found[1].detail == "ZeroDivisionError: by nothing"


def test_requirements_missing_and_too_old() -> None:
    found = {
        check.name: check
        for check in software.judge_requirements(
            ["no-such-package>=1", "click>=999", "av>=1", 'nonesuch>=2; extra == "gpu"', 'none2; python_version < "3"']
        )
    }
    assert found["no-such-package"].status == "fail"
    assert found["no-such-package"].advice == "pip install 'no-such-package>=1'"
    assert found["click"].status == "fail"
    assert ">=999 is needed" in found["click"].detail
    assert found["av"].status == "ok"
    assert found["requirements"].detail.startswith("1 packages")
    assert set(found) == {"no-such-package", "click", "av", "requirements"}


@pytest.mark.parametrize(
    ("function", "module", "distributions", "status"),
    [
        (software.check_faiss, "faiss", ["faiss-cpu"], "ok"),
        (software.check_faiss, "faiss", ["faiss-cpu", "faiss-gpu-cu12"], "warn"),
        (software.check_decord, "decord", ["decord2"], "ok"),
        (software.check_decord, "decord", ["decord", "decord2"], "fail"),
        (software.check_decord, "decord", ["decord"], "fail"),
        (software.check_decord, "decord", [], "fail"),
    ],
)
def test_packages_that_clash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, function: Any, module: str, distributions: list[str], status: str
) -> None:
    monkeypatch.setattr(software, "packages_distributions", lambda: {module: distributions})
    (check,) = function(Context(tmp_path))
    assert check.status == status
    assert all(name in check.detail + check.advice for name in distributions)


def test_faiss_missing_names_both_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    (check,) = software.check_faiss(Context(tmp_path))
    assert check.status == "fail"
    assert "faiss-cpu" in check.advice
    assert "faiss-gpu" in check.advice


def test_cpu_flags() -> None:
    text = "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    assert machine.cpu_flags(text) == {"fpu", "avx2", "amx_bf16"}
    assert machine.cpu_flags("") == set()


def test_what_a_trial_of_a_codec_means() -> None:
    assert media.judge(CodecTrial("h264", "libx264", {})).status == "ok"
    assert "not tried" in media.judge(CodecTrial("av1", None, {})).detail
    assert media.judge(CodecTrial("av1", "libsvtav1", {"decord": "no frame"})).status == "warn"
    assert media.judge(CodecTrial("av1", "libsvtav1", {"pyav": "no frame"})).status == "fail"
    both = media.judge(CodecTrial("h264", "libx264", {"decord": "crashed", "pyav": "no frame"}))
    assert (both.status, both.detail) == ("fail", "decord: crashed; PyAV: no frame")


def test_a_decoder_that_gives_wrong_frames_is_found() -> None:
    (trial,) = try_codec("mpeg4", ("pyav", f"{__name__}:HalfSource"))
    assert list(trial.failures) == [f"{__name__}:HalfSource"]
    assert "5 of 10 frames" in trial.failures[f"{__name__}:HalfSource"]


def HalfSource(path: str, info: Any, **options: Any) -> Any:
    from pipeline.sources.pyav_source import PyAVSource

    source: Any = PyAVSource(path, info, **options)
    frames = source.frames
    source.frames = lambda: list(frames())[::2]
    return source


def test_a_decoder_that_crashes_is_a_failed_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(media, "DECODERS", {"pyav": "", f"{__name__}:crash": ""})
    monkeypatch.setattr(media, "CODECS", {"mpeg4": ()})
    (check,) = media.check_codecs(Context(tmp_path))
    assert check.status == "warn"
    assert "SIGSEGV" in check.detail or "signal 11" in check.detail


def crash(*_args: Any, **_options: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_room_on_a_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, status in ((50e9, "ok"), (1e9, "warn"), (1e6, "fail")):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path, free=free: SimpleNamespace(free=free))
        assert disk.judge_room("store", tmp_path / "not" / "yet").status == status


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("not here: root may write everywhere")
    tmp_path.chmod(0o500)
    assert disk.judge_room("store", tmp_path / "store").status == "fail"


def test_folder_bytes_counts_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").symlink_to(tmp_path / "sub" / "a")
    assert 1000 <= disk.folder_bytes(tmp_path) < 1500
    assert disk.folder_bytes(tmp_path / "none") == 0


def test_rays_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    (check,) = cluster.check_ray_folder(Context(tmp_path))
    assert (check.status, "RAY_TMPDIR" in check.advice) == ("fail", True)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    usage = SimpleNamespace(total=1000e9, used=980e9, free=20e9)
    monkeypatch.setattr(cluster.shutil, "disk_usage", lambda _path: usage)
    (check,) = cluster.check_ray_folder(Context(tmp_path))
    assert check.status == "warn"
    assert "5%" in check.detail


def test_placement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpus, plan in ((0.5, "decode 1 x (0.5 CPU"), (1.0, "decode 1 x (0.5 CPU"), (8.0, "decode 7 x (1 CPU")):
        monkeypatch.setattr(cluster, "usable_cpus", lambda cpus=cpus: cpus)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        (check,) = cluster.check_stages(Context(tmp_path))
        assert check.status == "ok"
        assert plan in check.detail


def library_checks(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in library.check_library(Context(folder))}


def test_the_library(tmp_path: Path) -> None:
    from pipeline.catalog import Catalog

    folder = tmp_path / "store"
    assert "none yet" in library_checks(folder)["library"].detail
    store = Store.create(folder, "openclip:ViT-B-32/random")
    found = library_checks(folder)
    assert "openclip:ViT-B-32/random" in found["library"].detail
    assert "nothing was indexed" in found["catalog"].detail
    Catalog(store.catalog_path).close()
    assert "no videos; 0 vectors" in library_checks(folder)["catalog"].detail
    store.catalog_path.write_bytes(b"not a database" * 100)
    assert library_checks(folder)["catalog"].status == "fail"
    (folder / "longreel.json").write_text("{")
    assert library_checks(folder)["library"].status == "fail"


def test_who_writes(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", "openclip:ViT-B-32/random")
    assert "nobody" in library_checks(store.path)["writer"].detail
    with store.lock("submit films"):
        assert f"process {os.getpid()}" in library_checks(store.path)["writer"].detail
        assert "submit films" in library_checks(store.path)["writer"].detail
    assert "nobody" in library_checks(store.path)["writer"].detail
    # A writer that was killed leaves its name but not its lock.
    store.lock_path.write_text('{"pid": 1, "host": "h", "command": "submit", "since": "then"}')
    assert library.current_writer(store.lock_path) is None


def test_sizes_as_people_read_them() -> None:
    assert [size_text(n) for n in (None, 0, 999, 1500, 605e6, 1.2e9, 250e9, 3e12)] == [
        "-",
        "0 B",
        "999 B",
        "2 kB",
        "605 MB",
        "1.2 GB",
        "250 GB",
        "3.0 TB",
    ]
