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
from app.media.audio import GapFillingResampler
from app.media.clip_plan import (
    AUDIO_BIT_RATE,
    AUDIO_CODEC,
    AUDIO_SAMPLE_RATE,
    PIXEL_FORMAT,
    VIDEO_CODEC,
    VIDEO_OPTIONS,
    ClipPlan,
)
from app.media.container import (
    ALLOWED_DECODERS,
    ALLOWED_FORMATS,
    MAX_PIXELS,
    MAX_STREAMS,
    ReadLimitedFile,
    open_container,
)
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


def encode_clip_with_ffmpeg(
    ffmpeg_path: str, video: BinaryIO, limited_video: ReadLimitedFile, plan: ClipPlan, clip_path: Path
) -> bool:
    """Encode a clip of a local video; return False, after a warning in the log, if ffmpeg could not.

    ffmpeg gets the open file, so it reads the file that was probed even if the path has changed. Raises
    `ProcessingStopped`, `ReadLimitExceeded`, and `StageFailed` if it needs too much memory or time.
    """
    if plan.timeline.restarts:
        return False
    path = f"/dev/fd/{video.fileno()}"
    memory, seconds = _ffmpeg_memory_limit(plan), limited_video.seconds_left * (os.cpu_count() or 1)
    with tempfile.TemporaryFile() as stderr_file, plan.temporary_colour_lut() as lut_path:
        process = subprocess.Popen(  # noqa: S603  # the system's program; the only user input is an open file
            make_limited_command([ffmpeg_path, *_ffmpeg_arguments(path, plan, lut_path, clip_path)], memory, seconds),
            env=_ffmpeg_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr_file,
            pass_fds=[video.fileno()],
            start_new_session=True,  # signals of the terminal do not reach it
        )
        try:
            code = _wait_for_ffmpeg(process, limited_video)
        finally:
            process.kill()
            process.wait()
        if code == 0 and _is_complete_clip(clip_path, plan):
            return True
        stderr_file.seek(max(stderr_file.tell() - _LOGGED_STDERR_BYTES, 0))
        stderr = stderr_file.read().decode(errors="replace").strip()
        _log.warning("%s exited with %s: %s", ffmpeg_path, code, stderr)
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


def _wait_for_ffmpeg(process: "subprocess.Popen[bytes]", limited_video: ReadLimitedFile) -> int:
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            limited_video.check_limits()


def _ffmpeg_arguments(input_path: str, plan: ClipPlan, lut_path: Path | None, clip_path: Path) -> list[str]:
    form, tags = plan.frame_format, plan.frame_format.colours.clip_tags
    size = f"w={form.height}:h={form.width}" if form.is_sideways else f"w={form.width}:h={form.height}"
    uniform_filters = [("scale", size), ("format", form.pixel_format)] if form.is_planar_yuv else []
    video_filters = _format_filter_chain([*uniform_filters, *plan.video_filters(lut_path)])
    audio_filters = _format_filter_chain(plan.audio_filters)
    options: list[tuple[object, ...]] = [
        ("-nostdin", "-hide_banner", "-loglevel", "error", "-y"),
        ("-protocol_whitelist", "file", "-format_whitelist", ALLOWED_FORMATS, "-codec_whitelist", ALLOWED_DECODERS),
        ("-max_pixels", MAX_PIXELS, "-max_streams", MAX_STREAMS),
        # A filter graph rebuilt for another frame format restarts in the middle, and ffmpeg then fails at the audio.
        ("-reinit_filter", 0, "-copyts"),
        ("-seek_timestamp", 1, "-noaccurate_seek", "-ss", f"{plan.seek.time:.6f}") if plan.seek else (),
        ("-i", f"file:{input_path}", "-map", f"0:{plan.video_index}", "-vf", video_filters),
        () if plan.audio_index is None else ("-map", f"0:{plan.audio_index}", "-af", audio_filters),
        ("-map_metadata", -1, "-map_chapters", -1, "-c:v", VIDEO_CODEC, "-preset", VIDEO_OPTIONS["preset"]),
        ("-pix_fmt", PIXEL_FORMAT, "-colorspace", tags.matrix, "-color_primaries", tags.primaries),
        ("-color_trc", tags.transfer, "-color_range", tags.range, "-c:a", AUDIO_CODEC, "-b:a", AUDIO_BIT_RATE),
        ("-movflags", "+faststart", "-fs", plan.max_bytes, "-f", "mp4", f"file:{clip_path}"),
    ]
    return [str(option) for group in options for option in group]


def _format_filter_chain(filters: Sequence[tuple[str, str]]) -> str:
    return ",".join(f"{name}={options}" if options else name for name, options in filters)


def _is_complete_clip(clip_path: Path, plan: ClipPlan) -> bool:
    """Return whether both tracks have the planned length: ffmpeg exits with 0 after writing less, too."""
    try:
        with av.open(f"file:{clip_path}") as container:
            frames = [stream.frames for stream in container.streams.video]
            seconds = [float((stream.duration or 0) * (stream.time_base or 0)) for stream in container.streams.audio]
    except av.FFmpegError:
        return False
    is_audio_whole = all(abs(length - plan.seconds) <= _DURATION_TOLERANCE_SECONDS for length in seconds)
    return frames == [plan.frame_count] and len(seconds) == (plan.audio_index is not None) and is_audio_whole


_EncodedPacket: TypeAlias = "Packet[AudioStream] | Packet[VideoStream]"


def encode_clip_with_pyav(file: ReadLimitedFile, plan: ClipPlan, clip_path: Path) -> None:
    """Encode a clip in this process. Raises also what reading raises, and `av.FFmpegError` for both files."""
    with (
        plan.temporary_colour_lut() as lut_path,
        open_container(file) as source,
        av.open(f"file:{clip_path}", "w", format="mp4", options={"movflags": "+faststart"}) as output,
    ):
        written_bytes = 0
        for packet in _encode_clip_packets(source, file, output, plan, lut_path):
            file.check_limits()
            written_bytes += packet.size
            if written_bytes > plan.max_bytes:
                raise StageFailed(f"A clip of the video would have more than {plan.max_bytes // 1024**3} GiB")
            output.mux(packet)
        file.check_limits()


def _encode_clip_packets(
    container: InputContainer, file: ReadLimitedFile, output: OutputContainer, plan: ClipPlan, lut_path: Path | None
) -> Iterator[_EncodedPacket]:
    """Yield the encoded packets of both tracks, those of the audio once the first video frame is encoded."""
    video, audio = _VideoTrackEncoder(container, output, plan, lut_path), None
    if plan.audio_layout:
        audio = AudioTrackEncoder(output, plan.audio_layout, plan.start, plan.sample_count)
    held: list[_EncodedPacket] = []
    streams = [container.streams[index] for index in (plan.video_index, plan.audio_index) if index is not None]
    if plan.seek is not None:
        plan.seek.seek_in(container)
    for frame in decode_frames(
        container, file, plan.timeline, *(each for each in streams if isinstance(each, AudioStream | VideoStream))
    ):
        if isinstance(frame, VideoFrame):
            held.extend(video.encode_frame(frame))
        elif audio:
            held.extend(audio.encode_frame(frame))
        if video.has_started:  # the header of the clip needs the frame size
            yield from held
            held.clear()
        if video.is_complete and (audio is None or audio.is_complete):
            break
    yield from video.flush()
    yield from held
    if audio:
        yield from audio.flush()


class _VideoTrackEncoder:
    """Encodes the frames of a clip."""

    def __init__(self, source: InputContainer, output: OutputContainer, plan: ClipPlan, lut_path: Path | None) -> None:
        video = source.streams[plan.video_index]
        if isinstance(video, VideoStream):
            video.codec_context.thread_count = 0
            video.codec_context.thread_type = "AUTO"
            self._time_base = video.time_base
        self._plan = plan
        self._format = plan.frame_format
        self._stream = output.add_stream(VIDEO_CODEC, rate=plan.frame_rate, options=VIDEO_OPTIONS)
        self._stream.codec_context.thread_count = 0
        self._graph: Graph | None = None
        self._lut_path = lut_path
        self._frame_count = 0

    @property
    def has_started(self) -> bool:
        return self._frame_count > 0

    @property
    def is_complete(self) -> bool:
        return self._frame_count == self._plan.frame_count

    def encode_frame(self, frame: VideoFrame) -> Iterator[_EncodedPacket]:
        if self.is_complete or frame.pts is None:
            return
        if self._graph is None:
            self._graph = self._make_filter_graph()
        uniform = frame.reformat(self._format.width, self._format.height, self._format.pixel_format)
        uniform.colorspace, uniform.color_range = self._format.colours.matrix or 0, self._color_range
        self._graph.vpush(uniform)
        yield from self._encode_filtered_frames(self._graph)

    def flush(self) -> Iterator[_EncodedPacket]:
        if self._graph is None:
            raise StageFailed("No frame of this part of the video can be decoded")
        if not self.is_complete:
            self._graph.vpush(None)
            yield from self._encode_filtered_frames(self._graph)
        yield from self._stream.encode(None)

    @property
    def _color_range(self) -> int:
        return ColorRange.JPEG if self._format.colours.is_full_range else ColorRange.MPEG

    def _make_filter_graph(self) -> Graph:
        graph, form = Graph(), self._format
        source = graph.add(
            "buffer",
            video_size=f"{form.width}x{form.height}",
            pix_fmt=form.pixel_format,
            time_base=str(self._time_base),
            pixel_aspect=f"{form.pixel_aspect.numerator}/{form.pixel_aspect.denominator}",
            colorspace=str(form.colours.matrix or 0),
            range=str(self._color_range),
        )
        filters = [*form.rotation, *self._plan.video_filters(self._lut_path)]
        graph.link_nodes(source, *(graph.add(*each) for each in filters), graph.add("buffersink")).configure()
        return graph

    def _encode_filtered_frames(self, graph: Graph) -> Iterator[_EncodedPacket]:
        with suppress(BlockingIOError, EOFError):
            while not self.is_complete:
                frame = graph.vpull()
                if self._frame_count == 0:
                    self._configure_output_stream(frame)
                frame.pts, frame.time_base = self._frame_count, 1 / self._plan.frame_rate
                frame.pict_type = PictureType.NONE
                self._frame_count += 1
                yield from self._stream.encode(frame)

    def _configure_output_stream(self, first_frame: VideoFrame) -> None:
        stream, context, aspect = self._stream, self._stream.codec_context, self._format.pixel_aspect
        stream.width, stream.height, stream.pix_fmt = first_frame.width, first_frame.height, PIXEL_FORMAT
        context.sample_aspect_ratio = 1 / aspect if self._format.is_sideways else aspect
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = (
            self._format.colours.clip_tags
        )


class AudioTrackEncoder:
    """Encodes audio frames as an AAC track of `sample_count` samples from `start` on, a time stamp in seconds.

    `layout` is "mono" or "stereo". Missing audio becomes silence.
    """

    def __init__(self, output: OutputContainer, layout: str, start: float, sample_count: int) -> None:
        self._layout = layout
        self._sample_count = sample_count
        self._encoded_count = 0
        self._resampler = GapFillingResampler(layout, AUDIO_SAMPLE_RATE, start, None)
        self._stream = output.add_stream(AUDIO_CODEC, rate=AUDIO_SAMPLE_RATE, layout=layout, bit_rate=AUDIO_BIT_RATE)

    @property
    def is_complete(self) -> bool:
        return self._encoded_count == self._sample_count

    def encode_frame(self, frame: AudioFrame) -> "Iterator[Packet[AudioStream]]":
        if not self.is_complete:
            yield from self._encode_samples(self._resampler.add_frame(frame))

    def flush(self, pads_end: bool = True) -> "Iterator[Packet[AudioStream]]":
        """Yield the last packets; with `pads_end`, after silence up to the length of the track."""
        yield from self._encode_samples(self._resampler.flush())
        if pads_end:
            yield from self._encode_samples(self._resampler.add_silence(self._sample_count - self._encoded_count))
        yield from self._stream.encode(None)

    def _encode_samples(self, sample_chunks: Iterator[bytes]) -> "Iterator[Packet[AudioStream]]":
        width = 4 if self._layout == "stereo" else 2
        for chunk in sample_chunks:
            if self.is_complete:  # what follows may be endless silence
                return
            sample_count = min(len(chunk) // width, self._sample_count - self._encoded_count)
            frame = AudioFrame("s16", self._layout, sample_count)
            plane = frame.planes[0]
            plane.update(chunk[: sample_count * width].ljust(plane.buffer_size, b"\0"))
            frame.pts, frame.sample_rate = self._encoded_count, AUDIO_SAMPLE_RATE
            frame.time_base = Fraction(1, AUDIO_SAMPLE_RATE)
            self._encoded_count += sample_count
            yield from self._stream.encode(frame)
