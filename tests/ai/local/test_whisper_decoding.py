"""Words of audio that Whisper loops over, leaves out or invents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from app.ai.local import whisper_decoding
from app.ai.local.whisper_decoding import SAMPLE_RATE, drop_repetition_tail, recognize_speech
from app.ai.protocols import Word


@dataclass
class HeardWord:
    word: str
    start: float
    end: float


@dataclass
class HeardSegment:
    start: float
    end: float
    words: Sequence[HeardWord]
    compression_ratio: float = 1.0
    avg_logprob: float = -0.2
    seek: int = 0


@dataclass
class ScriptedWhisper:
    """Gives one answer after the other; the last one again and again."""

    answers: list[list[HeardSegment]]
    temperatures: list[list[float]] = field(default_factory=list)

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterator[HeardSegment], None]:
        self.temperatures.append(options["temperature"])
        return iter(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]), None


def heard(*words: str, start: float = 0.0, pace: float = 0.4, **values: Any) -> list[HeardSegment]:
    times = [start + number * pace for number in range(len(words) + 1)]
    each = [HeardWord(f" {word}", *span) for word, *span in zip(words, times, times[1:], strict=False)]
    return [HeardSegment(start, times[-1], each, **values)]


def run(model: ScriptedWhisper, seconds: float, monkeypatch: pytest.MonkeyPatch) -> whisper_decoding.RecognizedSpeech:
    monkeypatch.setattr(whisper_decoding, "_find_speech_spans", lambda audio: [(0.0, seconds)])
    whisper: Any = model
    return recognize_speech(
        whisper, np.zeros(int(seconds * SAMPLE_RATE), np.float32), "en", lambda _: None, lambda: None
    )


def words_of(found: whisper_decoding.RecognizedSpeech) -> list[str]:
    return [word.word for word in found.words]


def test_words_at_the_end_of_a_loop_that_have_no_audio_go() -> None:
    spoken = [Word("one", 0.0, 0.4), Word("two", 0.4, 0.4), Word("three", 0.4, 0.9)]
    assert drop_repetition_tail([*spoken, *[Word("three", 0.9, 0.9)] * 5]) == spoken


def test_a_window_that_was_heard_well_is_not_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ScriptedWhisper([heard("all", "is", "well")])
    assert words_of(run(model, 2.0, monkeypatch)) == ["all", "is", "well"]
    assert model.temperatures == [[0.0]]


def test_repetitive_text_is_heard_again_and_kept_where_it_has_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    chant = heard(*["bread"] * 10, compression_ratio=5.0)
    found = run(ScriptedWhisper([chant]), 5.0, monkeypatch)
    assert words_of(found) == ["bread"] * 10
    assert found.dropped == []


def test_a_loop_is_tried_at_the_other_temperatures_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = heard(*["bread"] * 10, pace=0.001, compression_ratio=5.0)
    model = ScriptedWhisper([loop, loop, heard("we", "want", "bread")])
    assert words_of(run(model, 4.0, monkeypatch)) == ["we", "want", "bread"]
    assert model.temperatures == [[0.0], [0.0], [0.2, 0.4, 0.6, 0.8, 1.0]]


def test_a_loop_at_every_temperature_is_dropped_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = heard(*["thanks"] * 100, pace=0.001, compression_ratio=20.0)
    found = run(ScriptedWhisper([loop]), 4.0, monkeypatch)
    assert (found.words, found.dropped) == ([], [(0.0, 4.0)])


def test_improbable_text_is_dropped_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(ScriptedWhisper([heard("mumble", avg_logprob=-1.5)]), 4.0, monkeypatch)
    assert (found.words, found.dropped) == ([], [(0.0, 4.0)])


def test_speech_that_was_left_out_behind_words_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(ScriptedWhisper([heard("first", "part"), heard("second", "part")]), 8.0, monkeypatch)
    assert words_of(found) == ["first", "part", "second", "part"]
    assert found.words[2].start > 1.0


def test_a_few_words_for_much_speech_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = [HeardSegment(0.0, 20.0, [HeardWord(" we", 0.0, 0.2), HeardWord(" bread", 0.2, 20.0)])]
    found = run(ScriptedWhisper([sparse, heard("we", "want", "bread")]), 20.0, monkeypatch)
    assert words_of(found)[:6] == ["we", "want", "bread"] * 2


def test_where_nothing_is_recognised_nothing_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(ScriptedWhisper([[]]), 20.0, monkeypatch)
    assert (found.words, found.dropped) == ([], [])


def test_punctuation_and_notes_without_a_word_are_nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(ScriptedWhisper([heard(".", "♪", pace=0.9)]), 2.0, monkeypatch)
    assert (found.words, found.dropped) == ([], [])
