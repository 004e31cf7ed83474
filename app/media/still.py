"""A still picture of a video: a JPEG of one of its frames, made with PyAV."""

import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from statistics import fmean, pstdev
from typing import BinaryIO

import av
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from app.media.colours import colours_of, to_jpeg_colours
from app.media.decoders import can_decode
from app.media.opening import BoundedFile, Limits, TooExpensive, open_film
from app.media.streams import choose_video_stream
from app.media.timeline import said_duration, said_origin
from app.media.turning import lies_on_its_side, turns_of

WIDTH, HEIGHT = 640, 360

_LIMITS = Limits(seconds=10.0, bytes=256 * 1024**2)
_PACKETS_AT_MOST = 600  # for each place in the film: ten seconds at 60 frames per second
# Where to look for a frame that is not black: shares of the duration, and seconds where that is unknown.
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.03)
_SECONDS = (3.0, 10.0, 30.0, 60.0)
# Mean and standard deviation of red, green and blue (0 to 255), added up: white letters on black are far above.
_BLACK = 32.0
_QUALITY = 4  # mjpeg's scale from 1 (best) to 31, about 85 on the scale of other JPEG encoders


class NoPicture(Exception):
    """A file of which no still picture can be made; the text says why."""


class NoVideoStream(NoPicture):
    """A file that has no picture at all, as audio has none."""

    def __init__(self) -> None:
        super().__init__("the file has no picture")


def make_still(file: BinaryIO) -> bytes:
    """Return a JPEG that fits into 640 by 360 pixels and has the shape of the film as it is shown; it blocks.

    It is the frame at a tenth of the film, at one second at most, or one from further on where that is black. Raises
    `NoPicture`, and what reading the file raises.
    """
    bounded = BoundedFile(file, _LIMITS)
    try:
        with open_film(bounded) as container:
            frame = _choose(container, bounded)
        return encode_jpeg(frame)
    except TooExpensive as error:
        raise NoPicture(str(error)) from None
    except av.FFmpegError:
        raise NoPicture("the file is no video, or it is damaged") from None


def _choose(container: InputContainer, file: BoundedFile) -> VideoFrame:
    """Return the first frame that is not black, or the least black one, as the still shows it."""
    stream = choose_video_stream(container)
    if stream is None:
        raise NoVideoStream
    if not can_decode(stream):
        raise NoPicture("the codec of its picture is unknown, or it is damaged")
    best, best_light = None, -1.0
    try:
        for picture in _candidates(container, stream):
            light = _light(picture)
            if light > best_light:
                best, best_light = picture, light
            if light >= _BLACK:
                break
    except TooExpensive:
        if best is None:
            raise
    if best is None:
        file.check()
        raise TooExpensive if file.is_spent else NoPicture("no frame of the video can be decoded")
    return best


def _candidates(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    deadline = time.monotonic() + _LIMITS.seconds
    start = said_origin(container)
    duration = said_duration(container)
    first = min(duration / 10, 1.0) if duration else 1.0
    if picture := _take(container, stream, start + first, deadline):
        yield picture
    for seconds in [share * duration for share in _SHARES] if duration else _SECONDS:
        try:
            container.seek(round((start + seconds) * av.time_base))
        except av.FFmpegError:  # a file without an index, or its end
            return
        if picture := _take(container, stream, 0, deadline):
            yield picture


def _take(container: InputContainer, stream: VideoStream, seconds: float, deadline: float) -> VideoFrame | None:
    """Return the small picture of a frame, so that no large one is kept while others are decoded."""
    frame = _decode_until(container, stream, seconds, deadline)
    return frame and _shape(frame, stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio)


def _decode_until(container: InputContainer, stream: VideoStream, seconds: float, deadline: float) -> VideoFrame | None:
    """Return the frame that is shown at a time, or the first one behind it; None where there is no whole one."""
    last = None
    try:
        for number, packet in enumerate(container.demux(stream)):
            if time.monotonic() > deadline:
                if last := next(iter(_decode(stream, None)), last):  # what the decoder has held back
                    return last
                raise TooExpensive
            if number >= _PACKETS_AT_MOST:
                break
            for frame in _decode(stream, packet):
                if frame.time is None or frame.time > seconds:
                    return last or frame
                last = frame
    except av.FFmpegError:  # the file ends, or is damaged from here on
        pass
    return last


def _decode(stream: VideoStream, packet: "Packet[VideoStream] | None") -> list[VideoFrame]:
    try:
        return [frame for frame in stream.codec_context.decode(packet) if not frame.is_corrupt]
    except av.FFmpegError:  # others may be whole
        return []


def _shape(frame: VideoFrame, aspect: Fraction | None) -> VideoFrame:
    """Return the frame as it is shown: small, upright and with square pixels."""
    turn = turns_of(frame)
    limits = (HEIGHT, WIDTH) if lies_on_its_side(frame) else (WIDTH, HEIGHT)
    width, height = _fit(frame.width * float(aspect or 1), frame.height, *limits)
    # Two fields are of two times: one of them is a picture without combs.
    field = _filter(frame, [("field", "type=top")]) if frame.interlaced_frame and frame.height > 1 else frame
    small = to_jpeg_colours(field, colours_of(frame), width, height)
    return _filter(small, turn) if turn else small


def _fit(width: float, height: float, widest: int, highest: int) -> tuple[int, int]:
    """Return even numbers near the two, or of the same proportion where they are too large."""
    scale = min(widest / width, highest / height, 1.0)
    return max(round(width * scale / 2) * 2, 2), max(round(height * scale / 2) * 2, 2)


def _filter(frame: VideoFrame, filters: Sequence[tuple[str, str]]) -> VideoFrame:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, *(graph.add(name, options) for name, options in filters), graph.add("buffersink"))
    graph.configure()
    frame.pts = 0
    graph.vpush(frame)
    return graph.vpull()


def _light(frame: VideoFrame) -> float:
    sample = frame.reformat(32, 18, "rgb24", threads=1)
    plane = sample.planes[0]
    rows = bytes(plane)
    values = [value for row in range(18) for value in rows[row * plane.line_size :][: 32 * 3]]
    return fmean(values) + pstdev(values)


def encode_jpeg(frame: VideoFrame) -> bytes:
    """Return a frame in yuvj420p as a JPEG."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base, encoder.thread_count = Fraction(1), 1
    encoder.color_range = ColorRange.JPEG
    encoder.qmin = encoder.qmax = _QUALITY
    encoder.options = {"flags": "+bitexact"}
    frame.pts = 0
    frame.pict_type = PictureType.NONE
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
