"""Decoding films that may be damaged: what is whole is given, and the rest is left out."""

from collections.abc import Iterator, Sequence

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from app.media.opening import BoundedFile, find_picture, open_film

Playable = AudioStream | VideoStream
_DAMAGED_PLACES_AT_MOST = 1000
_FIRST_PACKETS = 16  # as many frames as can lie out of order


def find_sound(container: InputContainer) -> AudioStream | None:
    """Return the sound that a player plays, ready to be decoded; None where there is none that can be decoded."""
    best = container.streams.best("audio")
    streams = sorted(container.streams.audio, key=lambda stream: best is None or stream.index != best.index)
    return next((stream for stream in streams if stream.codec_context is not None), None)


def find_start(film: BoundedFile) -> float:
    """Return the time stamp, in seconds, of what players show as 0:00. The film is to be opened again.

    Raises what `open_film` raises.
    """
    with open_film(film) as container:
        picture = find_picture(container)
        said = (container.start_time or 0) / av.time_base
        start = min(said, *_first_times(container, picture)) if picture else said
    film.seek(0)
    return start


def _first_times(container: InputContainer, picture: VideoStream) -> Iterator[float]:
    """Yield when frames begin: where only a decoder can tell in which order they come, the film does not say it."""
    read_only(container, picture)
    for _, packet in zip(range(_FIRST_PACKETS), container.demux(picture), strict=False):
        if packet.pts is not None and not packet.is_discard:
            yield float(packet.pts * packet.time_base)


def film_duration(container: InputContainer) -> float | None:
    """Return seconds; None where the film does not say."""
    return container.duration / av.time_base if container.duration else None


def decode(container: InputContainer, *streams: Playable) -> Iterator[AudioFrame | VideoFrame]:
    """Yield the frames of some streams, in the order of the file; nothing is read of the others where that can be."""
    read_only(container, *streams)
    for _ in range(_DAMAGED_PLACES_AT_MOST):
        try:
            for packet in container.demux(*streams):
                yield from _decode(packet)
            return
        except av.InvalidDataError:  # the place is damaged, and what comes behind it may be whole
            continue


def read_only(container: InputContainer, *streams: Playable) -> None:
    """Have the other streams skipped, which spares a file in a bucket their bytes."""
    wanted = {stream.index for stream in streams}
    for stream in container.streams:
        stream.discard = Discard.default if stream.index in wanted else Discard.all


def _decode(packet: "Packet[Stream]") -> Sequence[AudioFrame | VideoFrame]:
    try:
        frames = packet.decode()
    except av.FFmpegError:
        return []
    return [frame for frame in frames if isinstance(frame, AudioFrame | VideoFrame) and not frame.is_corrupt]
