import asyncio
import re
import time
import wave
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.ai.local import whisper
from app.ai.local.whisper import WhisperChoice, WhisperTranscriber
from app.ai.local.whisper_decoding import SAMPLE_RATE, RecognizedSpeech, recognize_speech
from app.core.errors import StageFailed
from tests.ai.local.waiting import ignore, make_audio
from tests.speech import Sound, speak_all, word_error_rate

SAID = (
    "The planet Mars is much smaller and colder than the Earth.",
    "Scientists have sent robots to look for signs of water.",
    "Some engineers hope that people will walk on the red planet one day.",
    "The journey through space in a rocket takes about seven months.",
    "Astronauts would need air, water and food for the whole mission.",
)
PAUSE_SECONDS = 0.5
CHANT = "We want bread. " * 20
GYM = (
    "Welcome to the morning class. Today we train the legs. Please stand behind the chair. "
    + "And one, and two, and three, and four, " * 5
    + "Well done. Now drink some water and sit down."
)
LESSON = (
    "Today we learn to count. "
    + "One. Two. Three. Four. Five. Six. Seven. Eight. Nine. Ten. " * 3
    + "Well done, children."
)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@cache
def transcriber(choice: WhisperChoice) -> WhisperTranscriber:
    return WhisperTranscriber(choice)


@cache
def speech() -> tuple[Sound, list[float]]:
    """What is said, and when each sentence begins."""
    recordings, rate = speak_all(SAID)
    pieces, starts, at = [], [], 0.0
    for samples in (resample(samples, rate) for samples in recordings):
        pieces += [np.zeros(int(PAUSE_SECONDS * SAMPLE_RATE), np.int16), samples]
        starts.append(at + PAUSE_SECONDS)
        at += PAUSE_SECONDS + len(samples) / SAMPLE_RATE
    return np.concatenate(pieces), starts


def resample(samples: Sound, rate: int) -> Sound:
    times = np.arange(len(samples) * SAMPLE_RATE // rate) * rate / SAMPLE_RATE
    return np.interp(times, np.arange(len(samples)), samples).astype(np.int16)


def name_numbers(text: str) -> str:
    return re.sub(r"\d+", lambda found: f" {NUMBERS[min(int(found[0]), 10)]} ", text)


def write(path: Path, samples: Sound, rate: int = SAMPLE_RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes(samples.tobytes())
    return path


def make_noise(seconds: float) -> Sound:
    return np.random.default_rng(1).normal(0, 800, int(seconds * SAMPLE_RATE)).astype(np.int16)


async def test_speech_is_transcribed_with_its_times(tmp_path: Path) -> None:
    samples, starts = speech()
    duration, reports = len(samples) / SAMPLE_RATE, list[float]()
    heard = await transcriber("auto").transcribe(
        make_audio(write(tmp_path / "a.wav", samples), duration), reports.append
    )
    assert word_error_rate(" ".join(SAID), heard.text) < 0.1
    assert (heard.service, heard.language) == ("whisper-tiny.en", "en")
    assert " ".join(word.word for word in heard.words) == " ".join(segment.text for segment in heard.segments)
    assert all(0 <= word.start <= word.end <= duration and word.word == word.word.strip() for word in heard.words)
    assert all(one.end <= other.start for one, other in pairwise(heard.words))
    assert all(min(abs(segment.start - start) for segment in heard.segments) < 0.5 for start in starts)
    assert reports == sorted(reports)
    assert 0.9 < reports[-1] <= 1
    assert heard.usage.calls == 1


async def test_another_model_says_its_own_name(tmp_path: Path) -> None:
    samples = speech()[0][: 5 * SAMPLE_RATE]
    heard = await transcriber("base").transcribe(make_audio(write(tmp_path / "a.wav", samples), 5), ignore)
    assert (heard.service, heard.language) == ("whisper-base", "en")
    assert "planet Mars" in heard.text


def make_melody(seconds: float) -> Sound:
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = np.array([262, 294, 330, 349, 392, 440, 494, 523])[(times * 2).astype(int) % 8]
    note = np.exp(-3 * (times * 2 % 1)) * sum(np.sin(2 * np.pi * pitch * times * part) / part for part in range(1, 6))
    samples: Sound = (note / np.abs(note).max() * 12000).astype(np.int16)
    return samples


@pytest.mark.parametrize(
    "samples",
    [np.zeros(20 * SAMPLE_RATE, np.int16), make_noise(20), make_melody(30), np.zeros(0, np.int16)],
    ids=["silence", "noise", "melody", "nothing"],
)
async def test_audio_without_speech_has_an_empty_transcript(tmp_path: Path, samples: Sound) -> None:
    audio = make_audio(write(tmp_path / "a.wav", samples), len(samples) / SAMPLE_RATE)
    heard = await transcriber("auto").transcribe(audio, ignore)
    assert (heard.text, heard.words, heard.segments, heard.language) == ("", [], [], "und")
    assert heard.dropped == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (CHANT, {"want": 20}),
        (GYM, {"class": 1, "legs": 1, "three": 5, "down": 1}),
        (LESSON, {"learn": 1, "seven": 3, "ten": 3, "children": 1}),
    ],
    ids=["chant", "gym", "lesson"],
)
async def test_speech_that_repeats_itself_is_kept_with_what_is_said_around_it(
    tmp_path: Path, said: str, kept: dict[str, int]
) -> None:
    (samples,), rate = speak_all([said])
    samples = resample(samples, rate)
    audio = make_audio(write(tmp_path / "a.wav", samples), len(samples) / SAMPLE_RATE)
    heard = await transcriber("auto").transcribe(audio, ignore)
    spoken = name_numbers(heard.text)
    assert word_error_rate(said, spoken) < 0.4  # the small model hears "red" for "bread"
    counted = {word: len(re.findall(rf"\b{word}", spoken.lower())) for word in kept}
    assert all(abs(counted[word] - times) <= times // 5 for word, times in kept.items()), counted
    assert heard.dropped == []


async def test_speech_in_long_audio_is_where_it_was(tmp_path: Path) -> None:
    said, starts = speech()
    silence = np.zeros(100 * SAMPLE_RATE, np.int16)
    samples = np.concatenate((silence, said, silence, said))
    audio = make_audio(write(tmp_path / "a.wav", samples), len(samples) / SAMPLE_RATE)
    heard = await transcriber("tiny.en").transcribe(audio, ignore)
    firsts = [word.start for word in heard.words if word.word == "Scientists"]
    second = starts[1] + 100
    assert firsts == pytest.approx([second, second + 100 + len(said) / SAMPLE_RATE], abs=0.5)


async def test_a_cancelled_transcription_ends_soon_and_leaves_the_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = count()

    def recognize_next(*args: Any) -> RecognizedSpeech:
        next(pieces)
        return recognize_speech(*args)

    monkeypatch.setattr(whisper, "recognize_speech", recognize_next)
    samples = np.tile(speech()[0], 60)
    begun = asyncio.Event()
    audio = make_audio(write(tmp_path / "long.wav", samples), len(samples) / SAMPLE_RATE)
    call = asyncio.create_task(transcriber("tiny.en").transcribe(audio, lambda done: begun.set() if done > 0 else None))
    await asyncio.wait_for(begun.wait(), 300)
    waiting = asyncio.create_task(transcriber("tiny.en").transcribe(audio, ignore))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    short = make_audio(write(tmp_path / "short.wav", np.zeros(SAMPLE_RATE, np.int16)), 1)
    await transcriber("tiny.en").transcribe(short, ignore)
    assert next(pieces) < 5  # of more than ten


async def test_a_short_transcription_does_not_wait_for_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recognize(*args: Any) -> RecognizedSpeech:
        time.sleep(0.02)
        return RecognizedSpeech()

    monkeypatch.setattr(whisper, "recognize_speech", recognize_speech)
    long = make_audio(write(tmp_path / "long.wav", np.zeros(1800 * SAMPLE_RATE, np.int16)), 1800)
    short = make_audio(write(tmp_path / "short.wav", np.zeros(SAMPLE_RATE, np.int16)), 1)
    first = asyncio.create_task(transcriber("tiny.en").transcribe(long, ignore))
    await asyncio.sleep(0)
    await transcriber("tiny.en").transcribe(short, ignore)
    assert not first.done()
    await first


async def test_a_short_transcription_has_one_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    local = WhisperTranscriber("auto")
    thread = local._thread

    async def run(function: Any, progress: Any) -> Any:
        calls.append(function)
        return await thread._run_in_thread(function, progress)

    monkeypatch.setattr(thread, "run", run)
    audio = make_audio(write(tmp_path / "a.wav", speech()[0][: 5 * SAMPLE_RATE]), 5)
    assert (await local.transcribe(audio, ignore)).text
    assert len(calls) == 1


async def test_two_transcriptions_at_once_are_done_one_after_the_other(tmp_path: Path) -> None:
    audio = make_audio(write(tmp_path / "a.wav", speech()[0][: 5 * SAMPLE_RATE]), 5)
    one, other = await asyncio.gather(*(transcriber("tiny.en").transcribe(audio, ignore) for _ in range(2)))
    assert one.text == other.text != ""


@pytest.mark.parametrize("content", [b"", b"RIFF", b"this is not audio" * 100])
async def test_a_file_that_is_no_audio_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(StageFailed, match="not a WAV file that can be read"):
        await transcriber("tiny.en").transcribe(make_audio(path, 1), ignore)


async def test_audio_of_another_form_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(8000, np.int16), rate=8000)
    with pytest.raises(StageFailed, match="16 kHz"):
        await transcriber("tiny.en").transcribe(make_audio(path, 1), ignore)
