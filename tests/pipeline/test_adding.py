"""Sources become videos: what is unchanged is not fetched again, and what goes wrong costs one source."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.ingest import DecodeOptions, IngestOptions, watch_task
from pipeline.library import Library
from pipeline.media import Span
from tests.drawing import draw_video
from tests.pipeline.fakes import ToneEncoder
from tests.sources.servers import MediaServer


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", encoder=ToneEncoder()) as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MediaServer]:
    with MediaServer(draw_video(tmp_path / "v.mp4", frames=75).read_bytes()) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def options(cache: Path, decoder: str = "auto") -> IngestOptions:
    return IngestOptions(part_seconds=1, decode=DecodeOptions(cache_dir=str(cache), decoder=decoder))


def test_an_unchanged_address_is_not_downloaded_again(library: Library, server: MediaServer, cache: Path) -> None:
    uri = server.url("/ok/v.mp4")
    (first,) = library.add(uri, options=options(cache))
    assert (first.state, server.hits["/ok/v.mp4"]) == ("done", 1)
    shutil.rmtree(cache)
    (again,) = library.add(uri, options=options(cache))
    assert (again.state, again.vectors) == ("skipped", first.vectors)
    assert server.hits["/ok/v.mp4"] == 1
    assert not cache.exists()
    server.content, server.etag = server.content + b"\0", '"2"'
    (changed,) = library.add(uri, options=options(cache))
    assert (changed.state, server.hits["/ok/v.mp4"]) == ("done", 2)


def test_the_parts_of_a_video_share_one_copy_also_when_the_server_states_nothing(
    library: Library, server: MediaServer, cache: Path
) -> None:
    for copies in (1, 2):  # nothing says that it is the same as before
        (result,) = library.add(server.url("/bare/v.mp4"), options=options(cache))
        assert (result.state, result.segments) == ("done", 3)
        assert sum(path.suffix != ".lock" for path in cache.iterdir()) == copies


def test_a_cache_that_cannot_be_costs_the_remote_files_only(
    library: Library, server: MediaServer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    film = draw_video(tmp_path / "local.mp4", frames=12)
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        failed, _ = library.add(server.url("/ok/v.mp4"), film, options=options(folder))
        assert failed.error is not None
        assert failed.error["type"] == "SourceUnreadable"
        assert f"{folder}: cannot keep remote files there" in failed.error["message"]
    assert library.video("local.mp4").state == "done"


def test_each_machine_finds_its_own_cache_folder(
    library: Library, server: MediaServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels to a worker is the setting, not what it means here."""
    task = watch_task("/v.mp4", "/v.mp4", "l1-1", Span(0, 1), ToneEncoder().info, IngestOptions())
    assert task.cache_dir == ""
    monkeypatch.setenv("LONGREEL_CACHE", str(cache))
    (result,) = library.add(server.url("/ok/v.mp4"))
    assert result.state == "done"
    assert len([path for path in cache.iterdir() if path.suffix != ".lock"]) == 1
    assert server.hits["/ok/v.mp4"] == 1


def test_what_nobody_foresaw_costs_one_source(
    library: Library, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slip, film = (draw_video(tmp_path / name, frames=12) for name in ("slip.mp4", "film.mp4"))
    failed, done = library.add(slip, film, options=options(cache, "tests.jobs.doubles:by_name"))
    assert done.state == "done"
    assert failed.error == {
        "type": "UnexpectedError",
        "message": f"{slip}: unexpected error: ZeroDivisionError: a slip of ours",
    }
    # Also what comes up before there is a part.
    monkeypatch.setattr("pipeline.ingest._INSPECT", "tests.pipeline.doubles:slips")
    (failed,) = library.add(draw_video(tmp_path / "third.mp4", frames=12), options=options(cache))
    assert failed.error is not None
    assert failed.error["type"] == "UnexpectedError"
    assert "PermissionError: not foreseen" in failed.error["message"]
