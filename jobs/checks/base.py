"""One check's result, the table of checks, and the loop that runs them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["CHECKS", "Check", "Context", "Status", "bad", "good", "run_checks", "size_text", "warn"]

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What a check found, and what to do about it (one line, empty where there is nothing to do)."""

    name: str
    status: Status
    detail: str
    advice: str = ""
    group: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Context:
    """What the checks are asked about."""

    store: Path


CheckFunction = Callable[[Context], Iterable[Check]]

# group -> functions, as "module:function"; imported on use, so that one that cannot even be imported is a failed check
CHECKS: dict[str, tuple[str, ...]] = {
    "software": (
        "jobs.checks.software:check_python",
        "jobs.checks.software:check_requirements",
        "jobs.checks.software:check_torch",
        "jobs.checks.software:check_faiss",
        "jobs.checks.software:check_decord",
        "jobs.checks.software:check_opencv",
    ),
    "machine": (
        "jobs.checks.machine:check_cpu",
        "jobs.checks.machine:check_memory",
        "jobs.checks.machine:check_gpu",
        "jobs.checks.machine:check_descriptors",
    ),
    "codecs": ("jobs.checks.media:check_codecs",),
    "models": ("jobs.checks.models:check_models",),
    "disk": ("jobs.checks.disk:check_store_disk", "jobs.checks.disk:check_media_cache"),
    "ray": (
        "jobs.checks.cluster:check_ray",
        "jobs.checks.cluster:check_ray_folder",
        "jobs.checks.cluster:check_shared_memory",
        "jobs.checks.cluster:check_stages",
    ),
    "library": ("jobs.checks.library:check_library",),
}


def good(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, "ok", detail)


def warn(name: str, detail: str, advice: str) -> Check:
    """It works, with a drawback."""
    return Check(name, "warn", detail, advice)


def bad(name: str, detail: str, advice: str) -> Check:
    """Something will not work."""
    return Check(name, "fail", detail, advice)


def run_checks(context: Context, checks: dict[str, tuple[str, ...]] | None = None) -> Iterator[Check]:
    """The results of all checks, each as soon as it is there."""
    for group, functions in (CHECKS if checks is None else checks).items():
        for where in functions:
            for check in _run(where, context):
                yield Check(check.name, check.status, check.detail, check.advice, group)


def _run(where: str, context: Context) -> Iterator[Check]:
    module, _, attribute = where.partition(":")
    try:
        function: CheckFunction = getattr(importlib.import_module(module), attribute)
        yield from function(context)
    except Exception as error:  # noqa: BLE001 (the one place for it: what is broken here is what the doctor is to tell)
        lines = str(error).strip().splitlines() or [""]
        name = attribute.removeprefix("check_").replace("_", " ")
        yield bad(name, f"{type(error).__name__}: {lines[0]}", "the check itself failed; the message says on what")


def size_text(size_bytes: float | None) -> str:
    """Bytes as people read them: ``605 MB``; ``-`` where nobody knows."""
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.1f} {unit}" if unit == "GB" and size < 99.5 else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
