"""The compression benchmark's command line: what is wrong is told at the start, and what is missing by its name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import bench_compression
import pytest
from benching.synthetic import synthetic_stream


def media_of(folder: Path, *named: str, there: bool = True) -> Path:
    """A folder of clips with one moment each; the files are empty."""
    (folder / "clips").mkdir(parents=True)
    lines = [json.dumps({"video": name, "start": 0.0, "end": 1.0}) + "\n" for name in named]
    (folder / "clips" / "moments.jsonl").write_text("".join(lines))
    for name in named if there else ():
        (folder / "clips" / name).touch()
    return folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--kinds", "vit"], "--kinds: no kind 'vit'; there are synthetic, "),
        (["--kinds", ""], None),
        (["--methods", "ward,wrad"], "--methods: no compressor 'wrad'; there are ward, "),
        (["--methods", ""], "--methods: no compressor ''; there are ward, "),
        (["--seeds", "0"], "--seeds: must be a whole number, at least 1, got '0'"),
        (["--workers", "-1"], "--workers: must be a whole number, at least 1, got '-1'"),
        (["--workers", "two"], "--workers: must be a whole number, at least 1, got 'two'"),
        (["--json", "{tmp}"], "--json {tmp}: {tmp} is a folder"),
        (["--json", "{tmp}/file/out.json"], "--json {tmp}/file/out.json: "),
        (["--plot", "{tmp}/file"], "--plot {tmp}/file: "),
        (
            ["--quick", "--kinds", "mae", "--media", "{tmp}/media"],
            "--quick measures clips that {tmp}/media does not have",
        ),
    ],
)
def test_wrong_options_end_it_at_the_start(
    given: list[str], message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    media_of(tmp_path / "media", "a.mp4")
    if message is None:  # an empty list is the default
        assert bench_compression.parse(given)[0].kinds[0] == "synthetic"
        return
    with pytest.raises(SystemExit) as ended:
        bench_compression.main([word.format(tmp=tmp_path) for word in given])
    assert ended.value.code == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err


def test_folders_of_what_is_written_are_made(tmp_path: Path) -> None:
    bench_compression.check_writable(tmp_path / "a" / "out.json", folder=False)
    bench_compression.check_writable(tmp_path / "b" / "plots", folder=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "plots"]


def test_clips_that_are_named_and_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--kinds", "vit-b-32-random", "--methods", "uniform", "--part", "fidelity", "--workers", "1"]
    lost = media_of(tmp_path / "lost", "a.mp4", there=False)
    assert bench_compression.main([*given, "--media", str(lost)]) == 1
    assert f"named in {lost}/clips/moments.jsonl, but not there: a.mp4" in capsys.readouterr().out
    empty = media_of(tmp_path / "empty")
    assert bench_compression.main([*given, "--media", str(empty)]) == 1
    assert f"vit-b-32-random: no clip in {empty}/clips/moments.jsonl" in capsys.readouterr().out


def test_advice_names_the_package_that_is_missing() -> None:
    error = ModuleNotFoundError("No module named 'open_clip'", name="open_clip.factory")
    assert bench_compression.advice(error) == "No module named 'open_clip'; pip install open_clip_torch"
    assert bench_compression.advice(ImportError("no such luck")) == "no such luck"


def test_only_long_streams_have_a_second_window() -> None:
    long, short = (synthetic_stream(0, frames=frames, side=2, width=4, events=1) for frames in (128, 127))
    parts = bench_compression.cut([replace(long, name="a"), replace(short, name="b")], bench_compression.Size())
    assert {name: len(part) for name, part in parts.items()} == {"a": 2, "b": 1}
