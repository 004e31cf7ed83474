"""Normalization and escaping of text: names and titles are stored in NFC, on one line, without invisible characters."""

import re
import unicodedata

_LINE_BREAKS = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
# Controls, direction marks, zero-width spaces and format characters. U+0000 is refused on input.
_INVISIBLE = re.compile(
    "[\x01-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
# Joiners have a meaning in some scripts and in emoji, but not beside ASCII.
_LOOSE_JOINER = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])")
# Refused in names: controls, line breaks, and characters that reverse the direction of writing.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_IN_LINES = re.compile(r"(?![\t\n]|\r\n)" + _CONTROL.pattern)
# Invisible and control characters that JSON allows unescaped.
_NOT_ESCAPED_BY_JSON = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
# Letters that Unicode does not decompose.
_FOLDED = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ŋ": "n",
        "\u0131": "i", "ŧ": "t", "ĸ": "k", "ƒ": "f", "ə": "e", "ɛ": "e", "ɔ": "o", "ɓ": "b", "ɖ": "d", "ɗ": "d",
    }
)  # fmt: skip
_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"


def to_nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def is_valid_identifier(identifier: str) -> bool:
    """Return whether PostgreSQL can look the identifier up: it has no U+0000 and no lone surrogate."""
    return "\0" not in identifier and is_utf8(identifier)


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def list_unicode_forms(identifier: str) -> list[str]:
    """Return the Unicode forms that a file system may use for an identifier, NFC first."""
    if identifier.isascii():
        return [identifier]
    return list(dict.fromkeys([identifier, unicodedata.normalize("NFD", identifier)]))


def clean_line(text: str) -> str:
    """Return the text in NFC and on one line, without invisible characters but U+0000 and lone surrogates."""
    if text.isascii() and text.isprintable():
        return text
    text = _INVISIBLE.sub("", _LINE_BREAKS.sub(" ", text))
    return to_nfc(_LOOSE_JOINER.sub("", text))


def has_invisible_characters(text: str) -> bool:
    return any(pattern.search(text) for pattern in (_LINE_BREAKS, _INVISIBLE, _LOOSE_JOINER))


def fold_letters(text: str) -> str:
    """Return lower-case ASCII for Latin letters (`ü` is `u`), other letters and digits as they are, else spaces."""
    folded: list[str] = []
    for character in unicodedata.normalize("NFKD", text).lower().translate(_FOLDED):
        kind = unicodedata.category(character)[0]
        if kind in "LN":
            folded.append(character)
        elif kind == "M":
            # A mark belongs to its letter: above a Latin one it is dropped, in other scripts it makes another letter.
            if folded and not folded[-1].isascii():
                folded.append(character)
        elif unicodedata.category(character) != "Cf":
            folded.append(" ")
    return to_nfc("".join(folded))


def escape_controls(text: str) -> str:
    r"""Return the text on one line: a line break is `\n`, another control character `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(_escape_character(each) if _is_control_character(each) else each for each in text)


def escape_and_indent_lines(text: str) -> str:
    """Return the text with control characters escaped and each line but the first indented, as a traceback."""
    return "\n  ".join(map(escape_controls, text.split("\n")))


def escape_json(document: str) -> str:
    """Escape invisible characters in a JSON document; its values stay the same."""
    return _NOT_ESCAPED_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def find_control_character(text: str) -> str:
    """Return the first control or line break, or sign that reverses the direction, as `U+001B`; '' for none."""
    return _format_code_point(_CONTROL.search(text))


def find_control_except_line_breaks(text: str) -> str:
    """Do as `find_control_character`, but accept tabs and line breaks."""
    return _format_code_point(_CONTROL_IN_LINES.search(text))


def _format_code_point(match: re.Match[str] | None) -> str:
    return f"U+{ord(match[0][0]):04X}" if match else ""


def _is_control_character(character: str) -> bool:
    return unicodedata.category(character) in _CONTROLS and character not in _JOINERS


def _escape_character(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def strip_unstorable(text: str) -> str:
    """Remove the characters that PostgreSQL cannot store: U+0000 and lone surrogates."""
    return text.replace("\0", "").encode(errors="ignore").decode()


def clean_text(text: str) -> str:
    """Return a text in NFC, without U+0000 and with `?` for lone surrogates: text from outside that is to be stored."""
    return to_nfc(text.encode("utf-8", "replace").decode().replace("\x00", ""))


def to_single_line(text: str, max_length: int) -> str:
    return " ".join(clean_line(clean_text(text)).split())[:max_length].rstrip()


def format_clock_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
