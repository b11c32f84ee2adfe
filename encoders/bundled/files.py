"""The files of a bundled model, and whether they are those that belong together.

    NAME.json           open_clip's configuration and preprocessing
    NAME.bpe.gz         the merges of its tokenizer
    NAME.safetensors    the weights
    card.json           its card, and size and SHA-256 of the three

Whoever has trained new weights writes their sums: ``python -m encoders.bundled.files``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from encoders.cards import ModelCard
from encoders.errors import ModelCardInvalid, WeightsDamaged, WeightsMismatch, WeightsUnavailable

__all__ = ["BUNDLED_FOLDER", "Bundle"]

BUNDLED_FOLDER = Path(str(files("encoders.bundled")))


@dataclass(frozen=True)
class _Sum:
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A bundled model by its name, in the folder where its files lie."""

    name: str
    folder: Path = BUNDLED_FOLDER

    @property
    def config(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def vocabulary(self) -> Path:
        return self.folder / f"{self.name}.bpe.gz"

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def card_file(self) -> Path:
        return self.folder / "card.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the model is made of; the card only describes them."""
        return (self.config, self.vocabulary, self.weights)

    @property
    def is_here(self) -> bool:
        """Whether every file is there, in its right size; their content is not read.

        Raises:
            ModelCardInvalid, WeightsUnavailable: the card, which tells the sizes, cannot be read.
        """
        stated = self._stated()
        return all(path.is_file() and path.stat().st_size == stated[path].size_bytes for path in self.files)

    def card(self) -> ModelCard:
        """What the model is good for.

        Raises:
            ModelCardInvalid: the card cannot be read.
            WeightsUnavailable: the card is not there.
        """
        return ModelCard.from_dict(self._read().get("card", {}), str(self.card_file))

    def require(self) -> None:
        """See that every file is there, the card included; their content is not read.

        Raises:
            WeightsUnavailable: one is not: the installation is not whole.
        """
        for path in (*self.files, self.card_file):
            if not path.is_file():
                raise self._missing(path)

    def check(self) -> None:
        """Read every file and compare it with what the card says.

        Raises:
            WeightsUnavailable: a file is not there: the installation is not whole.
            WeightsDamaged: weights or vocabulary of another size or content; both are named.
            WeightsMismatch: a configuration that is not the one of these weights.
            ModelCardInvalid: the card cannot be read, or does not say.
        """
        for path, stated in self._stated().items():
            found = self._sum(path, stated.size_bytes)
            if found == stated:
                continue
            differs = (
                f"{found.size_bytes} bytes instead of {stated.size_bytes}"
                if found.size_bytes != stated.size_bytes
                else f"SHA-256 {found.sha256} instead of {stated.sha256}"
            )
            what = f"{path} is not the file that {self.card_file.name} describes ({differs})"
            if path == self.config:
                raise WeightsMismatch(f"{what}: weights only fit the configuration that they were trained with")
            raise WeightsDamaged(f"{what}: it is damaged, or of another version; install Longreel again")

    def stamp(self) -> None:
        """Write size and SHA-256 of the files as they are now into the card.

        Raises:
            WeightsUnavailable: a file is not there.
            ModelCardInvalid: the card cannot be read.
        """
        content = self._read()
        content["files"] = {path.name: asdict(self._sum(path)) for path in self.files}
        partial = self.card_file.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, self.card_file)

    def _sum(self, path: Path, wanted_bytes: int | None = None) -> _Sum:
        """Size and SHA-256 of a file, which is read only when it has the size that is wanted."""
        from encoders.openclip.weights import hash_file

        try:
            size = path.stat().st_size
            return _Sum(size, hash_file(path) if wanted_bytes in (None, size) else "")
        except FileNotFoundError:
            raise self._missing(path) from None

    def _stated(self) -> dict[Path, _Sum]:
        stated = self._read().get("files")
        sums: dict[Path, _Sum] = {}
        for path in self.files:
            entry = stated.get(path.name) if isinstance(stated, dict) else None
            size, digest = (entry.get("size_bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
            if not isinstance(size, int) or not isinstance(digest, str):
                raise ModelCardInvalid(f"{self.card_file}: files must state size_bytes and sha256 of {path.name}")
            sums[path] = _Sum(size, digest)
        return sums

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.card_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self._missing(self.card_file) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelCardInvalid(f"{self.card_file} cannot be read as JSON: {error}") from error
        if not isinstance(content, dict):
            raise ModelCardInvalid(f"{self.card_file} must hold a JSON object, it holds a {type(content).__name__}")
        return content

    def _missing(self, path: Path) -> WeightsUnavailable:
        return WeightsUnavailable(f"{path} of the bundled model {self.name!r} is not there; install Longreel again")


def main() -> None:
    """Write the sums of the bundled model."""
    bundle = Bundle("tiny")
    bundle.stamp()
    print(f"{bundle.card_file} describes {', '.join(path.name for path in bundle.files)}")


if __name__ == "__main__":
    main()
