"""Options by name: what the tables of measurements and dictionaries check before they make one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from csat_fusion.compressors.base import nearest_name
from csat_fusion.errors import CompressionError

__all__ = ["check_options"]


def check_options(name: str, make: Callable[..., Any], options: Collection[str], given: Collection[str]) -> None:
    """Each of ``options`` must be an argument of ``make``; those in ``given`` come from the table and are not options.

    Raises:
        CompressionError: one is not; the message says which there are.
    """
    allowed = [argument for argument in inspect.signature(make).parameters if argument not in given]
    has = f"it has {', '.join(allowed)}" if allowed else "it has none"
    for option in options:
        if option not in allowed:
            raise CompressionError(f"{name} has no option {option!r}{nearest_name(option, allowed)}; {has}")
