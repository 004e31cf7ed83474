"""Where the picture of a film changes: from one key frame to the next, which encoders put where it does."""

import threading
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from app.media.decoders import can_decode
from app.media.decoding import decode
from app.media.opening import BoundedFile, Limits, TooExpensive, open_film
from app.media.streams import choose_video_stream
from app.media.timeline import Timeline, read_timeline

_LIMITS = Limits(seconds=20.0, bytes=1024**4)
_WIDTH, _HEIGHT = 32, 18
_CHANGE = 24.0  # of 255: the mean difference of two small pictures of different scenes is more


def find_scene_cuts(film: BinaryIO, stopping: threading.Event) -> list[float]:
    """Return the seconds at which the picture changes, as far as they are found in a few seconds; it blocks.

    A film without a picture has none, and a damaged one none from there on. Raises `Stopped`, and what reading raises.
    """
    bounded = BoundedFile(film, _LIMITS, stopping)
    cuts: list[float] = []
    try:
        timeline = read_timeline(bounded, needs_end=False)
        with open_film(bounded) as container:
            for cut in _cuts(container, bounded, timeline):
                bounded.check_limits()
                cuts.append(max(cut - timeline.origin, 0.0))
        bounded.check_limits()
    except (TooExpensive, av.FFmpegError):
        pass
    return cuts


def _cuts(container: InputContainer, file: BoundedFile, timeline: Timeline) -> Iterator[float]:
    """Yield the time stamps, in seconds, of key frames that look different from the ones before them."""
    before: NDArray[np.int16] | None = None
    for frame in _key_frames(container, file, timeline):
        picture = frame.reformat(_WIDTH, _HEIGHT, "rgb24", interpolation=Interpolation.AREA, threads=1)
        pixels = picture.to_ndarray().astype(np.int16)
        if before is not None and frame.time is not None and np.abs(pixels - before).mean() > _CHANGE:
            yield frame.time
        before = pixels


def _key_frames(container: InputContainer, file: BoundedFile, timeline: Timeline) -> Iterator[VideoFrame]:
    stream = choose_video_stream(container)
    if stream is None or not can_decode(stream):
        return
    stream.codec_context.skip_frame = "NONKEY"
    for frame in decode(container, file, timeline, stream):
        if isinstance(frame, VideoFrame):
            yield frame
