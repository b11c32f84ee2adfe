"""How many frames go through a model at once, and what happens when they do not fit."""

from __future__ import annotations

from collections.abc import Callable

import torch

from encoders.errors import OutOfDeviceMemory

__all__ = ["Batches", "cpu_batch_size", "cuda_batch_size"]

# Rows (frames x tokens) from which a transformer's matrix products no longer gain on a CPU: ViT-B-32 on two cores
# needs 78 ms a frame at 8 frames, 26 at 16, 25 at 32.
_CPU_ROWS = 1024
_CUDA_SHARE = 0.5
_CUDA_MAX = 512


def cpu_batch_size(patches: int) -> int:
    """Frames a batch on a CPU: a power of two between 8 and 64, from the number of patches only.

    It is not timed, on purpose: another batch size changes the last bits of a result, and a job that is done again
    must give what it gave before.
    """
    return max(8, min(64, _power_of_two(_CPU_ROWS // (max(patches, 15) + 1))))


def cuda_batch_size(bytes_per_frame: float, free_bytes: int) -> int:
    """Frames a batch on a GPU: a power of two up to 512 that takes at most half of the free memory."""
    return max(1, min(_CUDA_MAX, _power_of_two(int(_CUDA_SHARE * free_bytes / max(bytes_per_frame, 1.0)))))


class Batches:
    """Splits T frames into batches and halves the batch size for good when the device runs out of memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, count: int, step: Callable[[int, int], None]) -> None:
        """Call ``step(start, stop)`` over ``[0, count)``; a batch that does not fit is done again in halves.

        Raises:
            OutOfDeviceMemory: when a single frame does not fit.
        """
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            try:
                step(start, stop)
            except torch.cuda.OutOfMemoryError as error:
                if stop - start == 1:
                    raise OutOfDeviceMemory(f"not even one frame fits into the device's memory: {error}") from error
                self.size = max(1, (stop - start) // 2)
                # outside of the handler nothing holds the failed step's tensors any more
                retry = True
            else:
                retry = False
                start = stop
            if retry and torch.cuda.is_available():
                torch.cuda.empty_cache()


def _power_of_two(limit: int) -> int:
    return 1 << (max(1, limit).bit_length() - 1)
