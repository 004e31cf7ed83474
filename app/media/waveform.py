"""A drawn waveform: the thumbnail of audio that has no picture."""

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from app.media.decoding import decode
from app.media.opening import BoundedFile, Limits, TooExpensive, open_film
from app.media.still import HEIGHT, WIDTH, NoPicture, encode_jpeg
from app.media.streams import choose_audio_stream
from app.media.timeline import Timeline, said_duration, said_origin

_LIMITS = Limits(seconds=10.0, bytes=256 * 1024**2)
_SAMPLES = "fltp"
_BARS = 80
_BAR_WIDTH, _BAR_DISTANCE = 4, 8  # pixels
_TALLEST, _SHORTEST = 280, 4  # pixels
_BACKGROUND, _COLOUR = (16, 24, 40), (94, 200, 210)  # red, green, blue
_QUIETEST = 0.02  # of full scale: what is quieter is drawn as quiet
# Of longer audio only a part of what each bar stands for is decoded.
_DECODED_WHOLE_SECONDS = 600.0
_PART_SECONDS = 0.5
_ANY_TIMELINE = Timeline(0.0, None)  # how loud it is, one frame after the other, needs no times


def draw_waveform(file: BinaryIO) -> bytes:
    """Return a JPEG of how loud the audio of a file is from its beginning to its end; it blocks.

    Raises `NoPicture` where no audio can be decoded, and what reading the file raises.
    """
    bounded = BoundedFile(file, _LIMITS)
    try:
        with open_film(bounded) as container:
            loudness = _measure(container, bounded)
    except TooExpensive as error:
        raise NoPicture(str(error)) from None
    except av.FFmpegError:
        raise NoPicture("the file is neither video nor audio, or it is damaged") from None
    return _draw(loudness)


def _measure(container: InputContainer, file: BoundedFile) -> NDArray[np.float64]:
    """Return how loud each bar is, 0 to 1; bars of what cannot be decoded in time are silent."""
    stream, duration = choose_audio_stream(container), said_duration(container)
    if stream is None:
        raise NoPicture("the file has neither a picture nor audio")
    is_long = duration > _DECODED_WHOLE_SECONDS
    parts = _loud_parts(container, file, stream, duration) if is_long else _loud_whole(container, file, stream)
    found: list[float] = []
    for part in parts:
        found.append(part)
        if file.is_spent:
            break
    file.check()
    if not found:
        raise NoPicture("no audio of the file can be decoded")
    edges = np.linspace(0, len(found), _BARS + 1)
    values = np.array(found)
    bars = [values[int(a) : max(int(np.ceil(b)), int(a) + 1)].max() for a, b in pairwise(edges)]
    return np.array(bars)


def _loud_whole(container: InputContainer, file: BoundedFile, stream: AudioStream) -> Iterator[float]:
    """Yield the loudness of each frame."""
    measure = _FrameMeasure()
    for frame in decode(container, file, _ANY_TIMELINE, stream):
        if isinstance(frame, AudioFrame):
            yield from measure(frame)


def _loud_parts(container: InputContainer, file: BoundedFile, stream: AudioStream, duration: float) -> Iterator[float]:
    """Yield the loudness of the beginning of what each bar stands for."""
    start = said_origin(container)
    for bar in range(_BARS):
        try:
            container.seek(round((start + duration * bar / _BARS) * av.time_base))
        except av.FFmpegError:  # a file that cannot be sought in: its beginning has to do
            yield from _loud_whole(container, file, stream)
            return
        yield max(_first_part(container, file, stream), default=0.0)


def _first_part(container: InputContainer, file: BoundedFile, stream: AudioStream) -> Iterator[float]:
    seconds, measure = 0.0, _FrameMeasure()
    for frame in decode(container, file, _ANY_TIMELINE, stream):
        if isinstance(frame, AudioFrame):
            seconds += frame.samples / frame.sample_rate
            yield from measure(frame)
        if seconds >= _PART_SECONDS:
            return


class _FrameMeasure:
    """How loud frames are whose form (samples, channels, rate) may change from one to the next."""

    def __init__(self) -> None:
        self._form: tuple[str, str, int] | None = None
        self._resampler = AudioResampler(_SAMPLES)

    def __call__(self, frame: AudioFrame) -> Iterator[float]:
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self._form:
            self._form, self._resampler = form, AudioResampler(_SAMPLES)
        frame.pts = None
        yield from map(_loudness, self._resampler.resample(frame))


def _loudness(frame: AudioFrame) -> float:
    """Return how loud all channels are; mixed to one, they could cancel each other."""
    samples = np.nan_to_num(frame.to_ndarray().astype(np.float64))
    return float(np.sqrt(np.mean(np.square(samples)))) if samples.size else 0.0


def _draw(loudness: NDArray[np.float64]) -> bytes:
    shares = np.clip(loudness / max(loudness.max(), _QUIETEST), 0.0, 1.0) ** 0.7  # closer to how loud it sounds
    pixels = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
    for bar, share in enumerate(shares):
        half = max(round(_TALLEST * share / 2), _SHORTEST // 2)
        left = bar * _BAR_DISTANCE + (_BAR_DISTANCE - _BAR_WIDTH) // 2
        pixels[HEIGHT // 2 - half : HEIGHT // 2 + half, left : left + _BAR_WIDTH] = _COLOUR
    frame = VideoFrame.from_ndarray(pixels, "rgb24")
    return encode_jpeg(
        frame.reformat(format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG, threads=1)
    )
