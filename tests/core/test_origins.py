import pytest

from app.core.addresses import OriginList, parse_authority, parse_host_name, parse_origin, parse_url_origin


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
        OriginList([entry])


def test_the_origin_of_an_address_is_without_its_path_and_user() -> None:
    assert parse_url_origin("https://me:word@a.example/videos?x") == parse_origin("https://a.example")
    for url in ("a.example", "//a.example", "ftp://a.example", "https:///x", "https://[x]/"):
        with pytest.raises(ValueError, match=r"^not "):
            parse_url_origin(url)
