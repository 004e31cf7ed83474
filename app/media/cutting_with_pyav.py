"""Cuts with PyAV, which reads films wherever they lie."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from app.core.errors import StageFailed
from app.media.cutting import AUDIO_BITS, AUDIO_CODEC, PIXELS, SOUND_RATE, VIDEO_CODEC, VIDEO_OPTIONS, Cut
from app.media.decoding import decode
from app.media.opening import BoundedFile, open_film
from app.media.sound import Sound
from app.media.turning import turns_of

_Encoded: TypeAlias = "Packet[AudioStream] | Packet[VideoStream]"


def cut_with_pyav(film: BoundedFile, cut: Cut, target: Path) -> None:
    """Write a clip of a film.

    Raises `StageFailed`, `Stopped`, `TooExpensive`, `av.FFmpegError` for film and clip, and what reading raises.
    """
    with (
        open_film(film) as source,
        av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as clip,
    ):
        written = 0
        for packet in _recode(source, clip, cut):
            film.check_limits()
            written += packet.size
            if written > cut.max_bytes:
                raise StageFailed(f"A clip of the video would have more than {cut.max_bytes // 1024**3} GiB")
            clip.mux(packet)
        film.check_limits()


def _recode(source: InputContainer, clip: OutputContainer, cut: Cut) -> Iterator[_Encoded]:
    video, sound = _PictureTrack(source, clip, cut), _SoundTrack(clip, cut)
    held: list[_Encoded] = []
    streams = [source.streams[index] for index in (cut.picture, cut.sound) if index is not None]
    if cut.seek is not None:
        cut.seek.apply(source)
    for frame in decode(
        source, cut.timeline, *(each for each in streams if isinstance(each, AudioStream | VideoStream))
    ):
        held.extend(sound.add(frame) if isinstance(frame, AudioFrame) else video.add(frame))
        if video.has_begun:  # the header of the clip says how large the picture is
            yield from held
            held.clear()
        if video.is_full and sound.is_full:
            break
    yield from video.finish()
    yield from held
    yield from sound.finish()


class _PictureTrack:
    """The frames of the clip."""

    def __init__(self, source: InputContainer, clip: OutputContainer, cut: Cut) -> None:
        picture = source.streams[cut.picture]
        if isinstance(picture, VideoStream):
            picture.codec_context.thread_count = 0
            picture.codec_context.thread_type = "AUTO"
            self._aspect = picture.sample_aspect_ratio or Fraction(1)
            self._time_base = picture.time_base
        self._cut = cut
        self._stream = clip.add_stream(VIDEO_CODEC, rate=cut.rate, options=VIDEO_OPTIONS)
        self._stream.codec_context.thread_count = 0
        self._graph: Graph | None = None
        self._first: VideoFrame | None = None
        self._frames = 0

    @property
    def has_begun(self) -> bool:
        return self._frames > 0

    @property
    def is_full(self) -> bool:
        return self._frames == self._cut.frames

    def add(self, frame: VideoFrame) -> Iterator[_Encoded]:
        if self.is_full or frame.pts is None:
            return
        if self._graph is None or self._first is None:
            self._first = frame
            self._graph = self._make_graph(frame)
        first = self._first
        self._graph.vpush(frame.reformat(first.width, first.height, first.format.name))
        yield from self._pull(self._graph)

    def finish(self) -> Iterator[_Encoded]:
        if self._graph is None:
            raise StageFailed("No picture of this part of the video can be decoded")
        if not self.is_full:
            self._graph.vpush(None)
            yield from self._pull(self._graph)
        yield from self._stream.encode(None)

    def _make_graph(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        source = graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(self._time_base),
            pixel_aspect=f"{self._aspect.numerator}/{self._aspect.denominator}",
        )
        filters = [*turns_of(frame), *self._cut.picture_filters]
        graph.link_nodes(source, *(graph.add(*each) for each in filters), graph.add("buffersink")).configure()
        return graph

    def _pull(self, graph: Graph) -> Iterator[_Encoded]:
        with suppress(BlockingIOError, EOFError):
            while not self.is_full:
                frame = graph.vpull()
                if self._frames == 0:
                    self._describe(frame)
                frame.pts, frame.time_base = self._frames, 1 / self._cut.rate
                frame.pict_type = PictureType.NONE
                self._frames += 1
                yield from self._stream.encode(frame)

    def _describe(self, frame: VideoFrame) -> None:
        self._stream.width, self._stream.height, self._stream.pix_fmt = frame.width, frame.height, PIXELS
        is_on_its_side = self._first is not None and abs(self._first.rotation) == 90
        self._stream.codec_context.sample_aspect_ratio = 1 / self._aspect if is_on_its_side else self._aspect


class _SoundTrack:
    """The sound of the clip, where the film has any."""

    def __init__(self, clip: OutputContainer, cut: Cut) -> None:
        self._wanted = cut.samples if cut.layout else 0
        self._encoded = 0
        if cut.layout:
            self._layout = cut.layout
            self._stream = clip.add_stream(AUDIO_CODEC, rate=SOUND_RATE, layout=cut.layout, bit_rate=AUDIO_BITS)
            self._sound = Sound(cut.layout, SOUND_RATE, cut.start, None)

    @property
    def is_full(self) -> bool:
        return self._encoded == self._wanted

    def add(self, frame: AudioFrame) -> Iterator[_Encoded]:
        if not self.is_full:
            yield from self._encode(self._sound.add(frame))

    def finish(self) -> Iterator[_Encoded]:
        if self._wanted:
            yield from self._encode(self._sound.finish())
            yield from self._encode(self._sound.silence(self._wanted - self._encoded))
            yield from self._stream.encode(None)

    def _encode(self, chunks: Iterator[bytes]) -> Iterator[_Encoded]:
        for chunk in chunks:
            if self.is_full:
                return
            width = 4 if self._layout == "stereo" else 2
            samples = min(len(chunk) // width, self._wanted - self._encoded)
            frame = AudioFrame("s16", self._layout, samples)
            plane = frame.planes[0]
            plane.update(chunk[: samples * width].ljust(plane.buffer_size, b"\0"))
            frame.pts, frame.sample_rate, frame.time_base = self._encoded, SOUND_RATE, Fraction(1, SOUND_RATE)
            self._encoded += samples
            yield from self._stream.encode(frame)
