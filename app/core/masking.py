"""Masks secrets in texts that are stored, logged or answered and come from outside or from an error."""

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from threading import Lock
from typing import Any

MASK = "…"

_HEADER = r"(?:proxy-)?authorization"
_COOKIE = r"(?:set-)?cookie"
_FIELD = (
    r"(?:(?:api|access|secret|private|subscription)[-_ ]?key(?!s)|"
    r"(?:auth|access|refresh|id|security|session|csrf|bearer)[-_]?token|(?:client|callback)[-_]?secret|"
    r"webhook-signature|pass(?:word|wd|phrase)|pgpassword)"
)
FIELD_NAME = re.compile(rf"(?:[\w.-]{{0,64}}[-_.])?(?:{_HEADER}|{_COOKIE}|{_FIELD})", re.IGNORECASE)
_QUERY_NAME = re.compile(
    r"[\w.-]*(?:token(?!s)|secret|signature|passw(?:or)?d|api[-_]?key|access[-_]?key|credential|authorization|accessid)"
    r"[\w.-]*|sig|e?sign|key|auth|pwd|pass|jwt|sas|policy|key-pair-id|code|sessionid|hmac|hdnea|hdnts|hdntl|ticket|otp",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"(?:[?&;#~/]|%3f|%26|%23|\\u0026|\\u003f)([\w.-]{1,64}+)(?:=|%3d|\\u003d)", re.IGNORECASE)
_PARAMETER_VALUE = re.compile(r"(?:[^&\s\"'<>#\\;)\]}%`]|%(?!26|23|22|27))++")
_PREFIXED = (
    r"(?:sk|pk|rk)[-_][A-Za-z0-9_-]{8,}|vm_[A-Za-z0-9_-]{20,}|whsec_[A-Za-z0-9+/_=-]{8,}|gh[oprsu]_[A-Za-z0-9]{20,}|"
    r"github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,}|xai-[A-Za-z0-9]{16,}|"
    r"nvapi-[\w-]{16,}|r8_[A-Za-z0-9]{16,}|xox[abeoprs]-[\w-]{10,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}|ya29\.[\w.-]{16,}|"
    r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
)
_PREFIXES = (
    *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "vm_", "whsec_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_"),
    *("glpat-", "hf_", "gsk_", "xai-", "nvapi-", "r8_", "xox", "akia", "asia", "aiza", "ya29.", "eyj"),
)


def _mask_prefixed(found: re.Match[str]) -> str:
    return MASK if len(found[0]) >= 20 or any(map(str.isdigit, found[0])) else found[0]


def _mask_queries(text: str) -> str:
    """Mask query parameters by name, also inside a URL that is a parameter's value."""
    masked: list[str] = []
    done = 0
    for parameter in _PARAMETER.finditer(text):
        is_secret = parameter.start() >= done and _QUERY_NAME.fullmatch(parameter[1])
        value = _PARAMETER_VALUE.match(text, parameter.end()) if is_secret else None
        if value is not None:
            masked += [text[done : parameter.end()], MASK]
            done = value.end()
    return "".join(masked) + text[done:] if masked else text


def _mask_bearer(found: re.Match[str]) -> str:
    """Mask bearer tokens, but keep prose like `a bearer of news`."""
    is_word = len(found[2]) < 16 and not any(map(str.isdigit, found[2]))
    return found[0] if is_word else f"{found[1]}{MASK}"


def _mask_basic(found: re.Match[str]) -> str:
    sent = found[2].translate(str.maketrans("-_", "+/"))
    try:
        is_secret = b":" in base64.b64decode(sent + "=" * (-len(sent) % 4), validate=True)
    except (ValueError, binascii.Error):
        is_secret = False
    return f"{found[1]}{MASK}" if is_secret else found[0]


_USER = r"[^\s/?#\"'<>\\@]*+"
_SEPARATOR = r"\s{0,4}[:=]\s{0,4}"
_VALUE_WORD = r"(?!(?:null|true|false|none)\b)[^\s,;\"'&<>\\)}\]…]++"


def _compile_form(
    pattern: str, replacement: str | Callable[[re.Match[str]], str], flags: int = re.I
) -> Callable[[str], str]:
    return partial(re.compile(pattern, flags).sub, replacement)


# Each form with what a text in lower case has where it has the form, which is looked for first because it is cheap.
# None of the patterns goes back over what it has read, so that no text can hold anything up.
_SECRET_FORMS: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
    (
        ("private key-----",),
        _compile_form(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:\\{1,8}[nrt]|[A-Za-z0-9+/=\s:,.])*+"
            r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----)?",
            MASK,
        ),
    ),
    # The user and the password of a URL, also of one that is escaped in another one.
    (("@",), _compile_form(rf"(?<=[a-z0-9+.-])(:(?:\\{{0,8}}/){{2}}){_USER}(?:@{_USER}(?=@))*+@", rf"\1{MASK}@")),
    (("%3a%2f%2f",), _compile_form(r"(%3a%2f%2f)(?:[^\s/?#\"'<>\\&%]|%(?!40|2f|3f|23))*+%40", rf"\1{MASK}@")),
    # Signatures and tokens in the query of a URL.
    (("=", "%3d", "\\u003d"), _mask_queries),
    # Fields and headers: in quotes up to the quote that ends them, else a word, behind the name of its scheme if any.
    (
        ("authorization", "cookie", "key", "token", "secret", "signature", "pass"),
        _compile_form(
            rf"((?:{_HEADER}|{_COOKIE}|{_FIELD})(?:\\{{0,8}}[\"'])?\s{{0,4}}[:=,]\s{{0,4}}\[?\s{{0,4}}b?)"
            r"(\\{0,8}[\"'])(?:(?!(?<!\\)\2).){1,8192}",
            rf"\1\2{MASK}",
        ),
    ),
    (
        ("authorization",),
        _compile_form(
            rf"({_HEADER}{_SEPARATOR})(?:(?:basic|bearer|digest|negotiate|token|apikey)\s{{1,4}})?{_VALUE_WORD}",
            rf"\1{MASK}",
        ),
    ),
    (("cookie",), _compile_form(rf"({_COOKIE}{_SEPARATOR})[^\s=\"'\\]{{1,128}}+=[^\r\n\"'\\]++", rf"\1{MASK}")),
    (
        ("key", "token", "secret", "signature", "pass"),
        _compile_form(rf"({_FIELD}{_SEPARATOR}){_VALUE_WORD}", rf"\1{MASK}"),
    ),
    (("bearer",), _compile_form(r"(\bbearer(?:\s|%20|\+){1,4})([a-z0-9._~+/=-]{6,})", _mask_bearer)),
    (("basic",), _compile_form(r"(\bbasic(?:\s|%20|\+){1,4})([a-z0-9+/_-]{6,}={0,2})", _mask_basic)),
    (_PREFIXES, _compile_form(rf"(?<![A-Za-z0-9])(?:{_PREFIXED})", _mask_prefixed, re.NOFLAG)),
)


def mask_forms(text: str) -> str:
    lower = text.lower()
    for signs, mask in _SECRET_FORMS:
        if any(sign in lower for sign in signs):
            text = mask(text)
    return text


# Masking shorter secrets, or words, everywhere would damage other texts.
_SHORTEST_SECRET, _LONGEST_PLAIN_WORD = 6, 9
_MOST_KNOWN = 500
_LEAST_ENCODED = 12
# A service may spread a key over several fields: pieces of so many characters are masked, of keys that are long enough.
_PIECE, _LEAST_SPREAD, _STRIDE = 10, 20, 3

_ASCII_LOWER = str.maketrans({letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})

_known_secrets: tuple[str, ...] = ()  # replaced as a whole: texts are masked in threads too
_secrets_lock = Lock()


def remember_secret(*secrets: str) -> None:
    """Mask these secrets in this process from now on; short ones and words only by the form around them."""
    global _known_secrets
    with _secrets_lock:
        new = [secret for secret in secrets if _can_be_known(secret) and secret not in _known_secrets]
        if new:
            _known_secrets = (*_known_secrets, *new)[-_MOST_KNOWN:]


def _can_be_known(secret: str) -> bool:
    is_word = secret.isalpha() and len(secret) <= _LONGEST_PLAIN_WORD
    return len(secret) >= _SHORTEST_SECRET and not is_word


def mask_secrets(text: str) -> str:
    """Replace each secret in a text by `…`. JSON stays valid."""
    if _known_secrets:
        text = _mask_known(text)
    return mask_forms(text)


def mask_stored(text: str) -> str:
    """Do the same, in a third of the time, to a text whose parts were masked when they were stored.

    It finds known secrets only as they are: those of an earlier version, and the URLs that are kept to be called.
    """
    for secret in _known_secrets:
        text = text.replace(secret, MASK)
    return mask_forms(text)


def mask_values(value: Any) -> Any:
    match value:
        case str():
            return mask_secrets(value)
        case {"name": str(name), "value": hidden, **others} if FIELD_NAME.fullmatch(name):
            return {**mask_values(others), "name": name, "value": _mask_value(hidden)}
        case Mapping():
            return {mask_values(name): _mask_field(name, part) for name, part in value.items()}
        case (str(name), hidden) if FIELD_NAME.fullmatch(name):  # a header, as a pair
            return [name, _mask_value(hidden)]
        case list() | tuple():
            return [mask_values(part) for part in value]
        case _:
            return value


def _mask_field(name: Any, value: Any) -> Any:
    return _mask_value(value) if isinstance(name, str) and FIELD_NAME.fullmatch(name) else mask_values(value)


def _mask_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_mask_value(part) for part in value]
    return MASK if isinstance(value, str) and value else mask_values(value)


@lru_cache(maxsize=2)
def _list_spellings(known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple({_DecodedText(spelling).text for secret in known for spelling in _encode_secret(secret)})


def _encode_secret(secret: str) -> Iterable[str]:
    """Yield a secret, its base64 forms at each offset, and its hexadecimal form."""
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
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


class _DecodedText:
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
        at = self.text.find(part)
        while at >= 0:
            yield self.original_span(at, at + len(part))
            at = self.text.find(part, at + len(part))

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        return (start, end) if self._starts is None else (self._starts[start], self._starts[end])


def _mask_known(text: str) -> str:
    decoded = _DecodedText(text)
    spans = [span for spelling in _list_spellings(_known_secrets) for span in decoded.find(spelling)]
    spans += _find_pieces(decoded)
    masked: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            masked += [text[done:start], MASK]
        done = max(done, end)
    return "".join(masked) + text[done:] if masked else text


def _find_pieces(decoded: _DecodedText) -> Iterable[tuple[int, int]]:
    """Yield substrings of known secrets: all of twelve characters or more, and some shorter ones."""
    pieces, text = _list_pieces(_known_secrets), decoded.text
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
        yield decoded.original_span(start, done)
