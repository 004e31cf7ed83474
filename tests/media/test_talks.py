from pathlib import Path

import av
import numpy as np

from tests.media.talks import BREAD, COLOURS, MARS, Talk, make_talk
from tests.speech import speak, word_error_rate


def audio_of(path: Path) -> tuple[np.ndarray[tuple[int], np.dtype[np.int16]], int]:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        frames = [frame for packet in container.decode(audio=0) for frame in resampler.resample(packet)]
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]), 16_000


def test_speech_has_no_silence_around_it_and_sounds_the_same_each_time() -> None:
    audio, rate = speak("The coach decides which players start the match.")
    assert 1 < len(audio) / rate < 6
    assert abs(int(audio[0])) > 100
    assert abs(int(audio[-1])) > 100
    assert np.array_equal(audio, speak("The coach decides which players start the match.")[0])


def test_a_talk_is_heard_where_it_says_and_silent_in_between(talk: Talk) -> None:
    audio, rate = audio_of(talk.path)

    def loudness(start: float, end: float) -> float:
        return float(np.abs(audio[round(start * rate) : round(end * rate)].astype(np.int32)).mean())

    for one, after in zip(talk.sentences, talk.sentences[1:], strict=False):
        assert loudness(one.start, one.end) > 20 * loudness(one.end + 0.1, after.start - 0.1)


def test_a_talk_shows_another_colour_for_each_topic(tmp_path: Path) -> None:
    talk = make_talk(tmp_path / "talk.mp4", (BREAD[:2], MARS[:2]))
    with av.open(str(talk.path)) as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            expected = COLOURS[int(frame.time >= talk.boundaries[0])]
            assert np.abs(frame.to_ndarray(format="rgb24")[90, 160].astype(int) - expected).max() < 12


def test_a_talk_is_as_long_as_it_says(talk: Talk) -> None:
    with av.open(str(talk.path)) as container:
        assert container.duration is not None
        assert abs(container.duration / av.time_base - talk.duration) < 0.1
    assert 90 < talk.duration < 120
    assert all(20 < topic.end - topic.start < 30 for topic in talk.topics)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert word_error_rate("A loaf, warm.", "a loaf warm") == 0
    assert word_error_rate("a b c d", "a x c") == 0.5
