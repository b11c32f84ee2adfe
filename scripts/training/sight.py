"""First stage: the image tower learns to name what it sees.

Labelled photographs by cross-entropy over their classes; photographs with sentences by the words that those use, a soft
target over a bag of words (Joulin, van der Maaten, Jabri, Vasilache, "Learning Visual Features from Large Weakly
Supervised Data", 2015, arXiv 1511.02251). It is by far the cheapest way to features that can then be matched with text.

Shapes: B pictures, K classes, W words.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from scripts.training.augment import augmented, plain
from scripts.training.loop import Chance, TrainingError
from scripts.training.photographs import Labelled, Sentences

__all__ = ["SightOptions", "SightStage"]

_COMMON = {
    "a",
    "an",
    "the",
    "is",
    "are",
    "in",
    "on",
    "of",
    "and",
    "with",
    "to",
    "at",
    "it",
    "its",
    "his",
    "her",
    "by",
    "for",
    "as",
    "that",
}


@dataclass(frozen=True)
class SightOptions:
    """Pictures of each kind in a batch, the side of the pictures in the first part of training and after it."""

    labelled: int = 128
    sentences: int = 40
    first_side: int = 48
    side: int = 64
    first_part: float = 0.4
    smoothing: float = 0.1
    fewest: int = 5


class _Sight(nn.Module):
    """The image tower's feature map, pooled, under two linear heads."""

    def __init__(self, tower: nn.Module, channels: int, classes: int, words: int) -> None:
        super().__init__()
        self.tower = tower
        self.classes = nn.Linear(channels, classes)
        self.words = nn.Linear(channels, words)

    def forward(self, pixels: Tensor) -> Tensor:
        pooled: Tensor = self.tower.forward_features(pixels).mean((2, 3))  # type: ignore[operator]
        return pooled


class SightStage:
    """See the module; ``steps`` is needed to know when the pictures grow.

    Figures: ``named`` and ``spoken`` are the two losses, ``right`` the share of a batch named right, ``top1`` that of
    the validation split.

    Raises:
        TrainingError: where the validation split shows other classes than the training split.
    """

    name = "sight"

    def __init__(
        self,
        tower: nn.Module,
        labelled: Labelled,
        sentences: Sentences,
        labelled_check: Labelled,
        sentences_check: Sentences,
        steps: int,
        options: SightOptions,
    ) -> None:
        self.options, self.steps = options, steps
        self.labelled, self.sentences = labelled, sentences
        self.labelled_check, self.sentences_check = labelled_check, sentences_check
        if labelled_check.names != labelled.names:
            differ = sorted({each[0] for each in labelled.names} ^ {each[0] for each in labelled_check.names})
            raise TrainingError(f"splits train and val of the labelled packs show other classes: {differ[:5]}")
        counts = Counter(word for texts in sentences.sentences for word in set(_words(texts)))
        self.vocabulary = sorted(word for word, count in counts.items() if count >= options.fewest)
        self.bags = self._bags(sentences)
        with torch.no_grad():
            channels = tower.forward_features(torch.zeros(1, 3, 32, 32)).shape[1]  # type: ignore[operator]
        self.network = _Sight(tower, channels, len(labelled.names), len(self.vocabulary))

    def loss(self, step: int, chance: Chance) -> tuple[Tensor, dict[str, float]]:
        options = self.options
        side = options.first_side if step < options.first_part * self.steps else options.side
        some = torch.randint(len(self.labelled.classes), (options.labelled,), generator=chance.torch)
        told = torch.randint(len(self.sentences.pictures), (options.sentences,), generator=chance.torch)
        pixels = torch.cat(
            [
                augmented(self.labelled.pictures[some], side, chance.torch, aspect=(0.75, 1.33)),
                augmented(self.sentences.pictures[told], side, chance.torch, flip=self.sentences.flip[told]),
            ]
        )
        device = next(self.network.parameters()).device
        with torch.autocast(device.type, torch.bfloat16):
            pooled = self.network(pixels.to(device))
            classes = self.network.classes(pooled[: len(some)]).float()
            words = self.network.words(pooled[len(some) :]).float()
        target = self.labelled.classes[some].to(device)
        named = functional.cross_entropy(classes, target, label_smoothing=options.smoothing)
        spoken = -(self.bags[told].to(device) * words.log_softmax(1)).sum(1).mean()
        right = (classes.argmax(1) == target).float().mean()
        return named + 0.5 * spoken, {"named": named.item(), "spoken": spoken.item(), "right": right.item()}

    def check(self, network: nn.Module) -> dict[str, float]:
        side, device = self.options.side, next(network.parameters()).device
        right = [
            network.classes(network(plain(part, side).to(device))).argmax(1).cpu() == classes  # type: ignore[operator]
            for part, classes in zip(
                self.labelled_check.pictures.split(256), self.labelled_check.classes.split(256), strict=True
            )
        ]
        bags, spoken = self._bags(self.sentences_check), []
        for part, bag in zip(self.sentences_check.pictures.split(256), bags.split(256), strict=True):
            words = network.words(network(plain(part, side).to(device))).log_softmax(1).cpu()  # type: ignore[operator]
            spoken.append(-(bag * words).sum(1))
        return {"top1": torch.cat(right).float().mean().item(), "spoken": torch.cat(spoken).mean().item()}

    def _bags(self, sentences: Sentences) -> Tensor:
        """For each picture how its words share one unit, ``[n, W]``."""
        index = {word: i for i, word in enumerate(self.vocabulary)}
        bags = torch.zeros(len(sentences.sentences), len(self.vocabulary))
        for row, texts in zip(bags, sentences.sentences, strict=True):
            for word in _words(texts):
                if word in index:
                    row[index[word]] += 1
        return bags / bags.sum(1, keepdim=True).clamp(min=1)


def _words(texts: list[str]) -> list[str]:
    return [word for text in texts for word in re.findall(r"[a-z]+", text) if word not in _COMMON]
