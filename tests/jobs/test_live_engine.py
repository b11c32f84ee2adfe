"""What one live stream may cost another (nothing), and what is counted when workers die: the engine, with actors that
are threads of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jobs.live.lanes
import jobs.live.run
from jobs.live.run import LiveEngine, LiveReporter, RunningStream, StreamResult, together
from jobs.live.workers import LiveEncodeWorker, LiveModels, StreamWorker
from jobs.pool import LostWorker
from jobs.settings import load_settings
from pipeline.catalog import Catalog
from pipeline.digest import DigestOptions
from pipeline.errors import LibraryBusy, SourceError, UnexpectedError
from pipeline.ingest import IngestOptions
from pipeline.live.digest import ClosedContent, LiveDigest
from pipeline.live.loop import StreamTask, open_session
from pipeline.live.options import LiveSettings, WindowOptions
from pipeline.live.types import LiveBlock, LiveCaption, LiveState
from tests.pipeline.fakes import ToneEncoder
from tests.pipeline.live.playing import watched

FILM = watched([("moving", 24)])
RESOURCES = {"CPU": 8.0}


class Actor:
    """A handle as Ray's, of an object in this process: its methods run in threads."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.made, name)

        def remote(*arguments: Any) -> Any:
            if name == "watch":
                return method(*arguments)
            values = [one.result() if isinstance(one, asyncio.Future) else one for one in arguments]
            return asyncio.ensure_future(asyncio.to_thread(method, *values))

        return SimpleNamespace(remote=remote, options=lambda **_: SimpleNamespace(remote=remote))


class Watcher:
    """Gives what its stream's script says: blocks, or errors; a function is called, in a thread, and waited for."""

    scripts: dict[str, list[Any]]

    def __init__(self) -> None:
        self._stopped = False

    async def watch(self, task: StreamTask) -> AsyncIterator[Any]:
        script = self.scripts[task.name]
        while script and not self._stopped:
            one = script.pop(0)
            if callable(one):
                await asyncio.to_thread(one)
                continue
            future = asyncio.get_running_loop().create_future()
            if isinstance(one, LiveBlock):
                future.set_result(one)
            else:
                future.set_exception(one)
            yield future

    def stop(self) -> None:
        self._stopped = True


class Words:
    """A captioner; ``before`` is called with each lot of windows."""

    before: Callable[[Sequence[Any]], None] = staticmethod(lambda contents: None)

    def caption(self, contents: Sequence[tuple[str, ClosedContent]]) -> list[LiveCaption]:
        type(self).before(contents)
        return [
            LiveCaption(stream, one.closed.index, one.closed.span, f"window {one.closed.index}", "m", None, None)
            for stream, one in contents
        ]

    def drop(self, stream: str) -> None: ...


class Encoding(LiveEncodeWorker):
    """The real worker with a model of ours; ``before`` is called with each lot of blocks."""

    before: Callable[[Encoding, Sequence[str], Sequence[LiveBlock]], None] = staticmethod(lambda *_: None)
    made: list[Encoding]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made.append(self)

    def _loaded(self) -> LiveModels:
        self._digest = LiveDigest(ToneEncoder(), DigestOptions(), WindowOptions())
        self._words = Words()  # type: ignore[assignment]
        return LiveModels(ToneEncoder().info)

    def take(self, streams: Sequence[str], *blocks: LiveBlock) -> Any:
        type(self).before(self, streams, blocks)
        return super().take(streams, *blocks)

    def die(self) -> None:
        """As when its process dies: nothing is known any more."""
        self._models = None
        self._contents.clear()
        raise LostWorker("its process died")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=2) as opened:
        yield opened


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {StreamWorker: Watcher, LiveEncodeWorker: Encoding}
    monkeypatch.setattr(
        jobs.live.run, "ray_class", lambda kind, **_: SimpleNamespace(remote=lambda *a: Actor(kinds[kind](*a)))
    )
    monkeypatch.setattr("ray.nodes", list)
    monkeypatch.setattr("ray.kill", lambda *_, **__: None)
    monkeypatch.setattr(jobs.live.run, "check_nodes", lambda *_: None)
    monkeypatch.setattr(Encoding, "before", staticmethod(lambda *_: None))
    monkeypatch.setattr(Encoding, "made", [], raising=False)
    monkeypatch.setattr(Words, "before", staticmethod(lambda _: None))


def stream_of(catalog: Catalog, name: str) -> RunningStream:
    task = StreamTask.of(f"udp://127.0.0.1:9/{name}", name, LiveSettings(), IngestOptions(), 48)
    return RunningStream(*reversed(open_session(catalog, task, LiveSettings(), "model", "recipe")))


def watch(
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    *overrides: str,
    reporter: LiveReporter | None = None,
    **scripts: list[Any],
) -> dict[str, StreamResult]:
    """Watch streams that play these scripts to their ends; how each ended."""
    monkeypatch.setattr(Watcher, "scripts", {name: list(script) for name, script in scripts.items()}, raising=False)
    settings = load_settings("default", ["captions.model=tiny", *overrides])

    async def run() -> list[StreamResult]:
        told = reporter or LiveReporter()
        streams = [stream_of(catalog, name) for name in scripts]
        async with LiveEngine(settings, len(streams), RESOURCES, told) as engine:
            return await asyncio.wait_for(together(engine, streams, told, asyncio.Event(), None), 60)

    return {result.session.name: result for result in asyncio.run(run())}


def said(catalog: Catalog, name: str) -> list[str]:
    return [caption.text for caption in catalog.captions_of(catalog.video(name).id)]


ALL_WORDS = ["window 0", "window 1", "window 2"]


def test_all_is_well(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    results = watch(catalog, monkeypatch, one=FILM, two=FILM)
    for name in ("one", "two"):
        assert results[name].error is None
        assert said(catalog, name) == ALL_WORDS
        counts = results[name].session.counts
        assert (counts.windows, counts.captions, counts.windows_skipped) == (3, 3, 0)


def test_a_stream_that_fails_has_its_words_and_costs_no_other(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its captioner is slower than its end."""
    failed = threading.Event()
    monkeypatch.setattr(Words, "before", staticmethod(lambda _: failed.wait(2)))
    results = watch(catalog, monkeypatch, bad=[*FILM[:-3], failed.set, SourceError("the camera burnt down")], good=FILM)
    assert isinstance(results["bad"].error, SourceError)
    assert said(catalog, "bad") == ["window 0", "window 1"]
    assert results["good"].error is None
    assert said(catalog, "good") == ALL_WORDS


def test_a_stream_that_is_removed_costs_no_other(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    half = len(FILM) // 2

    def remove() -> None:
        catalog.remove_video(catalog.video("gone").id)

    results = watch(catalog, monkeypatch, gone=[*FILM[:half], remove, *FILM[half:]], good=FILM)
    assert results["gone"].error is not None
    assert "removed" in str(results["gone"].error) or "no stream" in str(results["gone"].error)
    assert results["good"].error is None
    assert said(catalog, "good") == ALL_WORDS


def test_words_that_do_not_come_in_time_are_counted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come when the stream's files are closed already, while another one goes on."""
    late, over = threading.Event(), threading.Event()

    class Ends(LiveReporter):
        def stream_ended(self, session: Any, error: Any) -> None:
            if session.name == "short":
                over.set()

    monkeypatch.setattr(Words, "before", staticmethod(lambda _: late.wait(30)))
    monkeypatch.setattr(jobs.live.lanes, "DRAIN_SECONDS", 0.2)

    def let_go() -> None:
        assert over.wait(30)
        monkeypatch.setattr(jobs.live.lanes, "DRAIN_SECONDS", 30.0)
        late.set()

    results = watch(catalog, monkeypatch, reporter=Ends(), short=FILM, long=[*FILM[:-1], let_go, FILM[-1]])
    counts = results["short"].session.counts
    assert (counts.captions, counts.windows_skipped) == (0, 3)
    assert any("no words within" in message for message in counts.messages)
    assert results["short"].error is None
    assert results["long"].error is None
    assert said(catalog, "long") == ALL_WORDS


def test_a_catalog_that_is_held_by_another_is_waited_for(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    real, busy = catalog.commit_window, [True, False, True, True] + [False] * 100

    def commit(*arguments: Any) -> Any:
        if busy.pop(0):
            raise LibraryBusy("another process has held the catalog for 60 s")
        return real(*arguments)

    monkeypatch.setattr(catalog, "commit_window", commit)
    results = watch(catalog, monkeypatch, one=FILM)
    assert results["one"].error is None
    assert results["one"].session.counts.messages == ["LibraryBusy: another process has held the catalog for 60 s"]
    spans = [row.span for row in catalog.segments_of(catalog.video("one").id)]
    assert [(span.start_seconds, span.end_seconds) for span in spans] == [(0, 10), (10, 20), (20, 24)]
    assert said(catalog, "one") == ALL_WORDS


def test_a_defect_on_one_block_costs_its_stream_only(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def before(worker: Encoding, streams: Sequence[str], blocks: Sequence[LiveBlock]) -> None:
        seen.append(len(streams))
        if bad in streams and blocks[streams.index(bad)].until_seconds > 12:
            raise UnexpectedError("unexpected error in a worker: KeyError")

    monkeypatch.setattr(Encoding, "before", staticmethod(before))
    gate = threading.Barrier(2, timeout=5)  # so that their blocks go through together
    script = [one for block in FILM for one in (gate.wait, block)]
    bad = stream_of(catalog, "bad").id
    catalog.remove_video(bad)

    def free() -> None:
        gate.abort()

    def together_or_alone() -> None:
        try:
            gate.wait()
        except threading.BrokenBarrierError:
            return

    script = [one for block in FILM for one in (together_or_alone, block)]
    results = watch(catalog, monkeypatch, bad=script, good=script)
    assert max(seen) == 2
    assert isinstance(results["bad"].error, UnexpectedError)
    assert results["good"].error is None
    assert results["good"].session.counts.windows == 3
    vectors = catalog.vectors_of(catalog.video("good").id)
    assert vectors.end_seconds[-1] == 24


@pytest.mark.parametrize("times", [1, 2])
def test_an_encode_worker_that_dies(catalog: Catalog, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """What it was given is given again, once; what was lost is counted."""
    left = [times]

    def before(worker: Encoding, streams: Sequence[str], blocks: Sequence[LiveBlock]) -> None:
        if left[0] and any(one.index == 1 for block in blocks for one in block.closed):
            left[0] -= 1
            worker.die()

    monkeypatch.setattr(Encoding, "before", staticmethod(before))
    results = watch(catalog, monkeypatch, one=FILM)
    counts = results["one"].session.counts
    assert results["one"].error is None
    assert counts.windows == counts.captions + counts.windows_skipped == 3
    assert catalog.vectors_of(catalog.video("one").id).end_seconds[-1] == 24
    if times == 2:
        assert "window 1" not in said(catalog, "one")
        assert any("died 2 times" in message for message in counts.messages)


def test_windows_whose_words_went_with_their_worker_are_counted(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(contents: Sequence[Any]) -> None:
        if contents[0][1].closed.index == 1:
            Encoding.made[0].die()

    monkeypatch.setattr(Words, "before", staticmethod(before))
    results = watch(catalog, monkeypatch, one=FILM)
    counts = results["one"].session.counts
    assert counts.windows_skipped >= 1
    assert counts.windows == counts.captions + counts.windows_skipped


def test_a_stream_lives_and_can_be_stopped_while_its_worker_is_waited_for(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.live.run, "RESTART_SECONDS", (1000.0, 1000.0))

    class Crashes(LiveReporter):
        def beat(self, sessions: Any) -> None:
            (session,) = sessions
            if session.state is LiveState.RECONNECTING:
                record = catalog.stream(session.video_id)
                if record.state is LiveState.RECONNECTING:  # it was said after the crash
                    catalog.request_stop(session.video_id)

    results = watch(catalog, monkeypatch, reporter=Crashes(), one=[*FILM[:4], LostWorker("its process died")])
    assert results["one"].error is None
    assert catalog.stream(results["one"].session.video_id).state is LiveState.ENDED


def test_where_the_engine_breaks_all_ends_are_written_down(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def before(worker: Encoding, streams: Sequence[str], blocks: Sequence[LiveBlock]) -> None:
        if blocks[0].until_seconds > 5:
            monkeypatch.setattr(Encoding, "load", lambda self: (_ for _ in ()).throw(SourceError("no such model")))
            worker.die()

    monkeypatch.setattr(Encoding, "before", staticmethod(before))
    with pytest.raises(SourceError, match="no such model"):
        watch(catalog, monkeypatch, one=FILM, two=FILM)
    for record in catalog.streams():
        assert (record.state, record.error_message) == (LiveState.FAILED, "no such model")


def test_streams_are_spread_evenly(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"s{number}" for number in range(6)]
    lanes: dict[str, set[int]] = {}

    def before(worker: Encoding, streams: Sequence[str], blocks: Sequence[LiveBlock]) -> None:
        for stream in streams:
            lanes.setdefault(stream, set()).add(Encoding.made.index(worker))

    monkeypatch.setattr(Encoding, "before", staticmethod(before))
    watch(catalog, monkeypatch, "workers.encoders=3", **dict.fromkeys(names, FILM[:6]))
    assert sorted(number for one in lanes.values() for number in one) == [0, 0, 1, 1, 2, 2]
