"""Second stage: pictures and sentences meet in one space, and the decoder learns to write what a picture shows.

Contrastive learning with several right answers (a picture has five sentences, a class many pictures), its targets
smoothed; captioning through open_clip's own CoCa decoder (J. Yu and others, "CoCa: Contrastive Captioners are
Image-Text Foundation Models", 2022, arXiv 2205.01917). The first stage's task goes on beside both, at a small weight,
so that what was learnt there stays.

Shapes: B pictures, N texts, L text tokens, D width of the joint space, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scripts.training.augment import augmented, plain
from scripts.training.drawn import drawn_pictures
from scripts.training.loop import Chance
from scripts.training.photographs import Labelled, Sentences
from scripts.training.sight import SightStage
from scripts.training.wording import label_sentence

__all__ = ["WordsOptions", "WordsStage", "caption_loss", "matching_loss", "noisy", "retrieval_figures"]

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class WordsOptions:
    """Pictures of each kind in a batch, sides in pixels, and the weights of the parts of the loss.

    ``noise`` is the share of text tokens replaced by others drawn by chance, in what is read, not in what is written.
    """

    sentences: int = 112
    labelled: int = 40
    drawn: int = 24
    drawn_bank: int = 6000
    first_side: int = 64
    side: int = 96
    first_part: float = 0.35
    smoothing: float = 0.1
    noise: float = 0.1
    matching: float = 1.0
    captions: float = 1.0
    sight: float = 0.3
    highest_scale: float = 50.0


class _Words(nn.Module):
    """The whole model, and the heads of the first stage."""

    def __init__(self, model: nn.Module, classes: nn.Module, words: nn.Module) -> None:
        super().__init__()
        self.model, self.classes, self.words = model, classes, words


class WordsStage:
    """See the module. ``sight`` is the first stage with its heads trained, whose tower is that of ``model``.

    Figures: ``matching``, ``written``, ``named`` and ``spoken`` are the parts of the loss, ``scale`` the factor on
    cosines; on the validation split ``written`` without smoothing, and recall in percent.
    """

    name = "words"

    def __init__(
        self,
        model: nn.Module,
        sight: SightStage,
        labelled: Labelled,
        sentences: Sentences,
        check: Sentences,
        tokenize: Tokenizer,
        steps: int,
        seed: int,
        options: WordsOptions,
    ) -> None:
        self.options, self.steps, self.tokenize = options, steps, tokenize
        self.labelled, self.sentences, self.checked = labelled, sentences, check
        self.network = _Words(model, sight.network.classes, sight.network.words)
        self.bags = sight.bags
        self.ids = tokenize([text for texts in sentences.sentences for text in texts]).view(
            len(sentences.sentences), -1, model.context_length
        )
        pictures, texts = drawn_pictures(options.drawn_bank, options.side, np.random.default_rng([seed, 1]))
        self.drawn, self.drawn_texts = torch.from_numpy(pictures), texts
        self.drawn_ids = tokenize(texts)
        self.drawn_flip = torch.tensor([not ("left" in text or "right" in text) for text in texts])
        numbers: dict[str, int] = {}
        self.drawn_groups = torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts])

    def loss(self, step: int, chance: Chance) -> tuple[Tensor, dict[str, float]]:
        options, generator = self.options, chance.torch
        side = options.first_side if step < options.first_part * self.steps else options.side
        told = torch.randint(len(self.sentences.pictures), (options.sentences,), generator=generator)
        some = torch.randint(len(self.labelled.classes), (options.labelled,), generator=generator)
        drawn = torch.randint(len(self.drawn), (options.drawn,), generator=generator)
        names = [self.labelled.names[int(k)] for k in self.labelled.classes[some]]
        label_ids = self.tokenize([label_sentence(one, chance.numpy) for one in names])
        pixels = torch.cat(
            [
                augmented(self.sentences.pictures[told], side, generator, flip=self.sentences.flip[told]),
                augmented(self.drawn[drawn], side, generator, flip=self.drawn_flip[drawn], area=(0.9, 1.0), colour=0.1),
                augmented(self.labelled.pictures[some], side, generator, aspect=(0.75, 1.33)),
            ]
        )
        which = torch.rand(len(told), self.ids.shape[1], generator=generator).argsort(1)[:, :2]
        first, second = self.ids[told, which[:, 0]], self.ids[told, which[:, 1]]
        texts = torch.cat([first, self.drawn_ids[drawn], label_ids, second])
        written = len(told) + len(drawn)  # labels teach no sentences
        # pictures and texts of one group belong together: the photograph, the drawing's sentence, the class
        many = 10**6
        groups = torch.cat([told, self.drawn_groups[drawn] + many, self.labelled.classes[some] + 2 * many])
        text_groups = torch.cat([groups, told])

        network: Any = self.network
        device = network.model.logit_scale.device
        read = noisy(texts, options.noise, network.model, generator).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            features = network.model.visual.trunk.forward_features(pixels.to(device))
            images = network.model.visual.trunk.forward_head(features)
            latents, words = network.model.text(read)
            tokens = network.model.visual.trunk.tokens(features[:written])
            logits = network.model.text_decoder(tokens, words[:written, :-1])
            pooled = features.mean((2, 3))
            classes = network.classes(pooled[written:]).float()
            bag = network.words(pooled[: len(told)]).float()
        matching = matching_loss(
            images, latents, network.model.logit_scale, groups.to(device), text_groups.to(device), options
        )
        written_loss = caption_loss(logits, texts[:written].to(device), options.smoothing)
        named = functional.cross_entropy(classes, self.labelled.classes[some].to(device), label_smoothing=0.1)
        spoken = -(self.bags[told].to(device) * bag.log_softmax(1)).sum(1).mean()
        loss = options.matching * matching + options.captions * written_loss + options.sight * (named + 0.5 * spoken)
        parts = {"matching": matching, "written": written_loss, "named": named, "spoken": spoken}
        figures = {key: value.item() for key, value in parts.items()}
        return loss, {**figures, "scale": network.model.logit_scale.exp().item()}

    def check(self, network: nn.Module) -> dict[str, float]:
        model: Any = network.model
        device = model.logit_scale.device
        images, written = [], []
        ids = self.tokenize([texts[0] for texts in self.checked.sentences])
        latents = []
        for part, own in zip(self.checked.pictures.split(125), ids.split(125), strict=True):
            embedding, tokens = model.visual(plain(part, self.options.side).to(device))
            latent, words = model.text(own.to(device))
            written.append(caption_loss(model.text_decoder(tokens, words[:, :-1]), own.to(device), 0.0))
            images.append(embedding)
            latents.append(latent)
        figures = retrieval_figures(torch.cat(images), torch.cat(latents))
        return {**figures, "written": torch.stack(written).mean().item()}


def noisy(ids: Tensor, share: float, model: Any, generator: torch.Generator) -> Tensor:
    """Token ids with a share of them replaced by others; never the marks of start and end nor the filling."""
    size = model.text.token_embedding.num_embeddings
    chosen = (torch.rand(ids.shape, generator=generator) < share) & (ids > 0) & (ids < size - 2)
    return torch.where(chosen, torch.randint(1, size - 2, ids.shape, generator=generator), ids)


def matching_loss(
    images: Tensor, texts: Tensor, scale: Tensor, image_groups: Tensor, text_groups: Tensor, options: WordsOptions
) -> Tensor:
    """Contrastive loss, both ways, of images ``[B, D]`` and texts ``[N, D]``: those of one group belong together.

    The right ones share the target equally, less ``smoothing``, which all share.
    """
    cosines = functional.normalize(images.float(), dim=1) @ functional.normalize(texts.float(), dim=1).T
    logits = cosines * scale.exp().clamp(max=options.highest_scale)
    right = (image_groups[:, None] == text_groups[None]).float()
    losses = []
    for scores, target in ((logits, right), (logits.T, right.T)):
        target = target / target.sum(1, keepdim=True)
        target = target * (1 - options.smoothing) + options.smoothing / target.shape[1]
        losses.append(-(target * scores.log_softmax(1)).sum(1).mean())
    return 0.5 * (losses[0] + losses[1])


def caption_loss(logits: Tensor, ids: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of each next token: ``logits [B, L - 1, V]`` of ``ids [B, L]``, which are filled up with 0."""
    return functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0, label_smoothing=smoothing
    )


def retrieval_figures(images: Tensor, texts: Tensor) -> dict[str, float]:
    """Recall at 1 and 10 in percent, text to image and image to text, where row i of both belong together."""
    cosines = functional.normalize(texts.float(), dim=1) @ functional.normalize(images.float(), dim=1).T
    figures = {}
    for name, scores in (("t2i", cosines), ("i2t", cosines.T)):
        rank = (scores > scores.diagonal()[:, None]).sum(1)
        for k in (1, 10):
            figures[f"{name}_r{k}"] = 100 * (rank < k).float().mean().item()
    return figures
