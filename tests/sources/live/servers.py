"""Real servers of live streams for tests, each in a process of its own that can be killed, frozen and started again.

    with serve("rtsp", clip, tmp_path) as server:      # any name in SERVERS
        ... server.url ...
        server.kill(); server.start()                  # the same address again

They play a clip over and over at its own pace. A clip comes from :func:`make_clip`: its pictures carry their numbers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import pytest

from tests.sources.live.byte_server import ByteServer
from tests.sources.live.clips import RATE, make_clip, number_of

__all__ = [
    "SERVERS",
    "ByteServer",
    "HlsServer",
    "Server",
    "free_port",
    "make_clip",
    "need_rtsp_server",
    "number_of",
    "rtsp",
    "serve",
    "srt",
    "transport_stream",
]

SYSTEM_PYTHON = "/usr/bin/python3"
_STARTED_SECONDS = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need_rtsp_server() -> None:
    """Skip the test where GStreamer's RTSP server is not installed."""
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    found = (
        Path(SYSTEM_PYTHON).exists()
        and not subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True).returncode
    )
    if not found:
        pytest.skip(
            "GStreamer's RTSP server is not installed (Debian: python3-gi, gir1.2-gst-rtsp-server-1.0, "
            "gstreamer1.0-plugins-good, gstreamer1.0-plugins-bad)"
        )


def _need_ffmpeg() -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program 'ffmpeg' is not installed")


class Server:
    """A process that serves, started anew with the same command as often as one likes. A context manager.

    Args:
        url: where it is found.
        command: what to run.
        started: blocks until it serves.
    """

    def __init__(self, url: str, command: list[str], started: Callable[[Server], None], folder: Path) -> None:
        self.url = url
        self._command, self._started = command, started
        self._log = folder / f"server-{os.path.basename(command[0])}-{id(self)}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, until it serves."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._started(self)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """It has not ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}: {self.log[-2000:]}")

    def kill(self) -> None:
        """SIGKILL, as when the power goes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It sends nothing more, and its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _until(server: Server, true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _STARTED_SECONDS
    while not true():
        server.check()
        if time.monotonic() > end:
            raise RuntimeError(f"{what} within {_STARTED_SECONDS:g} s: {server.log[-2000:]}")
        time.sleep(0.02)


def _listens(port: int, protocol: str = "tcp") -> bool:
    """Whether somebody listens there, or has a client already. Nobody connects: some servers take one client only."""
    states = ("0A", "01") if protocol == "tcp" else ("07",)
    for name in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == port and words[3] in states:
                    return True
    return False


def _listening(port: int, protocol: str = "tcp") -> Callable[[Server], None]:
    return lambda server: _until(server, lambda: _listens(port, protocol), f"port {port} is not listened on")


def ffmpeg(clip: Path | str, *output: str, before: tuple[str, ...] = ("-re", "-stream_loop", "-1")) -> list[str]:
    """The command that plays a clip for ever at its own pace."""
    _need_ffmpeg()
    return ["ffmpeg", "-nostdin", "-v", "error", "-y", *before, "-i", str(clip), "-c", "copy", *output]


def rtsp(clip: Path, folder: Path, *, path: str = "live", login: tuple[str, ...] = ()) -> Server:
    """GStreamer's RTSP server; each client sees the clip from its beginning, once.

    Args:
        path: "live" (TCP and UDP), "udp" (UDP only), "sound" (no picture).
        login: user, password, and "basic" or "digest".
    """
    need_rtsp_server()
    port = free_port()
    command = [SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), str(port), str(clip), *login]
    user = f"{login[0]}:{login[1]}@" if login else ""
    return Server(f"rtsp://{user}127.0.0.1:{port}/{path}", command, _listening(port), folder)


def rtmp(clip: Path, folder: Path) -> Server:
    """ffmpeg as an RTMP server of one client; it ends with its client."""
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/app/live"
    return Server(url, ffmpeg(clip, "-f", "flv", "-listen", "1", url), _listening(port), folder)


def http_ts(clip: Path, folder: Path) -> Server:
    """MPEG-TS over HTTP from ffmpeg, to one client."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/live.ts"
    return Server(url, ffmpeg(clip, "-f", "mpegts", "-listen", "1", url), _listening(port), folder)


def udp(clip: Path, folder: Path) -> Server:
    """MPEG-TS in datagrams, whether anybody listens or not."""
    url = f"udp://127.0.0.1:{free_port()}"
    return Server(url, ffmpeg(clip, "-f", "mpegts", f"{url}?pkt_size=1316"), lambda server: None, folder)


def srt(clip: Path, folder: Path, *, passphrase: str = "") -> Server:
    """MPEG-TS over SRT: ffmpeg listens for one caller."""
    port = free_port()
    secret = f"passphrase={passphrase}" if passphrase else ""
    where = f"srt://127.0.0.1:{port}?mode=listener&{secret}".rstrip("&")
    url = f"srt://127.0.0.1:{port}" + (f"?{secret}" if secret else "")
    return Server(url, ffmpeg(clip, "-f", "mpegts", where), _listening(port, "udp"), folder)


def growing(clip: Path, folder: Path) -> Server:
    """A file that ffmpeg is still writing."""
    path = folder / "growing.ts"
    command = ffmpeg(clip, "-f", "mpegts", "-flush_packets", "1", str(path))

    def started(server: Server) -> None:
        _until(server, lambda: path.exists() and path.stat().st_size > 0, "nothing is written")

    return Server(f"tail:{path}", command, started, folder)


def pipe(clip: Path, folder: Path) -> Server:
    """A named pipe that ffmpeg writes to."""
    path = folder / "pipe.ts"
    if not path.exists():
        os.mkfifo(path)
    return Server(
        str(path), ffmpeg(clip, "-f", "mpegts", "-flush_packets", "1", str(path)), lambda server: None, folder
    )


class HlsServer(Server):
    """ffmpeg cuts the clip into pieces of half a second, and an HTTP server gives them out. Killed, both are gone.

    Args:
        qualities: so many playlists, all of the same pictures, in a playlist of playlists.
        seconds: length of a piece.

    Attributes:
        status: an answer to all requests instead of files.
        asked: names of the files that were asked for.
    """

    def __init__(self, clip: Path, folder: Path, *, qualities: int = 1, seconds: float = 0.48) -> None:
        self._folder = folder / "hls"
        self._port = free_port()
        playlist = self._folder / ("live.m3u8" if qualities == 1 else "q0.m3u8")
        options = [
            "-f",
            "hls",
            "-hls_time",
            str(seconds),
            "-hls_list_size",
            "6",
            "-hls_flags",
            "delete_segments+temp_file",
        ]
        if qualities > 1:
            options += ["-map", "0:v", "-map", "0:a"] * qualities + ["-b:v", "500k"]
            options += ["-var_stream_map", " ".join(f"v:{q},a:{q}" for q in range(qualities))]
            options += ["-master_pl_name", "live.m3u8"]

        def started(server: Server) -> None:
            _until(server, lambda: playlist.exists() and playlist.read_text().count("#EXTINF") > 1, "no playlist")

        written = playlist if qualities == 1 else playlist.with_name("q%v.m3u8")
        command = ffmpeg(clip, *options, str(written))
        super().__init__(f"http://127.0.0.1:{self._port}/live.m3u8", command, started, folder)
        self._http: ThreadingHTTPServer | None = None
        self.status = 0
        self.asked: list[str] = []

    def start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        owner = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                owner.asked.append(self.path.lstrip("/"))
                if owner.status:
                    self.send_error(owner.status)
                else:
                    super().do_GET()

        super().start()
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), partial(Handler, directory=str(self._folder)))
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def finish(self) -> None:
        """The event is over: ffmpeg ends by itself, and closes the playlist."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        super().kill()


class StdinServer(Server):
    """ffmpeg writes into this process's standard input."""

    def __init__(self, clip: Path, folder: Path) -> None:
        super().__init__("-", ffmpeg(clip, "-f", "mpegts", "-flush_packets", "1", "pipe:1"), lambda s: None, folder)
        self._stdin = os.dup(0)

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        os.dup2(self._process.stdout.fileno(), 0)
        self._process.stdout.close()

    def kill(self) -> None:
        super().kill()
        os.dup2(self._stdin, 0)


class NoServer(Server):
    """A source that needs none."""

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def kill(self) -> None: ...


def device(clip: Path, folder: Path) -> Server:
    """FFmpeg's virtual device: the clip over and over."""
    return NoServer(f"device:lavfi:movie={clip}:loop=0,setpts=N/({RATE}*TB)")


def file(clip: Path, folder: Path) -> Server:
    """The clip itself, to be played with ``realtime``."""
    return NoServer(str(clip))


def transport_stream(clip: Path, *options: str) -> bytes:
    """The clip as MPEG-TS, with options of ffmpeg, such as ``-output_ts_offset``."""
    command = ffmpeg(clip, *options, "-f", "mpegts", "pipe:1", before=())
    return subprocess.run(command, check=True, capture_output=True).stdout


SERVERS: dict[str, Callable[[Path, Path], Server]] = {
    "rtsp": rtsp,
    "rtsp-udp": partial(rtsp, path="udp"),
    "rtmp": rtmp,
    "hls": HlsServer,
    "http-ts": http_ts,
    "udp": udp,
    "srt": srt,
    "growing": growing,
    "pipe": pipe,
    "stdin": StdinServer,
    "device": device,
    "file": file,
}


def serve(kind: str, clip: Path, folder: Path) -> Server:
    """A server of a kind in :data:`SERVERS`, not started yet. Skips the test where its tools are missing."""
    return SERVERS[kind](clip, folder)


if __name__ == "__main__":  # python -m tests.sources.live.servers KIND CLIP: serve it until Ctrl-C
    with serve(sys.argv[1], Path(sys.argv[2]), Path("/tmp")) as running:
        print(running.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
