"""Sources: what may be named, what a file is, and its frames. Nothing heavy is imported until it is used.

``probe``, ``fingerprint`` and ``redact`` are imported from the modules of the same names: a package cannot hold both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.sources.base import Source
    from pipeline.sources.manifest import SourceItem, read_manifest
    from pipeline.sources.naming import find_sources
    from pipeline.sources.opening import DECODERS, choose_decoder, open_source
    from pipeline.sources.redact import is_remote, redact_text
    from pipeline.sources.remote import localize
    from pipeline.sources.writing import write_video

__all__ = [
    "DECODERS",
    "Source",
    "SourceItem",
    "choose_decoder",
    "find_sources",
    "is_remote",
    "localize",
    "open_source",
    "read_manifest",
    "redact_text",
    "write_video",
]

_WHERE = {
    "DECODERS": "opening",
    "Source": "base",
    "SourceItem": "manifest",
    "choose_decoder": "opening",
    "find_sources": "naming",
    "is_remote": "redact",
    "localize": "remote",
    "open_source": "opening",
    "read_manifest": "manifest",
    "redact_text": "redact",
    "write_video": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
