"""The scheme ``python:package.module:factory``: an encoder that lives outside the table, such as a test double.

``factory(options: LoadOptions) -> Encoder`` is called with the checked options.
"""

from __future__ import annotations

import importlib

from encoders.base import Encoder, LoadOptions, ModelDescription, ModelEntry, ProgressCallback
from encoders.errors import UnknownModel

__all__ = ["PythonProvider"]


class PythonProvider:
    """Encoders named by where their factory is."""

    def load(self, rest: str, options: LoadOptions) -> Encoder:
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
        encoder = factory(options)
        if not isinstance(encoder, Encoder):
            raise UnknownModel(f"model 'python:{rest}' gave a {type(encoder).__name__}, which is no Encoder")
        return encoder

    def models(self) -> list[ModelEntry]:
        return []

    def describe(self, rest: str) -> ModelDescription:
        raise UnknownModel(f"model 'python:{rest}' is known only once it is loaded")

    def fetch(self, rest: str, progress: ProgressCallback | None) -> str:
        return ""
