"""Image-text packs: what is read, and what is refused with file and line."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.errors import InputError, PackError
from pipeline.evaluation.packs import ImageTextPack
from tests.pipeline.evaluation.packing import COLOURS, colours_pack, jpeg, plain, write_files


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return colours_pack(tmp_path)


def rewrite(npz: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a pack."""
    path = npz.with_name("colours.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    change(rows)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def rearray(npz: Path, **changed: Any) -> None:
    """Change the arrays of a pack; None takes one out."""
    with np.load(npz) as archive:
        arrays = {**{key: archive[key] for key in archive.files}, **changed}
    np.savez(npz, **{key: value for key, value in arrays.items() if value is not None})


def test_what_is_in_a_pack(npz: Path) -> None:
    pack = ImageTextPack.open(npz)
    assert (pack.name, len(pack), pack.splits) == ("colours", 12, {"test": 6, "train": 6})
    assert pack.split("train") == list(range(6, 12))
    assert not pack.labelled
    assert pack.rows[1]["captions"] == ["a green wall .", "green all over ."]
    for i, colour in enumerate(COLOURS):
        picture = pack.picture(i)
        assert (picture.shape, picture.dtype) == ((24, 32, 3), np.uint8)
        assert abs(picture.astype(int) - COLOURS[colour]).max() < 6
        picture[:] = 0  # its own memory
    assert pack.picture(6).shape == (24, 40, 3)
    assert pack.picture(0).any()


def test_the_ways_to_name_one(npz: Path) -> None:
    ways: list[tuple[Any, ...]] = [(npz,), (str(npz),), (npz.with_suffix(""),), (npz.parent, "colours")]
    for way in [*ways, (npz.parent, "colours.npz")]:
        assert ImageTextPack.open(*way).path == npz


def test_a_split_is_the_callers_to_change(npz: Path) -> None:
    pack = ImageTextPack.open(npz)
    pack.split("test").clear()
    assert len(pack.split("test")) == 6


def test_labels(tmp_path: Path) -> None:
    assert ImageTextPack.open(colours_pack(tmp_path, labelled=True)).labelled


def test_grey_pictures_have_three_channels(tmp_path: Path) -> None:
    row = {"i": 0, "w": 5, "h": 3, "key": "grey", "split": "test", "captions": []}
    pack = ImageTextPack.open(write_files(tmp_path, "grey", [jpeg(np.full((3, 5), 90, np.uint8))], [row]))
    assert pack.picture(0).shape == (3, 5, 3)


def test_an_unknown_split_names_those_there_are(npz: Path) -> None:
    with pytest.raises(PackError, match=r"no split 'tests'; there are test \(6\), train \(6\); did you mean 'test'"):
        ImageTextPack.open(npz).split("tests")


@pytest.mark.parametrize("i", [-1, 12])
def test_an_index_that_is_not_there(npz: Path, i: int) -> None:
    with pytest.raises(PackError, match=f"no picture {i}; there are 0 to 11"):
        ImageTextPack.open(npz).picture(i)


def test_no_such_pack_names_those_there_are(npz: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"colors\.npz: no such file; .* has the packs colours"):
        ImageTextPack.open(npz.parent, "colors")
    with pytest.raises(PackError, match=r"is a folder: say which pack in it; .* has the packs colours"):
        ImageTextPack.open(npz.parent)
    with pytest.raises(PackError, match="has no pack"):
        ImageTextPack.open(tmp_path / "nowhere" / "colours")


def test_a_missing_description(npz: Path) -> None:
    npz.with_name("colours.jsonl.gz").unlink()
    with pytest.raises(PackError, match=r"colours.jsonl.gz: no such file"):
        ImageTextPack.open(npz)


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_damaged_files(npz: Path, cut: int) -> None:
    lines = npz.with_name("colours.jsonl.gz")
    whole = lines.read_bytes()
    lines.write_bytes(whole[:cut] or b"no gzip at all")
    with pytest.raises(PackError, match=r"colours\.jsonl\.gz: cannot be read"):
        ImageTextPack.open(npz)
    lines.write_bytes(whole)
    npz.write_bytes(npz.read_bytes()[:cut])
    with pytest.raises(PackError, match=r"colours\.npz: cannot be read as \.npz"):
        ImageTextPack.open(npz)


def test_a_single_array_is_no_pack(npz: Path) -> None:
    with npz.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(PackError, match=r"cannot be read as \.npz"):
        ImageTextPack.open(npz)


def test_objects_are_not_unpickled(npz: Path) -> None:
    rearray(npz, offset=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PackError, match="cannot be read"):
        ImageTextPack.open(npz)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"offset": None}, "lacks offset; it has jpeg"),
        ({"jpeg": None, "offset": None}, "lacks jpeg and offset; it has nothing"),
        ({"jpeg": np.zeros((4, 4), np.uint8)}, r"jpeg must be uint8 \[bytes\], got uint8 \[4, 4\]"),
        ({"offset": np.zeros(4)}, r"offset must be int64 \[n \+ 1\], got float64 \[4\]"),
        ({"offset": np.zeros(0, np.int64)}, "offset must be"),
        ({"offset": np.array([0, 7], np.int64)}, "offset goes from 0 to 7, must go from 0 to"),
        ({"jpeg": np.zeros(9, np.uint8), "offset": np.array([3, 9], np.int64)}, "offset goes from 3 to 9"),
        ({"jpeg": np.zeros(9, np.uint8), "offset": np.array([0, 5, 4, 9])}, "picture 1 goes from 5 to 4"),
        ({"jpeg": np.zeros(9, np.uint8), "offset": np.array([0, 5, 9])}, "describes 12 pictures, .* has 2"),
    ],
)
def test_arrays_that_do_not_fit(npz: Path, changed: dict[str, Any], said: str) -> None:
    rearray(npz, **changed)
    with pytest.raises(PackError, match=said):
        ImageTextPack.open(npz)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("i", 4, "'i' must be 3, the number of the line from 0, got 4"),
        ("key", "", "'key' must be a text that is not empty, got ''"),
        ("split", None, "'split' must be a text"),
        ("label", 7, "'label' must be a text"),
        ("w", 0, "'w' must be a whole number of pixels"),
        ("h", True, "'h' must be a whole number of pixels"),
        ("captions", "one", "'captions' must be a list of texts"),
        ("captions", ["fine", " "], "'captions' must be a list of texts"),
        ("synonyms", [1], "'synonyms' must be a list of texts"),
    ],
)
def test_a_bad_line_is_named(npz: Path, field: str, value: object, said: str) -> None:
    rewrite(npz, lambda rows: rows[3].update({field: value}))
    with pytest.raises(PackError, match=rf"colours\.jsonl\.gz:4: {re.escape(said)}"):
        ImageTextPack.open(npz)


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff\xfe"])
def test_a_line_that_is_no_object(npz: Path, line: bytes) -> None:
    npz.with_name("colours.jsonl.gz").write_bytes(gzip.compress(line + b"\n"))
    with pytest.raises(PackError, match=r"colours\.jsonl\.gz:1: "):
        ImageTextPack.open(npz)


@pytest.mark.parametrize(
    "broken",
    [b"no jpeg", png(plain("red")), jpeg(plain("red"))[:200], jpeg(plain("red"))[:-40]],
    ids=["text", "PNG", "header alone", "cut off"],
)
def test_a_broken_picture_is_named(tmp_path: Path, broken: bytes) -> None:
    rows = [{"i": i, "w": 32, "h": 24, "key": f"key {i}", "split": "test", "captions": ["a wall"]} for i in range(2)]
    pack = ImageTextPack.open(write_files(tmp_path, "broken", [jpeg(plain("red")), broken], rows))
    assert pack.picture(0).shape == (24, 32, 3)
    with pytest.raises(PackError, match=r"picture 1 \('key 1'\) is no whole JPEG"):
        pack.picture(1)


def test_a_picture_of_another_size_is_refused(npz: Path) -> None:
    rewrite(npz, lambda rows: rows[0].update(w=33))
    with pytest.raises(PackError, match=r"picture 0 \('red_0'\) is 32 x 24 pixels, its line says 33 x 24"):
        ImageTextPack.open(npz).picture(0)


def test_the_error_is_of_the_tree() -> None:
    assert issubclass(PackError, InputError)


@pytest.fixture(scope="module")
def packs() -> Path:
    """The folder of shared photographs; skips the test, with the reason, where there is none."""
    named = os.environ.get("LONGREEL_PACKS")
    folder = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "train"
    if not (folder / "flickr8k.npz").is_file():
        pytest.skip(f"no shared photographs: {folder} has no flickr8k.npz (set LONGREEL_PACKS)")
    return folder


@pytest.mark.parametrize(
    ("name", "splits", "labelled", "size"),
    [
        ("flickr8k", {"train": 6000, "val": 1000, "test": 1000, "train_extra": 91}, False, (96, 96, 3)),
        ("tinyimagenet", {"train": 50_000, "val": 4000}, True, (64, 64, 3)),
        ("caltech101", {"val": 480, "train": 3289}, True, None),
    ],
)
def test_shared_packs(
    packs: Path, name: str, splits: dict[str, int], labelled: bool, size: tuple[int, ...] | None
) -> None:
    pack = ImageTextPack.open(packs, name)
    assert (pack.splits, pack.labelled) == (splits, labelled)
    shapes = {pack.picture(i).shape for i in range(0, len(pack), 997)}
    assert size is None or shapes == {size}
    assert min(min(shape[:2]) for shape in shapes) >= 64
