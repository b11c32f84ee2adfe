"""Processor, memory, GPUs, and the system's limits."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from jobs.checks.base import Check, Context, good, size_text, warn

__all__ = [
    "check_cpu",
    "check_descriptors",
    "check_gpu",
    "check_memory",
    "cpu_flags",
    "usable_cpus",
    "usable_memory_bytes",
]

_CGROUP = Path("/sys/fs/cgroup")
_LITTLE_MEMORY_BYTES = 4e9
_FEW_DESCRIPTORS = 4096


def usable_cpus() -> float:
    """CPUs that this process may use: its affinity, less what a container's quota takes away."""
    cpus = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return cpus if quota == "max" else min(cpus, int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2: then there is no quota that could be read
        return cpus


def usable_memory_bytes() -> tuple[int, int]:
    """Memory in all, as far as a container allows it, and how much of it is free now."""
    import psutil

    memory = psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        for line in (_CGROUP / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):  # page cache, given back when it is wanted
                used -= int(line.split()[1])
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return total, available
    return min(total, limit), max(0, min(available, limit - used))


def cpu_flags(text: str) -> set[str]:
    """The instruction sets that the first processor of ``/proc/cpuinfo`` names."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def check_cpu(_context: Context) -> Iterator[Check]:
    cpus = usable_cpus()
    try:
        flags = cpu_flags(Path("/proc/cpuinfo").read_text())
    except OSError:
        flags = set()
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd") if name in flags]
    speed = "bf16 in hardware" if {"avx512_bf16", "amx_bf16", "bf16"} & flags else "no bf16 in hardware"
    detail = f"{cpus:g} of {os.cpu_count()} CPUs usable, {', '.join(sets) or 'no known instruction sets'} ({speed})"
    if cpus < 2:
        yield warn("cpu", detail, "decoding and encoding take turns on less than two CPUs")
    else:
        yield good("cpu", detail)


def check_memory(_context: Context) -> Iterator[Check]:
    total, available = usable_memory_bytes()
    detail = f"{size_text(available)} free of {size_text(total)}"
    if available < _LITTLE_MEMORY_BYTES:
        yield warn(
            "memory", detail, f"a model and Ray want about {size_text(_LITTLE_MEMORY_BYTES)}; end other programs"
        )
    else:
        yield good("memory", detail)


def check_gpu(_context: Context) -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            capability = f"compute capability {facts.major}.{facts.minor}"
            yield good(f"gpu {number}", f"{facts.name}, {size_text(free)} free of {size_text(total)}, {capability}")
        return
    if Path("/proc/driver/nvidia/version").exists():
        build = torch.version.cuda or "no CUDA at all"
        yield warn(
            "gpu",
            f"there is an NVIDIA driver, but torch (built for {build}) cannot use it",
            "install a torch whose CUDA version is not newer than the driver's (nvidia-smi shows it)",
        )
    else:
        yield good("gpu", "none; the CPU encodes")


def check_descriptors(_context: Context) -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def shown(limit: int) -> str:
        return "no limit" if limit == resource.RLIM_INFINITY else str(limit)

    detail = f"{shown(soft)} open files, may be raised to {shown(hard)}"
    # Ray raises the soft limit to the hard one by itself, so that the hard one counts.
    if hard != resource.RLIM_INFINITY and hard < _FEW_DESCRIPTORS:
        yield warn(
            "open files", detail, f"Ray with many workers wants {_FEW_DESCRIPTORS}: raise the hard limit (ulimit -Hn)"
        )
    else:
        yield good("open files", detail)
