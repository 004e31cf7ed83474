"""Preparing a query: its words as lexemes of the index, each weighed by how rare it is in the library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.database import Connection
from app.repositories.search import AskedLexemes
from app.repositories.search_conditions import Conditions
from app.repositories.search_index import SearchIndexRepository
from app.search.documents import list_stemmed_forms
from app.search.occurrences import MarkedText, Occurrence
from app.search.query import Lexemes, Query, Term, list_phrase_parts, list_ranking_words, make_lexemes
from app.search.ranking import RankedWord, choose_matches, compute_weight, join_alternatives
from app.search.tokens import is_pair, list_tokens

_UNKNOWN_WORD_FACTOR = 0.8  # for the weight of words that begin with one that is not known


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A query with the lexemes and weights of its words; `conditions` is None where nothing can be found."""

    words: Sequence[tuple[RankedWord, float]] = ()
    phrases: Sequence[Lexemes] = ()
    conditions: Conditions | None = None
    unknown: Sequence[str] = ()  # words that no counted document has, in lower case

    def list_asked_lexemes(self) -> AskedLexemes:
        names = {lexeme for word, _ in self.words for lexeme in word.lexemes}
        names |= {name for phrase in self.phrases for name in phrase.names}
        prefixes = {word.lexemes[0] for word, _ in self.words if word.is_prefix}
        prefixes |= {phrase.names[-1] for phrase in self.phrases if phrase.has_prefix}
        return AskedLexemes(sorted(names), sorted(prefixes), following=int(any(map(is_pair, names))))

    def find_occurrences(self, text: MarkedText) -> list[Occurrence]:
        """Return where the phrases are said, or else the other words: tea, in `"hot coffee" or tea`."""
        if occurrences := [
            occurrence for phrase in self.phrases for occurrence in text.find_phrase(phrase, weight=1.0)
        ]:
            return occurrences
        in_phrases = {name for phrase in self.phrases for name in phrase.names}
        words = [(word, weight) for word, weight in self.words if word.lexemes[0] not in in_phrases]
        return text.find_words([(word.lexemes, word.is_prefix, weight) for word, weight in words])

    def list_marked(self, text: MarkedText) -> set[int]:
        """Return the indices of the words to be marked."""
        if any(text.find_phrase(phrase, weight=1.0) for phrase in self.phrases):
            return {
                at for occurrence in self.find_occurrences(text) for at in range(occurrence.first, occurrence.last + 1)
            }
        return {at for word, _ in self.words for at in text.list_indices(word.lexemes, is_prefix=word.is_prefix)}


async def prepare_query(conn: Connection, query: Query, size: int) -> PreparedQuery:
    """Look up the lexemes of the words of a query, and how rare they are among `size` documents."""
    words = list_ranking_words(query.terms)
    index = SearchIndexRepository(conn)
    found = await _look_up_words(index, words, list_ranking_words(query.excluded), query.prefix)
    ranked = found.words
    if not all(word.is_stop_word for word in ranked):
        ranked = [word for word in ranked if not word.is_stop_word]
    ranked += found.prefixes
    if not ranked:
        return PreparedQuery()
    weighted = [(word, compute_weight(word, size)) for word in ranked]
    required = [asked for group in query.required for asked in _make_required_queries(group, ranked)]
    # A long phrase is shown where its first part is said.
    phrases = [list_phrase_parts(term)[0] for group in query.required for term in group if term.is_quoted]
    phrase = _find_phrase_query(query)
    conditions = Conditions(
        matches=_make_phrase_matches(phrase, weighted) if phrase else choose_matches(weighted, size),
        counted=join_alternatives(ranked),
        required=required,
        excluded=[_make_term_query(term, found.excluded) for term in query.excluded],
    )
    unknown = [word.lexemes[0] for word in ranked if not word.documents]
    return PreparedQuery(weighted, phrases, conditions, unknown)


def _find_phrase_query(query: Query) -> str:
    """Return a tsquery for the passages with a phrase that must be said, '' where none must."""
    phrases = (group for group in query.required if all(term.is_quoted for term in group))
    return next((_make_required_queries(group, [])[0] for group in phrases), "")


def _make_phrase_matches(phrase: str, words: Sequence[tuple[RankedWord, float]]) -> list[tuple[str, float]]:
    """Return tsqueries for the passages with a phrase, of which those with other words of the query rank higher."""
    others = [(f"({phrase}) & ({word.to_tsquery()})", weight) for word, weight in words]
    return [(phrase, 1.0), *others]


def _make_required_queries(group: Sequence[Term], ranked: Sequence[RankedWord]) -> list[str]:
    """Return tsqueries that a transcript must match, each anywhere: more than one for a long phrase."""
    if len(group) == 1 and group[0].is_quoted:
        return [part.to_tsquery() for part in list_phrase_parts(group[0])]
    return [" | ".join(_make_term_query(term, ranked) for term in group)]


@dataclass(frozen=True, slots=True)
class _FoundWords:
    """Words as what is searched for: unknown ones also with others that they may mean; `prefixes` are the last word."""

    words: list[RankedWord]
    excluded: list[RankedWord]
    prefixes: list[RankedWord]


async def _look_up_words(
    index: SearchIndexRepository,
    words: Sequence[tuple[str, Lexemes]],
    excluded: Sequence[tuple[str, Lexemes]],
    prefix: str,
) -> _FoundWords:
    asked = [*words, *excluded]
    counts: list[dict[str, int]] = [{} for _ in asked]
    names = [(number, name) for number, (_, lexemes) in enumerate(asked) for name in lexemes.names]
    forms = [(number, form) for number, (word, _) in enumerate(asked) for form in _list_query_forms(word)]
    for row in await index.list_lexemes(names, forms) if asked else ():
        counts[row.word][row.lexeme] = row.documents
    known = [
        RankedWord(
            (*lexemes.names, *(lexeme for lexeme in documents if lexeme and lexeme not in lexemes.names)),
            sum(count for lexeme, count in documents.items() if lexeme),
            is_prefix=lexemes.has_prefix,
            is_stop_word="" in documents,
        )
        for (_, lexemes), documents in zip(asked, counts, strict=True)
    ]
    ranked = known[: len(words)]
    last = list_tokens(prefix)[:1]
    unknown = [word.lexemes[0] for word in ranked if not word.documents and len(word.lexemes[0]) > 2]
    beginnings = await index.count_documents_with_prefixes([*unknown, *last]) if unknown or last else {}
    return _FoundWords(
        [
            expanded
            for (written, _), word in zip(words, ranked, strict=True)
            for expanded in _expand_if_unknown(written, word, beginnings)
        ],
        known[len(words) :],
        [RankedWord((name,), beginnings[name], is_prefix=True) for name in last],
    )


def _list_query_forms(word: str) -> list[str]:
    """Return the forms of a word whose stems are looked up: not those of the parts of `well-known`."""
    parts = set(list_tokens(word)[1:])
    return [form for form in list_stemmed_forms(word) if form not in parts]


def _expand_if_unknown(written: str, word: RankedWord, beginnings: Mapping[str, int]) -> list[RankedWord]:
    """Return a word that no counted document has as the beginning of others, and its parts beside it."""
    if word.documents or word.is_stop_word:
        return [word]
    parts = [RankedWord((part,), 1) for part in list_tokens(written)[1:]]
    if documents := beginnings.get(word.lexemes[0], 0):
        word = replace(word, documents=documents, factor=_UNKNOWN_WORD_FACTOR, is_prefix=True)
    return [word, *parts]


def _make_term_query(term: Term, ranked: Sequence[RankedWord]) -> str:
    """Return a tsquery for what is required or excluded: a phrase as it is written, a word in all its forms."""
    if term.is_quoted:
        return " & ".join(f"({part.to_tsquery()})" for part in list_phrase_parts(term))
    lexemes = make_lexemes(term.words)
    forms = [word for word in ranked if lexemes.names == word.lexemes[:1]]
    return f"({(forms[0] if forms else lexemes).to_tsquery()})"
