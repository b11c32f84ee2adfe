"""What was said of a stream, to be told again when it looks the same: an external memory of fixed size.

Shapes: M moments kept, D width of the joint space.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.live.types import LiveCaption
from pipeline.media import Span

if TYPE_CHECKING:
    from encoders.streams import Earlier

__all__ = ["Moments"]


class Moments:
    """The last M captions of a stream, each with a vector of what was seen."""

    def __init__(self, most: int) -> None:
        self._kept: deque[tuple[npt.NDArray[np.float32], LiveCaption]] = deque(maxlen=most)

    @property
    def state_bytes(self) -> int:
        return sum(vector.nbytes + len(caption.text.encode()) for vector, caption in self._kept)

    def add(self, vector: npt.NDArray[np.float32], caption: LiveCaption) -> None:
        """Words for a window with this vector ``[D]``; such as extend the last words move their end."""
        if caption.extends and self._kept:
            seen, last = self._kept.pop()
            self._kept.append((seen, _longer(last, caption)))
        else:
            self._kept.append((vector, caption))

    def like(self, vector: npt.NDArray[np.float32], count: int) -> list[Earlier]:
        """The last words, and the others that were said of what looked most like ``vector [D]``: at most ``count`` in
        all, in order of time."""
        from encoders.streams import Earlier

        if not self._kept or count < 1:
            return []
        newest = len(self._kept) - 1
        nearness = np.stack([kept for kept, _ in self._kept]) @ vector
        chosen = [newest, *(int(i) for i in np.argsort(-nearness[:newest], kind="stable")[: count - 1])]
        captions = [self._kept[i][1] for i in sorted(chosen)]
        return [Earlier(one.text, one.span.start_seconds, one.span.end_seconds) for one in captions]


def _longer(last: LiveCaption, caption: LiveCaption) -> LiveCaption:
    return replace(last, span=Span(last.span.start_seconds, caption.span.end_seconds))
