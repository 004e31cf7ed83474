"""Titles of moments: the phrase, in the speaker's words, that is most similar to the whole moment."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from app.ai.local.embeddings import FloatArray, SentenceEmbedder
from app.ai.local.model_files import make_model_missing_error
from app.core.text import format_clock_time

if TYPE_CHECKING:
    from yake import KeywordExtractor

_MIN_WORDS, _MAX_WORDS = 3, 10
_MAX_CANDIDATES = 24  # per moment, compared by embeddings
_LANGUAGE_SAMPLE_WORDS = 2000  # for the language guess
_MAX_KEYWORDS = 20  # of YAKE
_LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "sv", "tr", "fi", "da", "no", "cz", "ar", "id")

_WORD = re.compile(r"[^\W_]+(?:['’.\-,][^\W_]+)*[%]?")
_CLAUSE = re.compile(r"[^,;:.!?…–—\"“”()\[\]\u3002\uff0c\uff01\uff1f]+(?:(?<=\d)[,.:](?=\d)[^,;:.!?…–—\"“”()\[\]]+)*")

_ASIDE = re.compile(r"\b(?:you know|i mean|i think|i guess)\b", re.IGNORECASE)


def _to_word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words at which phrases are split.
_VERBS = _to_word_set("am are can could did does had has have is may might must should was were will would")
_CONJUNCTIONS = _to_word_set(
    """after although and because before but if or since so that then though unless until when where whether which while
    who"""
)
_BREAKS = _VERBS | _CONJUNCTIONS
_TIED = _VERBS | _to_word_set("that which who")  # closely, to the words around them
# Words that no title begins with.
_WEAK_START = (_BREAKS - _to_word_set("after before when where while")) | _to_word_set(
    """actually again ah all alright also anyway as basically be been er even ever exactly gonna gotta hey hmm just kind
    kinda like literally maybe me mean now oh ok okay only perhaps please rather really right simply some something sort
    still stuff sure than them there thing things think too uh um us very wanna well yeah yep yes"""
)
# Words that no title ends with.
_WEAK_END = (
    _WEAK_START
    | _BREAKS
    | _to_word_set(
        """a about an any at being by every for from get gets go goes got her him his how i in into it it's its let more
    most my no not of off on one onto our out over put said says she he such take the their these they this those
    through to under upon we what why with without you your"""
    )
)
# Words that refer to something outside of the title.
_PRONOUNS = _to_word_set(
    """he he's her hers him his i i'd i'll i'm i've it it's its me my she she's that that's their theirs them these they
    they're this those us we we'll we're we've our there there's here you've"""
)
_SMALL = _to_word_set("a an and as at but by for from if in into nor of on onto or than the to via vs with")
_KEYWORD_WEIGHT = 0.15  # beside the similarity to the moment
_CUT, _CUT_TIED = 0.04, 0.12  # of a phrase that is cut from the next word


def make_titles(
    texts: Sequence[Sequence[str]], starts: Sequence[float], embedder: SentenceEmbedder, check: Callable[[], None]
) -> list[str]:
    """Return a unique title for each moment; `texts` are the sentences of each, `starts` in seconds."""
    key_words = _load_keyword_extractor(guess_language(" ".join(sentence for text in texts for sentence in text)))
    found = [find_title_candidates(text, _extract_keyword_weights(key_words, text)) for text in texts]
    encoded = embedder.encode([" ".join(text) for text in texts])
    titles: list[str] = []
    for index, (start, candidates) in enumerate(zip(starts, found, strict=True)):
        check()
        ranked = _rank_titles(candidates, index, encoded, embedder) if candidates else []
        ranked += _make_titles_of_sentence_starts(texts[index])
        titles.append(next((title for title in ranked if title not in titles), time_title(start)))
    return titles


def _make_titles_of_sentence_starts(sentences: Sequence[str]) -> Iterator[str]:
    for text in (*sentences, " ".join(sentences)):
        words = _trim_weak_words_at_ends(_WORD.findall(text))[:_MAX_WORDS]
        if len(words) >= _MIN_WORDS:
            yield title_case(words)


def find_title_candidates(sentences: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Return candidate phrases with their scores, all with keywords of YAKE (doi:10.1016/j.ins.2019.09.013)."""
    found: dict[str, float] = {}
    for sentence in sentences:
        for phrase, cost in _iterate_phrases_with_penalties(sentence):
            if score := _score_keywords_of_phrase(phrase.lower().split(), weights):
                grade = _KEYWORD_WEIGHT * score + _score_phrase_form(phrase.split()) - cost
                found[phrase] = max(grade, found.get(phrase, grade))
    best = sorted(found, key=lambda phrase: (-found[phrase], phrase))[:_MAX_CANDIDATES]
    return {phrase: found[phrase] for phrase in best}


def guess_language(text: str) -> str:
    """Return YAKE's code of the language whose stop words are most frequent in a text."""
    words = _WORD.findall(text.lower())[:_LANGUAGE_SAMPLE_WORDS]
    return max(_LANGUAGES, key=lambda language: sum(word in _load_stop_words(language) for word in words))


def title_case(words: Sequence[str]) -> str:
    last = len(words) - 1
    return " ".join(
        word if not word.islower() or (word in _SMALL and 0 < index < last) else word[:1].upper() + word[1:]
        for index, word in enumerate(words)
    )


def _rank_titles(
    candidates: Mapping[str, float], moment_index: int, moment_vectors: FloatArray, embedder: SentenceEmbedder
) -> list[str]:
    """Return titles, the most similar to their own moment and the least to others first."""
    phrases = list(candidates)
    nearness = embedder.encode(phrases) @ moment_vectors.T
    others = np.delete(nearness, moment_index, axis=1)
    scores = nearness[:, moment_index] - (0.3 * others.mean(axis=1) if others.size else 0.0)
    graded = {phrase: float(score) + candidates[phrase] for phrase, score in zip(phrases, scores, strict=True)}
    return [title_case(phrase.split()) for phrase in sorted(graded, key=lambda phrase: (-graded[phrase], phrase))]


def _score_phrase_form(words: Sequence[str]) -> float:
    """Return a penalty for pronouns and for too few or too many words."""
    lower = [word.lower() for word in words]
    pointing = sum(word in _PRONOUNS for word in lower)
    return (
        0.0
        - 0.08 * pointing
        - 0.1 * (lower[0] in _PRONOUNS)
        - 0.05 * max(5 - len(words), 0)
        - 0.01 * max(len(words) - 7, 0)
    )


def _score_keywords_of_phrase(words: Sequence[str], weights: Mapping[str, float]) -> float:
    return sum(weights.get(word, 0.0) for word in set(words)) / (len(words) + 2) * 4


def _extract_keyword_weights(extractor: "KeywordExtractor", sentences: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for index, (phrase, _) in enumerate(extractor.extract_keywords(" ".join(sentences))):
        for word in phrase.lower().split():
            weights.setdefault(word, 1 - index / _MAX_KEYWORDS)
    return weights


def _iterate_phrases_with_penalties(sentence: str) -> Iterator[tuple[str, float]]:
    for piece in _CLAUSE.findall(_ASIDE.sub(",", sentence)):
        words = _WORD.findall(piece)
        breaks = [index for index, word in enumerate(words) if word.lower() in _BREAKS]
        begins = sorted({0, *breaks, *(index + 1 for index in breaks)})
        ends = sorted({len(words), *breaks})
        for first, last in product(begins, ends):
            phrase = _trim_weak_words_at_ends(words[first:last])
            if _MIN_WORDS <= len(phrase) <= _MAX_WORDS:
                yield (
                    " ".join(phrase),
                    _sum_cut_word_penalties(words[first - 1 : first]) + _sum_cut_word_penalties(words[last : last + 1]),
                )


def _sum_cut_word_penalties(cut_words: Sequence[str]) -> float:
    return sum(_CUT_TIED if word.lower() in _TIED else _CUT for word in cut_words)


def _trim_weak_words_at_ends(words: Sequence[str]) -> Sequence[str]:
    first, last = 0, len(words)
    while first < last and words[first].lower() in _WEAK_START:
        first += 1
    while first < last and words[last - 1].lower() in _WEAK_END:
        last -= 1
    return words[first:last]


def time_title(seconds: float) -> str:
    return f"Moment at {format_clock_time(seconds)}"


@cache
def _load_keyword_extractor(language: str) -> "KeywordExtractor":
    try:
        from yake import KeywordExtractor
    except ImportError:
        raise make_model_missing_error("YAKE") from None
    return KeywordExtractor(lan=language, n=2, top=_MAX_KEYWORDS)


@cache
def _load_stop_words(language: str) -> frozenset[str]:
    return frozenset(_load_keyword_extractor(language).stopword_set)
