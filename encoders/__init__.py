"""Model adapters: frames, pictures and text into one space.

Exports load on use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.base import (
        Encoder,
        EncoderInfo,
        FrameTokens,
        LoadOptions,
        ModelCard,
        ModelDescription,
        ModelEntry,
        Progress,
    )
    from encoders.registry import describe_model, fetch_model, list_models, load_encoder, require_model

__all__ = [
    "Encoder",
    "EncoderInfo",
    "FrameTokens",
    "LoadOptions",
    "ModelCard",
    "ModelDescription",
    "ModelEntry",
    "Progress",
    "describe_model",
    "fetch_model",
    "list_models",
    "load_encoder",
    "require_model",
]

_HOME = dict.fromkeys(
    ("describe_model", "fetch_model", "list_models", "load_encoder", "require_model"), "encoders.registry"
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'encoders' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "encoders.base")), name)
