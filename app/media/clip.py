"""Clips: exact parts of videos as MP4 files that play everywhere, encoded anew as H.264 and AAC.

Audio without video is cut into M4A files. A local video is cut by the system's ffmpeg if there is one; any other, such
as one in a bucket of which only a part is read, by PyAV. Both write the same number of frames and samples.
"""

import errno
import io
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from app.core.errors import StageFailed
from app.media.audio import ContinuousAudio
from app.media.clip_encoding import cut_with_ffmpeg, cut_with_pyav, find_ffmpeg
from app.media.clip_plan import AUDIO_BIT_RATE, AUDIO_CODEC, AUDIO_SAMPLE_RATE, MAX_CLIP_BYTES, ClipPlan, plan_clip
from app.media.container import (
    BoundedFile,
    ReadLimitExceeded,
    ReadLimits,
    choose_audio_stream,
    choose_video_stream,
    discard_other_streams,
    open_container,
)
from app.media.frames import decode_packet
from app.media.timeline import Timeline, has_unreliable_seek, read_timeline

_MAX_CUTTING_SECONDS = 300.0
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_READ_BYTES = 1024**4


def cut_clip(
    file: BinaryIO,
    start: float,
    end: float,
    target: Path,
    stopping: threading.Event,
    limit_seconds: float = _MAX_CUTTING_SECONDS,
    max_bytes: int = MAX_CLIP_BYTES,
) -> None:
    """Cut the part of a video from `start` to `end` seconds into `target`; blocks. The write is atomic.

    If the video ends earlier, its last frame and silence fill the rest. Raises `StageFailed`, `ProcessingStopped`, what
    reading the file raises, and `OSError` for the target.
    """
    draft = target.with_name(f"{target.name}.part")
    bounded = BoundedFile(file, ReadLimits(limit_seconds, _MAX_READ_BYTES), stopping)
    try:
        if _has_video_stream(bounded):
            _cut_video_clip(file, bounded, plan_clip(bounded, start, end, max_bytes), draft)
        else:
            cut_audio_clip(bounded, start, end, draft)
        draft.replace(target)
    except ReadLimitExceeded:
        raise StageFailed(f"A clip of the video takes longer to cut than {limit_seconds:g} seconds") from None
    except av.FFmpegError as error:
        raise_if_disk_full(error)
        raise StageFailed("The file of the video is damaged, no clip can be cut out of it") from None
    finally:
        draft.unlink(missing_ok=True)


def raise_if_disk_full(error: Exception) -> None:
    """Raise `OSError` if PyAV failed because the disk is full."""
    number = getattr(error, "errno", None)
    if number in _DISK_FULL_ERRNOS:
        raise OSError(number, os.strerror(number)) from None


def _cut_video_clip(file: BinaryIO, bounded: BoundedFile, plan: ClipPlan, draft: Path) -> None:
    program = find_ffmpeg() if _is_local_file(file) else None
    if program is None or not cut_with_ffmpeg(program, file, bounded, plan, draft):
        cut_with_pyav(bounded, plan, draft)


def _has_video_stream(bounded: BoundedFile) -> bool:
    with open_container(bounded) as container:
        video = choose_video_stream(container)
    bounded.seek(0)
    return video is not None


def _is_local_file(file: BinaryIO) -> bool:
    try:
        return file.fileno() >= 0
    except io.UnsupportedOperation:
        return False


_BYTES_PER_SAMPLE = 2
_PREROLL_SECONDS = 1.0  # decoded before the start: codecs need some frames to converge
# A seek in these formats leads to an estimated time: they are read from the beginning.
_UNSEEKABLE_FORMATS = frozenset({"mp3", "aac", "ac3", "amr"})


def cut_audio_clip(file: BoundedFile, start: float, end: float, target: Path) -> None:
    """Cut audio from `start` to `end` seconds into `target`, an M4A file, and pad it with silence.

    Raises `StageFailed`, `ProcessingStopped`, `ReadLimitExceeded`, `av.FFmpegError` for both files, and what reading
    raises.
    """
    timeline = read_timeline(file, needs_end=False)
    first = timeline.origin + start
    with (
        open_container(file) as source,
        av.open(f"file:{target}", "w", format="ipod", options={"movflags": "+faststart"}) as clip,
    ):
        stream = choose_audio_stream(source)
        if stream is None:
            raise StageFailed("The file has neither video nor audio that can be decoded")
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        encoded = clip.add_stream(AUDIO_CODEC, rate=AUDIO_SAMPLE_RATE, layout=layout, bit_rate=AUDIO_BIT_RATE)
        audio = ContinuousAudio(layout, AUDIO_SAMPLE_RATE, first, None)
        sample_count = round((end - start) * AUDIO_SAMPLE_RATE)
        chunks = _fill_audio_clip(_decode_audio_from(source, file, stream, timeline, first), audio, sample_count)
        for frame in make_audio_frames(chunks, layout, sample_count):
            file.check_limits()
            clip.mux(encoded.encode(frame))
        clip.mux(encoded.encode(None))
    file.check_limits()


def _fill_audio_clip(frames: Iterator[AudioFrame], audio: ContinuousAudio, sample_count: int) -> Iterator[bytes]:
    for frame in frames:
        yield from audio.add_frame(frame)
        if audio.samples >= sample_count:
            return
    yield from audio.finish()
    yield from audio.add_silence(sample_count - audio.samples)


def _decode_audio_from(
    source: InputContainer, file: BoundedFile, stream: AudioStream, timeline: Timeline, start: float
) -> Iterator[AudioFrame]:
    lead = start - _PREROLL_SECONDS
    discard_other_streams(source, stream)
    can_seek = (
        source.format.name not in _UNSEEKABLE_FORMATS and not has_unreliable_seek(source) and timeline.is_seekable
    )
    if can_seek and not timeline.restarts and lead > 0:
        source.seek(round(lead * av.time_base))
    for packet in timeline.continue_clock(source.demux(stream)):
        if file.has_ended:
            return
        if packet.pts is None or packet.pts * packet.time_base >= lead:
            yield from (frame for frame in decode_packet(packet) if isinstance(frame, AudioFrame))


def make_audio_frames(chunks: Iterator[bytes], layout: str, sample_count: int, first: int = 0) -> Iterator[AudioFrame]:
    """Yield audio frames of interleaved 16-bit `chunks`, from sample `first` to sample `sample_count` of a clip."""
    width, yielded = _BYTES_PER_SAMPLE * (2 if layout == "stereo" else 1), first
    for chunk in chunks:
        samples = min(len(chunk) // width, sample_count - yielded)
        if yielded >= sample_count:  # what follows may be endless silence
            return
        if samples > 0:
            frame = AudioFrame("s16", layout, samples)
            plane = frame.planes[0]
            plane.update(chunk[: samples * width].ljust(plane.buffer_size, b"\0"))
            frame.pts, frame.sample_rate, frame.time_base = yielded, AUDIO_SAMPLE_RATE, Fraction(1, AUDIO_SAMPLE_RATE)
            yielded += samples
            yield frame
