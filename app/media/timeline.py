"""The clock of a media file: which time stamp players show as 0:00, where it ends, and where its clock starts over."""

import hashlib
import io
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, TypeVar, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream
from cachetools import LRUCache

from app.media.container import (
    PlayableStream,
    choose_playable_streams,
    discard_other_streams,
    open_container,
    packet_end,
    packet_start,
    read_packets,
)
from app.media.limits import BoundedFile, measure_file_size
from app.media.truncated_packet import lacks_mxf_index
from app.media.truncation import find_truncation_time, has_unknown_riff_size, is_truncated, search_last_packet_end

_AnyStream = TypeVar("_AnyStream", bound=Stream)

_REORDERED_PACKETS = 16  # as many frames as can lie out of order
_MAX_ORIGIN_PACKETS = 200
_SCAN_SECONDS = 15.0
_MAX_KEY_FRAMES = 50_000  # that are remembered of a file: one for each second of 14 hours
# A stream whose time stamps go back by more than the first, or on by more than the second, has another clock.
_JUMP_BACK_SECONDS: Final = 0.5
_JUMP_FORWARD_SECONDS: Final = 60.0
_FINGERPRINT_BYTES = 64 * 1024
_RIFF_HEADER_BYTES = 8
_INTERLEAVING_BYTES = 4 * 1024**2  # how far apart in a file the packets of one time may lie

_scanned_lock = threading.Lock()
_scanned: "LRUCache[bytes, Timeline]" = LRUCache(64)


@dataclass(frozen=True, slots=True)
class ClockRestart:
    """From the byte `position` on, `shift` seconds are added to a file's time stamps to continue those before."""

    position: int
    shift: float


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A place to begin to decode at: its time on the continuous clock, and its byte in the file."""

    time: float
    position: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Times are seconds on a continuous clock: the time stamps of the file, shifted where its clock starts over.

    `origin` is what players show as 0:00, the first thing to be seen or heard; `end` is where the last frame or sample
    of the chosen streams ends, None where that is not known, and `declared_end` where the file says so and was cut off
    before. `key_frames` are known where the clock starts over, since such a file cannot be sought in by time. One that
    is not `is_seekable` can only be read from its beginning.
    """

    origin: float
    end: float | None
    restarts: Sequence[ClockRestart] = ()
    key_frames: Sequence[KeyFrame] = ()
    declared_end: float | None = None
    is_seekable: bool = True

    @property
    def declared_seconds(self) -> float | None:
        return None if self.declared_end is None else self.declared_end - self.origin

    @property
    def duration_seconds(self) -> float | None:
        return None if self.end is None or self.end <= self.origin else self.end - self.origin

    def continue_clock(self, packets: "Iterable[Packet[_AnyStream]]") -> "Iterator[Packet[_AnyStream]]":
        """Yield the packets of a file, in its order, with time stamps on the continuous clock."""
        positions: dict[int, int] = {}
        for packet in packets:
            if self.restarts:
                position = positions[packet.stream.index] = _packet_position(packet, positions)
                _shift_packet(packet, self._shift_at(position))
            yield packet

    def _shift_at(self, position: int) -> float:
        return next((each.shift for each in reversed(self.restarts) if each.position <= position), 0.0)


def read_timeline(film: BoundedFile, needs_end: bool = True, may_read_all: bool = False) -> Timeline:
    """Return the timeline of a file, which is to be opened again afterwards.

    Less is read of it where its end is not needed. A file that does not say how long it is has an end only where all
    of it may be read to find out. Raises what `open_container` raises.
    """
    size = measure_file_size(film)
    declared = end = None
    with open_container(film) as container:
        origin = _find_origin(container, film, choose_playable_streams(container))
        needs_scan = _needs_packet_scan(container, may_read_all)
        is_seekable = not _has_lost_mxf_index(container, film, size)
        if needs_end and not needs_scan:
            declared, end = _find_ends(container, choose_playable_streams(container), origin, film, size)
    film.seek(0)
    if needs_scan:
        return _scan_clock(film, origin)
    if film.is_spent:
        return Timeline(origin, None, is_seekable=is_seekable)
    return Timeline(origin, end, declared_end=declared, is_seekable=is_seekable)


def declared_origin(container: InputContainer) -> float:
    """Return the time stamp at which the chosen streams begin, as far as it is known before a packet is read."""
    starts = [
        start for stream in choose_playable_streams(container) if (start := _declared_stream_start(stream)) is not None
    ]
    return min(starts, default=(container.start_time or 0) / av.time_base)


def declared_duration(container: InputContainer) -> float:
    """Return the seconds that a header speaks of, 0 for none."""
    said, start = (container.duration or 0) / av.time_base, max(declared_origin(container), 0.0)
    return said - start if _duration_includes_start(container) and said > start else said


def has_unreliable_seek(container: InputContainer) -> bool:
    """Whether packets have wrong times after a seek: ADPCM in WAV, whose blocks are taken for samples."""
    return container.format.name in ("wav", "w64") and any(
        stream.codec_context.name.startswith("adpcm") for stream in choose_playable_streams(container)
    )


def _duration_includes_start(container: InputContainer) -> bool:
    """Whether the header's duration is the time stamp of the end: Matroska and ASF."""
    return container.format.name.startswith(("matroska", "asf"))


def _find_origin(container: InputContainer, film: BoundedFile, streams: Sequence[PlayableStream]) -> float:
    """Return the earliest time stamp of what is decoded: where only a decoder can tell it, the file does not say it."""
    first: dict[int, float] = {}
    left = {stream.index: _REORDERED_PACKETS if isinstance(stream, VideoStream) else 1 for stream in streams}
    discard_other_streams(container, *streams)
    packets = read_packets(container, film, streams)
    for _, packet in zip(range(_MAX_ORIGIN_PACKETS), packets, strict=False):
        index, skipped = packet.stream.index, _priming_seconds(packet)
        # A packet that is not played says all the same when audio begins, where it counts the samples to skip.
        if packet.pts is not None and left[index] and (skipped or not packet.is_discard):
            left[index] -= 1
            first[index] = min(first.get(index, float("inf")), packet_start(packet) + skipped)
        if not any(left.values()):
            break
    for stream in streams:
        if stream.index not in first and (start := _declared_stream_start(stream)) is not None:
            first[stream.index] = start
    return min(first.values(), default=(container.start_time or 0) / av.time_base)


def _declared_stream_start(stream: PlayableStream) -> float | None:
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def _priming_seconds(packet: "Packet[Stream]") -> float:
    """Return how much of an audio stream, from this packet on, only starts its decoder up and is not played."""
    if not isinstance(packet.stream, AudioStream) or not packet.stream.codec_context.sample_rate:
        return 0.0
    counts = [bytes(data)[:4] for data in packet.iter_sidedata() if data.data_type == "skip_samples"]
    return sum(int.from_bytes(count, "little") for count in counts) / packet.stream.codec_context.sample_rate


def _needs_packet_scan(container: InputContainer, may_read_all: bool) -> bool:
    """Whether two recordings of the format can be joined by `cat`, or nothing but the last packet tells the end."""
    return bool(container.format.flags & cast(int, Flags.ts_discont.value)) or (may_read_all and not container.duration)


def _find_ends(
    container: InputContainer, streams: Sequence[PlayableStream], origin: float, film: BoundedFile, size: int
) -> tuple[float | None, float | None]:
    """Return where a file of `size` bytes says that it ends, if it was cut off before, and where its streams end."""
    if not container.duration:
        return None, None
    # Where only the whole file says how long it is, FFmpeg says the same of each stream, wherever that begins.
    said = [] if _duration_includes_start(container) else [_declared_stream_end(stream) for stream in streams]
    declared = max((end for end in said if end is not None), default=origin + declared_duration(container))
    cut = find_truncation_time(streams, size)
    if cut is None and "mov" in container.format.name and said and None not in said:
        return None, declared
    hint = max(container.start_time or 0, 0) + container.duration if cut is None else round(cut * av.time_base)
    try:
        if not has_unreliable_seek(container) and not _has_lost_mxf_index(container, film, size):
            container.seek(hint)
        end = _last_packet_end(container, film, streams)
    except av.FFmpegError:  # a file that cannot be sought in
        end = None
    end = end or search_last_packet_end(container, lambda: map(packet_end, read_packets(container, film, streams)))
    if end is None:
        return None, declared
    is_short = is_truncated(container, streams, declared - origin, end - origin)
    return (declared if is_short and not _is_estimated_duration(container, film) else None), end


def _last_packet_end(container: InputContainer, film: BoundedFile, streams: Sequence[PlayableStream]) -> float | None:
    return max(map(packet_end, read_packets(container, film, streams)), default=None)


def _has_lost_mxf_index(container: InputContainer, film: BoundedFile, size: int) -> bool:
    """Whether a seek leads to times that are guessed: MXF without its end."""
    if container.format.name != "mxf":
        return False
    with _preserve_position(film):
        return lacks_mxf_index(film, size)


def _is_estimated_duration(container: InputContainer, film: BoundedFile) -> bool:
    """Whether what FFmpeg reports as the duration is not what the file says, or that was not known when it was written.

    FFmpeg guesses from the bit rate where an ASF file has another length than it says.
    """
    with _preserve_position(film):
        film.seek(0)
        return container.format.name == "asf" or (
            container.format.name == "avi" and has_unknown_riff_size(film.read(_RIFF_HEADER_BYTES))
        )


@contextmanager
def _preserve_position(film: BoundedFile) -> Iterator[None]:
    """Let an open container go on to read where it was."""
    position = film.tell()
    try:
        yield
    finally:
        film.seek(position)


def _declared_stream_end(stream: PlayableStream) -> float | None:
    if not stream.duration or stream.time_base is None:
        return None
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _packet_position(packet: "Packet[_AnyStream]", positions: dict[int, int]) -> int:
    """Return the byte of a packet; where it shares its place with the one before, that of the one before."""
    return positions.get(packet.stream.index, 0) if packet.pos is None else packet.pos


def _shift_packet(packet: "Packet[_AnyStream]", seconds: float) -> None:
    if seconds and packet.time_base:
        ticks = round(Fraction(seconds) / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks


@dataclass(slots=True)
class _ClockSegment:
    """A part of a file with one clock."""

    position: int
    start: float = float("inf")
    end: float = float("-inf")
    key_frames: list[KeyFrame] = field(default_factory=list)


class _ClockScanner:
    """The parts of a file, found in all of its packets."""

    def __init__(self) -> None:
        self._parts = [_ClockSegment(0)]
        self._positions: dict[int, int] = {}
        self._key_frames = 0
        self._last: dict[int, tuple[int, float]] = {}  # by stream, the part it is in and its last decoding time

    def add(self, packet: "Packet[Stream]") -> None:
        position = self._positions[packet.stream.index] = _packet_position(packet, self._positions)
        stamp = packet.dts if packet.dts is not None else packet.pts
        decoded = float((stamp or 0) * packet.time_base)
        number = self._part_of(packet.stream.index, position, decoded)
        self._last[packet.stream.index] = number, decoded
        part, start = self._parts[number], packet_start(packet)
        part.start, part.end = min(part.start, start), max(part.end, packet_end(packet))
        if packet.is_keyframe and packet.pos is not None and isinstance(packet.stream, VideoStream):
            self._key_frames += 1
            if self._key_frames <= _MAX_KEY_FRAMES:
                part.key_frames.append(KeyFrame(start, packet.pos))

    def _part_of(self, stream: int, position: int, decoded: float) -> int:
        number = max(index for index, part in enumerate(self._parts) if part.position <= position)
        before, last = self._last.get(stream, (number, decoded))
        jumps = (
            decoded < last - _JUMP_BACK_SECONDS or decoded > max(last, self._parts[before].end) + _JUMP_FORWARD_SECONDS
        )
        if not jumps or number != before:
            return number
        if number == len(self._parts) - 1:
            self._parts.append(_ClockSegment(position))
        elif self._parts[number + 1].position - position > _INTERLEAVING_BYTES:
            return number  # a wrong time stamp, and not where the next part begins
        self._parts[number + 1].position = position
        return number + 1

    def timeline(self, origin: float) -> Timeline:
        end = self._parts[0].end
        restarts: list[ClockRestart] = []
        key_frames = list(self._parts[0].key_frames)
        for part in self._parts[1:]:
            shift = end - part.start
            restarts.append(ClockRestart(part.position, shift))
            key_frames += [KeyFrame(each.time + shift, each.position) for each in part.key_frames]
            end = part.end + shift
        return Timeline(origin, end if end > origin else None, restarts, key_frames if restarts else ())


def _scan_clock(film: BoundedFile, origin: float) -> Timeline:
    """Return what all packets of a file tell; many clips are cut out of one file, and it is not read again for each."""
    fingerprint = _fingerprint_file(film)
    with _scanned_lock:
        known = _scanned.get(fingerprint)
    if known is None:
        known = _scan_packets(film, origin)
        if known.end is not None and not film.is_spent:
            with _scanned_lock:
                _scanned[fingerprint] = known
    film.seek(0)
    return known


def _fingerprint_file(film: BoundedFile) -> bytes:
    """Tell files apart by their length, their beginning and their end, wherever they lie."""
    length = film.seek(0, io.SEEK_END)
    digest = hashlib.sha256(str(length).encode())
    for position in (0, max(length - _FINGERPRINT_BYTES, 0)):
        film.seek(position)
        digest.update(film.read(_FINGERPRINT_BYTES))
    film.seek(0)
    return digest.digest()


def _scan_packets(film: BoundedFile, origin: float) -> Timeline:
    """Look at all packets of a file. Where that takes too long, nothing is known but what its header says."""
    deadline, scan = time.monotonic() + _SCAN_SECONDS, _ClockScanner()
    with open_container(film) as container:
        streams = choose_playable_streams(container)
        discard_other_streams(container, *streams)
        for packet in read_packets(container, film, streams):
            if time.monotonic() > deadline:
                break
            scan.add(packet)
        else:
            return Timeline(origin, None) if film.is_spent else scan.timeline(origin)
        return Timeline(origin, origin + container.duration / av.time_base if container.duration else None)
