"""Compressed-sensing attention and token compression: a library of its own, torch and numpy only.

Names are loaded when first used, so that importing the package costs nothing.

>>> from csat_fusion import make_compressor, weighted_attention
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import CompressionError, LongreelError

if TYPE_CHECKING:
    from csat_fusion.attention.weighted import weighted_attention
    from csat_fusion.compressors.base import COMPRESSORS, Compressor, make_compressor
    from csat_fusion.compressors.frames import IdentityCompressor, UniformCompressor
    from csat_fusion.compressors.runs import RunCompressor, merge_runs
    from csat_fusion.tokens import TokenSet
    from csat_fusion.compressors.ward import WardCompressor

__all__ = [
    "COMPRESSORS",
    "CompressionError",
    "Compressor",
    "IdentityCompressor",
    "LongreelError",
    "RunCompressor",
    "TokenSet",
    "UniformCompressor",
    "WardCompressor",
    "make_compressor",
    "merge_runs",
    "weighted_attention",
]

_HOME = {
    "COMPRESSORS": "csat_fusion.compressors.base",
    "Compressor": "csat_fusion.compressors.base",
    "IdentityCompressor": "csat_fusion.compressors.frames",
    "RunCompressor": "csat_fusion.compressors.runs",
    "TokenSet": "csat_fusion.tokens",
    "UniformCompressor": "csat_fusion.compressors.frames",
    "WardCompressor": "csat_fusion.compressors.ward",
    "make_compressor": "csat_fusion.compressors.base",
    "merge_runs": "csat_fusion.compressors.runs",
    "weighted_attention": "csat_fusion.attention.weighted",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
