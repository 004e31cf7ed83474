"""Audio: decoded frames as continuous samples, mixed down to mono, and extracted to a WAV file for transcribers."""

import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from app.core.errors import StageFailed
from app.media.container import (
    DEFAULT_MAX_HOURS,
    ReadLimitedFile,
    ReadLimitExceeded,
    ReadLimits,
    check_max_hours,
    check_plausible_duration,
    choose_audio_stream,
    limit_processing_seconds,
    measure_file_size,
    open_container,
)
from app.media.frames import decode_frames
from app.media.timeline import Timeline, read_timeline

WAV_SAMPLE_RATE = 16_000  # samples for each second
WAV_BYTES_PER_SECOND = WAV_SAMPLE_RATE * 2
_MAX_EXTRACTION_SECONDS = 3600.0

_MAX_READ_BYTES = 1024**4


def extract_audio(
    video_file: BinaryIO,
    wav_path: Path,
    stopping: threading.Event,
    report_progress: Callable[[float], None],
    limit_seconds: float = _MAX_EXTRACTION_SECONDS,
    max_hours: float = DEFAULT_MAX_HOURS,
) -> float:
    """Extract the audio of a video to `wav_path` (16 kHz, mono, 16 bits), return its duration in seconds; blocks.

    Times in the WAV file are times of the video, and the write is atomic. `report_progress` gets the completed share,
    0 to 1, if the duration is known. Raises `StageFailed` (also for a video longer than `max_hours` or than its file
    can hold), `ProcessingStopped`, what reading the file raises, and `OSError` for the target.
    """
    draft_path = wav_path.with_name(f"{wav_path.name}.part")
    file_size = measure_file_size(video_file)
    limits = ReadLimits(limit_processing_seconds(file_size, limit_seconds), _MAX_READ_BYTES)
    file = ReadLimitedFile(video_file, limits, stopping)
    try:
        timeline = read_timeline(file)
        check_max_hours(timeline.duration_seconds or 0.0, max_hours)
        with open_container(file) as container:
            chunks = _decode_mono_samples(container, file, timeline, report_progress)
            sample_count = _write_wav_and_count_samples(
                draft_path, _check_limits_of_samples(chunks, file, file_size, max_hours)
            )
        if not sample_count:
            raise StageFailed("No audio of the video can be decoded")
        draft_path.replace(wav_path)
        return sample_count / WAV_SAMPLE_RATE
    except ReadLimitExceeded:
        raise StageFailed("The audio of the video takes too long to extract") from None
    except av.FFmpegError:
        raise StageFailed("The file of the video is damaged, its audio cannot be read") from None
    finally:
        draft_path.unlink(missing_ok=True)


def wav_duration(wav_path: Path) -> float:
    """Return the duration of a WAV file in seconds. Raises `wave.Error`, `EOFError` and `OSError`."""
    with wave.open(str(wav_path), "rb") as file:
        return file.getnframes() / file.getframerate()


def _decode_mono_samples(
    container: InputContainer,
    file: ReadLimitedFile,
    timeline: Timeline,
    report_progress: Callable[[float], None],
) -> Iterator[bytes]:
    stream = choose_audio_stream(container)
    if stream is None:
        raise StageFailed("The video has no audio")
    duration = timeline.duration_seconds
    resampler = GapFillingResampler("mono", WAV_SAMPLE_RATE, timeline.origin, timeline.end)
    for frame in decode_frames(container, file, timeline, stream):
        if isinstance(frame, AudioFrame):
            yield from resampler.add_frame(frame)
        if duration:
            report_progress(min(resampler.samples / WAV_SAMPLE_RATE / duration, 1.0))
    yield from resampler.flush()


def _check_limits_of_samples(
    sample_chunks: Iterator[bytes], file: ReadLimitedFile, file_size: int, max_hours: float
) -> Iterator[bytes]:
    """Yield the chunks; raise `StageFailed` for implausibly long audio: gaps between time stamps become silence."""
    sample_count = 0
    for chunk in sample_chunks:
        file.check_limits()
        sample_count += len(chunk) // 2
        check_max_hours(sample_count / WAV_SAMPLE_RATE, max_hours)
        check_plausible_duration(sample_count / WAV_SAMPLE_RATE, file_size)
        yield chunk
    file.check_limits()


def _write_wav_and_count_samples(wav_path: Path, sample_chunks: Iterator[bytes]) -> int:
    sample_count = 0
    with wav_path.open("wb") as file, closing(wave.open(file, "wb")) as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(WAV_SAMPLE_RATE)
        for chunk in sample_chunks:
            sample_count += len(chunk) // 2
            wav.writeframesraw(chunk)
    return sample_count


_BYTES_PER_SAMPLE = 2  # of a sample of one channel
# Time stamps are rounded to 1/90,000 or 1/1,000 of a second: shorter gaps mean nothing.
_GAP_TOLERANCE_SECONDS = 0.04
# A frame that starts so far before the end of the previous one, or after the end of the video, has a wrong time stamp.
_MAX_JUMP_BACK_SECONDS = 1.0


class GapFillingResampler:
    """Turns decoded frames into PCM samples (16 bits, interleaved channels) without gaps, from a time of the video on.

    `layout` is "mono" or "stereo", `rate` is in Hz, `start` and `end` are time stamps in seconds, `end` None if
    unknown. Missing audio becomes silence; repeated audio and audio before `start` are dropped.
    """

    def __init__(self, layout: str, rate: int, start: float, end: float | None) -> None:
        self._layout = layout
        self._rate = rate
        self._start = start
        self._end = end
        self._width = _BYTES_PER_SAMPLE * (2 if layout == "stereo" else 1)
        self._resampler: AudioResampler | None = None
        self._mixer: MonoDownmixer | None = None
        self._source: tuple[str, str, int] | None = None
        self._expected = 0.0  # time stamp of the next frame if there is no gap
        self._samples_to_drop = 0  # from the start of the resampler's output
        self.samples = 0  # yielded so far

    def add_frame(self, frame: AudioFrame) -> Iterator[bytes]:
        """Resample a frame and yield the samples that are ready, at most a second at a time."""
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        time = self._choose_frame_time(frame)
        if self._resampler is None or source != self._source or abs(time - self._expected) > _GAP_TOLERANCE_SECONDS:
            yield from self.flush()
            yield from self._restart_resampler(frame, time)
            self._source = source
        frame.pts = None
        yield from self._resample(frame)
        self._expected += frame.samples / frame.sample_rate

    def flush(self) -> Iterator[bytes]:
        """Yield the samples that resampler and mixer still hold."""
        yield from self._resample(None)
        if self._mixer:
            yield from self._mixer.flush()
        self._resampler = self._mixer = None

    def add_silence(self, sample_count: int) -> Iterator[bytes]:
        while sample_count > 0:
            count = min(sample_count, self._rate)
            sample_count -= count
            self.samples += count
            yield bytes(count * self._width)

    def _choose_frame_time(self, frame: AudioFrame) -> float:
        if frame.time is None:
            return self._expected
        is_behind_end = self._end is not None and frame.time > self._end + _MAX_JUMP_BACK_SECONDS
        is_before_previous = self._resampler is not None and frame.time < self._expected - _MAX_JUMP_BACK_SECONDS
        return self._expected if is_behind_end or is_before_previous else frame.time

    def _restart_resampler(self, frame: AudioFrame, frame_time: float) -> Iterator[bytes]:
        is_mixed = self._layout == "mono" and len(frame.layout.channels) > 1
        self._mixer = MonoDownmixer(frame.layout, self._rate) if is_mixed else None
        layout = frame.layout.name if is_mixed else self._layout
        self._resampler = AudioResampler("s16p" if is_mixed else "s16", layout, self._rate)
        self._expected = frame_time
        missing = round((frame_time - self._start) * self._rate) - self.samples
        self._samples_to_drop = max(-missing, 0)
        yield from self.add_silence(missing)

    def _resample(self, frame: AudioFrame | None) -> Iterator[bytes]:
        for resampled in self._resampler.resample(frame) if self._resampler else ():
            if resampled is None:
                continue
            dropped = min(self._samples_to_drop, resampled.samples)
            self._samples_to_drop -= dropped
            if resampled.samples > dropped:
                self.samples += resampled.samples - dropped
                if self._mixer:
                    yield from self._mixer.add_samples(resampled.to_ndarray()[:, dropped:].astype(np.int16, copy=False))
                else:
                    yield bytes(resampled.planes[0])[dropped * self._width : resampled.samples * self._width]


_Samples = NDArray[np.int16]
_FloatSamples = NDArray[np.float32]

_BLOCK_SECONDS = 1.0  # mixed with the same signs
_RAMP_SECONDS = 0.01  # cross-fade from one mix to the next
_QUIET_POWER = 10.0**2  # of 16-bit samples: the phase of quieter audio is noise
# Correlation with the loudest channel; independent channels lie between these limits and keep their sign.
_INVERTED, _IN_PHASE = -0.25, 0.25
# ITU-R BS.775: centre at 0 dB, front at -3 dB, sides and back at -6 dB, no low frequency effects.
_CHANNEL_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_DEFAULT_CHANNEL_WEIGHT = 0.5
_DEFAULT_LAYOUTS = {6: "5.1", 8: "7.1"}  # for files that do not name their channels


class MonoDownmixer:
    """Mixes channels to mono in blocks of one second, and flips channels of inverted phase first.

    Channels that are each other's inverse would cancel. Memory does not grow with the length of the audio.
    """

    def __init__(self, layout: AudioLayout, rate: int) -> None:
        weights = np.array(
            [_CHANNEL_WEIGHTS.get(name, _DEFAULT_CHANNEL_WEIGHT) for name in _channel_names_or_default(layout)],
            np.float32,
        )
        if not weights.any():
            weights[:] = 1.0
        self._weights = weights / weights.sum()
        self._signs = np.ones(len(weights), np.float32)
        self._mix: _FloatSamples | None = None  # signed weights at the end of the last block
        self._block = round(_BLOCK_SECONDS * rate)
        self._ramp = round(_RAMP_SECONDS * rate)
        self._parts: list[_Samples] = []
        self._held = 0

    def add_samples(self, samples: _Samples) -> Iterator[bytes]:
        """Yield the mixed samples that are ready. `samples` has the shape (channels, samples)."""
        self._parts.append(samples)
        self._held += samples.shape[1]
        if self._held < self._block:
            return
        held = np.concatenate(self._parts, axis=1)
        whole = self._held // self._block * self._block
        for first in range(0, whole, self._block):
            yield self._mix_block(held[:, first : first + self._block])
        self._parts, self._held = [held[:, whole:]], self._held - whole

    def flush(self) -> Iterator[bytes]:
        if self._held:
            yield self._mix_block(np.concatenate(self._parts, axis=1))
        self._parts, self._held = [], 0

    def _mix_block(self, channel_samples: _Samples) -> bytes:
        channels = channel_samples.astype(np.float32)
        self._update_channel_signs(channels)
        mix = self._weights * self._signs
        mixed = mix @ channels
        if self._mix is not None and (self._mix != mix).any():
            ramp = np.linspace(0.0, 1.0, min(self._ramp, len(mixed)), dtype=np.float32)
            before = self._mix @ channels[:, : len(ramp)]
            mixed[: len(ramp)] = before * (1 - ramp) + mixed[: len(ramp)] * ramp
        self._mix = mix
        data: bytes = np.clip(np.rint(mixed), -32768, 32767).astype("<i2").tobytes()
        return data

    def _update_channel_signs(self, channels: _FloatSamples) -> None:
        """Set each channel's sign by its correlation with the loudest channel, whose own sign stays."""
        centred = (channels - channels.mean(axis=1, keepdims=True)) * (self._weights > 0)[:, None]
        power = np.square(centred).mean(axis=1)
        loudest = int(power.argmax())
        if power[loudest] < _QUIET_POWER:
            return
        shared = (centred @ centred[loudest]) / centred.shape[1]
        correlation = shared / np.maximum(np.sqrt(power * power[loudest]), 1e-9)
        audible = power >= _QUIET_POWER
        sign = self._signs[loudest]
        self._signs[audible & (correlation < _INVERTED)] = -sign
        self._signs[audible & (correlation > _IN_PHASE)] = sign


def _channel_names_or_default(layout: AudioLayout) -> list[str]:
    count = len(layout.channels)
    is_named = any(channel.name != "NONE" for channel in layout.channels)
    usual = layout if is_named or count not in _DEFAULT_LAYOUTS else AudioLayout(_DEFAULT_LAYOUTS[count])
    return [channel.name for channel in usual.channels]
