"""Secrets in texts: whatever is stored, logged or answered and comes from outside or from an error passes here.

Two kinds are masked: what this process knows to be a secret (passwords of the settings, API keys of models), in every
spelling that a URL, JSON, HTML or HTTP authentication gives it; and what has the form of one, such as the user of a
URL, the signature of a signed one, the value of an Authorization header, or a key with a known prefix.
"""

import base64
import html
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from threading import Lock
from typing import Any

from app.core.secret_forms import FIELD_NAME, MASK, mask_forms

# What is shorter, or a word, cannot be masked wherever it stands without tearing other texts apart.
_SHORTEST, _LONGEST_WORD = 6, 9
_MOST_KNOWN = 500
_LEAST_ENCODED = 12
# A service may spread a key over several fields: pieces of so many characters are masked, of keys that are long enough.
_PIECE, _LEAST_SPREAD, _STRIDE = 10, 20, 3

_ASCII_LOWER = str.maketrans({letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})

_known: tuple[str, ...] = ()  # replaced as a whole: texts are masked in threads too
_remembering = Lock()


def remember_secret(*secrets: str) -> None:
    """Have secrets masked from now on in this process; short ones and words are masked only by the form around them."""
    global _known
    with _remembering:
        new = [secret for secret in secrets if _can_be_known(secret) and secret not in _known]
        if new:
            _known = (*_known, *new)[-_MOST_KNOWN:]


def _can_be_known(secret: str) -> bool:
    is_word = secret.isalpha() and len(secret) <= _LONGEST_WORD
    return len(secret) >= _SHORTEST and not is_word


def mask_secrets(text: str) -> str:
    """Return a text with `…` for each secret in it. JSON stays JSON: no quote and no backslash goes with one."""
    if _known:
        text = _mask_known(text)
    return mask_forms(text)


def mask_stored(text: str) -> str:
    """Do the same, in a third of the time, to a text whose parts were masked when they were stored.

    It finds known secrets only as they are: those of an earlier version, and the URLs that are kept to be called.
    """
    for secret in _known:
        text = text.replace(secret, MASK)
    return mask_forms(text)


def mask_values(value: Any) -> Any:
    """Return what JSON can hold with every text in it masked, the names of fields too."""
    match value:
        case str():
            return mask_secrets(value)
        case {"name": str(name), "value": hidden, **others} if FIELD_NAME.fullmatch(name):
            return {**mask_values(others), "name": name, "value": _hide(hidden)}
        case Mapping():
            return {mask_values(name): _mask_field(name, part) for name, part in value.items()}
        case (str(name), hidden) if FIELD_NAME.fullmatch(name):  # a header, as a pair
            return [name, _hide(hidden)]
        case list() | tuple():
            return [mask_values(part) for part in value]
        case _:
            return value


def _mask_field(name: Any, value: Any) -> Any:
    return _hide(value) if isinstance(name, str) and FIELD_NAME.fullmatch(name) else mask_values(value)


def _hide(value: Any) -> Any:
    """Mask what stands in a field for secrets, whatever it looks like."""
    if isinstance(value, list | tuple):
        return [_hide(part) for part in value]
    return MASK if isinstance(value, str) and value else mask_values(value)


@lru_cache(maxsize=2)
def _list_spellings(known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple({_Decoded(spelling).text for secret in known for spelling in _spell(secret)})


def _spell(secret: str) -> Iterable[str]:
    """Yield a secret, what base64 makes of it wherever it stands in what is encoded, and hexadecimal."""
    yield secret
    yield secret.replace(" ", "+")
    data = secret.encode("utf-8", "replace")
    for offset in range(3):  # of the secret in a group of three bytes; the outermost characters belong to others too
        encoded = base64.b64encode(b"\0" * offset + data).decode()
        core = encoded[(0, 2, 3)[offset] : len(encoded) - (0, 3, 2)[(offset + len(data)) % 3]]
        if len(core) >= _LEAST_ENCODED:
            yield core
            yield core.translate(str.maketrans("+/", "-_"))
    if 2 * len(data) >= _LEAST_ENCODED:
        yield data.hex()


@lru_cache(maxsize=2)
def _list_pieces(known: tuple[str, ...]) -> frozenset[str]:
    long = (_to_lower(secret) for secret in known if len(secret) >= _LEAST_SPREAD)
    return frozenset(secret[at : at + _PIECE] for secret in long for at in range(len(secret) - _PIECE + 1))


def _to_lower(text: str) -> str:
    """Return a text of the same length in lower case: some letters become two in it, and are left."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


class _Decoded:
    """A text in lower case and without the escapes of URLs, JSON and HTML, which knows where in the original it is."""

    _ESCAPES = re.compile(
        r"(?:%(?:25)*[0-9a-fA-F]{2})+|\\{1,8}u[0-9a-fA-F]{4}|\\{1,8}[\"'/]|\\{2,8}|"
        r"&(?:amp;)*(?:#[0-9]{1,6}|#[xX][0-9a-fA-F]{1,5}|quot|apos|amp|lt|gt);"
    )
    _BYTES = re.compile(r"%(?:25)*([0-9a-fA-F]{2})")

    def __init__(self, text: str) -> None:
        self.text = _to_lower(text)
        self._starts: list[int] | None = None  # in the original, where it differs
        escapes = list(self._ESCAPES.finditer(text)) if "%" in text or "\\" in text or "&" in text else []
        if escapes:
            self._decode(text, escapes)

    def _decode(self, text: str, escapes: Iterable[re.Match[str]]) -> None:
        parts: list[str] = []
        starts: list[int] = []
        done = 0
        for escape in escapes:
            parts.append(text[done : escape.start()])
            starts += range(done, escape.start())
            for characters, start in self._read(escape):
                parts.append(characters)
                starts += [start] * len(characters)
            done = escape.end()
        parts.append(text[done:])
        starts += range(done, len(text) + 1)
        self.text, self._starts = _to_lower("".join(parts)), starts

    def _read(self, escape: re.Match[str]) -> Iterable[tuple[str, int]]:
        """Yield what an escape stands for, and where in the original that begins."""
        found = escape[0]
        if found[0] == "%":
            encoded = list(self._BYTES.finditer(found))
            text = bytes(int(byte[1], 16) for byte in encoded).decode("utf-8", "surrogateescape")
            at = 0
            for character in text:
                yield character, escape.start() + encoded[at].start()
                at += len(character.encode("utf-8", "surrogateescape"))
        elif found[0] == "&":
            yield html.unescape(re.sub("&(?:amp;)+(?=.)", "&", found)), escape.start()
        elif "u" in found:
            yield chr(int(found[-4:], 16)), escape.start()
        else:
            yield found[-1], escape.start()

    def find(self, part: str) -> Iterable[tuple[int, int]]:
        """Yield where in the original a text stands, from its first character to behind its last."""
        at = self.text.find(part)
        while at >= 0:
            yield self.place(at, at + len(part))
            at = self.text.find(part, at + len(part))

    def place(self, start: int, end: int) -> tuple[int, int]:
        return (start, end) if self._starts is None else (self._starts[start], self._starts[end])


def _mask_known(text: str) -> str:
    decoded = _Decoded(text)
    spans = [span for spelling in _list_spellings(_known) for span in decoded.find(spelling)]
    spans += _find_pieces(decoded)
    masked: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            masked += [text[done:start], MASK]
        done = max(done, end)
    return "".join(masked) + text[done:] if masked else text


def _find_pieces(decoded: _Decoded) -> Iterable[tuple[int, int]]:
    """Yield the parts of known secrets that are at least twelve characters long, and some shorter ones."""
    pieces, text = _list_pieces(_known), decoded.text
    done = at = 0
    while pieces and at <= len(text) - _PIECE:
        if text[at : at + _PIECE] not in pieces:
            at += _STRIDE
            continue
        start = end = at
        while start > done and text[start - 1 : start - 1 + _PIECE] in pieces:
            start -= 1
        while text[end + 1 : end + 1 + _PIECE] in pieces:
            end += 1
        done = at = end + _PIECE
        yield decoded.place(start, done)
