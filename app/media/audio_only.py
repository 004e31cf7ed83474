"""Audio without a picture, as podcasts are: which stream it is, that it can be decoded, and how long it plays."""

from dataclasses import dataclass

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from app.media.opening import BoundedFile
from app.media.streams import choose_audio_stream
from app.media.timeline import read_only

_PACKETS_AT_MOST = 100  # that are decoded to find out whether any can be
# Files of these have no index: what FFmpeg reports is a guess from the bit rate, or what a header once said.
_MEASURED_FORMATS = frozenset({"mp3", "aac", "ac3", "amr"})


@dataclass(slots=True)
class _Measurement:
    """What the packets of a stream come to: the time at which the last one ends, and how many have no time."""

    end: int = 0
    untimed: int = 0

    def add(self, packet: "Packet[AudioStream]") -> None:
        if packet.pts is not None:
            self.end = max(self.end, packet.pts + (packet.duration or 0))
        elif packet.size:
            self.untimed += 1


def probe_audio(container: InputContainer, file: BoundedFile) -> tuple[AudioStream, float | None] | None:
    """Return the audio that a player plays, and its seconds where only its packets tell them.

    None where there is no audio, or no frame at its beginning can be decoded.
    """
    stream = choose_audio_stream(container)
    if stream is None:
        return None
    read_only(container, stream)
    packets, measured = container.demux(stream), _Measurement()
    for _, packet in zip(range(_PACKETS_AT_MOST), packets, strict=False):
        measured.add(packet)
        if _is_decodable(packet):
            break
    else:
        return None
    if container.format.name not in _MEASURED_FORMATS:
        return stream, None
    said = container.duration / av.time_base if container.duration else None
    for packet in packets:
        if file.has_ended:
            break
        measured.add(packet)
    return stream, said if file.is_spent else _seconds(measured, container, stream) or said


def _is_decodable(packet: "Packet[AudioStream]") -> bool:
    try:
        return bool(packet.decode())
    except av.FFmpegError:  # others may be whole
        return False


def _seconds(measured: _Measurement, container: InputContainer, stream: AudioStream) -> float:
    if measured.end and stream.time_base:
        return float(measured.end * stream.time_base) - (container.start_time or 0) / av.time_base
    context = stream.codec_context  # it has decoded a frame, so that it knows how long each is
    return measured.untimed * context.frame_size / context.sample_rate if context.sample_rate else 0.0
