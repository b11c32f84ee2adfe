"""Codecs: a tiny video of each is made and read back by every decoder, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.checks.base import Check, Context, bad, good, warn
from pipeline.errors import DecoderCrashed, DecoderHung
from pipeline.isolation import Isolated
from pipeline.sources.opening import DECODERS
from pipeline.sources.selftest import CODECS, CodecTrial

__all__ = ["check_codecs", "judge"]

_STALL_SECONDS = 60.0
_NAMES = {"decord": "decord", "pyav": "PyAV"}


def check_codecs(_context: Context) -> Iterator[Check]:
    with Isolated() as child:
        for codec in CODECS:
            trials = []
            # Each decoder alone, so that a crash is laid to the right one.
            for decoder in DECODERS:
                trials.append(_try(child, codec, decoder))
            failures = {name: text for trial in trials for name, text in trial.failures.items()}
            yield judge(CodecTrial(codec, trials[0].encoder, failures))


def _try(child: Isolated, codec: str, decoder: str) -> CodecTrial:
    try:
        trial: CodecTrial
        (trial,) = child.stream(
            "pipeline.sources.selftest:try_codec", codec, (decoder,), stall_seconds=_STALL_SECONDS, label=codec
        )
    except (DecoderCrashed, DecoderHung) as error:
        return CodecTrial(codec, "", {decoder: str(error)})
    return trial


def judge(trial: CodecTrial) -> Check:
    """What a trial means for a person."""
    if trial.encoder is None:
        return good(trial.codec, "not tried: PyAV has no encoder for it here")
    if not trial.failures:
        return good(trial.codec, " and ".join(_NAMES.get(name, name) for name in DECODERS))
    said = "; ".join(f"{_NAMES.get(name, name)}: {text}" for name, text in trial.failures.items())
    if set(trial.failures) == set(DECODERS):
        return bad(trial.codec, said, "such videos cannot be read: pip install --force-reinstall av decord2")
    if "pyav" in trial.failures:
        return bad(trial.codec, said, "parts of long videos are read by PyAV: pip install --force-reinstall av")
    return warn(trial.codec, said, "PyAV reads such videos in its place, a little slower")
