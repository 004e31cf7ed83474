"""Little films, made with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

WIDTH, HEIGHT, FRAME_RATE, SAMPLE_RATE = 64, 48, 10, 48_000


def make_movie(
    path: Path,
    seconds: float = 1.0,
    video_codec: str | None = "libx264",
    audio_codec: str | None = "aac",
    container_format: str | None = None,
    title: str | None = None,
) -> Path:
    """Write a black, silent film to `path` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container_format) as container:
        if title:
            container.metadata["title"] = title
        video = container.add_stream(video_codec, rate=FRAME_RATE) if video_codec else None
        if isinstance(video, VideoStream):
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream(audio_codec, rate=SAMPLE_RATE, layout="mono") if audio_codec else None
        if isinstance(video, VideoStream):
            _film(container, video, seconds)
        if isinstance(audio, AudioStream):
            _record(container, audio, seconds)
    return path


def make_colour_movie(path: Path, seconds: float, colours: Sequence[tuple[int, int, int]]) -> Path:
    """Write a film that shows one colour (red, green, blue: 0 to 255) for a second and then the next, with no sound."""
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


def _film(container: OutputContainer, stream: VideoStream, seconds: float) -> None:
    for number in range(round(seconds * FRAME_RATE)):
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _record(container: OutputContainer, stream: AudioStream, seconds: float) -> None:
    frame = av.AudioFrame(format=stream.format.name, layout="mono", samples=round(seconds * SAMPLE_RATE))
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.pts, frame.sample_rate, frame.time_base = 0, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
