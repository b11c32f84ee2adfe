"""``longreel stream``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from jobs.cli.common import common_options, settings_from, store_path

if TYPE_CHECKING:
    from jobs.live.run import LiveReporter

_FAILURES = 3


@click.command(
    short_help="Watch live streams: captions as they happen, searchable within seconds.",
    epilog="A stream that breaks is reconnected; Ctrl-C ends all cleanly. While it runs: `longreel query`, "
    "`longreel streams list`. Operating it: docs/live.md.",
)
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option(
    "--name", "names", metavar="NAME", multiple=True, help="What to call a stream; once for each URL, in their order."
)
@click.option(
    "--captions", "captioner", metavar="MODEL", default="", help="Say what happens: tiny, coca:ARCH/PRETRAINED, "
    "vlm:MODEL@URL.  [default: no captions]",
)  # fmt: skip
@click.option(
    "--out",
    "outputs",
    metavar="FILE",
    multiple=True,
    help="Write captions to FILE, by its ending: .vtt, .srt, .jsonl, .txt, .m3u8 (segmented WebVTT). {name} stands for "
    "the stream's name.",
)
@click.option("--no-index", is_flag=True, help="Keep nothing to search: captions only.")
@click.option("--duration", metavar="SECONDS", type=float, help="End after so many seconds.")
@click.option("--realtime", is_flag=True, help="Play files at their own speed, as a camera would.")
@click.option("--record", metavar="DIR", help="Also keep the compressed video, without encoding it again.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Add a tag to these streams.")
@click.option("--model", metavar="NAME", help="The model to see with.  [default: the configured one]")
@click.option("--address", metavar="HOST:PORT", help="A Ray cluster to run on; without it Ray starts on this machine.")
@common_options
def stream(
    urls: tuple[str, ...],
    names: tuple[str, ...],
    captioner: str,
    outputs: tuple[str, ...],
    no_index: bool,
    duration: float | None,
    realtime: bool,
    record: str | None,
    tags: tuple[str, ...],
    model: str | None,
    address: str | None,
    store: str | None,
    config: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Watch live streams: index what is seen, say what happens, search it within seconds.

    URL is rtsp://, rtmp://, srt://, udp://, http(s):// (HLS or MPEG-TS), device:v4l2:/dev/video0, tail:FILE for a file
    that is still being written, a file (with --realtime at its own speed), or - for standard input.

    \b
      longreel stream rtsp://camera/live --name gate --captions tiny
      longreel stream rtsp://10.0.0.1/a rtsp://10.0.0.2/b --captions tiny --out '{name}.vtt'
      longreel stream match.mp4 --realtime --captions tiny --duration 60
      ffmpeg -i ... -f mpegts - | longreel stream - --name feed --captions tiny --json

    What is dropped because the machine is behind is counted and shown; --set live.source.policy=wait drops nothing.

    \b
    Exit codes: 0 all streams ended (or --duration was reached, or `longreel streams stop`), 3 some failed,
    130 stopped by Ctrl-C; everything that was captured is kept.
    """
    from dataclasses import replace
    from pathlib import Path

    from jobs.cli.submit import settings_address
    from jobs.errors import UsageError
    from jobs.live.start import StreamRequest, StreamSpec, run_streams
    from jobs.runner import shown_command

    if names and len(names) != len(urls):
        raise UsageError(f"--name was given {len(names)} times for {len(urls)} streams; give one for each")
    settings = settings_from(config, overrides, model=model)
    if captioner:
        settings = replace(settings, captions=replace(settings.captions, model=captioner))
    if realtime:
        live = replace(settings.live, source=replace(settings.live.source, realtime=True))
        settings = replace(settings, live=live)
    request = StreamRequest(
        store=store_path(store),
        streams=tuple(StreamSpec(url, name) for url, name in zip(urls, names or ("",) * len(urls), strict=True)),
        settings=settings,
        outputs=outputs,
        duration_seconds=duration,
        tags=tags,
        index=not no_index,
        record=Path(record) if record else None,
        address=address or settings_address(),
        command=shown_command(sys.argv[1:]),
    )
    reporter = _reporter(as_json)
    try:
        results = run_streams(request, reporter)
    finally:
        reporter.close()
    return _FAILURES if any(result.error is not None for result in results) else 0


def _reporter(as_json: bool) -> LiveReporter:
    from jobs.live.show import JsonLive, LineLive, ScreenLive

    if as_json:
        return JsonLive()
    return ScreenLive() if sys.stdout.isatty() and sys.stderr.isatty() else LineLive()
