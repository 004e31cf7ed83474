"""Playable copies of videos whose files browsers do not play: MP4, or M4A for audio without video.

Streams are copied if they fit, and encoded as H.264 and AAC otherwise.
"""

import logging
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from app.core.errors import StageFailed
from app.media.clip import cut_clip, raise_if_disk_full
from app.media.clip_encoding import AudioTrackEncoder
from app.media.clip_plan import AUDIO_SAMPLE_RATE
from app.media.container import (
    DEFAULT_MAX_HOURS,
    ReadLimitedFile,
    ReadLimitExceeded,
    ReadLimits,
    check_max_hours,
    check_plausible_duration,
    choose_audio_layout,
    choose_audio_stream,
    choose_video_stream,
    codec_name,
    discard_other_streams,
    has_allowed_decoder,
    limit_processing_seconds,
    measure_file_size,
    open_container,
)
from app.media.frames import decode_usable_frames
from app.media.probe import SIGNATURE_BYTES, NotMedia, detect_content_type, probe_media
from app.media.timeline import Timeline, read_timeline
from app.media.truncation import exceeds_duration_tolerance

_log = logging.getLogger(__name__)

_PLAN_LIMITS = ReadLimits(seconds=60.0, bytes=1024**4)
_LIMIT_SECONDS = 24 * 3600.0
_MAX_BYTES = 64 * 1024**3
_START_TOLERANCE_SECONDS = 0.1  # browsers show larger first time stamps instead of 0:00

# Played by Chrome, Firefox and Safari on every system. Not HEVC, for which most computers have no decoder.
_VIDEO_CODECS = frozenset({"h264", "vp9", "av1"})
_AUDIO_CODECS = frozenset({"aac", "mp3", "opus", "flac"})
_BROWSER_CODECS = {
    "video/mp4": (_VIDEO_CODECS, _AUDIO_CODECS),
    "video/quicktime": (frozenset({"h264"}), frozenset({"aac", "mp3"})),
    "video/webm": (frozenset({"vp8", "vp9", "av1"}), frozenset({"opus", "vorbis"})),
    "audio/mp4": (frozenset(), _AUDIO_CODECS),
    "audio/mpeg": (frozenset(), frozenset({"mp3"})),
    "audio/flac": (frozenset(), frozenset({"flac"})),
    "audio/ogg": (frozenset(), frozenset({"opus", "vorbis", "flac"})),
    "audio/wav": (frozenset(), frozenset({"pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le"})),
}
# Formats whose packets have presentation times.
_REMUXABLE_TYPES = frozenset(
    {"video/mp4", "video/3gpp", "video/quicktime", "video/x-matroska", "video/webm", "video/mp2t", "video/x-flv"}
)
_PARSING_DECODERS = "h264,vp9,libdav1d,av1,aac,mp3,mp3float,opus,libopus,flac"
# Profiles of H.264 with 8 bits and 4:2:0.
_H264_PROFILES = frozenset({"Constrained Baseline", "Baseline", "Main", "High", "Extended"})


@dataclass(frozen=True, slots=True)
class PlayableCopyPlan:
    """Which streams a copy takes over without encoding, and its duration in seconds."""

    seconds: float
    is_audio_only: bool
    copies_video: bool
    copies_audio: bool

    @property
    def extension(self) -> str:
        return ".m4a" if self.is_audio_only else ".mp4"


def plan_playable_copy(
    media_file: BinaryIO,
    stopping: threading.Event,
    overstates_duration: bool = False,
    max_hours: float = DEFAULT_MAX_HOURS,
) -> PlayableCopyPlan | None:
    """Plan a copy that browsers play, None if they play the file itself; blocks.

    A truncated file that `overstates_duration` needs a copy, because browsers show the declared duration. Raises
    `StageFailed` (also for a file longer than `max_hours`, or with more to encode than it can hold),
    `ProcessingStopped`, and what reading the file raises.
    """
    content_type = detect_content_type(media_file.read(SIGNATURE_BYTES), "")
    file = ReadLimitedFile(media_file, _PLAN_LIMITS, stopping)
    file.seek(0)
    try:
        timeline = read_timeline(file, may_read_all=True)
        with open_container(file) as container:
            plan = _plan_playable_copy(container, timeline, content_type, overstates_duration)
        if plan is not None:
            _check_copy_duration(plan, measure_file_size(media_file), max_hours)
        return plan
    except ReadLimitExceeded as error:
        raise StageFailed(f"No playable copy can be made: {error}") from None
    except av.FFmpegError:
        raise StageFailed("No playable copy can be made: the file is damaged") from None


def make_playable_copy(
    media_file: BinaryIO, plan: PlayableCopyPlan, copy_path: Path, stopping: threading.Event
) -> None:
    """Write the planned copy to `copy_path`; blocks. Streams that cannot be copied after all are encoded.

    Raises `StageFailed`, `ProcessingStopped`, what reading the file raises, and `OSError` for the copy.
    """
    file_size = measure_file_size(media_file)
    limit_seconds = limit_processing_seconds(file_size, _LIMIT_SECONDS)
    if plan.copies_video:
        try:
            _remux_streams(ReadLimitedFile(media_file, ReadLimits(limit_seconds, 1024**4), stopping), plan, copy_path)
            if _has_planned_duration(copy_path, plan):
                return
            reason = "the copy has another duration"
        except ReadLimitExceeded as error:
            raise StageFailed(f"No playable copy can be made: {error}") from None
        except (av.FFmpegError, _CannotRemux) as error:
            raise_if_disk_full(error)
            reason = str(error)
        check_plausible_duration(plan.seconds, file_size)
        _log.info("Encoding the streams of a video, because they cannot be copied: %s", reason)
    media_file.seek(0)
    cut_clip(media_file, 0, plan.seconds, copy_path, stopping, limit_seconds, _MAX_BYTES)


def _check_copy_duration(plan: PlayableCopyPlan, file_size: int, max_hours: float) -> None:
    try:
        check_max_hours(plan.seconds, max_hours)
        if not (plan.copies_video and plan.copies_audio):
            check_plausible_duration(plan.seconds, file_size)
    except StageFailed as failure:
        raise StageFailed(f"No playable copy can be made: {str(failure)[:1].lower()}{str(failure)[1:]}") from None


class _CannotRemux(Exception):
    """A stream that cannot be copied; the text says why."""


def _plan_playable_copy(
    container: InputContainer, timeline: Timeline, content_type: str, overstates_duration: bool
) -> PlayableCopyPlan | None:
    video, audio = choose_video_stream(container), choose_audio_stream(container)
    if video is not None and not has_allowed_decoder(video):
        raise StageFailed("No playable copy can be made: the codec of the video is unknown")
    video_codec, audio_codec = codec_name(video), codec_name(audio)
    played_video, played_audio = _BROWSER_CODECS.get(content_type, (frozenset(), frozenset()))
    is_played = video_codec in {None, *played_video} and audio_codec in {None, *played_audio}
    is_played = is_played and abs(timeline.origin) <= _START_TOLERANCE_SECONDS and _is_profile_played_by_browsers(video)
    if is_played and (video_codec or audio_codec) and not overstates_duration:
        return None
    if timeline.duration_seconds is None:
        raise StageFailed("No playable copy can be made: the duration of the video is unknown")
    return PlayableCopyPlan(
        seconds=timeline.duration_seconds,
        is_audio_only=video is None,
        copies_video=content_type in _REMUXABLE_TYPES
        and video_codec in _VIDEO_CODECS
        and _is_profile_played_by_browsers(video)
        and not timeline.restarts,
        copies_audio=audio_codec in {None, *_AUDIO_CODECS},
    )


def _is_profile_played_by_browsers(video_stream: VideoStream | None) -> bool:
    if video_stream is None or codec_name(video_stream) != "h264":
        return True
    return video_stream.codec_context.profile in _H264_PROFILES


def _has_planned_duration(copy_path: Path, plan: PlayableCopyPlan) -> bool:
    try:
        seconds = probe_media(copy_path).duration_seconds
    except NotMedia:
        return False
    return seconds is not None and not exceeds_duration_tolerance(abs(seconds - plan.seconds), plan.seconds)


def _remux_streams(file: ReadLimitedFile, plan: PlayableCopyPlan, copy_path: Path) -> None:
    file.seek(0)
    timeline = read_timeline(file)
    with (
        open_container(file, _PARSING_DECODERS) as source,
        av.open(f"file:{copy_path}", "w", format="mp4", options={"movflags": "+faststart"}) as output,
    ):
        video, audio = choose_video_stream(source), choose_audio_stream(source)
        tracks: dict[int, _RemuxedTrack | _TranscodedAudioTrack] = {}
        if video is not None:
            tracks[video.index] = _RemuxedTrack(output, video, timeline.origin)
        if audio is not None and plan.copies_audio:
            tracks[audio.index] = _RemuxedTrack(output, audio, timeline.origin)
        elif audio is not None:
            tracks[audio.index] = _TranscodedAudioTrack(output, audio, timeline.origin, plan.seconds)
        streams = [stream for stream in (video, audio) if stream is not None]
        discard_other_streams(source, *streams)
        for packet in source.demux(*streams):
            file.check_limits()
            tracks[packet.stream.index].add_packet(packet)
        for track in tracks.values():
            track.flush()
    file.check_limits()


class _RemuxedTrack:
    """Packets that are copied, with time stamps that start at 0."""

    def __init__(self, output: OutputContainer, stream: VideoStream | AudioStream, origin: float) -> None:
        self._output = output
        self._stream = output.add_stream_from_template(stream)
        self._origin = origin
        self._held: list[Packet[Stream]] = []  # first packets without a decoding time, which later ones imply

    def add_packet(self, packet: "Packet[Stream]") -> None:
        if not packet.size:
            return
        if packet.pts is None or packet.time_base is None:
            raise _CannotRemux("its packets have no times")
        self._held.append(packet)
        if packet.dts is not None:
            self._write_held_packets(packet.dts)

    def flush(self) -> None:
        """Raise `_CannotRemux` if packets without a decoding time are left."""
        if self._held:
            raise _CannotRemux("its packets have no times of decoding")

    def _write_held_packets(self, last_decoding_time: int) -> None:
        step = self._held[-1].duration or 1
        for back, packet in zip(reversed(range(len(self._held))), self._held, strict=True):
            ticks = round(Fraction(self._origin) / packet.time_base)
            packet.pts, packet.dts = (packet.pts or 0) - ticks, last_decoding_time - back * step - ticks
            packet.stream = self._stream
            self._output.mux(packet)
        self._held.clear()


class _TranscodedAudioTrack:
    """Audio that is encoded for the copy."""

    def __init__(self, output: OutputContainer, stream: AudioStream, origin: float, seconds: float) -> None:
        self._output = output
        sample_count = round(seconds * AUDIO_SAMPLE_RATE)
        self._encoder = AudioTrackEncoder(output, choose_audio_layout(stream), origin, sample_count)

    def add_packet(self, packet: "Packet[Stream]") -> None:
        for frame in decode_usable_frames(packet):
            if isinstance(frame, AudioFrame):
                self._output.mux(list(self._encoder.encode_frame(frame)))

    def flush(self) -> None:
        self._output.mux(list(self._encoder.flush(pads_end=False)))
