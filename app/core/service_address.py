"""Addresses of AI services: which may be registered and called, and to which origin an API key belongs."""

import asyncio
import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import unquote, urlsplit

import httpx
from httpx_secure import httpx_ssrf_protection

from app.core.errors import AddressRefused

_PORTS = {"http": 80, "https": 443}
_LOOKUP_SECONDS = 10.0
_REMEMBERED_SECONDS = 10.0  # where a name led to, before a new connection looks again
_MOST_DECODINGS = 5

# Where clouds answer each machine with its own credentials, beside the link-local addresses, which never lead to an AI
# service either: AWS and Google over IPv6, Alibaba, Oracle, Azure.
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

_NO_ADDRESS = "must be an http:// or https:// address, or empty"
_NOT_CALLED = "must not be a link-local address or that of a cloud's metadata service"


def read_origin(url: str) -> str:
    """Return scheme, host and port of an address as httpx connects to them; '' where it would connect to none."""
    try:
        parsed = httpx.URL(url)
        host, port = parsed.raw_host.decode("ascii").lower(), parsed.port or _PORTS[parsed.scheme]
    except (httpx.InvalidURL, KeyError, ValueError):
        return ""
    return f"{parsed.scheme}://{f'[{host}]' if ':' in host else host}:{port}" if host else ""


def check_service_address(text: str) -> None:
    """Raise `ValueError` for an address that is not scheme, host, port and path, or that is never called."""
    if not text:
        return
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(_NO_ADDRESS) from None
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in _PORTS or not host or port == 0 or not is_plain:
        raise ValueError(_NO_ADDRESS)
    if "@" in parts.netloc:  # it would be shown to everybody who may list the models
        raise ValueError("must hold no user or password: set the API key instead")
    if _has_more_than_a_path(text):
        raise ValueError("must be a scheme, a host, a port and a path: no ?, # or backslash, also not as an escape")
    if leads_to_metadata(host):
        raise ValueError(_NOT_CALLED)
    if not (":" in host or _HOST_NAME.fullmatch(host)) or not read_origin(text):
        raise ValueError(_NO_ADDRESS)


def _has_more_than_a_path(text: str) -> bool:
    """Whether an address holds what ends a path or what no path holds, however often it is escaped."""
    for _ in range(_MOST_DECODINGS):
        if not text.isprintable() or not {"?", "#", "\\", " "}.isdisjoint(text):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def leads_to_metadata(host: str) -> bool:
    """Whether a host is known, without looking it up, to be link-local or a metadata service, however it is spelled."""
    if _METADATA_NAME.fullmatch(host):
        return True
    literal = host.strip("[]").partition("%")[0].rstrip(".")
    try:
        return is_metadata(ipaddress.ip_address(literal))
    except ValueError:
        pass
    try:
        return is_metadata(IPv4Address(socket.inet_aton(literal)))  # 0xa9fea9fe, 2852039166, 0251.0376.43518
    except OSError:
        return False


def is_metadata(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address, or the one of IPv4 that it stands for, is link-local or that of a metadata service."""
    if any(address in network for network in _METADATA):
        return True
    return isinstance(address, IPv6Address) and any(map(is_metadata, _list_embedded(address)))


def _list_embedded(address: IPv6Address) -> list[IPv4Address]:
    embedded = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _LAST_BYTES) or address.packed[10:12] == _ISATAP:
        embedded.append(IPv4Address(address.packed[-4:]))
    return [each for each in embedded if each is not None]


def guard_services(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Have a client raise for link-local and metadata addresses: `AddressRefused`, or `SSRFProtectionError`.

    Every other address is connected to, private ones too. What a name leads to is looked at before the connection and,
    because the name may lead elsewhere a moment later, on the connection itself.
    """
    client.event_hooks["request"].append(_check_request)
    return httpx_ssrf_protection(
        client, check_globally_reachable=False, custom_validator=_admits, dns_cache_ttl=_REMEMBERED_SECONDS
    )


def _admits(host: str, address: IPv4Address | IPv6Address, port: int) -> bool:
    return not is_metadata(address)


async def _check_request(request: httpx.Request) -> None:
    host = request.url.raw_host.decode("ascii")
    if leads_to_metadata(host):
        raise AddressRefused(_NOT_CALLED)
    try:
        async with asyncio.timeout(_LOOKUP_SECONDS):
            port = request.url.port or _PORTS[request.url.scheme]
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, KeyError, TimeoutError):
        return  # the connection fails, and says so
    if any(is_metadata(ipaddress.ip_address(str(entry[4][0]))) for entry in found):
        raise AddressRefused(_NOT_CALLED)
