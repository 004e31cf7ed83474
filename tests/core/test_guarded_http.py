"""Which machines are connected to on behalf of somebody else."""

import asyncio
import logging
import socket
from ipaddress import ip_address
from typing import Any

import httpx
import pytest

from app.core.errors import AddressRefused, StageFailed, TransientFailure
from app.core.guarded_http import is_public_address, open_guarded_client, raise_for_error_status
from tests.serving import free_port
from tests.sites import Site, redirecting, sending

# fmt: off
_PRIVATE = [
    "127.0.0.1", "127.1", "127.255.255.254", "0x7f000001", "0x7f.1", "2130706433", "017700000001", "0177.0.0.1",
    "0.0.0.0", "0", "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "127\u30020\u30020\u30021",  # noqa: S104 (nothing binds to the first)
    "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "\u24dbocalhost", "%31%32%37.0.0.1",
    "127.0.0.1%00.example", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "169.254.1.1", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[fe80::1]",
    "[fe80::1%25lo]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:0:7f00:1::1]", "[2001:db8::1]",
    "[100::1]",
]
# fmt: on


def _lead_to(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have names lead to these addresses, one after the other; return the names that are looked up."""
    left, asked = list(answers), []

    async def look_up(host: Any, port: Any, **_: Any) -> list[Any]:
        asked.append(host if isinstance(host, str) else host.decode())
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up, raising=False)
    return asked


async def _get(url: str, *allowed_hosts: str, max_redirects: int = 5) -> httpx.Response:
    async with open_guarded_client(allowed_hosts, 10, max_redirects) as client:
        return await client.get(url)


@pytest.mark.parametrize("host", _PRIVATE)
async def test_an_address_that_is_not_public_is_refused_however_it_is_spelled(host: str) -> None:
    with pytest.raises(AddressRefused):
        await _get(f"http://{host}:{free_port()}/")


async def test_nothing_is_sent_to_a_host_that_is_refused() -> None:
    with Site() as site:
        with pytest.raises(AddressRefused):
            await _get(site.url)
        assert site.visits == []


async def test_what_is_not_there_and_what_is_refused_are_reported_in_the_same_words() -> None:
    with Site() as site:
        refused = [site.url, f"http://localhost:{free_port()}/", "http://nobody.invalid/"]
        texts = set()
        for url in refused:
            with pytest.raises(AddressRefused) as caught:
                await _get(url)
            texts.add(str(caught.value))
    assert len(texts) == 1


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"])
def test_what_everybody_can_reach_is_public(address: str) -> None:
    assert is_public_address(ip_address(address))


async def test_a_host_that_is_allowed_is_reached_at_its_port() -> None:
    with Site() as site:
        site.answers["/"] = sending(b"hello")
        assert (await _get(f"{site.url}/", site.host)).content == b"hello"
        assert (await _get(f"{site.url}/", "127.0.0.1")).content == b"hello"
        assert (await _get(f"http://LocalHost:{site.port}/", "localhost")).content == b"hello"
        with pytest.raises(AddressRefused):
            await _get(f"{site.url}/", f"127.0.0.1:{free_port()}")
        with pytest.raises(AddressRefused):
            await _get(f"http://localhost:{site.port}/", site.host)


@pytest.mark.parametrize("to", ["http://127.0.0.1:{}/", "http://[::ffff:127.0.0.1]:{}/", "//localhost:{}/"])
async def test_a_redirect_to_this_machine_is_refused(to: str) -> None:
    with Site() as site, Site() as inner:
        site.answers["/"] = redirecting(to.format(inner.port))
        inner.answers["/"] = sending(b"secret")
        with pytest.raises(AddressRefused):
            await _get(f"{site.url}/", site.host)
        assert (len(site.visits), inner.visits) == (1, [])


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://ftp.example/film", "gopher://127.0.0.1/", "data:,film"])
async def test_a_redirect_to_another_scheme_is_refused(to: str) -> None:
    with Site() as site:
        site.answers["/"] = redirecting(to)
        with pytest.raises((AddressRefused, StageFailed)):
            await _get(f"{site.url}/", site.host)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://ftp.example/", "http://", "http:///film", "film.mp4", ""])
async def test_what_is_no_address_of_http_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        await _get(url)


async def test_redirects_end() -> None:
    with Site() as site:
        site.answers["/"] = redirecting("/")
        with pytest.raises(StageFailed, match="redirects too often") as caught:
            await _get(f"{site.url}/", site.host, max_redirects=3)
        assert not isinstance(caught.value, TransientFailure)
        assert len(site.visits) == 4


async def test_no_redirect_is_followed_where_none_may_be() -> None:
    with Site() as site:
        site.answers["/"] = redirecting("/elsewhere")
        response = await _get(f"{site.url}/", site.host, max_redirects=0)
        assert (response.status_code, len(site.visits)) == (302, 1)


async def test_a_name_that_leads_to_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site() as site:
        asked = _lead_to(monkeypatch, "127.0.0.1")
        with pytest.raises(AddressRefused):
            await _get(f"http://films.example:{site.port}/")
        assert (asked, site.visits) == (["films.example"], [])


async def test_a_name_that_leads_elsewhere_the_second_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site() as site:
        asked = _lead_to(monkeypatch, "93.184.215.14", "127.0.0.1")
        with pytest.raises(AddressRefused):
            await _get(f"http://films.example:{site.port}/")
        assert asked.count("films.example") == 2
        assert site.visits == []


async def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(host: Any, port: Any, **_: Any) -> list[Any]:
        addresses = ("93.184.215.14", "10.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port))) for each in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up, raising=False)
    with pytest.raises(AddressRefused):
        await _get("http://films.example/")


async def test_a_name_server_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up, raising=False)
    with pytest.raises(TransientFailure):
        await _get("http://films.example/")


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site() as site, Site() as proxy:
        site.answers["/"] = sending(b"hello")
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert (await _get(f"{site.url}/", site.host)).content == b"hello"
        assert proxy.visits == []


async def test_what_may_pass_is_tried_again_and_what_will_not_is_not() -> None:
    with Site() as site:
        for status, kind in (
            (500, True),
            (503, True),
            (429, True),
            (408, True),
            (404, False),
            (403, False),
            (304, False),
        ):
            site.answers["/"] = sending(b"", status)
            response = await _get(f"{site.url}/", site.host)
            with pytest.raises(StageFailed, match=str(status)) as caught:
                raise_for_error_status(response)
            assert isinstance(caught.value, TransientFailure) is kind
        site.answers["/"] = sending(b"", 206)
        raise_for_error_status(await _get(f"{site.url}/", site.host))


async def test_a_server_that_is_away_or_breaks_off_may_come_back() -> None:
    port = free_port()
    with pytest.raises(TransientFailure):
        await _get(f"http://127.0.0.1:{port}/", "127.0.0.1")
    with Site() as site:
        site.answers["/"] = lambda visit: visit.send(200, b"half", claimed_size=8)
        with pytest.raises(TransientFailure):
            await _get(f"{site.url}/", site.host)


async def test_a_server_that_does_not_answer_may_answer_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TransientFailure, match="too long"):
        async with open_guarded_client(("127.0.0.1",), 0.2) as client:
            await client.get(f"http://127.0.0.1:{silent.getsockname()[1]}/")


async def test_passwords_and_signatures_are_neither_logged_nor_reported(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site, caplog.at_level(logging.WARNING):
        for host, answer in ((site.host, sending(b"", 500)), ("elsewhere.invalid", sending(b""))):
            site.answers["/"] = answer
            with pytest.raises((AddressRefused, StageFailed)) as caught:
                raise_for_error_status(await _get(f"http://me:pass-word@{site.host}/?signature=sig-nature", host))
            assert "word" not in str(caught.value)
        assert "pass-word" not in caplog.text
        assert "sig-nature" not in caplog.text


async def test_the_password_of_a_url_does_not_follow_a_redirect_to_another_server() -> None:
    with Site() as site, Site() as other:
        site.answers["/file"] = redirecting(f"{other.url}/file")
        other.answers["/file"] = sending(b"content")
        answer = await _get(f"http://user:pass@{site.host}/file", site.host, other.host)
        assert (answer.content, site.visits[0].headers["authorization"]) == (b"content", "Basic dXNlcjpwYXNz")
        assert "authorization" not in other.visits[0].headers


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254"])
async def test_no_setting_opens_what_a_name_leads_to_where_that_is_a_metadata_service(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    _lead_to(monkeypatch, address)
    with pytest.raises(AddressRefused):
        await _get("http://files.example/", "files.example")
