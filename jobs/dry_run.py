"""``submit --dry-run``: what would be done, and what it would cost, from a short sample measured here and now."""

from __future__ import annotations

import json
import os
import resource
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from csat_fusion.errors import LongreelError
from jobs.cli.common import console
from jobs.placement import plan_stages
from jobs.runner import SubmitRequest
from pipeline.catalog import Catalog, video_id_for
from pipeline.errors import SourceError, UnexpectedError
from pipeline.ingest import inspect_in, part_spans, unexpected_as_typed, watch_in, watch_task
from pipeline.media import Block, MediaInfo, Span
from pipeline.sources import SourceItem
from pipeline.sources.redact import redact
from pipeline.store import Store

if TYPE_CHECKING:
    from encoders.base import Encoder
    from pipeline.isolation import Isolated

__all__ = ["Estimate", "print_estimate"]

_SAMPLE_SECONDS = 20.0  # of media time, from the middle of the longest video
_SEGMENT_BYTES = 600  # a row of the catalog with its indexes, measured
_ACTOR_BYTES = 110_000_000  # a decode worker besides its decoder process, measured
_RAY_BYTES = 600_000_000  # Ray's own processes and the command itself, measured on two cores


@dataclass(frozen=True)
class _Found:
    """One source as the dry run sees it.

    Attributes:
        state: todo, skipped or failed.
        to_caption: segments of a video that is indexed already which the job's captioner would look at; ``None`` where
            the job makes no captions, or nobody knows before the video is indexed.
    """

    uri: str
    name: str
    state: str
    duration_seconds: float | None = None
    size_bytes: int | None = None
    parts: int = 0
    error: dict[str, str] | None = None
    to_caption: int | None = None
    fingerprint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As the JSON contract has it."""
        return {name: value for name, value in asdict(self).items() if name != "fingerprint"}


@dataclass(frozen=True)
class Estimate:
    """What a sample of ``sampled_seconds`` of media says about all of it. Times are of this machine alone."""

    sampled_uri: str
    sampled_seconds: float
    decode_seconds_per_hour: float
    encode_seconds_per_hour: float
    media_hours: float
    work_hours: float
    disk_bytes: int
    memory_bytes: int


def print_estimate(request: SubmitRequest, as_json: bool) -> int:
    """Probe every source, measure a sample, print; exit code 3 when some sources cannot be used.

    Raises:
        LibraryError: the library at the store cannot be used.
        EncoderError: the model cannot be loaded; where its weights cannot be had, before any video is looked at.
    """
    from encoders import load_encoder, require_model
    from pipeline.isolation import Isolated

    out = console(stderr=True)
    require_model(request.settings.model, download=False)
    options = request.settings.encoder
    with out.status("looking at the sources"), Isolated() as child:
        found = [_inspect(request, item, child) for item in request.items]
        estimate = None
        if any(f.state == "todo" for f in found):
            out.print(f"measuring a sample with {request.settings.model}", style="dim")
            with load_encoder(
                request.settings.model,
                device=options.device,
                precision=options.precision,
                batch_size=options.batch_size,
                seed=options.seed,
                threads=options.threads,
            ) as encoder:
                estimate = _measure(request, found, encoder, child)
    counts = {state: sum(f.state == state for f in found) for state in ("todo", "skipped", "failed")}
    if as_json:
        value = {"dry_run": True, **counts, "estimate": asdict(estimate) if estimate else None}
        click.echo(json.dumps({**value, "items": [f.to_dict() for f in found]}, ensure_ascii=False))
    else:
        _show(found, estimate, request)
        if captioner := request.settings.captions.model:
            click.echo(_captions_of(found, captioner))
    return 3 if counts["failed"] else 0


def _inspect(request: SubmitRequest, item: SourceItem, child: Isolated) -> _Found:
    uri = redact(item.uri)
    ingest = request.settings.ingest
    done, media, to_caption = _what_is_done(request, uri)
    try:
        with unexpected_as_typed(uri, item.uri):
            info, fingerprint = inspect_in(child, item.uri, uri, ingest.decode, done)
    except LongreelError as error:
        return _Found(uri, item.name, "failed", error={"type": type(error).__name__, "message": str(error)})
    state = "skipped" if info is None else "todo"
    facts = info or media
    assert facts is not None
    parts = len(part_spans(facts.duration_seconds, ingest.part_seconds))
    return _Found(
        uri,
        item.name,
        state,
        facts.duration_seconds,
        facts.size_bytes,
        parts,
        None,
        to_caption if state == "skipped" else None,
        fingerprint,
    )


def _what_is_done(request: SubmitRequest, uri: str) -> tuple[str | None, MediaInfo | None, int | None]:
    """Fingerprint and facts of the content that is all there, made as this request asks; None when it is not. And how
    many of its segments would be captioned, where the request asks for that."""
    from encoders.captioner_names import kept_name
    from jobs.captioning import lacks_captions

    if not Store.exists(request.store):
        return None, None, None
    store = Store.open(request.store)
    store.check_name(request.settings.model)
    if not store.is_bound or not store.catalog_path.exists():
        return None, None, None
    captioner = request.settings.captions.model
    with Catalog(store.catalog_path, create=False) as catalog:
        record = catalog.find_video(video_id_for(uri))
        if record is None or record.media is None:
            return None, None, None
        to_caption = lacks_captions(catalog, record, kept_name(captioner)) if captioner else None
    done = record.done_fingerprint(request.settings.ingest.recipe_key(store.manifest.fingerprint))
    return done, record.media, to_caption


@dataclass(frozen=True)
class _Sample:
    """What decoding and encoding a few seconds took. ``seconds`` is media time; more than 0."""

    seconds: float
    decode_seconds: float
    encode_seconds: float
    stored_bytes: int
    vector_bytes: int
    decoder_bytes: int


def _measure(request: SubmitRequest, found: list[_Found], encoder: Encoder, child: Isolated) -> Estimate | None:
    """What a sample of the longest video says that has one; videos that break in theirs become failed ones.

    ``None`` when no video gave a frame.
    """
    todo = [i for i, f in enumerate(found) if f.state == "todo"]
    for i in sorted(todo, key=lambda i: found[i].duration_seconds or 0.0, reverse=True):
        try:
            sample = _sample(request, found[i], request.items[i], encoder, child)
        except (SourceError, UnexpectedError) as error:
            said = {"type": type(error).__name__, "message": str(error)}
            found[i] = replace(found[i], state="failed", error=said)
            continue
        if sample is not None:
            return _estimate(request, found, found[i].uri, sample)
    return None


def _sample(
    request: SubmitRequest, found: _Found, item: SourceItem, encoder: Encoder, child: Isolated
) -> _Sample | None:
    """From the middle, or from the beginning where that has no frames; ``None`` when there are none at all."""
    duration = found.duration_seconds or _SAMPLE_SECONDS
    start = max(0.0, duration / 2 - _SAMPLE_SECONDS / 2)
    for begin in dict.fromkeys((start, 0.0)):
        span = Span(begin, begin + min(_SAMPLE_SECONDS, duration))
        sample = _sample_of(request, found, item, span, encoder, child)
        if sample is not None:
            return sample
    return None


def _sample_of(
    request: SubmitRequest, found: _Found, item: SourceItem, span: Span, encoder: Encoder, child: Isolated
) -> _Sample | None:
    """Decode and encode one span, the two timed apart."""
    from pipeline.digest import Digest

    ingest = request.settings.ingest
    task = watch_task(item.uri, found.uri, found.fingerprint, span, encoder.info, ingest)
    digest = Digest(encoder, ingest.digest)
    decode_seconds = encode_seconds = 0.0
    decoder_bytes = 0
    result = None
    messages = watch_in(child, task, ingest.decode.stall_seconds)
    clock = time.monotonic()
    for message in messages:
        decode_seconds += time.monotonic() - clock
        decoder_bytes = max(decoder_bytes, _resident_bytes(child.pid))
        clock = time.monotonic()
        if isinstance(message, Block):
            digest.add(message)
        else:
            result = digest.finish(message)
        encode_seconds += time.monotonic() - clock
        clock = time.monotonic()
    assert result is not None
    covered = result.summary.covered
    if covered is None or covered.duration_seconds <= 0 or not result.segments:
        return None
    return _Sample(
        seconds=covered.duration_seconds,
        decode_seconds=decode_seconds,
        encode_seconds=encode_seconds,
        stored_bytes=sum(
            len(s.vectors) * (s.vectors.embedding.shape[1] * 2 + 100)
            + len(s.thumbnail_jpeg or b"")
            + (len(s.tokens.payload) if s.tokens else 0)
            + _SEGMENT_BYTES
            for s in result.segments
        ),
        vector_bytes=sum(len(s.vectors) * s.vectors.embedding.shape[1] * 4 for s in result.segments),
        decoder_bytes=decoder_bytes,
    )


def _resident_bytes(pid: int | None) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss) if pid is not None else 0
    except psutil.NoSuchProcess:  # it ended with its last message
        return 0


def _estimate(request: SubmitRequest, found: list[_Found], uri: str, sample: _Sample) -> Estimate:
    from jobs.checks.cluster import local_resources

    workers = request.settings.workers
    media = sum(f.duration_seconds or 0.0 for f in found if f.state == "todo")
    # The two overlap where there are cores for both; on few cores they share them. The slower side is the floor, the
    # sum the ceiling: their mean is what was seen on two cores.
    both = sample.decode_seconds + sample.encode_seconds
    slower = max(sample.decode_seconds, sample.encode_seconds)
    decode, encode = plan_stages(workers, local_resources(workers.object_store_bytes))
    # This process holds the loaded model, as an encode worker does.
    encoder_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    processes = encode.count * encoder_bytes + decode.count * (sample.decoder_bytes + _ACTOR_BYTES) + _RAY_BYTES
    return Estimate(
        sampled_uri=uri,
        sampled_seconds=sample.seconds,
        decode_seconds_per_hour=sample.decode_seconds / sample.seconds * 3600,
        encode_seconds_per_hour=sample.encode_seconds / sample.seconds * 3600,
        media_hours=media / 3600,
        work_hours=(slower + both) / 2 / sample.seconds * media / 3600,
        disk_bytes=int(sample.stored_bytes / sample.seconds * media),
        memory_bytes=int(processes + workers.object_store_bytes + sample.vector_bytes / sample.seconds * media),
    )


def _show(found: list[_Found], estimate: Estimate | None, request: SubmitRequest) -> None:
    from rich.text import Text

    from jobs.reporting import clock

    out = console()
    for f in found:
        line = Text(f"{f.state:>8}  {f.name}", style={"failed": "red", "skipped": "dim"}.get(f.state, ""))
        if f.error:
            line.append(f"  {f.error['type']}: {f.error['message']}")
        elif f.duration_seconds is not None:
            line.append(f"  {clock(f.duration_seconds)}, {f.parts} part{'' if f.parts == 1 else 's'}")
            if f.to_caption:
                line.append(f", {f.to_caption} segment{'' if f.to_caption == 1 else 's'} to caption")
        else:
            line.append("  length unknown until decoded")
        out.print(line)
    todo = sum(f.state == "todo" for f in found)
    if estimate is None:
        click.echo("no video to do gave a frame: nothing could be estimated" if todo else "nothing to do")
        return
    click.echo(f"{todo} videos, {estimate.media_hours:.2f} hours of video to do; nothing was written")
    click.echo(
        f"from {estimate.sampled_seconds:.0f} s of {os.path.basename(estimate.sampled_uri)}, on this machine alone, "
        f"for an hour of video: {estimate.decode_seconds_per_hour:.0f} s of decoding, "
        f"{estimate.encode_seconds_per_hour:.0f} s of encoding"
    )
    click.echo(
        f"estimate: about {_hours(estimate.work_hours)} of work, {_size(estimate.disk_bytes)} of disk in "
        f"{request.store}, {_size(estimate.memory_bytes)} of memory"
    )


def _captions_of(found: list[_Found], captioner: str) -> str:
    """What the captioner would do."""
    lacking = [f.to_caption for f in found if f.to_caption]
    new = sum(f.state == "todo" for f in found)
    known = f"{sum(lacking)} segments of {len(lacking)} videos that are indexed"
    every = f"all segments of the {new} videos to do, once they are indexed"
    what = " and ".join([known] * bool(lacking) + [every] * bool(new)) or "nothing to do"
    return f"captions by {captioner}: {what}" + ("; not part of the estimate" if lacking or new else "")


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} seconds"
    return f"{hours * 60:.0f} minutes" if hours < 1 else f"{hours:.1f} hours"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
