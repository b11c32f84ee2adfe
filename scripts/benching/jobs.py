"""Results of jobs that run in processes of their own, and what counts as a method that cannot be measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from benching.tables import Report, progress

__all__ = ["FAILURES", "settled"]

# What a method may raise that cannot do what is asked of it; it is then written down as missing.
FAILURES = (ValueError, ImportError, AttributeError, NotImplementedError, RuntimeError)

K = TypeVar("K")
R = TypeVar("R")


def settled(
    jobs: Iterable[tuple[str, K, Future[R]]],
    report: Report,
    failed: set[str],
    part: str | None = None,
    prefix: str = "",
) -> Iterator[tuple[str, K, R]]:
    """Label, key and result of each job, in their order.

    A label that has a job that failed goes into ``failed`` and, with ``prefix`` before it, into the report. With
    ``part``, each new label is said as progress.
    """
    said = ""
    for label, key, job in jobs:
        if part is not None and label != said:
            progress(f"{part}: {label}")
            said = label
        try:
            result = job.result()
        except FAILURES as error:
            failed.add(label)
            report.unavailable(f"{prefix}{label}", f"{type(error).__name__}: {error}")
            continue
        yield label, key, result
