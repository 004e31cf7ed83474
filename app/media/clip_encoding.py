"""Encoding of clips: by the ffmpeg program of the system, or in this process by PyAV."""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, TypeAlias

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
from app.core.limited_process import limited_command
from app.media.audio import ContinuousAudio
from app.media.clip_plan import (
    AUDIO_BIT_RATE,
    AUDIO_CODEC,
    AUDIO_SAMPLE_RATE,
    PIXEL_FORMAT,
    VIDEO_CODEC,
    VIDEO_OPTIONS,
    ClipPlan,
    FrameFormat,
)
from app.media.container import ALLOWED_DECODERS, ALLOWED_FORMATS, MAX_PIXELS, MAX_STREAMS, open_container
from app.media.frames import decode_frames
from app.media.limits import BoundedFile

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1  # how often a program that runs is looked at
_LOGGED_STDERR_BYTES = 500  # of what it says last
# Threads have stacks of 8 MB, and there are some for each processor in decoder, filters and encoder. A pixel takes
# 1.5 to 6 bytes in each frame, of which some hundred are held by decoder, lookahead and references, and more by each
# thread. 7680 x 4320 pixels with 10 bits took 7.2 GB on two processors, and are given 9.9 GB.
_FFMPEG_BYTES, _THREAD_BYTES, _PIXEL_BYTES, _THREAD_PIXEL_BYTES = 1024**3, 64 * 1024**2, 250, 8
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
_OUT_OF_MEMORY = "Cannot allocate memory"
_DURATION_TOLERANCE_SECONDS = 0.05  # by which the audio of a clip may differ from its length


def find_ffmpeg() -> str | None:
    """Return the path of the program, None where there is none or none that can be given an open file."""
    return shutil.which("ffmpeg") if os.path.isdir("/dev/fd") else None


def cut_with_ffmpeg(program: str, film: BinaryIO, bounded: BoundedFile, cut: ClipPlan, target: Path) -> bool:
    """Write a clip of a local film; False where the program could not, which is logged, or does not know the clock.

    The program gets the film as an open file, so that it reads the very one that was looked at. Raises `Stopped`,
    `TooExpensive` and `StageFailed` where it takes too much, after the program was killed.
    """
    if cut.timeline.restarts:
        return False
    path = f"/dev/fd/{film.fileno()}"
    memory, seconds = _ffmpeg_memory_limit(cut), bounded.seconds_left * (os.cpu_count() or 1)
    with tempfile.TemporaryFile() as told, cut.colour_table() as table:
        process = subprocess.Popen(  # noqa: S603  # a program of the system, and nothing of a user's but an open file
            limited_command([program, *_ffmpeg_arguments(path, cut, table, target)], memory, seconds),
            env=_ffmpeg_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=told,
            pass_fds=[film.fileno()],
            start_new_session=True,  # what a terminal tells this process is not told to the program
        )
        try:
            code = _wait_for_ffmpeg(process, bounded)
        finally:
            process.kill()
            process.wait()
        if code == 0 and _is_complete_clip(target, cut):
            return True
        told.seek(max(told.tell() - _LOGGED_STDERR_BYTES, 0))
        said = told.read().decode(errors="replace").strip()
        _log.warning("%s has ended with %s: %s", program, code, said)
        # This process would come to the same end, with all that it does beside.
        if code < 0 or _OUT_OF_MEMORY in said:
            raise StageFailed("A clip of the video takes more memory or computing time to cut than it may")
    return False


def _ffmpeg_memory_limit(cut: ClipPlan) -> int:
    """Return how much address space the program may take: for its threads and for the frames that they hold.

    That is never more than three quarters of the machine's memory: the program fails, and no other has to end for it.
    """
    processors = os.cpu_count() or 1
    frames = cut.form.width * cut.form.height * (_PIXEL_BYTES + _THREAD_PIXEL_BYTES * processors)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(min(_FFMPEG_BYTES + _THREAD_BYTES * processors + frames, machine * 3 // 4), _FFMPEG_BYTES)


def _ffmpeg_environment() -> dict[str, str]:
    """Return what the program needs to run, without the settings and secrets of this process."""
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return {**inherited, "MALLOC_ARENA_MAX": "2"}  # an arena for each thread would reserve 64 MB


def _wait_for_ffmpeg(process: "subprocess.Popen[bytes]", bounded: BoundedFile) -> int:
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            bounded.check_limits()


def _ffmpeg_arguments(film: str, cut: ClipPlan, table: Path | None, target: Path) -> list[str]:
    seek = [] if cut.seek is None else ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{cut.seek.time:.6f}"]
    sound = [] if cut.sound is None else ["-map", f"0:{cut.sound}", "-af", _join_filters(cut.sound_filters)]
    return [
        *("-nostdin", "-hide_banner", "-loglevel", "error", "-y"),
        *("-protocol_whitelist", "file", "-format_whitelist", ALLOWED_FORMATS, "-codec_whitelist", ALLOWED_DECODERS),
        *("-max_pixels", str(MAX_PIXELS), "-max_streams", str(MAX_STREAMS)),
        # A graph made anew for frames of another form would begin anew in the middle: the program fails at audio.
        *("-reinit_filter", "0", "-copyts", *seek, "-i", f"file:{film}"),
        *(
            "-map",
            f"0:{cut.picture}",
            "-vf",
            _join_filters([*_uniform_frame_filters(cut), *cut.picture_filters(table)]),
            *sound,
        ),
        *("-map_metadata", "-1", "-map_chapters", "-1"),
        *("-c:v", VIDEO_CODEC, *(part for name, value in VIDEO_OPTIONS.items() for part in (f"-{name}", value))),
        *("-pix_fmt", PIXEL_FORMAT, *_colour_tag_options(cut), "-c:a", AUDIO_CODEC, "-b:a", str(AUDIO_BIT_RATE)),
        *("-movflags", "+faststart", "-fs", str(cut.max_bytes), "-f", "mp4", f"file:{target}"),
    ]


def _uniform_frame_filters(cut: ClipPlan) -> list[tuple[str, str]]:
    """Return the filters that give all frames the form of the first one, which the program has turned upright."""
    form = cut.form
    width, height = (form.height, form.width) if form.is_sideways else (form.width, form.height)
    return [("scale", f"w={width}:h={height}"), ("format", form.pixels)] if form.is_planar else []


def _colour_tag_options(cut: ClipPlan) -> list[str]:
    names = ("-colorspace", "-color_primaries", "-color_trc", "-color_range")
    return [part for pair in zip(names, map(str, cut.form.colours.tags), strict=True) for part in pair]


def _join_filters(filters: Sequence[tuple[str, str]]) -> str:
    return ",".join(f"{name}={options}" if options else name for name, options in filters)


def _is_complete_clip(clip: Path, cut: ClipPlan) -> bool:
    """Whether both tracks of a clip are as long as they should be: the program calls it a success to write less."""
    try:
        with av.open(f"file:{clip}") as container:
            frames = [stream.frames for stream in container.streams.video]
            seconds = [float((stream.duration or 0) * (stream.time_base or 0)) for stream in container.streams.audio]
    except av.FFmpegError:
        return False
    is_audio_whole = all(abs(length - cut.seconds) <= _DURATION_TOLERANCE_SECONDS for length in seconds)
    return frames == [cut.frames] and len(seconds) == (cut.sound is not None) and is_audio_whole


_EncodedPacket: TypeAlias = "Packet[AudioStream] | Packet[VideoStream]"


def cut_with_pyav(film: BoundedFile, cut: ClipPlan, target: Path) -> None:
    """Write a clip of a film.

    Raises `StageFailed`, `Stopped`, `TooExpensive`, `av.FFmpegError` for film and clip, and what reading raises.
    """
    with (
        cut.colour_table() as table,
        open_container(film) as source,
        av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as clip,
    ):
        written = 0
        for packet in _encode_clip_packets(source, film, clip, cut, table):
            film.check_limits()
            written += packet.size
            if written > cut.max_bytes:
                raise StageFailed(f"A clip of the video would have more than {cut.max_bytes // 1024**3} GiB")
            clip.mux(packet)
        film.check_limits()


def _encode_clip_packets(
    source: InputContainer, film: BoundedFile, clip: OutputContainer, cut: ClipPlan, table: Path | None
) -> Iterator[_EncodedPacket]:
    video, sound = _VideoTrackEncoder(source, clip, cut, table), _AudioTrackEncoder(clip, cut)
    held: list[_EncodedPacket] = []
    streams = [source.streams[index] for index in (cut.picture, cut.sound) if index is not None]
    if cut.seek is not None:
        cut.seek.apply(source)
    for frame in decode_frames(
        source, film, cut.timeline, *(each for each in streams if isinstance(each, AudioStream | VideoStream))
    ):
        held.extend(sound.add(frame) if isinstance(frame, AudioFrame) else video.add(frame))
        if video.has_started:  # the header of the clip says how large the picture is
            yield from held
            held.clear()
        if video.is_full and sound.is_full:
            break
    yield from video.finish()
    yield from held
    yield from sound.finish()


class _VideoTrackEncoder:
    """The frames of the clip."""

    def __init__(self, source: InputContainer, clip: OutputContainer, cut: ClipPlan, table: Path | None) -> None:
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
    def has_started(self) -> bool:
        return self._frames > 0

    @property
    def is_full(self) -> bool:
        return self._frames == self._cut.frames

    def add(self, frame: VideoFrame) -> Iterator[_EncodedPacket]:
        if self.is_full or frame.pts is None:
            return
        if self._graph is None:
            self._graph = self._make_graph()
        form = self._cut.form
        same = frame.reformat(form.width, form.height, form.pixels)
        same.colorspace, same.color_range = _buffer_colour_options(form)
        self._graph.vpush(same)
        yield from self._pull(self._graph)

    def finish(self) -> Iterator[_EncodedPacket]:
        if self._graph is None:
            raise StageFailed("No picture of this part of the video can be decoded")
        if not self.is_full:
            self._graph.vpush(None)
            yield from self._pull(self._graph)
        yield from self._stream.encode(None)

    def _make_graph(self) -> Graph:
        graph, form = Graph(), self._cut.form
        colorspace, color_range = _buffer_colour_options(form)
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

    def _pull(self, graph: Graph) -> Iterator[_EncodedPacket]:
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
        self._stream.width, self._stream.height, self._stream.pix_fmt = frame.width, frame.height, PIXEL_FORMAT
        context, form, tags = self._stream.codec_context, self._cut.form, self._cut.form.colours.tags
        context.sample_aspect_ratio = 1 / form.aspect if form.is_sideways else form.aspect
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags


def _buffer_colour_options(form: FrameFormat) -> tuple[int, int]:
    """Return the matrix and the range that the graph is told of; it takes other frames for frames that changed."""
    return form.colours.matrix or 0, ColorRange.JPEG if form.colours.is_full_range else ColorRange.MPEG


class _AudioTrackEncoder:
    """The sound of the clip, where the film has any."""

    def __init__(self, clip: OutputContainer, cut: ClipPlan) -> None:
        self._wanted = cut.samples if cut.layout else 0
        self._encoded = 0
        if cut.layout:
            self._layout = cut.layout
            self._stream = clip.add_stream(
                AUDIO_CODEC, rate=AUDIO_SAMPLE_RATE, layout=cut.layout, bit_rate=AUDIO_BIT_RATE
            )
            self._sound = ContinuousAudio(cut.layout, AUDIO_SAMPLE_RATE, cut.start, None)

    @property
    def is_full(self) -> bool:
        return self._encoded == self._wanted

    def add(self, frame: AudioFrame) -> Iterator[_EncodedPacket]:
        if not self.is_full:
            yield from self._encode(self._sound.add(frame))

    def finish(self) -> Iterator[_EncodedPacket]:
        if self._wanted:
            yield from self._encode(self._sound.finish())
            yield from self._encode(self._sound.silence(self._wanted - self._encoded))
            yield from self._stream.encode(None)

    def _encode(self, chunks: Iterator[bytes]) -> Iterator[_EncodedPacket]:
        for chunk in chunks:
            if self.is_full:
                return
            width = 4 if self._layout == "stereo" else 2
            samples = min(len(chunk) // width, self._wanted - self._encoded)
            frame = AudioFrame("s16", self._layout, samples)
            plane = frame.planes[0]
            plane.update(chunk[: samples * width].ljust(plane.buffer_size, b"\0"))
            frame.pts, frame.sample_rate, frame.time_base = (
                self._encoded,
                AUDIO_SAMPLE_RATE,
                Fraction(1, AUDIO_SAMPLE_RATE),
            )
            self._encoded += samples
            yield from self._stream.encode(frame)
