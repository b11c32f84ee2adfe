"""What a wheel carries: built, installed into an environment of its own, and used from another folder."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["setuptools"]["packages"]
TOP = sorted({name.partition(".")[0] for name in PACKAGES})
# Files that are read at run time or by type checkers, beside modules.
DATA = ("*.yaml", "*.mako", "*.safetensors", "*.json", "*.gz", "py.typed", "*.html", "*.css", "*.js")


def run(command: list[str | Path], cwd: Path, **environment: str) -> str:
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**inherited, **environment})
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def source_files(*patterns: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for package in TOP
        for pattern in patterns
        for path in (ROOT / package).rglob(pattern)
        if "__pycache__" not in path.parts
    }


def test_the_list_of_packages_is_complete() -> None:
    folders = {Path(name).parent.as_posix().replace("/", ".") for name in source_files("*.py")}
    assert folders == set(PACKAGES)


def test_every_package_is_typed() -> None:
    assert {f"{name}/py.typed" for name in TOP} <= source_files("py.typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves a build folder beside the sources, and reads it again."""
    copy = tmp_path_factory.mktemp("source")
    for name in (*TOP, "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    run([*pip, "--quiet", "--wheel-dir", out, copy], copy)
    (built,) = out.glob("longreel-*.whl")
    return built


def test_the_wheel_carries_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert source_files("*.py", *DATA) <= names
    for must in ("configs/recipes/default.yaml", "pipeline/catalog/migrations/script.py.mako", "jobs/cli/main.py"):
        assert must in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    own = {name for name in names if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in own} == set(TOP), "nothing else may land in site-packages"
    assert not [name for name in own if name.startswith("tests/") or "__pycache__" in name]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of programs of a fresh environment: the wheel is its own, the dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    own = Path(paths["purelib"])
    borrowed = [path for path in site.getsitepackages() if Path(path).is_dir()]
    # A plain path line in a .pth file: the borrowed folder's own .pth files, such as that of the editable install of
    # this checkout, are not read.
    (own / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    # --ignore-installed: the borrowed folder lists this checkout's longreel, which must not be touched.
    run([*pip, "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel], folder)
    return folder / "bin"


def test_the_installed_package_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    code = f"import {', '.join(TOP)}; print(*[p.__file__ for p in ({', '.join(TOP)},)])"
    for path in run([installed / "python", "-c", code], tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    assert PROJECT["project"]["version"] in run([installed / "longreel", "--version"], tmp_path)
    shown = run([installed / "longreel", "--help"], tmp_path)
    assert "Exit codes" in shown
    assert "doctor" in shown


def test_the_installed_package_makes_a_catalog_and_knows_its_recipes(installed: Path, tmp_path: Path) -> None:
    code = """
import configs
from jobs.settings import load_settings
from pipeline.catalog import Catalog

with Catalog("catalog.sqlite3") as catalog:
    print(catalog.count_vectors())
for name in configs.recipe_names():
    load_settings(name)
    print(name)
"""
    lines = run([installed / "python", "-c", code], tmp_path).split()
    assert lines[0] == "0"
    assert {"camera", "default", "dense", "fast"} <= set(lines[1:])
    assert (tmp_path / "catalog.sqlite3").is_file()
