"""The writer of videos: what is written is read back, at its times, whatever the codec."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import InputError, OptionError
from pipeline.sources import open_source, write_video
from pipeline.sources.writing import ENCODERS, can_encode
from tests.drawing import numbered_picture, read_number

_ENDINGS = {"libx264": ".mp4", "libx265": ".mkv", "libvpx-vp9": ".webm", "mpeg4": ".avi", "libsvtav1": ".mp4"}


def _pictures(count: int) -> list[npt.NDArray[np.uint8]]:
    return [numbered_picture(number) for number in range(count)]


def test_every_codec_has_a_case() -> None:
    assert set(_ENDINGS) == set(ENCODERS)


@pytest.mark.parametrize("codec", list(ENCODERS))
def test_written_frames_are_read_back_in_order_and_on_time(codec: str, tmp_path: Path) -> None:
    if not can_encode(codec):
        pytest.skip(f"not here: this PyAV has no encoder {codec}")
    path = write_video(tmp_path / f"film{_ENDINGS[codec]}", _pictures(30), rate=24, codec=codec)
    with open_source(str(path), short_side=None) as source:
        frames = list(source.frames())
    assert [read_number(frame.image) for frame in frames] == list(range(30))
    assert [frame.pts_seconds for frame in frames] == pytest.approx([k / 24 for k in range(30)], abs=0.001)
    assert frames[-1].end_seconds == pytest.approx(30 / 24, abs=0.002)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_given_times_are_kept(ending: str, tmp_path: Path) -> None:
    starts = [Fraction(k, 25) + (Fraction(3, 5) if k >= 10 else 0) for k in range(20)]
    path = write_video(tmp_path / f"film{ending}", _pictures(20), starts_seconds=starts)
    with open_source(str(path), short_side=None) as source:
        frames = list(source.frames())
    assert [frame.pts_seconds for frame in frames] == pytest.approx([float(s) for s in starts], abs=0.001)
    assert frames[9].end_seconds == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize(
    ("pictures", "more", "error", "said"),
    [
        (_pictures(2), {"codec": "realvideo"}, OptionError, "realvideo"),
        (_pictures(2), {"rate": 0}, OptionError, "rate 0"),
        ([], {}, InputError, "no frames"),
        ([numbered_picture(0, 161, 120)], {}, InputError, "even"),
        ([numbered_picture(0), numbered_picture(1, 80, 60)], {}, InputError, "frame 1"),
        (_pictures(3), {"starts_seconds": [Fraction(0), Fraction(1)]}, InputError, "2 times"),
        (_pictures(2), {"starts_seconds": [Fraction(0), Fraction(1), Fraction(2)]}, InputError, "3 times for 2"),
        (_pictures(2), {"starts_seconds": [Fraction(1), Fraction(1)]}, InputError, "rise"),
    ],
)
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    pictures: list[npt.NDArray[np.uint8]], more: dict[str, object], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        write_video(tmp_path / "film.mp4", pictures, **more)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", _pictures(5))
    before = path.read_bytes()

    def broken():  # type: ignore[no-untyped-def]
        yield from _pictures(3)
        raise RuntimeError("the painter stopped")

    with pytest.raises(RuntimeError, match="the painter stopped"):
        write_video(path, broken())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]
