"""Third stage: the decoder learns to read token sets over time.

It attends through CSAT cross-attention to the merged tokens of all frames of a clip, with their times, and writes what
happens and in which order; photographs go on beside the clips so that stills are not forgotten. The image tower is
fixed: its tokens come from a bank. The text tower goes on learning, held to the same pictures.

Shapes: B clips or photographs, n tokens of a clip, P of a photograph, D width, L text tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.visual import VisualTokens
from scripts.training.bank import ClipBank, StillBank
from scripts.training.loop import Chance, TrainingError
from scripts.training.words import WordsOptions, caption_loss, matching_loss, noisy, retrieval_figures

__all__ = ["VideoOptions", "VideoStage", "clip_tokens", "order_read", "set_budget"]


@dataclass(frozen=True)
class VideoOptions:
    """Clips and photographs in a batch, numbers of tokens to merge clips to (one for each batch), weights of losses."""

    clips: int = 56
    stills: int = 72
    budgets: tuple[int, ...] = (36, 72, 144)
    check_budget: int = 72
    smoothing: float = 0.1
    noise: float = 0.1
    clip_weight: float = 1.0
    still_weight: float = 0.7
    matching: float = 0.7


class _Video(nn.Module):
    """What learns: text tower and caption decoder. The decoder object holds the model with all of it."""

    def __init__(self, decoder: CocaDecoder) -> None:
        super().__init__()
        self.decoder = decoder


class VideoStage:
    """See the module; the model's cross-attentions are replaced in place, with the same weights."""

    name = "video"

    def __init__(
        self,
        model: nn.Module,
        clips: ClipBank,
        stills: StillBank,
        clips_check: ClipBank,
        stills_check: StillBank,
        tokenize: Callable[[list[str]], Tensor],
        options: VideoOptions,
    ) -> None:
        self.options, self.tokenize = options, tokenize
        self.clips, self.stills = clips, stills
        self.clips_check, self.stills_check = clips_check, stills_check
        decoder = CocaDecoder(model, attention="csat", budget=max(options.budgets))
        decoder.model.visual.requires_grad_(False)
        self.network = _Video(decoder)
        self.still_ids = tokenize([text for texts in stills.sentences for text in texts]).view(
            len(stills.sentences), -1, decoder.context_length
        )

    def loss(self, step: int, chance: Chance) -> tuple[Tensor, dict[str, float]]:
        options, generator, network = self.options, chance.torch, self.network
        decoder: CocaDecoder = network.decoder
        model: Any = decoder.model
        device = decoder.device
        some = torch.randint(len(self.clips), (options.clips,), generator=generator)
        texts = [self.clips.sentences[int(i)] for i in some]
        clip_ids = self.tokenize([each[int(chance.numpy.integers(len(each)))] for each in texts])
        told = torch.randint(len(self.stills.tokens), (options.stills,), generator=generator)
        view = torch.randint(self.stills.tokens.shape[1], (options.stills,), generator=generator)
        which = torch.rand(options.stills, self.still_ids.shape[1], generator=generator).argsort(1)[:, :2]
        first, second = self.still_ids[told, which[:, 0]], self.still_ids[told, which[:, 1]]
        ids = torch.cat([clip_ids, first, second])
        set_budget(decoder, options.budgets[int(chance.numpy.integers(len(options.budgets)))])
        with torch.autocast(device.type, torch.bfloat16):
            latents, words = model.text(noisy(ids, options.noise, model, generator).to(device))
            seen = clip_tokens(self.clips, some, device)
            moving = decoder.read(seen, words[: len(some), :-1])
            photographs = VisualTokens(self.stills.tokens[told, view].float().to(device))
            still = decoder.read(photographs, words[len(some) : len(some) + len(told), :-1])
        clip_loss = caption_loss(moving, clip_ids.to(device), options.smoothing)
        still_loss = caption_loss(still, first.to(device), options.smoothing)
        images = self.stills.embedding[told, view].float().to(device)
        pair = told.repeat(2).to(device)
        matching = matching_loss(
            images,
            latents[len(some) :],
            model.logit_scale,
            told.to(device),
            pair,
            WordsOptions(smoothing=options.smoothing),
        )
        loss = options.clip_weight * clip_loss + options.still_weight * still_loss + options.matching * matching
        return loss, {"moving": clip_loss.item(), "still": still_loss.item(), "matching": matching.item()}

    def check(self, network: nn.Module) -> dict[str, float]:
        decoder: CocaDecoder = network.decoder  # type: ignore[assignment]
        model: Any = decoder.model
        device = decoder.device
        set_budget(decoder, self.options.check_budget)
        stills = self.stills_check
        ids = self.tokenize([texts[0] for texts in stills.sentences])
        latents, written = [], []
        for part, tokens in zip(ids.split(100), stills.tokens[:, 0].split(100), strict=True):
            latent, words = model.text(part.to(device))
            logits = decoder.read(VisualTokens(tokens.float().to(device)), words[:, :-1])
            written.append(caption_loss(logits, part.to(device), 0.0))
            latents.append(latent)
        figures = retrieval_figures(stills.embedding[:, 0].float().to(device), torch.cat(latents))
        right, losses = order_read(decoder, self.clips_check, self.tokenize)
        figures |= {"written": torch.stack(written).mean().item(), "moving": losses, "order": 100 * right}
        return figures


def clip_tokens(bank: ClipBank, chosen: Tensor, device: torch.device) -> VisualTokens:
    """The raw tokens of some clips, as the decoder takes them."""
    return VisualTokens(
        bank.tokens[chosen].float().to(device),
        None,
        bank.start_seconds[chosen].to(device),
        bank.end_seconds[chosen].to(device),
        None,
        bank.span[chosen].to(device),
    )


def set_budget(decoder: CocaDecoder, budget: int) -> None:
    """How many tokens a clip is merged to from now on."""
    for block in decoder.model.text_decoder.cross_attn:
        block.attn.budget = budget


@torch.no_grad()
def order_read(decoder: CocaDecoder, bank: ClipBank, tokenize: Callable[[list[str]], Tensor]) -> tuple[float, float]:
    """How often the true sentence of a clip is likelier than its foil, and the mean loss of the true ones.

    Chance is a half; a model that does not read time cannot do better where a bank holds as many clips one way as the
    other.

    Raises:
        TrainingError: where no clip of the bank has a foil.
    """
    device = decoder.device
    scores: list[list[Tensor]] = [[], []]
    with_foil = torch.tensor([i for i, foil in enumerate(bank.foils) if foil is not None], dtype=torch.long)
    if not len(with_foil):
        raise TrainingError(f"none of {len(bank)} clips has a foil: order cannot be judged; make more clips")
    foils = [bank.foils[int(i)] or "" for i in with_foil]
    for kind, texts in enumerate(([bank.sentences[int(i)][0] for i in with_foil], foils)):
        ids = tokenize(texts)
        for chosen, own in zip(with_foil.split(100), ids.split(100), strict=True):
            own = own.to(device)
            logits = decoder.logits(clip_tokens(bank, chosen, device), own[:, :-1]).float()
            each = nn.functional.cross_entropy(logits.transpose(1, 2), own[:, 1:], ignore_index=0, reduction="none")
            scores[kind].append(each.sum(1) / (own[:, 1:] > 0).sum(1))
    true, false = (torch.cat(part) for part in scores)
    return (true < false).float().mean().item(), true.mean().item()
