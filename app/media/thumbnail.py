"""Thumbnails: a JPEG of a frame of a video, or a drawn waveform of audio without video."""

import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import fmean, pstdev
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from app.media.colours import convert_to_jpeg_colours, read_colours
from app.media.container import (
    ReadLimitedFile,
    ReadLimitExceeded,
    ReadLimits,
    choose_audio_stream,
    choose_video_stream,
    has_allowed_decoder,
    open_container,
)
from app.media.frames import decode_frames, is_sideways, rotation_filters
from app.media.timeline import Timeline, declared_duration, declared_origin

THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 640, 360

_FRAME_LIMITS = ReadLimits(seconds=10.0, bytes=256 * 1024**2)
_MAX_PACKETS = 600  # per seek: ten seconds at 60 frames per second
# Where to look for a frame that is not black: shares of the duration, or seconds if it is unknown.
_SEEK_SHARES = (0.1, 0.3, 0.5, 0.7, 0.03)
_SEEK_SECONDS = (3.0, 10.0, 30.0, 60.0)
# Mean plus standard deviation of red, green and blue (0 to 255): white text on black is far above.
_MIN_BRIGHTNESS = 32.0
_JPEG_QUALITY = 4  # 1 (best) to 31; about 85 in other JPEG encoders


class NoThumbnail(Exception):
    """A file of which no thumbnail can be made; the text says why."""


class NoVideoStream(NoThumbnail):
    """A file without a video stream, such as audio."""

    def __init__(self) -> None:
        super().__init__("the file has no video stream")


def make_thumbnail(video_file: BinaryIO) -> bytes:
    """Return a JPEG of at most 640 by 360 pixels with the video's aspect ratio; blocks.

    The frame is at a tenth of the duration, but at most one second in, or a later one if that is black. Raises
    `NoThumbnail`, and what reading the file raises.
    """
    file = ReadLimitedFile(video_file, _FRAME_LIMITS)
    try:
        with open_container(file) as container:
            frame = _choose_thumbnail_frame(container, file)
        return encode_jpeg(frame)
    except ReadLimitExceeded as error:
        raise NoThumbnail(str(error)) from None
    except av.FFmpegError:
        raise NoThumbnail("the file is no video, or it is damaged") from None


def _choose_thumbnail_frame(container: InputContainer, file: ReadLimitedFile) -> VideoFrame:
    """Return the first of some frames that is bright enough, else the brightest."""
    stream = choose_video_stream(container)
    if stream is None:
        raise NoVideoStream
    if not has_allowed_decoder(stream):
        raise NoThumbnail("its video codec is unknown, or it is damaged")
    best, best_light = None, -1.0
    try:
        for frame in _decode_candidate_frames(container, stream):
            light = _measure_brightness(frame)
            if light > best_light:
                best, best_light = frame, light
            if light >= _MIN_BRIGHTNESS:
                break
    except ReadLimitExceeded:
        if best is None:
            raise
    if best is None:
        file.raise_if_read_failed()
        raise (ReadLimitExceeded if file.is_limit_reached else NoThumbnail("no frame of the video can be decoded"))
    return best


def _decode_candidate_frames(container: InputContainer, video_stream: VideoStream) -> Iterator[VideoFrame]:
    deadline = time.monotonic() + _FRAME_LIMITS.seconds
    start = declared_origin(container)
    duration = declared_duration(container)
    first = min(duration / 10, 1.0) if duration else 1.0
    if frame := _decode_scaled_frame_at(container, video_stream, start + first, deadline):
        yield frame
    for seconds in [share * duration for share in _SEEK_SHARES] if duration else _SEEK_SECONDS:
        try:
            container.seek(round((start + seconds) * av.time_base))
        except av.FFmpegError:  # no index, or the end of the file
            return
        if frame := _decode_scaled_frame_at(container, video_stream, 0, deadline):
            yield frame


def _decode_scaled_frame_at(
    container: InputContainer, video_stream: VideoStream, seconds: float, deadline: float
) -> VideoFrame | None:
    frame = _decode_frame_at(container, video_stream, seconds, deadline)
    aspect = video_stream.sample_aspect_ratio or video_stream.codec_context.sample_aspect_ratio
    return frame and _scale_to_thumbnail(frame, aspect)


def _decode_frame_at(
    container: InputContainer, video_stream: VideoStream, seconds: float, deadline: float
) -> VideoFrame | None:
    """Return the frame shown at a time, or the first one after it; None if none can be decoded."""
    last = None
    try:
        for number, packet in enumerate(container.demux(video_stream)):
            if time.monotonic() > deadline:
                held = _decode_whole_frames(video_stream, None)
                if last := next(iter(held), last):
                    return last
                raise ReadLimitExceeded
            if number >= _MAX_PACKETS:
                break
            for frame in _decode_whole_frames(video_stream, packet):
                if frame.time is None or frame.time > seconds:
                    return last or frame
                last = frame
    except av.FFmpegError:  # truncated, or damaged from here on
        pass
    return last


def _decode_whole_frames(video_stream: VideoStream, packet: "Packet[VideoStream] | None") -> list[VideoFrame]:
    try:
        return [frame for frame in video_stream.codec_context.decode(packet) if not frame.is_corrupt]
    except av.FFmpegError:  # others may be whole
        return []


def _scale_to_thumbnail(frame: VideoFrame, pixel_aspect: Fraction | None) -> VideoFrame:
    rotation = rotation_filters(frame)
    limits = (THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH) if is_sideways(frame) else (THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT)
    width, height = _fit_even_dimensions(frame.width * float(pixel_aspect or 1), frame.height, *limits)
    # The two fields of an interlaced frame are of different times: one of them has no combing.
    field = _apply_filters(frame, [("field", "type=top")]) if frame.interlaced_frame and frame.height > 1 else frame
    small = convert_to_jpeg_colours(field, read_colours(frame), width, height)
    return _apply_filters(small, rotation) if rotation else small


def _fit_even_dimensions(width: float, height: float, max_width: int, max_height: int) -> tuple[int, int]:
    scale = min(max_width / width, max_height / height, 1.0)
    return max(round(width * scale / 2) * 2, 2), max(round(height * scale / 2) * 2, 2)


def _apply_filters(frame: VideoFrame, filters: Sequence[tuple[str, str]]) -> VideoFrame:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, *(graph.add(name, options) for name, options in filters), graph.add("buffersink"))
    graph.configure()
    frame.pts = 0
    graph.vpush(frame)
    return graph.vpull()


def _measure_brightness(frame: VideoFrame) -> float:
    sample = frame.reformat(32, 18, "rgb24", threads=1)
    plane = sample.planes[0]
    rows = bytes(plane)
    values = [value for row in range(18) for value in rows[row * plane.line_size :][: 32 * 3]]
    return fmean(values) + pstdev(values)


def encode_jpeg(frame: VideoFrame) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base, encoder.thread_count = Fraction(1), 1
    encoder.color_range = ColorRange.JPEG
    encoder.qmin = encoder.qmax = _JPEG_QUALITY
    encoder.options = {"flags": "+bitexact"}
    frame.pts = 0
    frame.pict_type = PictureType.NONE
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


_WAVEFORM_LIMITS = ReadLimits(seconds=10.0, bytes=256 * 1024**2)
_SAMPLE_FORMAT = "fltp"
_BARS = 80
_BAR_WIDTH, _BAR_DISTANCE = 4, 8  # pixels
_MAX_BAR_HEIGHT, _MIN_BAR_HEIGHT = 280, 4  # pixels
_BACKGROUND, _BAR_COLOUR = (16, 24, 40), (94, 200, 210)  # red, green, blue
_QUIETEST = 0.02  # of full scale: quieter audio is not scaled up further
# Of longer audio only the start of each bar's part is decoded.
_MAX_DECODED_SECONDS = 600.0
_PART_SECONDS = 0.5
_UNUSED_TIMELINE = Timeline(0.0, None)  # loudness needs no times


def draw_waveform(audio_file: BinaryIO) -> bytes:
    """Return a JPEG of 640 by 360 pixels with the loudness of the audio over time; blocks.

    Raises `NoThumbnail` if no audio can be decoded, and what reading the file raises.
    """
    file = ReadLimitedFile(audio_file, _WAVEFORM_LIMITS)
    try:
        with open_container(file) as container:
            loudness = _measure_bar_loudness(container, file)
    except ReadLimitExceeded as error:
        raise NoThumbnail(str(error)) from None
    except av.FFmpegError:
        raise NoThumbnail("the file is neither video nor audio, or it is damaged") from None
    return _draw_bars_as_jpeg(loudness)


def _measure_bar_loudness(container: InputContainer, file: ReadLimitedFile) -> NDArray[np.float64]:
    """Return the loudness of each bar, 0 to 1; bars that cannot be decoded in time are silent."""
    stream, duration = choose_audio_stream(container), declared_duration(container)
    if stream is None:
        raise NoThumbnail("the file has neither video nor audio")
    if duration > _MAX_DECODED_SECONDS:
        parts = _measure_loudness_at_bars(container, file, stream, duration)
    else:
        parts = _measure_frame_loudness(container, file, stream)
    found: list[float] = []
    for part in parts:
        found.append(part)
        if file.is_limit_reached:
            break
    file.raise_if_read_failed()
    if not found:
        raise NoThumbnail("no audio of the file can be decoded")
    edges = np.linspace(0, len(found), _BARS + 1)
    values = np.array(found)
    bars = [values[int(a) : max(int(np.ceil(b)), int(a) + 1)].max() for a, b in pairwise(edges)]
    return np.array(bars)


def _measure_frame_loudness(container: InputContainer, file: ReadLimitedFile, stream: AudioStream) -> Iterator[float]:
    measure = _LoudnessMeter()
    for frame in decode_frames(container, file, _UNUSED_TIMELINE, stream):
        if isinstance(frame, AudioFrame):
            yield from measure(frame)


def _measure_loudness_at_bars(
    container: InputContainer, file: ReadLimitedFile, stream: AudioStream, duration: float
) -> Iterator[float]:
    start = declared_origin(container)
    for bar in range(_BARS):
        try:
            container.seek(round((start + duration * bar / _BARS) * av.time_base))
        except av.FFmpegError:  # not seekable: use its beginning
            yield from _measure_frame_loudness(container, file, stream)
            return
        yield max(_measure_first_half_second(container, file, stream), default=0.0)


def _measure_first_half_second(
    container: InputContainer, file: ReadLimitedFile, stream: AudioStream
) -> Iterator[float]:
    seconds, measure = 0.0, _LoudnessMeter()
    for frame in decode_frames(container, file, _UNUSED_TIMELINE, stream):
        if isinstance(frame, AudioFrame):
            seconds += frame.samples / frame.sample_rate
            yield from measure(frame)
        if seconds >= _PART_SECONDS:
            return


class _LoudnessMeter:
    """Measures frames whose format, layout and rate may change from one to the next."""

    def __init__(self) -> None:
        self._form: tuple[str, str, int] | None = None
        self._resampler = AudioResampler(_SAMPLE_FORMAT)

    def __call__(self, frame: AudioFrame) -> Iterator[float]:
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self._form:
            self._form, self._resampler = form, AudioResampler(_SAMPLE_FORMAT)
        frame.pts = None
        yield from map(_rms_loudness, self._resampler.resample(frame))


def _rms_loudness(frame: AudioFrame) -> float:
    """Return the RMS over all channels, which could cancel each other in a downmix."""
    samples = np.nan_to_num(frame.to_ndarray().astype(np.float64))
    return float(np.sqrt(np.mean(np.square(samples)))) if samples.size else 0.0


def _draw_bars_as_jpeg(bar_loudness: NDArray[np.float64]) -> bytes:
    shares = np.clip(bar_loudness / max(bar_loudness.max(), _QUIETEST), 0.0, 1.0) ** 0.7  # closer to perceived loudness
    pixels = np.full((THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, 3), _BACKGROUND, np.uint8)
    for bar, share in enumerate(shares):
        half = max(round(_MAX_BAR_HEIGHT * share / 2), _MIN_BAR_HEIGHT // 2)
        left = bar * _BAR_DISTANCE + (_BAR_DISTANCE - _BAR_WIDTH) // 2
        pixels[THUMBNAIL_HEIGHT // 2 - half : THUMBNAIL_HEIGHT // 2 + half, left : left + _BAR_WIDTH] = _BAR_COLOUR
    frame = VideoFrame.from_ndarray(pixels, "rgb24")
    return encode_jpeg(
        frame.reformat(format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG, threads=1)
    )
