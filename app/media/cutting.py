"""What is to be cut out of a film, and how: found out before, so that every way of cutting gives the same clip."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from app.core.errors import StageFailed
from app.media.decoding import find_sound, find_start, read_only
from app.media.opening import BoundedFile, find_picture, open_film

SOUND_RATE = 48_000  # samples for each second of a clip
VIDEO_CODEC: Final = "libx264"
VIDEO_OPTIONS = {"preset": "fast"}
PIXELS = "yuv420p"
AUDIO_CODEC: Final = "aac"
AUDIO_BITS = 128_000  # for each second
MAX_BYTES = 2 * 1024**3  # of a clip

# Frames for each second. A film that tells of fewer shows still pictures, one of more is a recording at its own pace.
_SLOWEST, _FASTEST, _USUAL = Fraction(10), Fraction(60), Fraction(25)
# How far back a key frame is looked for where a seek has led behind it: not every kind of file has an index.
_STEPS_BACK_SECONDS = (0, 2, 10, 60)
_PACKETS_AT_MOST = 2000


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a film. Times are time stamps in seconds, as the film's frames have them.

    `seek` is where to seek to, None for nowhere, and `first` where the first frame is that is decoded then. `layout` is
    that of the clip's sound, None for none.
    """

    start: float
    seconds: float
    seek: float | None
    first: float
    rate: Fraction
    picture: int  # the index of the stream
    sound: int | None
    layout: str | None

    @property
    def frames(self) -> int:
        return max(round(self.seconds * self.rate), 1)

    @property
    def samples(self) -> int:
        return round(self.seconds * SOUND_RATE)

    @property
    def picture_filters(self) -> list[tuple[str, str]]:
        """As many frames as the clip has, at one pace, the first being the one that the film shows at its start."""
        return [
            ("setpts", f"PTS-({self.start:.6f})/TB"),
            ("fps", f"fps={self.rate}:start_time={min(self.first - self.start, 0):.6f}"),
            ("tpad", "stop=-1:stop_mode=clone"),
            ("trim", "start=0"),
            ("trim", f"end_frame={self.frames}"),
            ("scale", "w='max(2,trunc(iw/2)*2)':h='max(2,trunc(ih/2)*2)'"),
            ("format", PIXELS),
        ]

    @property
    def sound_filters(self) -> list[tuple[str, str]]:
        """As many samples as the clip has, with silence where the film has none."""
        return [
            ("atrim", f"start={self.start:.6f}"),
            ("aresample", f"{SOUND_RATE}:async=1:first_pts={round(self.start * SOUND_RATE)}"),
            ("apad", ""),
            ("atrim", f"end_sample={self.samples}"),
            ("asetpts", "PTS-STARTPTS"),
            ("aformat", f"channel_layouts={self.layout}"),
        ]


def plan_cut(film: BoundedFile, start: float, end: float) -> Cut:
    """Look at a film that is to be cut from and to these seconds; it is to be opened again.

    Raises `StageFailed` for a film without a picture, and what `open_film` raises.
    """
    first = find_start(film)
    with open_film(film) as container:
        picture, sound = find_picture(container), find_sound(container)
        if picture is None or picture.codec_context is None:
            raise StageFailed("The video has no picture that can be decoded")
        seek, key = _find_seek(container, picture, first, first + start)
        cut = Cut(
            start=first + start,
            seconds=end - start,
            seek=seek,
            first=key,
            rate=_rate(picture),
            picture=picture.index,
            sound=sound.index if sound else None,
            layout=None if sound is None else "mono" if sound.codec_context.channels == 1 else "stereo",
        )
    film.seek(0)
    return cut


def _rate(picture: VideoStream) -> Fraction:
    said = picture.guessed_rate or picture.average_rate
    if said is None or not _SLOWEST <= said <= _FASTEST:
        said = picture.average_rate or _USUAL
    return min(max(said, _SLOWEST), _FASTEST)


def _find_seek(
    container: InputContainer, picture: VideoStream, first: float, start: float
) -> tuple[float | None, float]:
    """Return a time from which a seek leads to a key frame at `start` or before it, None for nowhere, and its time."""
    read_only(container, picture)
    for back in _STEPS_BACK_SECONDS:
        if start - back <= first:
            break
        try:
            container.seek(round((start - back) * av.time_base))
            key = _next_key_frame(container, picture)
        except av.FFmpegError:  # a file that cannot be sought in
            break
        if key is not None and key <= start:
            return start - back, key
    return None, first


def _next_key_frame(container: InputContainer, picture: VideoStream) -> float | None:
    for _, packet in zip(range(_PACKETS_AT_MOST), container.demux(picture), strict=False):
        if packet.is_keyframe and packet.pts is not None:
            return float(packet.pts * packet.time_base)
    return None
