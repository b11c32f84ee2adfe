"""A stream watched in one process: captions as they come, windows in the library, one line of time for two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, CaptionerInfo
from encoders.errors import EncoderError
from pipeline import Library
from pipeline.errors import OptionError, SourceError
from pipeline.live.captions import WordsMissing
from pipeline.live.loop import side_of, stream_captions, stream_uri
from pipeline.live.options import LiveSettings, WindowOptions
from tests.jobs.streaming import SCENE_SECONDS, scenes_film
from tests.pipeline.fakes import SIDE, ToneEncoder


class Counting:
    """A captioner that tells how many tokens or key frames it was given. ``reads``: the model whose tokens it takes."""

    def __init__(self, reads: str = "tone", key_frames: int = 0, same: bool = False) -> None:
        self.asked: list[int] = []
        self.same = same
        self.info = CaptionerInfo("python:counting", "c", False, reads, 3, 8, SIDE, SIDE, "cpu", key_frames)

    def tokens(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(frames.mean((1, 2), dtype=np.float32))[:, None]

    def caption(
        self, token_sets: Sequence[TokenSet | None], *, spans: Any = None, key_frames: Any = None
    ) -> list[Caption]:
        said = []
        for i, (start, end) in enumerate(spans):
            one = token_sets[i]
            count = len(key_frames[i]) if one is None else len(one.tokens)
            self.asked.append(count)
            words = "the same" if self.same else f"{len(self.asked)}: {count} things"
            said.append(Caption(words, start, end, self.info.name, None))
        return said

    def close(self) -> None: ...

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *exc: object) -> None: ...


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return scenes_film(tmp_path / "film.mp4", 12)


@pytest.mark.parametrize("captioner", [Counting(), Counting(reads=""), Counting(key_frames=2)])
def test_captions_come_and_windows_stay(tmp_path: Path, film: Path, captioner: Counting) -> None:
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library:
        captions = list(stream_captions(library, str(film), captioner=captioner, name="film"))
        assert [caption.span.start_seconds for caption in captions] == [0, 3, 6, 9]
        assert captions[-1].span.end_seconds == pytest.approx(12, abs=0.15)
        assert all(caption.utc is not None and caption.text for caption in captions)
        if captioner.info.key_frames:
            assert all(1 <= count <= 2 for count in captioner.asked)
        record = library.video("film")
        assert record.state == "done"
        assert [row.span.start_seconds for row in library.catalog.segments_of(record.id)] == [0, 3, 6, 9]
        assert len(library.catalog.captions_of(record.id)) == 4
        (moment, *_) = library.query(like=("film", 1.5 * SCENE_SECONDS))
        assert moment.start_seconds <= 1.5 * SCENE_SECONDS < moment.end_seconds


def test_the_same_words_for_what_follows_hold_on(tmp_path: Path, film: Path) -> None:
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library:
        captions = list(stream_captions(library, str(film), captioner=Counting(same=True), name="film"))
        assert [caption.extends for caption in captions] == [False, True, True, True]
        (kept,) = library.catalog.captions_of(library.video("film").id)
        assert (kept.span.start_seconds, kept.span.end_seconds) == (0.0, pytest.approx(12, abs=0.15))


def test_closing_it_early_keeps_what_was_seen(tmp_path: Path, film: Path) -> None:
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library:
        watching = stream_captions(library, str(film), captioner=Counting())
        next(watching)
        watching.close()  # type: ignore[attr-defined]
        (record,) = library.catalog.streams()
        assert record.state.is_over
        assert library.catalog.segments_of(record.video_id)


def test_a_second_run_goes_on_after_the_first(tmp_path: Path, film: Path) -> None:
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library:
        for _ in range(2):
            list(stream_captions(library, str(film), captioner=Counting(), name="film"))
        first, second = library.catalog.connections_of(library.video("film").id)
        assert first.end_seconds is not None
        assert second.start_seconds >= first.end_seconds >= 11.8
        starts = [row.span.start_seconds for row in library.catalog.segments_of(library.video("film").id)]
        assert len(starts) == 8
        assert starts == sorted(starts)


def test_others_may_write_to_a_library_that_knows_its_model(tmp_path: Path, film: Path) -> None:
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library, library.writing("submit"):
        library.store.bind(library.encoder.info)
        assert len(list(stream_captions(library, str(film), captioner=Counting()))) == 4


def test_a_stream_that_fails_is_written_down(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library:
        with pytest.raises(SourceError):
            list(stream_captions(library, str(tmp_path / "absent.mp4"), captioner=Counting()))
        (record,) = library.catalog.streams()
        assert record.error_type is not None
        with pytest.raises(OptionError, match="more than 0"):
            list(stream_captions(library, "x.mp4", captioner=Counting(), duration_seconds=0))


def test_a_captioner_that_fails_ends_it_and_keeps_what_was_said(tmp_path: Path, film: Path) -> None:
    class Failing(Counting):
        def caption(self, *given: Any, **more: Any) -> list[Caption]:
            if len(self.asked) == 2:
                raise EncoderError("no more")
            return super().caption(*given, **more)

    said: list[str] = []
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library:
        watching = stream_captions(library, str(film), captioner=Failing(), name="film")
        with pytest.raises(WordsMissing, match="EncoderError: no more"):
            said.extend(caption.text for caption in watching)
        kept = library.catalog.captions_of(library.video("film").id)
        assert len(said) == 2
        assert [one.text for one in kept] == said
        (record,) = library.catalog.streams()
        assert record.error_type == "WordsMissing"


def test_short_windows_are_many(tmp_path: Path, film: Path) -> None:
    settings = LiveSettings(window=WindowOptions(max_seconds=1, still_seconds=1))
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as library:
        captions = list(stream_captions(library, str(film), captioner=Counting(), settings=settings))
        assert len(captions) == pytest.approx(12, abs=1)


def test_pictures_are_as_large_as_those_who_look_at_them_want() -> None:
    encoder = ToneEncoder().info
    assert side_of(encoder, None) == side_of(encoder, Counting().info) == SIDE
    looks = replace(Counting(key_frames=2).info, image_height=448, image_width=600)
    assert side_of(encoder, looks) == 448
    assert side_of(encoder, replace(looks, key_frames=0)) == SIDE


def test_what_a_stream_is_known_by(tmp_path: Path) -> None:
    assert stream_uri("rtsp://user:secret@host/live", "gate") == "rtsp://host/live"
    assert stream_uri("-", "feed") == "stdin:feed"
    assert stream_uri(str(tmp_path / "a.mp4"), "x") == str(tmp_path / "a.mp4")
    assert stream_uri(f"tail:{tmp_path}/a.ts", "x") == f"tail:{tmp_path}/a.ts"
