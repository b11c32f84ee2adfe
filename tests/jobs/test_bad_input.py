"""What a person may get wrong: each has a message that says what to do, an exit code, and valid JSON where asked."""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import load_settings
from pipeline.catalog import Catalog
from pipeline.library import Library
from tests.jobs.running import (
    ROOT,
    Ran,
    copy_store,
    draw_film,
    environment,
    longreel,
    settings,
    tiny_model,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films, a model, and a library that knows the first of the films."""
    folder = tmp_path_factory.mktemp("bad")
    draw_film(folder / "films" / "good.mp4", 4, seed=1)
    (folder / "notes.txt").write_text("# nothing but a comment\n")
    (folder / "empty").mkdir()
    make_library(folder / "store", folder / "films")
    return folder


def make_library(store: Path, films: Path) -> None:
    options = load_settings(overrides=["encoder.precision=fp32", "encoder.batch_size=8"]).ingest
    with Library.open(store, tiny_model(store.parent)) as library:
        assert [item.state for item in library.add(films, options=options)] == ["done"]


def refused(ran: Ran, kind: str, *words: str, code: int = 2) -> None:
    """It ended with this exit code and one JSON error of this type, whose message has these words."""
    assert ran.code == code, ran
    assert ran.error["type"] == kind, ran.error
    assert [word for word in words if word not in ran.error["message"]] == [], ran.error["message"]
    assert "Traceback" not in ran.err


def submit(folder: Path, *arguments: str | Path, store: Path | None = None, model: str | None = None) -> Ran:
    named = ["--store", store or folder / "new-store", "--model", model or tiny_model(folder)]
    return longreel("submit", *arguments, *named, "--json")


# -- sources ---------------------------------------------------------------------------------------------------------


def test_nothing_named_there(folder: Path) -> None:
    refused(submit(folder, folder / "empty"), "NothingToDo", str(folder / "empty"), "names no video")
    refused(submit(folder, folder / "nowhere.mp4"), "SourceNotFound", str(folder / "nowhere.mp4"))
    refused(submit(folder, folder / "films" / "*.avi"), "NothingToDo", "*.avi")
    refused(submit(folder, folder / "notes.txt"), "NothingToDo", "notes.txt")
    refused(submit(folder), "UsageError", "INPUT")
    assert not (folder / "new-store").exists(), "nothing was made for a job that cannot be"
    plain = longreel("submit", folder / "empty", "--store", folder / "new-store")
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.startswith("NothingToDo: ")
    assert plain.err.count("\n") == 1


def test_a_manifest_with_a_wrong_line(folder: Path) -> None:
    manifest = folder / "list.jsonl"
    manifest.write_text('{"uri": "films/good.mp4"}\n{"uri": "films/good.mp4", "tagz": ["a"]}\n')
    refused(submit(folder, manifest), "ManifestError", "list.jsonl:2", "'tagz'", "'tags'")


def mind_permissions() -> None:
    """Let root, too, be refused: without these capabilities it is a user like others."""
    if os.geteuid() == 0 and sys.platform == "linux":
        drop, override, read_search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


@pytest.mark.ray
def test_what_may_not_be_read_or_written(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    film = draw_film(tmp_path / "films" / "locked.mp4", 2, seed=1)
    draw_film(tmp_path / "films" / "open.mp4", 2, seed=2)
    film.chmod(0)
    if subprocess.run(["cat", film], preexec_fn=mind_permissions, capture_output=True, check=False).returncode == 0:
        pytest.skip("not here: running as root, which nothing can be kept from")
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "fixed").mkdir(mode=0o555)

    def ask(*arguments: str | Path) -> Ran:
        return longreel("submit", *arguments, "--model", model, "--json", before=mind_permissions)

    ran = ask(tmp_path / "films", "--store", tmp_path / "s", *settings())
    assert ran.code == 3, ran
    assert ran.items["open.mp4"]["state"] == "done"
    assert ran.items["locked.mp4"]["error"]["type"] == "SourceUnreadable"
    assert str(film) in ran.items["locked.mp4"]["error"]["message"]
    refused(ask(tmp_path / "closed", "--store", tmp_path / "s"), "SourceUnreadable", "closed")
    refused(ask(tmp_path / "films", "--store", tmp_path / "fixed" / "s"), "LibraryError", "fixed/s")


# -- stores ----------------------------------------------------------------------------------------------------------


def test_a_store_that_is_none(folder: Path, tmp_path: Path) -> None:
    film = folder / "films" / "good.mp4"
    (tmp_path / "file").write_text("a file")
    refused(submit(folder, film, store=tmp_path / "file"), "NotALibrary", str(tmp_path / "file"), "a file")
    refused(submit(folder, film, store=tmp_path / "file" / "below"), "NotALibrary", "a file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    refused(submit(folder, film, store=tmp_path / "other"), "NotALibrary", "thesis.tex", "another folder")
    assert os.listdir(tmp_path / "other") == ["thesis.tex"]
    for arguments in (["query", "a dog"], ["videos", "list"], ["jobs", "list"], ["videos", "show", "x"]):
        refused(longreel(*arguments, "--store", tmp_path / "nowhere", "--json"), "NotALibrary", "no such folder")
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_store(folder: Path, tmp_path: Path) -> None:
    film = folder / "films" / "good.mp4"
    store = copy_store(folder / "store", tmp_path / "manifest")
    (store / "longreel.json").write_text('{"format_version": 1, "mod')
    refused(submit(folder, film, store=store), "NotALibrary", "longreel.json", "damaged")
    refused(longreel("query", "x", "--store", store, "--json"), "NotALibrary", "damaged")

    store = copy_store(folder / "store", tmp_path / "newer")
    values: dict[str, Any] = json.loads((store / "longreel.json").read_text())
    (store / "longreel.json").write_text(json.dumps({**values, "format_version": 99}))
    refused(submit(folder, film, store=store), "CatalogTooNew", "99", "newer")

    store = copy_store(folder / "store", tmp_path / "schema")
    with closing(sqlite3.connect(store / "catalog.sqlite3")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    refused(submit(folder, film, store=store), "CatalogTooNew", "9999", "newer")

    store = copy_store(folder / "store", tmp_path / "catalog")
    for path in store.glob("catalog.sqlite3*"):
        path.unlink()
    (store / "catalog.sqlite3").write_bytes(b"no database at all" * 1000)
    refused(submit(folder, film, store=store), "NotALibrary", "catalog.sqlite3", "damaged")


def test_a_damaged_index_is_no_loss(folder: Path, tmp_path: Path) -> None:
    store = copy_store(folder / "store", tmp_path / "store")
    (store / "index").mkdir(exist_ok=True)
    (store / "index" / "state.json").write_bytes(b"rubbish")
    again = longreel("query", "--like", "good.mp4@1", "--store", store, "--json")
    assert again.code == 0
    assert again.value["moments"][0]["score"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.ray
def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("not here: no right to mount a small disk")
    try:
        draw_film(tmp_path / "first" / "first.mp4", 4, seed=1)
        long = draw_film(tmp_path / "second.mp4", 60, seed=2, size=(240, 320), scene_seconds=1.0)
        store = disk / "store"
        make_library(store, tmp_path / "first")
        with Catalog(store / "catalog.sqlite3") as catalog:
            before = list(catalog.dump())
        model = f"openclip:{disk / 'tiny_vit.json'}/random"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "ballast").write_bytes(bytes(free - 100_000))
        full = submit(tmp_path, long, *settings(), store=store, model=model)
        refused(full, "DiskFull", str(store), "no space left")
        (disk / "ballast").unlink()
        with closing(sqlite3.connect(store / "catalog.sqlite3")) as connection, connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with Catalog(store / "catalog.sqlite3") as catalog:
            kept = [row for row in catalog.dump() if row in before]
        assert kept == before
        assert longreel("query", "--like", "first.mp4@1", "--store", store, "--json").code == 0
        again = submit(tmp_path, long, *settings(), store=store, model=model)
        assert again.code == 0, again.err
        assert again.summary["done"] == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- settings and models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "ingest.samplin.fps=1"], ["'ingest.samplin.fps'", "did you mean 'ingest.sampling.fps'"]),
        (["--set", "fps=1"], ["'fps'", "ingest.sampling.fps"]),
        (["--set", "ingest.sampling.fps=often"], ["ingest.sampling.fps", "often"]),
        (["--set", "ingest.sampling.fps=-1"], ["fps", "-1", "allowed"]),
        (["--set", "ingest.sampling.fps"], ["key=value"]),
        (["--config", "camra"], ["'camra'", "did you mean 'camera'", "default"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_settings_that_are_none(folder: Path, arguments: list[str], words: list[str]) -> None:
    refused(submit(folder, folder / "films", *arguments), "SettingsError", *words)


@pytest.mark.ray
def test_a_model_that_is_none(folder: Path, tmp_path: Path) -> None:
    film, store = folder / "films" / "good.mp4", tmp_path / "store"
    ran = submit(folder, film, *settings(), store=store, model="openclip:ViT-B-23/random")
    refused(ran, "UnknownModel", "ViT-B-23", "ViT-B-32")
    assert not store.exists()
    # A slip in a model's name is mended by giving the right one.
    assert submit(folder, film, *settings(), store=store).summary["done"] == 1


@pytest.mark.ray
def test_workers_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    values = settings("workers.encode_gpus=64")
    refused(submit(folder, folder / "films", *values, store=tmp_path / "s"), "PlacementError", "GPU", "encode 1 x 64")
    (job,) = longreel("jobs", "list", "--store", tmp_path / "s", "--json").value
    (error,) = longreel("jobs", "errors", "--store", tmp_path / "s", "--json").value
    assert (job["state"], error["type"]) == ("failed", "PlacementError")


def test_without_faiss(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "faiss.py").write_text("raise ImportError('No module named faiss')\n")
    env = environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    both = ["longreel[cpu]", "longreel[gpu]"]
    asked = longreel("query", "--like", "good.mp4@1", "--store", folder / "store", "--json", env=env)
    refused(asked, "FaissMissing", *both)
    named = ["--store", tmp_path / "s", "--model", tiny_model(tmp_path)]
    refused(longreel("submit", folder / "films", *named, "--json", env=env), "FaissMissing", *both)


# -- queries and words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["--like", "nonsense"], "QueryError", ["'nonsense'", "VIDEO@SECONDS"]),
        (["--like", "good.mp4@soon"], "QueryError", ["VIDEO@SECONDS"]),
        (["--like", "good.mp4@99"], "QueryError", ["good.mp4@99", "from 0 to 4"]),
        (["--like", "goood.mp4@1"], "UnknownVideo", ["'goood.mp4'", "'good.mp4'"]),
        (["--image", "nowhere.png"], "QueryError", ["nowhere.png", "no such picture"]),
        (["--image", "notes.txt"], "QueryError", ["notes.txt", "not a picture"]),
        (["--image", "films"], "QueryError", ["films"]),
        ([], "QueryError", ["--image", "--like"]),
        (["a dog", "--like", "good.mp4@1"], "QueryError", ["one thing"]),
        ([" "], "QueryError", ["empty"]),
        (["a dog", "--added-after", "yesterday"], "QueryError", ["'yesterday'", "2026-01-31"]),
        (["a dog", "--from", "3", "--to", "1"], "QueryError", ["3", "1"]),
        (["a dog", "--video", "x"], "UnknownVideo", ["'x'"]),
        (["a dog", "--limit", "0"], "UsageError", ["--limit"]),
        (["a dog", "--limit", "many"], "UsageError", ["--limit", "many"]),
        (["a dog", "--tgA"], "UsageError", ["--tgA"]),
    ],
)
def test_queries_that_cannot_be_asked(folder: Path, arguments: list[str], kind: str, words: list[str]) -> None:
    refused(longreel("query", *arguments, "--store", folder / "store", "--json", cwd=folder), kind, *words)


def test_words_that_are_no_commands(folder: Path) -> None:
    refused(longreel("qurey", "x", "--json"), "UsageError", "'qurey'", "'query'")
    refused(longreel("videos", "shwo", "x", "--json"), "UsageError", "shwo")
    refused(longreel("jobs", "show", "20990101", "--store", folder / "store", "--json"), "InputError", "20990101")
    plain = longreel("submit", "--no-such-option")
    assert (plain.code, plain.out) == (2, "")
    assert "--no-such-option" in plain.err
    both = submit(folder, folder / "films", "--detach", "--dry-run")
    refused(both, "UsageError", "--detach", "--dry-run")
    nothing = longreel()
    assert "submit" in nothing.out + nothing.err
