"""The scheme ``python:package.module:factory``: an encoder or captioner outside the tables, such as a test double.

``factory(options: LoadOptions) -> Encoder`` is called with the checked options, ``factory(options: CaptionerOptions) ->
Captioner`` with those of a captioner. An encoder needs no ``encode_query``: without one, queries are put into the
templates of its ``info.card`` (as they are, unless that says otherwise) and encoded by its ``encode_text``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from encoders.base import Encoder, LoadOptions, ModelDescription, ModelEntry, ProgressCallback
from encoders.captioning import Captioner, CaptionerOptions
from encoders.cards import encode_with_templates
from encoders.errors import UnknownModel

if TYPE_CHECKING:
    import torch

__all__ = ["PythonProvider", "load_captioner_at"]

_NEEDED = ("info", "encode", "encode_text", "encode_image", "close", "__enter__", "__exit__")


class PythonProvider:
    """Encoders named by where their factory is."""

    def load(self, rest: str, options: LoadOptions) -> Encoder:
        encoder = _factory(rest)(options)
        missing = [name for name in _NEEDED if not hasattr(encoder, name)]
        if missing:
            raise UnknownModel(
                f"model 'python:{rest}' gave a {type(encoder).__name__}, which is no Encoder: it has no "
                f"{', '.join(missing)}"
            )
        return cast(Encoder, encoder if hasattr(encoder, "encode_query") else _AsksByCard(encoder))

    def models(self) -> list[ModelEntry]:
        return []

    def describe(self, rest: str) -> ModelDescription:
        raise UnknownModel(f"model 'python:{rest}' is known only once it is loaded")

    def require(self, rest: str, progress: ProgressCallback | None, *, download: bool) -> None: ...

    def fetch(self, rest: str, progress: ProgressCallback | None) -> str:
        return ""


class _AsksByCard:
    """An encoder that has no ``encode_query``, with one; everything else is the encoder's own."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        return encode_with_templates(self._encoder.encode_text, texts, self._encoder.info.card.templates)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __enter__(self) -> _AsksByCard:
        self._encoder.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._encoder.__exit__(*exc)


def load_captioner_at(rest: str, options: CaptionerOptions) -> Captioner:
    """The captioner that the factory at ``module:factory`` makes.

    Raises:
        UnknownModel: there is no such factory, or it gives something else.
    """
    captioner = _factory(rest)(options)
    if not isinstance(captioner, Captioner):
        raise UnknownModel(f"captioner 'python:{rest}' gave a {type(captioner).__name__}, which is no Captioner")
    return captioner


def _factory(rest: str) -> Callable[[Any], object]:
    module_name, colon, attribute = rest.partition(":")
    if not colon or not module_name or not attribute:
        raise UnknownModel(f"model 'python:{rest}' must be python:package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UnknownModel(f"model 'python:{rest}': {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UnknownModel(f"model 'python:{rest}': module {module_name!r} has no callable {attribute!r}")
    return cast(Callable[[Any], object], factory)
