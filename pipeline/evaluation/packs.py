"""Image-text packs: pictures with sentences or labels, in two files, for training and for measuring.

``NAME.npz`` holds ``jpeg`` (uint8 ``[bytes]``, all JPEG files end to end) and ``offset`` (int64 ``[n + 1]``): picture
i is ``jpeg[offset[i]:offset[i + 1]]``. Line i of ``NAME.jsonl.gz`` describes it: ``i``, ``w`` and ``h`` in pixels,
``key`` (its name in the source), ``split``, ``captions``; in labelled packs also ``label``, sometimes ``synonyms``.

Shapes: n pictures of H x W pixels.
"""

from __future__ import annotations

import difflib
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PackError

__all__ = ["ImageTextPack"]

_NPZ, _JSONL = ".npz", ".jsonl.gz"


class ImageTextPack:
    """Pictures ``0 .. n - 1`` and what is written about each; made by :meth:`open`."""

    def __init__(
        self, path: Path, rows: list[dict[str, Any]], jpeg: npt.NDArray[np.uint8], offset: npt.NDArray[np.int64]
    ) -> None:
        self.path = path
        """The ``.npz`` file."""
        self.rows = rows
        """Line i of the ``.jsonl.gz``, as it is there."""
        self._jpeg = jpeg
        self._offset = offset
        self._splits: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            self._splits.setdefault(row["split"], []).append(i)

    @classmethod
    def open(cls, folder_or_npz: str | Path, name: str | None = None) -> ImageTextPack:
        """Open ``FOLDER/NAME.npz`` with its ``.jsonl.gz``: by that path, with or without ``.npz``, or by both parts.

        Both files are read whole and checked, the JPEGs when they are asked for.

        Raises:
            PackError: a file that is not there, that cannot be read, or two that do not fit each other; file and line.
        """
        npz = _find(Path(folder_or_npz), name)
        jpeg, offset = _read_npz(npz)
        lines = npz.with_name(npz.name.removesuffix(_NPZ) + _JSONL)
        rows = _read_rows(lines)
        if len(rows) != len(offset) - 1:
            raise PackError(
                f"{lines} describes {len(rows)} pictures, {npz} has {len(offset) - 1} (an offset more than pictures)"
            )
        return cls(npz, rows, jpeg, offset)

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(_NPZ)

    @property
    def splits(self) -> dict[str, int]:
        """How many pictures each split has."""
        return {name: len(indices) for name, indices in self._splits.items()}

    @property
    def labelled(self) -> bool:
        """Whether every picture has a label."""
        return bool(self.rows) and all("label" in row for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, name: str) -> list[int]:
        """The indices of the pictures of a split, in their order.

        Raises:
            PackError: for a name that no picture has.
        """
        if name not in self._splits:
            near = difflib.get_close_matches(name, self._splits, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(f"{split} ({count})" for split, count in self.splits.items())
            raise PackError(f"{self.path}: no split {name!r}; there are {known}{hint}")
        return list(self._splits[name])

    def picture(self, i: int) -> npt.NDArray[np.uint8]:
        """Picture i, ``[H, W, 3]`` uint8 RGB; grey ones have three equal channels.

        Raises:
            PackError: for an index that is not there, and for a JPEG that cannot be read or has another size than its
                line says.
        """
        if not 0 <= i < len(self):
            raise PackError(f"{self.path}: no picture {i}; there are 0 to {len(self) - 1}")
        from PIL import Image

        row = self.rows[i]
        data = self._jpeg[self._offset[i] : self._offset[i + 1]].tobytes()
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
                picture = np.array(opened.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise PackError(f"{self.path}: picture {i} ({row['key']!r}) is no whole JPEG: {error}") from error
        if picture.shape[:2] != (row["h"], row["w"]):
            found = f"{picture.shape[1]} x {picture.shape[0]}"
            raise PackError(
                f"{self.path}: picture {i} ({row['key']!r}) is {found} pixels, its line says {row['w']} x {row['h']}"
            )
        return picture


def _find(path: Path, name: str | None) -> Path:
    """The ``.npz`` that was meant."""
    if name is not None:
        npz = path / f"{name.removesuffix(_NPZ)}{_NPZ}"
    elif path.is_dir():
        raise PackError(f"{path} is a folder: say which pack in it; {_packs_in(path)}")
    else:
        npz = path if path.name.endswith(_NPZ) else path.with_name(path.name + _NPZ)
    if not npz.is_file():
        raise PackError(f"{npz}: no such file; {_packs_in(npz.parent)}")
    return npz


def _packs_in(folder: Path) -> str:
    names = sorted(found.name.removesuffix(_NPZ) for found in folder.glob(f"*{_NPZ}")) if folder.is_dir() else []
    return f"{folder} has the packs {', '.join(names)}" if names else f"{folder} has no pack (NAME{_NPZ})"


def _read_npz(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        with zipfile.ZipFile(path):  # else np.load would take a single array, or a pickle, for what it is
            pass
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("jpeg", "offset") if key in archive.files}
            names = ", ".join(archive.files) or "nothing"
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise PackError(f"{path}: cannot be read as .npz: {error}") from error
    if missing := [key for key in ("jpeg", "offset") if key not in arrays]:
        raise PackError(f"{path}: lacks {' and '.join(missing)}; it has {names}")
    jpeg, offset = arrays["jpeg"], arrays["offset"]
    if jpeg.ndim != 1 or jpeg.dtype != np.uint8:
        raise PackError(f"{path}: jpeg must be uint8 [bytes], got {jpeg.dtype} {list(jpeg.shape)}")
    if offset.ndim != 1 or offset.dtype != np.int64 or len(offset) < 1:
        raise PackError(f"{path}: offset must be int64 [n + 1], got {offset.dtype} {list(offset.shape)}")
    if offset[0] != 0 or offset[-1] != len(jpeg):
        raise PackError(f"{path}: offset goes from {offset[0]} to {offset[-1]}, must go from 0 to {len(jpeg)}")
    if len(wrong := np.flatnonzero(np.diff(offset) <= 0)):
        i = int(wrong[0])
        raise PackError(f"{path}: offset must rise, but picture {i} goes from {offset[i]} to {offset[i + 1]}")
    return jpeg, offset


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with gzip.open(path, "rb") as file:
            return [_row(line, f"{path}:{i + 1}", i) for i, line in enumerate(file)]
    except FileNotFoundError as error:
        raise PackError(f"{path}: no such file; it describes the pictures of the .npz beside it") from error
    except (OSError, EOFError, zlib.error) as error:
        raise PackError(f"{path}: cannot be read: {error}") from error


def _row(line: bytes, where: str, i: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:  # not UTF-8, or not JSON
        raise PackError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise PackError(f"{where}: a JSON object was expected, got {type(row).__name__}")
    if problem := next(_problems(row, i), None):
        raise PackError(f"{where}: {problem}")
    return row


def _problems(row: dict[str, Any], i: int) -> Iterator[str]:
    if row.get("i") != i:
        yield f"'i' must be {i}, the number of the line from 0, got {row.get('i')!r}"
    for field in ("key", "split", *(("label",) if "label" in row else ())):
        if not isinstance(value := row.get(field), str) or not value.strip():
            yield f"{field!r} must be a text that is not empty, got {value!r}"
    for field in ("w", "h"):
        value = row.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield f"{field!r} must be a whole number of pixels of at least 1, got {value!r}"
    for field in ("captions", *(("synonyms",) if "synonyms" in row else ())):
        value = row.get(field)
        if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
            yield f"{field!r} must be a list of texts that are not empty, got {value!r}"
