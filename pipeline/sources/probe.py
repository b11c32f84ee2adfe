"""What a file is, read from its container without decoding it through."""

from __future__ import annotations

import os
import stat
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pipeline.errors import (
    MediaUnreadable,
    NotAVideo,
    NoVideoStream,
    SourceNotFound,
    SourceUnreadable,
    StillImage,
)
from pipeline.media import MediaInfo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["check_readable", "choose_stream", "looks_like_media", "looks_like_video", "open_container", "probe"]

# Demuxers that read still pictures, and those that take text or any bytes at all for media.
STILL_DEMUXERS = frozenset({"image2", "image2pipe", "gif", "apng", "ico"})
NOT_VIDEO_DEMUXERS = frozenset(
    {"tty", "bin", "xbin", "adf", "idf", "concat", "hls", "ffmetadata", "data", "rawvideo", "lavfi", "sdp", "rtp"}
    | {"srt", "ass", "webvtt", "subviewer", "microdvd", "mpl2", "jacosub", "realtext", "sami", "vplayer", "lrc"}
)
_STILL_CODECS = frozenset({"png", "bmp", "tiff", "webp", "gif", "ppm", "pgm", "jpeg2000", "ansi"})
_FRAMES_TO_TRY = 64  # packets fed to the decoder to learn the rotation from the first frame
_TAIL_PACKETS = 20_000  # read at most this many from the last key frame on, to learn where the stream ends


def check_readable(path: str) -> int:
    """The size of a regular, readable file.

    Raises:
        SourceNotFound: nothing there.
        SourceUnreadable: a directory, a device, or no permission.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"{path}: no such file") from error
    except OSError as error:
        raise SourceUnreadable(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise SourceUnreadable(f"{path}: is {kind}, a video file was expected")
    if not os.access(path, os.R_OK):
        raise SourceUnreadable(f"{path}: permission denied")
    return status.st_size


_MAGIC_AT_4 = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_MAGIC_AT_0 = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"OggS",
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1/2 video
    b"\x06\x0e\x2b\x34",  # MXF
    b"DKIF",  # IVF
    b".RMF",
    b"nut/multimedia container",
    b"YUV4MPEG2",
    b"\x00\x00\x00\x01",  # H.26x elementary streams: start code
    b"\x00\x00\x01",
)


def looks_like_media(head: bytes) -> bool:
    """Whether the first bytes of a file (at least 12, better 1 KiB) are those of a container that can hold video."""
    if len(head) < 8:
        return False
    if head[4:8] in _MAGIC_AT_4 and not _is_still_brand(head):
        return True
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] in (b"AVI ", b"AVIX", b"AMV "):
        return True
    if any(head.startswith(magic) for magic in _MAGIC_AT_0):
        return True
    # MPEG-TS: a sync byte every 188 bytes, or every 192 after a four-byte time code (m2ts).
    return any(
        len(head) > first + 2 * step and all(head[first + k * step] == 0x47 for k in range(3))
        for first, step in ((0, 188), (4, 192), (0, 204))
    )


def _is_still_brand(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"crx ", b"M4A ", b"M4B ")


def looks_like_video(path: str) -> bool:
    """Whether a file's content is video, by its first bytes and, when those could also be sound, by its streams."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError:
        return False
    if not looks_like_media(head):
        return False
    try:
        with open_container(path) as container:
            choose_stream(container, path)
    except (NotAVideo, NoVideoStream, StillImage):
        return False
    except MediaUnreadable:
        return True  # its bytes say container: better a failure with a reason than a file passed over
    return True


def open_container(path: str) -> InputContainer:
    """Open a container with PyAV, with FFmpeg's errors made ours.

    Raises:
        NotAVideo: no demuxer knows the content, or only one that takes any text.
        MediaUnreadable: a known container that cannot be opened.
        StillImage: a picture.
    """
    import av

    size = check_readable(path)
    if size == 0:
        raise NotAVideo(f"{path}: the file is empty")
    with open(path, "rb") as file:
        head = file.read(1024)
    if _is_text(head):  # before FFmpeg sees it: a playlist would make it fetch what the playlist names
        raise NotAVideo(f"{path}: its content is text, no media container")
    try:
        # The "file:" protocol keeps names with a colon from being taken for an address; no other may be used.
        container = av.open(f"file:{path}", mode="r", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        text = f"{path}: cannot be opened: {error.strerror or error}"
        if looks_like_media(head):
            raise MediaUnreadable(text + "; the container is known but its index is missing or damaged") from error
        raise NotAVideo(text + "; its content is no media container") from error
    name = container.format.name
    if name in STILL_DEMUXERS or name.endswith("_pipe"):
        container.close()
        raise StillImage(f"{path}: a still picture ({name}), not a video; ask with `query --image` instead")
    if name in NOT_VIDEO_DEMUXERS:
        container.close()
        raise NotAVideo(f"{path}: its content is text or raw data (read as {name!r}), no media container")
    return container


def _is_text(head: bytes) -> bool:
    if head.startswith(b"YUV4MPEG2") or b"\x00" in head:
        return False
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return len(head) > 0 and printable >= 0.97 * len(head)


def real_video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams that show moving pictures: no covers, no thumbnails."""
    from av.stream import Disposition

    not_video = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    return [s for s in container.streams.video if not s.disposition & not_video and s.codec_context is not None]


def choose_stream(container: InputContainer, path: str) -> VideoStream:
    """The first video stream with the default disposition, else the first; cover pictures and thumbnails do not count.

    Raises:
        NoVideoStream: there is none.
        StillImage: the only one is a picture.
    """
    from av.stream import Disposition

    streams = real_video_streams(container)
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise NoVideoStream(f"{path}: no video stream (streams: {kinds})")
    chosen = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    if chosen.codec_context.name in _STILL_CODECS and chosen.frames <= 1 and chosen.duration is None:
        raise StillImage(f"{path}: a still picture ({chosen.codec_context.name}), not a video")
    return chosen


def _first_frame(container: InputContainer, stream: VideoStream) -> tuple[int, int | None]:
    """Rotation in degrees counter-clockwise and PTS of the first frame that decodes; (0, None) when none does soon."""
    import av

    tried = 0
    try:
        for packet in container.demux(stream):
            tried += 1
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                decoded = []
            for frame in decoded:
                return frame.rotation % 360, frame.pts
            if tried >= _FRAMES_TO_TRY:
                break
    except av.error.FFmpegError:
        pass  # the frames() call that follows meets the same error and reports it
    return 0, None


def _end_by_last_packets(container: InputContainer, stream: VideoStream, start_pts: int) -> float | None:
    """Seconds from ``start_pts`` to the end of the last packet, read from the last key frame on; None if unknown."""
    import av

    if not container.duration or container.size <= 0:
        return None
    end: int | None = None
    try:
        container.seek(max(0, container.duration + (container.start_time or 0) - 1_000_000), backward=True)
        for count, packet in enumerate(container.demux(stream)):
            if packet.pts is not None and not packet.is_corrupt:
                end = max(end or 0, packet.pts + (packet.duration or 0))
            if count >= _TAIL_PACKETS:
                return None
    except av.error.FFmpegError:
        return None  # not seekable: the container's own word stands
    return None if end is None else float((end - start_pts) * Fraction(stream.time_base or 0))


def _tag_seconds(text: str | None) -> float | None:
    """Seconds of a Matroska DURATION tag such as ``00:00:12.004000000``."""
    try:
        hours, minutes, seconds = (text or "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def probe(path: str) -> MediaInfo:
    """Facts about a local file, without decoding more than its first frame.

    Raises:
        SourceNotFound, SourceUnreadable: it is not there, or may not be read.
        NotAVideo: text, empty, or no known container.
        MediaUnreadable: a container that cannot be opened.
        NoVideoStream: sound only.
        StillImage: a picture, whatever its name.
    """
    path = os.path.abspath(path)
    with open_container(path) as container:
        return describe(container, choose_stream(container, path), path)


def describe(container: InputContainer, stream: VideoStream, path: str) -> MediaInfo:
    """The :class:`MediaInfo` of an opened container's stream. Reads packets: seek before decoding afterwards."""
    context: Any = stream.codec_context
    if not context.width or not context.height:
        raise MediaUnreadable(f"{path}: the video stream ({context.name}) states no picture size")
    time_base = Fraction(stream.time_base or Fraction(1, 90000))
    notes: list[str] = []
    truncated = _missing_packets(stream, container.size)
    if truncated:
        notes.append(truncated)
    seconds = float(stream.duration * time_base) if stream.duration else _tag_seconds(stream.metadata.get("DURATION"))
    if seconds is None and container.duration and len(container.streams) == 1:
        seconds = container.duration / 1_000_000  # nothing but this stream can have made the container's duration
    start_time = stream.start_time
    if seconds is not None and not stream.duration and start_time and start_time > 0:
        seconds -= float(start_time * time_base)  # Matroska counts its duration from zero, not from the first frame
    rotation, first_pts = _first_frame(container, stream)
    starts = [pts for pts in (start_time, first_pts) if pts is not None]
    if starts and not truncated:
        # Sums of durations fall short for variable frame rates, and Matroska states none: the last packets know.
        measured = _end_by_last_packets(container, stream, min(starts))
        seconds = measured if seconds is None or (measured or 0.0) > seconds else seconds
    if not starts:
        notes.append("the stream has no time stamps; times are made from the order and length of its frames")
    if seconds is None and container.duration and container.format.name != "h264":
        notes.append(f"the container states {container.duration / 1e6:.3f} s, the video stream none")
    rate = stream.average_rate or stream.guessed_rate
    if not starts and context.framerate:
        rate = context.framerate  # a demuxer without time stamps invents its rate; the codec's own is better
    aspect = Fraction(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1)
    aspect = aspect if aspect > 0 else Fraction(1)
    width, height = max(1, round(context.width * aspect)), context.height
    if rotation % 180 == 90:
        width, height = height, width
    return MediaInfo(
        uri=path,
        container=container.format.name,
        codec=context.codec.canonical_name if hasattr(context.codec, "canonical_name") else context.name,
        width=width,
        height=height,
        rotation=rotation,
        sample_aspect_ratio=aspect,
        time_base=time_base,
        start_pts=min(starts, default=0),
        duration_seconds=seconds if seconds and seconds > 0 else None,
        frame_count=stream.frames or None,
        average_fps=float(rate) if rate else None,
        stream_index=stream.index,
        video_streams=len(real_video_streams(container)),
        size_bytes=container.size,
        notes=tuple(notes),
    )


def _missing_packets(stream: VideoStream, size_bytes: int) -> str | None:
    """What an index that points past the end of the file promises in vain, in words; None when the file is whole."""
    entries = stream.index_entries
    missing = sum(1 for entry in entries if entry.pos + entry.size > size_bytes)
    if not missing:
        return None
    return f"truncated: {missing} of {len(entries)} packets in the container's index lie past the end of the file"
