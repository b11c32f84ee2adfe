"""The catalog: everything that a library knows, in SQL. The vector index is derived from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.catalog.catalog import Catalog as Catalog
    from pipeline.catalog.ids import part_id_for as part_id_for
    from pipeline.catalog.ids import segment_id_for as segment_id_for
    from pipeline.catalog.ids import vector_id_for as vector_id_for
    from pipeline.catalog.ids import video_id_for as video_id_for
    from pipeline.catalog.records import ErrorRecord as ErrorRecord
    from pipeline.catalog.records import ItemRecord as ItemRecord
    from pipeline.catalog.records import JobRecord as JobRecord
    from pipeline.catalog.records import PartRecord as PartRecord
    from pipeline.catalog.records import VectorRows as VectorRows
    from pipeline.catalog.records import VideoRecord as VideoRecord

_EXPORTS = {
    "Catalog": "pipeline.catalog.catalog",
    "ErrorRecord": "pipeline.catalog.records",
    "ItemRecord": "pipeline.catalog.records",
    "JobRecord": "pipeline.catalog.records",
    "PartRecord": "pipeline.catalog.records",
    "VectorRows": "pipeline.catalog.records",
    "VideoRecord": "pipeline.catalog.records",
    "part_id_for": "pipeline.catalog.ids",
    "segment_id_for": "pipeline.catalog.ids",
    "vector_id_for": "pipeline.catalog.ids",
    "video_id_for": "pipeline.catalog.ids",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        from importlib import import_module

        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
