"""What an open live container holds: whether that is a stream, which of it is watched, and what it says of itself."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from pipeline.errors import NotAStream, StillImage, StreamCodec
from pipeline.media import MediaInfo
from pipeline.sources.live.kinds import shown
from pipeline.sources.probe import NOT_VIDEO_DEMUXERS, STILL_DEMUXERS, choose_stream, real_video_streams

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["check_format", "chosen_stream", "described", "leave_out_the_rest"]


def check_format(container: InputContainer, url: str) -> None:
    """Refuse what is no stream.

    Raises:
        StillImage, NotAStream: what it is instead.
    """
    name = container.format.name
    if name in STILL_DEMUXERS or (name.endswith("_pipe") and name != "yuv4mpegpipe"):
        raise StillImage(f"{shown(url)}: a still picture ({name}), no stream")
    if name in NOT_VIDEO_DEMUXERS - {"hls", "lavfi", "rtp", "sdp"}:
        raise NotAStream(f"{shown(url)}: text or raw data (read as {name!r}), no stream")


def chosen_stream(container: InputContainer, url: str) -> VideoStream:
    """The stream of pictures that is watched.

    Raises:
        NoVideoStream: there is none.
        StreamCodec: there is one that nobody here can decode.
    """
    undecodable = [s for s in container.streams if s.type == "video" and s.codec_context is None]
    if undecodable and not real_video_streams(container):
        raise StreamCodec(f"{shown(url)}: its video codec cannot be decoded here")
    return choose_stream(container, shown(url))


def leave_out_the_rest(container: InputContainer, wanted: tuple[Stream | None, ...]) -> None:
    """Of the qualities that a playlist offers, only the one that is watched is fetched."""
    import av.stream

    kinds = getattr(av.stream, "Discard", None)
    if kinds is None:
        return  # a PyAV that cannot say so reads them all
    for stream in container.streams:
        if not any(stream is one for one in wanted):
            stream.discard = kinds.all


def described(
    url: str,
    container: InputContainer,
    stream: VideoStream,
    picture: VideoFrame,
    aspect: Fraction,
    time_base: Fraction,
) -> MediaInfo:
    """What the stream is, by one of its pictures, whose samples are ``aspect`` times as wide as high (0: unknown)."""
    aspect = aspect if aspect > 0 else Fraction(1)
    width, height, rotation = max(1, round(picture.width * aspect)), picture.height, picture.rotation % 360
    if rotation % 180 == 90:
        width, height = height, width
    rate = stream.average_rate or stream.guessed_rate
    return MediaInfo(
        uri=shown(url),
        container=container.format.name,
        codec=stream.codec_context.name,
        width=width,
        height=height,
        rotation=rotation,
        sample_aspect_ratio=aspect,
        time_base=time_base,
        start_pts=0,
        duration_seconds=None,
        frame_count=None,
        average_fps=float(rate) if rate and rate < 1000 else None,
        stream_index=stream.index,
        video_streams=len(real_video_streams(container)),
        size_bytes=max(0, container.size),
    )
