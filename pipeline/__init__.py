"""The pipeline: sources to moments. Exports load on use, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.ingest import IngestOptions, ItemResult
    from pipeline.library import Library
    from pipeline.search import Moment, SearchOptions

__all__ = ["IngestOptions", "ItemResult", "Library", "Moment", "SearchOptions"]

_WHERE = {
    "IngestOptions": "pipeline.ingest",
    "ItemResult": "pipeline.ingest",
    "Library": "pipeline.library",
    "Moment": "pipeline.search",
    "SearchOptions": "pipeline.search",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
