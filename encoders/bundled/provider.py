"""The provider behind names without a scheme: models that come with Longreel, as ``tiny``."""

from __future__ import annotations

from pathlib import Path

from encoders.base import Encoder, LoadOptions, ModelDescription, ModelEntry, ProgressCallback
from encoders.bundled.files import BUNDLED_FOLDER, Bundle
from encoders.openclip.names import ModelName
from encoders.openclip.provider import describe_named, load_named

__all__ = ["NAMES", "BundledProvider"]

NAMES = ("tiny",)


class BundledProvider:
    """Bundled models: open_clip's CoCa, loaded as every OpenCLIP model, after their files have been checked.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: Path = BUNDLED_FOLDER) -> None:
        self._folder = folder

    def load(self, rest: str, options: LoadOptions) -> Encoder:
        bundle = self._bundle(rest)
        bundle.check()
        return load_named(_name(bundle), options, bundle.card())

    def models(self) -> list[ModelEntry]:
        return [
            ModelEntry(name, "CoCa", "bundled", self._bundle(name).is_here, "comes with Longreel") for name in NAMES
        ]

    def describe(self, rest: str) -> ModelDescription:
        bundle = self._bundle(rest)
        bundle.require()
        return describe_named(_name(bundle), bundle.card())

    def fetch(self, rest: str, progress: ProgressCallback | None) -> str:
        bundle = self._bundle(rest)
        bundle.check()  # there is nothing to bring here, but it can be damaged
        return ""

    def _bundle(self, name: str) -> Bundle:
        assert name in NAMES, name  # the table of names has looked
        return Bundle(name, self._folder)


def _name(bundle: Bundle) -> ModelName:
    return ModelName(
        architecture="CoCa",
        config_path=bundle.config,
        tag=None,
        path=bundle.weights,
        random=False,
        like=None,
        seed=None,
        bundled=bundle.name,
    )
