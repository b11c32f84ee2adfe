"""Ray on this machine, looked at without starting it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs.checks.base import Check, Context, bad, good, size_text, warn
from jobs.checks.disk import existing_parent, judge_room
from jobs.checks.machine import usable_cpus, usable_memory_bytes

__all__ = ["check_ray", "check_ray_folder", "check_shared_memory", "check_stages", "local_resources"]

# Below its folder Ray makes sockets such as session_2026-01-02_03-04-05_123456_1234567/sockets/plasma_store, and the
# system allows 107 characters for the path of a socket.
_SOCKET_PATH, _SOCKET_NAME = 107, 68
_FULL_SHARE = 0.95  # Ray does not spill to a disk that is fuller


def check_ray(_context: Context) -> Iterator[Check]:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    where = f"RAY_ADDRESS={address}" if address else "starts by itself on this machine"
    yield good("ray", f"{ray.__version__}, {where}")


def check_ray_folder(_context: Context) -> Iterator[Check]:
    parent = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    folder = Path(parent) / "ray"
    if len(str(folder)) + _SOCKET_NAME > _SOCKET_PATH:
        advice = f"set RAY_TMPDIR to a folder of at most {_SOCKET_PATH - _SOCKET_NAME - 4} characters"
        yield bad("ray folder", f"{folder}: too long a path for Ray's sockets", advice)
        return
    check = judge_room("ray folder", folder)
    usage = shutil.disk_usage(existing_parent(folder))
    if check.status == "ok" and usage.used / max(1, usage.used + usage.free) > _FULL_SHARE:
        detail = f"{check.detail}, which is less than {1 - _FULL_SHARE:.0%} of the disk"
        yield warn("ray folder", detail, "Ray will not spill there; make room, or set RAY_TMPDIR to another disk")
    else:
        yield check


def check_shared_memory(_context: Context) -> Iterator[Check]:
    from jobs.settings import WorkerOptions

    folder, wanted = Path("/dev/shm"), WorkerOptions().object_store_bytes
    if not folder.is_dir():
        yield warn("shared memory", "there is no /dev/shm", "Ray uses its folder on disk instead, which is slower")
        return
    usage = shutil.disk_usage(folder)
    detail = f"/dev/shm: {size_text(usage.free)} free of {size_text(usage.total)}, {size_text(wanted)} wanted"
    if usage.free < wanted:
        advice = "Ray uses its folder on disk instead, which is slower; in a container: --shm-size=1g"
        yield warn("shared memory", detail, advice)
    else:
        yield good("shared memory", detail)


def check_stages(_context: Context) -> Iterator[Check]:
    """What a batch job would place here with the default settings; such a plan always fits."""
    from jobs.placement import plan_stages
    from jobs.settings import WorkerOptions

    options = WorkerOptions()
    stages = plan_stages(options, local_resources(options.object_store_bytes))
    plan = ", ".join(
        f"{stage.name} {stage.count} x ({stage.cpus:g} CPU{f', {stage.gpus:g} GPU' if stage.gpus else ''})"
        for stage in stages
    )
    yield good("placement", plan)


def local_resources(object_store_bytes: int) -> dict[str, float]:
    """What a Ray of our own would have on this machine, in Ray's words."""
    import torch

    memory = max(0, usable_memory_bytes()[1] - object_store_bytes)
    resources = {"CPU": float(max(1, int(usable_cpus()))), "memory": float(memory)}
    if torch.cuda.is_available():
        resources["GPU"] = float(torch.cuda.device_count())
    return resources
