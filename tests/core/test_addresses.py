"""Web origins, host names, and addresses of AI services."""

import httpx
import pytest

from app.core.addresses import (
    AllowedOrigins,
    check_service_address,
    is_metadata_address,
    is_metadata_host,
    make_service_origin,
    parse_authority,
    parse_host_name,
    parse_origin,
    parse_url_origin,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("LocalHost:7005", "localhost", 7005),
        ("localhost.:7005", "localhost", 7005),
        ("localhost:", "localhost", None),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]:7005", "::1", 7005),
        ("[0:0:0:0:0:0:0:1]", "::1", None),
        ("my_host-1.lan", "my_host-1.lan", None),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
    ],
)
def test_a_host_header_is_a_host_and_a_port(text: str, host: str, port: int | None) -> None:
    assert parse_authority(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "localhost..",
        "a..b",
        ":7005",
        "localhost:x",
        "localhost:99999",
        "localhost:123456",
        "me@localhost",
        "localhost@evil.example",
        "evil.example/localhost",
        "localhost#",
        "localhost?",
        "localhost,evil.example",
        "localhost evil.example",
        " localhost",
        "localhost\t",
        "::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[evil.example]",
        "[127.0.0.1]",
        "[fe80::1%25eth0]",
        "[v1.x]",
        "büch.example",
        "loca\u017fhost",
        "a" * 254,
    ],
)
def test_what_is_no_host_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        parse_authority(text)


@pytest.mark.parametrize("text", ["::1", "[::1]"])
def test_an_address_is_one_with_and_without_brackets(text: str) -> None:
    assert parse_host_name(text) == "::1"


@pytest.mark.parametrize("text", ["localhost:7005", "http://localhost", "[::1]:1", "", "*.example"])
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        parse_host_name(text)


def test_an_origin_has_one_spelling() -> None:
    assert parse_origin("http://localhost") == parse_origin("HTTP://LOCALHOST.:80")
    assert parse_origin("https://a.example") == parse_origin("https://a.example:443")
    assert parse_origin("https://a.example") != parse_origin("http://a.example:443")
    assert parse_origin("app://local").port is None


@pytest.mark.parametrize(
    "text", ["null", "", "localhost", "http://", "file://", "http://a/", "http://a/b", "http://m@a"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        parse_origin(text)


@pytest.mark.parametrize("entry", ["http://a:80:*", "*://a", "http://*", "http://*.a", "http://a:*/", "http://a:**"])
def test_a_wildcard_stands_for_a_port_or_for_everything(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        AllowedOrigins([entry])


def test_the_origin_of_an_address_is_without_its_path_and_user() -> None:
    assert parse_url_origin("https://me:word@a.example/videos?x") == parse_origin("https://a.example")
    for url in ("a.example", "//a.example", "ftp://a.example", "https:///x", "https://[x]/"):
        with pytest.raises(ValueError, match=r"^not "):
            parse_url_origin(url)


_NEVER_CALLED = [
    *("169.254.169.254", "169.254.1.1", "169.254.43518", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376"),
    *("0xa9.0xfe.0xa9.0xfe", "169.254.169.254.", "025177524776", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    *("metadata.google.internal", "METADATA.google.internal.", "metadata", "instance-data.ec2.internal"),
    *("[fe80::1]", "[fe80::1%25eth0]", "[fd00:ec2::254]", "[fd20:ce::254]", "[::ffff:169.254.169.254]"),
    *("[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[::169.254.169.254]"),
    *("[fc00::5efe:a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]"),
]
_CALLED = [
    *("localhost", "127.0.0.1", "10.0.0.7", "192.168.1.2", "172.16.0.1", "[::1]", "[fd00::1]", "gpu", "gpu_1.lan"),
    *("api.openai.com", "xn--bcher-kva.example", "100.64.0.1", "169.253.255.255", "metadata.example.com"),
]


@pytest.mark.parametrize("host", _NEVER_CALLED)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_link_local_and_metadata_addresses_are_refused_however_they_are_spelled(scheme: str, host: str) -> None:
    with pytest.raises(ValueError, match="metadata"):
        check_service_address(f"{scheme}://{host}:80/v1")
    assert is_metadata_host(host)


@pytest.mark.parametrize("host", _CALLED)
def test_private_and_public_addresses_are_taken(host: str) -> None:
    check_service_address(f"http://{host}:8000/v1")
    assert not is_metadata_host(host)


@pytest.mark.parametrize(
    "address",
    [
        *("http://gpu/v1?x=1", "http://gpu/v1#x", "http://gpu?", "http://gpu#", "http://gpu/%3Fx", "http://gpu/%23"),
        *("http://gpu/%253Fx", "http://gpu/%25252523", "http://gpu/\\x", "http://gpu/%5cx", "http://gpu/%00"),
        *(
            "http://gpu/%0d%0aX-A: b",
            "http://gpu/%20",
            "http://gpu/ x",
            "http://gpu/\tx",
            "http://gpu\n",
            " http://gpu",
        ),
        *("http://good\\@evil/", "http://user:pass@gpu", "http://@gpu", "http://gpu%2e/", "http://gpu%00.evil/"),
        *("ftp://gpu", "gpu:8000", "http://", "http:///v1", "http:gpu", "//gpu", "javascript:1", "http://gpu:0"),
        *("http://gpu:99999", "http://[::1", "http://999.1.1.1", "http://\uff47pu", "http://gpu/\u2028", "http://a b"),
    ],
)
def test_what_is_more_than_scheme_host_port_and_path_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_service_address(address)


def test_no_address_is_that_of_a_model_which_is_not_set_up() -> None:
    check_service_address("")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("https://gpu", "https://GPU:443/v1"),
            ("http://gpu:80", "HTTP://gpu/x"),
            ("http://[::1]", "http://[::1]:80"),
        ),
        ("http://xn--bcher-kva.example", "http://XN--bcher-kva.example"),
    ],
)
def test_default_ports_letter_case_and_idna_make_no_other_origin(one: str, other: str) -> None:
    assert make_service_origin(one) == make_service_origin(other) != ""


@pytest.mark.parametrize(
    "other", ["https://gpu", "http://gpu:81", "http://gpu.", "http://gpu.evil", "http://gpu@evil", "http://evil/gpu"]
)
def test_another_scheme_host_or_port_is_another_origin(other: str) -> None:
    assert make_service_origin("http://gpu") != make_service_origin(other)


@pytest.mark.parametrize(
    "text", ["", "gpu", "ftp://gpu", "http://", "http://[::1", "http://999.1.1.1", "http://gpu\\@evil", "http://gpu?"]
)
def test_what_cannot_be_connected_to_has_no_origin(text: str) -> None:
    assert make_service_origin(text) == ""


def test_an_address_with_a_zone_is_link_local_too() -> None:
    from ipaddress import ip_address

    assert is_metadata_address(ip_address("fe80::1%eth0"))


@pytest.mark.parametrize("host", _CALLED)
@pytest.mark.parametrize("rest", ["", ":8000/v1", ":443", "/%41//b@c;d"])
def test_an_origin_is_what_the_client_connects_to(host: str, rest: str) -> None:
    url = httpx.URL(f"https://{host}{rest}")
    shown = f"[{url.raw_host.decode()}]" if ":" in host else url.raw_host.decode()
    assert (
        make_service_origin(str(url))
        == make_service_origin(f"https://{host}{rest}")
        == f"https://{shown}:{url.port or 443}"
    )
