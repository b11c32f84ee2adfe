"""Asking a library what is seen, what captions say, or both; and when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import QueryError
from pipeline.library import Library
from pipeline.live.types import Connection
from tests.catalog.content import DIMENSION, caption, open_stream, put_window
from tests.catalog.test_streams import NOON
from tests.pipeline.test_library import LOADED, NAME, add_vectors, filled


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Red, green, blue and red again in a.mp4, ten seconds each, and green in b.mp4; some of it has captions."""
    with filled(tmp_path / "library") as opened:
        video = opened.video("a.mp4").id
        segments = opened.catalog.segments_of(video)
        with opened.writing("test") as catalog:
            catalog.add_caption(segments[0].id, caption(video, "a red balloon", 0.0, 10.0))
            catalog.add_caption(segments[1].id, caption(video, "the deep sea", 20.0, 30.0))
        yield opened


def spans(moments: list[object]) -> list[tuple[str, float, float]]:
    return [(one.name, one.start_seconds, one.end_seconds) for one in moments]  # type: ignore[attr-defined]


def test_three_modes(library: Library) -> None:
    seen = library.query("red", limit=3)
    assert ("a.mp4", 0.0, 10.0) in spans(seen[:2])  # type: ignore[arg-type]
    assert [moment.visual_rank for moment in seen] == [1, 2, 3]
    assert library.query("red", limit=3, mode="visual") == seen
    (heard,) = library.query("red", mode="captions")
    assert (heard.name, heard.start_seconds, heard.caption, heard.caption_rank) == ("a.mp4", 0.0, "a red balloon", 1)
    both = library.query("red", limit=3, mode="hybrid")
    assert spans(both[:1]) == [("a.mp4", 0.0, 10.0)]  # type: ignore[arg-type]
    assert (both[0].caption_rank, both[1].caption_rank) == (1, None)
    assert both[0].score > both[1].score > both[2].score
    (first, *_) = library.query("blue sea", limit=3, mode="hybrid")  # seen as nothing in particular
    assert (first.name, first.caption, first.caption_rank) == ("a.mp4", "the deep sea", 1)
    assert first.start_seconds < 30.0
    assert first.end_seconds > 20.0


def test_without_captions_both_is_what_is_seen(tmp_path: Path) -> None:
    with filled(tmp_path / "library") as library:
        seen, both = library.query("green"), library.query("green", mode="hybrid")
        assert spans(seen) == spans(both)  # type: ignore[arg-type]
        assert library.query("green", mode="captions") == []


def test_captions_need_no_model(library: Library, tmp_path: Path) -> None:
    library.close()
    before = len(LOADED)
    with Library.open(library.path, create=False) as again:
        assert len(again.query("sea", mode="captions")) == 1
        assert len(LOADED) == before
        again.query("red", mode="hybrid")
        assert len(LOADED) == before + 1
    code = (
        "import sys; from pipeline.library import Library\n"
        "with Library.open(sys.argv[1], create=False) as library: assert library.query('sea', mode='captions')\n"
        "sys.exit(' '.join({'torch', 'faiss', 'encoders.loading'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(library.path)], check=True)
    assert again.model == NAME


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": "red", "mode": "smell"}, "mode 'smell': must be one of visual, captions, hybrid"),
        ({"like": ("a.mp4", 1.0), "mode": "hybrid"}, "mode hybrid: captions are asked by words; give text, not like"),
        ({"text": "red", "mode": "captions", "confident": True}, "no percentile"),
        ({"text": " ", "mode": "captions"}, "must not be empty"),
        ({"text": "red", "after": datetime(2026, 1, 1)}, "no time zone"),
    ],
)
def test_bad_questions(library: Library, options: dict[str, object], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        library.query(**options)  # type: ignore[arg-type]


def test_moments_of_files_have_a_time_where_it_is_known(library: Library) -> None:
    assert [moment.utc_start for moment in library.query("red", limit=2)] == [None, None]
    with library.writing("test") as catalog:
        catalog.describe_video(library.video("a.mp4").id, "a.mp4", (), NOON)
    moments = {moment.start_seconds: moment.utc_start for moment in library.query("red", video="a.mp4", limit=2)}
    assert moments[0.0] == "2026-01-31T12:00:00.000+00:00"
    assert moments[30.0] == "2026-01-31T12:00:30.000+00:00"
    (late,) = library.query("red", limit=1, after=NOON + timedelta(seconds=35))
    assert spans([late]) == [("a.mp4", 35.0, 40.0)]
    assert late.utc_start == "2026-01-31T12:00:35.000+00:00"
    assert library.query("green", after=NOON + timedelta(seconds=40)) == [], "nobody knows when b.mp4 was recorded"


def test_a_running_stream_is_asked(library: Library) -> None:
    """What another process commits is found by one that has the library open, and only what came after is asked."""
    assert library.query("blue", limit=1)[0].name == "a.mp4"
    with Library.open(library.path, create=False) as watching, watching.writing("stream") as catalog:
        video = open_stream(catalog)
        catalog.add_connection(video, Connection(0, 0.0, NOON))
        first = put_window(catalog, video, 0, 0.0, 4.0, closed=False)
        assert {one.name for one in library.query("blue", limit=9, after=NOON)} == {"gate"}
        last = put_window(catalog, video, 0, 0.0, 6.0, replaces=first.part_id)
        catalog.add_caption(last.segment_id, caption(video, "a blue van", 0.0, 6.0))
        (seen,) = library.query("blue", limit=1, after=NOON + timedelta(seconds=5))
        assert spans([seen]) == [("gate", 5.0, 6.0)]
        assert (seen.caption, seen.utc_start) == ("a blue van", "2026-01-31T12:00:05.000+00:00")
        (heard,) = library.query("vans", mode="captions", after=NOON)
        assert (heard.name, heard.end_seconds) == ("gate", 6.0)
        assert library.query("vans", mode="captions", after=datetime.now(timezone.utc) + timedelta(days=9999)) == []
        catalog.prune_stream_to(video, 0)
        put_window(catalog, video, 1, 6.0, 8.0)
        catalog.prune_stream(video, 6.0)
        assert {one.start_seconds for one in library.query("blue", limit=9, video="gate")} <= {6.0, 7.0}
        add_vectors(catalog, "/v/c.mp4", np.eye(DIMENSION)[[2, 2]], tag="c")
    assert library.query("blue", limit=1)[0].name in ("a.mp4", "c.mp4")
