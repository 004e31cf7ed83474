"""The words of a transcript's text with the times at which they are said: from timed words, or from segments."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, TypeGuard

from app.core.text import fold_letters
from app.search.tokens import fold_word, is_unspaced, list_word_spans

_MIN_MATCHING_SHARE = 0.5  # of the words of a text and of those with times, to take over the times
_MAX_TIME = 1e6  # seconds; eleven days
_MAX_COMPARED = 250_000  # pairs of words: SequenceMatcher needs up to 50 ms for so many, and more than linear time

_Run = tuple[int, int, int]  # where equal parts start in two texts, and their number
_RunFinder = Callable[[Sequence[str], Sequence[str]], Iterable[_Run]]


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as it is written, and when it is said, in seconds; None where that is unknown.

    Words of a segment without timestamps of their own have the times of the segment. `joins` where no space stands
    before it.
    """

    text: str
    start: float | None = None
    end: float | None = None
    joins: bool = False


def list_timed_words(full_text: str, word_timestamps: object, segment_timestamps: object) -> list[TimedWord]:
    """Return the words of `full_text` with their times.

    Timestamps are lists of `{"word", "start", "end"}` and of `{"text", "start", "end"}`; what is malformed counts for
    nothing. Where the timed words are other ones (the text was corrected by hand, or has `well-known` for `well` and
    `known`), words with letters in common have their times. Other words get the times of their segments, between those
    of their neighbours.
    """
    words = _split_text(full_text)
    timed = _list_timed_entries(word_timestamps, "word")
    if _fold_words(timed) == _fold_words(words):
        return timed
    share, aligned = _align_words(words, timed)
    if share < _MIN_MATCHING_SHARE:
        return _take_times_of_segments(words, segment_timestamps)
    rough = words if None not in aligned else _take_times_of_segments(words, segment_timestamps)
    return _give_times_of_neighbours(rough, aligned)


def _take_times_of_segments(words: Sequence[TimedWord], segment_timestamps: object) -> list[TimedWord]:
    timed = _list_timed_entries(segment_timestamps, "text")
    if _fold_words(timed) == _fold_words(words):
        return [replace(word, start=found.start, end=found.end) for word, found in zip(words, timed, strict=True)]
    share, aligned = _align_words(words, timed)
    return _give_times_of_neighbours(words, aligned) if share >= _MIN_MATCHING_SHARE else list(words)


def _list_timed_entries(entries: object, text_key: str) -> list[TimedWord]:
    timed: list[TimedWord] = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get(text_key), str) and (times := read_times(entry)):
            words = _split_text(entry[text_key], *times)
            if timed and words and is_unspaced(timed[-1].text) and is_unspaced(words[0].text):
                words[0] = replace(words[0], joins=True)
            timed += words
    return timed


def _split_text(text: str, start: float | None = None, end: float | None = None) -> list[TimedWord]:
    words: list[TimedWord] = []
    last = -1
    for first, after in list_word_spans(text):
        words.append(TimedWord(text[first:after], start, end, joins=first == last))
        last = after
    return words


def read_times(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    start, end = entry.get("start"), entry.get("end")
    return (float(start), float(max(start, end))) if is_time(start) and is_time(end) else None


def is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_TIME


def _fold_words(words: Iterable[TimedWord]) -> list[str]:
    return [folded for word in words if (folded := fold_word(word.text))]


def _align_words(words: Sequence[TimedWord], timed: Sequence[TimedWord]) -> tuple[float, list[TimedWord | None]]:
    """Return the share of the texts that both have, and the words that share letters with timed ones, with times."""
    written = [(letters, index) for index, word in enumerate(words) for letters in _list_parts(word.text)]
    spoken = [(letters, index) for index, word in enumerate(timed) for letters in _list_parts(word.text)]
    aligned: list[TimedWord | None] = [None] * len(words)
    pairs = list(_pair_parts([letters for letters, _ in written], [letters for letters, _ in spoken], _RUN_FINDERS))
    for part, other in pairs:
        index, found = written[part][1], timed[spoken[other][1]]
        earlier = aligned[index] or found
        aligned[index] = replace(words[index], start=earlier.start, end=found.end)
    common = min(len({part for part, _ in pairs}), len({other for _, other in pairs}))
    return common / max(len(written), len(spoken), 1), aligned


@lru_cache(1 << 15)
def _list_parts(word: str) -> tuple[str, ...]:
    """Return the letters of a word in parts: `10` and `000` of `10,000`; a symbol as it is."""
    folded = fold_word(word)
    return tuple(fold_letters(folded).split()) or (folded,)


def _pair_parts(
    first: Sequence[str], second: Sequence[str], finders: Sequence[_RunFinder]
) -> Iterator[tuple[int, int]]:
    """Return the indices of the parts of two texts that have letters in common, in their order.

    Texts with the same letters are compared letter by letter. Others are cut at the runs of equal parts that the first
    finder finds, and what lies between these is compared with the other finders.
    """
    if "".join(first) == "".join(second):
        yield from _pair_parts_of_equal_texts(first, second)
    elif first and second and finders:
        find_runs, *others = finders
        begin = other_begin = 0
        for run, other_run, length in [*find_runs(first, second), (len(first), len(second), 0)]:
            between = _pair_parts(first[begin:run], second[other_begin:other_run], others)
            yield from ((begin + part, other_begin + other) for part, other in between)
            yield from ((run + at, other_run + at) for at in range(length))
            begin, other_begin = run + length, other_run + length


def _pair_parts_of_equal_texts(first: Sequence[str], second: Sequence[str]) -> Iterator[tuple[int, int]]:
    ends, other_ends = list(accumulate(map(len, first))), list(accumulate(map(len, second)))
    part = other = 0
    while part < len(ends) and other < len(other_ends):
        yield part, other
        end, other_end = ends[part], other_ends[other]
        part += end <= other_end
        other += other_end <= end


def _find_unique_runs(count: int, first: Sequence[str], second: Sequence[str]) -> Iterable[_Run]:
    """Return where `count` parts stand that each text has once, in the same order in both (a patience diff)."""
    others = _index_unique_sequences(count, second)
    pairs = [(at, others[parts]) for parts, at in _index_unique_sequences(count, first).items() if parts in others]
    return [(*pairs[index], 1) for index in _find_longest_rise([other for _, other in pairs])]


def _index_unique_sequences(count: int, parts: Sequence[str]) -> dict[tuple[str, ...], int]:
    sequences = list(zip(*(parts[at:] for at in range(count)), strict=False))
    counts = Counter(sequences)
    return {sequence: at for at, sequence in enumerate(sequences) if counts[sequence] == 1}


def _find_longest_rise(numbers: Sequence[int]) -> list[int]:
    """Return the indices of the longest rising sequence within different numbers."""
    lowest: list[int] = []  # last number of a sequence, by its length
    last: list[int] = []  # index of that number
    previous: list[int] = []
    for index, number in enumerate(numbers):
        length = bisect_left(lowest, number)
        previous.append(last[length - 1] if length else -1)
        lowest[length : length + 1] = [number]
        last[length : length + 1] = [index]
    indices: list[int] = []
    index = last[-1] if last else -1
    while index >= 0:
        indices.append(index)
        index = previous[index]
    return indices[::-1]


def _find_longest_runs(first: Sequence[str], second: Sequence[str]) -> Iterable[_Run]:
    if len(first) * len(second) > _MAX_COMPARED:
        return []
    return SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()


_RUN_FINDERS: Sequence[_RunFinder] = (partial(_find_unique_runs, 6), partial(_find_unique_runs, 3), _find_longest_runs)


def _give_times_of_neighbours(words: Sequence[TimedWord], aligned: Sequence[TimedWord | None]) -> list[TimedWord]:
    """Give words that are not aligned their own rough times, if any, within those of the words before and after."""
    following: list[float | None] = []
    later: float | None = None
    for word in reversed(aligned):
        later = word.start if word else later
        following.append(later)
    following.reverse()
    timed: list[TimedWord] = []
    earlier: float | None = None
    for rough, word, after in zip(words, aligned, following, strict=True):
        timed.append(word or _limit_times(rough, earlier, after))
        earlier = word.end if word else earlier
    return timed


def _limit_times(word: TimedWord, earlier: float | None, later: float | None) -> TimedWord:
    limits = [limit for limit in (earlier, later) if limit is not None]
    if not limits:
        return word
    start = word.start if word.start is not None else min(limits)
    end = word.end if word.end is not None else max(limits)
    if earlier is not None:
        start = max(start, min(limits))
    if later is not None:
        start, end = min(start, max(limits)), min(end, max(limits))
    return replace(word, start=start, end=max(start, end))
