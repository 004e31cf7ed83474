"""Mixing the channels of audio to one: channels that would cancel each other are turned round first."""

from collections.abc import Iterator

import numpy as np
from av.audio.layout import AudioLayout
from numpy.typing import NDArray

Samples = NDArray[np.int16]
Floats = NDArray[np.float32]

_BLOCK_SECONDS = 1.0  # that are judged at once
_RAMP_SECONDS = 0.01  # in which one mix becomes the next
_QUIET_POWER = 10.0**2  # of samples of 16 bits: what is not louder tells nothing of its phase
# Correlation with the loudest channel. Independent channels are within these limits, and stay as they are.
_INVERTED, _IN_PHASE = -0.25, 0.25
# ITU-R BS.775: the centre in full, the sides and the back at 3 and 6 dB less, low frequency effects not at all.
_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_OTHER_WEIGHT = 0.5
_USUAL_LAYOUTS = {6: "5.1", 8: "7.1"}  # of files that do not name their channels


class MonoMixer:
    """Mixes blocks of a second, each by the phases of its own channels; memory does not grow with the audio."""

    def __init__(self, layout: AudioLayout, rate: int) -> None:
        weights = np.array([_WEIGHTS.get(name, _OTHER_WEIGHT) for name in _name_channels(layout)], np.float32)
        if not weights.any():
            weights[:] = 1.0
        self._weights = weights / weights.sum()
        self._signs = np.ones(len(weights), np.float32)
        self._mix: Floats | None = None  # the weights with signs that the last block ended with
        self._block = round(_BLOCK_SECONDS * rate)
        self._ramp = round(_RAMP_SECONDS * rate)
        self._parts: list[Samples] = []
        self._held = 0

    def add(self, samples: Samples) -> Iterator[bytes]:
        """Yield what is mixed now. `samples` has a row for each channel."""
        self._parts.append(samples)
        self._held += samples.shape[1]
        if self._held < self._block:
            return
        held = np.concatenate(self._parts, axis=1)
        whole = self._held // self._block * self._block
        for first in range(0, whole, self._block):
            yield self._mix_block(held[:, first : first + self._block])
        self._parts, self._held = [held[:, whole:]], self._held - whole

    def finish(self) -> Iterator[bytes]:
        """Yield what is still held back."""
        if self._held:
            yield self._mix_block(np.concatenate(self._parts, axis=1))
        self._parts, self._held = [], 0

    def _mix_block(self, block: Samples) -> bytes:
        channels = block.astype(np.float32)
        self._turn_channels(channels)
        mix = self._weights * self._signs
        mixed = mix @ channels
        if self._mix is not None and (self._mix != mix).any():
            ramp = np.linspace(0.0, 1.0, min(self._ramp, len(mixed)), dtype=np.float32)
            before = self._mix @ channels[:, : len(ramp)]
            mixed[: len(ramp)] = before * (1 - ramp) + mixed[: len(ramp)] * ramp
        self._mix = mix
        data: bytes = np.clip(np.rint(mixed), -32768, 32767).astype("<i2").tobytes()
        return data

    def _turn_channels(self, channels: Floats) -> None:
        """Decide the sign of each channel beside the loudest one, whose own does not matter and stays."""
        centred = (channels - channels.mean(axis=1, keepdims=True)) * (self._weights > 0)[:, None]
        power = np.square(centred).mean(axis=1)
        loudest = int(power.argmax())
        if power[loudest] < _QUIET_POWER:
            return
        shared = (centred @ centred[loudest]) / centred.shape[1]
        correlation = shared / np.maximum(np.sqrt(power * power[loudest]), 1e-9)
        heard = power >= _QUIET_POWER
        sign = self._signs[loudest]
        self._signs[heard & (correlation < _INVERTED)] = -sign
        self._signs[heard & (correlation > _IN_PHASE)] = sign


def _name_channels(layout: AudioLayout) -> list[str]:
    count = len(layout.channels)
    is_named = any(channel.name != "NONE" for channel in layout.channels)
    usual = layout if is_named or count not in _USUAL_LAYOUTS else AudioLayout(_USUAL_LAYOUTS[count])
    return [channel.name for channel in usual.channels]
