"""Sound as a player plays it: decoded frames become samples without gaps, each at its time in the film."""

from collections.abc import Iterator

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from app.media.mixing import MonoMixer

_BYTES = 2  # of a sample of one channel
# Time stamps are rounded, to a 90,000th or to a thousandth of a second, and say nothing of anything so short.
_TOLERANCE_SECONDS = 0.04
# Frames whose time lies so far before what was heard last, or behind the end of the film, have a wrong one.
_BELIEVED_BACK_SECONDS = 1.0


class Sound:
    """Samples of 16 bits, the channels of a layout ("mono", "stereo") side by side, from a time of the film on.

    Silence fills what is missing in front and in between; what comes twice, or before `start`, is left out. `start`
    is a time stamp in seconds, as frames have it, and so is `end`, where the film ends as far as is known. Channels
    that are mixed to mono do not cancel each other.
    """

    def __init__(self, layout: str, rate: int, start: float, end: float | None) -> None:
        self._layout = layout
        self._rate = rate
        self._start = start
        self._end = end
        self._width = _BYTES * (2 if layout == "stereo" else 1)
        self._resampler: AudioResampler | None = None
        self._mixer: MonoMixer | None = None
        self._source: tuple[str, str, int] | None = None
        self._expected = 0.0  # time stamp of the next frame, where it joins the last one
        self._superfluous = 0  # samples at the beginning of what the resampler gives
        self.samples = 0  # that were given

    def add(self, frame: AudioFrame) -> Iterator[bytes]:
        """Yield what can be heard now, at most a second at a time."""
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        time = self._time_of(frame)
        if self._resampler is None or source != self._source or abs(time - self._expected) > _TOLERANCE_SECONDS:
            yield from self.finish()
            yield from self._begin(frame, time)
            self._source = source
        frame.pts = None
        yield from self._resample(frame)
        self._expected += frame.samples / frame.sample_rate

    def finish(self) -> Iterator[bytes]:
        """Yield what is still held back."""
        yield from self._resample(None)
        if self._mixer:
            yield from self._mixer.finish()
        self._resampler = self._mixer = None

    def silence(self, samples: int) -> Iterator[bytes]:
        while samples > 0:
            count = min(samples, self._rate)
            samples -= count
            self.samples += count
            yield bytes(count * self._width)

    def _time_of(self, frame: AudioFrame) -> float:
        if frame.time is None:
            return self._expected
        is_behind_end = self._end is not None and frame.time > self._end + _BELIEVED_BACK_SECONDS
        is_before = self._resampler is not None and frame.time < self._expected - _BELIEVED_BACK_SECONDS
        return self._expected if is_behind_end or is_before else frame.time

    def _begin(self, frame: AudioFrame, time: float) -> Iterator[bytes]:
        is_mixed = self._layout == "mono" and len(frame.layout.channels) > 1
        self._mixer = MonoMixer(frame.layout, self._rate) if is_mixed else None
        layout = frame.layout.name if is_mixed else self._layout
        self._resampler = AudioResampler("s16p" if is_mixed else "s16", layout, self._rate)
        self._expected = time
        missing = round((time - self._start) * self._rate) - self.samples
        self._superfluous = max(-missing, 0)
        yield from self.silence(missing)

    def _resample(self, frame: AudioFrame | None) -> Iterator[bytes]:
        for resampled in self._resampler.resample(frame) if self._resampler else ():
            if resampled is None:
                continue
            dropped = min(self._superfluous, resampled.samples)
            self._superfluous -= dropped
            if resampled.samples > dropped:
                self.samples += resampled.samples - dropped
                if self._mixer:
                    yield from self._mixer.add(resampled.to_ndarray()[:, dropped:].astype(np.int16, copy=False))
                else:
                    yield bytes(resampled.planes[0])[dropped * self._width : resampled.samples * self._width]
