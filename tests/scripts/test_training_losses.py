"""What the stages compute: augmentation, losses, noise, and whether order is read; and the banks of what was seen.

Shapes: B pictures or clips, N texts, D width, L text tokens, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from scripts.training import bank as banks
from scripts.training.augment import augmented, normalised, plain
from scripts.training.bank import ClipBank, clip_bank, still_bank
from scripts.training.loop import TrainingError
from scripts.training.photographs import Sentences, read_labelled, read_sentences
from scripts.training.sight import SightOptions, SightStage
from scripts.training.video import order_read
from scripts.training.words import WordsOptions, caption_loss, matching_loss, noisy, retrieval_figures
from tests.scripts.toy_packs import toy_packs

HARD = WordsOptions(smoothing=0.0)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- augmentation ----------------------------------------------------------------------------------------------------


def halves(count: int = 40, side: int = 24) -> Tensor:
    """Dark on the left, light on the right."""
    pictures = torch.zeros(count, side, side, 3, dtype=torch.uint8)
    pictures[:, :, side // 2 :] = 255
    return pictures


@pytest.mark.parametrize("side", [16, 24, 33])
def test_augmented_pictures_have_the_side_and_the_range_asked_for(side: int) -> None:
    pictures = torch.randint(0, 256, (40, 24, 24, 3), dtype=torch.uint8, generator=source())
    got = augmented(pictures, side, source(1))
    low, high = normalised(torch.zeros(1, 3, 1, 1)), normalised(torch.ones(1, 3, 1, 1))
    assert got.shape == plain(pictures, side).shape == (40, 3, side, side)
    assert bool(((got >= low - 1e-5) & (got <= high + 1e-5)).all())
    assert torch.equal(got, augmented(pictures, side, source(1)))
    assert not torch.equal(got, augmented(pictures, side, source(2)))


def test_no_picture_is_mirrored_that_must_not_be() -> None:
    flip = torch.arange(40) % 2 == 0
    got = augmented(halves(), 24, source(), flip=flip, area=(0.9, 1.0), aspect=(0.99, 1.01)).mean((1, 2))
    mirrored = got[:, 0] > got[:, -1]
    assert not bool(mirrored[~flip].any())
    assert 3 < int(mirrored[flip].sum()) < 17


def test_without_chance_nothing_changes() -> None:
    pictures = torch.randint(0, 256, (30, 24, 24, 3), dtype=torch.uint8, generator=source())
    got = augmented(
        pictures, 24, source(), flip=torch.zeros(30, dtype=torch.bool), area=(1, 1), aspect=(1, 1), colour=0.0
    )
    same = (got - plain(pictures, 24)).abs().amax((1, 2, 3)) < 1e-4
    assert 20 <= int(same.sum()) < 30  # the others went through a smaller size


def test_aspect_changes_by_the_crop() -> None:
    ramp = torch.linspace(0, 255, 48).round().to(torch.uint8)
    across = ramp.view(1, 1, 48, 1).expand(30, 48, 48, 3)
    wide = augmented(across, 48, source(), area=(0.5, 0.5), aspect=(2, 2), colour=0.0)
    narrow = augmented(across, 48, source(), area=(0.5, 0.5), aspect=(0.5, 0.5), colour=0.0)
    shares = [float((got[:, 0, 24, -1] - got[:, 0, 24, 0]).abs().mean()) for got in (wide, narrow)]
    assert shares[0] == pytest.approx(2 * shares[1], rel=0.1)


# -- losses ----------------------------------------------------------------------------------------------------------


@given(st.integers(2, 6), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_matching_of_single_pairs_is_cross_entropy(count: int, seed: int) -> None:
    generator = source(seed)
    images, texts = (torch.randn(count, 8, generator=generator) for _ in range(2))
    scale, own = torch.tensor(2.0), torch.arange(count)
    logits = functional.normalize(images) @ functional.normalize(texts).T * scale.exp()
    want = 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))
    torch.testing.assert_close(matching_loss(images, texts, scale, own, own, HARD), want)


@given(st.integers(0, 99), st.sampled_from([0.0, 0.1]))
@settings(max_examples=25, deadline=None)
def test_the_order_of_a_batch_says_nothing(seed: int, smoothing: float) -> None:
    generator, options, scale = source(seed), WordsOptions(smoothing=smoothing), torch.tensor(2.0)
    images, texts = torch.randn(4, 8, generator=generator), torch.randn(6, 8, generator=generator)
    rows, columns = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2, 0, 1])
    want = matching_loss(images, texts, scale, rows, columns, options)
    i, j = torch.randperm(4, generator=generator), torch.randperm(6, generator=generator)
    torch.testing.assert_close(matching_loss(images[i], texts[j], scale, rows[i], columns[j], options), want)


def test_those_of_a_group_share_the_target() -> None:
    images, texts, scale = torch.eye(2, 4), torch.randn(3, 4, generator=source()), torch.tensor(1.0)
    got = matching_loss(images, texts, scale, torch.tensor([7, 8]), torch.tensor([7, 7, 8]), HARD)
    logits = functional.normalize(texts).T[:2] * scale.exp()
    rows, columns = logits.log_softmax(1), logits.log_softmax(0)
    first = -(0.5 * rows[0, 0] + 0.5 * rows[0, 1] + rows[1, 2]) / 2
    second = -(columns[0, 0] + columns[0, 1] + columns[1, 2]) / 3
    torch.testing.assert_close(got, 0.5 * (first + second))


def test_cosines_are_not_multiplied_by_more_than_the_highest_scale() -> None:
    images, own = torch.randn(3, 8, generator=source()), torch.arange(3)
    at, over = (
        matching_loss(images, images.flip(1), torch.tensor(value).log(), own, own, HARD) for value in (50.0, 1e4)
    )
    torch.testing.assert_close(at, over)


def test_filling_is_no_part_of_a_caption() -> None:
    ids = torch.tensor([[9, 3, 4, 8, 0, 0], [9, 5, 8, 0, 0, 0]])
    logits = torch.randn(2, 5, 10, generator=source())
    other = logits.clone()
    other[ids[:, 1:] == 0] += torch.randn(5, 10, generator=source(1)) * 9
    for smoothing in (0.0, 0.1):
        assert torch.equal(caption_loss(logits, ids, smoothing), caption_loss(other, ids, smoothing))
    each = [-logits[b, k].log_softmax(0)[ids[b, k + 1]] for b, k in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))]
    torch.testing.assert_close(caption_loss(logits, ids, 0.0), torch.stack(each).mean())


@given(st.floats(0, 1), st.integers(0, 99))
def test_noise_never_touches_marks_and_filling(share: float, seed: int) -> None:
    model = SimpleNamespace(text=SimpleNamespace(token_embedding=SimpleNamespace(num_embeddings=20)))
    ids = torch.tensor([[18, *range(1, 18), 19, 0, 0]] * 3)
    got = noisy(ids, share, model, source(seed))
    still = (ids == 0) | (ids >= 18)
    assert torch.equal(got[still], ids[still])
    assert bool(((got[~still] > 0) & (got[~still] < 18)).all())
    assert share > 0 or torch.equal(got, ids)


def test_recall_of_rows_that_belong_together() -> None:
    eye = torch.eye(12)
    assert set(retrieval_figures(eye, eye).values()) == {100.0}
    figures = retrieval_figures(eye, -eye)  # every other one is nearer
    assert figures["t2i_r1"] == figures["i2t_r10"] == 0.0


# -- packs -----------------------------------------------------------------------------------------------------------


def test_every_split_has_the_same_numbers_of_classes(tmp_path: Path) -> None:
    packs = toy_packs(tmp_path)
    train, check = (read_labelled(packs, split, 16) for split in ("train", "val"))
    assert train.names == check.names
    assert [names[0] for names in train.names] == ["blue", "green", "red", "white", "yellow"]
    assert train.classes.bincount().tolist() == [3] * 5
    for i, k in enumerate(check.classes):
        assert (
            train.pictures[train.classes == k][0]
            .float()
            .mean((0, 1))
            .sub(check.pictures[i].float().mean((0, 1)))
            .abs()
            .max()
            < 2
        )
    assert read_labelled(packs, "train", 16, most=1).classes.bincount().tolist() == [1] * 5


def test_splits_that_show_other_classes_are_refused(tmp_path: Path) -> None:
    packs = toy_packs(tmp_path)
    check = read_labelled(packs, "val", 16)
    train = read_labelled(packs, "train", 16)
    said = read_sentences(packs, "train", 16)
    train.names[0] = ["purple"]
    with pytest.raises(TrainingError, match=r"other classes: \['blue', 'purple'\]"):
        SightStage(nn.Identity(), train, said, check, said, 1, SightOptions())


# -- time ------------------------------------------------------------------------------------------------------------


class Reader:
    """Gives clips' sentences likelihoods by the first token of a clip, with times or without."""

    device = torch.device("cpu")

    def __init__(self, times: bool) -> None:
        self.times = times

    def logits(self, seen: Any, ids: Tensor) -> Tensor:
        """``[B, L, V]``: a sentence's word is what the earliest token says, or all of them together."""
        first = seen.tokens[:, 0] - seen.tokens[:, -1] if self.times else seen.tokens.mean(1)
        return first[:, None].expand(-1, ids.shape[1], -1) + torch.linspace(0, 1, first.shape[1])


def both_ways(count: int = 10) -> ClipBank:
    """Clips of two tokens and the same backwards, each with the foil that is true of the other."""
    forth = torch.randn(count, 2, 6, generator=source()).half()
    forth[:, 0, 1] += 9
    forth[:, 1, 2] += 9
    tokens = torch.cat([forth, forth.flip(1)])
    times = torch.arange(2.0, dtype=torch.float64).expand(2 * count, 2)
    words = [["1"]] * count + [["2"]] * count
    foils: list[str | None] = ["2"] * count + ["1"] * count
    return ClipBank(tokens, tokens, times, times + 1, words, foils, ["two"] * 2 * count)


def tokenize(texts: list[str]) -> Tensor:
    return torch.tensor([[5, int(text), 0] for text in texts])


def test_who_reads_no_times_is_right_half_the_time() -> None:
    assert order_read(Reader(False), both_ways(), tokenize)[0] == 0.5  # type: ignore[arg-type]


def test_who_reads_times_is_right() -> None:
    assert order_read(Reader(True), both_ways(), tokenize)[0] == 1.0  # type: ignore[arg-type]


def test_without_foils_order_cannot_be_judged() -> None:
    bank = both_ways(1)
    bank.foils[:] = [None, None]
    with pytest.raises(TrainingError, match="none of 2 clips has a foil"):
        order_read(Reader(True), bank, tokenize)  # type: ignore[arg-type]


# -- banks -----------------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    """Four tokens: the mean colours of the quarters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        tokens = functional.adaptive_avg_pool2d(pixels, 2).flatten(2).transpose(1, 2) * self.weight
        return tokens.mean(1), tokens


def photographs(seed: int = 0) -> Sentences:
    pictures = torch.randint(0, 256, (4, 24, 24, 3), dtype=torch.uint8, generator=source(seed))
    keys = [f"{seed}_{i}" for i in range(4)]
    return Sentences(pictures, [[f"a thing {i}"] for i in range(4)], keys, torch.ones(4, dtype=torch.bool))


def test_a_bank_is_made_once_and_again_where_its_facts_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    tower, path = Tower(), tmp_path / "clips.bank"

    def made(photos: Sentences | None, seed: int = 1, count: int = 3) -> ClipBank:
        return clip_bank(path, tower, photos, count, frames=4, size=24, seed=seed, tell=told.append)

    first = made(photographs())
    assert first.tokens.shape == (3, 16, 3)
    assert first.embedding.shape == (3, 4, 3)
    assert first.start_seconds.shape == first.end_seconds.shape == (3, 16)
    assert torch.equal(first.start_seconds[:, 0::4], first.start_seconds[:, 3::4])  # a frame's tokens share its span
    torch.testing.assert_close(first.tokens[:, :4].float().mean(1), first.embedding[:, 0].float(), atol=1e-2, rtol=1e-2)
    again = made(photographs())
    assert len(told) == 1
    assert torch.equal(again.tokens, first.tokens)
    assert (again.sentences, again.foils, again.kinds) == (first.sentences, first.foils, first.kinds)
    made(photographs(), seed=2)
    made(photographs(1), seed=2)
    made(None, seed=2)
    nn.init.constant_(tower.weight, 2)
    made(None, seed=2)
    monkeypatch.setattr(banks, "DRAWING", banks.DRAWING + 1)
    made(None, seed=2)
    assert len(told) == 6
    path.write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"clips\.bank cannot be read; delete it"):
        made(None, seed=2)


def test_the_first_view_of_a_photograph_is_as_it_is(tmp_path: Path) -> None:
    told: list[str] = []
    photos, tower = photographs(), Tower()
    bank = still_bank(tmp_path / "stills.bank", tower, photos, 3, 24, 0, told.append)
    assert bank.tokens.shape == (4, 3, 4, 3)
    assert bank.embedding.shape == (4, 3, 3)
    want = tower(plain(photos.pictures, 24))[1].detach()
    torch.testing.assert_close(bank.tokens[:, 0].float(), want, atol=0.02, rtol=0.02)
    assert not torch.equal(bank.tokens[:, 0], bank.tokens[:, 1])
    kept = still_bank(tmp_path / "stills.bank", tower, photos, 3, 24, 0, told.append)
    assert torch.equal(kept.tokens, bank.tokens)
    assert len(told) == 3
