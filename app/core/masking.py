"""Masks secrets in texts that are stored, logged or answered and come from outside or from an error."""

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from threading import Lock
from typing import Any

from ahocorasick_rs import BytesAhoCorasick, Implementation

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


def _mask_prefixed_key(match: re.Match[str]) -> str:
    return MASK if len(match[0]) >= 20 or any(map(str.isdigit, match[0])) else match[0]


def _mask_query_parameters(text: str) -> str:
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


def _mask_bearer_token(match: re.Match[str]) -> str:
    """Mask bearer tokens, but keep prose like `a bearer of news`."""
    is_word = len(match[2]) < 16 and not any(map(str.isdigit, match[2]))
    return match[0] if is_word else f"{match[1]}{MASK}"


def _mask_basic_credentials(match: re.Match[str]) -> str:
    sent = match[2].translate(str.maketrans("-_", "+/"))
    try:
        is_secret = b":" in base64.b64decode(sent + "=" * (-len(sent) % 4), validate=True)
    except (ValueError, binascii.Error):
        is_secret = False
    return f"{match[1]}{MASK}" if is_secret else match[0]


_USER = r"[^\s/?#\"'<>\\@]*+"
_SEPARATOR = r"\s{0,4}[:=]\s{0,4}"
_VALUE_WORD = r"(?!(?:null|true|false|none)\b)[^\s,;\"'&<>\\)}\]…]++"


def _make_replacer(
    pattern: str, replacement: str | Callable[[re.Match[str]], str], flags: int = re.I
) -> Callable[[str], str]:
    return partial(re.compile(pattern, flags).sub, replacement)


# Each form with what a text in lower case has where it has the form, which is looked for first because it is cheap.
# None of the patterns goes back over what it has read, so that no text can hold anything up.
_SECRET_FORMS: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
    (
        ("private key-----",),
        _make_replacer(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:\\{1,8}[nrt]|[A-Za-z0-9+/=\s:,.])*+"
            r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----)?",
            MASK,
        ),
    ),
    # The user and the password of a URL, also of one that is escaped in another one.
    (("@",), _make_replacer(rf"(?<=[a-z0-9+.-])(:(?:\\{{0,8}}/){{2}}){_USER}(?:@{_USER}(?=@))*+@", rf"\1{MASK}@")),
    (("%3a%2f%2f",), _make_replacer(r"(%3a%2f%2f)(?:[^\s/?#\"'<>\\&%]|%(?!40|2f|3f|23))*+%40", rf"\1{MASK}@")),
    # Signatures and tokens in the query of a URL.
    (("=", "%3d", "\\u003d"), _mask_query_parameters),
    # Fields and headers: in quotes up to the quote that ends them, else a word, behind the name of its scheme if any.
    (
        ("authorization", "cookie", "key", "token", "secret", "signature", "pass"),
        _make_replacer(
            rf"((?:{_HEADER}|{_COOKIE}|{_FIELD})(?:\\{{0,8}}[\"'])?\s{{0,4}}[:=,]\s{{0,4}}\[?\s{{0,4}}b?)"
            r"(\\{0,8}[\"'])(?:(?!(?<!\\)\2).){1,8192}",
            rf"\1\2{MASK}",
        ),
    ),
    (
        ("authorization",),
        _make_replacer(
            rf"({_HEADER}{_SEPARATOR})(?:(?:basic|bearer|digest|negotiate|token|apikey)\s{{1,4}})?{_VALUE_WORD}",
            rf"\1{MASK}",
        ),
    ),
    (("cookie",), _make_replacer(rf"({_COOKIE}{_SEPARATOR})[^\s=\"'\\]{{1,128}}+=[^\r\n\"'\\]++", rf"\1{MASK}")),
    (
        ("key", "token", "secret", "signature", "pass"),
        _make_replacer(rf"({_FIELD}{_SEPARATOR}){_VALUE_WORD}", rf"\1{MASK}"),
    ),
    (("bearer",), _make_replacer(r"(\bbearer(?:\s|%20|\+){1,4})([a-z0-9._~+/=-]{6,})", _mask_bearer_token)),
    (("basic",), _make_replacer(r"(\bbasic(?:\s|%20|\+){1,4})([a-z0-9+/_-]{6,}={0,2})", _mask_basic_credentials)),
    (_PREFIXES, _make_replacer(rf"(?<![A-Za-z0-9])(?:{_PREFIXED})", _mask_prefixed_key, re.NOFLAG)),
)


# All signs are looked for in one pass, which takes a tenth of the time of one after the other.
_SIGNS = [*{sign: None for signs, _ in _SECRET_FORMS for sign in signs}]
_SIGN_SEARCH = BytesAhoCorasick([sign.encode() for sign in _SIGNS], implementation=Implementation.DFA)


def _find_signs(text: str) -> set[str]:
    lower = text.lower().encode("utf-8", "surrogatepass")
    return {_SIGNS[index] for index, _, _ in _SIGN_SEARCH.find_matches_as_indexes(lower, overlapping=True)}


def mask_recognizable_secrets(text: str) -> str:
    """Mask what looks like a secret: passwords in URLs, fields and headers of secrets, keys by their prefix."""
    found = _find_signs(text)
    for signs, mask in _SECRET_FORMS:
        if not found.isdisjoint(signs):
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
    """Mask these secrets in every text from now on; ones too short or like a word only by the form around them."""
    global _known_secrets
    with _secrets_lock:
        new = [secret for secret in secrets if _is_safe_to_mask_everywhere(secret) and secret not in _known_secrets]
        if new:
            _known_secrets = (*_known_secrets, *new)[-_MOST_KNOWN:]


def _is_safe_to_mask_everywhere(secret: str) -> bool:
    is_word = secret.isalpha() and len(secret) <= _LONGEST_PLAIN_WORD
    return len(secret) >= _SHORTEST_SECRET and not is_word


def mask_secrets(text: str) -> str:
    """Replace each known and each recognizable secret in a text by `…`. JSON stays valid."""
    if _known_secrets:
        text = _mask_known_secrets(text)
    return mask_recognizable_secrets(text)


def mask_stored_text(text: str) -> str:
    """Mask a text whose parts were masked when they were stored, in a third of the time of `mask_secrets`."""
    for secret in _known_secrets:
        text = text.replace(secret, MASK)
    return mask_recognizable_secrets(text)


def mask_values(value: Any) -> Any:
    """Mask the strings in a JSON value, and wholly those under the name of a secret field."""
    match value:
        case str():
            return mask_secrets(value)
        case {"name": str(name), "value": hidden, **others} if FIELD_NAME.fullmatch(name):
            return {**mask_values(others), "name": name, "value": _mask_whole_value(hidden)}
        case Mapping():
            return {mask_values(name): _mask_field_by_name(name, part) for name, part in value.items()}
        case (str(name), hidden) if FIELD_NAME.fullmatch(name):  # a header, as a pair
            return [name, _mask_whole_value(hidden)]
        case list() | tuple():
            return [mask_values(part) for part in value]
        case _:
            return value


def _mask_field_by_name(name: Any, value: Any) -> Any:
    return _mask_whole_value(value) if isinstance(name, str) and FIELD_NAME.fullmatch(name) else mask_values(value)


def _mask_whole_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_mask_whole_value(part) for part in value]
    return MASK if isinstance(value, str) and value else mask_values(value)


@lru_cache(maxsize=2)
def _list_encoded_secrets(secrets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple({_DecodedText(spelling).text for secret in secrets for spelling in _encode_secret(secret)})


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
def _list_secret_pieces(secrets: tuple[str, ...]) -> frozenset[str]:
    long = (_to_lower_of_same_length(secret) for secret in secrets if len(secret) >= _LEAST_SPREAD)
    return frozenset(secret[at : at + _PIECE] for secret in long for at in range(len(secret) - _PIECE + 1))


def _to_lower_of_same_length(text: str) -> str:
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


class _DecodedText:
    """A text in lower case and without the escapes of URLs, JSON and HTML, with positions in the original text."""

    _ESCAPES = re.compile(
        r"(?:%(?:25)*[0-9a-fA-F]{2})+|\\{1,8}u[0-9a-fA-F]{4}|\\{1,8}[\"'/]|\\{2,8}|"
        r"&(?:amp;)*(?:#[0-9]{1,6}|#[xX][0-9a-fA-F]{1,5}|quot|apos|amp|lt|gt);"
    )
    _BYTES = re.compile(r"%(?:25)*([0-9a-fA-F]{2})")

    def __init__(self, text: str) -> None:
        self.text = _to_lower_of_same_length(text)
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
            for characters, start in self._decode_escape(escape):
                parts.append(characters)
                starts += [start] * len(characters)
            done = escape.end()
        parts.append(text[done:])
        starts += range(done, len(text) + 1)
        self.text, self._starts = _to_lower_of_same_length("".join(parts)), starts

    def _decode_escape(self, escape: re.Match[str]) -> Iterable[tuple[str, int]]:
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

    def find_spans_of(self, substring: str) -> Iterable[tuple[int, int]]:
        at = self.text.find(substring)
        while at >= 0:
            yield self.find_original_span(at, at + len(substring))
            at = self.text.find(substring, at + len(substring))

    def find_original_span(self, start: int, end: int) -> tuple[int, int]:
        return (start, end) if self._starts is None else (self._starts[start], self._starts[end])


def _mask_known_secrets(text: str) -> str:
    decoded = _DecodedText(text)
    spans = [span for spelling in _list_encoded_secrets(_known_secrets) for span in decoded.find_spans_of(spelling)]
    spans += _find_piece_spans(decoded)
    masked: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            masked += [text[done:start], MASK]
        done = max(done, end)
    return "".join(masked) + text[done:] if masked else text


def _find_piece_spans(decoded: _DecodedText) -> Iterable[tuple[int, int]]:
    """Yield where in the original text pieces of long known secrets are: all of twelve characters, some of ten."""
    pieces, text = _list_secret_pieces(_known_secrets), decoded.text
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
        yield decoded.find_original_span(start, done)
