"""Full-text search of captions, in either database; and that its index never differs from the captions."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, update

import pipeline.catalog.migrations as migrations
from pipeline.catalog import Catalog
from pipeline.catalog.caption_search import _STOP_WORDS, words_of
from pipeline.catalog.filters import Filter
from pipeline.catalog.models import captions
from pipeline.errors import LibraryError, QueryError
from tests.catalog.content import DIMENSION, add, caption, open_stream, put_window
from tests.catalog.postgres import Server

SCENES = (
    "A brown dog runs through the park",
    "Two dogs are running on a beach",
    "A man in a red jacket rides a bicycle",
    "The man parks a red car",
    "Un chien mange une crème brûlée",
)


def filled(catalog: Catalog, scenes: tuple[str, ...] = SCENES, uri: str = "rtsp://cam/1") -> str:
    video = open_stream(catalog, uri)
    for i, text in enumerate(scenes):
        done = put_window(catalog, video, i, 10.0 * i, 10.0 * i + 10.0)
        catalog.add_caption(done.segment_id, caption(video, text, 10.0 * i, 10.0 * i + 10.0))
    return video


def found(catalog: Catalog, text: str, where: Filter | None = None, limit: int = 10) -> list[int]:
    """Numbers of the scenes found, best first."""
    hits = catalog.search_captions(text, where, limit)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return [SCENES.index(hit.caption.text) for hit in hits]


def check_index(catalog: Catalog) -> None:
    """SQLite compares its full-text index with the captions, and fails when they differ."""
    with catalog._write() as rows:
        rows.exec_driver_sql("INSERT INTO captions_words (captions_words, rank) VALUES ('integrity-check', 1)")


def test_words_find_captions(either: Catalog) -> None:
    assert either.search_captions("dog") == []
    assert not either.has_captions()
    video = filled(either)
    assert either.has_captions()
    assert set(found(either, "dog")) == {0, 1}, "stemmed: a dog finds dogs"
    assert set(found(either, "DOGS, running!")) == {0, 1}
    assert found(either, "brown dogs")[0] == 0, "both words before one"
    assert found(either, "a bicycle and a dog")[0] == 2, "the rarer word first"
    assert set(found(either, "red")) == {2, 3}
    assert found(either, "zebra") == []
    assert found(either, "dog", limit=1) in ([0], [1])
    (hit,) = either.search_captions("bicycle")
    segment = either.segments_of(video)[2]
    assert hit.segment_id == segment.id
    assert hit.caption == caption(video, SCENES[2], 20.0, 30.0)
    with pytest.raises(QueryError, match="limit 0"):
        either.search_captions("dog", limit=0)


def test_words_that_every_sentence_has_are_not_looked_up(either: Catalog) -> None:
    filled(either)
    assert found(either, "a the in on are") == []
    assert found(either, "a zebra in the sea") == []
    assert words_of("Is it the dog's? Don't, the DOG's!") == ["dog"]


def test_both_databases_leave_out_the_same_words(postgres: Server) -> None:
    with Catalog(postgres.new_database()) as catalog, catalog._read() as rows:
        for word in sorted(_STOP_WORDS):
            assert rows.exec_driver_sql("SELECT numnode(phraseto_tsquery('english', %s))", (word,)).scalar() == 0, word


def test_a_model_may_say_anything(either: Catalog) -> None:
    filled(either, ("a d\x00g \ud800 and a kite",))
    (hit,) = either.search_captions("kite")
    assert hit.caption.text == "a d g ? and a kite"


def test_filters(either: Catalog) -> None:
    video = filled(either)
    other = filled(either, (SCENES[0],), "rtsp://cam/2")
    assert found(either, "dog", Filter(video_id=video, start_seconds=5.0)) in ([0, 1], [1, 0])
    assert found(either, "dog", Filter(video_id=video, start_seconds=10.0)) == [1], "half-open"
    assert found(either, "dog", Filter(video_id=other)) == [0]
    assert found(either, "dog", Filter(tag="none")) == []


DOGS = ("🐕 dog", "dog*", "text:dog", "dog AND", "NEAR(dog zebra, 5)", "dog & zebra", "dog\n\tzebra", "{dog}", "^dog")
NOTHING = (
    '"',
    '" OR "',
    "NOT",
    "!",
    "''",
    "(",
    "\\",
    "%",
    "\x00",
    "\ud800",
    "🐕",
    "\u0301",
    "\u200b",
    "-",
    "a:b:c",
    "<->",
)


def test_text_is_never_syntax(either: Catalog) -> None:
    filled(either)
    for text in (*DOGS, "dog " * 3000, "dog " + " ".join(f"word{i}" for i in range(2000))):
        assert set(found(either, text)) == {0, 1}, text
    for text in NOTHING:
        assert found(either, text) == [], text


@given(text=st.text(max_size=60), said=st.lists(st.text(max_size=40), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_asked_and_said(catalog: Catalog, text: str, said: list[str]) -> None:
    video = filled(catalog, tuple(said))
    try:
        kept = [one.text for one in catalog.captions_of(video)]
        assert kept == [one.encode("utf-8", "replace").decode().replace("\x00", " ") for one in said]
        hits = catalog.search_captions(text)
        assert {hit.caption.text for hit in hits} <= set(kept)
        assert hits == [] or words_of(text)
        check_index(catalog)
    finally:
        catalog.remove_video(video)
    assert catalog.search_captions(text) == []
    check_index(catalog)


WORDS = st.sampled_from(["dog", "cat", "horse", "runs", "sleeps", "red", "green", "zebra"])


@given(asked=st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=5, max_size=20))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_found_is_what_has_one_of_the_words(catalog: Catalog, asked: list[list[str]]) -> None:
    texts = ("a red dog", "the cat sleeps", "horse and dog", "green", "a horse runs, a cat runs")
    if not catalog.has_captions():
        filled(catalog, texts)
    for words in asked:
        hits = {hit.caption.text for hit in catalog.search_captions(" ".join(words))}
        assert hits == {text for text in texts if set(text.replace(",", "").split()) & set(words)}


def test_the_index_follows_every_change(catalog: Catalog) -> None:
    video = filled(catalog)
    check_index(catalog)
    number = catalog.search_captions("bicycle")[0].id
    with catalog._write() as rows:
        rows.execute(update(captions).where(captions.c.id == number).values(text="a tandem"))
    assert catalog.search_captions("bicycle") == []
    assert catalog.search_captions("tandem")[0].id == number
    assert catalog.extend_caption(number, 99.0)
    check_index(catalog)
    segments = catalog.segments_of(video)
    catalog.keep_captions(video, "m", {segments[0].id: caption(video, "a zebra", 0.0, 10.0)})  # in place of the dog
    assert len(catalog.search_captions("dogs")) == 1
    catalog.keep_captions(video, "n", {segments[0].id: caption(video, "two zebras", 0.0, 10.0, "n")})  # beside it
    assert {hit.caption.model for hit in catalog.search_captions("zebra")} == {"m", "n"}
    catalog.prune_stream(video, 15.0)
    assert catalog.search_captions("zebra") == []
    with catalog._write() as rows:
        rows.execute(delete(captions))
    check_index(catalog)
    assert catalog.search_captions("tandem man") == []


def test_captions_of_an_older_catalog_are_found(target: str) -> None:
    """What a library of the first schema holds is searchable once it is opened."""
    url = target if "://" in target else f"sqlite:///{target}"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    with create_engine(url).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        now = "'2026-01-31 12:00:00.000000'"
        for statement in (
            "INSERT INTO videos VALUES ('v', '/a.mp4', 'a.mp4', 'f', 'r', NULL, NULL, 9.0, 'done', NULL, NULL, "
            f"0, 0, 0, 0, 0, 0, 0.0, '[]', NULL, NULL, {now}, {now})",
            "INSERT INTO parts VALUES ('p', 'v', 0, 0.0, 9.0, 'f', 'r', 'done', FALSE, NULL, NULL, 0.0, 9.0, "
            f"0, 0, 0, 0, 0, 0, 0.0, '[]', '{{}}', NULL, NULL, {now})",
            "INSERT INTO segments VALUES (7, 'v', 'p', 0, 0.0, 9.0, 'end')",
            "INSERT INTO captions (segment_id, video_id, model, text, start_seconds, end_seconds) "
            "VALUES (7, 'v', 'm', 'a dog from before', 0.0, 9.0)",
        ):
            connection.exec_driver_sql(statement)
    with Catalog(target, dimension=DIMENSION) as catalog:
        assert [hit.caption.text for hit in catalog.search_captions("dogs")] == ["a dog from before"]
        assert (catalog.stream_bytes("v"), catalog.removals_floor(), catalog.streams()) == (0, 0, [])
        assert [part.state for part in catalog.parts("v")] == ["done"]
        add(catalog, "/b.mp4")
        if catalog._database.path is not None:
            check_index(catalog)


def test_an_sqlite_without_full_text_search_is_named(tmp_path: Path) -> None:
    from sqlalchemy.exc import OperationalError

    with Catalog(tmp_path / "c.sqlite3") as catalog:
        error = OperationalError("CREATE", {}, Exception("no such module: fts5"))
        explained = catalog._database._explain(error)
    assert isinstance(explained, LibraryError)
    assert "SQLite" in str(explained)
    assert "FTS5" in str(explained)
