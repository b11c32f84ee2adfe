"""What the parts of the catalog share: the database, the clock and a few reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from itertools import islice
from typing import TypeVar

from sqlalchemy import Connection, select, update

from pipeline.catalog.database import Database
from pipeline.catalog.models import counters

__all__ = ["CatalogPart", "batched", "bump_seq", "current_seq", "is_alive", "utc_now"]

T = TypeVar("T")

# Databases bound the number of values in one statement (SQLite: 32,766 today, 999 once).
_VALUES_PER_STATEMENT = 900
_CLOCK_SECONDS = 2.0  # times of processes are rounded


class CatalogPart:
    """A group of the catalog's methods; :class:`pipeline.catalog.Catalog` joins them all."""

    _database: Database

    def _read(self) -> AbstractContextManager[Connection]:
        return self._database.read()

    def _write(self) -> AbstractContextManager[Connection]:
        return self._database.write()


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def batched(values: Iterable[T], size: int = _VALUES_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """The values in lists of at most ``size``."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def is_alive(pid: int, since: datetime) -> bool:
    """Whether the process of this number on this machine is the one that had it at that time."""
    import psutil

    try:
        return bool(psutil.Process(pid).create_time() <= since.timestamp() + _CLOCK_SECONDS)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it lives, and is another user's
        return True


def current_seq(connection: Connection) -> int:
    return int(connection.execute(select(counters.c.value).where(counters.c.name == "seq")).scalar_one())


def bump_seq(connection: Connection, count: int) -> int:
    """Take ``count`` change numbers; returns the first.

    The row stays locked until the transaction ends, so that numbers become visible in their order: whoever follows the
    catalog never sees number 8 before number 7, on any database.
    """
    connection.execute(update(counters).where(counters.c.name == "seq").values(value=counters.c.value + count))
    return current_seq(connection) - count + 1
