"""What has the form of a secret, whoever it belongs to: keys with a known prefix, signed URLs, values of headers."""

import base64
import binascii
import re
from collections.abc import Callable
from functools import partial

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
    """Keep words that only begin like a key: `sk-learn`."""
    return MASK if len(found[0]) >= 20 or any(map(str.isdigit, found[0])) else found[0]


def _mask_queries(text: str) -> str:
    """Mask the values of parameters by their names, also of a URL that is the value of another parameter."""
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
    """Keep prose: a bearer of news."""
    is_word = len(found[2]) < 16 and not any(map(str.isdigit, found[2]))
    return found[0] if is_word else f"{found[1]}{MASK}"


def _mask_basic(found: re.Match[str]) -> str:
    """Mask what decodes to a user and a password."""
    sent = found[2].translate(str.maketrans("-_", "+/"))
    try:
        is_secret = b":" in base64.b64decode(sent + "=" * (-len(sent) % 4), validate=True)
    except (ValueError, binascii.Error):
        is_secret = False
    return f"{found[1]}{MASK}" if is_secret else found[0]


_USER = r"[^\s/?#\"'<>\\@]*+"
_SEPARATOR = r"\s{0,4}[:=]\s{0,4}"
_WORD = r"(?!(?:null|true|false|none)\b)[^\s,;\"'&<>\\)}\]…]++"


def _form(pattern: str, replacement: str | Callable[[re.Match[str]], str], flags: int = re.I) -> Callable[[str], str]:
    return partial(re.compile(pattern, flags).sub, replacement)


# Each form with what a text in lower case has where it has the form, which is looked for first because it is cheap.
# None of the patterns goes back over what it has read, so that no text can hold anything up.
_FORMS: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
    (
        ("private key-----",),
        _form(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:\\{1,8}[nrt]|[A-Za-z0-9+/=\s:,.])*+"
            r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----)?",
            MASK,
        ),
    ),
    # The user and the password of a URL, also of one that is escaped in another one.
    (("@",), _form(rf"(?<=[a-z0-9+.-])(:(?:\\{{0,8}}/){{2}}){_USER}(?:@{_USER}(?=@))*+@", rf"\1{MASK}@")),
    (("%3a%2f%2f",), _form(r"(%3a%2f%2f)(?:[^\s/?#\"'<>\\&%]|%(?!40|2f|3f|23))*+%40", rf"\1{MASK}@")),
    # Signatures and tokens in the query of a URL.
    (("=", "%3d", "\\u003d"), _mask_queries),
    # Fields and headers: in quotes up to the quote that ends them, else a word, behind the name of its scheme if any.
    (
        ("authorization", "cookie", "key", "token", "secret", "signature", "pass"),
        _form(
            rf"((?:{_HEADER}|{_COOKIE}|{_FIELD})(?:\\{{0,8}}[\"'])?\s{{0,4}}[:=,]\s{{0,4}}\[?\s{{0,4}}b?)"
            r"(\\{0,8}[\"'])(?:(?!(?<!\\)\2).){1,8192}",
            rf"\1\2{MASK}",
        ),
    ),
    (
        ("authorization",),
        _form(
            rf"({_HEADER}{_SEPARATOR})(?:(?:basic|bearer|digest|negotiate|token|apikey)\s{{1,4}})?{_WORD}", rf"\1{MASK}"
        ),
    ),
    (("cookie",), _form(rf"({_COOKIE}{_SEPARATOR})[^\s=\"'\\]{{1,128}}+=[^\r\n\"'\\]++", rf"\1{MASK}")),
    (("key", "token", "secret", "signature", "pass"), _form(rf"({_FIELD}{_SEPARATOR}){_WORD}", rf"\1{MASK}")),
    (("bearer",), _form(r"(\bbearer(?:\s|%20|\+){1,4})([a-z0-9._~+/=-]{6,})", _mask_bearer)),
    (("basic",), _form(r"(\bbasic(?:\s|%20|\+){1,4})([a-z0-9+/_-]{6,}={0,2})", _mask_basic)),
    (_PREFIXES, _form(rf"(?<![A-Za-z0-9])(?:{_PREFIXED})", _mask_prefixed, re.NOFLAG)),
)


def mask_forms(text: str) -> str:
    """Return a text with `…` for what has the form of a secret."""
    lower = text.lower()
    for signs, mask in _FORMS:
        if any(sign in lower for sign in signs):
            text = mask(text)
    return text
