"""The rows of the comparison: which attention, and what it is given of a clip.

Shapes: n tokens of a clip, m tokens kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CONTROLS", "EXACT", "METHODS", "OURS", "Method", "kept", "ratios_of"]


@dataclass(frozen=True)
class Method:
    """``attention`` is a name of ``ATTENTIONS`` with ``options``. ``reads``: "all" n tokens of a clip, the "merged"
    ones, "sampled" ones (m tokens of evenly spaced frames), or their "mean". ``shrinks``: there is a run for each keep
    ratio. ``usual``: it is run unless others are named."""

    attention: str
    reads: str = "all"
    options: tuple[tuple[str, Any], ...] = ()
    shrinks: bool = True
    usual: bool = True


_LISTA = (("denoiser", "lista"),)
EXACT = "exact"
OURS = ("csat", "csat + LISTA")
METHODS: dict[str, Method] = {
    EXACT: Method("exact", shrinks=False),
    "linformer": Method("linformer"),
    "performer": Method("performer"),
    "csat published": Method("csat-published"),
    "csat published + LISTA": Method("csat-published", options=_LISTA, usual=False),
    "csat": Method("csat", "merged"),
    "csat + LISTA": Method("csat", "merged", _LISTA),
    "sampled frames": Method("exact", "sampled"),
    "mean token": Method("exact", "mean", shrinks=False),
}
# They are no method of attention: what is lost when tokens are left out, or all but their mean.
CONTROLS = ("sampled frames", "mean token")


def kept(tokens: int, ratio: int) -> int:
    """m at a keep ratio of 1/``ratio``; all where it is 1."""
    return max(1, -(-tokens // ratio))


def ratios_of(name: str, ratios: tuple[int, ...]) -> tuple[int, ...]:
    """The keep ratios that a method is run at; (1,) where it has none."""
    return ratios if METHODS[name].shrinks else (1,)
