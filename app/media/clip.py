"""Clips: exact parts of videos as MP4 files that play everywhere, encoded anew as H.264 and AAC.

Audio without video is cut into M4A files. A local video is cut by the system's ffmpeg if there is one; any other, such
as one in a bucket of which only a part is read, by PyAV. Both write the same number of frames and samples.
"""

import errno
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from app.core.errors import StageFailed
from app.media.clip_encoding import AudioTrackEncoder, encode_clip_with_ffmpeg, encode_clip_with_pyav, find_ffmpeg
from app.media.clip_plan import AUDIO_SAMPLE_RATE, MAX_CLIP_BYTES, ClipPlan, plan_clip
from app.media.container import (
    ReadLimitedFile,
    ReadLimitExceeded,
    ReadLimits,
    choose_audio_layout,
    choose_audio_stream,
    choose_video_stream,
    discard_other_streams,
    open_container,
)
from app.media.frames import decode_usable_frames
from app.media.timeline import Timeline, has_unreliable_seek, read_timeline

_MAX_CUTTING_SECONDS = 300.0
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_READ_BYTES = 1024**4


def cut_clip(
    video_file: BinaryIO,
    start: float,
    end: float,
    clip_path: Path,
    stopping: threading.Event,
    limit_seconds: float = _MAX_CUTTING_SECONDS,
    max_bytes: int = MAX_CLIP_BYTES,
) -> None:
    """Cut the part of a video from `start` to `end` seconds into `clip_path`; blocks. The write is atomic.

    If the video ends earlier, its last frame and silence fill the rest. Raises `StageFailed`, `ProcessingStopped`, what
    reading the file raises, and `OSError` for the target.
    """
    draft_path = clip_path.with_name(f"{clip_path.name}.part")
    file = ReadLimitedFile(video_file, ReadLimits(limit_seconds, _MAX_READ_BYTES), stopping)
    try:
        if _has_video_stream(file):
            plan = plan_clip(file, start, end, max_bytes)
            _encode_with_ffmpeg_or_pyav(video_file, file, plan, draft_path)
        else:
            cut_audio_clip(file, start, end, draft_path)
        draft_path.replace(clip_path)
    except ReadLimitExceeded:
        raise StageFailed(f"A clip of the video takes longer to cut than {limit_seconds:g} seconds") from None
    except av.FFmpegError as error:
        raise_if_disk_full(error)
        raise StageFailed("The file of the video is damaged, no clip can be cut out of it") from None
    finally:
        draft_path.unlink(missing_ok=True)


def raise_if_disk_full(pyav_error: Exception) -> None:
    """Raise `OSError` if PyAV failed because the disk is full."""
    number = getattr(pyav_error, "errno", None)
    if number in _DISK_FULL_ERRNOS:
        raise OSError(number, os.strerror(number)) from None


def _encode_with_ffmpeg_or_pyav(
    video: BinaryIO, limited_video: ReadLimitedFile, plan: ClipPlan, clip_path: Path
) -> None:
    ffmpeg_path = find_ffmpeg() if _has_file_descriptor(video) else None
    if ffmpeg_path is None or not encode_clip_with_ffmpeg(ffmpeg_path, video, limited_video, plan, clip_path):
        encode_clip_with_pyav(limited_video, plan, clip_path)


def _has_video_stream(file: ReadLimitedFile) -> bool:
    with open_container(file) as container:
        video = choose_video_stream(container)
    file.seek(0)
    return video is not None


def _has_file_descriptor(file: BinaryIO) -> bool:
    try:
        return file.fileno() >= 0
    except io.UnsupportedOperation:
        return False


_PREROLL_SECONDS = 1.0  # decoded before the start: codecs need some frames to converge
# A seek in these formats leads to an estimated time: they are read from the beginning.
_UNSEEKABLE_FORMATS = frozenset({"mp3", "aac", "ac3", "amr"})


def cut_audio_clip(file: ReadLimitedFile, start: float, end: float, clip_path: Path) -> None:
    """Cut audio from `start` to `end` seconds into `clip_path`, an M4A file, and pad it with silence.

    Raises what `cut_clip` turns into `StageFailed`, too.
    """
    timeline = read_timeline(file, needs_end=False)
    first = timeline.origin + start
    with (
        open_container(file) as container,
        av.open(f"file:{clip_path}", "w", format="ipod", options={"movflags": "+faststart"}) as output,
    ):
        stream = choose_audio_stream(container)
        if stream is None:
            raise StageFailed("The file has neither video nor audio that can be decoded")
        layout = choose_audio_layout(stream)
        encoder = AudioTrackEncoder(output, layout, first, round((end - start) * AUDIO_SAMPLE_RATE))
        for frame in _decode_audio_frames_from(container, file, stream, timeline, first):
            output.mux(list(encoder.encode_frame(frame)))
            if encoder.is_complete:
                break
        for packet in encoder.flush():
            file.check_limits()
            output.mux(packet)
    file.check_limits()


def _decode_audio_frames_from(
    container: InputContainer, file: ReadLimitedFile, stream: AudioStream, timeline: Timeline, start: float
) -> Iterator[AudioFrame]:
    lead = start - _PREROLL_SECONDS
    discard_other_streams(container, stream)
    can_seek = (
        container.format.name not in _UNSEEKABLE_FORMATS and not has_unreliable_seek(container) and timeline.is_seekable
    )
    if can_seek and not timeline.restarts and lead > 0:
        container.seek(round(lead * av.time_base))
    for packet in timeline.to_continuous_clock(container.demux(stream)):
        if file.must_stop_reading:
            return
        if packet.pts is None or packet.pts * packet.time_base >= lead:
            yield from (frame for frame in decode_usable_frames(packet) if isinstance(frame, AudioFrame))
