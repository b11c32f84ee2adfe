"""A library made of a tape is the library that a submit makes, without the frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csat_fusion import TokenSet
from pipeline.digest import DigestOptions, TokenOptions
from pipeline.errors import InputError, NotAVideo
from pipeline.evaluation.tape import Tape, frame_spans, numbers_of, pictures_of, record, replay
from pipeline.fuse import VectorOptions
from pipeline.ingest import IngestOptions
from pipeline.library import Library
from pipeline.media import TokenRecord
from pipeline.segments import SegmentOptions
from pipeline.sources import SourceItem, find_sources
from tests.pipeline.evaluation.colours import ColourModel, draw_library_of_films

OPTIONS = IngestOptions(part_seconds=5.0, segments=SegmentOptions(detector="none", max_seconds=4.0))
DIGESTS = [
    DigestOptions(),
    DigestOptions(vectors=VectorOptions(frames_per_vector=5), tokens=TokenOptions(keep=True, budget=6)),
    DigestOptions(tokens=TokenOptions(keep=True, compressor="identity", budget=None)),
]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[SourceItem]:
    folder = tmp_path_factory.mktemp("films")
    draw_library_of_films(folder)
    return [replace(item, tags=("drawn",)) for item in find_sources([str(folder)])]


@pytest.fixture(scope="module")
def tape(items: list[SourceItem], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tape]:
    with record(ColourModel(), items, OPTIONS, tmp_path_factory.mktemp("tape"), tokens=True) as made:
        yield made
    assert list(made.folder.iterdir()) == []
    made.close()
    with pytest.raises(InputError, match="closed"):
        replay(made, ColourModel(), made.folder / "x", DigestOptions())


@given(st.lists(st.integers(0, 2**48 - 1), max_size=5))
def test_numbers_travel_as_pictures(numbers: list[int]) -> None:
    pictures = pictures_of(np.array(numbers, np.int64))
    assert (pictures.shape, pictures.dtype) == ((len(numbers), 1, 2, 3), np.uint8)
    assert numbers_of(pictures).tolist() == numbers


def content(library: Library) -> list[Any]:
    """All that a submit keeps but pictures and times of writing."""
    found: list[Any] = []
    for video in library.videos():
        facts = (video.id, video.uri, video.name, video.tags, video.fingerprint, video.state, video.duration_seconds)
        counts = (video.frames_decoded, video.frames_sampled, video.frames_encoded, video.skipped_by_gate)
        rows = library.catalog.vectors_of(video.id)
        vectors = (rows.embedding.tobytes(), rows.start_seconds.tolist(), rows.end_seconds.tolist(), rows.id.tolist())
        sets = [numbers(library.catalog.token_set(segment.id)) for segment in library.catalog.segments_of(video.id)]
        found.append((facts, counts, vectors, rows.weight.tolist(), sets))
    return found


def numbers(kept: TokenRecord | None) -> list[Any]:
    """What a token set says; its bytes have no fixed order."""
    if kept is None:
        return []
    tokens = TokenSet.from_bytes(kept.payload)
    return [kept.compressor, *(part.tolist() for part in vars(tokens).values())]


@pytest.mark.parametrize("digest", DIGESTS)
def test_it_makes_what_a_submit_makes(
    tape: Tape, items: list[SourceItem], digest: DigestOptions, tmp_path: Path
) -> None:
    options = replace(OPTIONS, digest=digest)
    watching = ColourModel()
    with Library.open(tmp_path / "submitted", encoder=watching) as submitted:
        results = submitted.add(*(item.uri for item in items), tags=("drawn",), options=options)
        assert {result.state for result in results} == {"done"}
        wanted = content(submitted)
    blind = ColourModel()
    with replay(tape, blind, tmp_path / "replayed", digest) as replayed:
        found = content(replayed)
        assert replayed.query("red", limit=1)[0].score > 0.9
    for mine, theirs in zip(found, wanted, strict=True):
        # Ids follow from the recipe, thumbnails included.
        assert (*mine[0], mine[1], mine[2][:3], mine[3]) == (*theirs[0], theirs[1], theirs[2][:3], theirs[3])
        assert [bool(s) for s in mine[4]] == [digest.tokens.keep] * len(mine[4])
        assert mine[4] == theirs[4]  # every number of them
    assert (blind.frames, watching.frames) == (0, len(tape))


def test_frames_of_segments(tape: Tape) -> None:
    seen = [part for video in tape.videos for part in video.parts]
    assert [len(video.parts) for video in tape.videos] == [3, 2]
    numbers = np.concatenate([part.frames for part in seen])
    assert numbers.tolist() == list(range(len(tape)))
    for part in seen:
        weights = 0.0
        for _, mine, facts in frame_spans(part):
            assert len(mine) == len(facts)
            np.testing.assert_array_equal(facts[1:, 0], facts[:-1, 1])  # a segment's frames leave no gap
            weights += facts[:, 2].sum()
        assert weights == part.summary.frames_sampled
    assert tape.tokens is not None
    mean = np.asarray(tape.tokens).mean(1)
    np.testing.assert_allclose(mean / np.linalg.norm(mean, axis=1, keepdims=True), tape.embedding, atol=1e-6)


def test_what_cannot_be(tape: Tape, items: list[SourceItem], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recorded with python.*asked for with python:other"):
        replay(tape, ColourModel("python:other"), tmp_path / "a", DigestOptions())
    with pytest.raises(InputError, match="holds a tape already"):
        record(ColourModel(), items, OPTIONS, tape.folder)
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(NotAVideo, match=r"no\.mp4"):
        record(ColourModel(), find_sources([str(tmp_path / "no.mp4")]), OPTIONS, tmp_path)


def test_a_tape_without_tokens(items: list[SourceItem], tmp_path: Path) -> None:
    told: list[tuple[str, float, float | None]] = []
    folder = tmp_path / "tape"
    folder.mkdir()
    with record(ColourModel(), items[:1], OPTIONS, folder, progress=lambda *at: told.append(at)) as tape:
        assert tape.tokens is None
        with pytest.raises(InputError, match="without tokens"):
            replay(tape, ColourModel(), tmp_path / "a", DIGESTS[1])
    assert told[-1][0] == "1/1 a.mp4"
    assert told[-1][1:] == (pytest.approx(13.0), pytest.approx(13.0))


def test_sets_are_readable(tape: Tape, tmp_path: Path) -> None:
    with replay(tape, ColourModel(), tmp_path / "l", DIGESTS[1]) as library:
        video = library.video("a.mp4").id
        for segment in library.catalog.segments_of(video):
            kept = library.catalog.token_set(segment.id)
            assert kept is not None
            tokens = TokenSet.from_bytes(kept.payload)
            assert len(tokens) <= 6
            assert float(tokens.start_seconds.min()) == pytest.approx(segment.span.start_seconds)
            assert float(tokens.end_seconds.max()) == pytest.approx(segment.span.end_seconds)
