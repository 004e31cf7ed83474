"""Scene cuts: the times at which a video changes to another scene (numpy is loaded only for this)."""

import threading
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from app.media.container import (
    ReadLimitedFile,
    ReadLimitExceeded,
    ReadLimits,
    choose_video_stream,
    has_allowed_decoder,
    open_container,
)
from app.media.frames import decode_frames
from app.media.timeline import Timeline, read_timeline

_SCENE_LIMITS = ReadLimits(seconds=20.0, bytes=1024**4)
_SCENE_WIDTH, _SCENE_HEIGHT = 32, 18
_SCENE_CHANGE = 24.0  # mean difference of two small frames, 0 to 255


def find_scene_cuts(video_file: BinaryIO, stopping: threading.Event) -> list[float]:
    """Return the times, in seconds, of scene changes at key frames; blocks for at most 20 seconds.

    Encoders put key frames where scenes change. Later changes are missing if the time is up or the file is damaged.
    Raises `ProcessingStopped`, and what reading raises.
    """
    file = ReadLimitedFile(video_file, _SCENE_LIMITS, stopping)
    cuts: list[float] = []
    try:
        timeline = read_timeline(file, needs_end=False)
        with open_container(file) as container:
            for cut in _detect_scene_cuts(container, file, timeline):
                file.check_limits()
                cuts.append(max(cut - timeline.origin, 0.0))
        file.check_limits()
    except (ReadLimitExceeded, av.FFmpegError):
        pass
    return cuts


def _detect_scene_cuts(container: InputContainer, file: ReadLimitedFile, timeline: Timeline) -> Iterator[float]:
    before: NDArray[np.int16] | None = None
    for frame in _decode_key_frames(container, file, timeline):
        small = frame.reformat(_SCENE_WIDTH, _SCENE_HEIGHT, "rgb24", interpolation=Interpolation.AREA, threads=1)
        pixels = small.to_ndarray().astype(np.int16)
        if before is not None and frame.time is not None and np.abs(pixels - before).mean() > _SCENE_CHANGE:
            yield frame.time
        before = pixels


def _decode_key_frames(container: InputContainer, file: ReadLimitedFile, timeline: Timeline) -> Iterator[VideoFrame]:
    stream = choose_video_stream(container)
    if stream is None or not has_allowed_decoder(stream):
        return
    stream.codec_context.skip_frame = "NONKEY"
    for frame in decode_frames(container, file, timeline, stream):
        if isinstance(frame, VideoFrame):
            yield frame
