"""How a trained model is judged: retrieval both ways, captions, and whether it reads order.

Shapes: C clips, U unlike sentences, L text tokens, d width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scripts.comparing.data import Clips, given
from scripts.comparing.model import Compared, tokenizer

__all__ = ["FIGURES", "judge", "objective", "recalls"]

_AT_ONCE = 50
_TIE = 1e-6
_TOP = (1, 5, 10)
FIGURES = {
    **{f"t2c_r{k}": f"text to clip R@{k}" for k in _TOP},
    **{f"c2t_r{k}": f"clip to text R@{k}" for k in _TOP},
    "bleu4": "BLEU-4",
    "cider": "CIDEr",
    "order": "order",
}


def recalls(scores: Tensor, right: Tensor) -> dict[int, float]:
    """Percent of queries with a right answer among the first 1, 5 and 10: ``scores`` and ``right`` ``[Q, K]``.

    A query may have several right answers (a sentence that is true of two clips): the best placed counts, and the
    others do not stand in its way. A wrong one with an equal score comes first.
    """
    own = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    rank = 1 + ((scores >= own - _TIE) & ~right).sum(1)
    return {k: 100 * float((rank <= k).float().mean()) for k in _TOP}


@torch.no_grad()
def judge(model: Compared, clips: Clips, method: str) -> dict[str, float]:
    """All of ``FIGURES``, in percent, on clips that were not learnt from."""
    from encoders.captioning import Wording
    from encoders.openclip.generation import Marks, write
    from pipeline.evaluation.captions import caption_scores

    texts = clips.texts
    ids = {int(number): row for number, row in zip(texts.number, range(len(texts.ids)), strict=True)}
    unlike = texts.ids[[ids[number] for number in range(len(ids))]]
    written = torch.cat([model.coca.text(part)[0] for part in unlike.split(256)])
    words = tokenizer(texts.ids.shape[1])
    # ids of marks and filling are open_clip's
    marks = Marks(words.sot_token_id, words.eot_token_id, never=(0,))
    seen, captions = [], []
    for chosen in torch.arange(len(clips)).split(_AT_ONCE):
        visual = model.prepared(given(clips, method, model.rows, chosen))
        seen.append(model.pool(visual))
        said = write(model.decoder, visual, marks, Wording(method="greedy", no_repeat_ngram=0))
        captions += [words.decode(one.ids).strip() for one in said]
    cosines = nn.functional.normalize(written, dim=1) @ nn.functional.normalize(torch.cat(seen), dim=1).T
    right = torch.zeros(cosines.shape, dtype=torch.bool)
    right[texts.number, texts.owner] = True
    scores = caption_scores(captions, clips.bank.sentences)
    return {
        **{f"t2c_r{k}": value for k, value in recalls(cosines, right).items()},
        **{f"c2t_r{k}": value for k, value in recalls(cosines.T, right.T).items()},
        "bleu4": scores.bleu[3],
        "cider": scores.cider,
        "order": order(model, clips, method),
    }


def order(model: Compared, clips: Clips, method: str) -> float:
    """Percent of clips whose true sentence is likelier than its foil, which is true of the clip backwards."""
    with_foil = [i for i, foil in enumerate(clips.bank.foils) if foil is not None]
    if not with_foil:
        return 50.0
    words = tokenizer(clips.texts.ids.shape[1])
    true = words([clips.bank.sentences[i][0] for i in with_foil])
    false = words([clips.bank.foils[i] or "" for i in with_foil])
    right = []
    at = torch.tensor(with_foil)
    for part in torch.arange(len(at)).split(_AT_ONCE):
        visual = model.prepared(given(clips, method, model.rows, at[part]))
        right.append(_loss_each(model, visual, true[part]) < _loss_each(model, visual, false[part]))
    return 100 * float(torch.cat(right).float().mean())


@torch.no_grad()
def objective(model: Compared, clips: Clips, method: str) -> float:
    """What training makes small, without smoothing, on clips held out: rates are chosen by it."""
    first = clips.texts.first[:-1]
    total = 0.0
    for chosen in torch.arange(len(clips)).split(_AT_ONCE):
        visual = model.prepared(given(clips, method, model.rows, chosen))
        ids, groups = clips.texts.ids[first[chosen]], clips.texts.number[first[chosen]]
        latents = model.coca.text(ids)[0]
        total += len(chosen) * float(_loss_each(model, visual, ids).mean())
        total += len(chosen) * float(matched(model, visual, latents, groups, smoothing=0.0))
    return total / len(clips)


def matched(model: Compared, visual: Any, latents: Tensor, groups: Tensor, smoothing: float) -> Tensor:
    """Contrastive loss of clips and texts; those with equal sentences belong together."""
    from scripts.training.words import WordsOptions, matching_loss

    options = WordsOptions(smoothing=smoothing)
    return matching_loss(model.pool(visual), latents, model.coca.logit_scale, groups, groups, options)


def _loss_each(model: Compared, visual: Any, ids: Tensor) -> Tensor:
    """Mean loss of each sentence's tokens, ``[B]``."""
    logits = model.decoder.logits(visual, ids[:, :-1]).float()
    each = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=0, reduction="none")
    return each.sum(1) / (ids[:, 1:] > 0).sum(1)
