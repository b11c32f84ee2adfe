"""Captioners for tests of batch jobs; what they do is told by environment variables, which Ray's workers inherit."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from csat_fusion.tokens import TokenSet
from encoders import load_encoder
from encoders.captioning import Caption, CaptionerOptions
from encoders.errors import EncoderError
from tests.encoders.cocas import Teller

DIE_ONCE = "LONGREEL_TEST_DIE_ONCE"  # a file: the captioner's process kills itself where that is not there yet
NO_WORDS_FROM = "LONGREEL_TEST_NO_WORDS_FROM"  # seconds: segments that begin later meet an error
READS = "LONGREEL_TEST_READS"  # name of the model whose token sets are read


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


class _Reader(Teller):
    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        **options: Any,
    ) -> list[Caption]:
        assert all(one is not None for one in token_sets)
        return [Caption("Words", *(span or (0, 1)), self.info.name, None) for span in spans or ()]


def teller(options: CaptionerOptions) -> Teller:
    """Reads tokens of its own: videos are read again for it."""
    made = _Batch(options)
    made.info = replace(made.info, name="python:tests.jobs.telling:teller")
    return made


def reader(options: CaptionerOptions) -> Teller:
    """Reads the token sets of a model of the library."""
    with load_encoder(os.environ[READS], device="cpu", precision="fp32", batch_size=8) as encoder:
        made = _Reader(options, encoder.info.fingerprint)
    made.info = replace(made.info, name="python:tests.jobs.telling:reader")
    return made
