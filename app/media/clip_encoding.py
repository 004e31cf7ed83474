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
from app.core.limited_process import make_limited_command
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
from app.media.container import ALLOWED_DECODERS, ALLOWED_FORMATS, MAX_PIXELS, MAX_STREAMS, BoundedFile, open_container
from app.media.frames import decode_frames

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1  # between checks of the running program
_LOGGED_STDERR_BYTES = 500  # of the end of its error output
# Threads have stacks of 8 MB, and there are some for each processor in decoder, filters and encoder. A pixel takes
# 1.5 to 6 bytes in each frame, of which some hundred are held by decoder, lookahead and references, and more by each
# thread. 7680 x 4320 pixels with 10 bits took 7.2 GB on two processors, and are given 9.9 GB.
_FFMPEG_BYTES, _THREAD_BYTES, _PIXEL_BYTES, _THREAD_PIXEL_BYTES = 1024**3, 64 * 1024**2, 250, 8
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
_OUT_OF_MEMORY = "Cannot allocate memory"
_DURATION_TOLERANCE_SECONDS = 0.05  # that the audio of a clip may be longer or shorter


def find_ffmpeg() -> str | None:
    """Return the path of ffmpeg, None if it is missing or cannot be given an open file descriptor."""
    return shutil.which("ffmpeg") if os.path.isdir("/dev/fd") else None


def cut_with_ffmpeg(program: str, file: BinaryIO, bounded: BoundedFile, plan: ClipPlan, target: Path) -> bool:
    """Encode a clip of a local video; return False, after a warning in the log, if ffmpeg could not.

    ffmpeg gets the open file, so it reads the file that was probed even if the path has changed. Raises
    `ProcessingStopped`, `ReadLimitExceeded`, and `StageFailed` if it needs too much memory or time; it is killed
    before.
    """
    if plan.timeline.restarts:
        return False
    path = f"/dev/fd/{file.fileno()}"
    memory, seconds = _ffmpeg_memory_limit(plan), bounded.seconds_left * (os.cpu_count() or 1)
    with tempfile.TemporaryFile() as stderr_file, plan.colour_lut() as lut:
        process = subprocess.Popen(  # noqa: S603  # the system's program; the only user input is an open file
            make_limited_command([program, *_ffmpeg_arguments(path, plan, lut, target)], memory, seconds),
            env=_ffmpeg_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr_file,
            pass_fds=[file.fileno()],
            start_new_session=True,  # signals of the terminal do not reach it
        )
        try:
            code = _wait_for_ffmpeg(process, bounded)
        finally:
            process.kill()
            process.wait()
        if code == 0 and _is_complete_clip(target, plan):
            return True
        stderr_file.seek(max(stderr_file.tell() - _LOGGED_STDERR_BYTES, 0))
        stderr = stderr_file.read().decode(errors="replace").strip()
        _log.warning("%s exited with %s: %s", program, code, stderr)
        # PyAV in this process would run out in the same way, and take the worker's other jobs with it.
        if code < 0 or _OUT_OF_MEMORY in stderr:
            raise StageFailed("A clip of the video takes more memory or computing time to cut than it may")
    return False


def _ffmpeg_memory_limit(plan: ClipPlan) -> int:
    """Return the address space, in bytes, that ffmpeg may take for its threads and frames.

    At most three quarters of the machine's memory: ffmpeg then fails before the kernel kills another process.
    """
    processors = os.cpu_count() or 1
    frames = plan.frame_format.width * plan.frame_format.height * (_PIXEL_BYTES + _THREAD_PIXEL_BYTES * processors)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(min(_FFMPEG_BYTES + _THREAD_BYTES * processors + frames, machine * 3 // 4), _FFMPEG_BYTES)


def _ffmpeg_environment() -> dict[str, str]:
    """Return ffmpeg's environment, which excludes the settings and secrets of this process."""
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return {**inherited, "MALLOC_ARENA_MAX": "2"}  # each arena reserves 64 MB of address space


def _wait_for_ffmpeg(process: "subprocess.Popen[bytes]", bounded: BoundedFile) -> int:
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            bounded.check_limits()


def _ffmpeg_arguments(input_path: str, plan: ClipPlan, lut: Path | None, target: Path) -> list[str]:
    seek = [] if plan.seek is None else ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{plan.seek.time:.6f}"]
    audio_options = (
        [] if plan.audio_index is None else ["-map", f"0:{plan.audio_index}", "-af", _join_filters(plan.audio_filters)]
    )
    return [
        *("-nostdin", "-hide_banner", "-loglevel", "error", "-y"),
        *("-protocol_whitelist", "file", "-format_whitelist", ALLOWED_FORMATS, "-codec_whitelist", ALLOWED_DECODERS),
        *("-max_pixels", str(MAX_PIXELS), "-max_streams", str(MAX_STREAMS)),
        # A filter graph rebuilt for another frame format restarts in the middle, and ffmpeg then fails at the audio.
        *("-reinit_filter", "0", "-copyts", *seek, "-i", f"file:{input_path}"),
        *(
            "-map",
            f"0:{plan.video_index}",
            "-vf",
            _join_filters([*_uniform_frame_filters(plan), *plan.video_filters(lut)]),
            *audio_options,
        ),
        *("-map_metadata", "-1", "-map_chapters", "-1"),
        *("-c:v", VIDEO_CODEC, *(part for name, value in VIDEO_OPTIONS.items() for part in (f"-{name}", value))),
        *("-pix_fmt", PIXEL_FORMAT, *_colour_tag_options(plan), "-c:a", AUDIO_CODEC, "-b:a", str(AUDIO_BIT_RATE)),
        *("-movflags", "+faststart", "-fs", str(plan.max_bytes), "-f", "mp4", f"file:{target}"),
    ]


def _uniform_frame_filters(plan: ClipPlan) -> list[tuple[str, str]]:
    form = plan.frame_format
    width, height = (form.height, form.width) if form.is_sideways else (form.width, form.height)
    return [("scale", f"w={width}:h={height}"), ("format", form.pixel_format)] if form.is_planar else []


def _colour_tag_options(plan: ClipPlan) -> list[str]:
    names = ("-colorspace", "-color_primaries", "-color_trc", "-color_range")
    return [part for pair in zip(names, map(str, plan.frame_format.colours.tags), strict=True) for part in pair]


def _join_filters(filters: Sequence[tuple[str, str]]) -> str:
    return ",".join(f"{name}={options}" if options else name for name, options in filters)


def _is_complete_clip(clip: Path, plan: ClipPlan) -> bool:
    """Return whether both tracks have the planned length: ffmpeg exits with 0 after writing less, too."""
    try:
        with av.open(f"file:{clip}") as container:
            frames = [stream.frames for stream in container.streams.video]
            seconds = [float((stream.duration or 0) * (stream.time_base or 0)) for stream in container.streams.audio]
    except av.FFmpegError:
        return False
    is_audio_whole = all(abs(length - plan.seconds) <= _DURATION_TOLERANCE_SECONDS for length in seconds)
    return frames == [plan.frame_count] and len(seconds) == (plan.audio_index is not None) and is_audio_whole


_EncodedPacket: TypeAlias = "Packet[AudioStream] | Packet[VideoStream]"


def cut_with_pyav(file: BoundedFile, plan: ClipPlan, target: Path) -> None:
    """Encode a clip in this process.

    Raises `StageFailed`, `ProcessingStopped`, `ReadLimitExceeded`, `av.FFmpegError` for both files, and what reading
    raises.
    """
    with (
        plan.colour_lut() as lut,
        open_container(file) as source,
        av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as clip,
    ):
        written = 0
        for packet in _encode_clip_packets(source, file, clip, plan, lut):
            file.check_limits()
            written += packet.size
            if written > plan.max_bytes:
                raise StageFailed(f"A clip of the video would have more than {plan.max_bytes // 1024**3} GiB")
            clip.mux(packet)
        file.check_limits()


def _encode_clip_packets(
    source: InputContainer, file: BoundedFile, clip: OutputContainer, plan: ClipPlan, lut: Path | None
) -> Iterator[_EncodedPacket]:
    video, audio = _VideoTrackEncoder(source, clip, plan, lut), _AudioTrackEncoder(clip, plan)
    held: list[_EncodedPacket] = []
    streams = [source.streams[index] for index in (plan.video_index, plan.audio_index) if index is not None]
    if plan.seek is not None:
        plan.seek.apply(source)
    for frame in decode_frames(
        source, file, plan.timeline, *(each for each in streams if isinstance(each, AudioStream | VideoStream))
    ):
        held.extend(audio.encode_frame(frame) if isinstance(frame, AudioFrame) else video.encode_frame(frame))
        if video.has_started:  # the header of the clip needs the frame size
            yield from held
            held.clear()
        if video.is_complete and audio.is_complete:
            break
    yield from video.finish()
    yield from held
    yield from audio.finish()


class _VideoTrackEncoder:
    """Encodes the frames of a clip."""

    def __init__(self, source: InputContainer, clip: OutputContainer, plan: ClipPlan, lut: Path | None) -> None:
        video = source.streams[plan.video_index]
        if isinstance(video, VideoStream):
            video.codec_context.thread_count = 0
            video.codec_context.thread_type = "AUTO"
            self._time_base = video.time_base
        self._plan = plan
        self._stream = clip.add_stream(VIDEO_CODEC, rate=plan.frame_rate, options=VIDEO_OPTIONS)
        self._stream.codec_context.thread_count = 0
        self._graph: Graph | None = None
        self._table = lut
        self._frames = 0

    @property
    def has_started(self) -> bool:
        return self._frames > 0

    @property
    def is_complete(self) -> bool:
        return self._frames == self._plan.frame_count

    def encode_frame(self, frame: VideoFrame) -> Iterator[_EncodedPacket]:
        if self.is_complete or frame.pts is None:
            return
        if self._graph is None:
            self._graph = self._make_graph()
        form = self._plan.frame_format
        same = frame.reformat(form.width, form.height, form.pixel_format)
        same.colorspace, same.color_range = _source_colours(form)
        self._graph.vpush(same)
        yield from self._drain_graph(self._graph)

    def finish(self) -> Iterator[_EncodedPacket]:
        if self._graph is None:
            raise StageFailed("No frame of this part of the video can be decoded")
        if not self.is_complete:
            self._graph.vpush(None)
            yield from self._drain_graph(self._graph)
        yield from self._stream.encode(None)

    def _make_graph(self) -> Graph:
        graph, form = Graph(), self._plan.frame_format
        colorspace, color_range = _source_colours(form)
        source = graph.add(
            "buffer",
            video_size=f"{form.width}x{form.height}",
            pix_fmt=form.pixel_format,
            time_base=str(self._time_base),
            pixel_aspect=f"{form.pixel_aspect.numerator}/{form.pixel_aspect.denominator}",
            colorspace=str(colorspace),
            range=str(color_range),
        )
        filters = [*form.rotation, *self._plan.video_filters(self._table)]
        graph.link_nodes(source, *(graph.add(*each) for each in filters), graph.add("buffersink")).configure()
        return graph

    def _drain_graph(self, graph: Graph) -> Iterator[_EncodedPacket]:
        with suppress(BlockingIOError, EOFError):
            while not self.is_complete:
                frame = graph.vpull()
                if self._frames == 0:
                    self._set_output_format(frame)
                frame.pts, frame.time_base = self._frames, 1 / self._plan.frame_rate
                frame.pict_type = PictureType.NONE
                self._frames += 1
                yield from self._stream.encode(frame)

    def _set_output_format(self, frame: VideoFrame) -> None:
        self._stream.width, self._stream.height, self._stream.pix_fmt = frame.width, frame.height, PIXEL_FORMAT
        context, form, tags = self._stream.codec_context, self._plan.frame_format, self._plan.frame_format.colours.tags
        context.sample_aspect_ratio = 1 / form.pixel_aspect if form.is_sideways else form.pixel_aspect
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags


def _source_colours(form: FrameFormat) -> tuple[int, int]:
    return form.colours.matrix or 0, ColorRange.JPEG if form.colours.is_full_range else ColorRange.MPEG


class _AudioTrackEncoder:
    """Encodes the audio of a clip; does nothing if the video has none."""

    def __init__(self, clip: OutputContainer, plan: ClipPlan) -> None:
        self._sample_count = plan.sample_count if plan.audio_layout else 0
        self._encoded = 0
        if plan.audio_layout:
            self._layout = plan.audio_layout
            self._stream = clip.add_stream(
                AUDIO_CODEC, rate=AUDIO_SAMPLE_RATE, layout=plan.audio_layout, bit_rate=AUDIO_BIT_RATE
            )
            self._audio = ContinuousAudio(plan.audio_layout, AUDIO_SAMPLE_RATE, plan.start, None)

    @property
    def is_complete(self) -> bool:
        return self._encoded == self._sample_count

    def encode_frame(self, frame: AudioFrame) -> Iterator[_EncodedPacket]:
        if not self.is_complete:
            yield from self._encode_chunks(self._audio.add_frame(frame))

    def finish(self) -> Iterator[_EncodedPacket]:
        if self._sample_count:
            yield from self._encode_chunks(self._audio.finish())
            yield from self._encode_chunks(self._audio.add_silence(self._sample_count - self._encoded))
            yield from self._stream.encode(None)

    def _encode_chunks(self, chunks: Iterator[bytes]) -> Iterator[_EncodedPacket]:
        for chunk in chunks:
            if self.is_complete:
                return
            width = 4 if self._layout == "stereo" else 2
            samples = min(len(chunk) // width, self._sample_count - self._encoded)
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
