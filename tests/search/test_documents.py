"""Documents: lexemes and their positions."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.database import Connection
from app.search.documents import get_stemmer, list_stemmed_forms, make_document
from app.search.tokens import MAX_TOKEN_LENGTH, list_tokens, split_into_words
from tests.migrations.rows import fetch


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("The end \u2014 the END.", "'the':1,3 'end':2,4"),
        ("They learned", "'they':1 'learned':2 '~learn':2"),
        ("don't", "'don''t':1 'dont':1 'don':1 't':1"),
        ("a\\b", "'a\\\\b':1 'ab':1 'a':1 'b':1"),
        ("\u3044\u3044\u5929\u6c17\u3002now", "'\u3044\u3044':1 '\u3044\u5929':2 '\u5929\u6c17':3 '\u6c17':4 'now':5"),
        ("\u2014 ...", ""),
    ],
)
def test_a_document_has_the_positions_of_words_of_their_stems_and_of_pairs_of_characters(
    text: str, document: str
) -> None:
    assert make_document(split_into_words(text), {"learned": ["learn"], "the": [], "end": ["end"]}) == document


def test_stems_are_those_of_a_word_with_and_without_accents_and_of_its_parts() -> None:
    assert list_stemmed_forms("H\u00e4user,") == ("hauser", "h\u00e4user")
    assert list_stemmed_forms("well-known") == ("well", "known")
    assert list_stemmed_forms("3.5") == list_stemmed_forms("\u5929") == ()


@pytest.mark.parametrize(
    "word",
    [
        "\u0915\u093f\u0924\u093e\u092c\u0947\u0902",  # Hindi
        "\u0915\u093f\u0924\u093e\u092c\u0939\u0930\u0942",  # Nepali
        "\u0baa\u0bc1\u0ba4\u0bcd\u0ba4\u0b95\u0b99\u0bcd\u0b95\u0bb3\u0bcd",  # Tamil
    ],
)
def test_words_with_vowel_signs_have_stemmed_forms(word: str) -> None:
    assert list_stemmed_forms(word) == (word,)
    assert list_stemmed_forms(word + ",") == (word,)


def test_marks_without_a_letter_have_no_stemmed_forms() -> None:
    assert list_stemmed_forms("\u0301") == list_stemmed_forms("\u2764\ufe0f") == ()


def test_a_letter_with_a_combining_mark_has_the_stemmed_forms_of_the_composed_letter() -> None:
    assert list_stemmed_forms("Ha\u0308user") == ("hauser", "h\u00e4user")


@pytest.mark.parametrize("apostrophe", ["\u2018", "\u2019", "\u02bc", "\u00b4", "`"])
def test_any_apostrophe_gives_the_same_stemmed_forms(apostrophe: str) -> None:
    for word in ("don't", "l'\u00e9t\u00e9", "'\u00e9t\u00e9'"):
        assert list_stemmed_forms(word.replace("'", apostrophe)) == list_stemmed_forms(word)


@pytest.mark.parametrize("letter", ["a", "\u00c9", "\u0130", "\u0915", "\U00010330"])
async def test_postgresql_reads_the_stems_of_a_word_of_any_length(letter: str, conn: Connection) -> None:
    word = letter * 3000
    forms = list_stemmed_forms(word)
    assert forms
    assert max(map(len, forms)) <= MAX_TOKEN_LENGTH
    document = make_document([word], {form: [f"{form}x", form] for form in forms})
    ((count,),) = await fetch(conn, "SELECT length(%s::tsvector)", document)
    assert count > 1


@pytest.mark.parametrize(
    ("language", "stemmer"),
    [
        *(("en", "english_stem"), ("EN", "english_stem"), ("en-GB", "english_stem"), ("pt_BR", "portuguese_stem")),
        *(("english", "english_stem"), ("German", "german_stem"), ("ja", None), ("", None), ("klingon", None)),
    ],
)
def test_a_stemmer_is_that_of_the_language(language: str, stemmer: str | None) -> None:
    assert get_stemmer(language) == stemmer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it only reads
@given(text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
async def test_postgresql_reads_any_document(text: str, conn: Connection) -> None:
    words = split_into_words(text)
    ((count,),) = await fetch(conn, "SELECT length(%s::tsvector)", make_document(words, {}))
    assert (count > 0) is any(list_tokens(word) for word in words)


async def test_a_very_long_document_is_no_error(conn: Connection) -> None:
    document = make_document(["same", "x" * 5000, *map(str, range(20_000)), *["same"] * 1000], {})
    ((count,),) = await fetch(conn, "SELECT length(%s::tsvector)", document)
    assert count == 20_002
