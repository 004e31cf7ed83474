"""API keys: only the hash of a key is kept, never the key."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from app.core.errors import ConfigurationError

Access = Literal["read", "write", "admin"]  # each may do what those before it may

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ENTRY = re.compile(rf"(?P<name>{_NAME.pattern}):(?P<access>{'|'.join(get_args(Access))}):(?P<digest>[0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The name, access and SHA-256 of an API key. The hash is fast, for every request: a key is 32 random bytes."""

    name: str
    access: Access
    digest: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name}:{self.access}:{self.digest}"


def make_api_key(name: str | None = None, access: Access = "write") -> tuple[str, ApiKey]:
    """Return a new key and the entry that stores its hash; without a name, one is made from the hash."""
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigurationError("A key's name is 1 to 64 letters, digits and any of _ . - after the first")
    secret = f"vm_{secrets.token_urlsafe(32)}"
    digest = _hash_key(secret.encode())
    return secret, ApiKey(name or f"key-{digest[:8]}", access, digest)


def parse_api_keys(entries: Iterable[str]) -> tuple[ApiKey, ...]:
    keys: dict[str, ApiKey] = {}
    for position, entry in enumerate(entries, 1):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ConfigurationError(f"API_KEYS: entry {position} is not as `python -m app keys new` prints it")
        if found["name"] in keys:
            raise ConfigurationError(f"API_KEYS: entry {position} has the name of another entry")
        keys[found["name"]] = ApiKey(found["name"], cast(Access, found["access"]), found["digest"])
    return tuple(keys.values())


def find_api_key(keys: Iterable[ApiKey], secret: bytes) -> ApiKey | None:
    digest, found = _hash_key(secret), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _hash_key(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
