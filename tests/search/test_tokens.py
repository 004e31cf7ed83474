"""Words as they are indexed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.tokens import (
    ends_sentence,
    fold_word,
    list_tokens,
    list_word_spans,
    split_into_words,
    split_off_punctuation,
)


@pytest.mark.parametrize(
    ("word", "tokens"),
    [
        ("Learning,", ["learning"]),
        ("C++,", ["c++", "c"]),
        ("C#", ["c#", "c"]),
        (".NET", ["net"]),
        ("AT&T", ["at&t", "at", "t"]),
        ("don\u2019t", ["don't", "dont", "don", "t"]),
        ("U.S.", ["u.s", "us", "u", "s"]),
        ("well-known", ["well-known", "well", "known"]),
        ("https://example.com/a?b=c", ["https://example.com/a?b=c", "https", "example", "com", "a", "b", "c"]),
        ("me@example.com", ["me@example.com", "me", "example", "com"]),
        ("#MeToo", ["metoo"]),
        ("Z\u00fcrich", ["zurich"]),
        ("Zu\u0308rich", ["zurich"]),
        ("Stra\u00dfe", ["strasse"]),
        ("\uff21\uff22\uff23", ["abc"]),
        ("\u0130stanbul", ["istanbul"]),
        ("\u0401\u043b\u043a\u0430", ["\u0435\u043b\u043a\u0430"]),
        ("\u0439\u043e\u0434", ["\u0439\u043e\u0434"]),
        ("\u0386\u03bb\u03c6\u03b1", ["\u03b1\u03bb\u03c6\u03b1"]),
        ("\u0639\u0631\u0628\u064a\u0651", ["\u0639\u0631\u0628\u064a"]),
        ("\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd", ["\u05e9\u05dc\u05d5\u05dd"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        ("\u2764\ufe0f", ["\u2764"]),
        *(("\u2014", []), ("...", []), ("\u0301", []), ("", [])),
    ],
)
def test_a_word_is_found_by_itself_and_by_its_parts(word: str, tokens: list[str]) -> None:
    assert list(list_tokens(word)) == tokens


@pytest.mark.parametrize("apostrophe", ["\u2018", "\u2019", "\u02bc", "\u00b4", "\u1ffd", "`", "\uff07"])
def test_any_apostrophe_gives_the_same_tokens(apostrophe: str) -> None:
    for word in ("don't", "'word'", "Gr\u00fc\u00df'"):
        assert list_tokens(word.replace("'", apostrophe)) == list_tokens(word)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Good  morning,\neverybody", ["Good", "morning,", "everybody"]),
        ("\u4eca\u65e5\u3001Tokyo\u3067", ["\u4eca", "\u65e5\u3001", "Tokyo", "\u3067"]),
        ("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", ["\u0e2a", "\u0e27\u0e31", "\u0e2a", "\u0e14\u0e35"]),
        ("that\u2014this (here)", ["that\u2014", "this (", "here)"]),
        ("<b>bold</b>", ["<b>", "bold<", "/b>"]),
        ("A \u2014 B ...", ["A \u2014", "B ..."]),
        ("\u2014 ...", []),
    ],
)  # fmt: skip
def test_a_text_is_split_into_words(text: str, words: list[str]) -> None:
    assert split_into_words(text) == words


@given(st.text())
def test_each_word_has_a_token_and_none_is_lost(text: str) -> None:
    spans = list_word_spans(text)
    assert [text[first:after] for first, after in spans] == split_into_words(text)
    assert all(list_tokens(word) for word in split_into_words(text))
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        assert split_into_words(text[first:after]) == []


@given(st.text())
def test_folding_again_changes_nothing(text: str) -> None:
    for word in split_into_words(text):
        folded = fold_word(word)
        assert fold_word(folded) == folded
        assert (folded in list_tokens(word)) is bool(list_tokens(word))


@pytest.mark.parametrize("word", ["end.", "end?", 'end."', "end\u3002", "end!)", "end\u2026"])
def test_a_sentence_ends_with_its_sign(word: str) -> None:
    assert ends_sentence(word)
    assert not ends_sentence("end")
    assert not ends_sentence("3.5")


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("(C++),", ("(", "C++", "),")),
        ("\u0939\u093f\u0928\u094d\u0926\u0940\u0964", ("", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0964")),
        ("_x_", ("_", "x", "_")),
        ("...", ("", "", "...")),
    ],
)
def test_punctuation_is_split_off(word: str, parts: tuple[str, str, str]) -> None:
    assert split_off_punctuation(word) == parts


@given(
    st.lists(
        st.sampled_from(["word", "don't", "AT&T,", "-", "a|b", "\u2019s", "...", "", "x.", "(y)", "\u5929", "c++"])
    )
)
def test_simple_texts_are_split_as_all_others(pieces: list[str]) -> None:
    text = " ".join(pieces)
    spans = list_word_spans(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.search.tokens._SIMPLE_TEXT", re.compile("(?!)"))
        assert list_word_spans(text) == spans
