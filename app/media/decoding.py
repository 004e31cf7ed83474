"""Decoding films that may be damaged: what is whole is given, and the rest is left out."""

from collections.abc import Iterator, Sequence

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame

from app.media.timeline import Playable, Timeline, read_only

_DAMAGED_PLACES_AT_MOST = 1000


def decode(container: InputContainer, timeline: Timeline, *streams: Playable) -> Iterator[AudioFrame | VideoFrame]:
    """Yield the frames of some streams, in the order of the file; nothing is read of the others where that can be.

    Their time stamps are on the continuous clock of the timeline.
    """
    read_only(container, *streams)
    for _ in range(_DAMAGED_PLACES_AT_MOST):
        try:
            for packet in timeline.continue_clock(container.demux(*streams)):
                yield from _decode(packet)
            return
        except av.InvalidDataError:  # the place is damaged, and what comes behind it may be whole
            continue


def _decode(packet: "Packet[Stream]") -> Sequence[AudioFrame | VideoFrame]:
    try:
        frames = packet.decode()
    except av.FFmpegError:
        return []
    return [frame for frame in frames if isinstance(frame, AudioFrame | VideoFrame) and not frame.is_corrupt]
