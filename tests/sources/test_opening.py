"""Choosing a decoder, changing it in the middle, and decoders that crash and hang on purpose."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from pipeline.errors import DecoderCrashed, DecoderHung, OptionError, SourceUnreadable
from pipeline.isolation import Isolated
from pipeline.media import MediaInfo, Span
from pipeline.sources import open_source, opening
from pipeline.sources.opening import choose_decoder
from tests.drawing import draw_video, read_number

PLAIN = MediaInfo(
    uri="/v.mp4",
    container="mov,mp4,m4a,3gp,3g2,mj2",
    codec="h264",
    width=640,
    height=360,
    rotation=0,
    sample_aspect_ratio=Fraction(1),
    time_base=Fraction(1, 12800),
    start_pts=0,
    duration_seconds=20.0,
    frame_count=500,
    average_fps=25.0,
    stream_index=0,
    video_streams=1,
    size_bytes=1_000_000,
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_video(tmp_path_factory.mktemp("v") / "v.mp4", frames=40)


def test_the_policy_says_why() -> None:
    assert choose_decoder(PLAIN).decoder == "decord"
    refused = {
        "mpegts": replace(PLAIN, container="mpegts"),
        "hevc": replace(PLAIN, codec="hevc"),
        "truncated": replace(PLAIN, notes=("truncated: 3 of 9 packets",)),
        "no duration": replace(PLAIN, duration_seconds=None),
        "2 video streams": replace(PLAIN, video_streams=2),
        "long": replace(PLAIN, frame_count=100_000),
    }
    for words, info in refused.items():
        choice = choose_decoder(info)
        assert choice.decoder == "pyav"
        assert words in choice.reason
    assert choose_decoder(PLAIN, Span(5, 10)).decoder == "pyav"
    assert choose_decoder(PLAIN, Span(0, 5)).decoder == "pyav"
    assert choose_decoder(PLAIN, Span(0, 25)).decoder == "decord"
    assert choose_decoder(PLAIN, keyframes_only=True).decoder == "pyav"
    assert choose_decoder(PLAIN, short_side=1080).decoder == "pyav"


@pytest.mark.parametrize("span", [None, Span(0.0, 1.3)])
def test_auto_goes_on_where_a_decoder_gives_up(video: Path, span: Span | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_source(str(video), decoder="pyav") as source:
        expected = [(frame.pts, frame.duration) for frame in source.frames(span)]
    monkeypatch.setitem(opening.DECODERS, "decord", "tests.sources.doubles:GivingUp")
    monkeypatch.setattr(opening, "choose_decoder", lambda info, *_, **__: opening.Choice("decord", "for the test"))
    with open_source(str(video)) as source:
        frames = list(source.frames(span))
        assert [(frame.pts, frame.duration) for frame in frames] == expected
        assert [read_number(frame.image) for frame in frames] == list(range(len(expected)))
        assert source.decoder == "pyav"
        assert source.decoder_reason == "gave up on purpose"
        again = [(frame.pts, frame.duration) for frame in source.frames(span)]
        assert again == expected


def test_real_decord_gives_up_on_hevc_and_pyav_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw_video(tmp_path / "v.mkv", codec="libx265", frames=50)
    monkeypatch.setattr(opening, "choose_decoder", lambda info, *_, **__: opening.Choice("decord", "for the test"))
    with open_source(str(path)) as source:
        assert [read_number(frame.image) for frame in source.frames()] == list(range(50))


def test_a_decoder_that_crashes_and_one_that_hangs(video: Path) -> None:
    with Isolated() as child:
        for factory, error in (("crashing", DecoderCrashed), ("hanging", DecoderHung)):
            seen = child.stream(
                "tests.sources.doubles:times_then_facts",
                str(video),
                f"tests.sources.doubles:{factory}",
                stall_seconds=2.0,
                label="v.mp4",
            )
            assert [next(seen) for _ in range(5)] == [512 * i for i in range(5)]
            with pytest.raises(error, match=r"v\.mp4: "):
                next(seen)
        *times, _ = child.stream("tests.sources.doubles:times_then_facts", str(video), "auto")
        assert len(times) == 40


def test_unknown_decoders_and_remote_paths_are_refused(video: Path) -> None:
    with pytest.raises(OptionError, match="'nope' is not known; allowed: auto, decord, pyav"):
        open_source(str(video), decoder="nope")
    with pytest.raises(OptionError, match="cannot be loaded"):
        open_source(str(video), decoder="tests.sources.doubles:nothing")
    with pytest.raises(SourceUnreadable, match=r"https://h/v\.mp4: .*local first"):
        open_source("https://u:secret@h/v.mp4")


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_memory_stays_bounded_while_the_consumer_is_slow(tmp_path: Path, decoder: str) -> None:
    """1500 frames of 640x360 would be 1 GB."""
    path = draw_video(tmp_path / "long.mp4", frames=1000, size=(640, 360), gop=50)
    with Isolated() as child:
        seen = child.stream("tests.sources.doubles:times_then_facts", str(path), decoder)
        for _ in range(30):
            next(seen)
        assert child.pid is not None
        process = psutil.Process(child.pid)
        before = process.memory_info().rss
        peak = before
        for _ in range(10):
            time.sleep(0.1)
            for _ in range(20):
                next(seen)
            peak = max(peak, process.memory_info().rss)
        assert peak - before < 40e6


def test_importing_sources_is_light() -> None:
    code = (
        "import sys, pipeline.sources, pipeline.isolation, pipeline.sources.opening, pipeline.sources.naming\n"
        "heavy = {'av', 'decord', 'torch', 'fsspec', 'aiohttp', 'cv2', 's3fs'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
