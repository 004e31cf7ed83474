"""Which requests of a browser are refused: by the name that they call this server, and by the page they come from."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response

from app.api.browser_policy import warn_of_wildcard_settings
from app.core.api_keys import make_api_key
from app.core.config import Settings
from app.database import Connection
from app.main import create_app
from tests.api.conftest import open_client, share_routes
from tests.factories import make_video
from tests.media.movies import make_movie

FRONTEND, FOREIGN = "http://localhost:3005", "https://evil.example"
CORP = "Cross-Origin-Resource-Policy"


async def ask(settings: Settings, host: str | None, **headers: str) -> Response:
    """Send a GET with a Host header, or without one."""
    app = create_app(settings)
    share_routes(app)
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def with_host(scope, receive, send):  # type: ignore[no-untyped-def]
        hosts = [] if host is None else [(b"host", value.encode("latin-1")) for value in host.split("\n")]
        await app({**scope, "headers": hosts + sent}, receive, send)

    async with AsyncClient(transport=ASGITransport(with_host), base_url="http://localhost") as client:
        return await client.get("/")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:7005",
        "LOCALHOST:7005",
        "  localhost\t",
        "localhost.:7005",
        "127.0.0.1:1",
        "127.8.9.1",
        "[::1]:7005",
        "[::ffff:127.0.0.1]",
    ],
)
async def test_without_keys_the_names_of_loopback_are_this_servers(host: str) -> None:
    assert (await ask(Settings(), host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7005",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "notlocalhost",
        "0.0.0.0:7005",
        "127.1",
        "0x7f000001",
        "2130706433",
        "192.168.1.5:7005",
        "[::]:7005",
        "[fe80::1]",
    ],
)
async def test_without_keys_any_other_name_is_refused(host: str) -> None:
    answer = await ask(Settings(), host)
    assert answer.status_code == 421
    assert "ALLOWED_HOST_NAMES" in answer.json()["detail"]
    assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "host",
    [None, "", "localhost\nevil.example", "localhost\nlocalhost", "me@localhost", "localhost:x", "localhost/x", "lö"],
)
async def test_a_request_without_one_readable_host_is_refused(host: str | None) -> None:
    answer = await ask(Settings(), host)
    assert answer.status_code == 400
    assert "host" in answer.json()["detail"].lower()


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        (Settings(host="192.168.1.5"), "192.168.1.5:7005", 200),
        (Settings(host="fd00::5"), "[fd00:0::5]:7005", 200),
        (Settings(host="box.lan"), "BOX.lan.", 200),
        (Settings(host="0.0.0.0"), "0.0.0.0", 421),  # noqa: S104
        (Settings(host="::"), "[::]", 421),
        (Settings(public_url="https://videos.example/behind"), "videos.example", 200),
        (Settings(public_url="https://videos.example"), "other.example", 421),
        (Settings(allowed_host_names="a.example, B.example"), "b.example:80", 200),
        (Settings(allowed_host_names="a.example"), "sub.a.example", 421),
        (Settings(allowed_host_names="a.example"), "localhost", 200),
        (Settings(allowed_host_names="*"), "evil.example", 200),
        (Settings(api_keys=(make_api_key()[1],)), "videos.example", 200),
        (Settings(api_keys=(make_api_key()[1],), allowed_host_names="a.example"), "videos.example", 421),
        (Settings(api_keys=(make_api_key()[1],), allowed_host_names="a.example"), "a.example", 200),
    ],
)
async def test_the_names_of_the_settings_are_this_servers(settings: Settings, host: str, status: int) -> None:
    assert (await ask(settings, host)).status_code == status


async def test_a_name_that_a_proxy_forwards_counts_for_nothing() -> None:
    answer = await ask(Settings(), "evil.example", **{"x-forwarded-host": "localhost", "forwarded": "host=localhost"})
    assert answer.status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost.evil.example:3005"},
        {"Origin": "http://localhost:3005.evil.example"},
        {"Origin": "http://localhost:3005@evil.example"},
        {"Origin": "file://"},
        {"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Cross-Site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "cross-site", "Referer": f"{FRONTEND}/"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY", "FOO"])
async def test_a_foreign_page_changes_nothing(client: AsyncClient, method: str, headers: dict[str, str]) -> None:
    answer = await client.request(method, "/api/videos", headers=headers)
    assert answer.status_code == 403
    assert "may not use this server" in answer.json()["detail"]
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-site", "Origin": FRONTEND},
        {"Sec-Fetch-Site": "cross-site", "Origin": FRONTEND},
        {"Origin": FRONTEND},
        {"Referer": f"{FOREIGN}/"},
    ],
)
async def test_scripts_and_listed_pages_may_change_things(client: AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.post("/nowhere", headers=headers)).status_code == 404


async def test_two_origins_are_none(client: AsyncClient) -> None:
    headers = [("Origin", FRONTEND), ("Origin", FOREIGN)]
    assert (await client.post("/nowhere", headers=headers)).status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://box.lan:7005", 404), ("https://box.lan:7005", 403), ("http://box.lan", 403), ("http://localhost", 403)],
)
async def test_a_page_of_this_server_has_its_scheme_name_and_port(origin: str, status: int) -> None:
    app = create_app(Settings(host="box.lan", allow_origins="https://app.example"))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://box.lan:7005") as client:
        assert (await client.post("/nowhere", headers={"Origin": origin})).status_code == status
        cross = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        assert (await client.post("/nowhere", headers=cross)).status_code == 403


async def test_a_page_at_the_public_address_is_this_servers() -> None:
    settings = Settings(public_url="https://videos.example/behind", allow_origins="https://app.example")
    async with open_client(create_app(settings)) as client:
        answer = await client.post("/nowhere", headers={"Origin": "https://videos.example"})
    assert answer.status_code == 404


async def test_with_keys_a_foreign_page_is_refused_too_before_a_key_is_asked_for() -> None:
    secret, key = make_api_key()
    async with open_client(create_app(Settings(api_keys=(key,)))) as client:
        for headers in ({}, {"X-API-Key": secret}):
            answer = await client.post("/nowhere", headers=headers | {"Origin": FOREIGN})
            assert answer.status_code == 403


async def test_nothing_of_a_refused_body_is_read(app: FastAPI) -> None:
    taken: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        for part in (b"one", b"two"):
            taken.append(part)
            yield part

    async with open_client(app) as client:
        answer = await client.post("/api/videos?filename=x.mp4", content=body(), headers={"Origin": FOREIGN})
    assert (answer.status_code, taken) == (403, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": FOREIGN}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Referer": f"{FOREIGN}/", "Sec-Fetch-Dest": "video"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 404),
        ({"Sec-Fetch-Site": "cross-site", "Referer": f"{FRONTEND}/", "Sec-Fetch-Dest": "image"}, 404),
        ({"Sec-Fetch-Site": "same-site", "Referer": f"{FRONTEND}/", "Sec-Fetch-Dest": "video"}, 404),
        ({"Sec-Fetch-Site": "none"}, 404),
        ({"Referer": f"{FOREIGN}/"}, 404),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_foreign_page_reads_and_shows_nothing_and_may_be_linked_from(
    client: AsyncClient, method: str, headers: dict[str, str], status: int
) -> None:
    answer = await client.request(method, "/static/thumbnails/none.jpg", headers=headers)
    assert answer.status_code == status
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_no_thumbnail_is_made_for_a_foreign_page(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "library" / "talk.mp4")
    await make_video(conn, identifier="talk", cloud_url=movie.as_uri())
    answer = await client.get("/api/videos/talk/thumbnail", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert not list((tmp_path / "media").rglob("*.jpg"))


@pytest.mark.parametrize(
    ("headers", "policy"),
    [
        ({}, "same-origin"),
        ({"Referer": f"{FOREIGN}/"}, "same-origin"),
        ({"Referer": "http://localhost/docs"}, "cross-origin"),
        ({"Referer": f"{FRONTEND}/player"}, "cross-origin"),
        ({"Origin": FRONTEND}, "cross-origin"),
    ],
)
async def test_only_a_listed_page_embeds_media(
    client: AsyncClient, conn: Connection, tmp_path: Path, headers: dict[str, str], policy: str
) -> None:
    movie = make_movie(tmp_path / "library" / "talk.mp4")
    await make_video(conn, identifier="talk", cloud_url=movie.as_uri())
    answer = await client.get("/api/videos/talk/stream", headers=headers | {"Range": "bytes=0-9"})
    assert (answer.status_code, answer.headers[CORP]) == (206, policy)
    assert {"Origin", "Referer"} <= set(answer.headers["Vary"].split(", "))


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/api/videos", {}, 200),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/api/videos/", {}, 307),
        ("PUT", "/api/videos", {}, 405),
        ("POST", "/api/videos/talk/moments", {}, 422),
        ("POST", "/api/videos", {"Content-Length": "x"}, 422),
        ("GET", "/docs", {}, 200),
        ("GET", "/redoc", {}, 200),
        ("GET", "/docs/oauth2-redirect", {}, 200),
        ("GET", "/docs/swagger-ui.css", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/", {"Origin": FOREIGN}, 403),
        ("GET", "/", {"Host": "evil.example"}, 421),
        ("OPTIONS", "/api/videos", {"Origin": FRONTEND, "Access-Control-Request-Method": "POST"}, 200),
    ],
)
async def test_every_answer_says_what_a_browser_may_do_with_it(
    client: AsyncClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers[CORP] in ("same-origin", "cross-origin")
    (policy,) = answer.headers.get_list("Content-Security-Policy")
    assert "frame-ancestors 'none'" in policy
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Settings(allow_origins="*"), "ALLOW_ORIGINS"),
        (Settings(allowed_host_names="*"), "ALLOWED_HOST_NAMES"),
        (Settings(allowed_host_names="*", api_keys=(make_api_key()[1],)), None),
        (Settings(), None),
    ],
)
def test_a_start_warns_of_settings_that_leave_the_server_to_every_page(
    caplog: pytest.LogCaptureFixture, settings: Settings, name: str | None
) -> None:
    with caplog.at_level(logging.WARNING, "app.api.browser_policy"):
        warn_of_wildcard_settings(settings)
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ([name] if name else [])
