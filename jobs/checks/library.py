"""The library that a command would use: its model, what it holds, and who writes to it."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jobs.checks.base import Check, Context, bad, good, size_text, warn
from jobs.checks.disk import folder_bytes
from pipeline.errors import LibraryError

__all__ = ["check_library", "current_writer"]


def check_library(context: Context) -> Iterator[Check]:
    from pipeline.catalog import Catalog
    from pipeline.store import Store

    folder = context.store.absolute()
    if not folder.exists():
        yield good("library", f"{folder}: none yet; the first submit makes it")
        return
    try:
        store = Store.open(folder)
    except LibraryError as error:
        yield bad("library", str(error), "name the library's folder with --store, or in LONGREEL_STORE")
        return
    manifest = store.manifest
    model = manifest.model if store.is_bound else f"{manifest.model} (named, not loaded yet)"
    random = ", untrained weights: fit for trials only" if manifest.random else ""
    yield good("library", f"{folder}: model {model}{random}, {size_text(folder_bytes(folder))}")
    writer = current_writer(store.lock_path)
    yield good("writer", f"{writer} is writing to it" if writer else "nobody writes to it now")
    if not store.catalog_path.is_file():
        yield good("catalog", "empty: nothing was indexed yet")
        return
    try:
        with Catalog(store.catalog_path, create=False) as catalog:
            states = Counter(video.state for video in catalog.videos())
            vectors = catalog.count_vectors()
    except LibraryError as error:
        yield bad("catalog", str(error), "restore it from a backup, or index the videos into a new library")
        return
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no videos"
    if states["failed"]:
        advice = f"longreel videos list --state failed --store {context.store}"
        yield warn("catalog", f"videos: {counts}; {vectors} vectors", advice)
    else:
        yield good("catalog", f"videos: {counts}; {vectors} vectors")


def current_writer(lock_path: Path) -> str | None:
    """Who holds the writer lock, in words; None when nobody does.

    A writer writes its name into the lock file and empties it when it ends. The lock itself is tried only where a name
    stands there, which is either a living writer (who keeps it) or one that was killed: so a writer that just starts
    never finds the lock taken by this look.
    """
    from pipeline.store import describe_holder

    try:
        handle = os.open(lock_path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        if not os.fstat(handle).st_size:
            return None
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return describe_holder(lock_path)
    finally:
        os.close(handle)
    return None
