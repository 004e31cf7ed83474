"""What is in a video file: duration, codecs, resolution, frame rate and size, read with PyAV."""

from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

# Only containers that hold a video themselves, read only from the disk: a file named .mp4 may be a playlist, and
# FFmpeg would open whatever it names.
_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,mpegts,mpeg,flv,asf",
    "protocol_whitelist": "file",
}
_OTHER_NAMES = {"matroska": "mkv", "mov": "mp4"}


class NotAVideo(Exception):
    """A file that PyAV cannot open or that has no picture; the text says which."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a video file says of itself. `format` is short ("mp4"), codecs have FFmpeg's names ("h264", "aac")."""

    duration_seconds: float | None
    file_size_kb: int
    video_codec: str
    audio_codec: str | None
    resolution: str
    frame_rate: float | None
    format: str


def probe(path: Path) -> MediaInfo:
    """Read a video file's own description; it blocks. Raises `NotAVideo`, and `OSError` where it cannot be read."""
    size = path.stat().st_size
    if size == 0:
        raise NotAVideo("the file is empty")
    try:
        # Titles in other encodings are as common as old cameras, and nothing here reads them.
        with av.open(str(path), options=_OPTIONS, metadata_errors="ignore") as container:
            return _describe(container, path, size)
    except OSError:
        raise
    except av.FFmpegError:
        raise NotAVideo("the file is no video, or it is damaged") from None


def size_in_kb(size_in_bytes: int) -> int:
    """Return kilobytes of 1024 bytes, rounded up."""
    return -(-size_in_bytes // 1024)


def _describe(container: InputContainer, path: Path, size: int) -> MediaInfo:
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        raise NotAVideo("the file has no picture")
    video = videos[0]
    codec = _codec(video)
    if codec is None:
        raise NotAVideo("the codec of its picture is unknown, or it is damaged")
    audio = container.streams.audio[0] if container.streams.audio else None
    return MediaInfo(
        duration_seconds=_duration(container, video),
        file_size_kb=size_in_kb(size),
        video_codec=codec,
        audio_codec=_codec(audio),
        resolution=f"{video.width}x{video.height}",
        frame_rate=float(video.average_rate) if video.average_rate else None,
        format=_format(container.format.name, path),
    )


def _codec(stream: Stream | None) -> str | None:
    codec = getattr(stream, "codec", None)  # a stream that FFmpeg has no decoder for lacks the attribute
    return None if codec is None else str(codec.canonical_name)


def _duration(container: InputContainer, video: VideoStream) -> float | None:
    if container.duration:
        return container.duration / av.time_base
    if video.duration and video.time_base:
        return float(video.duration * video.time_base)
    return _last_time(container, video)


def _last_time(container: InputContainer, video: VideoStream) -> float | None:
    """Return the end of the last packet: a recording that was streamed to disk does not know how long it became."""
    ends = ((packet.pts or 0) + (packet.duration or 0) for packet in container.demux(video))
    last = max(ends, default=0)
    return float(last * video.time_base) if last and video.time_base else None


def _format(names: str, path: Path) -> str:
    """Return the one of FFmpeg's names ("mov,mp4,m4a") that the file goes by, or the first."""
    known = names.split(",")
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in known else _OTHER_NAMES.get(known[0], known[0])
