"""Number formats: which are allowed on a device, and which one is fastest without changing the answers.

``auto`` runs the fp32 tower and a low-precision copy side by side on a few pictures and keeps the copy only when it is
clearly faster and its embeddings agree. Text is always encoded in fp32.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from encoders.errors import EncoderOptionError

__all__ = ["AGREEMENT", "Tower", "choose_tower"]

AGREEMENT = 0.999  # least cosine between an embedding in fp32 and in low precision
_GAIN = 0.9  # low precision must need at most this share of fp32's time
_BUDGET_SECONDS = 2.0
_PROBE_FRAMES = 4
_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is ARM's
_DTYPES = {"bf16": torch.bfloat16, "bf16-autocast": torch.bfloat16, "fp16": torch.float16}

Result = TypeVar("Result")
Convert = Callable[[nn.Module, torch.dtype], nn.Module]
Embed = Callable[[nn.Module, torch.Tensor], torch.Tensor]


@dataclass
class Tower:
    """An image tower in one number format; ``reason`` says why that one."""

    module: nn.Module
    precision: str
    device: torch.device
    reason: str

    def run(self, step: Callable[[nn.Module, torch.Tensor], Result], pixels: torch.Tensor) -> Result:
        """Call ``step(module, pixels)`` with ``pixels`` (float32) in the format of this tower."""
        if self.precision == "bf16-autocast":
            with torch.autocast(self.device.type, torch.bfloat16):
                return step(self.module, pixels)
        return step(self.module, pixels.to(_DTYPES.get(self.precision, torch.float32)))


def choose_tower(
    visual: nn.Module, precision: str, device: torch.device, image_size: tuple[int, int], convert: Convert, embed: Embed
) -> Tower:
    """Put ``visual`` (fp32, already on ``device``) into the number format asked for; ``auto`` measures.

    The tower that is not kept is let go.

    Raises:
        EncoderOptionError: for a format that this device or this tower cannot compute in.
    """
    if precision == "fp32":
        return Tower(visual, "fp32", device, "asked for")
    if precision != "auto":
        return _asked(visual, precision, device, image_size, convert, embed)
    low = _candidate(device)
    if low is None:
        return Tower(visual, "fp32", device, f"this {device.type} has no fast low precision")
    pixels = _probe_pixels(image_size, device)
    reference = Tower(visual, "fp32", device, "")
    rival = Tower(convert(copy.deepcopy(visual), _DTYPES[low]), low, device, "")
    try:
        reference_out, rival_out = _measure_once(reference, embed, pixels)[1], _measure_once(rival, embed, pixels)[1]
    except (RuntimeError, NotImplementedError) as error:
        return Tower(visual, "fp32", device, f"{low} cannot run this tower: {str(error).splitlines()[0][:120]}")
    agreement = float(nn.functional.cosine_similarity(reference_out, rival_out, dim=-1).min())
    if not agreement >= AGREEMENT:
        return Tower(visual, "fp32", device, f"{low} agrees with fp32 only to cosine {agreement:.5f}")
    slow, fast = _race(reference, rival, embed, pixels)
    unit = "ms of one core" if device.type == "cpu" else "ms"
    measured = f"{fast * 1e3:.1f} {unit} a frame in {low} against {slow * 1e3:.1f} in fp32, cosine {agreement:.5f}"
    if fast > _GAIN * slow:
        return Tower(visual, "fp32", device, f"{low} is no faster: {measured}")
    rival.reason = f"measured: {measured}"
    return rival


def _asked(
    visual: nn.Module, precision: str, device: torch.device, image_size: tuple[int, int], convert: Convert, embed: Embed
) -> Tower:
    if precision == "fp16" and device.type == "cpu":
        raise EncoderOptionError("precision 'fp16' is for GPUs; on a CPU take bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise EncoderOptionError(f"{torch.cuda.get_device_name(device)} does not compute in bf16; take fp16 or fp32")
    if precision == "bf16-autocast":
        return Tower(visual, precision, device, "asked for")
    tower = Tower(convert(visual, _DTYPES[precision]), precision, device, "asked for")
    try:
        _measure_once(tower, embed, _probe_pixels(image_size, device)[:1])
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise EncoderOptionError(
            f"this image tower cannot run in {precision} ({str(error).splitlines()[0][:120]}); "
            f"take bf16-autocast or fp32"
        ) from error
    return tower


def _candidate(device: torch.device) -> str | None:
    if device.type == "cuda":
        # emulated bf16 on older GPUs is slow; those have fast fp16
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else None


def _cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    if not cpuinfo.is_file():
        return False  # not Linux: nothing says so, and measuring without support takes seconds
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, flags = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return not set(_CPU_FLAGS).isdisjoint(flags.split())
    return False


def _probe_pixels(image_size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Pictures with large shapes and fine grain, alike in every process."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(_PROBE_FRAMES, 3, 4, 4, generator=generator)
    pixels = nn.functional.interpolate(coarse, size=image_size, mode="bilinear", align_corners=False)
    return (pixels + 0.2 * torch.randn(pixels.shape, generator=generator)).to(device)


def _race(reference: Tower, rival: Tower, embed: Embed, pixels: torch.Tensor) -> tuple[float, float]:
    """Seconds a frame of both, the least of a few alternating runs, so that a busy machine disturbs both alike."""
    started, slow, fast = time.perf_counter(), float("inf"), float("inf")
    threads = torch.get_num_threads()
    if reference.device.type == "cpu":
        torch.set_num_threads(1)  # threads that wait for each other burn processor time
    try:
        for turn in range(4):
            slow = min(slow, _measure_once(reference, embed, pixels)[0])
            fast = min(fast, _measure_once(rival, embed, pixels)[0])
            if turn and time.perf_counter() - started > _BUDGET_SECONDS / 2:
                break
    finally:
        torch.set_num_threads(threads)
    return slow / len(pixels), fast / len(pixels)


def _measure_once(tower: Tower, embed: Embed, pixels: torch.Tensor) -> tuple[float, torch.Tensor]:
    # On a CPU the time of this one thread: when many workers start at once, wall time says who was scheduled.
    clock = time.thread_time if tower.device.type == "cpu" else time.perf_counter
    started = clock()
    with torch.inference_mode():
        output = tower.run(embed, pixels).float()
    if tower.device.type == "cuda":
        torch.cuda.synchronize(tower.device)
    return clock() - started, output
