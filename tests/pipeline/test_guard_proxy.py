"""A proxy that leads to public machines only."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from app.core.guarded_http import AddressGuard
from app.pipeline import video_pages
from app.pipeline.video_pages import GuardProxy, run_guard_proxy
from tests.serving import free_port
from tests.sites import Site, Visit, sending

_MAX_BYTES = 10_000


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.answers["/video"] = sending(b"a video")
        yield site


@pytest.fixture
async def proxy(site: Site) -> AsyncIterator[GuardProxy]:
    async with run_guard_proxy(AddressGuard((site.host,)), _MAX_BYTES) as proxy:
        yield proxy


async def _get(proxy: GuardProxy, url: str) -> httpx.Response:
    async with httpx.AsyncClient(proxy=proxy.url, trust_env=False, timeout=30) as client:
        return await client.get(url)


def _credentials(proxy: GuardProxy) -> bytes:
    url = httpx.URL(proxy.url)
    return b"Proxy-Authorization: Basic " + base64.b64encode(f"{url.username}:{url.password}".encode()) + b"\r\n"


def _connect_to(proxy: GuardProxy, address: str) -> bytes:
    return f"CONNECT {address} HTTP/1.1\r\n".encode() + _credentials(proxy) + b"\r\n"


async def _ask(proxy: GuardProxy, *requests: bytes) -> bytes:
    """Send requests, one after the other's answer, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    answers = b""
    try:
        for request in requests:
            writer.write(request)
            answers += await reader.readuntil(b"\r\n\r\n")
        return answers + await reader.read()
    finally:
        writer.close()


async def test_a_host_that_is_admitted_is_reached(proxy: GuardProxy, site: Site) -> None:
    response = await _get(proxy, f"{site.url}/video?part=1")
    assert (response.status_code, response.content) == (200, b"a video")
    assert site.visits[0].path == "/video?part=1"
    assert not proxy.has_refused


async def test_a_tunnel_leads_to_a_host_that_is_admitted(proxy: GuardProxy, site: Site) -> None:
    answers = await _ask(proxy, _connect_to(proxy, site.host), b"GET /video HTTP/1.1\r\nHost: site\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.endswith(b"a video")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "[::1]", "169.254.169.254", "nobody.invalid"])
async def test_no_other_host_is_reached(proxy: GuardProxy, host: str) -> None:
    with Site() as inner:
        address = f"{host}:{inner.port}"
        assert (await _get(proxy, f"http://{address}/video")).status_code in (400, 403)
        assert (await _ask(proxy, _connect_to(proxy, address))).startswith(b"HTTP/1.1 403 ")
        assert inner.visits == []
    assert proxy.has_refused


@pytest.mark.parametrize(
    "request_head", [b"nonsense", b"GET /video HTTP/1.1", b"GET http://[::1 HTTP/1.1", b"CONNECT \xff:1 HTTP/1.1", b""]
)
async def test_what_cannot_be_read_is_refused(proxy: GuardProxy, request_head: bytes) -> None:
    request = request_head + b"\r\n" + _credentials(proxy) + b"\r\n"
    assert (await _ask(proxy, request)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))


@pytest.mark.parametrize(
    "change",
    [
        lambda credentials: b"",
        lambda credentials: b"Proxy-Authorization: Basic " + base64.b64encode(b"videomoments:guess") + b"\r\n",
        lambda credentials: credentials.replace(b"Basic ", b"Bearer "),
        lambda credentials: credentials[:-4] + b"\r\n",
        lambda credentials: credentials.replace(b"Proxy-", b""),
        lambda credentials: credentials * 2,
        lambda credentials: b"Proxy-Authorization:\r\n",
        lambda credentials: b"Proxy-Authorization: Basic \xff\r\n",
    ],
)
async def test_without_the_password_nothing_is_connected_to(
    proxy: GuardProxy, site: Site, change: Callable[[bytes], bytes]
) -> None:
    fields = change(_credentials(proxy))
    for line in (f"CONNECT {site.host} HTTP/1.1", f"GET {site.url}/video HTTP/1.1", "CONNECT 127.0.0.1:1 HTTP/1.1"):
        answer = await _ask(proxy, line.encode() + b"\r\n" + fields + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert b"\r\nProxy-Authenticate: Basic " in answer
    assert site.visits == []
    assert not proxy.has_refused


async def test_each_proxy_has_its_own_password_which_leads_no_further(proxy: GuardProxy, site: Site) -> None:
    async with run_guard_proxy(AddressGuard((site.host,)), _MAX_BYTES) as other:
        assert httpx.URL(other.url).password != httpx.URL(proxy.url).password
        wrong = f"CONNECT {site.host} HTTP/1.1\r\n".encode() + _credentials(other) + b"\r\n"
        assert (await _ask(proxy, wrong)).startswith(b"HTTP/1.1 407 ")
    assert (await _get(proxy, f"{site.url}/video")).status_code == 200
    assert not any(name.lower().startswith("proxy-") for name in site.visits[0].headers)


async def test_a_host_that_does_not_answer_is_reported() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with run_guard_proxy(AddressGuard((address,)), _MAX_BYTES) as proxy:
        assert (await _get(proxy, f"http://{address}/video")).status_code == 502
        assert not proxy.has_refused


async def test_the_next_address_is_tried_where_one_does_not_answer(
    proxy: GuardProxy, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo

    async def find_two(host: Any, port: Any, **options: Any) -> list[Any]:
        found = await look_up(host, port, **options)
        return [*await look_up("127.0.0.9", port, **options), *found] if host == "127.0.0.1" else found

    monkeypatch.setattr(loop, "getaddrinfo", find_two, raising=False)
    assert (await _get(proxy, f"{site.url}/video")).content == b"a video"


async def test_the_end_of_the_proxy_closes_what_is_open(site: Site) -> None:
    async with run_guard_proxy(AddressGuard((site.host,)), _MAX_BYTES) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(_connect_to(proxy, site.host))
        await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b""
    writer.close()


async def test_all_connections_together_carry_no_more_than_they_may(proxy: GuardProxy, site: Site) -> None:
    site.answers["/video"] = sending(b"x" * (_MAX_BYTES // 2))
    assert (await _get(proxy, f"{site.url}/video")).status_code == 200
    assert not proxy.is_limit_exceeded
    for _ in range(2):
        with pytest.raises(httpx.HTTPError):
            await _get(proxy, f"{site.url}/video")
        assert proxy.is_limit_exceeded


async def test_a_connection_on_which_nothing_comes_is_given_up(
    proxy: GuardProxy, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stall(visit: Visit) -> None:
        visit.send(200, b"a fi", claimed_size=6)
        visit.wait_until_gone()

    monkeypatch.setattr(video_pages, "_IDLE_SECONDS", 0.5)
    site.answers["/video"] = stall
    with pytest.raises(httpx.HTTPError) as caught:
        await _get(proxy, f"{site.url}/video")
    assert not isinstance(caught.value, httpx.TimeoutException)


async def test_one_who_asks_for_nothing_is_not_waited_for(proxy: GuardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_pages, "_IDLE_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    async with asyncio.timeout(30):
        assert (await reader.read()).startswith(b"HTTP/1.1 502 ")
    writer.close()
