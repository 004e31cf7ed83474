"""What people type into a search box."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.database import Connection
from app.search.query import list_phrase_parts, list_ranking_words, parse_query, replace_words
from app.search.ranking import RankedWord, choose_matches
from tests.migrations.rows import fetch


@pytest.mark.parametrize(
    ("text", "words", "required", "excluded"),
    [
        ("machine learning", ["'machine'", "'learning'"], [], []),
        ('"machine learning" today', ["'machine'", "'learning'", "'today'"], [["'machine' <1> 'learning'"]], []),
        ("\u201cmachine learning\u201d", ["'machine'", "'learning'"], [["'machine' <1> 'learning'"]], []),
        ("+machine learning", ["'machine'", "'learning'"], [["'machine'"]], []),
        ('machine -learning -"of today"', ["'machine'"], [], ["'learning'", "'of' <1> 'today'"]),
        ('"a b" or c', ["'a'", "'b'", "'c'"], [["'a' <1> 'b'", "'c'"]], []),
        ("a or b", ["'a'", "'b'"], [], []),
        ("or a or", ["'a'"], [], []),
        ("C++ AT&T don't", ["'c++'", "'at&t'", "'don''t'"], [], []),
        ("a - b -- c ---d", ["'a'", "'b'", "'c'", "'d'"], [], []),
        ('foo"bar baz', ["'foo'", "'bar'", "'baz'"], [["'bar' <1> 'baz'"]], []),
        ("\u3044\u3044\u5929\u6c17", ["'\u3044\u3044'", "'\u3044\u5929'", "'\u5929\u6c17'"], [], []),
        ("\u5929", ["'\u5929':*"], [], []),
        ('"\u5929\u6c17 now"', ["'\u5929\u6c17'", "'now'"], [["'\u5929\u6c17' <1> '\u6c17' <1> 'now'"]], []),
        *((text, [], [], []) for text in ("", '"', '""', "-", "+", "or", "\u2014", "-" * 33, '-"', "+-", "' \" '")),
    ],
)
def test_a_query_has_words_that_rank_and_what_must_and_must_not_be_said(
    text: str, words: list[str], required: list[list[str]], excluded: list[str]
) -> None:
    query = parse_query(text)
    assert [lexemes.to_tsquery() for _, lexemes in list_ranking_words(query.terms)] == words
    assert [
        [part.to_tsquery() for term in group for part in list_phrase_parts(term)] for group in query.required
    ] == required
    assert [part.to_tsquery() for term in query.excluded for part in list_phrase_parts(term)] == excluded


@pytest.mark.parametrize(
    ("text", "words", "prefix"),
    [
        ("ripe tomat", ["ripe"], "tomat"),
        ("ripe tomat ", ["ripe", "tomat"], ""),
        ('ripe "tomat"', ["ripe", "tomat"], ""),
        ("ripe -tomat", ["ripe"], ""),
        ("tomat", [], "tomat"),
        ("well-known\u5929", ["\u5929"], ""),
        ("", [], ""),
    ],
)
def test_the_last_word_may_go_on_in_a_search_as_you_type(text: str, words: list[str], prefix: str) -> None:
    query = parse_query(text, as_you_type=True)
    assert query.prefix == prefix
    assert [word for term in query.terms for word in term.words if word != "well-known"] == words


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it only reads
@given(text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
async def test_postgresql_reads_any_query(text: str, conn: Connection) -> None:
    for query in (parse_query(text), parse_query(text, as_you_type=True)):
        lexemes = [lexemes for _, lexemes in list_ranking_words(query.terms)]
        parts = [part for group in query.required for term in group for part in list_phrase_parts(term)]
        asked = [each.to_tsquery() for each in (*lexemes, *parts)]
        words = [(RankedWord(each.names, 5000), 1.0) for each in lexemes]
        asked += [match for match, _ in choose_matches(words, 10_000)]
        await fetch(conn, "SELECT array(SELECT unnest(%s::text[])::tsquery::text)", asked)


def test_a_long_phrase_is_looked_for_in_parts() -> None:
    ((term,),) = parse_query('"' + " ".join(f"w{number}" for number in range(50)) + '"').required
    assert [len(part.names) for part in list_phrase_parts(term)] == [20, 20, 10]


def test_words_of_a_query_are_replaced_and_its_signs_stay() -> None:
    assert (
        replace_words('-"Machne, lerning" or (\u00dcbr)', {"machne": "machine", "ubr": "uber"})
        == '-"machine, lerning" or (uber)'
    )
