"""Host names, loopback addresses, web origins (RFC 6454), and addresses of AI services."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import unquote, urlsplit

OPEN_TO_ALL = "Everybody who can reach %s:%s may read, change and delete everything: set API_KEYS"


@lru_cache(maxsize=64)
def is_loopback_host(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


ANY_ORIGIN = "*"
# No valid host name or origin is longer.
LONGEST_ORIGIN = 300
_LONGEST_HOST = 253  # RFC 1035
DEFAULT_PORTS = {"http": 80, "https": 443}
_ANY_PORT = ":*"
_HOST_LABELS = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_AUTHORITY = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::([0-9]{0,5}))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,20}")


@dataclass(frozen=True, slots=True)
class Origin:
    """A web origin, normalized: lower case, no brackets, no dot at the end, and the default port named."""

    scheme: str
    host: str
    port: int | None


def parse_authority(authority: str) -> tuple[str, int | None]:
    """Return the normalized host and the port of a Host header. Raises ValueError."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise ValueError("not a host and a port")
    port = int(match[2]) if match[2] else None
    if port is not None and port > 65535:
        raise ValueError("not a port")
    return parse_host_name(match[1]), port


def parse_host_name(name_or_address: str) -> str:
    """Return a normalized host name or address. Raises ValueError, also for a name with a port."""
    if ":" in name_or_address:
        address = (
            name_or_address[1:-1]
            if name_or_address.startswith("[") and name_or_address.endswith("]")
            else name_or_address
        )
        if "%" in address:
            raise ValueError("not an address without its zone")
        try:
            return str(ipaddress.IPv6Address(address))
        except ValueError:
            raise ValueError("not an IPv6 address") from None
    name = name_or_address.lower().removesuffix(".")
    if len(name) > _LONGEST_HOST or _HOST_LABELS.fullmatch(name) is None:
        raise ValueError("not a host name")
    return name


@lru_cache(maxsize=256)
def parse_origin(text: str) -> Origin:
    """Parse an `Origin` header. Raises ValueError for `null` and for anything but scheme, host and port."""
    scheme, host, port = _split_origin(text)
    return Origin(scheme, host, DEFAULT_PORTS.get(scheme) if port is None else port)


def parse_url_origin(url: str) -> Origin:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("not an address") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("not an address of HTTP")
    return parse_origin(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


class AllowedOrigins:
    """The origins of `ALLOW_ORIGINS`: `*` for every one, `https://app.example`, `http://localhost:*` for any port."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.allows_all = False
        self._exact: set[Origin] = set()
        self._on_any_port: set[tuple[str, str]] = set()
        for entry in entries:
            if entry == ANY_ORIGIN:
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


_MOST_DECODINGS = 5

# Metadata services, which hand out a machine's credentials, and link-local addresses: AWS and Google over IPv6,
# Alibaba, Oracle, Azure.
_METADATA = (
    *(IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10")),
    *(IPv6Network("fd00:ec2::254"), IPv6Network("fd20:ce::254")),
    *(IPv4Network("100.100.100.200"), IPv4Network("192.0.0.192"), IPv4Network("168.63.129.16")),
)
_METADATA_NAME = re.compile(
    r"(?:metadata|instance-data|metadata\.(?:google\.internal|goog|azure\.internal|tencentyun\.com)"
    r"|instance-data\.ec2\.internal)\.?",
    re.IGNORECASE,
)
# The last four bytes of these are an address of IPv4: RFC 6052, RFC 8215, and the deprecated form of RFC 4291.
_LAST_BYTES = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))
_ISATAP = b"\x5e\xfe"  # RFC 5214
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_DOTTED = re.compile(r"[0-9]+.[0-9]+.[0-9]+.[0-9]+")  # of which httpx makes an address of IPv4, or nothing

_NO_ADDRESS = "must be an http:// or https:// address, or empty"
NOT_CALLED = "must not be a link-local address or that of a cloud's metadata service"


def make_service_origin(url: str) -> str:
    """Return `scheme://host:port` of a service's URL in lower case, or '' for one that must not be called."""
    try:
        check_service_address(url)
    except ValueError:
        return ""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}" if host else ""


def check_service_address(url: str) -> None:
    if not url:
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(_NO_ADDRESS) from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in DEFAULT_PORTS or not host or port == 0 or not is_plain:
        raise ValueError(_NO_ADDRESS)
    if "@" in parts.netloc:  # it would be visible in the list of models
        raise ValueError("must hold no user or password: set the API key instead")
    if _has_query_fragment_or_space(url):
        raise ValueError("must be a scheme, a host, a port and a path: no ?, # or backslash, also not as an escape")
    if is_metadata_host(host):
        raise ValueError(NOT_CALLED)
    if not _is_host_name_or_address(host):
        raise ValueError(_NO_ADDRESS)


def _is_host_name_or_address(host: str) -> bool:
    if not (":" in host or _DOTTED.fullmatch(host)):
        return _HOST_NAME.fullmatch(host) is not None
    try:
        return "%" not in host and bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _has_query_fragment_or_space(url: str) -> bool:
    for _ in range(_MOST_DECODINGS):
        if not url.isprintable() or not {"?", "#", "\\", " "}.isdisjoint(url):
            return True
        decoded = unquote(url)
        if decoded == url:
            return False
        url = decoded
    return True


def is_metadata_host(host: str) -> bool:
    """Return whether a host, in any spelling, is link-local or a cloud's metadata service. No lookup is made."""
    if _METADATA_NAME.fullmatch(host):
        return True
    literal = host.strip("[]").partition("%")[0].rstrip(".")
    try:
        return is_metadata_address(ipaddress.ip_address(literal))
    except ValueError:
        pass
    try:
        return is_metadata_address(IPv4Address(socket.inet_aton(literal)))  # 0xa9fea9fe, 2852039166, 0251.0376.43518
    except OSError:
        return False


def is_metadata_address(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address, or the IPv4 address in it, is link-local or that of a metadata service."""
    if any(address in network for network in _METADATA):
        return True
    return isinstance(address, IPv6Address) and any(map(is_metadata_address, _list_embedded_ipv4_addresses(address)))


def _list_embedded_ipv4_addresses(address: IPv6Address) -> list[IPv4Address]:
    embedded = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _LAST_BYTES) or address.packed[10:12] == _ISATAP:
        embedded.append(IPv4Address(address.packed[-4:]))
    return [each for each in embedded if each is not None]
