"""Captions of what is in a library: from kept token sets, or from frames read again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.base import LoadOptions
from encoders.captioning import Caption, CaptionerOptions, KeyFrame, Wording
from encoders.errors import EncoderClosed, EncoderError
from pipeline.captioning import (
    CaptionedSegments,
    _thinned,
    caption_library,
    caption_segments,
    captions_for,
    kept_tokens,
)
from pipeline.catalog.records import CaptionRecord
from pipeline.digest import DigestOptions, TokenOptions
from pipeline.errors import LibraryBusy, LibraryError, OptionError, SourceNotFound, UnknownVideo
from pipeline.gate import GateOptions
from pipeline.ingest import DecodeOptions, IngestOptions
from pipeline.library import Library
from pipeline.media import Span
from pipeline.sampling import SamplingOptions
from pipeline.segments import SegmentOptions
from tests.drawing import draw_video
from tests.encoders.cocas import Looker, Teller
from tests.pipeline.fakes import ToneEncoder

SCRIPTED = "tests.pipeline.scripted:StepsSource"  # 4 s each of the levels 40, 120, 200
OPTIONS = IngestOptions(
    part_seconds=4,
    decode=DecodeOptions(decoder=SCRIPTED, stall_seconds=300),
    segments=SegmentOptions(detector="none", max_seconds=4),
    digest=DigestOptions(tokens=TokenOptions(keep=True, budget=6)),
)


class Mute(Teller):
    """Has no words for anything."""

    def caption(self, *args: Any, **options: Any) -> list[Caption]:
        return [replace(one, text="") for one in super().caption(*args, **options)]


class Partly(Teller):
    """Is refused the level 120, and has no words for the level 200."""

    def caption(self, *args: Any, **options: Any) -> list[Caption]:
        found = [replace(one, text=one.text.replace("Level 200", "")) for one in super().caption(*args, **options)]
        if any(one.text == "Level 120" for one in found):
            error = EncoderError("not Level 120")
            error.captions = tuple(None if one.text == "Level 120" else one for one in found)
            if not any(error.captions):
                error.captions = ()
            raise error
        return found


def teller(reads: str = "", kind: type[Teller] = Teller) -> Teller:
    return kind(CaptionerOptions(LoadOptions("cpu", "fp32", 0, 0, 0), Wording(), 8), reads)


def looker() -> Looker:
    return Looker(CaptionerOptions(LoadOptions("cpu", "fp32", 0, 0, 0), Wording(), 8))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real files to be probed; what is played comes from the script."""
    folder = tmp_path_factory.mktemp("films")
    return [draw_video(folder / name, frames=frames) for name, frames in (("film.mp4", 300), ("other.mp4", 299))]


@pytest.fixture(scope="module")
def made(films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two libraries of the films: with their token sets, and without."""
    folder = tmp_path_factory.mktemp("libraries")
    for name, options in (("kept", OPTIONS), ("without", replace(OPTIONS, digest=DigestOptions()))):
        with Library.open(folder / name, encoder=ToneEncoder()) as library:
            for added in library.add(*films, options=options):
                assert added.state == "done", added.error
    return folder


@pytest.fixture
def open_library(made: Path, tmp_path: Path) -> Iterator[Callable[[str], Library]]:
    """A copy of one of them."""
    with ExitStack() as stack:

        def opened(name: str) -> Library:
            shutil.copytree(made / name, tmp_path / name)
            return stack.enter_context(Library.open(tmp_path / name, encoder=ToneEncoder()))

        yield opened


@pytest.fixture
def library(open_library: Callable[[str], Library]) -> Library:
    return open_library("kept")


def texts(captions: tuple[CaptionRecord, ...]) -> list[tuple[str, float, float]]:
    return [(one.text, one.span.start_seconds, one.span.end_seconds) for one in captions]


EXPECTED = [("Level 40", 0.0, 4.0), ("Level 120", 4.0, 8.0), ("Level 200", 8.0, 12.0)]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read again"])
def test_every_segment_gets_its_words(open_library: Callable[[str], Library], kept: bool) -> None:
    library = open_library("kept" if kept else "without")
    captioner = teller("tone")
    told: list[CaptionRecord] = []
    found = caption_segments(library, "film.mp4", captioner, options=OPTIONS, captioned=told.append)
    assert texts(found.captions) == EXPECTED
    assert (found.from_kept, found.from_frames, found.without) == ((3, 0, 0) if kept else (0, 3, 0))
    assert texts(tuple(told)) == EXPECTED
    assert found.captions == tuple(library.catalog.captions_of(found.video.id))
    assert all(count <= 6 for count in captioner.seen)  # compressed tokens, not frames
    # and a moment shows them
    (moment,) = library.query("anything", limit=1, video="film.mp4")
    assert moment.caption is not None
    assert moment.caption.startswith("Level")


def test_tokens_of_another_encoder_are_not_taken_and_the_rest_is_read_again(library: Library) -> None:
    """The first two segments have captions: frames before the third are not encoded."""
    captioner = teller("another")
    video, name = library.video("film.mp4").id, captioner.info.name
    rows = library.catalog.segments_of(video)
    with library.writing("test") as catalog:
        done = {row.id: CaptionRecord(video, name, "Old", row.span, None) for row in rows[:2]}
        catalog.keep_captions(video, name, done)
    found = caption_segments(library, video, captioner, options=OPTIONS)
    assert [one.text for one in found.captions] == ["Old", "Old", "Level 200"]
    assert (found.from_kept, found.from_frames) == (0, 1)


def test_a_captioner_that_looks_at_pictures_is_shown_those_of_each_segment(library: Library) -> None:
    captioner = looker()
    found = caption_segments(library, "film.mp4", captioner, options=OPTIONS)
    assert (found.from_kept, found.from_frames, found.without) == (0, 3, 0)
    assert [one.text for one in found.captions] == ["Seen: 40", "Seen: 120", "Seen: 200"]
    for (_, start, end), shown in zip(EXPECTED, captioner.shown, strict=True):
        assert (shown[0].start_seconds, shown[-1].end_seconds) == (start, end)
        assert all(start <= one.seconds < end for one in shown)
        assert all(one.image.base is None for one in shown)  # not a view that holds a whole block


def test_the_pictures_shown_are_few_and_cover_a_long_segment(
    films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One segment of 12 s, of which every frame is a look of its own: 120 pictures, of three kinds."""
    options = replace(
        OPTIONS,
        part_seconds=60,
        segments=SegmentOptions(detector="none", max_seconds=60),
        sampling=SamplingOptions(mode="fps", fps=10),
        gate=GateOptions(enabled=False),
    )
    held: list[int] = []

    def thinned(pictures: Sequence[KeyFrame], count: int) -> list[KeyFrame]:
        held.append(len(pictures))
        return _thinned(pictures, count)

    monkeypatch.setattr("pipeline.captioning._thinned", thinned)
    captioner = looker()
    with Library.open(tmp_path / "long", encoder=ToneEncoder()) as library:
        (added,) = library.add(films[0], options=options)
        assert added.state == "done", added.error
        found = caption_segments(library, "film.mp4", captioner, options=options)
    assert [one.text for one in found.captions] == ["Seen: 40, 120, 200"]
    (shown,) = captioner.shown
    assert shown[0].start_seconds == 0.0
    assert len(held) > 5
    assert set(held) == {13}  # never more than four times what is shown, and the one that came


@given(st.lists(st.tuples(st.integers(0, 255), st.floats(0.01, 9)), min_size=2, max_size=14), st.integers(1, 6))
def test_pictures_that_are_let_go_of_leave_no_time_uncovered(looks: list[tuple[int, float]], count: int) -> None:
    frames, at = [], 3.0
    for level, seconds in looks:
        frames.append(KeyFrame(np.full((8, 8, 3), level, np.uint8), at, at, at + seconds))
        at += seconds
    kept = _thinned(frames, count)
    assert len(kept) == min(count, len(frames))
    assert (kept[0].start_seconds, kept[-1].end_seconds) == (3.0, at)
    assert all(one.end_seconds == later.start_seconds for one, later in pairwise(kept))


def test_only_what_is_missing_is_done_unless_asked(library: Library) -> None:
    captioner = teller("tone")
    video, name = library.video("film.mp4").id, captioner.info.name
    first, middle, _ = library.catalog.segments_of(video)
    for row in (first, middle):
        with library.writing("test") as catalog:
            catalog.keep_captions(video, name, {row.id: CaptionRecord(video, name, "Old", row.span, None)})
    found = caption_segments(library, video, captioner)
    assert [one.text for one in found.captions] == ["Old", "Old", "Level 200"]
    assert (found.from_kept, len(captioner.seen)) == (1, 1)
    again = caption_segments(library, video, captioner, again=True)
    assert texts(again.captions) == EXPECTED
    assert len(library.catalog.captions_of(video)) == 3
    nothing = caption_segments(library, video, captioner)
    assert (nothing.from_kept, nothing.from_frames, nothing.without) == (0, 0, 0)
    assert texts(nothing.captions) == EXPECTED


def test_captioners_stand_side_by_side(library: Library) -> None:
    other = teller("tone")
    other.info = replace(other.info, name="other")
    for captioner in (teller("tone"), other):
        caption_segments(library, "film.mp4", captioner)
    captions = library.catalog.captions_of(library.video("film.mp4").id)
    assert sorted({one.model for one in captions}) == ["other", "python:tests.encoders.cocas:Teller"]
    assert len(captions) == 6


def test_a_few_segments_are_spread_over_the_video(library: Library) -> None:
    captioner = teller("tone")
    for limit, wanted in ((1, EXPECTED[1:2]), (2, [EXPECTED[0], EXPECTED[2]]), (9, EXPECTED)):
        found = caption_segments(library, "film.mp4", captioner, again=True, limit=limit)
        assert (found.from_kept, found.without) == (len(wanted), 0)
        assert set(wanted) <= set(texts(found.captions))
    assert len(captioner.seen) == 6
    with pytest.raises(OptionError, match="limit is 0"):
        caption_segments(library, "film.mp4", captioner, limit=0)


def test_a_segment_without_words_has_no_caption_and_is_not_asked_about_again(library: Library) -> None:
    mute = teller("tone", Mute)
    for again, asked in ((False, 3), (False, 3), (True, 6)):
        found = caption_segments(library, "film.mp4", mute, again=again)
        assert found.captions == ()
        assert (found.from_kept, found.without, len(mute.seen)) == (0, 3, asked)
    # what it says when asked again takes the place of its silence, and the other way round
    found = caption_segments(library, "film.mp4", teller("tone"), again=True)
    assert (texts(found.captions), found.without) == (EXPECTED, 0)
    found = caption_segments(library, "film.mp4", mute, again=True)
    assert (found.captions, found.without) == ((), 3)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read again"])
def test_a_segment_that_is_refused_costs_that_one(open_library: Callable[[str], Library], kept: bool) -> None:
    library = open_library("kept" if kept else "without")
    partly = teller("tone", Partly)
    told: list[CaptionRecord] = []
    with pytest.raises(EncoderError, match="not Level 120"):
        caption_segments(library, "film.mp4", partly, options=OPTIONS, captioned=told.append)
    video = library.video("film.mp4").id
    there = tuple(library.catalog.captions_of(video))
    assert texts(there) == texts(tuple(told)) == [EXPECTED[0]]
    first, _, last = library.catalog.segments_of(video)
    assert library.catalog.captioned_segments(video, partly.info.name) == {first.id}
    assert library.catalog.wordless_segments(video, partly.info.name) == {last.id}
    found = caption_segments(library, "film.mp4", teller("tone"), options=OPTIONS)
    assert (found.from_kept + found.from_frames, found.without) == (1, 1), "the one that it was refused"


def test_one_that_fails_on_some_of_each_batch_goes_on_and_one_that_fails_on_all_ends(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.captioning._BATCH", 1)
    partly = teller("tone", Partly)
    with pytest.raises(EncoderError, match="not Level 120"):
        caption_segments(library, "film.mp4", partly)
    assert len(partly.seen) == 2
    monkeypatch.setattr("pipeline.captioning._BATCH", 2)
    with pytest.raises(EncoderError, match="not Level 120"):
        caption_segments(library, "film.mp4", partly, again=True)
    assert len(partly.seen) == 5
    assert len(library.catalog.wordless_segments(library.video("film.mp4").id, partly.info.name)) == 1


def test_what_is_made_elsewhere_is_told_with_what_kept_it_from_the_rest(library: Library) -> None:
    catalog = library.catalog
    video = library.video("film.mp4")
    first, middle, last = rows = catalog.segments_of(video.id)
    tokens = [kept_tokens(catalog, video, row) for row in rows]

    def made(captioner: Teller) -> CaptionedSegments:
        return captions_for(captioner, video, rows, tokens, options=OPTIONS, source=video.uri)

    found = made(teller("tone", Partly))
    assert (list(found.captions), list(found.without), str(found.error)) == ([first.id], [last.id], "not Level 120")
    assert (found.answered, found.asked) == (True, None)
    found = made(teller("tone", Mute))
    assert (found.captions, found.without, found.error) == ({}, frozenset([first.id, middle.id, last.id]), None)
    broken = teller("tone")
    broken.close()
    found = made(broken)
    assert (found.captions, found.without, type(found.error)) == ({}, frozenset(), EncoderClosed)
    assert not found.answered


def test_all_videos_of_a_library(library: Library) -> None:
    done = list(caption_library(library, teller("tone")))
    assert [one.video.name for one in done] == ["film.mp4", "other.mp4"]
    assert all(texts(one.captions) == EXPECTED for one in done)
    assert [one.video.name for one in caption_library(library, teller("tone"), ["other.mp4"])] == ["other.mp4"]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_video_that_is_not_there(library: Library) -> None:
    with pytest.raises(UnknownVideo, match="nowhere"):
        caption_segments(library, "nowhere.mp4", teller())


def test_a_file_that_is_gone_or_changed_is_not_read_again(library: Library, films: list[Path]) -> None:
    film = films[0]
    content, aside = film.read_bytes(), film.with_suffix(".aside")
    film.rename(aside)  # as it was, times of change and all, for the other tests
    try:
        film.write_bytes(content + b"\0")
        with pytest.raises(LibraryError, match="changed since it was indexed"):
            caption_segments(library, "film.mp4", teller(), options=OPTIONS)
        film.unlink()
        with pytest.raises(SourceNotFound, match=r"film\.mp4"):
            caption_segments(library, "film.mp4", teller(), options=OPTIONS)
    finally:
        aside.rename(film)
    assert library.catalog.captions_of(library.video("film.mp4").id) == []


def test_a_library_that_another_writes_to(library: Library) -> None:
    with Library.open(library.path) as other, other.writing("test"), pytest.raises(LibraryBusy):
        caption_segments(library, "film.mp4", teller("tone"))


def test_a_damaged_token_set_is_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = library.catalog.token_set

    def cut(segment_id: int) -> object:
        record = kept(segment_id)
        assert record is not None
        return replace(record, payload=record.payload[:20])

    monkeypatch.setattr(library.catalog, "token_set", cut)
    with pytest.raises(LibraryError, match=r"film\.mp4: the token set kept for Span.*damaged"):
        caption_segments(library, "film.mp4", teller("tone"))


def test_captions_of_segments_that_are_gone_are_not_kept(library: Library) -> None:
    video = library.video("film.mp4").id
    row = library.catalog.segments_of(video)[0]
    good = CaptionRecord(video, "m", "Words", row.span, None)
    with library.writing("test") as catalog:
        for found, said in (
            ({row.id: good, 5: good}, "no segment 5 any more"),
            ({row.id: replace(good, model="other")}, "a caption of m was expected, got one of other"),
            ({row.id: replace(good, video_id="x")}, "for video x"),
        ):
            with pytest.raises(LibraryError, match=said):
                catalog.keep_captions(video, "m", found)
        assert catalog.captions_of(video) == []
        catalog.keep_captions(video, "m", {})
        catalog.keep_captions(video, "m", {row.id: good})
    assert library.catalog.captions_of(video, Span(0, 1)) == [good]
    library.remove(video)
    assert library.catalog.captions_of(video) == []
