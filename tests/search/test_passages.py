"""Transcripts in passages, and the times of their words."""

from itertools import pairwise
from random import Random
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.passages import split_into_parts, split_into_passages
from app.search.timed_words import TimedWord, list_timed_words
from app.search.tokens import list_tokens, split_into_words


def make_words(text: str) -> list[dict[str, Any]]:
    """A word each second."""
    return [{"word": word, "start": float(at), "end": at + 0.5} for at, word in enumerate(text.split())]


def list_times(words: list[TimedWord]) -> list[tuple[str, float | None]]:
    return [(word.text, word.start) for word in words]


def test_words_have_their_own_times() -> None:
    timed = list_timed_words("Good morning, you.", make_words("Good morning, you."), [])
    assert timed == [TimedWord("Good", 0.0, 0.5), TimedWord("morning,", 1.0, 1.5), TimedWord("you.", 2.0, 2.5)]


def test_words_without_times_have_those_of_their_segment() -> None:
    segments = [{"text": "Good morning,", "start": 1, "end": 3}, {"text": "you.", "start": 3, "end": 4}]
    assert list_times(list_timed_words("Good morning, you.", [], segments)) == [
        ("Good", 1.0),
        ("morning,", 1.0),
        ("you.", 3.0),
    ]


def test_words_of_a_text_that_was_corrected_keep_their_times_or_get_those_of_their_neighbours() -> None:
    timed = list_timed_words("Good evening dear you all.", make_words("Good morning you all."), [])
    assert list_times(timed) == [("Good", 0.0), ("evening", 0.5), ("dear", 0.5), ("you", 2.0), ("all.", 3.0)]
    assert timed[1].end == 2.0


@pytest.mark.parametrize(
    "timestamps",
    [
        *([], {}, None, "text", 5, [None], ["text"], [5], [{}], [{"word": "all"}]),
        [{"word": "Good", "start": "0", "end": 1}],
        [{"word": "Good", "start": True, "end": 1}],
        [{"word": "Good", "start": 10**400, "end": 10**400}],
        [{"word": "Good", "start": float("nan"), "end": 1.0}],
        [{"word": 5, "start": 0, "end": 1}],
        make_words("Something else entirely is said here"),
    ],
    ids=lambda timestamps: str(timestamps)[:40],
)
def test_a_text_without_its_timestamps_has_no_times(timestamps: Any) -> None:
    timed = list_timed_words("Good morning, you.", timestamps, timestamps)
    assert list_times(timed) == [("Good", None), ("morning,", None), ("you.", None)]


def test_a_malformed_word_costs_only_its_own_time() -> None:
    words = make_words("Good morning you all")
    words[1]["start"] = None
    assert list_times(list_timed_words("Good morning you all", words, [])) == [
        *(("Good", 0.0), ("morning", 0.5), ("you", 2.0), ("all", 3.0)),
    ]


@pytest.mark.parametrize(
    ("text", "words", "starts"),
    [
        ("It cost 10,000 in all.", "It cost 10 000 in all", [0, 1, 2, 4, 5]),
        ("A well-known man", "A well known man", [0, 1, 3]),
        ("A well known man", "A well-known man", [0, 1, 1, 2]),
        ("I don\u2019t know", "I do n't know", [0, 1, 3]),
        ("Caf\u00e9s, you know \u2014 all", "cafes - you know all", [0, 1 + 1, 3, 4]),
        ("It is set-up by a-b-c-d", "It is setup by a b c d", [0, 1, 2, 3, 4]),
        ("Now \u5929\u6c17 here", "Now \u5929\u6c17 here", [0, 1, 1, 2]),
        ("So \u2764 it, not that", "So \u2764 it not those", [0, 1, 2, 3, 3.5]),
    ],
)
def test_words_that_are_divided_in_another_way_have_their_own_times(text: str, words: str, starts: list[float]) -> None:
    segments = [{"text": text, "start": 0, "end": 100}]
    assert [word.start for word in list_timed_words(text, make_words(words), segments)] == starts


def test_a_word_of_several_timed_words_lasts_from_the_first_to_the_last() -> None:
    assert list_timed_words("Some 10,000 men", make_words("Some 10 000 men"), [])[1] == TimedWord("10,000", 1.0, 2.5)


def test_words_without_times_among_others_have_those_of_their_segments_between_their_neighbours() -> None:
    segments = [
        {"text": "Good morning you all", "start": 0, "end": 10},
        {"text": "and welcome", "start": 10, "end": 12},
    ]
    timed = list_timed_words("Good morning you all and welcome", make_words("Good day you all"), segments)
    assert [(word.start, word.end) for word in timed] == [
        *((0.0, 0.5), (0.5, 2.0), (2.0, 2.5), (3.0, 3.5), (10.0, 12.0), (10.0, 12.0)),
    ]


def test_times_of_another_text_are_not_used_where_those_of_the_segments_are_of_this_one() -> None:
    segments = [{"text": "Good morning you all", "start": 5, "end": 10}]
    timed = list_timed_words("Good morning you all", make_words("Something else is said to you here"), segments)
    assert {word.start for word in timed} == {5.0}


@pytest.mark.parametrize("vocabulary", [100, 20_000])
def test_long_texts_with_other_words_here_and_there_are_aligned_fast(vocabulary: int) -> None:
    chosen = Random(1)  # noqa: S311
    text = [f"w{chosen.randrange(vocabulary)}-x" for _ in range(50_000)]
    said = make_words(" ".join(text).replace("-", " "))
    for at in range(500, len(said), 1000):
        said[at]["word"] = "other"
    before = perf_counter()
    timed = list_timed_words(" ".join(text), said, [])
    assert perf_counter() - before < 20
    right = sum(abs((word.start or 0.0) - 2 * at) <= 1 for at, word in enumerate(timed))
    assert right > 0.99 * len(text)


@given(
    st.lists(st.sampled_from(["a", "b-c", "bc", "d", "10,000", "10", "000", "\u5929", "\u2764"]), max_size=40),
    st.lists(st.sampled_from(["a", "b-c", "bc", "d", "10,000", "10", "000", "\u5929", "\u2764"]), max_size=40),
)
def test_times_never_go_back_and_all_words_stay(text: list[str], said: list[str]) -> None:
    words = list_timed_words(" ".join(text), make_words(" ".join(said)), [])
    assert [word.text for word in words] == split_into_words(" ".join(text))
    times = [(word.start, word.end) for word in words if word.start is not None and word.end is not None]
    assert len(times) in (0, len(words))
    assert all(start <= end for start, end in times)
    assert all(one[0] <= other[0] for one, other in pairwise(times))


def test_a_passage_has_about_200_words_shares_about_40_and_ends_with_a_sentence() -> None:
    sentence = "One two three four five six seven eight nine ten."
    passages = split_into_passages([TimedWord(word) for word in (sentence + " ").split() * 50])
    assert all(160 <= len(passage.words) <= 220 for passage in passages[:-1])
    assert all(passage.words[-1].text == "ten." and passage.words[0].text == "One" for passage in passages)
    shared = [set(map(id, one.words)) & set(map(id, other.words)) for one, other in pairwise(passages)]
    assert all(25 <= len(each) <= 60 for each in shared)


@given(st.lists(st.sampled_from(["word", "end.", "\u5929", "\u3002"]), max_size=1500))
def test_each_word_is_in_a_passage_and_any_twenty_that_follow_each_other_are_in_one(texts: list[str]) -> None:
    words = [TimedWord(text, float(at), float(at)) for at, text in enumerate(texts)]
    passages = split_into_passages(words)
    ranges = [(int(passage.words[0].start or 0), int(passage.words[-1].start or 0)) for passage in passages]
    for first in range(max(len(words) - 19, 0)):
        assert any(begin <= first and first + 19 <= end for begin, end in ranges)
    assert len(words) == (ranges[-1][1] + 1 if ranges else 0)
    assert all(passage.text.count("word") == sum(word.text == "word" for word in passage.words) for passage in passages)


@given(st.text(), st.lists(st.text(), max_size=5))
def test_the_text_of_a_passage_has_its_words_again(text: str, entries: list[str]) -> None:
    timestamps = [{"text": entry, "start": 0, "end": 1} for entry in entries]
    for words in (list_timed_words(text, [], []), list_timed_words("".join(entries), [], timestamps)):
        for passage in split_into_passages(words):
            again = split_into_words(passage.text)
            assert [list_tokens(word) for word in again] == [list_tokens(word.text) for word in passage.words]


def test_a_passage_is_divided_into_parts_of_about_100_words_that_end_with_sentences() -> None:
    sentence = "One two three four five six seven eight nine ten. "
    parts = split_into_parts((sentence * 20).strip())
    assert [(part.first, part.last) for part in parts] == [(0, 99), (100, 199)]
    assert parts[0].text == (sentence * 10).strip()


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("\u2014", 0), ("One.", 1), ("\u5929\u6c17" * 100, 1), ("a " * 200, 2), ("a " * 280, 3)],
)
def test_a_passage_has_as_many_parts_as_it_needs(text: str, count: int) -> None:
    assert len(split_into_parts(text)) == count


@given(st.lists(st.sampled_from(["word", "end.", "\u5929", "\u3002", " ", "-"]), max_size=600))
def test_each_word_of_a_passage_is_in_one_part(pieces: list[str]) -> None:
    text = " ".join(pieces)
    words = split_into_words(text)
    parts = split_into_parts(text)
    assert [index for part in parts for index in range(part.first, part.last + 1)] == list(range(len(words)))
    assert all(split_into_words(part.text) == words[part.first : part.last + 1] for part in parts)
