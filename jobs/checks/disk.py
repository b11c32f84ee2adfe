"""Room on the disks that are written to, and whether they may be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jobs.checks.base import Check, Context, bad, good, size_text, warn

__all__ = ["check_media_cache", "check_store_disk", "existing_parent", "folder_bytes", "judge_room"]

_FULL_BYTES = 100e6
_LITTLE_BYTES = 2e9


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def folder_bytes(folder: Path) -> int:
    """Size of all files below ``folder``, 0 when it is not there; links are not followed, so nothing counts twice."""
    total = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # removed meanwhile
                continue
    return total


def judge_room(name: str, path: Path, needed_bytes: float = _LITTLE_BYTES) -> Check:
    """Whether ``path`` (or what will hold it) may be written and has room."""
    parent = existing_parent(path)
    if not os.access(parent, os.W_OK | os.X_OK):
        return bad(name, f"{path}: {parent} may not be written", "name another folder, or change its permissions")
    free = shutil.disk_usage(parent).free
    detail = f"{path}: {size_text(free)} free"
    if free < _FULL_BYTES:
        return bad(name, detail, "make room on that disk, or name a folder on another one")
    if free < needed_bytes:
        return warn(name, detail, f"less than {size_text(needed_bytes)} is soon used up; make room on that disk")
    return good(name, detail)


def check_store_disk(context: Context) -> Iterator[Check]:
    yield judge_room("store", context.store.absolute())


def check_media_cache(_context: Context) -> Iterator[Check]:
    from pipeline.ingest import DecodeOptions

    options = DecodeOptions()
    folder = Path(options.cache_folder())
    check = judge_room("media cache", folder)
    used = f"{size_text(folder_bytes(folder))} of at most {size_text(options.cache_bytes)} used"
    yield Check(check.name, check.status, f"{check.detail}, {used}", check.advice)
