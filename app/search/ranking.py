"""Ranking: each word counts by how rare it is, and few passages are looked at however large the library."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from app.search.documents import quote_lexeme

_FEW_DOCUMENTS = 100  # of which rarity says little
_MAX_CANDIDATES = 1500  # passages that are ranked, about; each costs microseconds for each word


@dataclass(frozen=True, slots=True)
class RankedWord:
    """A word of a query: the lexemes that it is found by, and in about how many documents one of them is."""

    lexemes: tuple[str, ...]
    documents: int
    factor: float = 1.0
    is_prefix: bool = False  # the first lexeme may go on
    is_stop_word: bool = False  # in a language of the library

    def to_tsquery(self) -> str:
        """Return the text of a tsquery: `'learning' | '~learn'`."""
        quoted = [quote_lexeme(lexeme) for lexeme in self.lexemes]
        if self.is_prefix:
            quoted[0] += ":*"
        return " | ".join(quoted)


def compute_weight(word: RankedWord, all_documents: int) -> float:
    """Return the inverse document frequency of a word, as BM25 has it: above 0, the rarer the larger."""
    total = max(all_documents, _FEW_DOCUMENTS)
    documents = min(max(word.documents, 1), total)
    return word.factor * math.log(1 + (total - documents + 0.5) / (documents + 0.5))


def choose_matches(words: Sequence[tuple[RankedWord, float]], all_documents: int) -> list[tuple[str, float]]:
    """Return tsqueries for the passages that are worth ranking, and what each adds to the rank of those it finds.

    A passage that ranks high has a rare word or at least two words. Words are taken from the rarest on, alone or in
    pairs, until about 1,500 passages are expected; at least the rarest is taken. The other words add to the rank of
    these passages, and find none.
    """
    ordered = sorted((word for word, _ in words), key=lambda word: word.documents)
    chosen: list[str] = []
    expected = 0.0
    common: list[RankedWord] = []
    for word in ordered:
        if chosen and expected + word.documents > _MAX_CANDIDATES:
            common.append(word)
        else:
            chosen.append(f"({word.to_tsquery()})")
            expected += word.documents
    for first, second in combinations(common, 2):
        both = first.documents * second.documents / max(all_documents, 1)
        if expected + both <= _MAX_CANDIDATES:
            chosen.append(f"(({first.to_tsquery()}) & ({second.to_tsquery()}))")
            expected += both
    candidates = " | ".join(chosen)
    return [
        (f"({candidates}) & ({word.to_tsquery()})" if word in common else word.to_tsquery(), weight)
        for word, weight in words
    ]


def join_alternatives(words: Iterable[RankedWord]) -> str:
    """Return a tsquery for documents with any of the words."""
    return " | ".join(f"({word.to_tsquery()})" for word in words)


def fuse_ranks(lists: Iterable[Sequence[int]], k: int = 10) -> dict[int, float]:
    """Return the reciprocal rank fusion of lists of ids, best first: the sum of `1 / (k + place)` over the lists."""
    scores: dict[int, float] = {}
    for ids in lists:
        for place, row in enumerate(ids, 1):
            scores[row] = scores.get(row, 0.0) + 1 / (k + place)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
