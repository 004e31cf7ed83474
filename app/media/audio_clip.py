"""Clips of audio without a picture: exact parts of it as M4A files, AAC, with as many samples as they should have."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from app.core.errors import StageFailed
from app.media.cutting import AUDIO_BITS, AUDIO_CODEC, SOUND_RATE
from app.media.decoding import decode_packet
from app.media.opening import BoundedFile, open_film
from app.media.sound import Sound
from app.media.streams import choose_audio_stream
from app.media.timeline import Timeline, is_led_astray, read_only, read_timeline

_SAMPLE_BYTES = 2
_LEAD_SECONDS = 1.0  # that are decoded before the start: codecs need some frames to begin with
# A seek in files of these leads to a guessed time: they are read from their beginning.
_UNSEEKABLE_FORMATS = frozenset({"mp3", "aac", "ac3", "amr"})


def cut_audio_clip(file: BoundedFile, start: float, end: float, target: Path) -> None:
    """Write what can be heard from and to these seconds to `target`; silence goes on where the audio ends before.

    Raises `StageFailed`, `Stopped`, `TooExpensive`, `av.FFmpegError` for both files, and what reading raises.
    """
    timeline = read_timeline(file, needs_end=False)
    first = timeline.origin + start
    with (
        open_film(file) as source,
        av.open(f"file:{target}", "w", format="ipod", options={"movflags": "+faststart"}) as clip,
    ):
        stream = choose_audio_stream(source)
        if stream is None:
            raise StageFailed("The file has neither a picture nor audio that can be decoded")
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        encoded = clip.add_stream(AUDIO_CODEC, rate=SOUND_RATE, layout=layout, bit_rate=AUDIO_BITS)
        sound = Sound(layout, SOUND_RATE, first, None)
        wanted = round((end - start) * SOUND_RATE)
        chunks = _hear(_frames(source, file, stream, timeline, first), sound, wanted)
        for frame in make_frames(chunks, layout, wanted):
            file.check_limits()
            clip.mux(encoded.encode(frame))
        clip.mux(encoded.encode(None))
    file.check_limits()


def _hear(frames: Iterator[AudioFrame], sound: Sound, wanted: int) -> Iterator[bytes]:
    for frame in frames:
        yield from sound.add(frame)
        if sound.samples >= wanted:
            return
    yield from sound.finish()
    yield from sound.silence(wanted - sound.samples)


def _frames(
    source: InputContainer, file: BoundedFile, stream: AudioStream, timeline: Timeline, start: float
) -> Iterator[AudioFrame]:
    """Yield the frames from a little before `start`, in seconds on the clock of the timeline, on."""
    lead = start - _LEAD_SECONDS
    read_only(source, stream)
    can_seek = source.format.name not in _UNSEEKABLE_FORMATS and not is_led_astray(source) and timeline.is_seekable
    if can_seek and not timeline.restarts and lead > 0:
        source.seek(round(lead * av.time_base))
    for packet in timeline.continue_clock(source.demux(stream)):
        if file.has_ended:
            return
        if packet.pts is None or packet.pts * packet.time_base >= lead:
            yield from (frame for frame in decode_packet(packet) if isinstance(frame, AudioFrame))


def make_frames(chunks: Iterator[bytes], layout: str, wanted: int, first: int = 0) -> Iterator[AudioFrame]:
    """Yield frames of the samples in `chunks`, up to sample `wanted` of a clip and from sample `first` on."""
    width, given = _SAMPLE_BYTES * (2 if layout == "stereo" else 1), first
    for chunk in chunks:
        samples = min(len(chunk) // width, wanted - given)
        if given >= wanted:  # what follows may be silence without end
            return
        if samples > 0:
            frame = AudioFrame("s16", layout, samples)
            plane = frame.planes[0]
            plane.update(chunk[: samples * width].ljust(plane.buffer_size, b"\0"))
            frame.pts, frame.sample_rate, frame.time_base = given, SOUND_RATE, Fraction(1, SOUND_RATE)
            given += samples
            yield frame
