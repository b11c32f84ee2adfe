"""Cards of OpenCLIP models: of open_clip's tags from the table ``cards.json``, of local weights from beside them.

The table holds what the publishers of the weights say of them, by patterns of architecture and tag; the first that fits
counts. No card there has templates for queries: these models learnt from whole captions, and a sentence is best left as
it is. Their tokenizers clean a text (spaces, letter case) as their configuration says.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from typing import Any

from encoders.cards import CARD_FILE, ModelCard, read_card
from encoders.openclip.names import ModelName

__all__ = ["card_of"]

_TABLE = "cards.json"


def card_of(name: ModelName) -> ModelCard:
    """The card of a model, by its parsed name; an empty one where nothing is known.

    Raises:
        ModelCardInvalid: for a card beside a local checkpoint that cannot be read.
    """
    if name.random:
        return ModelCard(
            summary="untrained: for trials; pictures find pictures, words mean nothing to it",
            limits=("words mean nothing to it",),
            source="random weights",
        )
    if name.path is not None:
        beside = name.path.parent / CARD_FILE
        return read_card(beside) if beside.is_file() else ModelCard()
    for entry in _table():
        if _fits(name.architecture, entry["architectures"]) and _fits(str(name.tag), entry["tags"]):
            return ModelCard.from_dict(entry["card"], f"{_TABLE} of encoders.openclip")
    return ModelCard(source=f"none: {_TABLE} of encoders.openclip has no entry for it")


def _fits(value: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


@lru_cache(maxsize=1)
def _table() -> list[dict[str, Any]]:
    entries = json.loads((files("encoders.openclip") / _TABLE).read_text(encoding="utf-8"))
    assert isinstance(entries, list)
    return entries
