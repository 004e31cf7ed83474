"""Documents: the lexemes of a passage or a title with their positions, as PostgreSQL's tsvector holds them.

A lexeme is a word as it is written (folded), a pair of neighbouring characters in a script without spaces, or `~` and
the stem of a word. Positions count the words of `split_into_words`, from 1.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from app.core.text import to_nfc
from app.search.tokens import MAX_TOKEN_LENGTH, is_unspaced, list_tokens, normalize_apostrophes

STEM_MARK = "~"
_MAX_POSITION = 16_383  # of a tsvector
_MAX_POSITIONS = 255  # of one lexeme

# The text search dictionaries of PostgreSQL that find stems, by the language of a transcript.
STEMMERS = {
    "ar": "arabic_stem", "ca": "catalan_stem", "da": "danish_stem", "de": "german_stem", "el": "greek_stem",
    "en": "english_stem", "es": "spanish_stem", "et": "estonian_stem", "eu": "basque_stem", "fi": "finnish_stem",
    "fr": "french_stem", "ga": "irish_stem", "hi": "hindi_stem", "hu": "hungarian_stem", "hy": "armenian_stem",
    "id": "indonesian_stem", "it": "italian_stem", "lt": "lithuanian_stem", "nb": "norwegian_stem",
    "ne": "nepali_stem", "nl": "dutch_stem", "nn": "norwegian_stem", "no": "norwegian_stem", "pl": "polish_stem",
    "pt": "portuguese_stem", "ro": "romanian_stem", "ru": "russian_stem", "sr": "serbian_stem", "sv": "swedish_stem",
    "ta": "tamil_stem", "tr": "turkish_stem", "yi": "yiddish_stem",
}  # fmt: skip


def get_stemmer(language: str) -> str | None:
    """Return the dictionary for a language such as `en`, `EN`, `en-GB` or `english`; None for one without stems."""
    code = language.strip().lower().replace("_", "-")
    name = STEMMERS.get(code.partition("-")[0])
    return name or (f"{code}_stem" if f"{code}_stem" in STEMMERS.values() else None)


@lru_cache(1 << 15)
def list_stemmed_forms(word: str) -> tuple[str, ...]:
    """Return the forms of a word whose stems are indexed: with and without its accents, and its parts."""
    if is_unspaced(word):
        return ()
    accented = to_nfc(normalize_apostrophes(word).strip(_PUNCTUATION).lower())[:MAX_TOKEN_LENGTH]
    forms = dict.fromkeys([*list_tokens(word), accented])
    return tuple(form for form in forms if _has_only_letters(form.replace("'", "")))


def _has_only_letters(form: str) -> bool:
    """Return whether a form has only letters and their marks, as the vowel signs of Hindi and Tamil are."""
    if form.isalpha():
        return True
    return form[:1].isalpha() and all(unicodedata.category(each)[0] in "LM" for each in form)


_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u201c\u201d\u201e\u00ab\u00bb\u00bf\u00a1\u2026\u2013\u2014"


def make_document(words: Sequence[str], stems: Mapping[str, Iterable[str]]) -> str:
    """Return the text of a tsvector; `stems` has the stems of each form that `list_stemmed_forms` gives."""
    positions: dict[str, list[int]] = {}
    for position, lexemes in enumerate(_iterate_lexemes(words, stems), 1):
        for lexeme in lexemes:
            positions.setdefault(lexeme, []).append(min(position, _MAX_POSITION))
    return " ".join(
        f"{quote_lexeme(lexeme)}:{','.join(map(str, places[:_MAX_POSITIONS]))}" for lexeme, places in positions.items()
    )


def _iterate_lexemes(words: Sequence[str], stems: Mapping[str, Iterable[str]]) -> Iterator[Iterable[str]]:
    for word, following in pairwise([*words, ""]):
        if is_unspaced(word):
            (token, *_) = list_tokens(word)
            yield [token + list_tokens(following)[0] if is_unspaced(following) else token]
        else:
            tokens = list_tokens(word)
            marked = [STEM_MARK + stem for stem in list_stems_of_word(word, stems) if stem not in tokens]
            yield dict.fromkeys([*tokens, *marked])


def list_stems_of_word(word: str, stems: Mapping[str, Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(stem for form in list_stemmed_forms(word) for stem in stems.get(form, ())))


def quote_lexeme(lexeme: str) -> str:
    """Return a lexeme as it stands in the text of a tsvector or a tsquery."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
