"""Compressed-sensing attention and token compression: a library of its own, torch and numpy only.

Names are loaded when first used, so that importing the package costs nothing.

>>> from csat_fusion import make_compressor, weighted_attention
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import CompressionError, LongreelError

if TYPE_CHECKING:
    from csat_fusion.attention import weighted_attention
    from csat_fusion.compressor import COMPRESSORS, Compressor, make_compressor
    from csat_fusion.rivals import IdentityCompressor, UniformCompressor
    from csat_fusion.runs import RunCompressor, merge_runs
    from csat_fusion.tokens import TokenSet
    from csat_fusion.ward import WardCompressor

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
    "COMPRESSORS": "csat_fusion.compressor",
    "Compressor": "csat_fusion.compressor",
    "IdentityCompressor": "csat_fusion.rivals",
    "RunCompressor": "csat_fusion.runs",
    "TokenSet": "csat_fusion.tokens",
    "UniformCompressor": "csat_fusion.rivals",
    "WardCompressor": "csat_fusion.ward",
    "make_compressor": "csat_fusion.compressor",
    "merge_runs": "csat_fusion.runs",
    "weighted_attention": "csat_fusion.attention",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
