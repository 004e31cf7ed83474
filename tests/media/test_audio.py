"""The audio of videos: its form, its times, and what comes of videos that are damaged or have none."""

import io
import struct
import threading
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.layout import AudioLayout
from numpy.typing import NDArray

from app.core.errors import StageFailed, StorageUnavailable
from app.media.audio import WAV_SAMPLE_RATE, MonoDownmixer, extract_audio, wav_duration
from app.media.container import ProcessingStopped
from tests.media.movies import SAMPLE_RATE, make_movie, make_movie_with_audio, make_sparse_audio

# Encoders of lossy audio blur where it begins, and a sample rate's own begins with a frame.
NEAR = 0.03


def extract(video: Path) -> Path:
    wav = video.with_suffix(".wav")
    with video.open("rb") as file:
        extract_audio(file, wav, threading.Event(), lambda share: None)
    return wav


def samples_of(wav: Path) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    with wave.open(str(wav), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def beeps_of(wav: Path) -> list[tuple[float, float]]:
    """When it is loud, from and to, in seconds."""
    loud = np.flatnonzero(np.abs(samples_of(wav)) > 3000)
    breaks = np.flatnonzero(np.diff(loud) > WAV_SAMPLE_RATE // 20)
    starts, ends = loud[[0, *(breaks + 1)]], loud[[*breaks, -1]]
    return [(start / WAV_SAMPLE_RATE, end / WAV_SAMPLE_RATE) for start, end in zip(starts, ends, strict=True)]


def assert_beeps(wav: Path, *expected: tuple[float, float], within: float = NEAR) -> None:
    assert np.array(beeps_of(wav)) == pytest.approx(np.array(expected), abs=within)


def test_the_audio_is_16_khz_mono_with_16_bits(tmp_path: Path) -> None:
    with wave.open(str(extract(make_movie(tmp_path / "film.mp4"))), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)


def test_the_audio_is_as_long_as_that_of_the_video(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.mkv", 3, [(0, 3)], "pcm_s16le")
    with video.open("rb") as file:
        assert extract_audio(file, tmp_path / "sound.wav", threading.Event(), lambda share: None) == 3.0
    assert wav_duration(tmp_path / "sound.wav") == 3.0


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("film.mp4", "aac", 48_000, "stereo"),
        ("film.mp4", "aac", 44_100, "5.1"),
        ("film.mp4", "aac", 96_000, "mono"),
        ("film.mov", "pcm_s16le", 48_000, "stereo"),
        ("film.mkv", "pcm_u8", 8_000, "mono"),
        ("film.mkv", "flac", 11_025, "stereo"),
        ("film.mkv", "pcm_f64le", 22_050, "5.1"),
        ("film.webm", "libopus", 48_000, "stereo"),
        ("film.ts", "mp2", 48_000, "stereo"),
        ("film.avi", "mp3", 44_100, "stereo"),
    ],
)
def test_audio_of_any_codec_rate_and_layout_is_heard(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    has_picture = name != "film.webm"
    video = make_movie_with_audio(tmp_path / name, 2, [(0, 2)], codec, rate, layout, has_picture=has_picture)
    assert_beeps(extract(video), (0, 2))


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "aac"), ("film.mkv", "pcm_s16le"), ("film.ts", "mp2")])
def test_audio_that_begins_late_keeps_its_time(tmp_path: Path, name: str, codec: str) -> None:
    assert_beeps(extract(make_movie_with_audio(tmp_path / name, 3, [(1.5, 3)], codec)), (1.5, 3))


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "aac"), ("film.mkv", "pcm_s16le"), ("film.ts", "mp2")])
def test_a_gap_in_the_audio_is_silence(tmp_path: Path, name: str, codec: str) -> None:
    video = make_movie_with_audio(tmp_path / name, 4, [(0, 1), (2, 2.5), (3.5, 4)], codec)
    assert_beeps(extract(video), (0, 1), (2, 2.5), (3.5, 4))


def test_a_video_whose_time_stamps_do_not_begin_at_zero_begins_at_zero(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.ts", 3, [(1.5, 3)], "mp2")
    with av.open(str(video)) as container:
        assert container.start_time
    assert_beeps(extract(video), (1.5, 3))


def test_audio_between_the_samples_of_other_channels_is_not_lost(tmp_path: Path) -> None:
    wav = extract(make_movie_with_audio(tmp_path / "film.mkv", 1, [(0, 1)], "pcm_s16le", 48_000, "5.1"))
    assert np.abs(samples_of(wav)).max() > 5000


@pytest.mark.parametrize(
    ("layout", "gains"),
    [
        ("stereo", (1.0, -1.0)),
        ("stereo", (0.5, -1.0)),
        ("stereo", (1.0, 0.0)),
        ("stereo", (0.0, 1.0)),
        ("5.1", (1.0, -1.0, 0.0, 0.0, 1.0, -1.0)),
        ("5.1", (0.0, 0.0, 1.0, 0.0, 0.0, 0.0)),
    ],
)
def test_channels_do_not_cancel_each_other(tmp_path: Path, layout: str, gains: tuple[float, ...]) -> None:
    video = make_movie_with_audio(tmp_path / "film.mkv", 3, [(0.5, 3)], "pcm_s16le", layout=layout, gains=gains)
    assert_beeps(extract(video), (0.5, 3))


def test_damaged_packets_cost_nothing_but_themselves(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.mp4", 4, [(0, 4)])
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        for packet in container.demux(audio=0):
            if packet.size and packet.pts is not None and 1.5 * SAMPLE_RATE < packet.pts < 2.5 * SAMPLE_RATE:
                assert packet.pos is not None
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    video.write_bytes(content)
    beeps = beeps_of(extract(video))
    assert beeps[0] == pytest.approx((0, 1.5), abs=0.1)
    assert beeps[-1] == pytest.approx((2.5, 4), abs=0.1)


def test_audio_whose_times_begin_again_in_the_middle_is_not_lost(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.ts", 3, [(0, 3)], "mp2")
    video.write_bytes(video.read_bytes() * 2)
    assert wav_duration(extract(video)) == pytest.approx(6, abs=0.2)


def test_a_video_that_was_cut_off_has_the_audio_that_is_there(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.mkv", 4, [(0, 4)], "pcm_s16le")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert_beeps(extract(video), (0, 2.0), within=0.2)


def test_a_video_without_audio_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="The video has no audio"):
        extract(make_movie(tmp_path / "film.mp4", audio_codec=None))


def test_what_is_no_video_is_reported(tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    video.write_bytes(b"this is no film" * 1000)
    with pytest.raises(StageFailed, match="damaged"):
        extract(video)


def test_audio_that_cannot_be_decoded_is_reported(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.mp4", 1, [(0, 1)])
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        for packet in container.demux(audio=0):
            if packet.size and packet.pos is not None:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    video.write_bytes(content)
    with pytest.raises(StageFailed, match="No audio of the video can be decoded"):
        extract(video)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_progress_is_reported_up_to_the_end(tmp_path: Path) -> None:
    shares: list[float] = []
    with make_movie_with_audio(tmp_path / "film.mp4", 3, [(0, 3)]).open("rb") as file:
        extract_audio(file, tmp_path / "sound.wav", threading.Event(), shares.append)
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] > 0.9


def test_extraction_ends_where_somebody_stops_it(tmp_path: Path) -> None:
    stopping = threading.Event()
    with make_movie_with_audio(tmp_path / "film.mp4", 3, [(0, 3)]).open("rb") as file, pytest.raises(ProcessingStopped):
        extract_audio(file, tmp_path / "sound.wav", stopping, lambda share: stopping.set())
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_extraction_that_was_stopped_before_does_not_begin(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with make_movie(tmp_path / "film.mp4").open("rb") as file, pytest.raises(ProcessingStopped):
        extract_audio(file, tmp_path / "sound.wav", stopping, lambda share: None)


def test_a_video_that_takes_too_long_is_reported(tmp_path: Path) -> None:
    with make_movie(tmp_path / "film.mp4").open("rb") as file, pytest.raises(StageFailed, match="too long"):
        extract_audio(file, tmp_path / "sound.wav", threading.Event(), lambda share: None, limit_seconds=0)


@pytest.mark.parametrize("name", ["film.mka", "film.mp4", "film.ts"])
def test_silence_that_no_file_of_its_size_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    video = make_sparse_audio(tmp_path / name, 50.0 if name == "film.ts" else 1000.0)
    assert video.stat().st_size < 40_000
    with pytest.raises(StageFailed, match="time stamps of the video are wrong"):
        extract(video)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_recording_that_was_paused_for_minutes_keeps_its_times(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.mp4", 500, [(0, 1), (499, 500)], has_picture=False)
    assert_beeps(extract(video), (0, 1), (499, 500))


def test_audio_that_is_longer_than_the_setting_allows_is_refused(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.mkv", 4, [(0, 4)], "pcm_s16le")
    with video.open("rb") as file, pytest.raises(StageFailed, match=r"longer than 0\.001 hours.*MAX_VIDEO_HOURS"):
        extract_audio(file, tmp_path / "sound.wav", threading.Event(), lambda share: None, max_hours=0.001)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_a_sample_rate_that_no_audio_has_takes_neither_memory_nor_time(tmp_path: Path, rate: int) -> None:
    samples = bytes(120)
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 156, b"WAVEfmt ", 16, 1, 1, rate, 0, 2, 16, b"data", len(samples))
    (tmp_path / "film.wav").write_bytes(head + samples)
    with pytest.raises(StageFailed):
        extract(tmp_path / "film.wav")


def test_a_storage_that_fails_in_the_middle_is_reported(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > len(self.getvalue()) // 2:
                raise StorageUnavailable("The bucket does not answer")
            return super().read(size)

    video = make_movie_with_audio(tmp_path / "film.mkv", 4, [(0, 4)], "pcm_s16le")
    with pytest.raises(StorageUnavailable):
        extract_audio(Failing(video.read_bytes()), tmp_path / "sound.wav", threading.Event(), lambda share: None)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mkv"]


RATE = 16_000
Signal = NDArray[np.float64]


def noise(seed: int, seconds: float = 3.0) -> Signal:
    return np.random.default_rng(seed).normal(0, 3000, int(seconds * RATE))


def mix(*channels: Signal, layout: str = "stereo", at_once: int = 1000) -> Signal:
    samples = np.stack(channels).astype(np.int16)
    mixer = MonoDownmixer(AudioLayout(layout), RATE)
    chunks = [
        chunk
        for first in range(0, samples.shape[1], at_once)
        for chunk in mixer.add_samples(samples[:, first:][:, :at_once])
    ]
    return np.frombuffer(b"".join([*chunks, *mixer.flush()]), "<i2").astype(np.float64)


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
