"""What sums are computed in, whatever surrounds the call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["without_autocast"]


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, products keep the type of their factors: autocast around the caller would round sums to half."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
