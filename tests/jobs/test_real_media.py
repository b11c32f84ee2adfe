"""The files that a decoder meets in the wild, all in one job: each gives what the table of the shared media says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.running import Ran, assert_covered, longreel, settings, tiny_model

pytestmark = [pytest.mark.media, pytest.mark.ray]

UNREADABLE = {
    "audio_only.mp4": "NoVideoStream",
    "car_truncated_nomoov.mp4": "MediaUnreadable",
    "empty.mp4": "NotAVideo",
    "jpeg_named.mp4": "StillImage",
    "text_named.mp4": "NotAVideo",
}
WIDE = 16 / 9
# name: (frames, last frame's end in seconds, width / height as displayed)
GOOD = {
    "all_black_10s.mp4": (100, 10.0, 4 / 3),
    "anamorphic_sar2.mp4": (75, 6.0, WIDE),
    "bbb_av1.mp4": (192, 8.0, WIDE),
    "bbb_vp9.webm": (288, 12.0, WIDE),
    "bottle_vfr.mp4": (572, 40.022, WIDE),
    "car_bitflips.mp4": (377, 30.16, WIDE),
    "car_hevc_10bit.mkv": (150, 12.0, WIDE),
    "car_hevc_noaudio.mp4": (150, 12.0, WIDE),
    "car_mjpeg.avi": (125, 10.0, WIDE),
    "car_rotated90.mp4": (150, 12.0, 1 / WIDE),
    "name with spaces & ünïcode 视频.mov": (125, 10.0, WIDE),
    "odd_dims_641x361.mp4": (75, 6.0, WIDE),
    "one_frame.mp4": (1, 0.08, WIDE),
    "one_keyframe.mp4": (125, 10.0, WIDE),
    "raw_nodur.h264": (125, 10.0, WIDE),
    "ts_offset100.ts": (125, 10.0, WIDE),
}
# name: (frames that decode, frames that the header states)
TRUNCATED = {"car_truncated_faststart.mp4": (82, 125), "car_truncated_real_third.mp4": (130, 377)}


@dataclass
class Odd:
    ran: Ran
    store: Path

    def show(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = longreel("videos", "show", name, "--store", self.store, "--json").value
        return shown


@pytest.fixture(scope="module")
def odd(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Odd:
    folder = tmp_path_factory.mktemp("odd")
    named = ["--store", folder / "store", "--model", tiny_model(folder), "--json", *settings()]
    return Odd(longreel("submit", media / "odd", *named), folder / "store")


def test_every_file_has_its_outcome(odd: Odd) -> None:
    assert odd.ran.code == 3, odd.ran.err
    items = odd.ran.items
    assert set(items) == {*UNREADABLE, *GOOD, *TRUNCATED}
    errors = {name: item["error"]["type"] for name, item in items.items() if item["state"] == "failed"}
    assert errors == UNREADABLE
    assert {items[name]["state"] for name in [*GOOD, *TRUNCATED]} == {"done"}
    for name in UNREADABLE:
        assert name in items[name]["error"]["message"]
        assert items[name]["vectors"] == 0


def test_good_files_lose_nothing(odd: Odd) -> None:
    for name, (_, end_seconds, _) in GOOD.items():
        item = odd.ran.items[name]
        assert item["lost_seconds"] == 0, name
        assert item["duration_seconds"] == pytest.approx(end_seconds, abs=0.1), name
        assert item["vectors"] >= item["segments"] >= 1, name


@pytest.mark.parametrize("name", GOOD)
def test_frames_sizes_and_times(odd: Odd, name: str) -> None:
    frames, end_seconds, aspect = GOOD[name]
    shown = odd.show(name)
    assert shown["name"] == name
    assert shown["frames_decoded"] == frames
    assert shown["width"] / shown["height"] == pytest.approx(aspect, abs=0.01)
    assert_covered([(s["start_seconds"], s["end_seconds"]) for s in shown["segment_spans"]], end_seconds)


@pytest.mark.parametrize("name", TRUNCATED)
def test_what_is_cut_off_is_indexed_as_far_as_it_goes_and_the_loss_told(odd: Odd, name: str) -> None:
    there, stated = TRUNCATED[name]
    shown = odd.show(name)
    assert shown["frames_decoded"] == there
    per_frame = shown["duration_seconds"] / stated
    assert shown["lost_seconds"] == pytest.approx((stated - there) * per_frame, abs=0.2)
    assert odd.ran.items[name]["lost_seconds"] == shown["lost_seconds"]
    assert_covered([(s["start_seconds"], s["end_seconds"]) for s in shown["segment_spans"]], there * per_frame)


def test_they_can_be_found(odd: Odd) -> None:
    name = "name with spaces & ünïcode 视频.mov"
    answer = longreel("query", "--like", f"{name}@5", "--store", odd.store, "--json")
    first = answer.value["moments"][0]
    assert first["name"] == name
    assert first["start_seconds"] <= 5 < first["end_seconds"]
