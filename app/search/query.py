"""Queries: what people type, as words that rank, and words and phrases that must or must not be said."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, pairwise

from app.search.documents import quote_lexeme
from app.search.tokens import is_unspaced, list_tokens, list_word_spans, split_into_words, split_off_punctuation

_MAX_WORDS = 32  # that rank; what is typed after them does not
_MAX_PHRASE_WORDS = 20  # that are looked for together: passages share at least as many

_QUOTES = str.maketrans(dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f\uff02", '"'))
# `"a phrase"` or a word, with a sign before it. Signs that stand alone or are repeated (`--`, `a - b`) mean nothing.
_TERM = re.compile(r'(?<!\S)([+-])?"([^"]*)"?|(?<!\S)([+-])(?=[^\s+-])([^\s"]+)|([^\s"]+)|"([^"]*)"?')
_OR = frozenset({"or", "|", "||"})


@dataclass(frozen=True, slots=True)
class Lexemes:
    """Lexemes at distances from the first one, as they must stand in a document: a word, or a phrase."""

    names: tuple[str, ...]
    offsets: tuple[int, ...]
    has_prefix: bool = False  # the last one may go on

    def __bool__(self) -> bool:
        return bool(self.names)

    def to_tsquery(self) -> str:
        """Return the text of a tsquery: `'at' <-> 'the' <-> 'end'`."""
        parts = [quote_lexeme(name) for name in self.names]
        if self.has_prefix:
            parts[-1] += ":*"
        distances = (f" <{later - earlier}> " for earlier, later in pairwise(self.offsets))
        return parts[0] + "".join(sign + part for sign, part in zip(distances, parts[1:], strict=True))


@dataclass(frozen=True, slots=True)
class Term:
    """A word or a quoted phrase of a query, as it was typed."""

    words: tuple[str, ...]
    sign: str = ""  # `+`, `-` or none
    is_quoted: bool = False

    @property
    def is_required(self) -> bool:
        return self.sign != "-" and (self.is_quoted or self.sign == "+")


@dataclass(frozen=True, slots=True)
class Query:
    """`terms` rank by their words; of each group in `required` one term must be said, and none of `excluded`."""

    terms: tuple[Term, ...] = ()
    required: tuple[tuple[Term, ...], ...] = ()
    excluded: tuple[Term, ...] = ()
    prefix: str = ""  # the last word where it may go on

    @property
    def has_phrases(self) -> bool:
        return any(term.is_quoted for term in self.terms)

    def to_plain_text(self) -> str:
        """Return the words that are looked for, without signs."""
        return " ".join([*(word for term in self.terms for word in term.words), self.prefix]).strip()

    def __bool__(self) -> bool:
        return bool(self.terms or self.prefix)


def parse_query(text: str, *, as_you_type: bool = False) -> Query:
    """Return a query; any text is valid. With `as_you_type` the last word may go on, unless a space follows it."""
    groups = list(_group_alternatives(list(_iterate_terms(text.translate(_QUOTES)))))
    required = tuple(tuple(group) for group in groups if any(term.is_required for term in group))
    excluded = tuple(term for group in groups for term in group if term.sign == "-")
    terms = [term for group in groups for term in group if term.sign != "-"]
    prefix = ""
    if as_you_type and groups and not text[-1:].isspace():
        prefix = _take_prefix(terms, groups[-1][-1])
    return Query(tuple(terms), required, excluded, prefix)


def _take_prefix(terms: list[Term], last: Term) -> str:
    """Remove the last word of an unsigned term from `terms`, and return it."""
    if last.sign or last.is_quoted or is_unspaced(last.words[-1]):
        return ""
    *rest, prefix = last.words
    terms[-1:] = [replace(last, words=tuple(rest))] if rest else []
    return prefix


def _iterate_terms(text: str) -> Iterator[Term | None]:
    """Return the terms of a text in their order; None for `or`."""
    for match in _TERM.finditer(text):
        quoted_sign, quoted, sign, signed, word, loose = match.groups()
        if word is not None and word.lower() in _OR:
            yield None
            continue
        words = tuple(split_into_words(quoted or signed or word or loose or ""))
        if words:
            yield Term(words, quoted_sign or sign or "", quoted is not None or loose is not None)


def _group_alternatives(terms: Sequence[Term | None]) -> Iterator[list[Term]]:
    group: list[Term] = []
    joins = False
    for term in terms:
        if term is None:
            joins = bool(group)
        elif joins and term.sign != "-" and group[-1].sign != "-":
            group.append(term)
            joins = False
        else:
            if group:
                yield group
            group, joins = [term], False
    if group:
        yield group


def list_phrase_parts(term: Term) -> list[Lexemes]:
    """Return what a quoted term looks for: its words one after the other, a long phrase in parts."""
    parts = [term.words[at : at + _MAX_PHRASE_WORDS] for at in range(0, len(term.words), _MAX_PHRASE_WORDS)]
    return [lexemes for part in parts if (lexemes := make_lexemes(part))]


def make_lexemes(words: Sequence[str]) -> Lexemes:
    """Return the lexemes of words that follow each other, with pairs of characters for scripts without spaces."""
    names: list[str] = []
    offsets: list[int] = []
    prefix = False
    for offset, (word, following) in enumerate(pairwise([*words, ""])):
        token = list_tokens(word)[0]
        if is_unspaced(word) and is_unspaced(following):
            token += list_tokens(following)[0]
        elif is_unspaced(word) and not following:
            if offset and is_unspaced(words[offset - 1]):
                continue  # it is in the pair before
            prefix = True
        names.append(token)
        offsets.append(offset)
    return Lexemes(tuple(names), tuple(offsets), prefix)


def list_ranking_words(terms: Sequence[Term]) -> list[tuple[str, Lexemes]]:
    """Return the words that rank, each for itself, as typed and as lexemes; in a script without spaces pairs."""
    found: dict[Lexemes, str] = {}
    for term in terms:
        for word, lexemes in _iterate_ranking_words(term.words):
            found.setdefault(lexemes, word)
    return [(word, lexemes) for lexemes, word in islice(found.items(), _MAX_WORDS)]


def _iterate_ranking_words(words: Sequence[str]) -> Iterator[tuple[str, Lexemes]]:
    for unspaced, run in groupby(words, is_unspaced):
        if unspaced:
            whole = make_lexemes(list(run))
            for name in whole.names:
                yield name, replace(whole, names=(name,), offsets=(0,))
        else:
            for word in run:
                yield word, make_lexemes([word])


def replace_words(text: str, others: Mapping[str, str]) -> str:
    """Return a query with other words instead of some, by their first tokens; signs and quotes stay."""
    parts: list[str] = []
    last = 0
    for first, after in list_word_spans(text):
        before, word, behind = split_off_punctuation(text[first:after])
        token = next(iter(list_tokens(word)), "")
        parts += [text[last:first], before, others.get(token, word), behind]
        last = after
    return "".join(parts) + text[last:]
