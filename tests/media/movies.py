"""Little videos, made with PyAV."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

WIDTH, HEIGHT, FRAME_RATE, SAMPLE_RATE = 64, 48, 10, 48_000
BAR_WIDTH = 16
# How much red and blue count in the brightness of a colour, by H.273's code of a matrix.
YUV_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
_QUIET_CODECS = {"libx265": {"x265-params": "log-level=none:qp=4"}, "libx264": {"qp": "4"}}


def make_movie(
    path: Path,
    seconds: float = 1.0,
    video_codec: str | None = "libx264",
    audio_codec: str | None = "aac",
    container_format: str | None = None,
    title: str | None = None,
) -> Path:
    """Write a black, silent video to `path` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container_format) as container:
        if title:
            container.metadata["title"] = title
        video = container.add_stream(video_codec, rate=FRAME_RATE) if video_codec else None
        if isinstance(video, VideoStream):
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream(audio_codec, rate=SAMPLE_RATE, layout="mono") if audio_codec else None
        if isinstance(video, VideoStream):
            for packet in _encode_frames(video, seconds):
                container.mux(packet)
        if isinstance(audio, AudioStream):
            _record(container, audio, seconds)
    return path


def make_colour_movie(path: Path, seconds: float, colours: Sequence[tuple[int, int, int]]) -> Path:
    """Write a video that shows one colour (red, green, blue: 0 to 255) per second, without audio."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"g": str(FRAME_RATE * 2)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(seconds * FRAME_RATE)):
            frame = av.VideoFrame(WIDTH, HEIGHT, "rgb24")
            frame.planes[0].update(
                bytes(colours[number // FRAME_RATE % len(colours)]) * (frame.planes[0].buffer_size // 3)
            )
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def make_slides(
    path: Path, slides: Sequence[tuple[float, tuple[int, int, int]]], width: int = WIDTH, height: int = HEIGHT
) -> Path:
    """Write a video of single frames: each is shown from its second on, in its colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"g": "3", "bf": "0"})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
        for seconds, colour in slides:
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), colour, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


def make_movie_with_audio(
    path: Path,
    seconds: float,
    beeps: Sequence[tuple[float, float]],
    audio_codec: str = "aac",
    sample_rate: int = SAMPLE_RATE,
    layout: str = "stereo",
    has_picture: bool = True,
    options: dict[str, str] | None = None,
    gains: Sequence[float] = (),
) -> Path:
    """Write a video that audio, at 440 Hz, from and to these seconds; in between it has no packets of audio. `gains`
    are of its channels, where they are not all alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"g": "20"}) if has_picture else None
        audio = container.add_stream(audio_codec, rate=sample_rate, layout=layout)
        assert isinstance(audio, AudioStream)
        packets: list[Packet[AudioStream] | Packet[VideoStream]] = []
        if isinstance(video, VideoStream):
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            packets += _encode_frames(video, seconds)
        for start, end in beeps:
            packets += [packet for frame in _beep(audio, start, end, gains) for packet in audio.encode(frame)]
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            container.mux(packet)
    return path


def make_audio(
    path: Path,
    seconds: float,
    beeps: Sequence[tuple[float, float]],
    codec: str,
    container_format: str | None = None,
    gains: Sequence[float] = (1.0,),
    rate: int = SAMPLE_RATE,
) -> Path:
    """Write audio without a frame that audio, at 440 Hz, from and to these seconds, and is silent in between.
    `gains` are of its channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    is_loud = np.any([(times >= start) & (times < end) for start, end in beeps], axis=0)
    wave = np.sin(times * 2 * np.pi * 440) * 0.5 * is_loud
    samples = np.outer(gains, wave).astype(np.float32)
    layout = "mono" if len(gains) == 1 else "stereo"
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        for first in range(0, len(wave), rate):
            part = np.ascontiguousarray(samples[:, first : first + rate])
            frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
            frame.pts, frame.sample_rate, frame.time_base = first, rate, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_sparse_audio(path: Path, step_seconds: float, packets: int = 30) -> Path:
    """Write a few packets of silence, each so many seconds behind the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024 * packets), np.float32), "fltp", "mono")
        frame.pts, frame.sample_rate, frame.time_base = 0, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        for number, packet in enumerate([*stream.encode(frame), *stream.encode(None)]):
            packet.pts = packet.dts = round(number * step_seconds / packet.time_base)
            container.mux(packet)
    return path


def make_bomb(
    path: Path, side: int, streams: int, said_side: int | None = None, container_format: str | None = None
) -> Path:
    """Write a small video of large black squares, a PNG for each second in every stream; its header may lie."""
    png = _png(side)
    with av.open(str(path), "w", format=container_format) as container:
        for _ in range(streams):
            stream = container.add_stream("png", rate=1)
            assert isinstance(stream, VideoStream)
            stream.width = stream.height = said_side or side
            stream.pix_fmt = "rgb24"
        for second in range(2):
            for each in container.streams:
                packet = av.Packet(png)
                packet.stream, packet.is_keyframe = each, True
                packet.pts = packet.dts = second
                packet.time_base = Fraction(1)
                container.mux(packet)
    return path


def peak_megabytes(code: str, path: Path) -> float:
    """Return what a process of its own takes at most for code that does something with `path`, whatever it raises."""
    program = f"""
import contextlib, re, sys
path = sys.argv[1]
with contextlib.suppress(Exception):
    {code}
print(int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1]) / 1024)
"""
    return float(subprocess.run([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, check=True).stdout)


def _beep(stream: AudioStream, start: float, end: float, gains: Sequence[float] = ()) -> Iterator[av.AudioFrame]:
    rate, at_once = stream.rate, 1024
    samples = range(round(start * rate), round(end * rate))
    wave = np.sin(np.arange(len(samples)) * 2 * np.pi * 440 / rate) * 0.5
    for first in range(0, len(samples), at_once):
        part = np.outer(gains or np.ones(stream.channels), wave[first : first + at_once]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", stream.layout.name)
        frame.pts, frame.sample_rate, frame.time_base = samples[first], rate, Fraction(1, rate)
        yield from _in_format(frame, stream)


def _in_format(frame: av.AudioFrame, stream: AudioStream) -> Iterator[av.AudioFrame]:
    pts = frame.pts
    for converted in av.AudioResampler(stream.format.name, stream.layout.name, stream.rate).resample(frame):
        converted.pts = pts
        yield converted


def _png(side: int) -> bytes:
    deflate = zlib.compressobj(1)
    rows = b"".join(deflate.compress(bytes(1 + 3 * side)) for _ in range(side)) + deflate.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _encode_frames(stream: VideoStream, seconds: float) -> "Iterator[Packet[VideoStream]]":
    for number in range(round(seconds * FRAME_RATE)):
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _record(container: OutputContainer, stream: AudioStream, seconds: float) -> None:
    frame = av.AudioFrame(format=stream.format.name, layout="mono", samples=round(seconds * SAMPLE_RATE))
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.pts, frame.sample_rate, frame.time_base = 0, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def make_flashing_movie(
    path: Path,
    seconds: int,
    flashes: Sequence[tuple[float, float]],
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    audio_from: float = 0.0,
    audio_seconds: float | None = None,
    options: dict[str, str] | None = None,
    frame_rate: int = 50,
) -> Path:
    """Write a black, silent video that is white and audio at 440 Hz from and to these seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(video_codec, rate=frame_rate, options={"g": str(frame_rate)})
        audio = container.add_stream(audio_codec, rate=SAMPLE_RATE, layout="mono")
        assert isinstance(video, VideoStream)
        assert isinstance(audio, AudioStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        packets: list[Packet[AudioStream] | Packet[VideoStream]] = []
        for number in range(round(seconds * frame_rate)):
            is_white = any(start <= number / frame_rate < end for start, end in flashes)
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 255 * is_white, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, frame_rate)
            packets += video.encode(frame.reformat(format="yuv420p"))
        packets += video.encode(None)
        for audio_frame in _make_audio_frames(audio, audio_from, audio_seconds or seconds, flashes):
            packets += audio.encode(audio_frame)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            container.mux(packet)
    return path


def _make_audio_frames(
    stream: AudioStream, start: float, end: float, flashes: Sequence[tuple[float, float]]
) -> Iterator[av.AudioFrame]:
    times = np.arange(round(start * stream.rate), round(end * stream.rate)) / stream.rate
    is_loud = np.zeros(len(times), bool)
    for first, last in flashes:
        is_loud |= (first <= times) & (times < last)
    wave = np.where(is_loud, np.sin(times * 2 * np.pi * 440) * 0.5, 0).astype(np.float32)
    for first in range(0, len(wave), 960):
        frame = av.AudioFrame.from_ndarray(wave[np.newaxis, first : first + 960], "fltp", "mono")
        frame.pts, frame.sample_rate = round(start * stream.rate) + first, stream.rate
        frame.time_base = Fraction(1, stream.rate)
        yield from _in_format(frame, stream)


def make_bars(
    path: Path,
    bars: Sequence[tuple[float, float, float]],
    height: int = 48,
    matrix: int = 2,
    primaries: int = 2,
    transfer: int = 2,
    is_full_range: bool = False,
    pixels: str = "yuv420p",
    codec: str = "libx264",
    numbers_of: int | None = None,
    seconds: int = 1,
) -> Path:
    """Write a video of upright bars, each red, green and blue from 0 to 255, with these tags (2 is for none).

    The numbers of its frames are those of the matrix `numbers_of`, or of its tag.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = _bars_frame(bars, height, YUV_WEIGHTS[numbers_of or matrix], is_full_range, pixels)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FRAME_RATE, options=_QUIET_CODECS.get(codec, {}))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
        context.color_range = 2 if is_full_range else 1 if matrix != 2 else 0
        for number in range(seconds * FRAME_RATE):
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _bars_frame(
    bars: Sequence[tuple[float, float, float]],
    height: int,
    weights: tuple[float, float],
    is_full_range: bool,
    pixels: str,
) -> av.VideoFrame:
    depth = 10 if "10" in pixels else 8
    step = 2 ** (depth - 8)
    lines: dict[str, list[float]] = {"y": [], "u": [], "v": []}
    for red, green, blue in bars:
        luma = weights[0] * red + (1 - sum(weights)) * green + weights[1] * blue
        chroma = (blue - luma) / (2 - 2 * weights[1]), (red - luma) / (2 - 2 * weights[0])
        lines["y"].append(luma if is_full_range else 16 + luma * 219 / 255)
        for name, value in zip("uv", chroma, strict=True):
            lines[name].append(128 + value if is_full_range else 128 + value * 224 / 255)
    frame = av.VideoFrame(len(bars) * BAR_WIDTH, height, pixels)
    for plane, values in zip(frame.planes, lines.values(), strict=True):
        row = np.repeat(np.rint(np.array(values) * step), plane.width // len(bars)).astype("<u2" if step > 1 else "u1")
        plane.update(row.tobytes().ljust(plane.line_size, b"\0") * plane.height)
    return frame
