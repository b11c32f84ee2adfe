"""Live streams from a request to their ends: what is checked before anything starts, and what is cleaned up after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from csat_fusion.errors import LongreelError
from encoders.captioning import split_captioner
from jobs.errors import Interrupted, UsageError
from jobs.live.run import LiveEngine, LiveReporter, RunningStream, StreamResult, together
from jobs.reporting import clock
from jobs.runner import open_or_create_store
from jobs.settings import RunSettings
from pipeline.caption_files import CaptionWriter, open_writer
from pipeline.catalog import Catalog, video_id_for
from pipeline.errors import OutputError, StreamBusy
from pipeline.live.loop import StreamTask, open_session, recipe_of, side_of, stream_name, stream_uri
from pipeline.sources.live import shown
from pipeline.store import Store

__all__ = ["StreamRequest", "StreamSpec", "run_streams"]

_STDIN = "/proc/{}/fd/0"  # a worker on this machine has no standard input of its own
_BIND_SECONDS = 30.0  # that another writer may take before the library knows its model


@dataclass(frozen=True)
class StreamSpec:
    """A stream to watch, by its address, which may hold credentials, and the name that a person gave it."""

    url: str
    name: str = ""

    @property
    def shown_name(self) -> str:
        return self.name or stream_name(self.url)


@dataclass(frozen=True)
class StreamRequest:
    """Everything that `longreel stream` needs.

    ``outputs`` are files for captions; ``{name}`` stands for the stream's, and has to where there are several.
    ``record`` is a folder for the compressed video itself, one folder a stream in it.
    """

    store: Path
    streams: tuple[StreamSpec, ...]
    settings: RunSettings
    outputs: tuple[str, ...] = ()
    duration_seconds: float | None = None
    tags: tuple[str, ...] = ()
    index: bool = True
    record: Path | None = None
    address: str | None = None
    command: str = "longreel stream"

    def check(self) -> None:
        """Refuse what cannot work before anything is started.

        Raises:
            UsageError: nothing to do, the same stream twice, two streams that would write to one place.
            UnknownModel: no such captioner.
            UnknownScheme: an address of a kind that is not known.
        """
        if self.settings.captions.model:
            split_captioner(self.settings.captions.model)
        if not self.index and not self.settings.captions.model:
            raise UsageError("--no-index without --captions leaves nothing to do; name a captioner, such as tiny")
        if self.outputs and not self.settings.captions.model:
            raise UsageError("--out writes captions; name a captioner with --captions, such as --captions tiny")
        if self.duration_seconds is not None and not self.duration_seconds > 0:
            raise UsageError(f"--duration {self.duration_seconds:g}: must be above 0 seconds")
        for what in ([shown(spec.url) for spec in self.streams], [spec.shown_name for spec in self.streams]):
            if twice := next((one for one in what if what.count(one) > 1), None):
                raise UsageError(f"{twice} is named twice; a stream runs once, and names differ")
        if len(self.streams) > 1:
            for output in self.outputs:
                if "{name}" not in output:
                    raise UsageError(f"--out {output}: with several streams it must hold {{name}}, as in {{name}}.vtt")
        paths = [os.path.abspath(path) for spec in self.streams for path in self.outputs_of(spec)]
        paths += [str(self.record_folder(spec)) for spec in self.streams if self.record is not None]
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise UsageError(f"{twice}: two streams, or two --out, would write there; give them other names")

    def outputs_of(self, spec: StreamSpec) -> list[str]:
        """Where the captions of one stream go."""
        return [output.replace("{name}", _file_name(spec.shown_name)) for output in self.outputs]

    def record_folder(self, spec: StreamSpec) -> Path | None:
        """Where the compressed video of one stream goes."""
        return None if self.record is None else self.record / _file_name(spec.shown_name)


def run_streams(request: StreamRequest, reporter: LiveReporter) -> list[StreamResult]:
    """Watch the streams until all have ended, failed or been stopped.

    Raises:
        Interrupted: stopped by Ctrl-C or SIGTERM; everything captured is kept, files are whole.
        LongreelError: it could not begin at all, or the library cannot go on.
    """
    from jobs.engine import start_ray, stop_ray
    from jobs.job_log import job_log

    request.check()
    with ExitStack() as stack:
        # First everything that may be wrong with what was asked, then what is dear to start. No file is touched that
        # another process writes to.
        if Store.exists(request.store):
            with Catalog(Store.open(request.store).catalog_path) as there:
                _refuse_watched(there, request)
        files = [stack.enter_context(_files(request, spec)) for spec in request.streams]
        store = open_or_create_store(request.store, request.settings.model)
        if request.index:
            from pipeline.index import load_faiss

            load_faiss()
        if not (store.is_bound or request.address):
            from encoders import require_model

            require_model(request.settings.model)
        catalog = stack.enter_context(Catalog(store.catalog_path))
        _refuse_watched(catalog, request)
        _refuse_others_files(catalog, request, files)
        stack.enter_context(job_log(store.jobs_folder / "streams.log"))
        reporter.note("joining Ray" if request.address else "starting Ray on this machine")
        stack.callback(stop_ray)
        resources = start_ray(request.address, request.settings.workers)
        try:
            return asyncio.run(_run(request, store, catalog, files, resources, reporter))
        except asyncio.CancelledError:
            raise Interrupted("stopped at once; the last words of the streams were not waited for") from None


def _refuse_watched(catalog: Catalog, request: StreamRequest) -> None:
    """Say now, and not after the model was loaded, that another process watches one of the streams.

    Raises:
        StreamBusy: naming the process.
    """
    catalog.mark_interrupted_streams()
    running = {one.video_id: one for one in catalog.streams(running=True)}
    for spec in request.streams:
        one = running.get(video_id_for(stream_uri(spec.url, spec.shown_name)))
        if one is not None:
            raise StreamBusy(f"{one.uri}: process {one.pid} on {one.host} is watching this stream ({one.state.value})")


def _refuse_others_files(catalog: Catalog, request: StreamRequest, files: Sequence[Sequence[CaptionWriter]]) -> None:
    """A file to go on with whose captions lie ahead of the stream is another one's: its times would run backwards.
    A stream goes on where it was, or where the wall clock has come to since its first picture.

    Raises:
        OutputError: naming the file and both times.
    """
    now = datetime.now(timezone.utc)
    known = {one.video_id: one for one in catalog.streams()}
    for spec, own in zip(request.streams, files, strict=True):
        come, one = 0.0, known.get(video_id_for(stream_uri(spec.url, spec.shown_name)))
        if one is not None:
            since = 0.0 if one.first_utc is None else (now - one.first_utc).total_seconds()
            come = max(one.resume_seconds, since)
        for file in own:
            if file.reached_seconds > come:
                raise OutputError(
                    f"{file.where}: has captions up to {clock(file.reached_seconds)}, and in this library "
                    f"{spec.shown_name} has come to {clock(come)}: the file is another stream's; move it away, or name "
                    "another file"
                )


async def _run(
    request: StreamRequest,
    store: Store,
    catalog: Catalog,
    files: Sequence[Sequence[CaptionWriter]],
    resources: dict[str, float],
    reporter: LiveReporter,
) -> list[StreamResult]:
    settings = request.settings
    stop = asyncio.Event()
    with _stopped_by_signals(stop) as stopped:
        captioner = f" and {settings.captions.model} for captions" if settings.captions.model else ""
        reporter.note(f"loading {settings.model}{captioner}")
        engine = LiveEngine(settings, len(request.streams), resources, reporter)
        async with AsyncExitStack() as stack:
            # Loading may take minutes; who gives up meanwhile does not wait for it.
            entering = asyncio.ensure_future(stack.enter_async_context(engine))
            waiting = asyncio.ensure_future(stop.wait())
            await asyncio.wait([entering, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not entering.done():
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)
                raise Interrupted("stopped before any stream was watched")
            await entering
            info = engine.models.encoder
            if store.is_bound:
                store.check_model(info)
            else:  # the only moment in which a stream is the one writer: others may go on side by side
                with store.lock(request.command, wait_seconds=_BIND_SECONDS):
                    store.bind(info)
            catalog.dimension = info.dimension
            recipe = recipe_of(settings.live, settings.ingest, info.fingerprint)
            running: list[RunningStream] = []
            for spec, own in zip(request.streams, files, strict=True):
                task = StreamTask.of(
                    spec.url if spec.url != "-" else _STDIN.format(os.getpid()),
                    spec.shown_name,
                    settings.live,
                    settings.ingest,
                    side_of(info, engine.models.captioner),
                    record_folder=str(request.record_folder(spec) or ""),
                )
                task = replace(task, uri=stream_uri(spec.url, spec.shown_name))
                try:
                    session, task = open_session(
                        catalog,
                        task,
                        settings.live,
                        info.fingerprint,
                        recipe,
                        tags=request.tags,
                        files=own,
                        recordings=request.record_folder(spec),
                        index=request.index,
                    )
                except LongreelError:
                    for one in running:  # nobody would say that these are not watched
                        one.session.close()
                    raise
                running.append(RunningStream(task, session))
                reporter.stream_started(session, task.uri)
            results = await together(engine, running, reporter, stop, request.duration_seconds)
            if engine.asked is not None and engine.models.captioner is not None:
                reporter.asked(engine.models.captioner.name, engine.asked, settings.captions.vlm)
        if stopped():
            raise Interrupted("stopped; everything that was captured is kept")
        return results


def _file_name(name: str) -> str:
    """A stream's name as one part of a path."""
    kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in name).strip(". ")
    return kept or "stream"


@contextlib.contextmanager
def _files(request: StreamRequest, spec: StreamSpec) -> Iterator[list[CaptionWriter]]:
    """The stream's caption files, opened now: an unwritable one is told before anything starts. What earlier runs
    wrote stays.

    Raises:
        OutputError: a file that cannot be written, of a kind that is not known, or that is not Longreel's.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(open_writer(path, live=True, go_on=True)) for path in request.outputs_of(spec)]


@contextlib.contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM set ``stop``; a second one does not wait for the streams' last words."""
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    count = 0

    def asked(*_: Any) -> None:
        nonlocal count
        count += 1
        stop.set()
        if count > 1 and main is not None:
            main.cancel()

    kinds = (signal.SIGINT, signal.SIGTERM)
    try:
        for kind in kinds:
            loop.add_signal_handler(kind, asked)
        yield lambda: count > 0
    finally:
        for kind in kinds:
            loop.remove_signal_handler(kind)
