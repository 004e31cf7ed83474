"""Host names and web origins (RFC 6454), and the list of origins of `ALLOW_ORIGINS`."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

ANY = "*"
# No host name and no origin is longer, so more of a header need not be looked at.
LONGEST_ORIGIN = 300
_LONGEST_HOST = 253  # RFC 1035
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ANY_PORT = ":*"
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_AUTHORITY = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::([0-9]{0,5}))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,20}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port in one spelling: lower case, no brackets, no dot at the end, and the default port named."""

    scheme: str
    host: str
    port: int | None


def parse_authority(text: str) -> tuple[str, int | None]:
    """Return the host, in one spelling, and the port of a Host header. Raises ValueError for what is none."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise ValueError("not a host and a port")
    port = int(match[2]) if match[2] else None
    if port is not None and port > 65535:
        raise ValueError("not a port")
    return parse_host_name(match[1]), port


def parse_host_name(text: str) -> str:
    """Return a host name or an address in one spelling. Raises ValueError for what is none, as a name with a port."""
    if ":" in text:
        address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        if "%" in address:
            raise ValueError("not an address without its zone")
        try:
            return str(ipaddress.IPv6Address(address))
        except ValueError:
            raise ValueError("not an IPv6 address") from None
    name = text.lower().removesuffix(".")
    if len(name) > _LONGEST_HOST or _NAME.fullmatch(name) is None:
        raise ValueError("not a host name")
    return name


@lru_cache(maxsize=256)
def parse_origin(text: str) -> Origin:
    """Read an origin as a browser sends it. Raises ValueError for `null`, a path, a user name, and all else."""
    scheme, host, port = _split_origin(text)
    return Origin(scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else port)


def parse_url_origin(url: str) -> Origin:
    """Return the origin of an address that begins with http:// or https://. Raises ValueError for any other."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("not an address") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("not an address of HTTP")
    return parse_origin(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


class OriginList:
    """The origins of `ALLOW_ORIGINS`: `*` for every one, `https://app.example`, `http://localhost:*` for any port."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises ValueError for an entry that is none of them."""
        self.allows_all = False
        self._exact: set[Origin] = set()
        self._on_any_port: set[tuple[str, str]] = set()
        for entry in entries:
            if entry == ANY:
                self.allows_all = True
            elif entry.endswith(_ANY_PORT):
                scheme, host, port = _split_origin(entry.removesuffix(_ANY_PORT))
                if port is not None:
                    raise ValueError("not one port")
                self._on_any_port.add((scheme, host))
            else:
                self._exact.add(parse_origin(entry))

    def allows(self, origin: Origin) -> bool:
        return self.allows_all or origin in self._exact or (origin.scheme, origin.host) in self._on_any_port


def _split_origin(text: str) -> tuple[str, str, int | None]:
    scheme, separator, authority = text.partition("://")
    scheme = scheme.lower()
    if not separator or _SCHEME.fullmatch(scheme) is None:
        raise ValueError("not an origin")
    return scheme, *parse_authority(authority)
