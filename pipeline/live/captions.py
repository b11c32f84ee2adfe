"""Words for the complete windows of live streams: new ones where something new was seen, else the last ones hold on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.digest import TokenOptions
from pipeline.live.digest import ClosedContent
from pipeline.live.options import CaptionWindowOptions
from pipeline.live.types import LiveCaption
from pipeline.media import Span

if TYPE_CHECKING:
    from csat_fusion.tokens import TokenSet
    from encoders.captioning import Captioner, KeyFrame

__all__ = ["LiveCaptioner"]

_JOIN_SECONDS = 0.5  # spans further apart than this are not one scene that goes on


class LiveCaptioner:
    """One captioner for any number of streams; of each it remembers its last words and where they end.

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

    def caption(self, contents: Sequence[tuple[str, ClosedContent]]) -> list[LiveCaption]:
        """Captions of these windows, each stream's in order of time; none for a window that is too short, or for which
        the captioner has no words.

        Raises:
            EncoderError: the captioner cannot caption.
        """
        asked = [
            (stream, content)
            for stream, content in contents
            if not self._goes_on(stream, content)
            and content.closed.span.duration_seconds >= self._options.least_seconds
            and content.looks
        ]
        words = {}
        if asked:
            found = self._captioner.caption(
                [self._token_set(content) for _, content in asked],
                spans=[(c.closed.span.start_seconds, c.closed.span.end_seconds) for _, c in asked],
                key_frames=[self._key_frames(content) for _, content in asked],
            )
            words = {id(content): one for (_, content), one in zip(asked, found, strict=True)}
        captions = []
        for stream, content in contents:
            one = words.get(id(content))
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

    def drop(self, stream: str) -> None:
        """Forget a stream."""
        self._last.pop(stream, None)

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


def _follows(last: LiveCaption, span: Span) -> bool:
    return abs(span.start_seconds - last.span.end_seconds) <= _JOIN_SECONDS
