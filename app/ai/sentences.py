"""Sentences of words: where they end, and where a long one is best broken."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

from app.ai.protocols import Segment, Word

PAUSE_SECONDS = 1.5  # of silence that end a sentence without punctuation

_CAPTION_SECONDS, _CAPTION_CHARACTERS = 7.0, 84  # two lines of 42, the usual limits of subtitles

_SENTENCE_END = re.compile(r"[.?!…\u3002\uff1f\uff01\u0964\u061f][\"'”’)\]»]*$")
_CLAUSE_END = re.compile(r"[,;:\u3001\uff0c\uff1b\uff1a–—-][\"'”’)\]»]*$")
_ABBREVIATION = re.compile(r"(?:\b[A-Z]|\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|No|Inc|Jr|Sr))\.$")
_CONJUNCTION = re.compile("and|because|but|if|or|so|than|that|until|when|where|which|while|who", re.IGNORECASE)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_NEEDLESS_SPACE = re.compile(rf"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])")


def join_words(words: Sequence[Word]) -> str:
    return _NEEDLESS_SPACE.sub("", " ".join(word.word for word in words))


def join_subwords(subwords: Sequence[Word]) -> list[Word]:
    """Merge subwords to words: one without a leading space continues the previous one (" 6" and ",000")."""
    words: list[Word] = []
    for subword in subwords:
        text = subword.word.strip()
        if text and words and not subword.word[0].isspace() and not _UNSPACED_LETTER.match(text):
            words[-1] = Word(words[-1].word + text, words[-1].start, subword.end)
        elif text:
            words.append(Word(text, subword.start, subword.end))
    return words


def interpolate_word_times(segments: Iterable[Segment]) -> Iterator[Word]:
    """Yield the words of segments, timed in proportion to their lengths in characters."""
    for segment in segments:
        words = segment.text.split()
        seconds = max(segment.end - segment.start, 0.0) / max(sum(map(len, words)), 1)
        start = segment.start
        for word in words:
            end = max(min(start + len(word) * seconds, segment.end), start)
            yield Word(word, start, end)
            start = end


def make_caption_segments(words: Sequence[Word]) -> list[Segment]:
    """Return words as captions of at most two lines and 7 seconds."""
    return [
        Segment(join_words(part), part[0].start, part[-1].end)
        for part in split_sentences(words, _CAPTION_SECONDS, _CAPTION_CHARACTERS)
    ]


def split_sentences(
    words: Sequence[Word], max_seconds: float, max_characters: float = math.inf
) -> list[Sequence[Word]]:
    return [
        part
        for sentence in _iterate_sentences(words)
        for part in _break_long_sentence(sentence, max_seconds, max_characters)
    ]


def _iterate_sentences(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    first = 0
    for index, (word, following) in enumerate(pairwise(words), start=1):
        if ends_sentence(word.word) or following.start - word.end >= PAUSE_SECONDS:
            yield words[first:index]
            first = index
    if words:
        yield words[first:]


def ends_sentence(word: str) -> bool:
    return bool(_SENTENCE_END.search(word)) and not _ABBREVIATION.search(word)


def _break_long_sentence(
    sentence: Sequence[Word], max_seconds: float, max_characters: float
) -> Iterator[Sequence[Word]]:
    waiting = [sentence]
    while waiting:
        words = waiting.pop()
        lengths = list(accumulate(len(word.word) + 1 for word in words))
        if len(words) < 2 or (words[-1].end - words[0].start <= max_seconds and lengths[-1] - 1 <= max_characters):
            yield words
        else:
            index = _find_break_index(words, lengths)
            waiting += [words[index:], words[:index]]


def _find_break_index(words: Sequence[Word], lengths: Sequence[int]) -> int:
    """Return the index of the word before which to break: after a clause or a pause, near the middle."""

    def break_score(index: int) -> float:
        before, after = words[index - 1], words[index]
        clause = 0.3 * bool(_CLAUSE_END.search(before.word)) + 0.15 * bool(_CONJUNCTION.fullmatch(after.word))
        pause = min(max(after.start - before.end, 0.0), 1.0)
        return clause + pause - abs(lengths[index - 1] / lengths[-1] - 0.5)

    return max(range(1, len(words)), key=break_score)
