"""Captions of streams from states that do not grow: the merged tokens of a bounded window, and the last words.

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

Shapes: B streams side by side, m tokens of a window, M the most, d width, L text tokens.
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
from encoders.errors import EncoderInputError
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.generation import Marks, Written, write
from encoders.openclip.visual import VisualTokens, padded
from encoders.streams import StreamingOptions, StreamPush, check_streams

__all__ = ["StreamingCaptioner"]

_BATCH = 16  # streams that are captioned side by side
_COLUMNS = {"weight": torch.float32, "start_seconds": torch.float64, "end_seconds": torch.float64, "patch": torch.int64}


class _State:
    """All that is kept of a stream, at its full size from the beginning."""

    def __init__(self, most: int, width: int, length: int) -> None:
        self._tokens = torch.zeros(most, width)
        self._columns = {column: torch.zeros(most, dtype=dtype) for column, dtype in _COLUMNS.items()}
        self._last = torch.zeros(length, dtype=torch.int64)
        self._count = 0  # of the tokens that are there
        self._length = 0  # of the last sentence; 0: there is none
        self.end = -math.inf

    @property
    def bytes(self) -> int:
        return sum(part.untyped_storage().nbytes() for part in (self._tokens, *self._columns.values(), self._last))

    @property
    def window(self) -> TokenSet | None:
        if not self._count:
            return None
        return TokenSet(
            self._tokens[: self._count].clone(),
            **{column: part[: self._count].clone() for column, part in self._columns.items()},
        )

    @window.setter
    def window(self, window: TokenSet) -> None:
        self._count = len(window)
        self._tokens[: self._count] = window.tokens
        for column, part in self._columns.items():
            part[: self._count] = getattr(window, column)

    @property
    def last(self) -> tuple[int, ...]:
        return tuple(self._last[: self._length].tolist())

    @last.setter
    def last(self, ids: Sequence[int]) -> None:
        self._length = len(ids)
        self._last[: self._length] = torch.tensor(ids, dtype=torch.int64)

    def forget(self) -> None:
        """Time still goes forward."""
        self._count = self._length = 0


@dataclass(frozen=True, eq=False)
class _Checked:
    push: StreamPush
    tokens: TokenSet
    state: _State


class StreamingCaptioner:
    """Captions any number of streams by one decoder: a :class:`encoders.streams.StreamCaptioner`.

    Args:
        decoder: reads tokens of width d.
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
        self._states: dict[str, _State] = {}

    @property
    def state_bytes(self) -> int:
        return sum(state.bytes for state in self._states.values())

    def window(self, stream: str) -> TokenSet | None:
        """What the stream's last caption was about; ``None`` before the first."""
        state = self._states.get(stream)
        return None if state is None else state.window

    def push(self, pushes: Sequence[StreamPush]) -> list[Caption]:
        checked = self._checked(pushes)
        captions = []
        for start in range(0, len(checked), _BATCH):
            captions += self._pushed(checked[start : start + _BATCH])
        return captions

    def drop(self, stream: str) -> None:
        self._states.pop(stream, None)

    def _checked(self, pushes: Sequence[StreamPush]) -> list[_Checked]:
        check_streams(pushes)
        checked = []
        for push in pushes:
            state = self._states.get(push.stream)
            if state is None:
                state = _State(self._options.budget, self._decoder.width, self._decoder.context_length)
            checked.append(_Checked(push, self._tokens_of(push, state), state))
        self._states |= {one.push.stream: one.state for one in checked}
        return checked

    def _tokens_of(self, push: StreamPush, state: _State) -> TokenSet:
        (start, end), tokens = push.span, push.token_set
        if tokens is None:
            raise EncoderInputError(f"there is no token set of {push.stream}; {self._name} reads nothing else")
        if not -math.inf < start < end < math.inf:
            raise EncoderInputError(f"a span must be finite and end after it starts, got {tuple(push.span)}")
        if start < state.end - 1e-6:
            raise EncoderInputError(f"a span must not begin before the last one ended, at {state.end} s: got {start} s")
        if tokens.width != self._decoder.width:
            raise EncoderInputError(f"{self._name} reads tokens of width {self._decoder.width}, got {tokens.width}")
        if not bool(torch.isfinite(tokens.tokens).all()):
            raise EncoderInputError("the token set holds a token that is not finite")
        if not tokens.span[0] < end or not tokens.span[1] > start:
            raise EncoderInputError(f"the token set is of {tokens.span} s, and not of the span {tuple(push.span)}")
        return tokens

    def _pushed(self, checked: Sequence[_Checked]) -> list[Caption]:
        windows, spans = [], []
        for one in checked:
            window, span = self._moved_on(one)
            windows.append(window)
            spans.append(span)
        visual = padded(windows, spans).to(self._decoder.device, self._decoder.dtype)
        chosen = self._chosen(visual, [one.state.last for one in checked])
        captions = []
        for one, written in zip(checked, chosen, strict=True):
            one.state.last = written.ids
            start, end = one.push.span
            captions.append(Caption(self._words(written.ids), start, end, self._name, written.confidence))
        return captions

    def _moved_on(self, one: _Checked) -> tuple[TokenSet, tuple[float, float]]:
        """The stream's window with the push, merged down to the budget, and the span that it is read in."""
        push, state = one.push, one.state
        start, end = push.span
        if push.cut:
            state.forget()
        back = min(end - self._options.window_seconds, start)
        new = one.tokens.to(device="cpu", dtype=torch.float32)
        held = state.window
        if held is not None:
            new = _joined(held, new)
        ((window, _),) = share_budget(
            [_cut_off(new, back)], self._options.budget, gap_seconds=self._options.gap_seconds
        )
        state.window = window
        state.end = end
        return window, (max(back, min(window.span[0], start)), end)

    def _chosen(self, visual: VisualTokens, last: Sequence[tuple[int, ...]]) -> list[Written]:
        """New words for each window, or its last ones where those are as likely."""
        new = write(self._decoder, visual, self._marks, self._wording)
        if not any(last):
            return new
        old = self._log_probabilities(visual, last)
        chosen = []
        for written, ids, likely in zip(new, last, old, strict=True):
            stays = ids and ids != written.ids and written.log_probability <= likely + self._options.margin
            chosen.append(Written(ids, likely) if stays else written)
        return chosen

    @torch.inference_mode()
    def _log_probabilities(self, visual: VisualTokens, sentences: Sequence[tuple[int, ...]]) -> list[float]:
        """The mean over each sentence and its end mark, as :func:`encoders.openclip.generation.write` has it."""
        longest = max(len(ids) for ids in sentences)
        rows = torch.full((len(sentences), longest + 2), self._marks.end)
        for row, ids in zip(rows, sentences, strict=True):
            row[: len(ids) + 2] = torch.tensor([self._marks.start, *ids, self._marks.end])
        rows = rows.to(self._decoder.device)
        # A text token sees none of those that come after it, so what a shorter sentence is filled up with has no say.
        given: Tensor = self._decoder.logits(visual, rows[:, :-1]).float().log_softmax(dim=-1)
        each = given.gather(-1, rows[:, 1:, None])[..., 0].cpu()
        return [float(row[: len(ids) + 1].mean()) for row, ids in zip(each, sentences, strict=True)]


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
