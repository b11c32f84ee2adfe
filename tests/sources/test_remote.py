"""Remote sources against a real HTTP server and an S3-compatible one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.errors import CacheTooSmall, LongreelError, RemoteError
from pipeline.sources import find_sources, localize, open_source
from pipeline.sources.cache import FileCache
from pipeline.sources.fingerprint import fingerprint
from tests.drawing import draw_video
from tests.sources.servers import MediaServer

ROOM = 50_000_000


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_video(tmp_path_factory.mktemp("v") / "v.mp4", frames=12)


@pytest.fixture
def server(video: Path) -> Iterator[MediaServer]:
    with MediaServer(video.read_bytes()) as running:
        yield running


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def test_a_file_is_downloaded_once_and_plays(server: MediaServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    uri = server.url("/ok/v.mp4")
    for _ in range(2):
        with localize(uri, tmp_path, ROOM, lambda done, total: seen.append((done, total))) as path:
            assert path.read_bytes() == server.content
            with open_source(str(path)) as source:
                assert len(list(source.frames())) == 12
    assert server.hits["/ok/v.mp4"] == 1
    assert seen[-1] == (len(server.content), len(server.content))
    assert len(files_in(tmp_path)) == 1


def test_changed_content_is_fetched_again(server: MediaServer, tmp_path: Path) -> None:
    uri = server.url("/ok/v.mp4")
    first = fingerprint(uri)
    with localize(uri, tmp_path, ROOM) as path:
        old = path
    server.content, server.etag = server.content + b"\0", '"2"'
    assert fingerprint(uri) != first
    with localize(uri, tmp_path, ROOM) as path:
        assert path != old
        assert path.read_bytes() == server.content


def test_a_server_that_states_no_facts_but_the_size(server: MediaServer, tmp_path: Path) -> None:
    assert fingerprint(server.url("/nofacts/v.mp4")) == fingerprint(server.url("/nofacts/v.mp4"))


@pytest.mark.parametrize("kind", ["unsized", "slow", "flaky"])
def test_servers_that_are_merely_poor(server: MediaServer, tmp_path: Path, kind: str) -> None:
    with localize(server.url(f"/{kind}/v.mp4"), tmp_path, ROOM, stall_seconds=5) as path:
        assert path.read_bytes() == server.content
        assert FileCache(tmp_path, ROOM).size_bytes() == len(server.content)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "answered 404"),
        ("refused", "answered 403"),
        ("login", "answered 401: it needs credentials"),
        ("broken", "answered 500"),
        ("silent", "does not answer in time"),
        ("stalls", "does not answer in time"),
        ("short", "broke off"),
    ],
)
def test_trouble_is_a_typed_error_in_time(server: MediaServer, tmp_path: Path, kind: str, words: str) -> None:
    began = time.monotonic()
    uri = server.url(f"/{kind}/v.mp4?token=SECRETVALUE&keep=1", login="" if kind == "login" else "user:PASSWORD@")
    with pytest.raises(RemoteError, match=words) as caught, localize(uri, tmp_path, ROOM, stall_seconds=0.7):
        pass
    assert time.monotonic() - began < 15
    text = "".join(map(str, (caught.value, caught.value.args, caught.value.__cause__, repr(caught.value))))
    assert "SECRETVALUE" not in text
    assert "PASSWORD" not in text
    assert f"/{kind}/v.mp4?keep=1" in text
    assert files_in(tmp_path) == []


def test_a_refused_connection(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}/v.mp4"
        with pytest.raises(RemoteError, match="cannot connect"), localize(uri, tmp_path, ROOM, stall_seconds=2):
            pass


def test_logins_and_signatures_reach_the_server_and_nothing_else(server: MediaServer, tmp_path: Path) -> None:
    login = server.url("/login/v.mp4", login="user:pass%20word@")
    signed = server.url("/signed/v.mp4?X-Amz-Signature=a%2Bb%2Fc%3D")
    for uri in (login, signed):
        with localize(uri, tmp_path, ROOM) as path:
            assert path.read_bytes() == server.content
            assert "pass" not in path.name
    # Another signature for the same thing is the same entry.
    other = server.url("/signed/v.mp4?X-Amz-Date=20240101&X-Amz-Signature=a%2Bb%2Fc%3D")
    with localize(other, tmp_path, ROOM):
        assert server.hits["/signed/v.mp4"] == 1


def test_larger_than_the_cache(server: MediaServer, tmp_path: Path) -> None:
    with pytest.raises(CacheTooSmall, match="may hold 1,000"), localize(server.url("/ok/v.mp4"), tmp_path, 1000):
        pass
    with pytest.raises(CacheTooSmall), localize(server.url("/unsized/v.mp4"), tmp_path, 1000):
        pass
    assert files_in(tmp_path) == []


def test_the_oldest_goes_and_what_is_in_use_stays(server: MediaServer, tmp_path: Path) -> None:
    size = len(server.content)
    room = int(size * 2.5)
    with localize(server.url("/ok/a.mp4"), tmp_path, room) as a:
        with localize(server.url("/ok/b.mp4"), tmp_path, room) as b:
            pass
        time.sleep(0.02)
        with localize(server.url("/ok/c.mp4"), tmp_path, room) as c:
            assert a.exists()  # older than b, but in use
            assert not b.exists()
            assert c.exists()
            assert FileCache(tmp_path, room).size_bytes() <= room
            full = FileCache(tmp_path, room, wait_seconds=0.2)
            with pytest.raises(CacheTooSmall, match="entries in use fill the cache"):
                full.reserve(tmp_path / "x.part", size, "x")
    assert not list(tmp_path.glob("*.part"))


def test_processes_share_one_download(server: MediaServer, tmp_path: Path) -> None:
    uri = server.url("/slow/v.mp4")
    code = (
        "import sys\nfrom pipeline.sources import localize\n"
        "with localize(*sys.argv[1:3], 10**8) as path: print(path.stat().st_size)"
    )
    root = Path(__file__).resolve().parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", code, uri, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(3)
    ]
    assert [int(process.communicate(timeout=60)[0]) for process in running] == [len(server.content)] * 3
    assert server.hits["/slow/v.mp4"] == 1


def test_a_dead_download_leaves_nothing_behind_for_long(tmp_path: Path) -> None:
    (tmp_path / "dead.part").write_bytes(bytes(900))
    cache = FileCache(tmp_path, 1000)
    with cache.entry("k", lambda part: cache.reserve(part, 800, "k")) as path:
        assert path.stat().st_size == 800
    assert not (tmp_path / "dead.part").exists()


def test_a_local_path_comes_back(tmp_path: Path) -> None:
    with localize("/some/where.mp4", tmp_path, 1) as path:
        assert path == Path("/some/where.mp4")


# -- S3 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(video: Path) -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3  # type: ignore[import-untyped, unused-ignore]

    patch = pytest.MonkeyPatch()
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="films")
        for key in ("day 1/a.mp4", "day 1/deep/ünï?x.mp4", "day 1/notes.txt", "other.mp4"):
            client.put_object(Bucket="films", Key=key, Body=video.read_bytes())
        yield "films"
    finally:
        running.stop()
        patch.undo()


def test_s3_objects_and_prefixes(bucket: str, video: Path, tmp_path: Path) -> None:
    items = find_sources([f"s3://{bucket}/day 1/", f"s3://{bucket}/other.mp4"])
    assert [item.name for item in items] == ["a.mp4", "ünï?x.mp4", "other.mp4"]
    for item in items:
        with localize(item.uri, tmp_path, ROOM) as path:
            assert path.read_bytes() == video.read_bytes()
    assert fingerprint(items[0].uri) == fingerprint(items[0].uri)


def test_s3_trouble(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="404"), localize(f"s3://{bucket}/gone.mp4", tmp_path, ROOM):
        pass
    with pytest.raises(RemoteError), localize("s3://no-such-bucket/a.mp4", tmp_path, ROOM):
        pass
    with pytest.raises(LongreelError):
        find_sources([f"s3://{bucket}/empty prefix/"])


def test_s3_fingerprint_changes_with_the_object(bucket: str) -> None:
    import boto3  # type: ignore[import-untyped, unused-ignore]

    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key="changing.mp4", Body=b"one")
    first = fingerprint(f"s3://{bucket}/changing.mp4")
    client.put_object(Bucket=bucket, Key="changing.mp4", Body=b"two")
    assert fingerprint(f"s3://{bucket}/changing.mp4") != first


@pytest.mark.parametrize(("fast_seconds", "largest"), [(0.0, 1 << 20), (3600.0, 4 << 20)])
def test_s3_pieces_are_small_until_they_come_fast(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast_seconds: float, largest: int
) -> None:
    """Each is a sign of life: on a slow link the next one must not take too long."""
    import boto3  # type: ignore[import-untyped, unused-ignore]

    content = bytes(range(256)) * (7 << 12)  # 7 MiB
    boto3.client("s3").put_object(Bucket=bucket, Key="long.mp4", Body=content)
    monkeypatch.setattr("pipeline.sources.remote._FAST_SECONDS", fast_seconds)
    seen = [0]
    with localize(f"s3://{bucket}/long.mp4", tmp_path, ROOM, lambda done, total: seen.append(done)) as path:
        assert path.read_bytes() == content
    pieces = [after - before for before, after in pairwise(seen)]
    assert pieces[0] == 1 << 20
    assert max(pieces) == largest


def test_http_blocks_are_small(tmp_path: Path) -> None:
    seen = [0]
    with (
        MediaServer(bytes(3 << 20)) as server,
        localize(server.url("/ok/v.mp4"), tmp_path, ROOM, lambda done, total: seen.append(done)) as path,
    ):
        assert path.stat().st_size == 3 << 20
    assert max(after - before for before, after in pairwise(seen)) <= 256 << 10
