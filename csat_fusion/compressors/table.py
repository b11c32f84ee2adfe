"""The compressors by name. Nothing is loaded before one is made, so a name can be checked without torch."""

from __future__ import annotations

from csat_fusion.tables import Entry, Table

__all__ = ["COMPRESSORS", "NO_FIDELITY"]

_HOME = "csat_fusion.compressors"
_NUMPY = ("numpy", "'ward-batched'")  # their tables on the host are too many small steps for torch

COMPRESSORS = Table(
    "compressor",
    {
        "ward": Entry(f"{_HOME}.ward", "WardCompressor", needs=_NUMPY),
        "ward-batched": Entry(f"{_HOME}.batched", "BatchedWardCompressor"),
        "runs": Entry(f"{_HOME}.runs", "RunCompressor"),
        "patch-runs": Entry(f"{_HOME}.patch_runs", "PatchRunCompressor"),
        "evs": Entry(f"{_HOME}.evs", "EvsCompressor"),
        "random": Entry(f"{_HOME}.random", "RandomCompressor"),
        "uniform": Entry(f"{_HOME}.frames", "UniformCompressor"),
        "segment-mean": Entry(f"{_HOME}.pooling", "SegmentMeanCompressor"),
        "spatial-pool": Entry(f"{_HOME}.pooling", "SpatialPoolCompressor"),
        "tome": Entry(f"{_HOME}.tome", "TomeCompressor"),
        "floc": Entry(f"{_HOME}.floc", "FlocCompressor"),
        "kmeans": Entry(f"{_HOME}.kmeans", "KMeansCompressor"),
        "dycoke": Entry(f"{_HOME}.dycoke", "DycokeCompressor"),
        "visionzip": Entry(f"{_HOME}.visionzip", "VisionZipCompressor"),
        "dct": Entry(f"{_HOME}.transform", "DctCompressor"),
        "haar": Entry(f"{_HOME}.transform", "HaarCompressor"),
        "dfmr": Entry(f"{_HOME}.dfmr", "DfmrCompressor"),
        "query": Entry(f"{_HOME}.query", "QueryCompressor"),
        "compose": Entry(f"{_HOME}.compose", "ComposedCompressor"),
        "identity": Entry(f"{_HOME}.frames", "IdentityCompressor"),
    },
)

#: those whose budget cannot be a fidelity, as their class says too (``by_cosine``)
NO_FIDELITY = frozenset({"ward-batched", "runs", "patch-runs", "uniform", "compose"})
