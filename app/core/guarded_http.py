"""HTTP requests to URLs of users: only to public addresses, against server-side request forgery."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from app.core.addresses import DEFAULT_PORTS, NOT_CALLED, is_metadata_address, is_metadata_host
from app.core.errors import AddressRefused, StageFailed, TransientFailure

if TYPE_CHECKING:
    import httpx

# httpx is imported where a request is made: a server without a worker makes none.

MAX_REDIRECTS = 5

# What IANA has given out of IPv6, and the one prefix outside of it that leads to IPv4 addresses (RFC 6052).
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Reserved by IANA, though Python counts them as public. Some clouds have their metadata service at 192.0.0.192.
_SET_APART = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"), IPv6Network("3fff::/20"))
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
# One sentence for unknown and for private hosts: a difference would reveal the network.
_NOT_PUBLIC = "The host of the URL is not known, or its address is not a public one"
_PRIVATE = "The host of the URL is not a public one: name it in ALLOWED_HOSTS where it may be connected to"
# Names that are nowhere public: RFC 6761, RFC 6762, RFC 8375, and what ICANN has set apart for private use.
_PRIVATE_NAME = re.compile(r"(^|\.)(localhost|local|internal|home\.arpa)\.?$", re.IGNORECASE)
# A name that DNS can resolve, in lower case; IPv6 addresses are parsed separately.
_HOST_NAME = re.compile(r"(?=.{1,253}\.?$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
# A last part that is a number makes an address of IPv4 of it, which nothing looks up with a dot behind it.
_NUMBER_AND_DOT = re.compile(r"(?:^|\.)(?:\d+|0x[0-9a-f]*)\.$")
_LOOKUP_SECONDS = 2.0
_SERVICE_LOOKUP_SECONDS = 10.0
_REMEMBERED_SECONDS = 10.0  # where the name of a service led to, before a new connection looks again
# Threads of their own, so that slow DNS servers block nothing else.
_lookups = ThreadPoolExecutor(4, "lookups")


class AddressGuard:
    """Decides which hosts may be connected to for URLs of users: public ones, and those of ALLOWED_HOSTS."""

    def __init__(self, allowed_hosts: Collection[str]) -> None:
        self._allowed = frozenset(host.lower() for host in allowed_hosts)

    async def resolve_public_addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host. Raises `AddressRefused` where one is not public, or `TransientFailure`."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise TransientFailure("The host of the URL cannot be looked up now") from None
            raise AddressRefused(_NOT_PUBLIC) from None
        except (OSError, UnicodeError):
            raise AddressRefused(_NOT_PUBLIC) from None
        addresses = [str(entry[4][0]) for entry in found]
        if not all(self.allows_address(host, ipaddress.ip_address(address), port) for address in addresses):
            raise AddressRefused(_NOT_PUBLIC)
        return addresses

    async def refuse_private_url(self, url: str) -> None:
        """Raise `AddressRefused` for a URL that is malformed or certainly leads to a private address."""
        host, port = _parse_host_and_port(url)
        if self._is_in_allowed_hosts(host, port):
            return
        if _PRIVATE_NAME.search(host):
            raise AddressRefused(_PRIVATE)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await loop.run_in_executor(_lookups, socket.getaddrinfo, host, port)
        except (OSError, UnicodeError):
            return
        if not all(is_public_address(ipaddress.ip_address(str(entry[4][0]))) for entry in found):
            raise AddressRefused(_PRIVATE)

    def allows_address(self, host: str, address: IPv4Address | IPv6Address, port: int) -> bool:
        return not is_metadata_address(address) and (
            self._is_in_allowed_hosts(host, port) or is_public_address(address)
        )

    def _is_in_allowed_hosts(self, host: str, port: int) -> bool:
        name = f"[{host}]" if ":" in host else host
        return not self._allowed.isdisjoint({host.lower(), name.lower(), f"{name}:{port}".lower()})

    async def check_request(self, request: "httpx.Request") -> None:
        if request.url.scheme not in DEFAULT_PORTS or not request.url.host:
            raise AddressRefused("The URL, or one that it redirects to, does not begin with http:// or https://")
        await self.resolve_public_addresses(
            request.url.raw_host.decode("ascii"), request.url.port or DEFAULT_PORTS[request.url.scheme]
        )


def _parse_host_and_port(url: str) -> tuple[str, int]:
    import httpx

    try:
        parts = httpx.URL(url)
        host, port = (
            parts.raw_host.decode("ascii").lower(),
            DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port,
        )
        if ":" in host:
            host = str(ipaddress.IPv6Address(host.partition("%")[0]))  # without the zone, which only this machine knows
        elif not _HOST_NAME.fullmatch(host):
            raise ValueError(host)
        if not port:
            raise ValueError(port)
    except (httpx.InvalidURL, KeyError, ValueError):
        raise AddressRefused("The URL cannot be read as an address") from None
    return host.removesuffix(".") if _NUMBER_AND_DOT.search(host) else host, port


def is_public_address(address: IPv4Address | IPv6Address) -> bool:
    if not address.is_global or address.is_multicast or any(address in network for network in _SET_APART):
        return (
            isinstance(address, IPv6Address)
            and address.ipv4_mapped is not None
            and is_public_address(address.ipv4_mapped)
        )
    if isinstance(address, IPv4Address):
        return True
    if address.ipv4_mapped is not None:
        return is_public_address(address.ipv4_mapped)
    if address in _NAT64:
        return is_public_address(IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_UNICAST and address.is_global and address.sixtofour is None and address.teredo is None


@asynccontextmanager
async def open_guarded_client(
    allowed_hosts: Collection[str], timeout_seconds: float, max_redirects: int = MAX_REDIRECTS
) -> "AsyncIterator[httpx.AsyncClient]":
    """Yield a client for URLs of users; it follows no redirect where `max_redirects` is 0.

    The block raises `AddressRefused`, `TransientFailure` and `StageFailed`, whose texts hold nothing of the URL.
    """
    import httpx
    from httpx_secure import SSRFProtectionError, httpx_ssrf_protection

    guard = AddressGuard(allowed_hosts)
    async with httpx.AsyncClient(
        trust_env=False,
        timeout=timeout_seconds,
        follow_redirects=max_redirects > 0,
        max_redirects=max_redirects,
        event_hooks={"request": [guard.check_request]},
    ) as client:
        # The name may resolve differently the second time, so the connection is checked too.
        httpx_ssrf_protection(client, check_globally_reachable=False, custom_validator=guard.allows_address)
        try:
            yield client
        except SSRFProtectionError:
            raise AddressRefused(_NOT_PUBLIC) from None
        except httpx.TooManyRedirects:
            raise StageFailed("The URL redirects too often") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise AddressRefused("The URL, or one that it redirects to, cannot be read as an address") from None
        except httpx.TimeoutException:
            raise TransientFailure("The server of the URL takes too long to answer") from None
        except httpx.HTTPError:
            raise TransientFailure("The connection to the server of the URL cannot be made, or has been cut") from None


def raise_for_error_status(response: "httpx.Response") -> None:
    """Raise `TransientFailure` for a status that may change, and `StageFailed` for any other error status."""
    if response.is_success:
        return
    is_transient = response.status_code >= 500 or response.status_code in _TRANSIENT_STATUSES
    kind = TransientFailure if is_transient else StageFailed
    raise kind(f"The server of the URL answers with status {response.status_code}")


def block_metadata_addresses(client: "httpx.AsyncClient") -> "httpx.AsyncClient":
    """Have a client of an AI service refuse link-local and metadata addresses.

    Private addresses are allowed. The connection is checked too: a name may resolve differently a moment later.
    """
    from httpx_secure import httpx_ssrf_protection

    client.event_hooks["request"].append(_refuse_metadata_host)
    return httpx_ssrf_protection(
        client,
        check_globally_reachable=False,
        custom_validator=lambda host, address, port: not is_metadata_address(address),
        dns_cache_ttl=_REMEMBERED_SECONDS,
    )


async def _refuse_metadata_host(request: "httpx.Request") -> None:
    host = request.url.raw_host.decode("ascii")
    if is_metadata_host(host):
        raise AddressRefused(NOT_CALLED)
    try:
        async with asyncio.timeout(_SERVICE_LOOKUP_SECONDS):
            port = request.url.port or DEFAULT_PORTS[request.url.scheme]
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, KeyError, TimeoutError):
        return  # the connection fails, and says so
    if any(is_metadata_address(ipaddress.ip_address(str(entry[4][0]))) for entry in found):
        raise AddressRefused(NOT_CALLED)
