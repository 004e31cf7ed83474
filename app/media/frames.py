"""Decoded frames: decoding of damaged files, and rotation by the display matrix."""

import struct
from collections.abc import Iterator, Sequence

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from app.media.container import PlayableStream, ReadLimitedFile, discard_other_streams
from app.media.timeline import Timeline

_MAX_DAMAGED_PLACES = 1000
# A resampler allocates memory by the duration of a frame and by the ratio of the sample rates.
_MAX_FRAME_SECONDS = 60
_SAMPLE_RATES = range(1_000, 1_000_001)


def decode_frames(
    container: InputContainer, file: ReadLimitedFile, timeline: Timeline, *streams: PlayableStream
) -> Iterator[AudioFrame | VideoFrame]:
    """Yield the frames of some streams in file order, with time stamps on the timeline's continuous clock.

    Damaged packets are skipped, other streams are not read if possible, and frames end where the file's limits are
    reached.
    """
    discard_other_streams(container, *streams)
    for _ in range(_MAX_DAMAGED_PLACES):
        try:
            for packet in timeline.to_continuous_clock(container.demux(*streams)):
                if file.must_stop_reading:
                    return
                yield from decode_usable_frames(packet)
            return
        except av.InvalidDataError:  # damaged here; later packets may be whole
            continue


def decode_usable_frames(packet: "Packet[Stream] | Packet[AudioStream]") -> Sequence[AudioFrame | VideoFrame]:
    """Return the frames of a packet, without damaged and implausible ones."""
    try:
        frames = packet.decode()
    except av.FFmpegError:
        return []
    return [frame for frame in frames if isinstance(frame, AudioFrame | VideoFrame) and _is_usable_frame(frame)]


def _is_usable_frame(frame: AudioFrame | VideoFrame) -> bool:
    if frame.is_corrupt or isinstance(frame, VideoFrame):
        return not frame.is_corrupt
    return frame.sample_rate in _SAMPLE_RATES and frame.samples <= _MAX_FRAME_SECONDS * frame.sample_rate


_DISPLAY_MATRIX = "=9i"

_ROTATION_FILTERS = {
    (False, True, False): [("hflip", "")],
    (False, False, True): [("vflip", "")],
    (False, True, True): [("hflip", ""), ("vflip", "")],
    (True, False, False): [("transpose", "cclock_flip")],
    (True, True, False): [("transpose", "clock")],
    (True, False, True): [("transpose", "cclock")],
    (True, True, True): [("transpose", "clock_flip")],
}


def rotation_filters(frame: VideoFrame) -> Sequence[tuple[str, str]]:
    """Return the filters, as (name, options), that rotate and flip a frame as its display matrix says."""
    return _ROTATION_FILTERS.get(_read_axis_swap_and_flips(frame), ())


def is_sideways(frame: VideoFrame) -> bool:
    """Return whether width and height are swapped when the frame is shown."""
    return _read_axis_swap_and_flips(frame)[0]


def _read_axis_swap_and_flips(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether the display matrix swaps the axes, and then flips x, and flips y."""
    # A frame and its side data keep each other in memory, so the side data of a small copy is read.
    small = frame.reformat(2, 2, "gray", interpolation=Interpolation.POINT, threads=1)
    data = small.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData) or data.buffer_size < struct.calcsize(_DISPLAY_MATRIX):
        return False, False, False
    # A pixel at (x, y) is shown at (a * x + c * y, b * x + d * y).
    a, b, _, c, d, *_ = struct.unpack_from(_DISPLAY_MATRIX, bytes(data))
    exchanged = abs(b) + abs(c) > abs(a) + abs(d)
    return (True, c < 0, b < 0) if exchanged else (False, a < 0, d < 0)
