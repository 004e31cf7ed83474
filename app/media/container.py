"""Opening of media files: limits on their length and on reading, allowed formats and decoders, streams, packets."""

import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from app.core.errors import StageFailed


class ReadLimitExceeded(Exception):
    """Reading a file takes too much time or too many bytes."""

    def __init__(self) -> None:
        super().__init__("the file takes too long to read")


class ProcessingStopped(Exception):
    """Processing of a file was stopped, because its `stopping` event was set."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The most seconds and bytes that reading one file may take."""

    seconds: float
    bytes: int


class ReadLimitedFile(io.RawIOBase):
    """A file that reports its end when a limit is reached, a read fails, or `stopping` is set.

    FFmpeg goes on after an exception, but not at the end of a file: call `check_limits` afterwards.
    """

    def __init__(self, file: BinaryIO, limits: ReadLimits, stopping: threading.Event | None = None) -> None:
        self._file = file
        self._stopping = stopping or threading.Event()
        self._left = limits.bytes
        self._deadline = time.monotonic() + limits.seconds
        self._failure: Exception | None = None
        self.is_limit_reached = False

    @property
    def must_stop_reading(self) -> bool:
        """Return whether reading has failed, was stopped or reached a limit; FFmpeg goes on with buffered packets."""
        self.is_limit_reached = self.is_limit_reached or self._left <= 0 or time.monotonic() > self._deadline
        return self.is_limit_reached or self._failure is not None or self._stopping.is_set()

    @property
    def seconds_left(self) -> float:
        return max(self._deadline - time.monotonic(), 0.0)

    def read(self, size: int = -1) -> bytes:
        if self.must_stop_reading:
            return b""
        try:
            chunk = self._file.read(size)
        except Exception as error:
            self._failure = error
            return b""
        self._left -= len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except Exception as error:
            self._failure = self._failure or error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def raise_if_read_failed(self) -> None:
        if self._failure is not None:
            raise self._failure

    def check_limits(self) -> None:
        """Raise the read error, `ProcessingStopped` or `ReadLimitExceeded`, if there was any."""
        self.raise_if_read_failed()
        if self._stopping.is_set():
            raise ProcessingStopped
        if self.is_limit_reached or time.monotonic() > self._deadline:
            raise ReadLimitExceeded


def measure_file_size(file: "BinaryIO | ReadLimitedFile") -> int:
    """Return the size of a file in bytes, and rewind it."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


DEFAULT_MAX_HOURS = 12.0  # the default of the setting
# The most economical speech codecs, digital silence and static video need 300 bit/s and more. Up to the first limit any
# duration is plausible: a recording may have been paused.
_ALWAYS_PLAUSIBLE_SECONDS = 600.0
_MIN_BYTES_PER_SECOND = 32
# Base time for any file, and one more second for each 10 kB.
_WORK_SECONDS = 600.0
_WORK_BYTES_PER_SECOND = 10_000


def max_plausible_duration(file_size: int) -> float:
    """Return the longest plausible duration, in seconds, of a file of `file_size` bytes."""
    return _ALWAYS_PLAUSIBLE_SECONDS + file_size / _MIN_BYTES_PER_SECOND


def limit_processing_seconds(file_size: int, max_seconds: float) -> float:
    return min(_WORK_SECONDS + file_size / _WORK_BYTES_PER_SECOND, max_seconds)


def check_max_hours(duration_seconds: float, max_hours: float) -> None:
    if duration_seconds > max_hours * 3600:
        raise StageFailed(f"The video is longer than {max_hours:g} hours, the limit that MAX_VIDEO_HOURS sets")


def check_plausible_duration(duration_seconds: float, file_size: int) -> None:
    """Raise `StageFailed` if a file of `file_size` bytes cannot hold so many seconds."""
    if duration_seconds > max_plausible_duration(file_size):
        raise StageFailed("The time stamps of the video are wrong: its file is too small to be as long as they say")


PlayableStream = AudioStream | VideoStream

MAX_PIXELS = 7680 * 4320
MAX_STREAMS = 256  # audio and subtitles in many languages, with fonts
# Only containers that hold the media themselves: for a playlist FFmpeg would open whatever it names.
ALLOWED_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,mpegts,mpeg,flv,asf,mxf,gif,mp3,wav,w64,flac,aac,aiff,caf,amr,ac3"
)
_OPTIONS = {
    "format_whitelist": ALLOWED_FORMATS,
    "protocol_whitelist": "none",  # nothing but this file
    # FFmpeg decodes a frame of each stream when it opens a file, and small packets can become huge frames. Headers
    # and parsers suffice for most files, and only the chosen streams are decoded later.
    "codec_whitelist": "none",
    "max_streams": str(MAX_STREAMS),
}

# Codecs of recordings, not the hundreds of games and subtitles, whose decoders are less tested. Names are FFmpeg's;
# builds may have several decoders of a codec.
_VIDEO_DECODERS = (
    # recorded by cameras, phones, browsers and broadcasters
    "h264 hevc vvc libdav1d av1 libaom-av1 libgav1 vp8 vp9 libvpx libvpx-vp9 mpeg1video mpeg2video mpegvideo mpeg4 "
    "h261 h263 h263i h263p theora vp3 vp4 vp5 vp6 vp6a vp6f vp7 flv wmv1 wmv2 wmv3 vc1 mss1 mss2 msmpeg4v1 msmpeg4v2 "
    "msmpeg4 dvvideo mjpeg mjpegb gif png apng rv10 rv20 rv30 rv40 rv60 dirac svq1 svq3 cinepak indeo2 indeo3 indeo4 "
    "indeo5 msvideo1 msrle rpza smc 8bps qtrle fraps flashsv flashsv2 zmbv tscc2 camtasia camstudio "
    "screenpresso asv1 asv2 truemotion1 truemotion2 zlib mszh "
    # used for editing and archiving
    "prores prores_raw dnxhd cfhd jpeg2000 libopenjpeg ffv1 huffyuv ffvhuff utvideo magicyuv lagarith hap dxv aic "
    "pixlet speedhq notchlc apv rawvideo v210 v210x v308 v408 v410 r210 r10k y41p yuv4 cyuv cljr avui avrp media100"
)
_AUDIO_DECODERS = (
    "aac aac_latm aac_fixed libfdk_aac mp3 mp3float mp3adu mp3adufloat mp3on4 mp3on4float mp2 mp2float mp1 mp1float "
    "opus libopus vorbis libvorbis flac alac ac3 ac3_fixed eac3 dca truehd mlp wavpack tta ape als dolby_e s302m "
    "wmav1 wmav2 wmapro wmalossless wmavoice speex libspeex amrnb amrwb libopencore_amrnb libopencore_amrwb gsm gsm_ms "
    "libgsm libgsm_ms ilbc libilbc g722 g723_1 g726 g726le g729 qcelp evrc qdm2 qdmc mace3 mace6 nellymoser truespeech "
    "cook sipr real_144 real_288 ralf atrac3 atrac3plus dvaudio "
    "adpcm_ms adpcm_ima_wav adpcm_ima_qt adpcm_swf adpcm_yamaha "
    "pcm_alaw pcm_mulaw pcm_bluray pcm_dvd pcm_vidc pcm_s8 pcm_u8 pcm_s8_planar "
    "pcm_s16le pcm_s16be pcm_s16le_planar pcm_s16be_planar pcm_u16le pcm_u16be pcm_s24le pcm_s24be pcm_s24le_planar "
    "pcm_u24le pcm_u24be pcm_s32le pcm_s32be pcm_s32le_planar pcm_u32le pcm_u32be pcm_s64le pcm_s64be "
    "pcm_f16le pcm_f24le pcm_f32le pcm_f32be pcm_f64le pcm_f64be"
)
_ALLOWED_DECODER_NAMES = frozenset(f"{_VIDEO_DECODERS} {_AUDIO_DECODERS}".split())
ALLOWED_DECODERS = ",".join(sorted(_ALLOWED_DECODER_NAMES))  # in the syntax of FFmpeg's option

# Images beside the video: covers, previews of chapters.
_STILL_IMAGES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# Audio for some listeners only: audio description, commentary.
_SPECIAL_AUDIO = Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.comment
# Codecs of single images: beside another video stream, one of these is a cover.
_IMAGE_CODECS = frozenset({"mjpeg", "png", "apng", "bmp", "gif", "tiff", "webp", "jpegls", "jpeg2000", "ljpeg"})

_MAX_FRAME_SAMPLES = "1000000"  # per channel in one audio frame; known codecs have at most 150,000


@contextmanager
def open_container(file: ReadLimitedFile, decoders: str = "none") -> Iterator[InputContainer]:
    """Open a media file. `decoders` may be used to find the order of packets, none by default.

    Raises `av.FFmpegError` for a file that is no video or audio, `ReadLimitExceeded`, `ProcessingStopped`, and what
    reading the file raises.
    """
    try:
        # Old cameras write titles in other encodings, and nothing here reads titles.
        with av.open(
            file, "r", options={**_OPTIONS, "codec_whitelist": decoders}, metadata_errors="ignore"
        ) as container:
            yield container
    except av.FFmpegError:
        file.check_limits()
        raise
    file.raise_if_read_failed()


def has_allowed_decoder(stream: VideoStream | AudioStream) -> bool:
    return stream.codec_context is not None and stream.codec_context.codec.name in _ALLOWED_DECODER_NAMES


def choose_video_stream(container: InputContainer) -> VideoStream | None:
    """Return the main video stream, set up for decoding, None if there is only cover art or none.

    A stream without an allowed decoder is returned if there is no other.
    """
    candidates = [stream for stream in container.streams.video if not stream.disposition & _STILL_IMAGES]
    if not candidates:
        return None
    video_stream = min(candidates, key=_video_stream_sort_key)
    if video_stream.codec_context is not None:
        video_stream.codec_context.thread_count = 1
        video_stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), "codec_whitelist": ALLOWED_DECODERS}
    return video_stream


def choose_audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the audio stream that players choose, set up for decoding; None if none can be decoded."""
    candidates = [stream for stream in container.streams.audio if has_allowed_decoder(stream)]
    audio_stream = min(candidates, key=_audio_stream_sort_key, default=None)
    if audio_stream is not None:
        audio_stream.codec_context.options = {"max_samples": _MAX_FRAME_SAMPLES, "codec_whitelist": ALLOWED_DECODERS}
    return audio_stream


def choose_audio_layout(audio_stream: AudioStream) -> str:
    return "mono" if audio_stream.codec_context.channels == 1 else "stereo"


def codec_name(stream: Stream | None) -> str | None:
    """Return FFmpeg's name of a stream's codec, None without a stream or a decoder."""
    codec = getattr(stream, "codec", None)
    return None if codec is None else str(codec.canonical_name)


def _video_stream_sort_key(stream: VideoStream) -> tuple[bool, bool, bool, bool, int]:
    return (
        not has_allowed_decoder(stream),
        stream.frames == 1,
        stream.codec_context is not None and stream.codec_context.codec.canonical_name in _IMAGE_CODECS,
        not stream.disposition & Disposition.default,
        stream.index,
    )


def _audio_stream_sort_key(stream: AudioStream) -> tuple[bool, bool, bool, int]:
    return (
        not stream.codec_context.sample_rate,  # declared, but without a single packet
        bool(stream.disposition & _SPECIAL_AUDIO),
        not stream.disposition & Disposition.default,
        stream.index,
    )


def choose_playable_streams(container: InputContainer) -> list[PlayableStream]:
    video, audio = choose_video_stream(container), choose_audio_stream(container)
    return [stream for stream in (video, audio) if stream is not None and has_allowed_decoder(stream)]


def discard_other_streams(container: InputContainer, *kept_streams: PlayableStream) -> None:
    """Make the demuxer skip all other streams, which saves reading them from a bucket."""
    indices = {stream.index for stream in kept_streams}
    for stream in container.streams:
        stream.discard = Discard.default if stream.index in indices else Discard.all


def read_packets(
    container: InputContainer, file: ReadLimitedFile, streams: Sequence[PlayableStream]
) -> "Iterator[Packet[Stream]]":
    """Yield packets with a time stamp until the file ends, is damaged, or must not be read on."""
    try:
        for packet in container.demux(*streams):
            if file.must_stop_reading:
                return
            if packet.pts is not None or packet.dts is not None:
                yield packet
    except av.FFmpegError:
        return


def packet_start_seconds(packet: "Packet[Stream]") -> float:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return float((stamp or 0) * packet.time_base)


def packet_end_seconds(packet: "Packet[Stream]") -> float:
    length = float((packet.duration or 0) * packet.time_base)
    if not length and isinstance(packet.stream, VideoStream) and packet.stream.average_rate:
        length = min(float(1 / packet.stream.average_rate), 1.0)
    return packet_start_seconds(packet) + length
