"""Addresses of AI services: which may be registered and called, and to which origin an API key belongs."""

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
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
_DOTTED = re.compile(r"[0-9]+.[0-9]+.[0-9]+.[0-9]+")  # of which httpx makes an address of IPv4, or nothing

_NO_ADDRESS = "must be an http:// or https:// address, or empty"
NOT_CALLED = "must not be a link-local address or that of a cloud's metadata service"


def read_origin(url: str) -> str:
    """Return scheme, host and port of an address, in one spelling; '' for an address that is never called."""
    try:
        check_service_address(url)
    except ValueError:
        return ""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}" if host else ""


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
        raise ValueError(NOT_CALLED)
    if not _is_host(host):
        raise ValueError(_NO_ADDRESS)


def _is_host(host: str) -> bool:
    if not (":" in host or _DOTTED.fullmatch(host)):
        return _HOST_NAME.fullmatch(host) is not None
    try:
        return "%" not in host and bool(ipaddress.ip_address(host))
    except ValueError:
        return False


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
