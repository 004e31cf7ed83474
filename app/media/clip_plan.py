"""What is cut out of a video, and how: decided before the cut, so that both encoders make the same clip."""

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
    can_decode_stream,
    choose_audio_stream,
    choose_video_stream,
    discard_other_streams,
    open_container,
)
from app.media.frames import decode_frames, is_sideways, rotation_filters
from app.media.limits import BoundedFile
from app.media.timeline import Timeline, read_timeline

AUDIO_SAMPLE_RATE = 48_000  # samples for each second of a clip
VIDEO_CODEC: Final = "libx264"
VIDEO_OPTIONS = {"preset": "fast"}
PIXEL_FORMAT = "yuv420p"
AUDIO_CODEC: Final = "aac"
AUDIO_BIT_RATE = 128_000  # for each second
MAX_CLIP_BYTES = 2 * 1024**3  # of a clip

# Frames for each second. A film that tells of fewer shows still pictures, one of more is a recording at its own pace.
_MIN_FRAME_RATE, _MAX_FRAME_RATE, _DEFAULT_FRAME_RATE = Fraction(10), Fraction(60), Fraction(25)
# How far back a key frame is looked for where a seek has led behind it: not every kind of file has an index.
_SEEK_BACK_SECONDS = (0, 2, 10, 60)
_MAX_KEY_FRAME_PACKETS = 2000
_FRAME_RATE_TOLERANCE = 1e-4
_AUDIO_TAIL_SECONDS = 1.0  # behind a clip, which filters look at
_INTERLEAVING_SECONDS = 1.0  # how far behind its video the audio of a time may lie in a file


@dataclass(frozen=True, slots=True)
class SeekTarget:
    """Where decoding begins: at a time, or at a byte of a file whose clock starts over, which no time leads into."""

    time: float
    position: int | None = None

    def apply(self, container: InputContainer) -> None:
        if self.position is None:
            container.seek(round(self.time * av.time_base))
        else:
            container.seek(self.position, unsupported_byte_offset=True)


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What the frames of a video are like, as the first one that is decoded is."""

    width: int
    height: int
    pixels: str  # FFmpeg's name of their format
    aspect: Fraction  # of a pixel
    colours: ColourProperties
    turns: Sequence[tuple[str, str]]
    is_sideways: bool

    @property
    def is_planar(self) -> bool:
        return self.pixels.startswith("yuv") and "p" in self.pixels

    @property
    def deinterlacing(self) -> Sequence[tuple[str, str]]:
        """The filter that takes the combs out of frames that are said to be interlaced, and leaves others alone."""
        return [("bwdif", "mode=send_frame:deint=interlaced")] if self.is_planar else []


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """A part of a film. Times are seconds on the continuous clock of its timeline.

    `seek` is where to seek to, None for nowhere, and `first` where the first frame is that is decoded then. `layout` is
    that of the clip's sound, None for none.
    """

    timeline: Timeline
    start: float
    seconds: float
    seek: SeekTarget | None
    first: float
    rate: Fraction
    picture: int  # the index of the stream
    sound: int | None
    layout: str | None
    form: FrameFormat
    max_bytes: int = MAX_CLIP_BYTES

    @property
    def frames(self) -> int:
        return max(round(self.seconds * self.rate), 1)

    @property
    def samples(self) -> int:
        return round(self.seconds * AUDIO_SAMPLE_RATE)

    def picture_filters(self, table: Path | None) -> list[tuple[str, str]]:
        """As many frames as the clip has, at one pace, the first being the one that the film shows at its start.

        They are without combs, and in the colours that `table`, where they are converted, gives them.
        """
        return [
            *self.form.deinterlacing,
            ("setpts", f"PTS-({self.start:.6f})/TB"),
            ("fps", f"fps={self.rate}:start_time={min(self.first - self.start, 0):.6f}"),
            ("tpad", "stop=-1:stop_mode=clone"),
            ("trim", "start=0"),
            ("trim", f"end_frame={self.frames}"),
            *self.form.colours.clip_filters("w='max(2,trunc(iw/2)*2)':h='max(2,trunc(ih/2)*2)'", PIXEL_FORMAT, table),
        ]

    @contextmanager
    def colour_table(self) -> Iterator[Path | None]:
        """Give the file that `picture_filters` need, None where colours stay as they are."""
        if self.form.colours.is_kept:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "colours.cube")
            self.form.colours.write_table(table)
            yield table

    @property
    def sound_filters(self) -> list[tuple[str, str]]:
        """As many samples as the clip has, with silence where the film has none."""
        return [
            # What comes behind the clip would have the resampler fill the gap before it, whatever memory that takes.
            ("atrim", f"start={self.start:.6f}:end={self.start + self.seconds + _AUDIO_TAIL_SECONDS:.6f}"),
            # 0 is 0 at every sample rate; any other first time stamp would count in samples of the source.
            ("asetpts", f"PTS-({self.start:.6f})/TB"),
            ("aresample", f"{AUDIO_SAMPLE_RATE}:async=1:first_pts=0"),
            ("apad", ""),
            ("atrim", f"end_sample={self.samples}"),
            ("asetpts", "PTS-STARTPTS"),
            ("aformat", f"channel_layouts={self.layout}"),
        ]


def plan_clip(film: BoundedFile, start: float, end: float, max_bytes: int = MAX_CLIP_BYTES) -> ClipPlan:
    """Look at a film that is to be cut from and to these seconds; it is to be opened again.

    Raises `StageFailed` for a film without a picture, and what `open_container` raises.
    """
    timeline = read_timeline(film, needs_end=False)
    with open_container(film) as container:
        video = choose_video_stream(container)
        if video is None or not can_decode_stream(video):
            raise StageFailed("The video has no picture that can be decoded")
        seek, key = _find_seek_target(container, video, timeline, timeline.origin + start)
    film.seek(0)
    with open_container(film) as container:
        video, audio = choose_video_stream(container), choose_audio_stream(container)
        frame = _decode_first_frame(container, film, timeline, seek)
        if video is None or frame is None:
            film.check_limits()
            raise StageFailed("No picture of this part of the video can be decoded")
        cut = ClipPlan(
            timeline=timeline,
            start=_align_to_frame(timeline.origin + start, frame, video),
            seconds=end - start,
            seek=seek,
            first=key,
            rate=_choose_frame_rate(video),
            picture=video.index,
            sound=audio.index if audio else None,
            layout=None if audio is None else "mono" if audio.codec_context.channels == 1 else "stereo",
            form=_read_frame_format(frame, video),
            max_bytes=max_bytes,
        )
    film.seek(0)
    return cut


def _decode_first_frame(
    container: InputContainer, film: BoundedFile, timeline: Timeline, seek: SeekTarget | None
) -> VideoFrame | None:
    video = choose_video_stream(container)
    if video is None:
        return None
    if seek is not None:
        seek.apply(container)
    return next(
        (frame for frame in decode_frames(container, film, timeline, video) if isinstance(frame, VideoFrame)), None
    )


def _read_frame_format(frame: VideoFrame, video: VideoStream) -> FrameFormat:
    return FrameFormat(
        width=frame.width,
        height=frame.height,
        pixels=frame.format.name,
        aspect=video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio or Fraction(1),
        colours=read_colours(frame),
        turns=rotation_filters(frame),
        is_sideways=is_sideways(frame),
    )


def _align_to_frame(start: float, frame: VideoFrame, video: VideoStream) -> float:
    """Return when the frame nearest to `start` begins: frames of a clip that begins in between would be moved to its
    own times, and away from their audio. That is known of videos whose frames come at one pace."""
    rate, average = _choose_frame_rate(video), video.average_rate
    if frame.time is None or average is None or abs(average / rate - 1) > _FRAME_RATE_TOLERANCE:
        return start
    return frame.time + float(round((start - frame.time) * rate) / rate)


def _choose_frame_rate(picture: VideoStream) -> Fraction:
    said = picture.guessed_rate or picture.average_rate
    if said is None or not _MIN_FRAME_RATE <= said <= _MAX_FRAME_RATE:
        said = picture.average_rate or _DEFAULT_FRAME_RATE
    return min(max(said, _MIN_FRAME_RATE), _MAX_FRAME_RATE)


def _find_seek_target(
    container: InputContainer, picture: VideoStream, timeline: Timeline, start: float
) -> tuple[SeekTarget | None, float]:
    """Return what leads to a key frame at `start` or before it, None for the beginning, and the time of that frame."""
    if timeline.restarts:
        before = [each for each in timeline.key_frames if each.time <= start - _INTERLEAVING_SECONDS]
        return (
            (SeekTarget(before[-1].time, before[-1].position), before[-1].time) if before else (None, timeline.origin)
        )
    discard_other_streams(container, picture)
    if not timeline.is_seekable:
        return None, timeline.origin
    for back in _SEEK_BACK_SECONDS:
        if start - back <= timeline.origin:
            break
        try:
            container.seek(round((start - back) * av.time_base))
            key = _read_next_key_frame(container, picture)
        except av.FFmpegError:  # a file that cannot be sought in
            break
        if key is not None and key <= start:
            return SeekTarget(start - back), key
    return None, timeline.origin


def _read_next_key_frame(container: InputContainer, picture: VideoStream) -> float | None:
    for _, packet in zip(range(_MAX_KEY_FRAME_PACKETS), container.demux(picture), strict=False):
        if packet.is_keyframe and packet.pts is not None:
            return float(packet.pts * packet.time_base)
    return None
