"""A captioner for tests of batch jobs; what it does is told by environment variables, which Ray's workers inherit."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, CaptionerOptions
from encoders.errors import EncoderError
from tests.encoders.cocas import Teller

DIE_ONCE = "LONGREEL_TEST_DIE_ONCE"  # a file: the captioner's process kills itself where that is not there yet
NO_WORDS_FROM = "LONGREEL_TEST_NO_WORDS_FROM"  # seconds: segments that begin later meet an error


class _Batch(Teller):
    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        **options: Any,
    ) -> list[Caption]:
        once = os.environ.get(DIE_ONCE)
        if once and not Path(once).exists():
            Path(once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        limit = float(os.environ.get(NO_WORDS_FROM, "inf"))
        if any(span is not None and span[0] >= limit for span in spans or ()):
            raise EncoderError(f"no words from {limit:g} s on")
        return super().caption(token_sets, spans=spans, **options)


def teller(options: CaptionerOptions) -> Teller:
    """Reads tokens of its own: videos are read again for it."""
    made = _Batch(options)
    made.info = replace(made.info, name="python:tests.jobs.telling:teller")
    return made
