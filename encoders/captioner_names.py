"""What is known of a captioner by its name alone; none is loaded."""

from __future__ import annotations

from collections.abc import Callable

from encoders.captioning import split_captioner
from encoders.errors import UnknownModel, WeightsUnavailable

__all__ = ["is_elsewhere", "kept_name"]


def kept_name(name: str) -> str:
    """The name under which a captioner's words are kept, however it was typed: that of its
    :class:`encoders.captioning.CaptionerInfo`.

    One ``python:`` alone may call itself otherwise, which shows only once it is loaded.

    Raises:
        UnknownModel: there is no such kind of captioner, or no such address.
    """
    scheme, rest = split_captioner(name)
    return _KEPT[scheme](rest) if scheme in _KEPT else name


def is_elsewhere(name: str) -> bool:
    """Whether a captioner runs behind an address, and needs no GPU where it is asked from.

    Raises:
        UnknownModel: there is no such kind of captioner.
    """
    return split_captioner(name)[0] in _ELSEWHERE


def _tiny(rest: str) -> str:
    return f"tiny:{rest}" if rest else "tiny"


def _coca(rest: str) -> str:
    from encoders.openclip.names import parse_name

    try:
        return parse_name(rest).full.replace("openclip:", "coca:", 1)
    except (UnknownModel, WeightsUnavailable):  # here; whoever loads it may have its files
        return f"coca:{rest}"


def _vlm(rest: str) -> str:
    from encoders.vlm.address import parse_address

    return parse_address(rest).name


_KEPT: dict[str, Callable[[str], str]] = {"tiny": _tiny, "coca": _coca, "vlm": _vlm}
_ELSEWHERE = ("vlm",)
