"""The provider behind names without a scheme: models that come with Longreel, as ``tiny``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from encoders.base import Encoder, LoadOptions, ModelDescription, ModelEntry, ProgressCallback
from encoders.bundled.files import BUNDLED_FOLDER, Bundle

if TYPE_CHECKING:
    from encoders.openclip.names import ModelName

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
        from encoders.openclip.provider import load_named

        bundle = self._bundle(rest)
        bundle.check()
        return load_named(_name(bundle), options, bundle.card())

    def models(self) -> list[ModelEntry]:
        return [
            ModelEntry(name, "CoCa", "bundled", self._bundle(name).is_here, "comes with Longreel") for name in NAMES
        ]

    def describe(self, rest: str) -> ModelDescription:
        from encoders.openclip.provider import describe_named

        bundle = self._bundle(rest)
        bundle.require()
        return describe_named(_name(bundle), bundle.card())

    def require(self, rest: str, progress: ProgressCallback | None, *, download: bool) -> None:
        self._bundle(rest).require()

    def fetch(self, rest: str, progress: ProgressCallback | None) -> str:
        bundle = self._bundle(rest)
        bundle.check()  # there is nothing to bring here, but it can be damaged
        return ""

    def _bundle(self, name: str) -> Bundle:
        assert name in NAMES, name  # the table of names has looked
        return Bundle(name, self._folder)


def _name(bundle: Bundle) -> ModelName:
    from encoders.openclip.names import ModelName

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
