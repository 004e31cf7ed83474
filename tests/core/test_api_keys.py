"""API keys: their creation, their stored hashes, and refused settings."""

import hashlib

import pytest

from app.core.api_keys import ApiKey, find_api_key, make_api_key, parse_api_keys
from app.core.config import Settings, load_settings
from app.core.errors import ConfigurationError

HASH = "0" * 64


def test_a_new_key_is_long_random_and_kept_as_its_hash() -> None:
    secret, kept = make_api_key("ci")
    assert secret.startswith("vm_")
    assert len(secret) == 46
    assert str(kept) == f"ci:write:{hashlib.sha256(secret.encode()).hexdigest()}"
    assert make_api_key("ci")[0] != secret


def test_a_key_without_a_name_gets_one_of_its_own() -> None:
    first, second = make_api_key()[1], make_api_key()[1]
    assert first.name != second.name
    assert parse_api_keys([str(first), str(second)]) == (first, second)


@pytest.mark.parametrize("name", ["", " ", "a:b", "a,b", "x" * 65, "-x", "ü", "a\n"])
def test_a_name_that_no_entry_could_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        make_api_key(name)


def test_a_key_is_found_by_what_the_client_sends() -> None:
    pairs = [make_api_key(name) for name in ("one", "two", "three")]
    keys = [kept for _, kept in pairs]
    assert [find_api_key(keys, secret.encode()) for secret, _ in pairs] == keys


@pytest.mark.parametrize("sent", [b"", b"vm_", HASH.encode(), b"\xff\x00"])
def test_nothing_else_is_a_key(sent: bytes) -> None:
    assert find_api_key([make_api_key()[1], ApiKey("zero", "write", HASH)], sent) is None


def test_the_setting_holds_what_was_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = (make_api_key("full")[1], make_api_key("reader", "read")[1], make_api_key("owner", "admin")[1])
    monkeypatch.setenv("API_KEYS", f" {kept[0]}, {kept[1]},{kept[2]} ,")
    assert load_settings().api_keys == kept


@pytest.mark.parametrize(
    "entry",
    [
        "vm_secret",
        "name:write",
        f"name:owner:{HASH}",
        f"name:Admin:{HASH}",
        f":write:{HASH}",
        f"na me:write:{HASH}",
        "name:write:secret",
        f"name:write:{HASH}0",
        f"name:write:{HASH[:-1]}G",
        f"name:write:{HASH}:secret",
    ],
)
def test_an_entry_that_is_none_is_one_sentence_with_its_place_and_not_its_text(
    entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEYS", f"first:write:{HASH},{entry}")
    with pytest.raises(
        ConfigurationError, match=r"^API_KEYS: entry 2 is not as `python -m app keys new` prints it$"
    ) as raised:
        load_settings()
    assert raised.value.__cause__ is None
    for part in ("secret", HASH, "owner"):
        assert part not in str(raised.value)


def test_two_entries_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", f"ci:write:{HASH},ci:read:{HASH}")
    with pytest.raises(ConfigurationError, match=r"^API_KEYS: entry 2 has the name of another entry$"):
        load_settings()


def test_settings_do_not_show_a_hash() -> None:
    assert HASH not in repr(Settings(api_keys=(ApiKey("ci", "write", HASH),)))
