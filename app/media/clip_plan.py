"""Clip plans: what is cut out of a video, and how, decided before the cut so that both encoders write the same clip."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from app.core.errors import StageFailed
from app.media.colours import ColourProperties, read_colours
from app.media.container import (
    ReadLimitedFile,
    choose_audio_layout,
    choose_audio_stream,
    choose_video_stream,
    discard_other_streams,
    has_allowed_decoder,
    open_container,
)
from app.media.frames import decode_frames, is_sideways, rotation_filters
from app.media.timeline import Timeline, read_timeline

AUDIO_SAMPLE_RATE = 48_000  # Hz
VIDEO_CODEC: Final = "libx264"
VIDEO_OPTIONS = {"preset": "fast"}
PIXEL_FORMAT = "yuv420p"
AUDIO_CODEC: Final = "aac"
AUDIO_BIT_RATE = 128_000  # bit/s
MAX_CLIP_BYTES = 2 * 1024**3  # of a clip

# Frames per second. Fewer are a slide show; more are a wrong value of a variable frame rate.
_MIN_FRAME_RATE, _MAX_FRAME_RATE, _DEFAULT_FRAME_RATE = Fraction(10), Fraction(60), Fraction(25)
# How far back to seek for a key frame: without an index a seek may lead behind it.
_SEEK_BACK_SECONDS = (0, 2, 10, 60)
_MAX_KEY_FRAME_PACKETS = 2000
_FRAME_RATE_TOLERANCE = 1e-4
_AUDIO_TAIL_SECONDS = 1.0  # after the clip, which filters read
_INTERLEAVING_SECONDS = 1.0  # that audio may lie behind the video of the same time in a file


@dataclass(frozen=True, slots=True)
class SeekTarget:
    """The start of decoding: a time, or a byte offset in a file whose clock restarts and has no usable times."""

    time: float
    position: int | None = None

    def seek_in(self, container: InputContainer) -> None:
        if self.position is None:
            container.seek(round(self.time * av.time_base))
        else:
            container.seek(self.position, unsupported_byte_offset=True)


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """The format of a video's frames, taken from the first decoded one."""

    width: int
    height: int
    pixel_format: str  # FFmpeg's name
    pixel_aspect: Fraction  # width / height of a pixel
    colours: ColourProperties
    rotation: Sequence[tuple[str, str]]
    is_sideways: bool

    @property
    def is_planar_yuv(self) -> bool:
        return self.pixel_format.startswith("yuv") and "p" in self.pixel_format

    @property
    def deinterlacing_filters(self) -> Sequence[tuple[str, str]]:
        return [("bwdif", "mode=send_frame:deint=interlaced")] if self.is_planar_yuv else []


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """A part of a video. Times are seconds on the continuous clock of its timeline.

    `seek` is None to decode from the beginning, `first_frame_time` is the time of the first frame decoded after it, and
    `audio_layout` is "mono", "stereo", or None without audio.
    """

    timeline: Timeline
    start: float
    seconds: float
    seek: SeekTarget | None
    first_frame_time: float
    frame_rate: Fraction
    video_index: int  # of the stream
    audio_index: int | None
    audio_layout: str | None
    frame_format: FrameFormat
    max_bytes: int = MAX_CLIP_BYTES

    @property
    def frame_count(self) -> int:
        return max(round(self.seconds * self.frame_rate), 1)

    @property
    def sample_count(self) -> int:
        return round(self.seconds * AUDIO_SAMPLE_RATE)

    def video_filters(self, lut_path: Path | None) -> list[tuple[str, str]]:
        """Return filters that yield exactly `frame_count` frames at a constant rate, deinterlaced.

        The first frame is the one shown at `start`. `lut_path` is a .cube file that converts the colours, or None.
        """
        return [
            *self.frame_format.deinterlacing_filters,
            ("setpts", f"PTS-({self.start:.6f})/TB"),
            ("fps", f"fps={self.frame_rate}:start_time={min(self.first_frame_time - self.start, 0):.6f}"),
            ("tpad", "stop=-1:stop_mode=clone"),
            ("trim", "start=0"),
            ("trim", f"end_frame={self.frame_count}"),
            *self.frame_format.colours.clip_filters(
                "w='max(2,trunc(iw/2)*2)':h='max(2,trunc(ih/2)*2)'", PIXEL_FORMAT, lut_path
            ),
        ]

    @contextmanager
    def temporary_colour_lut(self) -> Iterator[Path | None]:
        """Provide the .cube file for `video_filters`, None if the colours stay as they are."""
        if self.frame_format.colours.needs_no_conversion:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            lut_path = Path(folder, "colours.cube")
            self.frame_format.colours.write_bt709_lut(lut_path)
            yield lut_path

    @property
    def audio_filters(self) -> list[tuple[str, str]]:
        """Return filters that yield exactly `sample_count` samples, with silence for missing audio."""
        return [
            # Audio long after the clip would make the resampler fill the gap with silence in memory.
            ("atrim", f"start={self.start:.6f}:end={self.start + self.seconds + _AUDIO_TAIL_SECONDS:.6f}"),
            # `first_pts` counts in samples of the source rate; 0 is 0 at every rate.
            ("asetpts", f"PTS-({self.start:.6f})/TB"),
            ("aresample", f"{AUDIO_SAMPLE_RATE}:async=1:first_pts=0"),
            ("apad", ""),
            ("atrim", f"end_sample={self.sample_count}"),
            ("asetpts", "PTS-STARTPTS"),
            ("aformat", f"channel_layouts={self.audio_layout}"),
        ]


def plan_clip(file: ReadLimitedFile, start: float, end: float, max_bytes: int = MAX_CLIP_BYTES) -> ClipPlan:
    """Plan the cut from `start` to `end` seconds; the file is to be opened again afterwards.

    Raises `StageFailed` if no frame can be decoded, and what `open_container` raises.
    """
    timeline = read_timeline(file, needs_end=False)
    with open_container(file) as container:
        video_stream = choose_video_stream(container)
        if video_stream is None or not has_allowed_decoder(video_stream):
            raise StageFailed("The video has no frame that can be decoded")
        seek_target, key_frame_time = _find_seek_target(container, video_stream, timeline, timeline.origin + start)
    file.seek(0)
    with open_container(file) as container:
        video_stream, audio_stream = choose_video_stream(container), choose_audio_stream(container)
        first_frame = _decode_first_frame(container, file, timeline, seek_target)
        if video_stream is None or first_frame is None:
            file.check_limits()
            raise StageFailed("No frame of this part of the video can be decoded")
        plan = ClipPlan(
            timeline=timeline,
            start=_align_to_frame_start(timeline.origin + start, first_frame, video_stream),
            seconds=end - start,
            seek=seek_target,
            first_frame_time=key_frame_time,
            frame_rate=_choose_frame_rate(video_stream),
            video_index=video_stream.index,
            audio_index=audio_stream.index if audio_stream else None,
            audio_layout=choose_audio_layout(audio_stream) if audio_stream else None,
            frame_format=_read_frame_format(first_frame, video_stream),
            max_bytes=max_bytes,
        )
    file.seek(0)
    return plan


def _decode_first_frame(
    container: InputContainer, file: ReadLimitedFile, timeline: Timeline, seek_target: SeekTarget | None
) -> VideoFrame | None:
    video_stream = choose_video_stream(container)
    if video_stream is None:
        return None
    if seek_target is not None:
        seek_target.seek_in(container)
    frames = decode_frames(container, file, timeline, video_stream)
    return next((frame for frame in frames if isinstance(frame, VideoFrame)), None)


def _read_frame_format(frame: VideoFrame, video_stream: VideoStream) -> FrameFormat:
    return FrameFormat(
        width=frame.width,
        height=frame.height,
        pixel_format=frame.format.name,
        pixel_aspect=video_stream.sample_aspect_ratio or video_stream.codec_context.sample_aspect_ratio or Fraction(1),
        colours=read_colours(frame),
        rotation=rotation_filters(frame),
        is_sideways=is_sideways(frame),
    )


def _align_to_frame_start(start: float, first_frame: VideoFrame, video_stream: VideoStream) -> float:
    """Return the start of the frame nearest to `start`, so that a constant frame rate keeps audio and video in sync."""
    rate, average = _choose_frame_rate(video_stream), video_stream.average_rate
    if first_frame.time is None or average is None or abs(average / rate - 1) > _FRAME_RATE_TOLERANCE:
        return start
    return first_frame.time + float(round((start - first_frame.time) * rate) / rate)


def _choose_frame_rate(video_stream: VideoStream) -> Fraction:
    rate = video_stream.guessed_rate or video_stream.average_rate
    if rate is None or not _MIN_FRAME_RATE <= rate <= _MAX_FRAME_RATE:
        rate = video_stream.average_rate or _DEFAULT_FRAME_RATE
    return min(max(rate, _MIN_FRAME_RATE), _MAX_FRAME_RATE)


def _find_seek_target(
    container: InputContainer, video_stream: VideoStream, timeline: Timeline, start: float
) -> tuple[SeekTarget | None, float]:
    """Return a seek to the last key frame at or before `start` (None for the beginning), and that frame's time."""
    if timeline.restarts:
        before = [each for each in timeline.key_frames if each.time <= start - _INTERLEAVING_SECONDS]
        return (
            (SeekTarget(before[-1].time, before[-1].position), before[-1].time) if before else (None, timeline.origin)
        )
    discard_other_streams(container, video_stream)
    if not timeline.is_seekable:
        return None, timeline.origin
    for back in _SEEK_BACK_SECONDS:
        if start - back <= timeline.origin:
            break
        try:
            container.seek(round((start - back) * av.time_base))
            key_frame_time = _read_next_key_frame_time(container, video_stream)
        except av.FFmpegError:  # not seekable
            break
        if key_frame_time is not None and key_frame_time <= start:
            return SeekTarget(start - back), key_frame_time
    return None, timeline.origin


def _read_next_key_frame_time(container: InputContainer, video_stream: VideoStream) -> float | None:
    for _, packet in zip(range(_MAX_KEY_FRAME_PACKETS), container.demux(video_stream), strict=False):
        if packet.is_keyframe and packet.pts is not None:
            return float(packet.pts * packet.time_base)
    return None
