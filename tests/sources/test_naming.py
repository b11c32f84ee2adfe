"""From what a person names to a list of sources."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import (
    InputError,
    ManifestError,
    NotAVideo,
    NothingToDo,
    NoVideoStream,
    SourceNotFound,
    SourceUnreadable,
    StillImage,
)
from pipeline.sources import find_sources
from pipeline.sources.fingerprint import fingerprint
from pipeline.sources.probe import probe
from tests.drawing import draw_video
from tests.sources.servers import MediaServer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    draw_video(root / "b.mp4", frames=4)
    (root / "sub").mkdir()
    draw_video(root / "sub" / "ünïcode 视频 & x.mkv", frames=4)
    os.link(root / "b.mp4", root / "video without ending")
    (root / "a broken.mp4").write_bytes(b"nothing of a video")
    (root / "notes.txt").write_text("b.mp4\n")
    (root / "data.jsonl").write_text('{"a": 1}\n')
    (root / "page.ts").write_text("export const x: number = 1;\n" * 20)
    (root / ".hidden.mp4").write_bytes(b"x")
    (root / ".git").mkdir()
    os.link(root / "b.mp4", root / ".git" / "b.mp4")
    with av.open(str(root / "picture.jpg"), "w", format="image2") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return root


def names(*inputs: str) -> list[str]:
    return [item.name for item in find_sources(list(inputs))]


def test_a_folder_gives_videos_by_content_and_broken_ones_by_ending(folder: Path) -> None:
    assert names(str(folder)) == ["a broken.mp4", "b.mp4", "video without ending", "ünïcode 视频 & x.mkv"]
    for item in find_sources([str(folder)]):
        assert os.path.isabs(item.uri)
        assert os.path.exists(item.uri)


def test_a_named_file_is_listed_whatever_it_holds(folder: Path) -> None:
    assert names(str(folder / "picture.jpg"), str(folder / "page.ts")) == ["picture.jpg", "page.ts"]


def test_globs_repeats_and_relative_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names("*.mp4", "b.mp4", "./b.mp4") == ["a broken.mp4", "b.mp4"]
    assert names("**/*.mkv") == ["ünïcode 视频 & x.mkv"]
    assert names("b.mp4") == ["b.mp4"]
    assert find_sources(["b.mp4"])[0].uri == str(folder / "b.mp4")
    assert find_sources([f"file://{folder}/b.mp4"])[0].uri == str(folder / "b.mp4")


def test_a_name_with_glob_characters_is_a_file_first(tmp_path: Path) -> None:
    draw_video(tmp_path / "take [1].mp4", frames=2)
    assert names(str(tmp_path / "take [1].mp4")) == ["take [1].mp4"]


def test_nothing_to_do_and_not_found(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="names no video"):
        find_sources([str(tmp_path)])
    with pytest.raises(NothingToDo):
        find_sources([str(tmp_path / "*.mp4")])
    with pytest.raises(NothingToDo, match="no input"):
        find_sources([])
    with pytest.raises(SourceNotFound, match=r"gone\.mp4: no such file"):
        find_sources([str(tmp_path / "gone.mp4")])
    with pytest.raises(SourceNotFound, match="no such manifest"):
        find_sources(["@" + str(tmp_path / "gone.txt")])


def test_manifests(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "list.txt"
    plain.write_text(f"\ufeff# a comment\n\n{folder}/b.mp4\nhttps://u:p@host/dir/v%20x.mp4?sig=abc\n", encoding="utf-8")
    items = find_sources([str(plain)])
    assert [item.name for item in items] == ["b.mp4", "v%20x.mp4"]
    assert [item.uri for item in find_sources([f"@{plain}"])] == [item.uri for item in items]
    rich = folder / "rich.jsonl"
    rich.write_text(
        '{"uri": "b.mp4", "name": "Büro", "tags": ["a", "b", "a"], "start_time": "2024-05-01T08:30:00Z"}\n'
        '{"video": "sub", "tags": "x", "start_time": "2024-05-01T08:30:00+02:00"}\n'
        '{"uri": "gone.mp4"}\n'
    )
    try:
        one, two, gone = find_sources([str(rich)])
    finally:
        rich.unlink()
    assert (one.uri, one.name, one.tags) == (str(folder / "b.mp4"), "Büro", ("a", "b"))
    assert one.start_time == datetime(2024, 5, 1, 8, 30, tzinfo=timezone.utc)
    assert two.name == "ünïcode 视频 & x.mkv"
    assert two.tags == ("x",)
    assert two.start_time is not None
    assert two.start_time.utcoffset() == timedelta(hours=2)
    assert gone.name == "gone.mp4"  # it fails by itself, later


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object was expected, got list"),
        ('{"uri": "a", "tagz": []}', "unknown field 'tagz'.*did you mean 'tags'"),
        ('{"name": "a"}', "exactly one of 'uri' and 'video'"),
        ('{"uri": "a", "video": "b"}', "exactly one"),
        ('{"uri": ""}', "exactly one"),
        ('{"uri": "a", "tags": [1]}', "'tags' must be a list of texts"),
        ('{"uri": "a", "name": ""}', "'name' must be a text"),
        ('{"uri": "a", "start_time": "yesterday"}', "ISO 8601.*'yesterday'"),
        ('{"uri": "a", "start_time": 5}', "ISO 8601"),
    ],
)
def test_bad_manifest_lines_name_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"uri": "ok.mp4"}\n\n' + line + "\n")
    with pytest.raises(ManifestError, match=rf"bad\.jsonl:3: .*{words}"):
        find_sources([str(path)])


def test_a_manifest_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bin.txt"
    path.write_bytes(b"a.mp4\nb\xff\xfe.mp4\n")
    with pytest.raises(ManifestError, match=r"bin\.txt:2: not UTF-8"):
        find_sources([str(path)])


def test_probe_refuses_what_is_no_video(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StillImage):
        probe(str(folder / "picture.jpg"))
    for name in ("page.ts", "data.jsonl", "notes.txt", "a broken.mp4"):
        with pytest.raises(NotAVideo):
            probe(str(folder / name))
    subtitles = tmp_path / "subtitles.mp4"
    subtitles.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 5)
    with pytest.raises((NotAVideo, NoVideoStream)):
        probe(str(subtitles))
    with pytest.raises(SourceNotFound):
        probe(str(tmp_path / "gone.mp4"))
    with pytest.raises(SourceUnreadable, match="is a folder"):
        probe(str(tmp_path))


def test_a_playlist_fetches_nothing(folder: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "playlist.mp4"
    with MediaServer((folder / "b.mp4").read_bytes()) as server:
        for address in (server.url("/ok/b.mp4"), str(folder / "b.mp4")):
            playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n")
            with pytest.raises(NotAVideo, match="is text"):
                probe(str(playlist))
        assert not server.hits


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "v.mp4", frames=2)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("not here: this user may read everything (root)")
    with pytest.raises(SourceUnreadable, match="permission denied"):
        probe(str(path))


def test_a_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "v.bin"
    path.write_bytes(bytes(300_000))
    os.utime(path, ns=(10**18, 10**18))
    first = fingerprint(str(path))
    assert fingerprint(str(path)) == first
    zeros = bytes(300_000)
    for changed in (zeros[:-1] + b"x", b"x" + zeros[1:], zeros + b"\0"):
        path.write_bytes(changed)
        os.utime(path, ns=(10**18, 10**18))
        assert fingerprint(str(path)) != first
    path.write_bytes(bytes(300_000))
    assert fingerprint(str(path)) != first  # touched later: it may have changed in the middle
    with pytest.raises(SourceNotFound):
        fingerprint(str(tmp_path / "gone"))


def test_addresses_that_differ_in_credentials_alone_are_refused_by_name() -> None:
    alike = ["https://h/v.mp4?id=1&token=GEHEIM1", "https://user:GEHEIM2@h/v.mp4?id=1&token=GEHEIM3"]
    with pytest.raises(InputError, match=r"^https://h/v\.mp4\?id=1: named twice, .* login, token=;") as caught:
        find_sources(alike)
    assert "GEHEIM" not in str(caught.value)
    with pytest.raises(InputError, match="fragment"):
        find_sources(["https://h/v.mp4#a", "https://h/v.mp4"])
    assert len(find_sources(["https://h/v?key=a1", "https://h/v?key=b2", "https://h/v?key=a1"])) == 2
