"""Recall, ranks and accuracy from vectors: hand-worked cases, a second way of counting, and laws."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import EncodingFailed, InputError
from pipeline.evaluation import ranking
from pipeline.evaluation.ranking import classification_scores, retrieval_scores


def brute(image: Any, text: Any, owner: list[int]) -> tuple[list[int], list[int]]:
    """Ranks one by one, as the words say it: rivals that score at least as much stand before the right answer."""
    score = [[float(np.dot(t.astype(float), i.astype(float))) for i in image] for t in text]
    of_text = [
        1 + sum(score[t][i] >= score[t][own] - 1e-9 for i in range(len(image)) if i != own)
        for t, own in enumerate(owner)
    ]
    of_image = []
    for i in range(len(image)):
        best = max(score[t][i] for t in range(len(text)) if owner[t] == i)
        of_image.append(1 + sum(score[t][i] >= best - 1e-9 for t in range(len(text)) if owner[t] != i))
    return of_text, of_image


@st.composite
def tasks(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], list[int]]:
    """Vectors of few different values, so that ties are many."""
    images = draw(st.integers(1, 6))
    owner = list(range(images)) + draw(st.lists(st.integers(0, images - 1), max_size=8))
    owner = draw(st.permutations(owner))
    width = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 1000]))

    def rows(count: int) -> npt.NDArray[np.float32]:
        return (rng.integers(-levels, levels + 1, (count, width)) / levels).astype(np.float32)

    return rows(images), rows(len(owner)), owner


@given(tasks())
@settings(max_examples=60, deadline=None)
def test_against_counting_one_by_one(task: tuple[Any, Any, list[int]]) -> None:
    scores = retrieval_scores(*task)
    of_text, of_image = brute(*task)
    assert scores.text_ranks.tolist() == of_text
    assert scores.image_ranks.tolist() == of_image
    for ranks, part in ((of_text, scores.text_to_image), (of_image, scores.image_to_text)):
        assert part.queries == len(ranks)
        assert part.median_rank == np.median(ranks)
        assert part.mean_reciprocal_rank == pytest.approx(sum(1 / r for r in ranks) / len(ranks))
        for k in (1, 5, 10):
            assert part.recall[k] == pytest.approx(100 * sum(r <= k for r in ranks) / len(ranks))


@given(tasks(), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_order_of_rows_changes_nothing(task: tuple[Any, Any, list[int]], seed: int) -> None:
    image, text, owner = task
    rng = np.random.default_rng(seed)
    pictures, texts = rng.permutation(len(image)), rng.permutation(len(text))
    place = np.argsort(pictures)
    moved = retrieval_scores(image[pictures], text[texts], place[np.array(owner)[texts]])
    assert moved == retrieval_scores(image, text, owner)


@given(tasks())
@settings(max_examples=30, deadline=None)
def test_a_further_picture_never_helps(task: tuple[Any, Any, list[int]]) -> None:
    image, text, owner = task
    more = np.concatenate([image, image[:1]])
    again = retrieval_scores(more, np.concatenate([text, text[:1]]), [*owner, len(image)])
    before = retrieval_scores(image, text, owner)
    assert (again.text_ranks[:-1] >= before.text_ranks).all()
    assert (again.image_ranks[:-1] >= before.image_ranks).all()


def test_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image, owner = rng.standard_normal((20, 4)), np.repeat(np.arange(20), 5)
    text = image[owner] + rng.standard_normal((100, 4))
    whole = retrieval_scores(image, text, owner)
    monkeypatch.setattr(ranking, "_CELLS", 60)
    assert retrieval_scores(image, text, owner) == whole


def test_by_hand() -> None:
    image = np.eye(3)
    #                right first,     right second,    right last,      right first
    text = np.array([[1.0, 0.2, 0.1], [0.9, 0.5, 0.1], [0.3, 0.2, 0.1], [0.1, 0.1, 0.8]])
    scores = retrieval_scores(image, text, [0, 1, 2, 2])
    assert scores.text_ranks.tolist() == [1, 2, 3, 1]
    # picture 0: own 1.0 is first; 1: own 0.5 is first of 0.2, 0.5, 0.2, 0.1; 2: the better of its own, 0.8, is first
    assert scores.image_ranks.tolist() == [1, 1, 1]
    assert scores.text_to_image.recall == {1: 50.0, 5: 100.0, 10: 100.0}
    assert scores.text_to_image.median_rank == 1.5
    assert scores.text_to_image.mean_reciprocal_rank == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4)
    assert scores.image_to_text.recall[1] == 100.0


def test_own_captions_do_not_stand_in_each_others_way() -> None:
    same = np.ones((1, 2))
    assert retrieval_scores(same, np.ones((5, 2)), [0] * 5).image_ranks.tolist() == [1]


def test_one_vector_for_everything_scores_nothing() -> None:
    scores = retrieval_scores(np.ones((30, 4), np.float32), np.ones((60, 4), np.float32), [*range(30), *range(30)])
    assert scores.text_to_image.recall == {1: 0.0, 5: 0.0, 10: 0.0}
    assert scores.image_to_text.recall == {1: 0.0, 5: 0.0, 10: 0.0}
    assert classification_scores(np.ones((9, 4)), np.ones((9, 4)), np.arange(9)).top5 == 0.0


def test_chance_is_that_of_random_orders() -> None:
    owner = [0, 0, 0, 1, 2, 2]
    scores = retrieval_scores(np.eye(3), np.eye(3)[owner], owner)
    hits = dict.fromkeys((1, 5), 0)
    orders = list(itertools.permutations(range(6)))
    for order in orders:
        for k in hits:
            hits[k] += sum(any(owner[t] == i for t in order[:k]) for i in range(3))
    for k, count in hits.items():
        assert scores.image_to_text.chance[k] == pytest.approx(100 * count / (3 * len(orders)))
    assert scores.text_to_image.chance == {1: pytest.approx(100 / 3), 5: 100.0, 10: 100.0}


def test_classification_by_hand() -> None:
    classes = np.eye(6)
    image = np.eye(6)[[0, 1, 2, 3]] + 0.0
    image[1, 0] = 2.0  # second
    image[2] = [9, 8, 1, 7, 6, 5]  # sixth
    scores = classification_scores(image, classes, [0, 1, 2, 3])
    assert scores.ranks.tolist() == [1, 2, 6, 1]
    assert (scores.top1, scores.top5) == (50.0, 75.0)
    assert scores.per_class == {0: 100.0, 1: 0.0, 2: 0.0, 3: 100.0}
    assert scores.chance == {"top1": pytest.approx(100 / 6), "top5": pytest.approx(500 / 6)}


def test_mean_per_class_weighs_rare_classes_alike() -> None:
    scores = classification_scores(np.eye(2)[[0, 0, 0, 0]], np.eye(2), [0, 0, 0, 1])
    assert (scores.top1, scores.mean_per_class) == (75.0, 50.0)


def test_plain_json() -> None:
    scores = retrieval_scores(np.eye(2), np.eye(2), [0, 1])
    value = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert value["text_to_image"]["R@1"] == value["image_to_text"]["R@10"] == 100.0
    assert json.dumps(classification_scores(np.eye(2), np.eye(2), [0, 1]).to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("image", "text", "owner", "said"),
    [
        (np.eye(2), np.eye(3), [0, 1, 1], "pictures are 2 wide, texts 3"),
        (np.eye(2), np.eye(2), [0], r"owner must be whole numbers \[2\]"),
        (np.eye(2), np.eye(2), [0.0, 1.0], "owner must be whole numbers"),
        (np.eye(2), np.eye(2), [0, 2], r"owner\[1\] is 2; allowed are 0 to 1"),
        (np.eye(2), np.eye(2), [0, -1], r"owner\[1\] is -1"),
        (np.eye(2), np.eye(2), [0, 0], "picture 1 has no text"),
        (np.zeros((0, 2)), np.eye(2), [0, 1], "image must be floating point"),
        (np.eye(2, dtype=int), np.eye(2), [0, 1], "image must be floating point"),
        (np.eye(2), np.eye(2)[0], [0, 1], "text must be floating point"),
    ],
)
def test_shapes_that_disagree(image: Any, text: Any, owner: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        retrieval_scores(image, text, owner)


def test_vectors_that_are_not_finite() -> None:
    bad = np.eye(2)
    bad[1, 0] = np.nan
    for call in (
        lambda: retrieval_scores(np.eye(2), bad, [0, 1]),
        lambda: classification_scores(bad, np.eye(2), [0, 1]),
    ):
        with pytest.raises(EncodingFailed, match="row 1 of"):
            call()
