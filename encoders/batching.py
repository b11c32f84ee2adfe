"""How many frames go through a model at once, and what happens when they do not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from encoders.errors import OutOfDeviceMemory

__all__ = ["Batches", "cpu_batch_size", "cpu_lanes", "cuda_batch_size"]

# Rows (frames x tokens) from which a transformer's matrix products no longer gain on one core.
_CPU_ROWS = 1024
_CUDA_SHARE = 0.5
_CUDA_MAX = 512


def cpu_batch_size(patches: int) -> int:
    """Frames a batch on a CPU: a power of two between 8 and 64, from the number of patches only.

    It is not timed, on purpose: another batch size changes the last bits of a result, and a job that is done again on
    the same machine must give what it gave before. (Lanes share out what does not fill them, so another number of
    cores changes last bits too: cosines stay within 1e-5 in fp32, 1e-4 in bf16.)
    """
    return max(8, min(64, _power_of_two(_CPU_ROWS // (max(patches, 15) + 1))))


def cpu_lanes(threads: int) -> int:
    """How many batches run side by side on a CPU: ``threads``, or for 0 one for each core that this process may use.

    Each lane is one thread. Threads inside of each matrix product would wait for each other hundreds of times a batch:
    as fast on an idle machine, but beside one busy process (a decoder, say) ViT-B-32 took 175 ms a frame that way and
    62 ms in two lanes.
    """
    return threads or len(os.sched_getaffinity(0))


def cuda_batch_size(bytes_per_frame: float, free_bytes: int) -> int:
    """Frames a batch on a GPU: a power of two up to 512 that takes at most half of the free memory."""
    return max(1, min(_CUDA_MAX, _power_of_two(int(_CUDA_SHARE * free_bytes / max(bytes_per_frame, 1.0)))))


class Batches:
    """Splits T frames into batches, side by side in lanes on a CPU; a device out of memory halves their size."""

    def __init__(self, size: int, lanes: int = 1) -> None:
        self.size = size
        self._lanes = (
            ThreadPoolExecutor(lanes, "encode", initializer=torch.set_num_threads, initargs=(1,)) if lanes > 1 else None
        )
        self._lane_count = lanes

    def close(self) -> None:
        """End the lanes. Closing twice is harmless."""
        if self._lanes is not None:
            self._lanes.shutdown()

    def run(self, count: int, step: Callable[[int, int], None]) -> None:
        """Call ``step(start, stop)`` over ``[0, count)``; a batch that does not fit is done again in halves.

        Raises:
            OutOfDeviceMemory: when a single frame does not fit.
        """
        if self._lanes is not None:
            # Fewer frames than fill all lanes are shared among them.
            size = max(1, min(self.size, math.ceil(count / self._lane_count)))
            starts = range(0, count, size)
            for _ in self._lanes.map(lambda start: step(start, min(start + size, count)), starts):
                pass
            return
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
