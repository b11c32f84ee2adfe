"""The provider behind the name ``tiny``."""

from __future__ import annotations

from pathlib import Path

from encoders.base import Encoder, LoadOptions, ModelDescription, ModelEntry, ProgressCallback
from encoders.openclip.provider import OpenClipProvider

__all__ = ["NAMES", "BundledProvider"]

NAMES = ("tiny",)


class BundledProvider:
    """Models that come with the package; their names have no scheme."""

    def load(self, rest: str, options: LoadOptions) -> Encoder:
        return OpenClipProvider().load(_full(rest), options)

    def models(self) -> list[ModelEntry]:
        return [ModelEntry(name, "CoCa", name, True, "comes with Longreel") for name in NAMES]

    def describe(self, rest: str) -> ModelDescription:
        return OpenClipProvider().describe(_full(rest))

    def fetch(self, rest: str, progress: ProgressCallback | None) -> str:
        return OpenClipProvider().fetch(_full(rest), progress)


def _full(name: str) -> str:
    folder = Path(__file__).parent
    return f"{folder / name}.json/{folder / name}.safetensors"
