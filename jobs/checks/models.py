"""The model cache: where it is, what lies in it, and whether the network may be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jobs.checks.base import Check, Context, bad, good, size_text, warn

__all__ = ["check_models"]

_SWITCHES = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def check_models(_context: Context) -> Iterator[Check]:
    from encoders import describe_model, list_models
    from encoders.openclip.hub import cache_folder
    from jobs.checks.disk import folder_bytes
    from jobs.settings import DEFAULT_MODEL

    folder = Path(cache_folder())
    here = len(list_models(downloaded_only=True))
    yield good("model cache", f"{folder}, {size_text(folder_bytes(folder))}, {here} of the named models are here")
    yield _bundled()
    # An endpoint may hold credentials, so only that it is set is told.
    switches = [f"{name}={_shown(name)}" for name in _SWITCHES if os.environ.get(name)]
    offline = any(os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off") for name in _SWITCHES[-2:])
    yield good(
        "model network", f"{'forbidden' if offline else 'allowed'}; {', '.join(switches) or 'no HF_* variable set'}"
    )
    if describe_model(DEFAULT_MODEL).downloaded:
        yield good("default model", f"{DEFAULT_MODEL}, its weights are here")
    elif offline:
        advice = (
            "copy a cache that has it here and name it in HF_HOME, name a local model with --model, or go on with "
            "--model tiny, which comes with Longreel (longreel models show tiny)"
        )
        yield warn("default model", f"{DEFAULT_MODEL}: its weights are not here, and the network is forbidden", advice)
    else:
        advice = (
            f"the first use downloads it, or now: longreel models fetch {DEFAULT_MODEL}; without a network "
            "--model tiny goes, which comes with Longreel"
        )
        yield warn("default model", f"{DEFAULT_MODEL}: its weights are not here", advice)


def _bundled() -> Check:
    """Whether the model that comes with Longreel is whole."""
    from encoders import fetch_model
    from encoders.errors import EncoderError

    try:
        fetch_model("tiny")
    except EncoderError as error:
        return bad("bundled model", f"tiny: {error}", "install Longreel again")
    return good("bundled model", "tiny comes with Longreel, its files are whole")


def _shown(name: str) -> str:
    return "(set)" if name == "HF_ENDPOINT" else os.environ[name]
