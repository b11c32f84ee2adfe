"""Compressed-sensing attention and token compression: a library of its own, on torch.

Names are loaded when first used, so that importing the package costs nothing. The host tables of ``ward`` and ``runs``
need numpy, files need safetensors; everything else torch alone.

>>> from csat_fusion import make_compressor, weighted_attention
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import CompressionError, LongreelError

if TYPE_CHECKING:
    from csat_fusion.attention.base import ATTENTIONS, AttentionMap, CrossAttention, make_attention
    from csat_fusion.attention.casa import CASAFusion
    from csat_fusion.attention.csat import csat_attention
    from csat_fusion.attention.csat_module import CSATCrossAttention
    from csat_fusion.attention.weighted import weighted_attention
    from csat_fusion.compressors.base import Compressor, make_compressor
    from csat_fusion.compressors.batched import ward_assignment
    from csat_fusion.compressors.budget import Cosine, Ratio, parse_budget
    from csat_fusion.compressors.runs import merge_runs
    from csat_fusion.compressors.sharing import share_budget
    from csat_fusion.compressors.table import COMPRESSORS
    from csat_fusion.dictionaries.base import DICTIONARIES, Dictionary, make_dictionary
    from csat_fusion.fitting import Fitted, fit, load_fitted
    from csat_fusion.measurements.base import MEASUREMENTS, Measurement, make_measurement
    from csat_fusion.measurements.merging import MergingMeasurement
    from csat_fusion.measurements.quality import mutual_coherence, restricted_isometry
    from csat_fusion.memory.adaptive import AdaptiveMemory
    from csat_fusion.memory.base import MEMORIES, make_memory
    from csat_fusion.memory.sketch import SketchMemory
    from csat_fusion.recovery.base import RECOVERIES, Recovered, recover
    from csat_fusion.recovery.lista import LISTA
    from csat_fusion.tokens import TokenSet

__all__ = [
    "ATTENTIONS",
    "COMPRESSORS",
    "DICTIONARIES",
    "LISTA",
    "MEASUREMENTS",
    "MEMORIES",
    "RECOVERIES",
    "AdaptiveMemory",
    "AttentionMap",
    "CASAFusion",
    "CSATCrossAttention",
    "CompressionError",
    "Compressor",
    "Cosine",
    "CrossAttention",
    "Dictionary",
    "Fitted",
    "LongreelError",
    "Measurement",
    "MergingMeasurement",
    "Ratio",
    "Recovered",
    "SketchMemory",
    "TokenSet",
    "csat_attention",
    "fit",
    "load_fitted",
    "make_attention",
    "make_compressor",
    "make_dictionary",
    "make_measurement",
    "make_memory",
    "merge_runs",
    "mutual_coherence",
    "parse_budget",
    "recover",
    "restricted_isometry",
    "share_budget",
    "ward_assignment",
    "weighted_attention",
]

_NAMES = {
    "attention.base": ("ATTENTIONS", "AttentionMap", "CrossAttention", "make_attention"),
    "attention.casa": ("CASAFusion",),
    "attention.csat": ("csat_attention",),
    "attention.csat_module": ("CSATCrossAttention",),
    "attention.weighted": ("weighted_attention",),
    "compressors.base": ("Compressor", "make_compressor"),
    "compressors.batched": ("ward_assignment",),
    "compressors.budget": ("Cosine", "Ratio", "parse_budget"),
    "compressors.runs": ("merge_runs",),
    "compressors.sharing": ("share_budget",),
    "compressors.table": ("COMPRESSORS",),
    "dictionaries.base": ("DICTIONARIES", "Dictionary", "make_dictionary"),
    "fitting": ("Fitted", "fit", "load_fitted"),
    "measurements.base": ("MEASUREMENTS", "Measurement", "make_measurement"),
    "measurements.merging": ("MergingMeasurement",),
    "measurements.quality": ("mutual_coherence", "restricted_isometry"),
    "memory.adaptive": ("AdaptiveMemory",),
    "memory.base": ("MEMORIES", "make_memory"),
    "memory.sketch": ("SketchMemory",),
    "recovery.base": ("RECOVERIES", "Recovered", "recover"),
    "recovery.lista": ("LISTA",),
    "tokens": ("TokenSet",),
}
_HOME = {name: f"csat_fusion.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
