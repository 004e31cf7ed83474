"""Occurrences to jump to, and snippets."""

import pytest

from app.search.occurrences import MarkedText, Occurrence, choose_occurrences
from app.search.query import make_lexemes

TEXT = "Tea is fine. I drink hot coffee <b>now</b>, and hot tea later."
POSITIONS = {"tea": [1, 13], "hot": [6, 12], "coffee": [7], "now": [9]}
TIMES = {
    position: (position * 1000, position * 1000 + 500) for occurrences in POSITIONS.values() for position in occurrences
}


def test_words_that_are_said_together_are_one_occurrence_with_each_word_once() -> None:
    occurrences = MarkedText(TEXT, POSITIONS, TIMES).find_words([(["tea"], False, 3.0), (["hot"], False, 2.0)])
    assert occurrences == [
        Occurrence(0, 5, 5.0, 1000, 6500),
        Occurrence(11, 12, 5.0, 12_000, 13_500),
    ]


def test_words_that_are_far_from_each_other_are_occurrences_of_their_own() -> None:
    times = TIMES | {13: (60_000, 60_500)}
    occurrences = MarkedText(TEXT, POSITIONS, times).find_words([(["tea"], False, 3.0), (["hot"], False, 2.0)])
    assert [(occurrence.start, occurrence.weight) for occurrence in occurrences] == [
        (1000, 5.0),
        (12_000, 2.0),
        (60_000, 3.0),
    ]


def test_words_that_weigh_little_beside_others_are_no_occurrences() -> None:
    occurrences = MarkedText(TEXT, POSITIONS, TIMES).find_words([(["coffee"], False, 9.0), (["tea"], False, 1.0)])
    assert [occurrence.first for occurrence in occurrences] == [6]


def test_a_phrase_is_found_where_its_words_follow_each_other() -> None:
    text = MarkedText(TEXT, POSITIONS, TIMES)
    assert text.find_phrase(make_lexemes(["hot", "coffee"]), 1.0) == [Occurrence(5, 6, 1.0, 6000, 7500)]
    assert text.find_phrase(make_lexemes(["coffee", "hot"]), 1.0) == []


def test_words_that_weigh_little_are_occurrences_where_no_other_one_is_said() -> None:
    text = MarkedText(TEXT, POSITIONS, TIMES)
    words = [(["hot"], False, 1.0), (["coffee"], False, 5.0)]
    assert [(occurrence.first, occurrence.last) for occurrence in text.find_words(words)] == [(6, 6)]
    assert [
        (occurrence.first, occurrence.last) for occurrence in text.find_words([*words[:1], (["milk"], False, 5.0)])
    ] == [
        (5, 5),
        (11, 11),
    ]


def test_without_times_there_are_occurrences_all_the_same() -> None:
    assert MarkedText(TEXT, POSITIONS).find_phrase(make_lexemes(["hot", "tea"]), 1.0) == [Occurrence(11, 12, 1.0)]


def test_a_snippet_is_the_sentence_around_an_occurrence_as_html() -> None:
    text = MarkedText(TEXT, POSITIONS, TIMES)
    (occurrence,) = text.find_phrase(make_lexemes(["hot", "coffee"]), 1.0)
    assert text.make_snippet(occurrence, {5, 6, 8}) == (
        "I drink <mark>hot</mark> <mark>coffee</mark> &lt;b&gt;<mark>now</mark>&lt;/b&gt;, and hot tea later."
    )


def test_a_long_sentence_is_shown_from_a_few_words_before_the_occurrence_on() -> None:
    text = MarkedText(" ".join(f"w{number}" for number in range(200)), {"w100": [101]})
    (occurrence,) = text.find_words([(["w100"], False, 1.0)])
    snippet = text.make_snippet(occurrence, {100})
    assert snippet.startswith("w88 ")
    assert snippet.endswith(" w127")
    assert "<mark>w100</mark>" in snippet


@pytest.mark.parametrize("text", ["", "...", "\x02\x03"])
def test_a_text_without_words_is_shown_without_controls(text: str) -> None:
    assert MarkedText(text, {}).make_html(set()) == text.strip("\x02\x03")


def test_occurrences_of_passages_that_overlap_are_chosen_once_the_heaviest_in_their_order() -> None:
    occurrences = [
        Occurrence(50, 51, 2.0, 5000, 6000),
        Occurrence(0, 1, 2.0, 5000, 6000),
        Occurrence(2, 3, 1.5, 6000, 7000),
        Occurrence(4, 5, 3.0, 9000, 9500),
        Occurrence(6, 7, 1.0, 20_000, 21_000),
        Occurrence(8, 9, 3.0),
    ]
    assert [occurrence.start for occurrence in choose_occurrences(occurrences, 10)] == [5000, 6000, 9000]
    assert [occurrence.start for occurrence in choose_occurrences(occurrences, 2)] == [5000, 9000]


def test_occurrences_that_are_near_a_heavier_one_are_left_out_where_a_gap_is_asked_for() -> None:
    occurrences = [
        Occurrence(at, at, weight, at * 1000, at * 1000 + 500)
        for at, weight in ((0, 2.0), (20, 3.0), (45, 2.0), (52, 2.5))
    ]
    assert [occurrence.first for occurrence in choose_occurrences(occurrences, 10, 30_000)] == [20, 52]
