"""What is in a video or audio file: duration, codecs, resolution, frame rate and size, read with PyAV."""

import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from app.media.asf import HEADER_BYTES
from app.media.audio_only import probe_audio
from app.media.broken_packet import ends_in_packet
from app.media.content_type import HEAD_BYTES, describe_other_content
from app.media.decoders import can_decode
from app.media.early_end import declared_seconds, lacks_index, mp3_declared_seconds
from app.media.opening import MAX_PIXELS, BoundedFile, Limits, TooExpensive, open_film
from app.media.sample_tables import unpacks_too_far
from app.media.streams import choose_audio_stream, choose_video_stream
from app.media.timeline import read_only, read_timeline
from app.media.turning import lies_on_its_side

# A film of hours that lost its duration is read from end to end to find it.
_LIMITS = Limits(seconds=20.0, bytes=4 * 1024**3)
_PACKETS_AT_MOST = 100  # that are decoded where only a frame tells the size of the picture
_TURNED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})  # that say how a picture is turned
_OTHER_NAMES = {"matroska": "mkv", "mov": "mp4"}
# What a file without a telling name is called by. WebM is Matroska with these codecs and no others.
_EXTENSIONS = {"mpegts": ".ts", "mpeg": ".mpg"}
_WEBM_CODECS = frozenset({"vp8", "vp9", "av1", "opus", "vorbis", None})


class NotAVideo(Exception):
    """A file that PyAV cannot open or that has neither a picture nor audio; the text says which."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a video file says of itself. `format` is short ("mp4"), codecs have FFmpeg's names ("h264", "aac").

    Audio without a picture has no video codec, no resolution and no frame rate.
    """

    duration_seconds: float | None
    file_size_kb: int
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None
    format: str
    declared_seconds: float | None = None  # how long a file says it is that was cut off before
    ends_early: bool = False  # it was cut off, whatever it says

    @property
    def extension(self) -> str:
        """What the name of such a file ends in, whatever it was called when it came."""
        if self.format == "mkv" and {self.video_codec, self.audio_codec} <= _WEBM_CODECS:
            return ".webm"
        return _EXTENSIONS.get(self.format, f".{self.format}")


def probe(path: Path) -> MediaInfo:
    """Read a video file's own description; it blocks. Raises `NotAVideo`, and `OSError` where it cannot be read.

    A duration that takes too long to find is unknown, and so is that of a file that says none and has no packets.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise NotAVideo("the file is empty")
        if other := _find_other_content(file):
            raise NotAVideo(f"the file is {other}, no video and no audio")
        if unpacks_too_far(file, size):
            raise NotAVideo("the file is damaged: its index lists more than the file can hold")
        file.seek(0)
        bounded = BoundedFile(file, _LIMITS)
        try:
            with open_film(bounded) as container:
                info = _describe(container, bounded, path, size)
            return _judge_end(info if info.duration_seconds else _measure(info, bounded), file, size)
        except TooExpensive as error:
            raise NotAVideo(str(error)) from None
        except av.FFmpegError:
            raise NotAVideo(
                "the file is damaged: its end is missing, and with it what is needed to play it"
                if lacks_index(file, size)
                else "the file is no video, or it is damaged"
            ) from None


def _judge_end(info: MediaInfo, file: BinaryIO, size: int) -> MediaInfo:
    """Add whether the file ends early, and how long it was before where it says so."""
    seconds, declared = info.duration_seconds, info.declared_seconds
    if seconds is not None and declared is None:
        file.seek(0)
        declared = (
            mp3_declared_seconds(file, size, seconds)
            if info.format == "mp3"
            else declared_seconds(file.read(HEADER_BYTES), size, seconds)
        )
    ends_early = declared is not None or ends_in_packet(file, size, info.format)
    return replace(info, declared_seconds=declared, ends_early=ends_early)


def _find_other_content(file: BinaryIO) -> str | None:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return describe_other_content(head)


def size_in_kb(size_in_bytes: int) -> int:
    """Return kilobytes of 1024 bytes, rounded up."""
    return -(-size_in_bytes // 1024)


def _describe(container: InputContainer, file: BoundedFile, path: Path, size: int) -> MediaInfo:
    video = choose_video_stream(container)
    if video is None:
        return _describe_audio(container, file, path, size)
    codec = _codec(video)
    if codec is None or not can_decode(video):
        raise NotAVideo("the codec of its picture is unknown, or it is damaged")
    if container.format.name == "gif" and _is_single_image(container, video):
        raise NotAVideo("the file is an image (GIF), no video and no audio")
    width, height = _size(container, video)
    if (
        container.format.name in _TURNED_FORMATS
        and (frame := _decode_one(container, video))
        and lies_on_its_side(frame)
    ):
        width, height = height, width
    return MediaInfo(
        duration_seconds=None,
        file_size_kb=size_in_kb(size),
        video_codec=codec,
        audio_codec=_codec(choose_audio_stream(container)),
        resolution=f"{width}x{height}",
        frame_rate=float(video.average_rate) if video.average_rate else None,
        format=_format(container.format.name, path),
    )


def _describe_audio(container: InputContainer, file: BoundedFile, path: Path, size: int) -> MediaInfo:
    found = probe_audio(container, file)
    if found is None:
        file.check_limits()
        raise NotAVideo("the file has no picture and no audio that can be decoded")
    audio, duration = found
    name = _format(container.format.name, path)
    return MediaInfo(
        duration_seconds=duration,
        file_size_kb=size_in_kb(size),
        video_codec=None,
        audio_codec=_codec(audio),
        resolution=None,
        frame_rate=None,
        format="m4a" if name == "mp4" else name,
    )


def _is_single_image(container: InputContainer, video: VideoStream) -> bool:
    frames = (packet for packet in container.demux(video) if packet.size)
    return len(list(islice(frames, 2))) < 2


def _size(container: InputContainer, video: VideoStream) -> tuple[int, int]:
    """Return what the file says; where only its frames tell, one of them is decoded."""
    if not video.width or not video.height:
        _decode_one(container, video)
    if not video.width or not video.height:
        raise NotAVideo("the size of its picture is unknown, or it is damaged")
    if video.width * video.height > MAX_PIXELS:
        raise NotAVideo("its picture has more than 7680 times 4320 pixels")
    return video.width, video.height


def _decode_one(container: InputContainer, video: VideoStream) -> VideoFrame | None:
    read_only(container, video)
    for _, packet in zip(range(_PACKETS_AT_MOST), container.demux(video), strict=False):
        try:
            if frames := video.codec_context.decode(packet):
                return frames[0]
        except av.FFmpegError:  # others may be whole
            continue
    return None


def _codec(stream: Stream | None) -> str | None:
    codec = getattr(stream, "codec", None)  # a stream that FFmpeg has no decoder for lacks the attribute
    return None if codec is None else str(codec.canonical_name)


def _measure(info: MediaInfo, file: BoundedFile) -> MediaInfo:
    """Add the duration, unless it takes too long to find; what else a file says is true all the same."""
    file.seek(0)
    try:
        timeline = read_timeline(file, may_read_all=True)
    except TooExpensive:
        return info
    return replace(info, duration_seconds=timeline.duration_seconds, declared_seconds=timeline.declared_seconds)


def _format(names: str, path: Path) -> str:
    """Return the one of FFmpeg's names ("mov,mp4,m4a") that the file goes by, or the first."""
    known = names.split(",")
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in known else _OTHER_NAMES.get(known[0], known[0])
