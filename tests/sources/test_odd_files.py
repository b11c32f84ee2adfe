"""The files a decoder meets in the wild: each gives what the table of the shared media says."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import MediaUnreadable, NotAVideo, NoVideoStream, StillImage
from pipeline.isolation import Isolated
from pipeline.media import Span
from pipeline.sources import open_source
from pipeline.sources.probe import probe
from tests.drawing import packet_times

pytestmark = pytest.mark.media

# file: frames, size of the picture at short side 224, end in seconds
FRAMES = {
    "car_hevc_noaudio.mp4": (150, (224, 398), 12.0),
    "car_hevc_10bit.mkv": (150, (224, 398), 12.0),
    "bbb_vp9.webm": (288, (224, 398), 12.0),
    "bbb_av1.mp4": (192, (224, 398), 8.0),
    "car_mjpeg.avi": (125, (224, 398), 10.0),
    "raw_nodur.h264": (125, (224, 398), 10.0),
    "bottle_vfr.mp4": (572, (224, 398), 40.022),
    "car_rotated90.mp4": (150, (398, 224), 12.0),
    "anamorphic_sar2.mp4": (75, (224, 398), 6.0),
    "odd_dims_641x361.mp4": (75, (224, 398), 6.0),
    "ts_offset100.ts": (125, (224, 398), 10.0),
    "one_keyframe.mp4": (125, (224, 398), 10.0),
    "one_frame.mp4": (1, (224, 398), 0.08),
    "all_black_10s.mp4": (100, (224, 299), 10.0),
    "name with spaces & ünïcode 视频.mov": (125, (224, 398), 10.0),
    "car_bitflips.mp4": (377, (224, 398), 30.16),
}


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("name", FRAMES)
def test_frames_times_and_sizes(media: Path, name: str, decoder: str) -> None:
    count, size, end_seconds = FRAMES[name]
    path = media / "odd" / name
    with open_source(str(path), decoder=decoder) as source:
        frames = list(source.frames())
        assert source.damage.lost_seconds == 0
        assert source.info.duration_seconds is None or source.info.duration_seconds == pytest.approx(
            end_seconds, abs=0.1
        )
    assert len(frames) == count
    assert frames[0].pts == 0
    assert frames[0].image.shape[:2] == size
    assert frames[-1].end_seconds == pytest.approx(end_seconds, abs=0.05)
    assert all(frame.duration >= 1 for frame in frames)
    if name != "raw_nodur.h264":
        assert [frame.pts for frame in frames] == packet_times(path)


def test_rotation_gives_the_upright_picture(media: Path) -> None:
    """Turned back by the stated 90 degrees, the rotated file shows what the unrotated one does."""
    with (
        open_source(str(media / "odd/car_rotated90.mp4")) as turned,
        open_source(str(media / "odd/car_hevc_noaudio.mp4")) as plain,
    ):
        assert (turned.info.rotation, turned.info.width, turned.info.height) == (90, 432, 768)
        for a, b, _ in zip(turned.frames(), plain.frames(), range(20), strict=False):
            assert np.abs(np.rot90(a.image, -1).astype(int) - b.image).mean() < 4


@pytest.mark.parametrize(
    ("name", "decoded", "lost_seconds"),
    [("car_truncated_faststart.mp4", 82, 43 * 0.08), ("car_truncated_real_third.mp4", 130, 247 * 0.08)],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_cut_off_is_counted(media: Path, name: str, decoded: int, lost_seconds: float, threads: int) -> None:
    with open_source(str(media / "odd" / name), threads=threads) as source:
        assert len(list(source.frames())) == decoded
        assert source.decoder == "pyav"
        assert "truncated" in source.decoder_reason
        # A cut packet may still give a frame, or not: two frames of tolerance.
        assert source.damage.lost_seconds == pytest.approx(lost_seconds, abs=0.17)
        # Parts count their own share.
        shares = 0.0
        for span in (Span(0, 5), Span(5, 12), Span(12, 40)):
            list(source.frames(span))
            shares += source.damage.lost_seconds
        assert shares == pytest.approx(lost_seconds, abs=0.3)


def test_concealed_damage_is_counted(media: Path) -> None:
    path = str(media / "odd/car_bitflips.mp4")
    with open_source(path, decoder="pyav") as source:
        corrupt = [frame.corrupt for frame in source.frames()]
        assert sum(corrupt) == source.damage.corrupt_frames > 50
        assert source.damage.messages
    with Isolated() as child:  # there decord's own messages are seen, and PyAV goes on
        *times, last = child.stream("tests.sources.doubles:times_then_facts", path, "auto")
    assert len(times) == 377
    assert times == sorted(set(times))
    assert last[0] == "pyav"
    assert "decord met damage" in last[1]
    assert last[2].corrupt_frames > 50


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("car_truncated_nomoov.mp4", MediaUnreadable, "index is missing or damaged"),
        ("empty.mp4", NotAVideo, "empty"),
        ("text_named.mp4", NotAVideo, "no media container"),
        ("jpeg_named.mp4", StillImage, "still picture"),
        ("audio_only.mp4", NoVideoStream, "no video stream .*audio"),
    ],
)
def test_what_is_no_video_says_so(media: Path, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        open_source(str(media / "odd" / name))
    assert type(caught.value) is error
    assert name in str(caught.value)


def test_the_right_one_of_two_video_streams(media: Path) -> None:
    path = str(media / "clips/tc_nasa_13013.mp4")
    info = probe(path)
    assert (info.stream_index, info.video_streams, info.width, info.height) == (0, 2, 320, 180)
    assert info.duration_seconds == pytest.approx(13.0)
    with open_source(path) as source:
        assert len(list(source.frames())) == 325
    with pytest.raises(MediaUnreadable, match="decord would decode stream 3, not 0"):
        open_source(path, decoder="decord")


def test_an_edit_list_that_hides_frames(media: Path) -> None:
    """183 packets, of which the edit list shows 167; decord cannot tell and is not used."""
    path = media / "clips/ibm_baseball.mp4"
    with open_source(str(path)) as source:
        frames = list(source.frames())
        assert "edit list" in source.decoder_reason
        assert source.damage.lost_seconds == 0
    assert len(frames) == 167
    with av.open(str(path)) as container:
        shown = [frame.pts or 0 for frame in container.decode(video=0)]
    assert [frame.pts for frame in frames] == [pts - shown[0] for pts in shown]


def test_all_clips_agree_between_decoders(media: Path) -> None:
    for path in sorted((media / "clips").glob("*.mp4"))[:4]:
        with open_source(str(path), decoder="pyav", short_side=64) as source:
            plain = [(f.pts, f.duration, f.image[::8, ::8].astype(int)) for f in source.frames(Span(0, 3))]
        with open_source(str(path), short_side=64) as source:
            auto = [(f.pts, f.duration, f.image[::8, ::8].astype(int)) for f in source.frames(Span(0, 3))]
        assert [a[:2] for a in auto] == [p[:2] for p in plain]
        assert all(np.abs(a[2] - p[2]).mean() < 2 for a, p in zip(auto, plain, strict=True))
