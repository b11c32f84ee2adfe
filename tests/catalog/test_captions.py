"""Captions of segments, and segments without words, in either database."""

from __future__ import annotations

import pytest

from pipeline.catalog import Catalog
from pipeline.errors import LibraryError
from tests.catalog.content import add, caption, plan


def test_that_a_captioner_had_no_words_is_remembered(either: Catalog) -> None:
    video, other = add(either), add(either, "/videos/b.mp4")
    first, second, third, _ = (row.id for row in either.segments_of(video))
    assert either.wordless_segments(video, "m") == set()
    either.keep_captions(video, "m", {first: caption(video, "a dog", 0.0, 5.0)}, {second})
    either.keep_captions(video, "n", {}, [first, second])
    assert either.captioned_segments(video, "m") == {first}
    assert either.wordless_segments(video, "m") == {second}
    assert either.wordless_segments(video, "n") == {first, second}
    assert either.wordless_segments(other, "m") == set()
    # nobody who looks for words sees them
    assert [one.text for one in either.captions_of(video)] == ["a dog"]
    assert [hit.segment_id for hit in either.search_captions("dog")] == [first]

    # what it finds later takes the place of what it found before
    either.keep_captions(video, "m", {second: caption(video, "a cat", 5.0, 10.0)}, [first, third])
    assert either.captioned_segments(video, "m") == {second}
    assert either.wordless_segments(video, "m") == {first, third}
    assert [one.text for one in either.captions_of(video)] == ["a cat"]
    assert either.search_captions("dog") == []
    assert either.wordless_segments(video, "n") == {first, second}, "of the other captioner it says nothing"

    rows = [values for table, values in either.dump() if table == "wordless"]
    assert len(rows) == 4
    either.remove_video(video)
    assert [values for table, values in either.dump() if table == "wordless"] == []


def test_segments_that_are_gone_are_told(either: Catalog) -> None:
    video = add(either)
    (first, *_) = (row.id for row in either.segments_of(video))
    with pytest.raises(LibraryError, match="no segment 5 any more"):
        either.keep_captions(video, "m", {first: caption(video, "a dog", 0.0, 5.0)}, [5])
    assert either.captioned_segments(video, "m") == set()


def test_a_video_that_is_indexed_anew_is_looked_at_anew(either: Catalog) -> None:
    video = add(either)
    either.keep_captions(video, "m", {}, [row.id for row in either.segments_of(video)])
    assert len(either.wordless_segments(video, "m")) == 4
    add(either, fingerprint="f2", seed=7)
    assert plan(either, fingerprint="f2")[0] == video
    assert either.segments_of(video)
    assert either.wordless_segments(video, "m") == set()
