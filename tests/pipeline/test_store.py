"""The library's folder: manifest, model check, writer lock."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CatalogTooNew, DiskFull, LibraryBusy, LibraryError, ModelMismatch, NotALibrary
from pipeline.store import MANIFEST_NAME, Store, disk_errors, write_file_atomically


@dataclass(frozen=True)
class Facts:
    name: str = "openclip:ViT-B-32/random"
    dimension: int = 512
    fingerprint: str = "abc"
    preprocess: dict[str, Any] = field(default_factory=lambda: {"mean": (0.5, 0.5), "source": "model"})
    precision: str = "fp32"
    random: bool = True


def test_made_and_opened(tmp_path: Path) -> None:
    made = Store.create(tmp_path / "deep" / "library", Facts())
    opened = Store.open(tmp_path / "deep" / "library")
    assert opened.manifest == made.manifest
    assert (opened.manifest.model, opened.manifest.random, opened.is_bound) == ("openclip:ViT-B-32/random", True, True)
    opened.check_model(Facts())
    assert Store.open_or_create(opened.path, Facts()).manifest == made.manifest
    assert {"python", "longreel", "torch"} <= set(opened.manifest.versions)
    with pytest.raises(LibraryError, match="already"):
        Store.create(opened.path, Facts())


def test_what_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(NotALibrary, match="no such folder"):
        Store.open(tmp_path / "absent")
    (tmp_path / "file").touch()
    for act in (Store.open, lambda path: Store.create(path, Facts())):
        with pytest.raises(NotALibrary, match="a file"):
            act(tmp_path / "file")
    with pytest.raises(NotALibrary, match="a file"):
        Store.create(tmp_path / "file" / "below", Facts())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(NotALibrary, match=MANIFEST_NAME):
        Store.open(tmp_path / "photos")
    with pytest.raises(NotALibrary, match=r"cat\.jpg"):
        Store.create(tmp_path / "photos", Facts())
    assert os.listdir(tmp_path / "photos") == ["cat.jpg"]


def test_leavings_of_a_killed_creation_are_no_obstacle(tmp_path: Path) -> None:
    for name in (".longreel-0123.tmp", "writer.lock", "lost+found"):
        (tmp_path / name).touch()
    assert Store.create(tmp_path, Facts()).is_bound


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format_version": "1"}', '{"format_version": 1}', "\xff\xfe"]
)
def test_a_damaged_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content, encoding="latin-1")
    with pytest.raises(NotALibrary, match="damaged"):
        Store.open(tmp_path)


def test_a_manifest_of_the_future(tmp_path: Path) -> None:
    Store.create(tmp_path, Facts())
    values = json.loads((tmp_path / MANIFEST_NAME).read_text())
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(values | {"format_version": 2}))
    with pytest.raises(CatalogTooNew, match="format 2"):
        Store.open(tmp_path)


def test_another_model_is_refused(tmp_path: Path) -> None:
    store = Store.create(tmp_path, Facts())
    with pytest.raises(ModelMismatch, match=r"'openclip:ViT-B-32/random'.*'openclip:RN50/openai'"):
        store.check_model(replace(Facts(), name="openclip:RN50/openai"))
    with pytest.raises(ModelMismatch, match=r"preprocessing mean \[0\.5, 0\.5\], now \[0\.4, 0\.5\]"):
        store.check_model(replace(Facts(), preprocess={"mean": (0.4, 0.5)}))
    with pytest.raises(ModelMismatch, match="dimension 512, now 768"):
        store.check_model(replace(Facts(), dimension=768))
    with pytest.raises(ModelMismatch, match="weights or architecture abc, now def"):
        store.check_model(replace(Facts(), fingerprint="def"))
    store.check_model(replace(Facts(), precision="bf16"))
    store.check_model(replace(Facts(), preprocess={"mean": (0.5, 0.5), "source": "checkpoint"}))


def test_bound_later(tmp_path: Path) -> None:
    store = Store.create(tmp_path, "openclip:ViT-B-32/random")
    assert not store.is_bound
    other = Store.open(tmp_path)
    store.check_name("openclip:ViT-B-32/laion")  # nothing was made with the first name, which may have been a slip
    assert store.manifest.model == "openclip:ViT-B-32/laion"
    store.bind(Facts())
    assert Store.open(tmp_path).manifest.model == Facts().name
    with pytest.raises(ModelMismatch, match="another"):
        other.bind(replace(Facts(), name="another"))
    assert Store.open(tmp_path).manifest.dimension == 512
    with pytest.raises(ModelMismatch, match="weights"):
        other.bind(replace(Facts(), fingerprint="def"))  # it has not seen the binding, and must not undo it


HOLDER = """
import sys
from pipeline.store import Store
lock = Store.open(sys.argv[1]).lock("longreel submit clips")
print("held", flush=True)
sys.stdin.read()
"""


def test_one_writer_at_a_time_and_the_message_names_it(tmp_path: Path) -> None:
    store = Store.create(tmp_path, Facts())
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LibraryBusy, match=rf"process {holder.pid} on .*longreel submit clips, since \d{{4}}-"):
            store.lock("second")
        with pytest.raises(LibraryBusy):
            store.lock("second", wait_seconds=0.2)
        holder.kill()  # death gives it back
        with store.lock("third", wait_seconds=10):
            pass
    with store.lock("fourth") as lock:
        with pytest.raises(LibraryBusy, match="fourth"):
            store.lock("fifth")
        lock.close()
        lock.close()
    with store.lock("sixth"):
        (tmp_path / "writer.lock").write_text("{")  # its name cannot be read
        with pytest.raises(LibraryBusy, match="another process"):
            store.lock("seventh")


def test_atomic_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_file_atomically(path, b"one")
    old = os.umask(0)
    os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o666 & ~old

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no space left"):
        write_file_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["f"]


def test_other_disk_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError("no")
    with pytest.raises(DiskFull), disk_errors(tmp_path):
        raise OSError(errno.EDQUOT, "quota")
