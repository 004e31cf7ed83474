"""The smallest parts of a talk that a moment is made of: sentences, and the silence around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.ai.protocols import Segment, Word
from app.ai.sentences import join_words, split_sentences, spread_words

_LEAD_SECONDS, _TAIL_SECONDS = 0.15, 0.3  # of silence that belong to a sentence, where there is any
_LONGEST_SECONDS = 20.0  # of a sentence, else it is broken


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence: a moment that begins with it starts at `start`, and one that ends with it stops at `end`."""

    text: str
    start: float
    end: float
    spoken_seconds: float

    @property
    def weight(self) -> float:
        """How much it says: long sentences more than short ones, and not by their length alone."""
        return math.sqrt(len(self.text.split()))


def make_units(
    words: Sequence[Word], segments: Sequence[Segment], first: float, last: float, longest: float
) -> list[Unit]:
    """Return the sentences between two seconds, in order, none overlapping another; times have two decimals."""
    tidy = tidy_words(words or list(spread_words(segments)), first, last)
    if not tidy:
        return []
    sentences = split_sentences(tidy, min(_LONGEST_SECONDS, longest))
    borders = [math.ceil(first * 100) / 100, *map(_border, sentences, sentences[1:]), math.floor(last * 100) / 100]
    return [_make_unit(sentence, *limits) for sentence, limits in zip(sentences, pairwise(borders), strict=True)]


def tidy_words(words: Sequence[Word], first: float, last: float) -> list[Word]:
    """Return the words that have a text and times between two seconds, in order, none overlapping another."""
    told = [word for word in words if word.word.strip() and math.isfinite(word.start) and math.isfinite(word.end)]
    inside = [word for word in sorted(told, key=lambda word: word.start) if first <= word.start < last]
    starts = [*(word.start for word in inside), last]
    return [
        Word(word.word.strip(), start, min(max(word.end, start), following))
        for word, (start, following) in zip(inside, pairwise(starts), strict=True)
    ]


def _border(before: Sequence[Word], after: Sequence[Word]) -> float:
    return round((before[-1].end + after[0].start) / 2, 2)


def _make_unit(words: Sequence[Word], earliest: float, latest: float) -> Unit:
    return Unit(
        text=join_words(words),
        start=max(round(words[0].start - _LEAD_SECONDS, 2), earliest),
        end=min(round(words[-1].end + _TAIL_SECONDS, 2), latest),
        spoken_seconds=sum(word.end - word.start for word in words),
    )
