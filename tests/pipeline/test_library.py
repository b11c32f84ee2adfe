"""The Python face: open, query, remove, iterate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from encoders import EncoderInfo, FrameTokens, LoadOptions
from pipeline.errors import LibraryBusy, ModelMismatch, NotALibrary, QueryError, UnknownVideo
from pipeline.library import Library
from tests.catalog.content import DIMENSION, add

WORDS = {"red": 0, "green": 1, "blue": 2}
NAME = "python:tests.pipeline.test_library:colours"
LOADED: list[Any] = []


class Colours:
    """A model of the real interface that knows three words and the mean colour of a picture."""

    def __init__(self, name: str = NAME, fingerprint: str = "colours") -> None:
        self.closed = False
        self.info = EncoderInfo(
            name=name,
            dimension=DIMENSION,
            token_width=0,
            patches=0,
            grid=(0, 0),
            image_height=8,
            image_width=8,
            preprocess={"mean": [0.0, 0.0, 0.0]},
            fingerprint=fingerprint,
            random=False,
            precision="fp32",
            precision_reason="",
            device="cpu",
            batch_size=1,
            weights="random:0",
        )

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        raise NotImplementedError

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        # The background queries of the calibration are none of the three.
        return torch.eye(DIMENSION)[[WORDS.get(text, DIMENSION - 1) for text in texts]]

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encode_text(texts)

    def encode_image(self, image: Image.Image | npt.NDArray[np.uint8]) -> torch.Tensor:
        mean = torch.tensor(np.asarray(image)[..., :3].reshape(-1, 3).mean(axis=0))
        return torch.cat([mean, torch.zeros(DIMENSION - 3)]).float()

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Colours:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def colours(options: LoadOptions) -> Colours:
    LOADED.append(Colours())
    return LOADED[-1]


def filled(path: Path) -> Library:
    """Red for 10 s, green, then blue and red again, in one video; green in another."""
    library = Library.open(path, encoder=Colours())
    eye = np.eye(DIMENSION)
    with library.writing("test") as catalog:
        for name, rows in {"a.mp4": [0, 1, 2, 0], "b.mp4": [1, 1, 3, 3]}.items():
            embedding = np.repeat(eye[rows], 2, axis=0)
            add_vectors(catalog, f"/v/{name}", embedding, tag=name[0])
    return library


def add_vectors(catalog: Any, uri: str, embedding: np.ndarray, tag: str) -> None:
    from tests.catalog.content import part_result, plan

    video, (part,) = plan(catalog, uri, parts=1, seconds=40.0, tags=(tag,))
    catalog.commit_part(part.id, part_result(part.span, segments=2, vectors=len(embedding) // 2, embedding=embedding))
    catalog.finish_video(video)


@pytest.fixture
def library(tmp_path: Path) -> Any:
    with filled(tmp_path / "library") as opened:
        yield opened


def places(moments: list[Any]) -> list[tuple[str, float, float]]:
    return [(moment.name, moment.start_seconds, moment.end_seconds) for moment in moments]


def test_four_ways_to_ask(library: Library, tmp_path: Path) -> None:
    expected = ("a.mp4", 20.0, 30.0)
    assert places(library.query("blue"))[0] == expected
    assert places(library.query(vector=np.eye(DIMENSION)[2]))[0] == expected
    assert places(library.query(like=("a.mp4", 25.0)))[0] == expected
    picture = Image.new("RGB", (20, 10), (0, 0, 255))
    picture.save(tmp_path / "p.png")
    for image in (picture, np.asarray(picture), tmp_path / "p.png", str(tmp_path / "p.png")):
        assert places(library.query(image=image))[0] == expected
    assert library.query("blue")[0].score == pytest.approx(1.0, abs=1e-3)


def test_filters_and_limit(library: Library) -> None:
    assert places(library.query("green", limit=2)) == [("b.mp4", 0.0, 20.0), ("a.mp4", 10.0, 20.0)] or places(
        library.query("green", limit=2)
    ) == [("a.mp4", 10.0, 20.0), ("b.mp4", 0.0, 20.0)]
    assert places(library.query("green", limit=1, video="a.mp4")) == [("a.mp4", 10.0, 20.0)]
    assert places(library.query("green", limit=1, tag="b")) == [("b.mp4", 0.0, 20.0)]
    assert places(library.query("red", limit=1, video="a.mp4", start_seconds=12)) == [("a.mp4", 30.0, 40.0)]
    assert places(library.query("red", limit=1, video="a.mp4", end_seconds=7)) == [("a.mp4", 0.0, 7.0)]
    now = datetime.now(timezone.utc)
    assert library.query("red", added_after=now + timedelta(hours=1)) == []
    assert library.query("red", added_after=now - timedelta(hours=1))


def test_queries_that_cannot_be_asked(library: Library, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="give one of text, image, like, vector; got none"):
        library.query()
    with pytest.raises(QueryError, match="got text, like"):
        library.query("red", like=("a.mp4", 1))
    with pytest.raises(QueryError, match="empty"):
        library.query("  ")
    with pytest.raises(QueryError, match="limit 0"):
        library.query("red", limit=0)
    with pytest.raises(QueryError, match=r"a\.mp4@40: .* from 0 to 40 s"):
        library.query(like=("a.mp4", 40.0))  # half-open
    with pytest.raises(UnknownVideo, match=r"near: 'a\.mp4'"):
        library.query("red", video="aa.mp4")
    with pytest.raises(UnknownVideo):
        library.query(like=("zzz", 1.0))
    with pytest.raises(QueryError, match=r"vector must be \[8\]"):
        library.query(vector=np.ones(3))
    with pytest.raises(QueryError, match="must end after"):
        library.query("red", start_seconds=5, end_seconds=2)
    with pytest.raises(QueryError, match="no such picture"):
        library.query(image=tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(QueryError, match="not a picture"):
        library.query(image=tmp_path / "text.png")
    Image.new("RGB", (200, 200)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:100])
    with pytest.raises(QueryError, match="cannot be read"):
        library.query(image=tmp_path / "cut.png")


def test_listing_and_removing(library: Library) -> None:
    assert [video.name for video in library] == ["a.mp4", "b.mp4"]
    assert len(library) == 2
    assert [video.name for video in library.videos(tag="b")] == ["b.mp4"]
    assert library.video("a.mp4").id in library
    assert places(library.query("green", limit=5))
    removed = library.remove("b.mp4")
    assert removed.name == "b.mp4"
    assert {name for name, _, _ in places(library.query("green"))} == {"a.mp4"}
    library.remove("a.mp4")
    assert (len(library), bool(library), library.query("green")) == (0, True, [])
    with pytest.raises(UnknownVideo):
        library.remove("a.mp4")


def test_reading_goes_on_while_another_writes(library: Library) -> None:
    with Library.open(library.path) as reader, library.writing("submit clips"):
        before = len(reader.query(vector=np.ones(DIMENSION), limit=100))
        add(library.catalog, "/v/new.mp4", seed=5)
        moments = reader.query(vector=np.ones(DIMENSION), limit=100)
        assert len(moments) > before  # what was just committed is found
        assert "new.mp4" in {moment.name for moment in moments}
        with pytest.raises(LibraryBusy, match="submit clips"):
            reader.remove("a.mp4")


def test_the_model_is_loaded_only_when_needed(tmp_path: Path) -> None:
    filled(tmp_path / "l").close()
    LOADED.clear()
    with Library.open(tmp_path / "l") as library:
        assert library.model == NAME
        assert library.query(like=("a.mp4", 1.0))
        assert library.query(vector=np.ones(DIMENSION))
        assert LOADED == []
        library.query("red")
        library.query("blue")
        assert len(LOADED) == 1
    assert LOADED[0].closed
    with Library.open(tmp_path / "l", encoder=(mine := Colours())) as library:
        library.query("red")
    assert not mine.closed  # who brings a model closes it


def test_opening(tmp_path: Path) -> None:
    with pytest.raises(NotALibrary, match="name a model"):
        Library.open(tmp_path / "x")
    with pytest.raises(NotALibrary, match="no such folder"):
        Library.open(tmp_path / "x", NAME, create=False)
    assert not (tmp_path / "x").exists()
    with Library.open(tmp_path / "x", NAME) as library:  # made by name alone; its model is bound with the first video
        assert library.query("red") == []
        assert len(library) == 0
        with filled(tmp_path / "y") as other:
            assert other.query("red")
    with pytest.raises(ModelMismatch, match=r"'python:tests.*another:model'"):
        Library.open(tmp_path / "y", "another:model")
    with pytest.raises(ModelMismatch, match="weights"):
        Library.open(tmp_path / "y", encoder=Colours(fingerprint="changed"))
    with pytest.raises(ModelMismatch, match="was named"):
        Library.open(tmp_path / "y", "another:model", encoder=Colours())


def test_a_library_bound_after_opening_is_seen(tmp_path: Path) -> None:
    with Library.open(tmp_path, NAME) as early:
        assert early.query("red") == []
        with Library.open(tmp_path, NAME) as writer:
            writer.store.bind(Colours().info)
            with writer.writing("test") as catalog:
                add_vectors(catalog, "/v/a.mp4", np.repeat(np.eye(DIMENSION)[[0, 1]], 2, axis=0), tag="a")
        assert places(early.query("red", limit=1)) == [("a.mp4", 0.0, 20.0)]


def test_a_model_that_changed_under_its_name_is_refused(tmp_path: Path) -> None:
    Library.open(tmp_path / "l", encoder=Colours(fingerprint="old")).close()
    with Library.open(tmp_path / "l") as library:
        add(library.catalog)
        LOADED.clear()
        with pytest.raises(ModelMismatch, match="weights or architecture old, now colours"):
            library.query("red")
        assert LOADED[0].closed


def test_importing_and_opening_load_nothing_heavy(tmp_path: Path) -> None:
    filled(tmp_path / "l").close()
    code = (
        "import sys; from pipeline.library import Library\n"
        "with Library.open(sys.argv[1]) as library: assert len(library) == 2\n"
        "heavy = {'torch', 'faiss', 'open_clip', 'PIL', 'alembic', 'av', 'decord'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "l")], capture_output=True, text=True, check=False
    )
    assert (result.stderr.strip(), result.returncode) == ("", 0)


def test_without_faiss_the_two_extras_are_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"longreel\[cpu\].*longreel\[gpu\]"):
        library.query("red")
