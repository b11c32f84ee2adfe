"""``longreel submit --captions``: a batch is captioned on Ray, goes on where it was, and survives what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jobs.settings import EncoderOptions, load_settings
from jobs.workers import EncodeWorker
from pipeline.catalog import Catalog
from pipeline.catalog.records import CaptionRecord
from pipeline.digest import DigestOptions
from pipeline.library import Library
from pipeline.media import Block, ClosedSegment, Span, WatchSummary
from tests.catalog.content import media_info
from tests.encoders.vlm_server import say, serving, status
from tests.jobs import telling
from tests.jobs.running import QUICK, Ran, draw_film, environment, longreel, settings, tiny_model
from tests.pipeline.fakes import ToneEncoder

TELLER = "python:tests.jobs.telling:teller"
RECIPE = ("ingest.part_seconds=6", "ingest.segments.detector=none", "ingest.segments.max_seconds=2")


@dataclass
class World:
    """Two films that are indexed already."""

    folder: Path
    films: Path
    store: Path
    model: str

    def submit(self, *words: str | Path, **changes: str) -> Ran:
        env = environment(**changes)
        options = ("--model", self.model, "--store", self.store, "--json", *settings(*RECIPE))
        return longreel("submit", self.films, *words, *options, env=env)

    def ask(self, *words: str | Path, **changes: str) -> Ran:
        return longreel(*words, "--store", self.store, "--json", env=environment(**changes))

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        with Catalog(self.store / "catalog.sqlite3", create=False) as catalog:
            yield catalog

    def captions(self) -> dict[str, list[CaptionRecord]]:
        with self.catalog() as catalog:
            return {video.name: catalog.captions_of(video.id) for video in catalog.videos()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, tmp_path / "films", tmp_path / "store", tiny_model(tmp_path))
    for number in (1, 2):
        draw_film(made.films / f"{number}.mp4", 12, seed=number)
    options = load_settings("default", [*QUICK, *RECIPE]).ingest
    with Library.open(made.store, model=made.model) as library:
        assert {one.state for one in library.add(made.films, options=options)} == {"done"}
    return made


@pytest.mark.ray
def test_a_batch_is_captioned_and_what_goes_wrong_costs_a_videos_captions_only(world: World, tmp_path: Path) -> None:
    (world.films / "3.mp4").write_text("no video")
    draw_film(world.films / "4.mp4", 12, seed=4)
    draw_film(world.films / "long.mp4", 16, seed=5)
    once = tmp_path / "died"
    ran = world.submit("--captions", TELLER, **{telling.DIE_ONCE: str(once), telling.NO_WORDS_FROM: "13"})
    assert ran.code == 3, ran.err
    assert once.exists()
    assert {name: (item["state"], item["captions"]) for name, item in ran.items.items()} == {
        "1.mp4": ("skipped", 6),
        "2.mp4": ("skipped", 6),
        "3.mp4": ("failed", None),
        "4.mp4": ("done", 6),
        "long.mp4": ("done", 0),
    }
    errors = {name: item["captions_error"] for name, item in ran.items.items() if item["captions_error"]}
    assert errors == {"long.mp4": {"type": "EncoderError", "message": "no words from 13 s on"}}
    progress = [event for event in ran.events if event.get("event") == "captions"]
    assert [(event["done_segments"], event["segments"]) for event in progress] == [(6, 6)] * 3
    captions = world.captions()
    assert [one.span.start_seconds for one in captions["4.mp4"]] == [0, 2, 4, 6, 8, 10]
    assert {one.model for found in captions.values() for one in found} == {TELLER}
    with world.catalog() as catalog:
        video = catalog.video("4.mp4").id
        assert not catalog.segments_with_tokens(row.id for row in catalog.segments_of(video)), "of no use to it"

    # what is told of it afterwards
    told = world.ask("jobs", "errors").value
    assert {(one["type"], one["message"]) for one in told} >= {("EncoderError", "no words from 13 s on")}
    shown = longreel("jobs", "show", "--store", world.store).out
    assert ", 0 captions; captions: EncoderError: no words from 13 s on" in shown

    # and it goes on where it was
    retried = world.ask("jobs", "retry")
    assert {name: (item["state"], item["captions"]) for name, item in retried.items.items()} == {
        "3.mp4": ("failed", None),
        "long.mp4": ("skipped", 8),
    }
    (world.films / "3.mp4").unlink()
    nothing = world.submit("--captions", TELLER)
    assert nothing.code == 0, nothing.err
    assert {item["captions"] for item in nothing.items.values()} == {6, 8}
    assert not any(event.get("event") == "note" for event in nothing.events), "neither Ray nor a model is started"
    assert world.captions() | {"long.mp4": []} == captions | {"long.mp4": []}


@pytest.mark.ray
def test_a_model_behind_an_address_is_paid_for_once(world: World) -> None:
    proxies = dict.fromkeys(("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "")
    with serving() as server:
        server.faults.extend([say(""), status(400)])
        priced = settings("captions.vlm.price_in=10", "captions.vlm.concurrency=1", "captions.vlm.key_variable=")
        ask = ("--captions", server.name() + "/", *priced)
        ran = world.submit(*ask, **proxies)
        assert ran.code == 3, ran.err
        assert {(item["state"], item["captions"]) for item in ran.items.values()} == {("skipped", 4), ("skipped", 6)}
        (error,) = [item["captions_error"] for item in ran.items.values() if item["captions_error"]]
        assert error["type"] == "VlmRefused"
        told = ran.summary["asked"]
        assert (told["requests"], told["captions"], told["empty"], told["failures"]) == (12, 11, 1, 1)
        assert (told["tokens_in"], told["cost"], told["currency"]) == (1100, pytest.approx(0.011), "USD")
        said = [event["message"] for event in ran.events if event.get("event") == "note"]
        assert f"asked {server.name()}: 12 requests, 1100 tokens in, 77 out, 0.0110 USD" in said
        # only the one that was refused is asked about again, and then nothing is left, neither for Ray nor to be paid
        again = world.submit(*ask, **proxies)
        assert (again.code, again.summary["asked"]["requests"]) == (0, 1)
        nothing = world.submit(*ask, **proxies)
        assert (nothing.code, sorted(item["captions"] for item in nothing.items.values())) == (0, [5, 6])
        assert not any(event.get("event") == "note" for event in nothing.events), "Ray is not started"
        assert (len(server.requests), "asked" in nothing.summary) == (13, False)
    assert {one.model for found in world.captions().values() for one in found} == {server.name()}


@pytest.mark.parametrize("reads", ["tone", "another", ""])
def test_token_sets_are_kept_for_a_captioner_that_reads_them(reads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ToneEncoder()
    monkeypatch.setattr("encoders.load_encoder", lambda *_, **__: encoder)
    assert encoder.info.fingerprint == "tone"
    seconds, ones = np.arange(3, dtype=np.float64), np.ones(3, np.int64)
    images = np.full((3, 32, 32, 3), 120, np.uint8)
    closed = (ClosedSegment(0, Span(0, 3), "end"),)
    seen = Block(images, seconds, seconds, seconds + 1, ones, 0 * ones, closed)
    worker = EncodeWorker("m", DigestOptions(), reads)
    worker.take("part", 0, seen, EncoderOptions(threads=1))
    summary = WatchSummary(media_info("a.mp4"), "scripted", "", Span(0, 3))
    result = worker.take("part", 1, summary, EncoderOptions(threads=1)).result
    assert result is not None
    assert [one.tokens is not None for one in result.segments] == [reads == "tone"]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("tinny", "UnknownModel", "did you mean 'tiny'"),
        ("vlm:m@https://user:geheim@host/v1", "OptionError", "password"),
    ],
)
def test_a_captioner_that_is_none_is_told_before_anything_is_made(
    tmp_path: Path, name: str, kind: str, said: str
) -> None:
    draw_film(tmp_path / "a.mp4", 2, seed=6)
    ran = longreel("submit", tmp_path / "a.mp4", "--captions", name, "--store", tmp_path / "store", "--json")
    assert (ran.code, ran.error["type"]) == (2, kind)
    assert said in ran.error["message"]
    assert "geheim" not in ran.out + ran.err
    assert not (tmp_path / "store").exists()
