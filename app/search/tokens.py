"""Words as an index knows them: folded, with their parts; each character in scripts without spaces between words."""

import re
import unicodedata
from functools import lru_cache
from itertools import accumulate, pairwise

from app.core.text import fold_letters, to_nfc

MAX_TOKEN_LENGTH = 100  # characters; an index entry of PostgreSQL holds 2,046 bytes

# Chinese, Japanese and Korean with their punctuation, Thai, Lao, Tibetan, Burmese, Khmer: no spaces between words.
_UNSPACED = (
    "\u0e01-\u0e4f\u0e81-\u0edf\u0f40-\u0fbc\u1000-\u109f\u1780-\u17dd\u1100-\u11ff\u3001-\u303f\u3040-\u30ff"
    "\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff01-\uff0f"
    "\uff1a-\uff20\uff3b-\uff40\uff5b-\uffdc\U00020000-\U0003ffff"
)
_MARKS_OF_UNSPACED = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u17b4-\u17d3\u3099\u309a"
    "\uff9e\uff9f\u0f71-\u0f84\u0f90-\u0fbc"
)
_SEPARATORS = r"\u2013\u2014\u2026|<>(){}\[\]\"\u201c\u201d\u201e\u00ab\u00bb"  # of words, also without spaces
_WORD = re.compile(
    rf"[{_UNSPACED}][{_MARKS_OF_UNSPACED}]*|[^\s{_UNSPACED}{_SEPARATORS}]+[{_SEPARATORS}]*|[{_SEPARATORS}]+"
)
# Text whose words are what stands between single spaces, each with a letter or a digit, as most is.
_SIMPLE_WORD = r"(?=[^ ]*[0-9A-Za-z])[!#-'*-;=?@A-Za-z\u2019]++"
_SIMPLE_TEXT = re.compile(rf"{_SIMPLE_WORD}(?: {_SIMPLE_WORD})*+")
_IS_UNSPACED = re.compile(rf"[\W_]*(?=[^\W_])[{_UNSPACED}]")
_SENTENCE_END = re.compile(r"[.?!\u2026\u3002\uff0e\uff01\uff1f\u061f\u06d4\u0964]['\"\u201d\u2019\u00bb\u300d)\]]*$")

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4\u1ffd`", "'"))
# Accents above Greek and Cyrillic letters (but that of U+0439), vowel signs of Arabic and Hebrew, the Arabic tatweel.
_UNWRITTEN_MARKS = re.compile(
    "[\u0300-\u0305\u0307-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\ufe0e\ufe0f]"
)


def split_into_words(text: str) -> list[str]:
    """Return the words of a text as they are written, with the punctuation around them.

    In a script without spaces each character is a word.
    """
    return [text[first:after] for first, after in list_word_spans(text)]


def list_word_spans(text: str, most: int | None = None) -> list[tuple[int, int]]:
    """Return where each word starts and ends in the text, or the first `most` ones.

    Punctuation that stands alone belongs to the word before it, at the start of the text to the word after it.
    """
    if _SIMPLE_TEXT.fullmatch(text):
        return _list_simple_word_spans(text, most)
    spans: list[tuple[int, int]] = []
    leading: int | None = None  # start of what stands before the first word
    for match in _WORD.finditer(text):
        first, after = match.span()
        if list_tokens(match[0]):
            if len(spans) == most:
                break
            spans.append((first if leading is None else leading, after))
            leading = None
        elif spans:
            spans[-1] = spans[-1][0], after
        elif leading is None:
            leading = first
    return spans


def _list_simple_word_spans(text: str, most: int | None) -> list[tuple[int, int]]:
    words = text.split(" ") if most is None else text.split(" ", most)[:most]
    ends = list(accumulate((len(word) + 1 for word in words), initial=0))
    return [(first, after - 1) for first, after in pairwise(ends)]


def split_off_punctuation(word: str) -> tuple[str, str, str]:
    """Return what stands before the letters of a word, the word, and what stands behind them."""
    first, after = _find_letters(word)
    return word[:first], word[first:after], word[after:]


def is_unspaced(word: str) -> bool:
    """Return whether a word is a character of a script without spaces between words."""
    return _IS_UNSPACED.match(word) is not None


@lru_cache(1 << 10)
def is_pair(lexeme: str) -> bool:
    """Return whether a lexeme stands for two neighbouring characters of a script without spaces."""
    return is_unspaced(lexeme) and len(split_into_words(lexeme)) == 2


def ends_sentence(word: str) -> bool:
    return _SENTENCE_END.search(word) is not None


@lru_cache(1 << 15)
def list_tokens(word: str) -> tuple[str, ...]:
    """Return what a word is found by: the word itself first, then the parts of `don't`, `AT&T` or an address.

    Case, accents and width make no difference. Empty for punctuation; a symbol such as an emoji stands for itself.
    """
    whole = fold_word(word)
    parts = fold_letters(whole).split()
    if not parts:
        return (whole,) if any(unicodedata.category(each) == "So" for each in whole) else ()
    joined = "".join(parts)
    is_one_word = whole.replace("'", "") == joined or all(len(part) == 1 for part in parts)  # `don't`, `U.S.`
    return tuple(dict.fromkeys([whole, *([joined] if is_one_word else []), *parts]))


@lru_cache(1 << 15)
def fold_word(word: str) -> str:
    """Return a word in lower case without accents and without the punctuation around it: `C++,` is `c++`."""
    if word.isalpha() and word.isascii():
        return word.lower()[:MAX_TOKEN_LENGTH]
    # NFKC makes a space and an accent of U+00B4, and of a few other characters an apostrophe.
    unmarked = _drop_unwritten_marks(unicodedata.normalize("NFKC", normalize_apostrophes(word)))
    folded = normalize_apostrophes(re.sub(r"[^\W_]+", lambda letters: fold_letters(letters[0]), unmarked))
    first, after = _find_letters(folded)
    return folded[first:after][:MAX_TOKEN_LENGTH].rstrip()


def normalize_apostrophes(word: str) -> str:
    return word.translate(_APOSTROPHES)


def _find_letters(word: str) -> tuple[int, int]:
    """Return where the first letter, digit or symbol of a word starts and the last one ends, with signs as in `C++`."""
    if word.isalnum():
        return 0, len(word)
    first = next((at for at, each in enumerate(word) if _is_in_words(each)), 0)
    after = next((at + 1 for at in range(len(word) - 1, -1, -1) if _is_in_words(word[at])), 0)
    while after and word[after : after + 1] in ("+", "#"):
        after += 1
    return first, after


def _is_in_words(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM" or unicodedata.category(character) == "So"


def _drop_unwritten_marks(text: str) -> str:
    return text if text.isascii() else to_nfc(_UNWRITTEN_MARKS.sub("", unicodedata.normalize("NFD", text)))
