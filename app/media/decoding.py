"""Decoding files that may be damaged: what is whole is given, and the rest is left out."""

from collections.abc import Iterator, Sequence

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame

from app.media.opening import BoundedFile
from app.media.timeline import Playable, Timeline, read_only

_DAMAGED_PLACES_AT_MOST = 1000
# A resampler takes memory for the seconds of a frame, and for what a sample rate is times that of the result.
_LONGEST_FRAME_SECONDS = 60
_SAMPLE_RATES = range(1_000, 1_000_001)


def decode(
    container: InputContainer, file: BoundedFile, timeline: Timeline, *streams: Playable
) -> Iterator[AudioFrame | VideoFrame]:
    """Yield the frames of some streams, in the order of the file; nothing is read of the others where that can be.

    Their time stamps are on the continuous clock of the timeline. They end where the limits of the file are reached.
    """
    read_only(container, *streams)
    for _ in range(_DAMAGED_PLACES_AT_MOST):
        try:
            for packet in timeline.continue_clock(container.demux(*streams)):
                if file.has_ended:
                    return
                yield from decode_packet(packet)
            return
        except av.InvalidDataError:  # the place is damaged, and what comes behind it may be whole
            continue


def decode_packet(packet: "Packet[Stream] | Packet[AudioStream]") -> Sequence[AudioFrame | VideoFrame]:
    """Return the frames of a packet, none where it is damaged."""
    try:
        frames = packet.decode()
    except av.FFmpegError:
        return []
    return [frame for frame in frames if isinstance(frame, AudioFrame | VideoFrame) and _is_usable(frame)]


def _is_usable(frame: AudioFrame | VideoFrame) -> bool:
    if frame.is_corrupt or isinstance(frame, VideoFrame):
        return not frame.is_corrupt
    return frame.sample_rate in _SAMPLE_RATES and frame.samples <= _LONGEST_FRAME_SECONDS * frame.sample_rate
