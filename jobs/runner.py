"""Runs a submit from its request to its summary, in this process or detached from it.

:func:`main` is the detached form: it reads a request (JSON) from standard input and goes on by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from csat_fusion.errors import LongreelError
from jobs.errors import Interrupted
from jobs.job_log import job_log
from jobs.reporting import JobSummary, LineReporter, Reporter
from jobs.settings import RunSettings, settings_from_dict
from pipeline.catalog import Catalog, video_id_for
from pipeline.errors import LibraryBusy
from pipeline.ingest import ItemResult
from pipeline.isolation import python_command
from pipeline.sources import SourceItem
from pipeline.sources.redact import redact, redact_word
from pipeline.store import Store

__all__ = ["SubmitRequest", "new_job_id", "open_or_create_store", "run_detached", "run_submit", "sigterm_as_ctrl_c"]


def new_job_id() -> str:
    """Sorts by time and is unique enough to be typed by its first letters: ``20260102-030405-ab12``."""
    return f"{_now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class SubmitRequest:
    """Everything that a submit needs. ``command`` is what is recorded; it holds no credentials."""

    store: Path
    items: tuple[SourceItem, ...]
    settings: RunSettings
    command: str = "longreel submit"
    address: str | None = None
    job_id: str = field(default_factory=new_job_id)

    def to_json(self) -> str:
        """For the detached process; it may hold credentials, so it goes through a pipe, never to a file."""
        items = [
            {
                "uri": item.uri,
                "name": item.name,
                "tags": list(item.tags),
                "start_time": item.start_time.isoformat() if item.start_time else None,
            }
            for item in self.items
        ]
        values: dict[str, Any] = {"store": str(self.store), "items": items, "settings": self.settings.to_dict()}
        values |= {"command": self.command, "address": self.address, "job_id": self.job_id}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> SubmitRequest:
        values = json.loads(text)
        items = tuple(
            SourceItem(
                uri=item["uri"],
                name=item["name"],
                tags=tuple(item["tags"]),
                start_time=datetime.fromisoformat(item["start_time"]) if item["start_time"] else None,
            )
            for item in values["items"]
        )
        return cls(
            store=Path(values["store"]),
            items=items,
            settings=settings_from_dict(values["settings"]),
            command=values["command"],
            address=values["address"],
            job_id=values["job_id"],
        )


def open_or_create_store(path: Path, model: str) -> Store:
    """The library at ``path``, made for ``model`` when there is none.

    Raises:
        ModelMismatch: it was made with another model.
        NotALibrary, LibraryError, CatalogTooNew, DiskFull: see :class:`pipeline.store.Store`.
    """
    if Store.exists(path):
        store = Store.open(path)
        store.check_name(model)
        return store
    return Store.create(path, model)


def _is_bound(path: Path) -> bool:
    """Whether there is a library with a model of its own."""
    return Store.exists(path) and Store.open(path).is_bound


def run_submit(request: SubmitRequest, reporter: Reporter) -> JobSummary:
    """Run a job to its end.

    Raises:
        Interrupted: stopped by Ctrl-C or SIGTERM; what was done is kept.
        LongreelError: the job could not run at all (library busy, no such model, no room for the workers, full disk).
    """
    with ExitStack() as stack:
        if not (request.address or Store.exists(request.store)):
            with sigterm_as_ctrl_c():
                _require_model(request.settings.model, reporter)  # or nothing is made that would be left behind
        store = open_or_create_store(request.store, request.settings.model)
        stack.enter_context(store.lock(request.command))
        catalog = stack.enter_context(Catalog(store.catalog_path))
        catalog.mark_interrupted_jobs(alone=True)
        _register(catalog, request)
        if catalog.cancel_requested(request.job_id):  # between being detached and coming to this point
            catalog.update_job(request.job_id, state="cancelled", ended_at=_now())
            raise Interrupted(f"job {request.job_id} was cancelled before it began")
        catalog.update_job(
            request.job_id, state="running", pid=os.getpid(), host=socket.gethostname(), started_at=_now()
        )
        state = "interrupted"
        try:
            with sigterm_as_ctrl_c():
                summary = _run(store, catalog, request, reporter)
            if not summary.interrupted:
                state = "cancelled" if summary.cancelled else "finished"
        except LongreelError as error:
            state = "failed"
            catalog.record_error(error, job_id=request.job_id)
            raise
        except KeyboardInterrupt:
            summary = JobSummary(request.job_id, interrupted=True)
        finally:
            catalog.update_job(request.job_id, state=state, ended_at=_now())
        reporter.job_ended(summary)
    if summary.interrupted:
        raise Interrupted(
            f"job {request.job_id} was stopped; {summary.count('done')} done and kept. "
            "Submit the same again to go on where it stopped"
        )
    return summary


def _run(store: Store, catalog: Catalog, request: SubmitRequest, reporter: Reporter) -> JobSummary:
    from jobs.batch import skip_done

    reporter.job_started(request.job_id, len(request.items))
    todo: Sequence[SourceItem] = request.items
    ended: dict[str, ItemResult] = {}
    if store.is_bound:
        recipe_key = request.settings.ingest.recipe_key(store.manifest.fingerprint)
        todo, skipped = skip_done(catalog, request.items, recipe_key, request.settings.captions.model)
        names = {redact(item.uri): item.name for item in request.items}
        catalog.set_items(request.job_id, {item.uri: {"state": "skipped"} for item in skipped})
        for item in skipped:
            ended[item.uri] = item
            reporter.video_ended(names[item.uri], item)
    done = JobSummary(request.job_id)
    if todo:
        done = _work(store, catalog, request, todo, reporter)
        ended |= {item.uri: item for item in done.items}
        if not done.interrupted:
            _update_index(store, catalog, request.settings)
    return replace(done, items=[ended[redact(item.uri)] for item in request.items])


def _work(
    store: Store, catalog: Catalog, request: SubmitRequest, todo: Sequence[SourceItem], reporter: Reporter
) -> JobSummary:
    from jobs.batch import BatchJob
    from jobs.engine import Engine, start_ray, stop_ray
    from pipeline.index import load_faiss

    load_faiss()  # when it is missing, say so now and not after hours of work
    if not (store.is_bound or request.address):
        # Before Ray and any video, and with the download's steps told. A library that is bound had its model once, and
        # a cluster's nodes have caches of their own: there the workers say it, before any video as well.
        _require_model(request.settings.model, reporter)

    async def run(resources: dict[str, float]) -> JobSummary:
        captioner = request.settings.captions.model
        reporter.note(f"loading {request.settings.model}{' and ' + captioner if captioner else ''}")
        async with Engine(request.settings, resources, store.manifest.precision) as engine:
            info = engine.info
            store.bind(info)
            catalog.dimension = info.dimension
            weights = " (RANDOM weights: for trials only, the words mean nothing to it)" if info.random else ""
            reporter.note(f"model {info.name}{weights} on {info.device}, {info.precision}: {info.precision_reason}")
            if (words := engine.captioner) is not None:
                random = " (RANDOM weights: for trials only, its words mean nothing)" if words.random else ""
                reporter.note(f"captions by {words.name}{random} on {words.device}")
            try:
                return await BatchJob(catalog, engine, request.settings, request.job_id, reporter).run(todo)
            finally:  # it was paid for, however the job ends
                if engine.captioner is not None and engine.asked is not None:
                    reporter.note(f"asked {engine.captioner.name}: {engine.asked.line(request.settings.captions.vlm)}")

    reporter.note("joining Ray" if request.address else "starting Ray on this machine")
    with job_log(store.jobs_folder / f"{request.job_id}.log"):
        try:
            return asyncio.run(run(start_ray(request.address, request.settings.workers)))
        finally:
            stop_ray()


def _require_model(model: str, reporter: Reporter) -> None:
    from encoders import Progress, require_model

    said: set[str] = set()

    def tell(step: Progress) -> None:
        if step.message not in said:
            said.add(step.message)
            reporter.note(step.message)

    require_model(model, tell)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Within it SIGTERM stops a job as Ctrl-C does: with its workers ended and its state recorded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _update_index(store: Store, catalog: Catalog, settings: RunSettings) -> None:
    from pipeline.index import VectorIndex

    with VectorIndex.open(store.index_folder, catalog, store.manifest.dimension, settings.index) as index:
        index.sync()
        index.maintain()  # another kind for another size: better here than in the middle of somebody's query


def _register(catalog: Catalog, request: SubmitRequest) -> None:
    """Write the job and its items down, unless the process that detached this one has done so."""
    if any(job.id == request.job_id for job in catalog.jobs()):
        return
    config: dict[str, Any] = {"settings": request.settings.to_dict(), "address": request.address}
    catalog.create_job(request.job_id, config, request.command)
    catalog.set_items(
        request.job_id,
        {
            redact(item.uri): {"video_id": video_id_for(redact(item.uri)), "name": item.name, "state": "pending"}
            for item in request.items
        },
    )


def run_detached(request: SubmitRequest) -> Path:
    """Start the job in a process of its own and return at once; the path of its log.

    Raises:
        LibraryBusy: another process is writing to the library.
        EncoderError: a new library's model is unknown, or its weights are neither here nor to be had.
        LongreelError: the library cannot be opened or made.
    """
    if not (request.address or _is_bound(request.store)):
        from encoders import require_model

        require_model(request.settings.model, download=False)  # a word now rather than in a log
    store = open_or_create_store(request.store, request.settings.model)
    with store.lock(request.command), Catalog(store.catalog_path) as catalog:
        _register(catalog, request)
    store.jobs_folder.mkdir(exist_ok=True)
    log = store.jobs_folder / f"{request.job_id}.log"
    request = replace(request, store=store.path)
    command, environment = python_command("jobs.runner:main()")
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that closing this terminal does not end it
        )
    assert process.stdin is not None
    with Catalog(store.catalog_path) as catalog:
        # Before it can begin: whoever looks sees which process the job waits for.
        catalog.update_job(request.job_id, pid=process.pid, host=socket.gethostname())
    process.stdin.write(request.to_json().encode())
    process.stdin.close()
    return log


def shown_command(arguments: Sequence[str]) -> str:
    """The command line as it may be recorded."""
    return shlex.join(["longreel", *(redact_word(word) for word in arguments)])


def _now() -> datetime:
    return datetime.now(timezone.utc)


def main() -> int:
    """The detached process."""
    request = SubmitRequest.from_json(sys.stdin.read())
    try:
        summary = run_submit(request, LineReporter(sys.stdout))
    except LongreelError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        if isinstance(error, LibraryBusy):  # another writer came first: the job could not say so itself
            with Catalog(Store.open(request.store).catalog_path) as catalog:
                catalog.record_error(error, job_id=request.job_id)
        return 2
    print(json.dumps(summary.to_dict(), ensure_ascii=False), flush=True)
    return summary.exit_code
