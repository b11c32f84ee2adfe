"""Jobs, their items and their errors: the history of what was asked and what came of it."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from pipeline.catalog.base import CatalogPart, utc_now
from pipeline.catalog.models import errors, job_items, jobs
from pipeline.catalog.records import ITEM_STATES, JOB_STATES, ErrorRecord, ItemRecord, JobRecord
from pipeline.errors import InputError, OptionError

__all__ = ["JobCatalog"]

_JOB_FIELDS = ("state", "config", "command", "pid", "host", "started_at", "ended_at")
_ITEM_FIELDS = ("video_id", "name", "state", "error_type", "error_message", "numbers")


class JobCatalog(CatalogPart):
    """Jobs: create, update, list, cancel; their items; errors."""

    def create_job(self, job_id: str, config: dict[str, Any], command: str) -> JobRecord:
        """A new job, queued. ``command`` and ``config`` must hold no credentials.

        Raises:
            InputError: there is a job of this id.
        """
        with self._write() as connection:
            if connection.execute(select(jobs.c.id).where(jobs.c.id == job_id)).scalar() is not None:
                raise InputError(f"there is a job {job_id!r} already")
            connection.execute(
                insert(jobs).values(id=job_id, state="queued", config=config, command=command, created_at=utc_now())
            )
            return _job_record(connection, _job_row(connection, job_id))

    def update_job(self, job_id: str, **values: Any) -> JobRecord:
        """Change fields of a job: state, config, command, pid, host, started_at, ended_at.

        Raises:
            OptionError: another field or an unknown state.
            InputError: no such job.
        """
        _check_fields("job", values, _JOB_FIELDS, JOB_STATES)
        with self._write() as connection:
            row = _job_row(connection, job_id)
            if values:
                connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
            return _job_record(connection, _job_row(connection, row.id))

    def job(self, job_id: str) -> JobRecord:
        """The job of this id, of the only id that begins so, or ``"latest"``.

        Raises:
            InputError: none, or several.
        """
        with self._read() as connection:
            return _job_record(connection, _job_row(connection, job_id))

    def jobs(self, limit: int | None = None) -> list[JobRecord]:
        """The jobs, latest first."""
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        with self._read() as connection:
            return [_job_record(connection, row) for row in connection.execute(query).all()]

    def request_cancel(self, job_id: str) -> JobRecord:
        """Ask a job to stop; one that has no process yet is cancelled at once.

        Raises:
            InputError: no such job, or it has ended already.
        """
        with self._write() as connection:
            row = _job_row(connection, job_id)
            if row.state not in ("queued", "running"):
                raise InputError(f"job {row.id} is {row.state}: only queued and running ones can be cancelled")
            values: dict[str, Any] = {"cancel_requested": True}
            if row.pid is None:
                values |= {"state": "cancelled", "ended_at": utc_now()}
            connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
            return _job_record(connection, _job_row(connection, row.id))

    def cancel_requested(self, job_id: str) -> bool:
        with self._read() as connection:
            return bool(connection.execute(select(jobs.c.cancel_requested).where(jobs.c.id == job_id)).scalar())

    def mark_interrupted_jobs(self, *, alone: bool = False) -> list[str]:
        """Call the jobs interrupted whose process, on this machine, is no more; returns their ids.

        Writes only when there are such jobs: whoever only looks waits for no writer and needs no right to write.

        Args:
            alone: the caller holds the library's writer lock, so no other job runs, whatever process has got the number
                of its process by now, and whatever machine it ran on.
        """
        with self._read() as connection:
            if not _dead_jobs(connection, alone):
                return []
        with self._write() as connection:
            dead = _dead_jobs(connection, alone)
            for job_id in dead:
                connection.execute(
                    update(jobs).where(jobs.c.id == job_id).values(state="interrupted", ended_at=utc_now())
                )
            return dead

    # -- items -------------------------------------------------------------------------------------------------------

    def set_item(self, job_id: str, uri: str, **values: Any) -> None:
        """Add an item to a job (pending unless said otherwise) or change fields of one: video_id, name, state,
        error_type, error_message, numbers.

        Raises:
            OptionError: another field or an unknown state.
            InputError: no such job.
        """
        _check_fields("item", values, _ITEM_FIELDS, ITEM_STATES)
        with self._write() as connection:
            _set_item(connection, job_id, uri, values)

    def set_items(self, job_id: str, uris: dict[str, dict[str, Any]]) -> None:
        """As :meth:`set_item` for many, in one transaction: all or none."""
        for values in uris.values():
            _check_fields("item", values, _ITEM_FIELDS, ITEM_STATES)
        with self._write() as connection:
            for uri, values in uris.items():
                _set_item(connection, job_id, uri, values)

    def items(self, job_id: str, state: str | None = None) -> list[ItemRecord]:
        """The items of a job, in the order in which they were named."""
        if state is not None and state not in ITEM_STATES:
            raise OptionError(f"item state {state!r}: must be one of {', '.join(ITEM_STATES)}")
        with self._read() as connection:
            row = _job_row(connection, job_id)
            query = select(job_items).where(job_items.c.job_id == row.id).order_by(job_items.c.number)
            if state is not None:
                query = query.where(job_items.c.state == state)
            return [_item_record(item) for item in connection.execute(query)]

    # -- errors ------------------------------------------------------------------------------------------------------

    def record_error(
        self,
        error: BaseException,
        *,
        job_id: str | None = None,
        video_id: str | None = None,
        uri: str | None = None,
        at_seconds: float | None = None,
        happened_at: datetime | None = None,
    ) -> None:
        """Write down what went wrong; its message must hold no credentials."""
        with self._write() as connection:
            connection.execute(
                insert(errors).values(
                    job_id=job_id,
                    video_id=video_id,
                    uri=uri,
                    type=type(error).__name__,
                    message=str(error),
                    at_seconds=at_seconds,
                    happened_at=happened_at or utc_now(),
                )
            )

    def errors(self, job_id: str | None = None, video_id: str | None = None) -> list[ErrorRecord]:
        """The errors of a job, of a video, or all, oldest first."""
        query = select(errors).order_by(errors.c.id)
        with self._read() as connection:
            if job_id is not None:
                query = query.where(errors.c.job_id == _job_row(connection, job_id).id)
            if video_id is not None:
                query = query.where(errors.c.video_id == video_id)
            rows = connection.execute(query).all()
        return [
            ErrorRecord(row.job_id, row.video_id, row.uri, row.type, row.message, row.at_seconds, row.happened_at)
            for row in rows
        ]


def _dead_jobs(connection: Connection, alone: bool) -> list[str]:
    host = socket.gethostname()
    rows = connection.execute(
        select(jobs.c.id, jobs.c.pid, jobs.c.host, jobs.c.state).where(jobs.c.state.in_(("queued", "running")))
    ).all()
    return [
        row.id
        for row in rows
        if (alone and row.state == "running") or (row.host == host and row.pid is not None and not _is_alive(row.pid))
    ]


def _check_fields(what: str, values: dict[str, Any], allowed: tuple[str, ...], states: tuple[str, ...]) -> None:
    for name in values:
        if name not in allowed:
            raise OptionError(f"{what} field {name!r}: must be one of {', '.join(allowed)}")
    if "state" in values and values["state"] not in states:
        raise OptionError(f"{what} state {values['state']!r}: must be one of {', '.join(states)}")


def _job_row(connection: Connection, job_id: str) -> Row[Any]:
    if job_id == "latest":
        row = connection.execute(select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(1)).first()
        if row is None:
            raise InputError("no job was ever started in this library")
        return row
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
    if row is not None:
        return row
    found = connection.execute(select(jobs).where(jobs.c.id.startswith(job_id, autoescape=True)).limit(6)).all()
    if not found or not job_id:
        raise InputError(f"no job {job_id!r} in this library")
    if len(found) > 1:
        raise InputError(f"job {job_id!r} is ambiguous: {', '.join(row.id for row in found[:5])}")
    return found[0]


def _job_record(connection: Connection, row: Row[Any]) -> JobRecord:
    counted = connection.execute(
        select(job_items.c.state, func.count()).where(job_items.c.job_id == row.id).group_by(job_items.c.state)
    )
    counts = dict.fromkeys(ITEM_STATES, 0) | {row[0]: row[1] for row in counted}
    return JobRecord(**row._mapping, counts=counts)


def _set_item(connection: Connection, job_id: str, uri: str, values: dict[str, Any]) -> None:
    here = (job_items.c.job_id == job_id) & (job_items.c.uri == uri)
    done = connection.execute(update(job_items).where(here).values(**values, updated_at=utc_now()))
    if done.rowcount:
        return
    row = _job_row(connection, job_id)
    last = connection.execute(select(func.max(job_items.c.number)).where(job_items.c.job_id == row.id)).scalar()
    new = {"job_id": row.id, "uri": uri, "number": 0 if last is None else last + 1, "state": "pending", **values}
    connection.execute(insert(job_items).values(**new, updated_at=utc_now()))


def _item_record(row: Row[Any]) -> ItemRecord:
    values = dict(row._mapping)
    return ItemRecord(index=values.pop("number"), **values)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        return True
    return True
