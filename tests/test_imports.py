"""Who may import whom, as DESIGN.md has it, read from the source of every module (imports in functions included)."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT: dict[str, set[str]] = {
    "csat_fusion": set(),
    "encoders": {"csat_fusion"},
    "pipeline": {"csat_fusion", "encoders"},
    "configs": set(),
    "jobs": {"csat_fusion", "encoders", "pipeline", "configs"},
}

# module -> files that may import it, as patterns of paths from the root
ONLY_IN: dict[str, tuple[str, ...]] = {
    "ray": ("jobs/*",),
    "fastapi": ("jobs/*",),
    "click": ("jobs/*",),
    "rich": ("jobs/*",),
    "decord": ("pipeline/sources/*",),
    "av": ("pipeline/sources/*",),
    "fsspec": ("pipeline/sources/*",),
    "faiss": ("pipeline/index*.py",),
    "open_clip": ("encoders/*",),
    "timm": ("encoders/*",),
    "pycocoevalcap": ("pipeline/evaluation/captions.py",),
    "huggingface_hub": ("encoders/*",),
    "omegaconf": ("configs/*",),
    "sqlalchemy": ("pipeline/catalog/*",),
    "alembic": ("pipeline/catalog/*",),
    "scenedetect": ("pipeline/*",),
}

# The compression library stands alone.
CSAT_FUSION_MAY_USE = {"torch", "numpy", "safetensors"}

HEAVY = {"torch", "ray", "faiss", "open_clip", "av", "decord", "cv2", "sqlalchemy", "omegaconf", "scenedetect", "PIL"}


class Import(NamedTuple):
    path: str  # from the root
    line: int
    module: str

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def imports_of(path: str, source: str) -> Iterator[Import]:
    """Every import statement, and every ``importlib.import_module`` or ``__import__`` of a literal name."""
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            yield Import(path, node.lineno, node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(first := node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(first.value, str):
                yield Import(path, node.lineno, first.value)


def all_imports() -> list[Import]:
    found: list[Import] = []
    for package in MAY_IMPORT:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            found.extend(imports_of(path, file.read_text(encoding="utf-8")))
    return found


IMPORTS = all_imports()


def wrong_direction(found: list[Import]) -> list[str]:
    wrong = []
    for item in found:
        mine = item.path.partition("/")[0]
        if item.top in MAY_IMPORT and item.top != mine and item.top not in MAY_IMPORT[mine]:
            wrong.append(str(item))
    return wrong


def out_of_place(found: list[Import]) -> list[str]:
    wrong = []
    for item in found:
        allowed = ONLY_IN.get(item.top)
        if allowed and not any(fnmatch(item.path, pattern) for pattern in allowed):
            wrong.append(f"{item}; only {', '.join(allowed)} may")
    return wrong


def test_there_is_something_to_test() -> None:
    assert len({item.path for item in IMPORTS}) > 50
    assert {item.path.partition("/")[0] for item in IMPORTS} == set(MAY_IMPORT)


def test_direction() -> None:
    assert not wrong_direction(IMPORTS)


def test_each_library_has_its_place() -> None:
    assert not out_of_place(IMPORTS)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("csat_fusion/a.py", "def f():\n    import pipeline.media"),
        ("encoders/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline import media"),
        ("pipeline/a.py", "import importlib\nimportlib.import_module('jobs.engine')"),
        ("configs/a.py", "from csat_fusion.errors import LongreelError"),
        ("pipeline/a.py", "import ray.util"),
        ("pipeline/search.py", "import faiss"),
        ("jobs/a.py", "from av import open"),
        ("pipeline/sources/a.py", "from sqlalchemy import text"),
    ],
)
def test_the_rules_catch(path: str, source: str) -> None:
    found = list(imports_of(path, source))
    assert wrong_direction(found) or out_of_place(found)


def test_csat_fusion_needs_torch_and_little_else() -> None:
    allowed = CSAT_FUSION_MAY_USE | set(sys.stdlib_module_names) | {"csat_fusion"}
    assert not [str(i) for i in IMPORTS if i.path.startswith("csat_fusion/") and i.top not in allowed]


def test_numpy_is_kept_to_the_tables_of_ward_and_runs() -> None:
    users = {i.path for i in IMPORTS if i.path.startswith("csat_fusion/") and i.top == "numpy"}
    assert users == {f"csat_fusion/compressors/{name}.py" for name in ("ward", "ward_table", "runs")}


TORCH_ALONE = """
import sys
sys.modules |= dict.fromkeys(["numpy", "safetensors", "scipy", "sklearn"])  # as if they were not installed
import torch, csat_fusion
from csat_fusion import *
try:
    merge_runs(torch.ones(1, 1), [1], [0], [1], 1)
except CompressionError as error:
    print(error)
for name in COMPRESSORS:
    options = {"query": torch.randn(8)} if name == "query" else {}
    try:
        compressor = csat_fusion.make_compressor(name, None if name == "identity" else 8, **options)
    except csat_fusion.CompressionError as error:
        print(name, error)
        continue
    for t in range(3):
        compressor.update(torch.randn(4, 8), t, t + 1)
    assert compressor.result().total_weight == 12
attention = csat_fusion.make_attention("csat", 8, 2, budget=4)
attention(torch.randn(1, 2, 8), torch.randn(1, 9, 8), torch.randn(1, 9, 8))
"""


def test_csat_fusion_runs_with_torch_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TORCH_ALONE], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = "needs numpy, which is not installed: pip install numpy, or use 'ward-batched'"
    who = ["merge_runs", "ward WardCompressor", "runs RunCompressor"]
    assert done.stdout.splitlines() == [f"{each} {said}" for each in who]


def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["cpu"], *extras["evaluate"]]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    brought_by = packages_distributions()
    wrong = []
    for item in IMPORTS:
        if item.top in MAY_IMPORT or item.top in sys.stdlib_module_names:
            continue
        distributions = {canonicalize_name(name) for name in brought_by.get(item.top, [])}
        if not distributions & declared:
            wrong.append(f"{item}, which {sorted(distributions) or 'nothing installed'} brings; not declared")
    assert not wrong


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_packages_loads_nothing_heavy() -> None:
    loaded = modules_after(f"import {', '.join(MAY_IMPORT)}, pipeline.sources, pipeline.catalog")
    assert not loaded & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["nonsense"]])
def test_the_bare_command_line_loads_no_more_than_click(arguments: list[str]) -> None:
    code = f"""
import contextlib, io
from jobs.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    try:
        main({arguments!r})
    except SystemExit as ended:
        assert ended.code in (0, 2), ended.code
"""
    loaded = modules_after(code)
    allowed = set(sys.stdlib_module_names) | {"click", "csat_fusion", "jobs", "__main__"}
    bare = modules_after("")  # what the interpreter brings by itself: path hooks of editable installs and the like
    extra = {name for name in loaded - bare if name not in allowed and not re.fullmatch(r"_.*", name)}
    assert not extra


@pytest.mark.parametrize("command", ["submit", "query", "videos", "jobs", "models", "doctor", "demo"])
def test_the_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    code = f"""
import contextlib, io
from jobs.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    try:
        main([{command!r}, "--help"])
    except SystemExit as ended:
        assert ended.code == 0, ended.code
"""
    assert not modules_after(code) & HEAVY
