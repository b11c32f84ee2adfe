"""The table of encoders by scheme, and the functions that the rest of Longreel calls.

A new family of models is one module with a ``Provider`` and one line in :data:`ENCODERS`. Models that come with
Longreel have names without a scheme, in :data:`BUNDLED`.
"""

from __future__ import annotations

import difflib
import importlib
from typing import cast

from encoders.base import Encoder, LoadOptions, ModelDescription, ModelEntry, ProgressCallback, Provider
from encoders.errors import EncoderOptionError, UnknownModel

__all__ = [
    "BUNDLED",
    "ENCODERS",
    "PRECISIONS",
    "describe_model",
    "fetch_model",
    "list_models",
    "load_encoder",
    "require_model",
]

# scheme -> "module:factory of a Provider"; imported on use, because most of them bring torch and a model library.
ENCODERS: dict[str, str] = {
    "openclip": "encoders.openclip.provider:OpenClipProvider",
    "python": "encoders.python_door:PythonProvider",
}

# name -> "module:factory of a Provider", which gets the whole name
BUNDLED: dict[str, str] = {"tiny": "encoders.bundled.provider:BundledProvider"}

PRECISIONS = ("auto", "fp32", "bf16", "bf16-autocast", "fp16")


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 0,
    seed: int = 0,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> Encoder:
    """Load the encoder ``name``: ``tiny`` or ``openclip:ViT-B-32/laion2b_s34b_b79k``, say, or with random weights
    ``openclip:ViT-B-32/random``.

    ``device``: ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda``, ``cuda:1``. ``precision``: ``auto`` measures
    at the start and keeps fp32 where low precision is no faster or does not agree. ``batch_size`` in frames, 0 chooses.
    ``seed`` is that of ``random`` weights. ``threads``: cores to encode with on a CPU, 0 for all.

    Raises:
        EncoderOptionError: for an option outside what is allowed.
        UnknownModel: for a name that no table knows; near names are given.
        WeightsUnavailable, WeightsDamaged, WeightsMismatch, PreprocessMismatch, DeviceUnavailable, OutOfDeviceMemory.
    """
    if precision not in PRECISIONS:
        raise EncoderOptionError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    for option, value in (("batch_size", batch_size), ("seed", seed), ("threads", threads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise EncoderOptionError(f"{option} must be a whole number of at least 0, got {value!r}")
    provider, rest = _provider(name)
    return provider.load(rest, LoadOptions(device, precision, batch_size, seed, threads, progress))


def list_models(downloaded_only: bool = False) -> list[ModelEntry]:
    """Every model that has a name of its own, sorted by name; no weights are loaded and no network is used."""
    providers = dict.fromkeys((*BUNDLED.values(), *ENCODERS.values()))
    entries = [entry for provider in providers for entry in _load_provider(provider).models()]
    return sorted((e for e in entries if e.downloaded or not downloaded_only), key=lambda e: e.name)


def describe_model(name: str) -> ModelDescription:
    """What is known of the model ``name`` without loading its weights.

    Raises:
        UnknownModel, WeightsUnavailable (a local file that is not there), PreprocessMismatch.
    """
    provider, rest = _provider(name)
    return provider.describe(rest)


def fetch_model(name: str, progress: ProgressCallback | None = None) -> str:
    """Bring the weights of ``name`` into the cache and check them; return their path ("" where there are none).

    Raises:
        UnknownModel, WeightsUnavailable, WeightsDamaged.
    """
    provider, rest = _provider(name)
    return provider.fetch(rest, progress)


def require_model(name: str, progress: ProgressCallback | None = None, *, download: bool = True) -> None:
    """See that the weights of ``name`` are here, without reading them; where they are not, bring them into the cache,
    or (``download`` false) see that they can be had. The hub has to answer within ten seconds.

    Raises:
        UnknownModel; WeightsUnavailable: they are neither here nor to be had; the message names the ways on.
    """
    provider, rest = _provider(name)
    provider.require(rest, progress, download=download)


def _provider(name: str) -> tuple[Provider, str]:
    if not isinstance(name, str):
        raise UnknownModel(f"a model's name is text such as openclip:ViT-B-32/random, got {type(name).__name__}")
    if name in BUNDLED:
        return _load_provider(BUNDLED[name]), name
    scheme, colon, rest = name.partition(":")
    if not colon or not rest:
        near = difflib.get_close_matches(name.lower(), BUNDLED, n=1)
        hint = f"openclip:{name}" if "/" in name and not colon else near[0] if near else ""
        raise UnknownModel(
            f"model {name!r}: no model of that name comes with Longreel, only {', '.join(BUNDLED)}; all others are "
            f"SCHEME:NAME, such as openclip:ViT-B-32/laion2b_s34b_b79k{f'; did you mean {hint}?' if hint else ''}"
        )
    if scheme not in ENCODERS:
        near = difflib.get_close_matches(scheme, ENCODERS, n=1)
        hint = f"; did you mean {near[0]}:{rest}?" if near else ""
        raise UnknownModel(f"model {name!r}: no encoders are named {scheme!r}, there are {', '.join(ENCODERS)}{hint}")
    return _load_provider(ENCODERS[scheme]), rest


def _load_provider(path: str) -> Provider:
    module, _, factory = path.partition(":")
    return cast(Provider, getattr(importlib.import_module(module), factory)())
