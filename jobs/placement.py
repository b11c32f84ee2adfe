"""What each stage of a batch job asks of the cluster, as data, and whether the cluster can give it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.errors import PlacementError
from jobs.settings import WorkerOptions

__all__ = ["Stage", "check_nodes", "check_placement", "plan_stages"]

_SHARES_PER_CPU = 10_000  # Ray counts in these


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


def plan_stages(
    options: WorkerOptions,
    resources: Mapping[str, float],
    *,
    captions: bool = False,
    captions_elsewhere: bool = False,
) -> tuple[Stage, ...]:
    """The decode and the encode stage for a cluster that has ``resources`` (CPU, GPU, memory in bytes); with
    ``captions`` the caption stage as well, which by itself gets no GPU where they are made ``captions_elsewhere``.

    One encoder, and one captioner, for each GPU, or one in all; every CPU that is left decodes. Where a count is
    automatic, the plan fits the CPUs that there are: there are no more of them than leave the others their CPU, and
    where even one of each is too much, they share what there is. What somebody asked for by number is not made smaller.
    """
    cpus, cluster_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus, caption_gpus = options.encode_gpus, options.caption_gpus
    if captions_elsewhere and caption_gpus < 0:
        caption_gpus = 0.0
    if gpus < 0:
        gpus = 0.0 if not cluster_gpus else 0.5 if captions and caption_gpus else 1.0
    if caption_gpus < 0:
        caption_gpus = 0.0 if not cluster_gpus else 0.5 if gpus else 1.0
    captioners = 0
    if captions:
        room = cpus - max(1, options.decoders) * options.decode_cpus - max(1, options.encoders) * options.encode_cpus
        wanted = int(cluster_gpus) if caption_gpus else 1
        captioners = options.captioners or max(1, min(wanted, int(room / options.caption_cpus)))
    encoders = options.encoders
    if not encoders:
        room = cpus - max(1, options.decoders) * options.decode_cpus - captioners * options.caption_cpus
        left_gpus = cluster_gpus - captioners * caption_gpus
        wanted = int(left_gpus / gpus) if gpus and cluster_gpus else 1
        encoders = max(1, min(wanted, int(room / options.encode_cpus)))
    left = cpus - encoders * options.encode_cpus - captioners * options.caption_cpus
    decoders = options.decoders or max(1, int(left / options.decode_cpus))
    stages = [
        Stage("decode", decoders, options.decode_cpus, 0.0, options.decode_memory_bytes),
        Stage("encode", encoders, options.encode_cpus, gpus, options.encode_memory_bytes),
    ]
    asked = [options.decoders, options.encoders]
    if captions:
        memory = options.caption_memory_bytes
        stages.append(Stage("caption", captioners, options.caption_cpus, caption_gpus, memory))
        asked.append(options.captioners)
    return _shared(stages, asked, cpus)


def _shared(stages: Sequence[Stage], asked: Sequence[int], cpus: float) -> tuple[Stage, ...]:
    """The stages with smaller shares of the CPUs when it is the automatic ones that make them too many.

    Args:
        asked: for each the count that somebody asked for; 0: automatic.
    """
    needed = sum(stage.count * stage.cpus for stage in stages)
    asked_cpus = sum(count * stage.cpus for count, stage in zip(asked, stages, strict=True))
    largest = max(stage.cpus for stage in stages)
    if needed <= cpus or all(asked) or asked_cpus > cpus or largest > max(1.0, cpus):
        return tuple(stages)
    # A share is a number for the scheduler alone: no process is slowed down by it.
    shared = tuple(
        replace(stage, cpus=math.floor(stage.cpus * cpus / needed * _SHARES_PER_CPU) / _SHARES_PER_CPU)
        for stage in stages
    )
    return shared if min(stage.cpus for stage in shared) > 0 else tuple(stages)


_ASKED: tuple[tuple[str, str, Callable[[Stage], float]], ...] = (
    ("CPU", "CPUs", lambda stage: stage.cpus),
    ("GPU", "GPUs", lambda stage: stage.gpus),
    ("memory", "bytes of memory", lambda stage: float(stage.memory_bytes)),
)


def check_placement(stages: Sequence[Stage], resources: Mapping[str, float]) -> None:
    """Fail at once instead of waiting for ever for something that the cluster does not have.

    Raises:
        PlacementError: naming the stages, the resource, what they ask and what there is.
    """
    for resource, unit, ask in _ASKED:
        needed = sum(stage.count * ask(stage) for stage in stages)
        there = resources.get(resource, 0.0)
        if needed > there + 1e-9:
            parts = " and ".join(f"{s.name} {s.count} x {ask(s):g}" for s in stages if ask(s))
            raise PlacementError(
                f"not enough {resource}: {parts} need {needed:g} {unit}, the cluster has {there:g}; ask for less with "
                f"--set workers.*, or add nodes"
            )


def check_nodes(stages: Sequence[Stage], nodes: Sequence[Mapping[str, float]]) -> None:
    """Fail at once where the cluster has enough in all, and no single node has enough for one worker.

    Args:
        nodes: what each living node has of each resource.

    Raises:
        PlacementError: naming the stage, the resource, what one worker asks and the most that a node has.
    """
    for stage in stages:
        for resource, unit, ask in _ASKED:
            most = max((node.get(resource, 0.0) for node in nodes), default=0.0)
            if ask(stage) > most + 1e-9:
                raise PlacementError(
                    f"not enough {resource} on any one node: a worker of {stage.name} needs {ask(stage):g} {unit}, "
                    f"the largest of {len(nodes)} nodes has {most:g}; ask for less with --set workers.*, or "
                    "add a larger one"
                )
        if not any(all(ask(stage) <= node.get(name, 0.0) + 1e-9 for name, _, ask in _ASKED) for node in nodes):
            asked = " and ".join(f"{ask(stage):g} {unit}" for _, unit, ask in _ASKED if ask(stage))
            raise PlacementError(
                f"no single node has {asked} together, as a worker of {stage.name} needs; ask for less with "
                "--set workers.*, or add such a node"
            )
