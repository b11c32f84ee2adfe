"""From scores to sentences: greedy choice, beam search, nucleus sampling, and the best of several samples.

Beam search keeps the K likeliest beginnings; finished ones are compared by their log-probability over their length to a
power, as in Y. Wu and others, "Google's Neural Machine Translation System", 2016, arXiv 1609.08144 (there with five
words added to the length). Nucleus sampling: A. Holtzman and others, "The Curious Case of Neural Text Degeneration",
2019, arXiv 1904.09751. No n-gram twice: R. Paulus and others, "A Deep Reinforced Model for Abstractive Summarization",
2017, arXiv 1705.04304. A sentence that has used up its length is ended where it is.

Shapes: B windows, K beams of each, N = B * K rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoders.captioning import Wording
from encoders.errors import EncoderError, EncoderOptionError
from encoders.openclip.bestof import attention_scores
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.stepping import Steps
from encoders.openclip.visual import VisualTokens

__all__ = ["Marks", "Written", "write"]


@dataclass(frozen=True)
class Marks:
    """Text tokens that are no words: ``start``, ``end``, and ``never``, which are not written at all (padding)."""

    start: int
    end: int
    never: tuple[int, ...] = ()


@dataclass(frozen=True)
class Written:
    """A sentence: ``ids`` without marks; ``log_probability`` is the mean of its tokens', the end mark's among them."""

    ids: tuple[int, ...]
    log_probability: float

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities."""
        return math.exp(self.log_probability)


@torch.inference_mode()
def write(decoder: CocaDecoder, visual: VisualTokens, marks: Marks, wording: Wording | None = None) -> list[Written]:
    """A sentence for each of B windows.

    Raises:
        EncoderError: the model gives no finite scores for a window.
    """
    wording = wording or Wording()
    room = decoder.context_length - 1  # the start mark is given
    most = min(wording.most_tokens or room, room - 1)
    if most < max(1, wording.least_tokens):
        raise EncoderOptionError(
            f"least_tokens {wording.least_tokens} does not fit into a context of {decoder.context_length} text tokens"
        )
    visual = visual.to(decoder.device, decoder.dtype)
    if wording.method == "beam" and wording.beams > 1:
        return _beam_search(decoder, visual, marks, wording, most)
    if wording.method == "best-of":
        drawn = _one_by_one(decoder, visual, marks, wording, most, wording.samples)
        scores = attention_scores(decoder, visual, [one.ids for one in drawn], marks.start)
        best = scores.total([one.log_probability for one in drawn]).view(len(visual), -1).argmax(dim=1).tolist()
        return [drawn[window * wording.samples + place] for window, place in enumerate(best)]
    return _one_by_one(decoder, visual, marks, wording, most)


@dataclass
class _Row:
    """A beginning: its tokens and the sum of their log-probabilities."""

    ids: list[int] = field(default_factory=list)
    total: float = 0.0

    def ended(self, total: float) -> Written:
        """The sentence that this is with the end mark, which makes the sum ``total``."""
        return Written(tuple(self.ids), total / (len(self.ids) + 1))


def _one_by_one(
    decoder: CocaDecoder, visual: VisualTokens, marks: Marks, wording: Wording, most: int, each: int = 1
) -> list[Written]:
    """Greedy choice and sampling: ``each`` rows a window, side by side; each draws by a seed of its own."""
    steps = Steps(decoder, visual, each)
    rows = [_Row() for _ in range(len(visual) * each)]
    done: dict[int, Written] = {}
    chances = [torch.Generator().manual_seed((wording.seed * each + i % each) % 2**63) for i in range(len(rows))]
    last = [marks.start] * len(rows)
    for count in range(most + 1):
        given = _scores(steps, last, decoder)
        allowed = _allowed(given, rows, marks, wording, count == most)
        for i, row in enumerate(rows):
            if i in done:
                continue
            sampled = wording.method in ("nucleus", "best-of")
            chosen = _drawn(allowed[i], wording, chances[i]) if sampled else int(allowed[i].argmax())
            total = row.total + float(given[i, chosen])
            if chosen == marks.end:
                done[i] = row.ended(total)
            else:
                rows[i] = _Row([*row.ids, chosen], total)
                last[i] = chosen
        if len(done) == len(rows):
            break
    return [done[i] for i in range(len(rows))]


def _beam_search(
    decoder: CocaDecoder, visual: VisualTokens, marks: Marks, wording: Wording, most: int
) -> list[Written]:
    k, windows = wording.beams, len(visual)
    steps = Steps(decoder, visual, k)
    rows = [_Row() for _ in range(windows * k)]
    alive = [1] * windows  # all beams are equal at first: one is enough
    found: list[list[tuple[float, Written]]] = [[] for _ in range(windows)]
    going = set(range(windows))
    last = [marks.start] * len(rows)
    for count in range(most + 1):
        given = _scores(steps, last, decoder)
        allowed = _allowed(given, rows, marks, wording, count == most)
        come_from, following = list(range(len(rows))), list(rows)
        for window in sorted(going):
            first = window * k
            totals = torch.stack([allowed[first + i] + rows[first + i].total for i in range(alive[window])])
            best = totals.flatten().topk(min(2 * k, totals.numel()))
            kept = 0
            for rank, (total, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                if total == -math.inf or kept == k:
                    break
                beam, token = first + place // totals.shape[1], place % totals.shape[1]
                if token != marks.end:
                    come_from[first + kept], following[first + kept] = beam, _Row([*rows[beam].ids, token], total)
                    kept += 1
                elif rank < k:  # further down, K others are better
                    score = total / (len(rows[beam].ids) + 1) ** wording.length_penalty
                    found[window].append((score, rows[beam].ended(total)))
            alive[window] = kept
            if not kept or _settled(found[window], following[first : first + kept], k, wording):
                going.remove(window)
        if not going:
            break
        rows = following
        last = [row.ids[-1] if row.ids else marks.start for row in rows]
        steps.reorder(torch.tensor(come_from, device=decoder.device))
    # of equals the one that came first
    return [max(sentences, key=lambda one: one[0])[1] for sentences in found]


def _settled(found: list[tuple[float, Written]], going: Sequence[_Row], k: int, wording: Wording) -> bool:
    """There are K sentences, and no beginning, were it to end now at no cost, would be better than the K-th."""
    if len(found) < k:
        return False
    least = sorted((score for score, _ in found), reverse=True)[k - 1]
    return all(row.total / (len(row.ids) + 1) ** wording.length_penalty <= least for row in going)


def _scores(steps: Steps, last: list[int], decoder: CocaDecoder) -> Tensor:
    """Log-probabilities ``[N, V]`` on the CPU."""
    given = steps.next(torch.tensor(last, device=decoder.device)).cpu()
    if not bool(torch.isfinite(given).all()):
        raise EncoderError(f"the model gives scores that are not finite at text token {steps.length}")
    return given


def _allowed(given: Tensor, rows: Sequence[_Row], marks: Marks, wording: Wording, only_end: bool) -> Tensor:
    """``given``, with ``-inf`` for what may not be written; where that is everything, the end mark is left."""
    allowed = torch.full_like(given, -math.inf) if only_end else given.clone()
    never = [token for token in (marks.start, *marks.never) if token < given.shape[1]]
    allowed[:, never] = -math.inf
    for i, row in enumerate(rows):
        if len(row.ids) < wording.least_tokens:
            allowed[i, marks.end] = -math.inf
        allowed[i, _again(row.ids, wording.no_repeat_ngram)] = -math.inf
    nothing = (allowed == -math.inf).all(dim=-1)
    allowed[nothing, marks.end] = given[nothing, marks.end]
    return allowed


def _again(ids: list[int], n: int) -> list[int]:
    """Tokens that would repeat a run of n that is in ``ids`` already; none where n is 0."""
    if not n or len(ids) < n:
        return []
    last = ids[len(ids) - n + 1 :]
    return [ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == last]


def _drawn(allowed: Tensor, wording: Wording, chance: torch.Generator) -> int:
    """A token from the likeliest ones that hold ``top_p`` of the probability."""
    likely = (allowed / wording.temperature).softmax(dim=-1)
    values, order = likely.sort(descending=True, stable=True)
    values = torch.where(values.cumsum(dim=-1) - values < wording.top_p, values, 0.0)
    return int(order[torch.multinomial(values, 1, generator=chance)])
