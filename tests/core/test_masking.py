"""Which parts of a text are secrets, and that all else stays as it is."""

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus

import pytest

from app.core import masking
from app.core.config import Settings
from app.core.masking import mask_secrets, mask_values, remember_secret

SECRET = 'Canary/0123+4567"89ü x&y'  # noqa: S105 (a canary)
PLAIN = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known_secrets", ())
    remember_secret(SECRET, PLAIN)


@pytest.mark.parametrize(
    "spelled",
    [
        *(SECRET, quote(SECRET), quote(SECRET, safe=""), quote_plus(SECRET), quote(quote(SECRET, safe=""), safe="")),
        *(
            quote(SECRET, safe="").replace("%2F", "%2f").replace("%C3%BC", "%c3%bc"),
            json.dumps(SECRET)[1:-1],
            json.dumps(json.dumps(SECRET))[3:-3],
        ),
        *(json.dumps(SECRET, ensure_ascii=False)[1:-1], SECRET.replace("/", "\\/"), html.escape(SECRET)),
        *("".join(f"\\u{ord(each):04x}" for each in SECRET), "".join(f"&#{ord(each)};" for each in SECRET)),
        *("".join(f"%{byte:02x}" for byte in SECRET.encode()), SECRET.encode().hex(), SECRET.encode().hex().upper()),
        *(f"prefix{SECRET}suffix", SECRET.upper(), SECRET.lower()),
    ],
)
def test_a_known_secret_is_masked_in_every_spelling(spelled: str) -> None:
    masked = mask_secrets(f'"said": "{spelled}"')
    assert masked.replace("prefix", "").replace("suffix", "") == '"said": "…"'


@pytest.mark.parametrize("before", ["", "a", "us", "user:", "someone:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_known_secret_is_masked_in_base64_wherever_it_begins(before: str, encode: object) -> None:
    assert callable(encode)
    encoded = encode(f"{before}{PLAIN}".encode()).decode()
    masked = mask_secrets(f"x {encoded}")
    assert "…" in masked
    assert len(masked) < len("x ") + len(before) * 2 + 8


def test_the_parts_of_a_key_that_is_spread_over_several_fields_are_masked() -> None:
    spread = {"first": PLAIN[:13], "then": PLAIN[13:], "again": f"x{PLAIN[4:18]}y"}
    assert mask_values(spread) == {"first": "…", "then": "…", "again": "x…y"}


@pytest.mark.parametrize("word", ["secret", "password", "ollama", "none", "postgres", "EMPTY", "a1b2"])
def test_words_and_short_keys_are_no_known_secrets(word: str) -> None:
    remember_secret(word)
    assert mask_secrets(f"the {word} of it") == f"the {word} of it"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://user:p@ss@host/x", "https://…@host/x"),
        ("redis://:pw@host/0 and postgresql://u:p%40@h", "redis://…@host/0 and postgresql://…@h"),
        (r'{"url":"https:\/\/u:p@h\/x"}', r'{"url":"https:\/\/…@h\/x"}'),
        ("next=https%3A%2F%2Fu%3Ap%40h%2Fv", "next=https%3A%2F%2F…@h%2Fv"),
        ("https://h/x?a=1&X-Goog-Signature=abc&b=2", "https://h/x?a=1&X-Goog-Signature=…&b=2"),
        (
            "https://h/x?X-Amz-Signature=a%2Fb&X-Amz-Security-Token=c",
            "https://h/x?X-Amz-Signature=…&X-Amz-Security-Token=…",
        ),
        ("https://h/x?sv=1&sig=a%3D, then", "https://h/x?sv=1&sig=… then"),
        ("https://h/x?u=%2Fy%3Ftoken%3Dabc%26v%3D1", "https://h/x?u=%2Fy%3Ftoken%3D…%26v%3D1"),
        ("https://h/#access_token=abc", "https://h/#access_token=…"),
        (r'"https://h/x?a=1\u0026api_key=abc"', r'"https://h/x?a=1\u0026api_key=…"'),
        ('{"authorization": "Bearer abc", "x": 1}', '{"authorization": "…", "x": 1}'),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': '…'}"),
        ("[(b'authorization', b'Bearer x'), (b'a', b'b')]", "[(b'authorization', b'…'), (b'a', b'b')]"),
        ('[["X-API-Key","abc"],["x","y"]]', '[["X-API-Key","…"],["x","y"]]'),
        (r"{\"x-api-key\":\"abc\",\"x\":1}", r"{\"x-api-key\":\"…\",\"x\":1}"),
        ("Authorization: Bearer abc\r\nHost: x", "Authorization: …\r\nHost: x"),
        ("Cookie: a=b; c=d\nX: y", "Cookie: …\nX: y"),
        ("Set-Cookie: session=abc; Path=/", "Set-Cookie: …"),
        ("MODEL_API_KEY=abc PGPASSWORD=def x", "MODEL_API_KEY=… PGPASSWORD=… x"),
        ("sent Bearer abc12345 and Basic dXNlcjpwYXNz", "sent Bearer … and Basic …"),
        ("Incorrect key: sk-proj-Zz9Zz9Zz9.", "Incorrect key: …."),
        ("whsec_aGVsbG8gd29ybGQ= and vm_" + "a1" * 21, "… and …"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nab==\n-----END RSA PRIVATE KEY-----.", "…."),
        (r'"-----BEGIN PRIVATE KEY-----\nMIIE\nab==\n-----END PRIVATE KEY-----\n"', r'"…\n"'),
        ('"-----BEGIN PRIVATE KEY-----\\nMIIE\\nab', '"…'),
    ],
)
def test_what_has_the_form_of_a_secret_is_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked
    assert mask_secrets(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        *("Basic training and a bearer of good news", "sk-learn", "The cookie: chocolate", "http://host/a/b@c?v=1"),
        *('{"usage": {"prompt_tokens": 5, "total_tokens": 8}}', '"api_key": null, "has_api_key": false'),
        *(
            'password authentication failed for user "x"',
            "api_key must be printable ASCII",
            "max_tokens=5",
            "12:30 // 2 @",
        ),
        *(
            "https://h/x?v=abc&t=10",
            "Ключ: значение 日本語 …",
            "a = b & c = d",
            "keynote: a monkey",
            "\\u00e9 %41 &amp;",
        ),
    ],
)
def test_all_else_stays_as_it_is(text: str) -> None:
    assert mask_secrets(text) == text


def test_json_stays_json() -> None:
    echoed = {
        "headers": {"authorization": f"Bearer {PLAIN}", "cookie": 'a="b"'},
        "said": [f'"{SECRET}"', f"\n{PLAIN}\\"],
    }
    for text in (json.dumps(echoed), json.dumps(json.dumps(echoed)), json.dumps(echoed, ensure_ascii=False)):
        masked = mask_secrets(text)
        json.loads(masked)
        assert PLAIN not in masked
        assert "4567" not in masked


def test_values_are_masked_by_the_name_of_their_field_too() -> None:
    pairs = [("Cookie", "x"), ["x-api-key", ["y", ""]], ("Host", "z"), {"name": "Authorization", "value": "w", "n": 1}]
    assert mask_values(pairs) == [
        *(["Cookie", "…"], ["x-api-key", ["…", ""]], ["Host", "z"], {"name": "Authorization", "value": "…", "n": 1})
    ]
    assert mask_values({"api_key": "abc", "Authorization": "x", "n": [{"password": "y", "count": 3}], "has": True}) == {
        "api_key": "…",
        "Authorization": "…",
        "n": [{"password": "…", "count": 3}],
        "has": True,
    }


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "token",
        "://",
        "?a=1&b=",
        'authorization:"',
        "eyJaaaaaaaaa.",
        "api_key",
        "@",
        "://a@b",
        "%3a%2f%2fa",
        "\\",
        "&amp;",
    ],
)
def test_no_text_holds_masking_up(part: str) -> None:
    started = time.process_time()
    mask_secrets(part * (200_000 // len(part)))
    assert time.process_time() - started < 2


def test_the_passwords_of_settings_are_known() -> None:
    Settings(
        database_url="postgresql://app:Pg-Canary%2F1@db/app",
        redis_url="redis://:Redis-Canary-2@redis/0",
        callback_secret="whsec_" + base64.b64encode(b"c" * 32).decode(),
    ).remember_secrets()
    text = f"Pg-Canary/1 Redis-Canary-2 {base64.b64encode(b'c' * 32).decode()} postgres"
    assert mask_secrets(text) == "… … … postgres"
