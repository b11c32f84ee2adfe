"""Model cards: what a model is good for, and how it wants to be asked.

A card belongs to its model, so that no caller has to know how a model's texts are put. Queries are sentences, and
models were trained on captions as people write them, so a query goes in as it is (``"{}"``) unless a card says
otherwise. A bare class name ("dog") is no caption: it is put into sentences, as A. Radford and others found to help
("Learning Transferable Visual Models From Natural Language Supervision", 2021, arXiv 2103.00020); of several
templates the mean of their unit vectors is taken, and has unit length again.

A card is of the side that asks: it is no part of a model's fingerprint, and a library made before its model's templates
changed stays as it is. How pictures are normalised is part of it (``encoders.preprocess``), and comes from the model's
configuration, as does how its tokenizer cleans a text.

Shapes: N texts, K templates, D width of the joint space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.errors import EncoderInputError, ModelCardInvalid, TextEmpty

if TYPE_CHECKING:
    import torch

__all__ = ["CARD_FILE", "ModelCard", "check_texts", "encode_with_templates", "read_card"]

CARD_FILE = "longreel_card.json"
"""Beside a local checkpoint: its card, a JSON object with the fields of :class:`ModelCard`."""

_MARK = "{}"


@dataclass(frozen=True)
class ModelCard:
    """What is said of a model; empty where nothing is known.

    Attributes:
        summary: what it is, in a line.
        trained_on: the data of its training; empty for weights of unknown origin.
        licence: of the weights.
        languages: in which it understands texts: codes of ISO 639-1, or "many".
        limits: what it is not good for, a sentence each.
        templates: into which a query is put, each with one ``{}``.
        label_templates: into which a bare class name is put, to classify pictures.
        reference: the paper or page that describes it.
        source: where this card comes from.

    Raises:
        ModelCardInvalid: for no templates, or one without exactly one ``{}``.
    """

    summary: str = ""
    trained_on: str = ""
    licence: str = ""
    languages: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    templates: tuple[str, ...] = (_MARK,)
    label_templates: tuple[str, ...] = ("a photo of a {}.",)
    reference: str = ""
    source: str = "none: nothing is known of these weights"

    def __post_init__(self) -> None:
        for name in ("templates", "label_templates"):
            values = getattr(self, name)
            if not values:
                raise ModelCardInvalid(f"{self.source}: {name} must hold at least one template such as '{_MARK}'")
            for template in values:
                if template.count(_MARK) != 1:
                    raise ModelCardInvalid(f"{self.source}: {name}: {template!r} must hold '{_MARK}' exactly once")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> ModelCard:
        """A card from plain JSON.

        Raises:
            ModelCardInvalid: for an unknown key or a value of the wrong type; the nearest key is named.
        """
        kinds = {entry.name: entry.type for entry in fields(cls) if entry.name != "source"}
        checked: dict[str, Any] = {}
        for key, value in values.items():
            if key not in kinds:
                raise ModelCardInvalid(f"{source}: a model card has no {key!r}; it has {', '.join(kinds)}")
            if kinds[key] == "str":
                if not isinstance(value, str):
                    raise ModelCardInvalid(f"{source}: {key} must be a text, got {value!r}")
                checked[key] = value
            else:
                if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
                    raise ModelCardInvalid(f"{source}: {key} must be a list of texts, got {value!r}")
                checked[key] = tuple(value)
        return cls(**checked, source=source)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, ``source`` included."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def read_card(path: Path) -> ModelCard:
    """The card in a JSON file.

    Raises:
        ModelCardInvalid: for a file that cannot be read as one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelCardInvalid(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelCardInvalid(f"{path} must hold a JSON object, it holds a {type(values).__name__}")
    return ModelCard.from_dict(values, str(path))


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no list of texts to encode.

    Raises:
        EncoderInputError: for anything but a sequence of strings; for a string that is no valid Unicode (half of a
            surrogate pair, as comes from undecodable bytes) or holds a NUL character.
        TextEmpty: for a text without a visible character.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
        raise EncoderInputError(f"texts must be a list of strings, got {type(texts).__name__}")
    for text in texts:
        if not isinstance(text, str):
            raise EncoderInputError(f"texts must be strings, got {type(text).__name__}")
        if not text.strip():
            raise TextEmpty("a text to encode must not be empty")
        if "\0" in text:
            raise EncoderInputError(f"the text {text[:40]!r} holds a NUL character")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise EncoderInputError(f"the text {text[:40]!r} is no valid Unicode: {error.reason}") from error


def encode_with_templates(
    encode_text: Callable[[Sequence[str]], torch.Tensor], texts: Sequence[str], templates: Sequence[str]
) -> torch.Tensor:
    """Put each of N texts into each of K templates, encode, and join: ``[N, D]`` float32 of unit length.

    Args:
        encode_text: an encoder's; it gives unit vectors.

    Raises:
        EncoderInputError, TextEmpty: see :func:`check_texts`; and what ``encode_text`` raises. A text is too long when
            it is with its longest template.
    """
    import torch

    check_texts(texts)
    if not texts or tuple(templates) == (_MARK,):
        return encode_text(texts)
    # A text may hold braces of its own, so nothing is formatted.
    put = [template.replace(_MARK, text) for text in texts for template in templates]
    rows = encode_text(put).reshape(len(texts), len(templates), -1)
    return torch.nn.functional.normalize(rows.mean(dim=1), dim=-1)
