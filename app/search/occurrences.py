"""Where the words of a query are said in a passage, to jump to; and snippets that show them."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.search.query import Lexemes
from app.search.tokens import ends_sentence, is_pair, list_word_spans, split_off_punctuation

_MAX_GAP_MS = 10_000  # between words of one occurrence
_MAX_GAP_WORDS = 25  # where times are unknown
_MIN_WEIGHT = 0.3  # of the heaviest word, for a word to be an occurrence
_SNIPPET_WORDS = 40
_WORDS_BEFORE = 12  # of the first word that is marked, where its sentence is longer
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Neighbouring words of a passage, and what they weigh; times in milliseconds, None where they are unknown."""

    first: int
    last: int
    weight: float
    start: int | None = None
    end: int | None = None


class MarkedText:
    """A passage or a title with the positions of lexemes in it, from 1.

    `times` are start and end in milliseconds of the words at these positions.
    """

    def __init__(
        self, text: str, positions: Mapping[str, Sequence[int]], times: Mapping[int, tuple[int, int]] | None = None
    ) -> None:
        self._text = text
        self._positions = positions
        self._times = {position - 1: each for position, each in (times or {}).items()}

    def find_words(self, words: Sequence[tuple[Sequence[str], bool, float]]) -> list[Occurrence]:
        """Return where a query's words are said: neighbouring ones together, each word once in an occurrence.

        `words` are lexemes, whether the first one may go on, and weight; words that weigh little beside others that are
        said are no occurrences.
        """
        said = [
            (index, number)
            for number, (lexemes, is_prefix, _) in enumerate(words)
            for index in self.list_indices(lexemes, is_prefix=is_prefix)
        ]
        least = _MIN_WEIGHT * max((words[number][2] for _, number in said), default=0.0)
        said = sorted(each for each in said if words[each[1]][2] >= least)
        groups: list[dict[int, int]] = []
        for index, number in said:
            if groups and number not in groups[-1] and self._are_near(max(groups[-1].values()), index):
                groups[-1][number] = index
            else:
                groups.append({number: index})
        return [
            self.make_occurrence(min(group.values()), max(group.values()), sum(words[number][2] for number in group))
            for group in groups
        ]

    def find_phrase(self, phrase: Lexemes, weight: float) -> list[Occurrence]:
        """Return where the lexemes of a phrase stand at their distances."""
        last = len(phrase.names) - 1
        starts = [
            {position - offset for position in self._list_positions([name], is_prefix=phrase.has_prefix and at == last)}
            for at, (name, offset) in enumerate(zip(phrase.names, phrase.offsets, strict=True))
        ]
        length = phrase.offsets[-1] + (1 if is_pair(phrase.names[-1]) else 0)
        return [
            self.make_occurrence(first - 1, first - 1 + length, weight)
            for first in sorted(set.intersection(*starts))
            if first > 0
        ]

    def list_indices(self, lexemes: Sequence[str], *, is_prefix: bool = False) -> set[int]:
        """Return the indices of the words that these lexemes stand for; the first one may go on."""
        length = 2 if any(map(is_pair, lexemes)) else 1
        return {
            position - 1 + more
            for position in self._list_positions(lexemes, is_prefix=is_prefix)
            for more in range(length)
        }

    def _list_positions(self, names: Sequence[str], *, is_prefix: bool) -> set[int]:
        found = list(names)
        if is_prefix:
            found += [lexeme for lexeme in self._positions if lexeme.startswith(names[0])]
        return {position for name in found for position in self._positions.get(name, ())}

    def _are_near(self, first: int, second: int) -> bool:
        if first not in self._times or second not in self._times:
            return second - first <= _MAX_GAP_WORDS
        return self._times[second][0] - self._times[first][1] <= _MAX_GAP_MS

    def make_occurrence(self, first: int, last: int, weight: float) -> Occurrence:
        """Return the words from one index to another as an occurrence."""
        start, end = self._times.get(first), self._times.get(last)
        return Occurrence(first, last, weight, start and start[0], (end or start or (None, None))[1])

    def make_snippet(self, occurrence: Occurrence, marked: set[int]) -> str:
        """Return the words around an occurrence as HTML, from the start of its sentence to the end of one."""
        spans = list_word_spans(self._text, occurrence.last + _SNIPPET_WORDS)
        begin = self._find_snippet_start(spans, occurrence.first)
        last = min(max(begin + _SNIPPET_WORDS, occurrence.first + 1), len(spans)) - 1
        ends = (at for at in range(occurrence.last, last) if self._ends_sentence(spans[at]))
        return self._make_html(spans[begin : next(ends, last) + 1], {index - begin for index in marked})

    def make_html(self, marked: set[int]) -> str:
        """Return the words as HTML whose only markup is `<mark>`, around the letters of those at `marked`."""
        return self._make_html(list_word_spans(self._text), marked)

    def _make_html(self, spans: Sequence[tuple[int, int]], marked: set[int]) -> str:
        if not spans:
            return _escape(self._text)
        parts: list[str] = []
        done = spans[0][0]
        for first, after in (spans[index] for index in sorted(marked) if 0 <= index < len(spans)):
            before, letters, _ = split_off_punctuation(self._text[first:after])
            start = first + len(before)
            parts += [_escape(self._text[done:start]), f"<mark>{_escape(letters)}</mark>"]
            done = start + len(letters)
        parts.append(_escape(self._text[done : spans[-1][1]]))
        return "".join(parts).replace("</mark><mark>", "")

    def _find_snippet_start(self, spans: Sequence[tuple[int, int]], first: int) -> int:
        earliest = max(first - _WORDS_BEFORE, 0)
        starts = (at for at in range(first, earliest, -1) if self._ends_sentence(spans[at - 1]))
        return next(starts, earliest)

    def _ends_sentence(self, span: tuple[int, int]) -> bool:
        return ends_sentence(self._text[span[0] : span[1]])


def choose_occurrences(occurrences: Sequence[Occurrence], most: int, gap: int = 0) -> list[Occurrence]:
    """Return the heaviest occurrences that have times in the order of the video, each once though passages overlap.

    Left out are those less than half as heavy as the heaviest, and those less than `gap` milliseconds from another.
    """
    least = max(occurrence.weight for occurrence in occurrences) / 2
    chosen: list[tuple[int, int, Occurrence]] = []
    for start, end, occurrence in sorted(
        (
            (occurrence.start, occurrence.end, occurrence)
            for occurrence in occurrences
            if occurrence.start is not None and occurrence.end is not None and occurrence.weight >= least
        ),
        key=lambda timed: (-timed[2].weight, timed[0]),
    ):
        if len(chosen) < most and all(
            start != other_start and (start >= other_end + gap or end + gap <= other_start)
            for other_start, other_end, _ in chosen
        ):
            chosen.append((start, end, occurrence))
    return [occurrence for _, _, occurrence in sorted(chosen, key=lambda timed: timed[0])]


def _escape(text: str) -> str:
    return html.escape(_CONTROLS.sub("", text))
