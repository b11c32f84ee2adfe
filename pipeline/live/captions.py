"""Words for the complete windows of live streams: new ones where something new was seen, else the last ones hold on.

Where the captioner knows of streams (:class:`encoders.streams.CaptionsStreams`), the words before have a say too: while
the scene goes on they stand until others are likelier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from encoders.errors import EncoderError
from pipeline.digest import TokenOptions
from pipeline.live.digest import ClosedContent
from pipeline.live.moments import Moments
from pipeline.live.options import CaptionWindowOptions
from pipeline.live.types import ClosedWindow, LiveCaption
from pipeline.media import Span

if TYPE_CHECKING:
    from csat_fusion.tokens import TokenSet
    from encoders.captioning import Caption, Captioner, KeyFrame
    from encoders.streams import Earlier, StreamCaptioner

__all__ = ["LiveCaptioner", "WordsMissing"]

_JOIN_SECONDS = 0.5  # spans further apart than this are not one scene that goes on
_LEAST_SECONDS = 1e-3  # a window is seen whole, however short one looks back
_GOES_ON = ("limit", "news")  # boundaries at which the scene does not end


class WordsMissing(EncoderError):
    """Some windows of live streams got no words, for the reason in the message.

    ``made`` are the captions of those that did, and ``missing`` the stream and window number of the others.
    """

    def __init__(
        self, message: str, made: tuple[LiveCaption, ...] = (), missing: tuple[tuple[str, int], ...] = ()
    ) -> None:
        super().__init__(message, made, missing)  # all of it travels between processes
        self.made, self.missing = made, missing

    def __str__(self) -> str:
        return str(self.args[0])


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
        self._moments: dict[str, Moments] = {}

    @property
    def state_bytes(self) -> int:
        """What is kept of all streams between two calls."""
        moments = sum(one.state_bytes for one in self._moments.values())
        return moments + (0 if self._streams is None else self._streams.state_bytes)

    def caption(self, contents: Sequence[tuple[str, ClosedContent]]) -> list[LiveCaption]:
        """Captions of these windows, each stream's in order of time; none for a window that is too short, or for which
        the captioner has no words.

        Raises:
            WordsMissing: the captioner could not caption all of them; those that it has captioned are in the error.
        """
        captions: list[LiveCaption] = []
        missing: list[tuple[str, int]] = []
        failed: EncoderError | None = None
        left = list(contents)
        while left:  # a stream's windows come one after the other, those of several streams side by side
            first = {stream: number for number, (stream, _) in reversed(list(enumerate(left)))}
            made, without, error = self._side_by_side([left[number] for number in sorted(first.values())])
            left = [one for number, one in enumerate(left) if first[one[0]] != number]
            captions += made
            missing += without
            failed = failed or error
            if error is not None and not error.captions:  # nothing was answered: the rest would meet the same
                missing += [(stream, content.closed.index) for stream, content in left]
                break
        if failed is not None:
            raise WordsMissing(_why(failed), tuple(captions), tuple(missing)) from failed
        return captions

    def drop(self, stream: str) -> None:
        """Forget a stream."""
        self._last.pop(stream, None)
        self._before.pop(stream, None)
        self._moments.pop(stream, None)
        if self._streams is not None:
            self._streams.drop(stream)

    def _side_by_side(
        self, contents: Sequence[tuple[str, ClosedContent]]
    ) -> tuple[list[LiveCaption], list[tuple[str, int]], EncoderError | None]:
        """Of one window of each of some streams: captions, windows that were to have some and have none, and why."""
        cuts = {stream: self._is_cut(stream, content.closed) for stream, content in contents}
        self._before |= {stream: content.closed for stream, content in contents}
        asked = [
            (stream, content)
            for stream, content in contents
            if not self._goes_on(stream, content)
            and content.closed.span.duration_seconds >= self._options.least_seconds
            and content.looks
        ]
        found: Sequence[Caption | None] = [None] * len(asked)
        error: EncoderError | None = None
        try:
            found = self._words(asked, cuts) if asked else []
        except EncoderError as failed:
            error, found = failed, failed.captions or found
        words = {stream: one for (stream, _), one in zip(asked, found, strict=True)}
        captions = []
        for stream, content in contents:
            one = words.get(stream)
            last = self._last.get(stream)
            span, number = content.closed.span, content.closed.index
            caption: LiveCaption | None = None
            if one is not None and one.text:
                again = last is not None and one.text == last.text and _follows(last, span)
                caption = LiveCaption(stream, number, span, one.text, one.model, one.confidence, None, extends=again)
            elif stream not in words and last is not None and self._goes_on(stream, content):
                caption = LiveCaption(stream, number, span, last.text, last.model, last.confidence, None, extends=True)
            if caption is not None:
                self._last[stream] = caption
                self._remember(caption, content)
                captions.append(caption)
        missing = [(stream, content.closed.index) for stream, content in asked if words[stream] is None]
        return captions, missing, error

    def _words(self, asked: Sequence[tuple[str, ClosedContent]], cuts: Mapping[str, bool]) -> list[Caption]:
        spans = [(content.closed.span.start_seconds, content.closed.span.end_seconds) for _, content in asked]
        sets = [self._token_set(content) for _, content in asked]
        frames = [self._key_frames(content) for _, content in asked]
        if self._streams is None:
            return self._captioner.caption(sets, spans=spans, key_frames=frames)
        from encoders.streams import StreamPush

        return self._streams.push(
            [
                StreamPush(stream, tokens, span, cuts[stream], shown, self._earlier(stream, content))
                for (stream, content), tokens, span, shown in zip(asked, sets, spans, frames, strict=True)
            ]
        )

    def _earlier(self, stream: str, content: ClosedContent) -> Sequence[Earlier]:
        moments = self._moments.get(stream)
        return () if moments is None else moments.like(content.vector, self._options.earlier)

    def _remember(self, caption: LiveCaption, content: ClosedContent) -> None:
        if self._options.earlier:
            moments = self._moments.setdefault(caption.stream, Moments(self._options.remembered))
            moments.add(content.vector, caption)

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

    if not isinstance(captioner, CaptionsStreams):
        return None
    return captioner.streams(
        StreamingOptions(
            max(options.back_seconds, _LEAST_SECONDS), gap_seconds=tokens.gap_seconds, margin=options.margin
        )
    )


def _why(error: EncoderError) -> str:
    return f"{type(error).__name__}: {error}"


def _follows(last: LiveCaption, span: Span) -> bool:
    return abs(span.start_seconds - last.span.end_seconds) <= _JOIN_SECONDS
