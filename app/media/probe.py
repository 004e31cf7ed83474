"""Probing of media files: content type by signature, duration, codecs, resolution, frame rate, and truncation."""

import codecs
import os
import re
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from app.core.media_types import UNKNOWN_TYPE, guess_media_type
from app.media.container import (
    MAX_PIXELS,
    ReadLimitedFile,
    ReadLimitExceeded,
    ReadLimits,
    choose_audio_stream,
    choose_video_stream,
    codec_name,
    discard_other_streams,
    has_allowed_decoder,
    open_container,
)
from app.media.frames import is_sideways
from app.media.sample_tables import has_oversized_index
from app.media.timeline import read_timeline
from app.media.truncated_packet import ends_inside_packet
from app.media.truncation import (
    ASF_HEADER_BYTES,
    duration_before_truncation,
    has_lost_index,
    mp3_duration_before_truncation,
)

SIGNATURE_BYTES = 512  # at the start of a file

# Major brands (https://mp4ra.org/registered-types/brands) other than those of MP4 video.
_TYPES_OF_BRANDS = {b"qt  ": "video/quicktime", b"M4A ": "audio/mp4", b"M4B ": "audio/mp4"}
_SIGNATURES = (
    (rb"RIFF....AVI ", "video/x-msvideo"),
    (rb"(RIFF|RF64)....WAVE", "audio/wav"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"\x00\x00\x01\xba", "video/mpeg"),
    (rb"FLV\x01", "video/x-flv"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-wmv"),
    (rb"\x47.{187}\x47", "video/mp2t"),
    (rb"\x06\x0e\x2b\x34\x02\x05\x01\x01", "application/mxf"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"ID3", "audio/mpeg"),
    (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg"),  # layer III
    (rb"\xff[\xf0\xf1\xf8\xf9]", "audio/aac"),  # ADTS
    (rb"fLaC", "audio/flac"),
    (rb"FORM....AIF[FC]", "audio/aiff"),
    # QuickTime files older than MP4 have no brand and begin with one of these atoms.
    (rb"....(moov|mdat|wide|pnot)", "video/quicktime"),
)
# An Ogg file begins with a page for each of its tracks.
_OGG_VIDEO_CODEC = re.compile(rb"\x80theora|BBCD|OVP80")
# Common uploads that are neither video nor audio, with descriptions for users.
_NON_MEDIA_SIGNATURES = (
    (rb"\xff\xd8\xff", "an image (JPEG)"),
    (rb"\x89PNG\r\n", "an image (PNG)"),
    (rb"RIFF....WEBP", "an image (WebP)"),
    (rb"(II\*\0|MM\0\*)", "an image (TIFF)"),
    (rb"BM....\0\0\0\0", "an image (BMP)"),
    (rb"....ftyp(heic|heix|heim|heis|mif1)", "an image (HEIC)"),
    (rb"....ftypavif", "an image (AVIF)"),
    (rb"\s*(<\?xml[^>]*>\s*)?<svg", "an image (SVG)"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK\x03\x04", "a ZIP archive or an office document"),
    (rb"(7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\x1f\x8b)", "an archive"),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)\b", "a web page"),
)
_DOCUMENT_TYPE = re.compile(rb"\x42\x82.(webm|matroska)", re.DOTALL)  # EBML: id, one byte of length, name


def detect_content_type(first_bytes: bytes, file_name: str) -> str:
    """Return the media type of a file that begins with `first_bytes`, its first `SIGNATURE_BYTES`.

    `file_name` decides only if the bytes are not recognised. Something else, such as a web page named `talk.mp4`, is
    `UNKNOWN_TYPE`.
    """
    known = _content_type_by_signature(first_bytes)
    if known is None:
        known = UNKNOWN_TYPE if find_non_media_reason(first_bytes) else guess_media_type(file_name)
    return known


def find_non_media_reason(first_bytes: bytes) -> str | None:
    """Return what a file that is neither video nor audio is ("an image (JPEG)"), None if unknown."""
    matches = (kind for start, kind in _NON_MEDIA_SIGNATURES if re.match(start, first_bytes, re.DOTALL | re.IGNORECASE))
    return next(matches, None) or ("text" if _looks_like_text(first_bytes) else None)


def _looks_like_text(first_bytes: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(first_bytes)
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(each.isprintable() or each in "\t\r\n\f\ufeff" for each in text)


def _content_type_by_signature(first_bytes: bytes) -> str | None:
    if first_bytes[4:8] == b"ftyp":
        brand = first_bytes[8:12]
        return "video/3gpp" if brand.startswith(b"3g") else _TYPES_OF_BRANDS.get(brand, "video/mp4")
    if first_bytes.startswith(b"\x1a\x45\xdf\xa3"):
        found = _DOCUMENT_TYPE.search(first_bytes)
        return None if found is None else "video/webm" if found[1] == b"webm" else "video/x-matroska"
    if first_bytes.startswith(b"OggS"):
        return "video/ogg" if _OGG_VIDEO_CODEC.search(first_bytes) else "audio/ogg"
    return next((kind for start, kind in _SIGNATURES if re.match(start, first_bytes, re.DOTALL)), None)


# A file without a declared duration is read from end to end.
_LIMITS = ReadLimits(seconds=20.0, bytes=4 * 1024**3)
_MAX_VIDEO_PACKETS = 100  # decoded where only a frame has the resolution
_ROTATABLE_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})  # with a display matrix
_FORMAT_ALIASES = {"matroska": "mkv", "mov": "mp4"}
# Extensions of formats named otherwise. WebM is Matroska with only these codecs.
_EXTENSIONS = {"mpegts": ".ts", "mpeg": ".mpg"}
_WEBM_CODECS = frozenset({"vp8", "vp9", "av1", "opus", "vorbis", None})


class NotMedia(Exception):
    """A file that PyAV cannot open, or without video and audio; the text says which."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Properties of a media file. `format` is short ("mp4"), codecs have FFmpeg's names ("h264", "aac").

    Audio without video has no video codec, resolution or frame rate.
    """

    duration_seconds: float | None
    file_size_kb: int
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None
    format: str
    declared_seconds: float | None = None  # by a truncated file
    ends_early: bool = False  # truncated, whatever it declares

    @property
    def extension(self) -> str:
        if self.format == "mkv" and {self.video_codec, self.audio_codec} <= _WEBM_CODECS:
            return ".webm"
        return _EXTENSIONS.get(self.format, f".{self.format}")


def probe_media(path: Path) -> MediaInfo:
    """Read the properties of a media file; blocks. Raises `NotMedia`, and `OSError` if it cannot be read.

    The duration is None if it takes too long to find, or if the file declares none and has no packets.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise NotMedia("the file is empty")
        if other := find_non_media_reason(file.read(SIGNATURE_BYTES)):
            raise NotMedia(f"the file is {other}, no video and no audio")
        if has_oversized_index(file, size):
            raise NotMedia("the file is damaged: its index lists more than the file can hold")
        file.seek(0)
        bounded = ReadLimitedFile(file, _LIMITS)
        try:
            with open_container(bounded) as container:
                info = _probe_opened_file(container, bounded, path, size)
            return _with_truncation_facts(
                info if info.duration_seconds else _add_measured_duration(info, bounded), file, size
            )
        except ReadLimitExceeded as error:
            raise NotMedia(str(error)) from None
        except av.FFmpegError:
            raise NotMedia(
                "the file is damaged: its end is missing, and with it what is needed to play it"
                if has_lost_index(file, size)
                else "the file is no video, or it is damaged"
            ) from None


def _with_truncation_facts(info: MediaInfo, file: BinaryIO, file_size: int) -> MediaInfo:
    seconds, declared = info.duration_seconds, info.declared_seconds
    if seconds is not None and declared is None:
        file.seek(0)
        declared = (
            mp3_duration_before_truncation(file, file_size, seconds)
            if info.format == "mp3"
            else duration_before_truncation(file.read(ASF_HEADER_BYTES), file_size, seconds)
        )
    ends_early = declared is not None or ends_inside_packet(file, file_size, info.format)
    return replace(info, declared_seconds=declared, ends_early=ends_early)


def size_in_kb(size_in_bytes: int) -> int:
    """Return a size in units of 1024 bytes, rounded up."""
    return -(-size_in_bytes // 1024)


def _probe_opened_file(container: InputContainer, file: ReadLimitedFile, path: Path, file_size: int) -> MediaInfo:
    video_stream = choose_video_stream(container)
    if video_stream is None:
        return _probe_audio_only(container, file, path, file_size)
    codec = codec_name(video_stream)
    if codec is None or not has_allowed_decoder(video_stream):
        raise NotMedia("its video codec is unknown, or it is damaged")
    if container.format.name == "gif" and _is_single_image(container, video_stream):
        raise NotMedia("the file is an image (GIF), no video and no audio")
    width, height = _read_width_and_height(container, video_stream)
    if (
        container.format.name in _ROTATABLE_FORMATS
        and (frame := _decode_first_whole_frame(container, video_stream))
        and is_sideways(frame)
    ):
        width, height = height, width
    return MediaInfo(
        duration_seconds=None,
        file_size_kb=size_in_kb(file_size),
        video_codec=codec,
        audio_codec=codec_name(choose_audio_stream(container)),
        resolution=f"{width}x{height}",
        frame_rate=float(video_stream.average_rate) if video_stream.average_rate else None,
        format=_format_name(container.format.name, path),
    )


def _probe_audio_only(container: InputContainer, file: ReadLimitedFile, path: Path, file_size: int) -> MediaInfo:
    found = _probe_audio_stream(container, file)
    if found is None:
        file.check_limits()
        raise NotMedia("the file has no video and no audio that can be decoded")
    audio, duration = found
    name = _format_name(container.format.name, path)
    return MediaInfo(
        duration_seconds=duration,
        file_size_kb=size_in_kb(file_size),
        video_codec=None,
        audio_codec=codec_name(audio),
        resolution=None,
        frame_rate=None,
        format="m4a" if name == "mp4" else name,
    )


def _is_single_image(container: InputContainer, video_stream: VideoStream) -> bool:
    frames = (packet for packet in container.demux(video_stream) if packet.size)
    return len(list(islice(frames, 2))) < 2


def _read_width_and_height(container: InputContainer, video_stream: VideoStream) -> tuple[int, int]:
    if not video_stream.width or not video_stream.height:
        _decode_first_whole_frame(container, video_stream)
    if not video_stream.width or not video_stream.height:
        raise NotMedia("its resolution is unknown, or it is damaged")
    if video_stream.width * video_stream.height > MAX_PIXELS:
        raise NotMedia("its frames have more than 7680 times 4320 pixels")
    return video_stream.width, video_stream.height


def _decode_first_whole_frame(container: InputContainer, video_stream: VideoStream) -> VideoFrame | None:
    discard_other_streams(container, video_stream)
    for _, packet in zip(range(_MAX_VIDEO_PACKETS), container.demux(video_stream), strict=False):
        try:
            if frames := video_stream.codec_context.decode(packet):
                return frames[0]
        except av.FFmpegError:  # later packets may be whole
            continue
    return None


def _add_measured_duration(info: MediaInfo, file: ReadLimitedFile) -> MediaInfo:
    file.seek(0)
    try:
        timeline = read_timeline(file, may_read_all=True)
    except ReadLimitExceeded:
        return info
    return replace(info, duration_seconds=timeline.duration_seconds, declared_seconds=timeline.declared_seconds)


def _format_name(ffmpeg_names: str, path: Path) -> str:
    """Return the name among FFmpeg's ("mov,mp4,m4a") that matches the file's extension, else the first."""
    names = ffmpeg_names.split(",")
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in names else _FORMAT_ALIASES.get(names[0], names[0])


_MAX_AUDIO_PACKETS = 100  # tried until one can be decoded
# Formats without an index: FFmpeg estimates the duration from the bit rate, or repeats an outdated header.
_UNINDEXED_FORMATS = frozenset({"mp3", "aac", "ac3", "amr"})


@dataclass(slots=True)
class _PacketTotals:
    """The end of the last packet, in ticks, and the number of packets without a time."""

    end: int = 0
    untimed: int = 0

    def add_packet(self, packet: "Packet[AudioStream]") -> None:
        if packet.pts is not None:
            self.end = max(self.end, packet.pts + (packet.duration or 0))
        elif packet.size:
            self.untimed += 1


def _probe_audio_stream(container: InputContainer, file: ReadLimitedFile) -> tuple[AudioStream, float | None] | None:
    """Return the audio stream to play, and its duration where only its packets have one.

    None if there is no audio, or no frame at its start can be decoded.
    """
    audio_stream = choose_audio_stream(container)
    if audio_stream is None:
        return None
    discard_other_streams(container, audio_stream)
    packets, totals = container.demux(audio_stream), _PacketTotals()
    for _, packet in zip(range(_MAX_AUDIO_PACKETS), packets, strict=False):
        totals.add_packet(packet)
        if _can_decode_packet(packet):
            break
    else:
        return None
    if container.format.name not in _UNINDEXED_FORMATS:
        return audio_stream, None
    declared = container.duration / av.time_base if container.duration else None
    for packet in packets:
        if file.must_stop_reading:
            break
        totals.add_packet(packet)
    measured = None if file.is_limit_reached else _duration_of_packets(totals, container, audio_stream)
    return audio_stream, measured or declared


def _can_decode_packet(packet: "Packet[AudioStream]") -> bool:
    try:
        return bool(packet.decode())
    except av.FFmpegError:  # others may be whole
        return False


def _duration_of_packets(totals: _PacketTotals, container: InputContainer, audio_stream: AudioStream) -> float:
    if totals.end and audio_stream.time_base:
        return float(totals.end * audio_stream.time_base) - (container.start_time or 0) / av.time_base
    context = audio_stream.codec_context  # has decoded a frame, so the frame size is known
    return totals.untimed * context.frame_size / context.sample_rate if context.sample_rate else 0.0
