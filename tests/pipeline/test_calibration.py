"""Percentiles of scores, and when a match is confident."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.background_queries import background_queries, bank_version
from pipeline.calibration import LEAST_VECTORS, Calibration, Calibrator, evenly
from pipeline.catalog import Catalog
from pipeline.errors import OptionError, QueryError
from pipeline.index import VectorIndex
from pipeline.index_kinds import unit_rows
from pipeline.library import Library
from pipeline.search import SearchOptions
from tests.pipeline.hashed import WIDTH, Hashed, directions, put, random_library, random_rows

finite = st.floats(-1, 1, allow_nan=False)
Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def made(best: Sequence[float], centre: Sequence[float] = (0.0,), share: float = 0.5) -> Calibration:
    return Calibration(np.array(best, dtype=np.float64), np.array(centre, dtype=np.float32), share, 0, 100)


@contextmanager
def opened(folder: Path, *counts: int, seed: int = 0) -> Iterator[tuple[Catalog, VectorIndex]]:
    """A catalog of random directions with a video of each length, and its index."""
    with Catalog(folder / "catalog.sqlite3", dimension=WIDTH) as catalog:
        for i, count in enumerate(counts):
            put(catalog, f"/v/{i}.mp4", random_rows(count, seed=seed + i))
        with VectorIndex.open(folder / "index", catalog, WIDTH) as index:
            yield catalog, index


def calibrator(folder: Path, catalog: Catalog, model: str = "m") -> Calibrator:
    return Calibrator(folder / "calibration", catalog, model, 1024)


class Counting:
    """Encodes texts to directions of their own and counts them; another ``style`` is other words for the same."""

    def __init__(self, style: str = "") -> None:
        self.count = 0
        self.style = style

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.count += len(texts)
        return directions(texts, self.style)


# -- laws ------------------------------------------------------------------------------------------------------------


@given(best=st.lists(finite, min_size=1, max_size=30), stands=st.lists(finite, min_size=2, max_size=10))
@settings(deadline=None)
def test_a_percentile_is_a_share_and_rises(best: list[float], stands: list[float]) -> None:
    calibration = made(sorted(best))
    found = [calibration.percentile(stand) for stand in sorted(stands)]
    assert found == sorted(found)
    assert all(0 <= one <= 100 for one in found)
    assert calibration.percentile(max(best) + 0.01) == 100
    assert calibration.percentile(min(best) + 5e-5) == 0  # as good as one of the background, but for rounding


@given(seed=st.integers(0, 1000), offset=finite)
@settings(deadline=None, max_examples=30)
def test_a_level_that_a_question_always_has_can_be_taken_out(seed: int, offset: float) -> None:
    best, rows = np.sort(np.random.default_rng(seed).uniform(-1, 1, 200)), random_rows(30, seed)
    level = np.full((30, 1), 0.5, dtype=np.float32)
    rows = np.concatenate([np.sqrt(0.75) * rows[:, 1:] / np.linalg.norm(rows[:, 1:], axis=1)[:, None], level], axis=1)
    zero = [0.0] * WIDTH
    query, lifted = np.append(rows[0, :-1], 0.0).astype(np.float32), np.append(rows[0, :-1], offset).astype(np.float32)
    plain = made(best, zero, 1.0).rating(query, rows)(rows)
    assert made(best, zero, 1.0).rating(lifted, rows)(rows) == pytest.approx(plain, abs=0.51)  # one in 200 may tip over
    raw = np.array(made(best, zero, 0.0).rating(query, rows)(rows))  # as for pictures: the cosine alone
    assert (np.diff(raw[np.argsort(rows @ query)]) >= 0).all()


def test_what_is_near_to_every_question_is_no_confident_answer(tmp_path: Path) -> None:
    """A vector in the middle of all texts wins most of them; a right answer of the same score is worth more."""
    middle = random_rows(1, seed=1)

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return unit_rows(middle + 1.2 * directions(texts))

    with opened(tmp_path, 60) as (catalog, index):
        put(catalog, "/v/hub.mp4", middle)
        index.sync()
        found = calibrator(tmp_path, catalog).words(index, encode)
        assert found is not None
        sample = catalog.sample_vectors(1024)
        (query,) = encode(["a red kite"])
        score = float(query @ middle[0])
        (across,) = random_rows(1, seed=5)
        across -= query * (across @ query)
        right = score * query + np.sqrt(1 - score**2) * across / np.linalg.norm(across)  # of the same cosine, elsewhere
        assert right @ query == pytest.approx(score, abs=1e-5)
        hub, other = found.rating(query, sample)(np.stack([middle[0], right]))
        assert hub + 10 < other


@given(owners=st.lists(st.sampled_from("abcdefg"), max_size=60), limit=st.integers(1, 40))
@settings(deadline=None)
def test_evenly(owners: list[str], limit: int) -> None:
    chosen = evenly(owners, limit)
    assert len(set(chosen)) == len(chosen) <= limit
    counts = {name: sum(owners[i] == name for i in chosen) for name in set(owners)}
    if limit >= len(counts):
        most = max(counts.values(), default=0)
        for name, count in counts.items():  # one has fewer than another only where it has no more
            assert count == most or count == owners.count(name)
    else:
        assert sorted(counts.values())[-limit:] == [1] * limit


@pytest.mark.parametrize("bad", [[], [0.0, np.nan], [1.0, 0.5], [[1.0]]])
def test_a_calibration_checks_itself(bad: list[Any]) -> None:
    with pytest.raises(ValueError, match="best must be"):
        made(bad)
    with pytest.raises(ValueError, match="level_share from 0 to 1"):
        made([1.0], share=1.5)
    with pytest.raises(ValueError, match="centre must be"):
        made([1.0], centre=[np.nan])


@pytest.mark.parametrize("bad", [-1.0, 100.5, float("nan")])
def test_the_level_is_a_percentile(bad: float) -> None:
    with pytest.raises(OptionError, match="confident_percentile"):
        SearchOptions(confident_percentile=bad)


def test_the_bank_is_a_few_hundred_plain_questions() -> None:
    bank = background_queries()
    assert 200 <= len(bank) == len(set(bank)) <= 400
    assert all(sentence == " ".join(sentence.split()).lower() for sentence in bank)
    assert max(len(sentence.split()) for sentence in bank) <= 12  # short contexts are 32 tokens
    assert len(bank_version()) == 16


# -- rates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [80, 90, 95])
def test_of_questions_without_an_answer_the_stated_share_is_confident(tmp_path: Path, level: float) -> None:
    with opened(tmp_path, 60, 60, 60, 60) as (catalog, index):
        found = calibrator(tmp_path, catalog).words(index, directions)
        assert found is not None
        sample = catalog.sample_vectors(1024)
        queries = random_rows(500, seed=99)
        rows = catalog.vectors_since(0, 1000).embedding.astype(np.float32)
        nearest = rows[(queries @ rows.T).argmax(axis=1)]
        rated = [found.rating(query, sample)(row[None])[0] for query, row in zip(queries, nearest, strict=True)]
        share = np.mean(np.array(rated) >= level)
        p = 1 - level / 100
        deviation = np.sqrt(p * (1 - p) * (1 / len(queries) + 1 / len(found.best)))
        assert abs(share - p) < 3 * deviation
        assert found.rating(rows[17], sample)(rows[17:18]) == [100]


def test_pictures_are_compared_with_the_other_videos(tmp_path: Path) -> None:
    # Every vector of a video is alike, so what a video's own vectors score says nothing of the others.
    with opened(tmp_path) as (catalog, index):
        for i in range(12):
            rows = random_rows(1, seed=i) + 0.05 * random_rows(20, seed=100 + i)
            put(catalog, f"/v/{i}.mp4", rows)
        index.sync()
        found = calibrator(tmp_path, catalog).pictures(index)
        assert found is not None
        assert found.best.max() < 0.95
        sample = catalog.sample_vectors(1024)
        queries = random_rows(200, seed=99)
        rows = sample.astype(np.float32)
        nearest = rows[(queries @ rows.T).argmax(axis=1)]
        rated = [found.rating(query, sample)(row[None])[0] for query, row in zip(queries, nearest, strict=True)]
        assert 0.02 < np.mean(np.array(rated) >= 90) < 0.3
        assert found.rating(random_rows(1, seed=3)[0], sample)(rows[60:61]) == [100]


def test_where_everything_is_alike_nothing_is_confident(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalog, index):
        rows = np.repeat(random_rows(1, seed=0), 40, axis=0)
        put(catalog, "/v/black.mp4", rows)
        index.sync()
        found = calibrator(tmp_path, catalog).words(index, directions)
        assert found is not None
        assert found.rating(rows[0], rows)(rows[:1]) == [0]


def test_too_small_to_tell(tmp_path: Path) -> None:
    with opened(tmp_path, LEAST_VECTORS - 1) as (catalog, index):
        small = calibrator(tmp_path, catalog)
        assert small.words(index, directions) is None
        assert small.pictures(index) is None
        put(catalog, "/v/more.mp4", random_rows(1, seed=7))
        index.sync()
        assert small.words(index, directions) is not None
        assert small.pictures(index) is not None
    (tmp_path / "one").mkdir()
    with opened(tmp_path / "one", 50) as (catalog, index):
        assert calibrator(tmp_path / "one", catalog).pictures(index) is None  # no other video to look in


# -- following and keeping -------------------------------------------------------------------------------------------


def test_it_follows_the_library(tmp_path: Path) -> None:
    with opened(tmp_path, 60, 60) as (catalog, index):
        kept, encode = calibrator(tmp_path, catalog), Counting()
        first, first_pictures = kept.words(index, encode), kept.pictures(index)
        assert first is not None
        put(catalog, "/v/few.mp4", random_rows(12, seed=50))
        index.sync()
        assert kept.words(index, encode) is first  # a tenth more: it still holds
        put(catalog, "/v/one.mp4", random_rows(1, seed=51))
        index.sync()
        second = kept.words(index, encode)
        assert second is not None
        assert (second.vectors, second.seq) == (133, index.seq)
        assert kept.pictures(index) is not first_pictures
        assert encode.count == len(background_queries())  # the bank is encoded once
        catalog.remove_video(catalog.video("1.mp4").id)  # one change, sixty vectors
        index.sync()
        third = kept.words(index, encode)
        assert third is not None
        assert third.vectors == 73


def test_it_is_kept_beside_the_library(tmp_path: Path) -> None:
    with opened(tmp_path, 60, 60) as (catalog, index):
        first = calibrator(tmp_path, catalog)
        words, pictures = first.words(index, directions), first.pictures(index)
        assert words is not None
        assert pictures is not None
        encode = Counting()
        again = calibrator(tmp_path, catalog)
        for mine, theirs in ((again.words(index, encode), words), (again.pictures(index), pictures)):
            assert mine is not None
            np.testing.assert_array_equal(mine.best, theirs.best)
            assert (mine.seq, mine.vectors) == (theirs.seq, theirs.vectors)
        assert encode.count == 1  # to see that texts are still put to the model in the same words
        for other in (calibrator(tmp_path, catalog, model="another"), calibrator(tmp_path, catalog)):
            encode = Counting(style="a photo of ")
            assert other.words(index, encode) is not None
            assert encode.count >= len(background_queries())
        assert sorted(path.name for path in (tmp_path / "calibration").iterdir()) == ["pictures.npz", "words.npz"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: b"no such thing" * 100,
    "flipped": lambda content: content[:200] + bytes([content[200] ^ 255]) + content[201:],
}


@pytest.mark.parametrize("name", ["words", "pictures"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, name: str) -> None:
    with opened(tmp_path, 30, 30) as (catalog, index):

        def make(calibrator: Calibrator) -> Calibration | None:
            return calibrator.words(index, directions) if name == "words" else calibrator.pictures(index)

        first = make(calibrator(tmp_path, catalog))
        path = tmp_path / "calibration" / f"{name}.npz"
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        with caplog.at_level(logging.WARNING):
            second = make(calibrator(tmp_path, catalog))
        assert f"{path} cannot be used and is made again" in caplog.text
        assert first is not None
        assert second is not None
        np.testing.assert_array_equal(first.best, second.best)
        caplog.clear()
        assert make(calibrator(tmp_path, catalog)) is not None
        assert caplog.text == ""  # it was written anew


def test_a_file_of_another_shape_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path, 30) as (catalog, index):
        calibrator(tmp_path, catalog).words(index, directions)
        path = tmp_path / "calibration" / "words.npz"
        with np.load(path) as arrays:
            held = dict(arrays)
        for key, value in {"queries": held["queries"][:5], "best": held["best"][::-1], "facts": np.array("[]")}.items():
            np.savez(path, **{**held, key: value})
            assert calibrator(tmp_path, catalog).words(index, directions) is not None
            assert "is made again" in caplog.text
            caplog.clear()


def test_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("where a folder was expected")
    with opened(tmp_path, 30) as (catalog, index):
        found = Calibrator(tmp_path / "file", catalog, "m", 1024).words(index, directions)
        assert found is not None
        assert "could not be kept" in caplog.text


# -- the library -----------------------------------------------------------------------------------------------------


def test_moments_of_a_library_say_their_percentiles(tmp_path: Path) -> None:
    with random_library(tmp_path) as library:
        moments = library.query("a red kite")
        assert (moments[0].name, moments[0].percentile) == ("0.mp4", 100)
        percentiles = [one.percentile for one in moments if one.percentile is not None]
        assert len(percentiles) == len(moments)
        assert all(0 <= one <= 100 for one in percentiles)
        assert library.query("a red kite", confident=True)[0] == moments[0]
        assert all(one.percentile >= 90 for one in library.query("a red kite", confident=True) if one.percentile)
        # It is a fact of moment and question, whatever else was looked at.
        (only,) = library.query("a red kite", video="0.mp4", limit=1)
        assert only.percentile == 100
        assert library.query("a red kite", video="3.mp4", confident=True) == []
        unknown = [f"question {i}" for i in range(60)]
        share = np.mean([bool(library.query(text, limit=1, confident=True)) for text in unknown])
        assert share < 0.25
        alike = library.query(like=("2.mp4", 7.0))
        assert (alike[0].name, alike[0].percentile) == ("2.mp4", 100)
        assert all(one.percentile is not None for one in library.query(image=np.zeros((4, 4, 3), np.uint8)))
        assert [one.percentile for one in library.query(vector=np.ones(WIDTH), limit=1)] == [None]
        with pytest.raises(QueryError, match="a bare vector has no percentile"):
            library.query(vector=np.ones(WIDTH), confident=True)


def test_the_level_of_confidence_is_an_option(tmp_path: Path) -> None:
    random_library(tmp_path).close()
    for level, least in ((0.0, 5), (100.0, 1)):
        options = SearchOptions(confident_percentile=level)
        with Library.open(tmp_path, encoder=Hashed(), search_options=options) as library:
            assert len(library.query("a red kite", confident=True, limit=5)) == least


def test_the_bank_is_encoded_once_for_a_library(tmp_path: Path) -> None:
    random_library(tmp_path).close()
    for expected in (len(background_queries()) + 2, 3):
        model = Hashed()
        with Library.open(tmp_path, encoder=model) as library:
            library.query("a red kite")
            library.query("a green kite")
        assert model.asked == expected
