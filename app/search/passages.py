"""Passages: a transcript in overlapping windows, cut at the ends of sentences, each word with its times."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from app.search.timed_words import TimedWord, read_times
from app.search.tokens import ends_sentence, is_unspaced, list_word_spans

PASSAGE_LENGTH = 200.0  # words; a character of a script without spaces counts as half a word
_EARLIEST_END, _LATEST_END = 160.0, 220.0
_OVERLAP, _MIN_OVERLAP, _MAX_OVERLAP = 40.0, 25.0, 60.0
_PART_LENGTH, _PART_TOLERANCE = 100.0, 20.0


@dataclass(frozen=True, slots=True)
class Passage:
    """Words of a transcript that are searched together."""

    words: Sequence[TimedWord]

    @property
    def text(self) -> str:
        return "".join(("" if word.joins or not number else " ") + word.text for number, word in enumerate(self.words))


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """Who speaks from when to when, in seconds."""

    speaker: str
    start: float
    end: float


def list_speaker_turns(*timestamps: object) -> list[SpeakerTurn]:
    """Return who speaks when, from the `speaker` of words or segments that have one."""
    return [
        SpeakerTurn(speaker, *times)
        for entries in timestamps
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, Mapping) and (times := read_times(entry))
        if isinstance(speaker := entry.get("speaker"), str) and speaker
    ]


def list_speakers(passage: Passage, turns: Sequence[SpeakerTurn]) -> list[str]:
    """Return who speaks in a passage, in the order of their names."""
    start = next((word.start for word in passage.words if word.start is not None), math.inf)
    end = next((word.end for word in reversed(passage.words) if word.end is not None), -math.inf)
    return sorted({turn.speaker for turn in turns if turn.start < end and turn.end > start})


def split_into_passages(words: Sequence[TimedWord]) -> list[Passage]:
    """Return windows of about 200 words that share about 40, cut after a sentence where one ends near there."""
    lengths = [_get_length(word.text) for word in words]
    passages: list[Passage] = []
    first = 0
    while first < len(words):
        end = _find_passage_end(words, lengths, first)
        passages.append(Passage(words[first:end]))
        if end == len(words):
            break
        first = _find_next_start(words, lengths, first, end)
    return passages


def _find_passage_end(words: Sequence[TimedWord], lengths: Sequence[float], first: int) -> int:
    """Return the index after the passage: after the last sentence that ends in time, or else after 200 words."""
    length, full, sentence = 0.0, len(words), 0
    for at in range(first, len(words)):
        length += lengths[at]
        if length > _LATEST_END:
            return sentence or full
        if length <= PASSAGE_LENGTH:
            full = at + 1
        if length >= _EARLIEST_END and ends_sentence(words[at].text):
            sentence = at + 1
    return len(words)


def _find_next_start(words: Sequence[TimedWord], lengths: Sequence[float], first: int, end: int) -> int:
    """Return where the next passage starts: at the start of a sentence, about 40 words before the end of this one."""
    length, nearest, best = 0.0, end, math.inf
    for at in range(end - 1, first, -1):
        length += lengths[at]
        if length > _MAX_OVERLAP:
            break
        distance = abs(length - _OVERLAP) + (0 if ends_sentence(words[at - 1].text) else _MAX_OVERLAP)
        if length >= _MIN_OVERLAP and distance < best:
            nearest, best = at, distance
    return nearest


_MAX_BEFORE, _MAX_AFTER = 10.0, 20.0  # seconds of a sentence around what is said in it


@dataclass(frozen=True, slots=True)
class SpokenSentences:
    """What is said, and when, in seconds."""

    text: str
    start: float
    end: float


def find_sentences(
    text: str, word_starts: Sequence[int], word_ends: Sequence[int], start: float, end: float
) -> SpokenSentences:
    """Return the sentences of a passage around a span.

    Times of words are milliseconds, those of the span seconds. Of a sentence that begins more than 10 s before the
    span, or ends more than 20 s behind it, the nearer words are returned.
    """
    spans = list_word_spans(text)[: len(word_starts)]
    words = [text[first:after] for first, after in spans]
    first = max((at for at in range(len(words)) if word_starts[at] <= start * 1000), default=0)
    last = max((at for at in range(first, len(words)) if word_starts[at] < end * 1000), default=first)
    while first > 0 and not ends_sentence(words[first - 1]) and word_starts[first - 1] >= (start - _MAX_BEFORE) * 1000:
        first -= 1
    while last + 1 < len(words) and not ends_sentence(words[last]) and word_ends[last + 1] <= (end + _MAX_AFTER) * 1000:
        last += 1
    return SpokenSentences(text[spans[first][0] : spans[last][1]], word_starts[first] / 1000, word_ends[last] / 1000)


@dataclass(frozen=True, slots=True)
class PassagePart:
    """A part of a passage that has a vector: `text`, and the indices of its first and its last word."""

    text: str
    first: int
    last: int


def split_into_parts(text: str) -> list[PassagePart]:
    """Return a passage in parts of about 100 words, whose vectors say more than one of the whole would.

    Parts end with a sentence where one ends near there.
    """
    spans = list_word_spans(text)
    words = [text[first:after] for first, after in spans]
    ends = list(accumulate(_get_length(word) for word in words))
    count = max(1, round(ends[-1] / _PART_LENGTH)) if ends else 0
    cuts = [_find_cut(words, ends, ends[-1] * number / count) for number in range(1, count)]
    bounds = sorted({0, *cuts, len(words)})
    return [
        PassagePart(text[spans[first][0] : spans[after - 1][1]], first, after - 1) for first, after in pairwise(bounds)
    ]


def _find_cut(words: Sequence[str], ends: Sequence[float], ideal: float) -> int:
    """Return the index after the word that ends nearest to the ideal length, rather at the end of a sentence."""
    return 1 + min(
        range(len(words)),
        key=lambda at: abs(ends[at] - ideal) + (0 if ends_sentence(words[at]) else _PART_TOLERANCE),
    )


def _get_length(word: str) -> float:
    return 0.5 if is_unspaced(word) else 1.0
