"""Little films, made with PyAV."""

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
