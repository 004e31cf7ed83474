"""What transcription services answer, held against the audio."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.protocols import Segment, Word
from app.ai.transcript_parsing import (
    TranscriptionAnswerFields,
    UnusableTranscript,
    parse_timed_transcript,
    parse_transcription_answer,
)
from app.core.errors import ModelAnswerInvalid

FIELDS = TranscriptionAnswerFields("text", "words", "segments")


def word(text: Any, start: Any = None, end: Any = None) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end}


def segment(text: Any, start: Any = None, end: Any = None) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end}


def test_words_and_segments_are_taken_as_they_come() -> None:
    timeline = parse_timed_transcript(
        [word(" Oh,", 5.76, 5.92), word("there", "6", 6.2)], [segment("Oh, there", 5.76, 6.2)], 10
    )
    assert list(timeline.words) == [Word("Oh,", 5.76, 5.92), Word("there", 6.0, 6.2)]
    assert list(timeline.segments) == [Segment("Oh, there", 5.76, 6.2)]


def test_words_that_are_missing_are_spread_over_their_segment() -> None:
    timeline = parse_timed_transcript(None, [segment("one three", 4, 8)], 10)
    assert list(timeline.words) == [Word("one", 4.0, 5.5), Word("three", 5.5, 8.0)]


@pytest.mark.parametrize("words", [[], [word("one"), word("three")], [word("one", float("nan"), 5)]])
def test_words_without_any_time_are_as_missing(words: Any) -> None:
    assert parse_timed_transcript(words, [segment("one three", 4, 8)], 10).words[1] == Word("three", 5.5, 8.0)


def test_segments_that_are_missing_are_made_at_pauses_and_ends_of_sentences() -> None:
    words = [word("So.", 1, 1.5), word("And", 1.6, 2), word("then", 2, 2.4), word("later", 5, 5.5)]
    texts = [(each.text, each.start, each.end) for each in parse_timed_transcript(words, None, 10).segments]
    assert texts == [("So.", 1.0, 1.5), ("And then", 1.6, 2.4), ("later", 5.0, 5.5)]


def test_a_word_without_times_takes_those_between_its_neighbours() -> None:
    words = [word("in", 1, 1.5), word("1984"), word("so", 2, 2.5), word("end")]
    assert [(each.start, each.end) for each in parse_timed_transcript(words, None, 10).words] == [
        (1.0, 1.5),
        (1.5, 2.0),
        (2.0, 2.5),
        (2.5, 2.5),
    ]


def test_times_that_run_back_a_little_are_sorted() -> None:
    timeline = parse_timed_transcript([word("b", 2, 3), word("a", 1, 2.5), word("c", 5, 4)], [segment("x", 3, 1)], 10)
    assert [each.word for each in timeline.words] == ["a", "b", "c"]
    assert [each.end for each in timeline.words] == [2.0, 3.0, 5.0]
    assert list(timeline.segments) == [Segment("x", 3.0, 3.0)]


def test_times_a_little_outside_the_audio_are_brought_inside() -> None:
    timeline = parse_timed_transcript([word("a", -0.1, 1), word("b", 9.9, 30), word("c", 10.4, 10.6)], None, 10)
    assert [(each.start, each.end) for each in timeline.words] == [(0.0, 1.0), (9.9, 10.0), (10.0, 10.0)]


def test_times_that_begin_again_are_those_of_a_service_that_forgot_an_offset() -> None:
    words = [word(str(n), n % 60.0, n % 60.0 + 0.5) for n in range(120)]
    with pytest.raises(UnusableTranscript, match=r"run backwards, from 59\.00 to 0\.00"):
        parse_timed_transcript(words, None, 120)


@pytest.mark.parametrize(
    ("words", "segments", "reason"),
    [
        ([word("a", 30, 31)], None, "at 30.00 seconds, and the audio takes 10.00"),
        ([word("a", -5, 1)], None, "at -5.00 seconds"),
        (None, [segment("a", 500, 501)], "at 500.00 seconds"),
        (None, [segment("a", 1, 2), segment("b")], "a text has no times"),
        (None, [segment("a", float("nan"), 2)], "a text has no times"),
        ("words", None, "not a list"),
        (None, {"a": 1}, "not a list"),
        (["a"], None, "not an object"),
        ([word(5, 1, 2)], None, "not an object with its text"),
        ([word(None, 1, 2)], None, "not an object with its text"),
    ],
)
def test_times_that_cannot_be_are_refused(words: Any, segments: Any, reason: str) -> None:
    with pytest.raises(UnusableTranscript, match=reason.replace(".", r"\.")):
        parse_timed_transcript(words, segments, 10)


@pytest.mark.parametrize(
    "answer", [{"text": ""}, {"text": " ", "words": [], "segments": []}, {"text": "", "words": None}]
)
def test_audio_in_which_nobody_speaks_has_an_empty_transcript(answer: Any) -> None:
    text, timeline = parse_transcription_answer("Mine", answer, FIELDS, 10)
    assert (text, list(timeline.words), list(timeline.segments)) == ("", [], [])


@pytest.mark.parametrize("answer", [{"text": "Hello."}, [], None, "Hello.", 5, True, {"text": "", "words": 5}])
def test_an_answer_that_cannot_be_used_is_kept(answer: Any) -> None:
    with pytest.raises(ModelAnswerInvalid, match="The transcript of Mine cannot be used") as caught:
        parse_transcription_answer("Mine", answer, FIELDS, 10)
    assert caught.value.raw


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"text": None},
        {"text": 5},
        {"text": ["Hello."]},
        {"text": {"value": "Hello."}},
        {"transcript": "Hello.", "segments": []},
        {"segments": [segment("Hello.", 1, 2)]},
        {"words": [word("Hello.", 1, 2)]},
        {"error": {"message": "no model is loaded"}},
        {"text": "", "error": "out of memory"},
        {"detail": "Not Found"},
    ],
)
def test_an_answer_without_a_text_is_not_taken_for_silence(answer: Any) -> None:
    with pytest.raises(ModelAnswerInvalid, match="The transcript of Mine cannot be used: it") as caught:
        parse_transcription_answer("Mine", answer, FIELDS, 10)
    assert json.loads(caught.value.raw) == answer


def test_an_empty_text_beside_segments_is_theirs() -> None:
    answer = {"text": "", "segments": [segment("One.", 1, 2), segment("Two\x00 ", 3, 4)]}
    assert parse_transcription_answer("Mine", answer, FIELDS, 10)[0] == "One. Two"


_TIMES = st.none() | st.floats(-2, 12) | st.sampled_from([float("nan"), float("inf"), "5", "x", [], True])


_WORDS = st.lists(st.builds(word, st.text(max_size=3), _TIMES, _TIMES))
_SEGMENTS = st.lists(st.builds(segment, st.text(max_size=3), _TIMES, _TIMES))


@given(_WORDS, st.none() | _SEGMENTS)
def test_whatever_is_answered_what_is_kept_is_in_order_and_inside(words: Any, segments: Any) -> None:
    try:
        timeline = parse_timed_transcript(words, segments, 10.0)
    except UnusableTranscript:
        return
    for times in ([(w.start, w.end) for w in timeline.words], [(s.start, s.end) for s in timeline.segments]):
        assert all(0 <= start <= end <= 10 for start, end in times)
        assert all(one[0] <= other[0] for one, other in pairwise(times))
    assert all(one.end <= other.start for one, other in pairwise(timeline.words))
