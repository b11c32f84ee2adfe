"""Videos and parts: planned, committed once, replaced, failed, removed."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalog import Catalog, part_id_for, segment_id_for, vector_id_for, video_id_for
from pipeline.catalog.filters import Filter
from pipeline.catalog.models import captions
from pipeline.errors import InputError, LibraryError, OptionError, QueryError, UnknownVideo
from pipeline.media import Damage, Span
from tests.catalog.content import DIMENSION, add, media_info, part_result, plan


def test_a_video_from_plan_to_done(catalog: Catalog) -> None:
    video, parts = plan(catalog, tags=("sea", "dog", "sea"))
    assert catalog.video(video).state == "pending"
    assert [(part.index, part.span, part.state) for part in parts] == [
        (0, Span(0, 10), "pending"),
        (1, Span(10, 20), "pending"),
    ]
    damage = Damage(corrupt_frames=2, decode_errors=1, lost_seconds=0.5)
    damage.note("frame 7 is broken")
    assert catalog.commit_part(parts[0].id, part_result(parts[0].span, damage=damage))
    assert [part.id for part in catalog.pending_parts(video)] == [parts[1].id]
    assert catalog.finish_video(video).state == "pending"
    assert catalog.commit_part(parts[1].id, part_result(parts[1].span, seed=1))
    record = catalog.finish_video(video)
    assert (record.state, record.tags, record.segments, record.vectors) == ("done", ("dog", "sea"), 4, 12)
    assert (record.frames_decoded, record.frames_sampled, record.frames_encoded) == (200, 80, 20)
    assert (record.skipped_by_gate, record.corrupt_frames, record.decode_errors) == (60, 2, 1)
    assert (record.lost_seconds, record.damage) == (0.5, ("frame 7 is broken",))
    assert (record.decoder, record.decoder_reason, record.duration_seconds) == ("decord", "a plain file", 20.0)
    assert record.media == media_info("/videos/a.mp4")
    assert record.is_done("f1", "r1")
    assert not record.is_done("f1", "r2")
    assert catalog.parts(video)[0].facts == {"device": "cpu"}
    assert catalog.parts(video)[0].covered == Span(0, 10)


def test_what_is_said_of_a_video_that_is_done(catalog: Catalog) -> None:
    video = add(catalog, "/videos/a.mp4", tags=("x",))
    before, content = catalog.video(video), [row for row in catalog.dump() if not row[0].startswith("video")]
    assert catalog.describe_video(video, "a.mp4", ("x",)) == before, "nothing differs, nothing is written"
    when = datetime(2026, 1, 2, tzinfo=timezone.utc)
    record = catalog.describe_video(video, "Gate", ("y", "x"), when)
    assert (record.name, record.tags, record.start_time, record.state) == ("Gate", ("x", "y"), when, "done")
    assert record.updated_at > before.updated_at
    again = catalog.describe_video(video, "a.mp4")
    assert again == record, "the file's own name, no tags and no start time take nothing away"
    assert [row for row in catalog.dump() if not row[0].startswith("video")] == content
    # Planning it anew keeps to the same rules.
    catalog.plan_video(
        video, "/videos/a.mp4", "a.mp4", ["z"], None, "f2", "r", media_info("/videos/a.mp4"), [Span(0, 1)]
    )
    record = catalog.video(video)
    assert (record.name, record.tags, record.start_time) == ("Gate", ("x", "y", "z"), when)
    with pytest.raises(UnknownVideo):
        catalog.describe_video("none", "a.mp4")
    with pytest.raises(InputError, match="time zone"):
        catalog.describe_video(video, "a.mp4", (), datetime(2026, 1, 1))


def test_what_was_committed_comes_back_exactly(catalog: Catalog) -> None:
    video, (part, _) = plan(catalog)
    result = part_result(part.span)
    catalog.commit_part(part.id, result)
    rows = catalog.vectors_of(video)
    expected = np.concatenate([segment.vectors.embedding for segment in result.segments])
    np.testing.assert_array_equal(rows.embedding, expected)
    assert rows.embedding.dtype == np.float16
    assert rows.id.tolist() == [vector_id_for(part.id, s, i) for s in range(2) for i in range(3)]
    assert rows.start_seconds[0] == 0
    assert rows.end_seconds[-1] == pytest.approx(10)
    assert rows.weight.tolist() == [2.0] * 6
    segments = catalog.segments_of(video)
    assert [segment.id for segment in segments] == [segment_id_for(part.id, 0), segment_id_for(part.id, 1)]
    assert rows.segment == [segments[0].id] * 3 + [segments[1].id] * 3
    assert catalog.token_set(segments[0].id) == result.segments[0].tokens
    assert catalog.token_set(12345) is None
    assert catalog.thumbnail(video, 6.0) == result.segments[1].thumbnail_jpeg
    assert catalog.thumbnail(video, 99.0) == result.segments[1].thumbnail_jpeg  # the nearest
    assert catalog.thumbnail("nothing", 1.0) is None
    by_id = catalog.vectors_by_id([*rows.id[[4, 1]].tolist(), 42])
    assert sorted(by_id.id) == sorted(rows.id[[4, 1]])
    assert len(catalog.vectors_of(video, Span(2.0, 4.0))) == 2  # [1.67, 3.33) and [3.33, 5): half-open


def test_committing_again_changes_nothing(catalog: Catalog) -> None:
    video, parts = plan(catalog)
    assert catalog.commit_part(parts[0].id, part_result(parts[0].span))
    before, seq = list(catalog.dump()), catalog.current_seq()
    assert not catalog.commit_part(parts[0].id, part_result(parts[0].span, seed=99))
    assert (list(catalog.dump()), catalog.current_seq()) == (before, seq)
    plan(catalog)  # planning the same again neither
    assert list(catalog.dump()) == before
    assert [part.state for part in catalog.parts(video)] == ["done", "pending"]


def test_a_changed_video_replaces_the_old_only_when_the_new_arrives(catalog: Catalog) -> None:
    video = add(catalog)
    old = set(catalog.vectors_of(video).id.tolist())
    seq = catalog.current_seq()
    _, parts = plan(catalog, fingerprint="f2")
    assert catalog.video(video).state == "pending"
    assert set(catalog.vectors_of(video).id.tolist()) == old  # still searchable
    assert [part.state for part in catalog.parts(video)] == ["pending", "pending"]
    catalog.fail_part(parts[1].id, ValueError("not yet"))
    assert set(catalog.vectors_of(video).id.tolist()) == old
    catalog.commit_part(parts[0].id, part_result(parts[0].span, seed=5))
    now = set(catalog.vectors_of(video).id.tolist())
    assert not now & old
    assert len(now) == 6
    assert set(catalog.removals_since(seq).tolist()) == old
    assert set(catalog.vectors_since(seq, 100).id.tolist()) == now


def test_going_back_to_the_old_version_keeps_what_is_done(catalog: Catalog) -> None:
    video = add(catalog)
    before = list(catalog.dump())
    plan(catalog, fingerprint="f2")
    _, parts = plan(catalog)  # the file was put back before the new one was read
    assert [part.state for part in parts] == ["done", "done"]
    catalog.finish_video(video)
    assert list(catalog.dump()) == before


def test_a_part_of_another_version_cannot_be_committed_late(catalog: Catalog) -> None:
    video, old = plan(catalog)
    catalog.commit_part(old[0].id, part_result(old[0].span))
    plan(catalog, fingerprint="f2")
    for part in old:
        with pytest.raises(LibraryError, match="not planned"):
            catalog.commit_part(part.id, part_result(part.span))
    catalog.remove_video(video)
    with pytest.raises(LibraryError, match="not planned"):
        catalog.commit_part(old[1].id, part_result(old[1].span))
    with pytest.raises(LibraryError, match="not planned"):
        catalog.fail_part(old[1].id, ValueError("x"))


def test_other_cuts_of_the_same_version_keep_the_common_parts(catalog: Catalog) -> None:
    video, parts = plan(catalog, parts=2)
    for part in parts:
        catalog.commit_part(part.id, part_result(part.span))
    _, wider = plan(catalog, parts=3)
    assert [part.state for part in wider] == ["done", "done", "pending"]
    _, narrower = plan(catalog, parts=1)
    assert [part.state for part in narrower] == ["done"]
    assert catalog.count_vectors() == 6  # the second part went
    assert catalog.finish_video(video).vectors == 6


def test_failed_parts_and_videos(catalog: Catalog) -> None:
    video, parts = plan(catalog)
    catalog.commit_part(parts[0].id, part_result(parts[0].span))
    catalog.fail_part(parts[1].id, LibraryError("the decoder died"))
    catalog.fail_part(parts[0].id, LibraryError("too late"))  # done stays done
    record = catalog.finish_video(video)
    assert (record.state, record.error_type, record.error_message) == ("failed", "LibraryError", "the decoder died")
    assert record.vectors == 6  # what was found is kept
    assert [part.id for part in catalog.pending_parts(video)] == [parts[1].id]
    catalog.commit_part(parts[1].id, part_result(parts[1].span))
    record = catalog.finish_video(video)
    assert (record.state, record.error_type, record.error_message) == ("done", None, None)

    broken = video_id_for("/videos/broken.mp4")
    record = catalog.fail_video(broken, "/videos/broken.mp4", "broken.mp4", ValueError("no such codec"), at_seconds=2.0)
    assert (record.state, record.error_type, record.vectors) == ("failed", "ValueError", 0)
    (error,) = catalog.errors(video_id=broken)
    assert (error.type, error.message, error.at_seconds) == ("ValueError", "no such codec", 2.0)
    assert [one.name for one in catalog.videos(state="failed")] == ["broken.mp4"]
    assert [one.name for one in catalog.videos(state="done")] == ["a.mp4"]
    with pytest.raises(OptionError, match="pending, done, failed"):
        catalog.videos(state="lost")


def test_removing_leaves_nothing(catalog: Catalog) -> None:
    keep = add(catalog, "/videos/keep.mp4", seed=3, tags=("x",))
    kept = list(catalog.dump())
    video = add(catalog, tags=("x", "y"))
    ids = set(catalog.vectors_of(video).id.tolist())
    with catalog._write() as connection:
        segment = catalog.segments_of(video)[0]
        values = {"segment_id": segment.id, "video_id": video, "model": "m", "text": "a dog"}
        connection.execute(captions.insert().values(**values, start_seconds=0.0, end_seconds=5.0))
    assert catalog.captions_of(video, Span(4, 6))[0].text == "a dog"
    assert catalog.captions_of(video, Span(5, 6)) == []
    seq = catalog.current_seq()
    assert catalog.remove_video(video).id == video
    assert list(catalog.dump()) == kept
    assert set(catalog.removals_since(seq).tolist()) == ids
    assert catalog.find_video(video) is None
    assert [one.id for one in catalog.videos(tag="x")] == [keep]
    with pytest.raises(UnknownVideo):
        catalog.remove_video(video)


def test_naming_a_video(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "c.mp4"
    video = add(catalog, str(here))
    other = add(catalog, "/other/c.mp4", seed=9)
    third = add(catalog, "/other/holiday in spain.mp4", seed=20)
    monkeypatch.chdir(tmp_path)
    assert catalog.video(video).id == catalog.video("c.mp4").id == catalog.video(str(here)).id == video  # by path
    assert catalog.video(third[:6]).id == catalog.video("holiday in spain.mp4").id == third
    monkeypatch.chdir("/")
    with pytest.raises(UnknownVideo, match=f"2 videos .*{min(video, other)}"):
        catalog.video("c.mp4")
    with pytest.raises(UnknownVideo, match=r"near: 'holiday in spain\.mp4'") as caught:
        catalog.video("holliday in spain.mp4")
    assert str(caught.value).startswith("no video")  # not the repr that KeyError gives
    with pytest.raises(UnknownVideo):
        catalog.video("")
    with pytest.raises(UnknownVideo):
        catalog.video("%")


def test_bad_plans_and_parts_are_refused(catalog: Catalog) -> None:
    info = media_info("u")
    with pytest.raises(InputError, match="at least one"):
        catalog.plan_video("v", "u", "n", [], None, "f", "r", info, [])
    with pytest.raises(InputError, match="overlap"):
        catalog.plan_video("v", "u", "n", [], None, "f", "r", info, [Span(0, 10), Span(9, 20)])
    assert catalog.videos() == []
    _, (part, _) = plan(catalog)
    with pytest.raises(LibraryError, match=f"width 5, this library's have {DIMENSION}"):
        catalog.commit_part(part.id, part_result(part.span, dimension=5))
    with pytest.raises(LibraryError, match="finite"):
        catalog.commit_part(part.id, part_result(part.span, embedding=np.full((6, DIMENSION), np.nan)))
    assert catalog.count_vectors() == 0
    with pytest.raises(UnknownVideo):
        catalog.finish_video("nothing")


def test_a_part_that_fails_in_the_middle_leaves_nothing(catalog: Catalog) -> None:
    _, (part, _) = plan(catalog)
    before, seq = list(catalog.dump()), catalog.current_seq()
    twice = part_result(part.span)
    twice = type(twice)((*twice.segments, twice.segments[0]), twice.summary)  # the same segment twice: refused by SQL
    with pytest.raises(LibraryError, match="UNIQUE"):
        catalog.commit_part(part.id, twice)
    assert (list(catalog.dump()), catalog.current_seq()) == (before, seq)
    assert catalog.commit_part(part.id, part_result(part.span))


def test_names_of_any_bytes_and_aware_times(catalog: Catalog) -> None:
    name = b"caf\xe9 \xf0\x9f\x90\x95.mp4".decode("utf-8", "surrogateescape")
    uri = "/videos/" + name
    when = datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=2)))
    video = video_id_for(uri)
    catalog.plan_video(video, uri, name, [name], when, "f", "r", media_info(uri), [Span(0, 1)])
    record = catalog.video(name)
    assert (record.uri, record.name, record.tags, record.start_time) == (uri, name, (name,), when)
    assert record.start_time is not None
    assert record.start_time.utcoffset() == timedelta(0)
    catalog.fail_video(video, uri, name, ValueError(uri))
    assert catalog.video(uri).error_message == uri
    with pytest.raises(InputError, match="time zone"):
        catalog.plan_video(video, uri, name, [], datetime(2026, 1, 1), "f", "r", media_info(uri), [Span(0, 1)])


def test_filters(catalog: Catalog) -> None:
    a = add(catalog, "/videos/a.mp4", tags=("x",))
    between = datetime.now(timezone.utc)
    b = add(catalog, "/videos/b.mp4", seed=4)
    assert catalog.count_matching(Filter()) == 24
    assert catalog.count_matching(Filter(video_id=a)) == catalog.count_matching(Filter(tag="x")) == 12
    assert set(catalog.ids_matching(Filter(added_after=between)).tolist()) == set(catalog.vectors_of(b).id.tolist())
    ids, embedding = catalog.ids_and_embeddings_matching(Filter(video_id=a, start_seconds=2, end_seconds=4))
    assert embedding.shape == (2, DIMENSION)
    assert set(ids.tolist()) == set(catalog.vectors_of(a, Span(2, 4)).id.tolist())
    assert len(catalog.ids_matching(Filter(tag="none"))) == 0
    with pytest.raises(QueryError, match="must end after"):
        Filter(start_seconds=5, end_seconds=5)
    with pytest.raises(QueryError, match="not finite"):
        Filter(start_seconds=float("nan"))
    with pytest.raises(QueryError, match="time zone"):
        Filter(added_after=datetime(2026, 1, 1))


def test_sample(catalog: Catalog) -> None:
    assert catalog.sample_vectors(5).shape == (0, DIMENSION)
    add(catalog, vectors=20)
    assert catalog.sample_vectors(0).shape == (0, DIMENSION)
    assert catalog.sample_vectors(1000).shape == (80, DIMENSION)
    few = catalog.sample_vectors(10)
    assert few.shape == (10, DIMENSION)
    np.testing.assert_array_equal(few, catalog.sample_vectors(10))
    everything = catalog.vectors_since(0, 1000).embedding
    assert all((everything == one).all(axis=1).any() for one in few)


def test_threads_may_write_and_read_at_once(catalog: Catalog) -> None:
    problems: list[BaseException] = []

    def work(i: int) -> None:
        try:
            add(catalog, f"/videos/{i}.mp4", seed=i)
            catalog.videos()
        except BaseException as error:  # noqa: BLE001 - reported below
            problems.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert catalog.count_vectors() == 8 * 12
    seqs = catalog.vectors_since(0, 1000).seq.tolist()
    assert seqs == list(range(1, 97))  # one counter, nothing given twice


@given(st.text(), st.text(), st.text(), st.floats(0, 1e6), st.floats(0.001, 1e6), st.integers(0, 10**6))
def test_ids_are_stable_and_tell_apart(
    uri: str, fingerprint: str, recipe: str, start: float, length: float, i: int
) -> None:
    uri = uri.encode("utf-8", "replace").decode()
    fingerprint, recipe = (text.encode("utf-8", "replace").decode() for text in (fingerprint, recipe))
    video = video_id_for(uri)
    assert video == video_id_for(uri)
    assert len(video) == 16
    part = part_id_for(video, fingerprint, recipe, Span(start, start + length))
    assert part != part_id_for(video, fingerprint + "x", recipe, Span(start, start + length))
    assert part != part_id_for(video, fingerprint, recipe, Span(start, start + length * 2))
    assert 0 <= vector_id_for(part, i, 1) < 2**63
    assert vector_id_for(part, i, 1) != vector_id_for(part, 1, i) or i == 1


def test_known_ids_never_change() -> None:
    # Published libraries hold these: a change here would make every video new.
    video = video_id_for("/videos/a.mp4")
    part = part_id_for(video, "f", "r", Span(0, 10))
    assert video == "8dfd80d95f6126c9"
    assert (part, vector_id_for(part, 1, 2)) == ("52e63998f75a01fc166a1619", 5060776858892262528)
