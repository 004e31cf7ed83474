import numpy as np
import pytest
from av.audio.layout import AudioLayout
from numpy.typing import NDArray

from app.media.mixing import MonoMixer

RATE = 16_000
Signal = NDArray[np.float64]


def noise(seed: int, seconds: float = 3.0) -> Signal:
    return np.random.default_rng(seed).normal(0, 3000, int(seconds * RATE))


def mix(*channels: Signal, layout: str = "stereo", at_once: int = 1000) -> Signal:
    samples = np.stack(channels).astype(np.int16)
    mixer = MonoMixer(AudioLayout(layout), RATE)
    chunks = [
        chunk for first in range(0, samples.shape[1], at_once) for chunk in mixer.add(samples[:, first:][:, :at_once])
    ]
    return np.frombuffer(b"".join([*chunks, *mixer.finish()]), "<i2").astype(np.float64)


def likeness(one: Signal, other: Signal) -> float:
    return abs(float(np.corrcoef(one, other)[0, 1]))


def loudness(signal: Signal) -> float:
    return float(np.sqrt(np.mean(np.square(signal))))


@pytest.mark.parametrize("at_once", [1, 999, 16_000, 100_000])
def test_every_sample_is_given_once(at_once: int) -> None:
    said = noise(1, 2.3) if at_once > 1 else noise(1, 0.01)
    assert np.abs(mix(said, said, at_once=at_once) - said).max() <= 1


def test_an_inverted_channel_is_turned_round() -> None:
    said = noise(1)
    assert mix(said, -said) == pytest.approx(said, abs=2)


def test_speech_that_is_inverted_under_music_is_heard() -> None:
    said, music = noise(1), noise(2) * 0.5
    assert likeness(mix(music + said, music - said), said) > 0.9


def test_independent_channels_are_heard_both() -> None:
    one, other = noise(1), noise(2)
    assert mix(one, other) == pytest.approx((one + other) / 2, abs=2)


def test_a_channel_that_is_inverted_later_is_turned_round_there() -> None:
    said = noise(1, 6.0)
    other = np.concatenate((said[: 3 * RATE], -said[3 * RATE :]))
    heard = mix(said, other)
    assert all(loudness(part) > 2500 for part in heard.reshape(6, -1))


def test_silence_and_an_offset_decide_nothing() -> None:
    said = noise(1)
    offset = np.full(len(said), 8000.0)
    assert likeness(mix(said, offset - said), said) > 0.99
    assert not mix(np.zeros(RATE), np.zeros(RATE)).any()


def test_speech_in_the_centre_stays_in_front_of_inverted_music() -> None:
    said, music, nothing = noise(1), noise(2), np.zeros(3 * RATE)
    heard = mix(music, music, said, nothing, nothing, nothing, layout="5.1")
    assert likeness(heard, said) > 0.5


def test_channels_without_names_are_mixed_alike() -> None:
    said = noise(1)
    assert mix(said, -said, layout="2 channels") == pytest.approx(said, abs=2)
