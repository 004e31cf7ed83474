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
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from app.core.errors import StageFailed
from app.media.cutting import (
    AUDIO_BITS,
    AUDIO_CODEC,
    PIXELS,
    SOUND_RATE,
    VIDEO_CODEC,
    VIDEO_OPTIONS,
    Cut,
    FrameForm,
)
from app.media.decoding import decode
from app.media.opening import BoundedFile, open_film
from app.media.sound import Sound

_Encoded: TypeAlias = "Packet[AudioStream] | Packet[VideoStream]"


def cut_with_pyav(film: BoundedFile, cut: Cut, target: Path) -> None:
    """Write a clip of a film.

    Raises `StageFailed`, `Stopped`, `TooExpensive`, `av.FFmpegError` for film and clip, and what reading raises.
    """
    with (
        cut.colour_table() as table,
        open_film(film) as source,
        av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as clip,
    ):
        written = 0
        for packet in _recode(source, film, clip, cut, table):
            film.check_limits()
            written += packet.size
            if written > cut.max_bytes:
                raise StageFailed(f"A clip of the video would have more than {cut.max_bytes // 1024**3} GiB")
            clip.mux(packet)
        film.check_limits()


def _recode(
    source: InputContainer, film: BoundedFile, clip: OutputContainer, cut: Cut, table: Path | None
) -> Iterator[_Encoded]:
    video, sound = _PictureTrack(source, clip, cut, table), _SoundTrack(clip, cut)
    held: list[_Encoded] = []
    streams = [source.streams[index] for index in (cut.picture, cut.sound) if index is not None]
    if cut.seek is not None:
        cut.seek.apply(source)
    for frame in decode(
        source, film, cut.timeline, *(each for each in streams if isinstance(each, AudioStream | VideoStream))
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

    def __init__(self, source: InputContainer, clip: OutputContainer, cut: Cut, table: Path | None) -> None:
        picture = source.streams[cut.picture]
        if isinstance(picture, VideoStream):
            picture.codec_context.thread_count = 0
            picture.codec_context.thread_type = "AUTO"
            self._time_base = picture.time_base
        self._cut = cut
        self._stream = clip.add_stream(VIDEO_CODEC, rate=cut.rate, options=VIDEO_OPTIONS)
        self._stream.codec_context.thread_count = 0
        self._graph: Graph | None = None
        self._table = table
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
        if self._graph is None:
            self._graph = self._make_graph()
        form = self._cut.form
        same = frame.reformat(form.width, form.height, form.pixels)
        same.colorspace, same.color_range = _buffer_colours(form)
        self._graph.vpush(same)
        yield from self._pull(self._graph)

    def finish(self) -> Iterator[_Encoded]:
        if self._graph is None:
            raise StageFailed("No picture of this part of the video can be decoded")
        if not self.is_full:
            self._graph.vpush(None)
            yield from self._pull(self._graph)
        yield from self._stream.encode(None)

    def _make_graph(self) -> Graph:
        graph, form = Graph(), self._cut.form
        colorspace, color_range = _buffer_colours(form)
        source = graph.add(
            "buffer",
            video_size=f"{form.width}x{form.height}",
            pix_fmt=form.pixels,
            time_base=str(self._time_base),
            pixel_aspect=f"{form.aspect.numerator}/{form.aspect.denominator}",
            colorspace=str(colorspace),
            range=str(color_range),
        )
        filters = [*form.turns, *self._cut.picture_filters(self._table)]
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
        context, form, tags = self._stream.codec_context, self._cut.form, self._cut.form.colours.tags
        context.sample_aspect_ratio = 1 / form.aspect if form.lies_on_its_side else form.aspect
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags


def _buffer_colours(form: FrameForm) -> tuple[int, int]:
    """Return the matrix and the range that the graph is told of; it takes other frames for frames that changed."""
    return form.colours.matrix or 0, ColorRange.JPEG if form.colours.is_full_range else ColorRange.MPEG


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
