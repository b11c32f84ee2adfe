"""Words for the complete windows of live streams: new ones where something new was seen, else the last ones hold on.

Where the captioner knows of streams (:class:`encoders.streams.CaptionsStreams`), the words before have a say too: while
the scene goes on they stand until others are likelier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.digest import TokenOptions
from pipeline.live.digest import ClosedContent
from pipeline.live.options import CaptionWindowOptions
from pipeline.live.types import ClosedWindow, LiveCaption
from pipeline.media import Span

if TYPE_CHECKING:
    from csat_fusion.tokens import TokenSet
    from encoders.captioning import Caption, Captioner, KeyFrame
    from encoders.streams import StreamCaptioner

__all__ = ["LiveCaptioner"]

_JOIN_SECONDS = 0.5  # spans further apart than this are not one scene that goes on
_LEAST_SECONDS = 1e-3  # a window is seen whole, however short one looks back
_GOES_ON = ("limit", "news")  # boundaries at which the scene does not end


class LiveCaptioner:
    """One captioner for any number of streams; of each it remembers its last words, where they end, and what the
    captioner itself keeps, which does not grow.

    Args:
        encoder_fingerprint: of the model that made the windows' token sets: where the captioner reads others, it looks
            at the windows' pictures itself.
        tokens: how its own tokens are compressed then.
    """

    def __init__(
        self,
        captioner: Captioner,
        encoder_fingerprint: str,
        options: CaptionWindowOptions,
        tokens: TokenOptions,
    ) -> None:
        self._captioner = captioner
        self._options = options
        self._tokens = tokens
        self._own = captioner.info.reads != encoder_fingerprint
        self._last: dict[str, LiveCaption] = {}
        self._before: dict[str, ClosedWindow] = {}  # the last window of each stream that came here
        self._streams = _streams_of(captioner, options, tokens)

    @property
    def state_bytes(self) -> int:
        """What the captioner keeps of all streams between two calls."""
        return 0 if self._streams is None else self._streams.state_bytes

    def caption(self, contents: Sequence[tuple[str, ClosedContent]]) -> list[LiveCaption]:
        """Captions of these windows, each stream's in order of time; none for a window that is too short, or for which
        the captioner has no words.

        Raises:
            EncoderError: the captioner cannot caption.
        """
        captions: list[LiveCaption] = []
        left = list(contents)
        while left:  # a stream's windows come one after the other, those of several streams side by side
            first = {stream: number for number, (stream, _) in reversed(list(enumerate(left)))}
            captions += self._side_by_side([left[number] for number in sorted(first.values())])
            left = [one for number, one in enumerate(left) if first[one[0]] != number]
        return captions

    def drop(self, stream: str) -> None:
        """Forget a stream."""
        self._last.pop(stream, None)
        self._before.pop(stream, None)
        if self._streams is not None:
            self._streams.drop(stream)

    def _side_by_side(self, contents: Sequence[tuple[str, ClosedContent]]) -> list[LiveCaption]:
        """Of one window of each of some streams."""
        cuts = {stream: self._is_cut(stream, content.closed) for stream, content in contents}
        self._before |= {stream: content.closed for stream, content in contents}
        asked = [
            (stream, content)
            for stream, content in contents
            if not self._goes_on(stream, content)
            and content.closed.span.duration_seconds >= self._options.least_seconds
            and content.looks
        ]
        words = dict(zip([stream for stream, _ in asked], self._words(asked, cuts), strict=True))
        captions = []
        for stream, content in contents:
            one = words.get(stream)
            last = self._last.get(stream)
            span, number = content.closed.span, content.closed.index
            caption: LiveCaption | None = None
            if one is not None and one.text:
                again = last is not None and one.text == last.text and _follows(last, span)
                caption = LiveCaption(stream, number, span, one.text, one.model, one.confidence, None, extends=again)
            elif one is None and last is not None and self._goes_on(stream, content):
                caption = LiveCaption(stream, number, span, last.text, last.model, last.confidence, None, extends=True)
            if caption is not None:
                self._last[stream] = caption
                captions.append(caption)
        return captions

    def _words(self, asked: Sequence[tuple[str, ClosedContent]], cuts: Mapping[str, bool]) -> list[Caption]:
        if not asked:
            return []
        spans = [(content.closed.span.start_seconds, content.closed.span.end_seconds) for _, content in asked]
        sets = [self._token_set(content) for _, content in asked]
        if self._streams is None:
            frames = [self._key_frames(content) for _, content in asked]
            return self._captioner.caption(sets, spans=spans, key_frames=frames)
        from encoders.streams import StreamPush

        pushes = []
        for (stream, _), tokens, span in zip(asked, sets, spans, strict=True):
            assert tokens is not None  # one that knows of streams reads token sets
            pushes.append(StreamPush(stream, tokens, span, cuts[stream]))
        return self._streams.push(pushes)

    def _is_cut(self, stream: str, closed: ClosedWindow) -> bool:
        """Another scene than that of the last window of the stream; or nobody knows, as those in between were
        skipped."""
        before = self._before.get(stream)
        return before is None or before.index + 1 != closed.index or before.boundary not in _GOES_ON

    def _goes_on(self, stream: str, content: ClosedContent) -> bool:
        """Nothing new was seen, and there are words for what is still seen."""
        last = self._last.get(stream)
        return content.closed.still and last is not None and _follows(last, content.closed.span)

    def _token_set(self, content: ClosedContent) -> TokenSet | None:
        if self._captioner.info.key_frames:
            return None
        if not self._own:
            return content.tokens
        from csat_fusion import make_compressor

        options = self._tokens
        compressor = make_compressor(options.compressor, options.budget, gap_seconds=options.gap_seconds)
        tokens = self._captioner.tokens(np.stack([look.image for look in content.looks]))
        for look, own in zip(content.looks, tokens, strict=True):
            compressor.update(own, look.start_seconds, look.end_seconds)
        return compressor.result()

    def _key_frames(self, content: ClosedContent) -> Sequence[KeyFrame]:
        from encoders.captioning import cover

        count = self._captioner.info.key_frames
        return cover(content.looks, count) if count else ()


def _streams_of(captioner: Captioner, options: CaptionWindowOptions, tokens: TokenOptions) -> StreamCaptioner | None:
    from encoders.streams import CaptionsStreams, StreamingOptions

    if not isinstance(captioner, CaptionsStreams) or captioner.info.key_frames:
        return None
    return captioner.streams(
        StreamingOptions(
            max(options.back_seconds, _LEAST_SECONDS), gap_seconds=tokens.gap_seconds, margin=options.margin
        )
    )


def _follows(last: LiveCaption, span: Span) -> bool:
    return abs(span.start_seconds - last.span.end_seconds) <= _JOIN_SECONDS
