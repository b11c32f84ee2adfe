"""What each stage of a batch job asks of the cluster, as data, and whether the cluster can give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import PlacementError
from jobs.settings import WorkerOptions

__all__ = ["Stage", "check_placement", "plan_stages"]


@dataclass(frozen=True)
class Stage:
    """``count`` workers, each with so many CPUs, GPUs and bytes of memory."""

    name: str
    count: int
    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0

    def ray_options(self) -> dict[str, Any]:
        """As the options of a Ray actor."""
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.memory_bytes:
            options["memory"] = self.memory_bytes
        return options


def plan_stages(options: WorkerOptions, resources: Mapping[str, float]) -> tuple[Stage, Stage]:
    """The decode and the encode stage for a cluster that has ``resources`` (CPU, GPU, memory in bytes).

    One encoder for each GPU, or one in all; every CPU that is left decodes.
    """
    cluster_gpus = resources.get("GPU", 0.0)
    gpus = options.encode_gpus if options.encode_gpus >= 0 else (1.0 if cluster_gpus else 0.0)
    encoders = options.encoders or (max(1, int(cluster_gpus / gpus)) if gpus and cluster_gpus else 1)
    left = resources.get("CPU", 0.0) - encoders * options.encode_cpus
    decoders = options.decoders or max(1, int(left / options.decode_cpus))
    return (
        Stage("decode", decoders, options.decode_cpus, 0.0, options.decode_memory_bytes),
        Stage("encode", encoders, options.encode_cpus, gpus, options.encode_memory_bytes),
    )


def check_placement(stages: Sequence[Stage], resources: Mapping[str, float]) -> None:
    """Fail at once instead of waiting for ever for something that the cluster does not have.

    Raises:
        PlacementError: naming the stages, the resource, what they ask and what there is.
    """
    for resource, unit, ask in (
        ("CPU", "CPUs", lambda s: s.cpus),
        ("GPU", "GPUs", lambda s: s.gpus),
        ("memory", "bytes of memory", lambda s: float(s.memory_bytes)),
    ):
        needed = sum(stage.count * ask(stage) for stage in stages)
        there = resources.get(resource, 0.0)
        if needed > there + 1e-9:
            parts = " and ".join(f"{s.name} {s.count} x {ask(s):g}" for s in stages if ask(s))
            raise PlacementError(
                f"not enough {resource}: {parts} need {needed:g} {unit}, the cluster has {there:g}; ask for less with "
                f"--set workers.*, or add nodes"
            )
