"""A page of a listed origin may read every answer, whatever its status (contract 1.2), and no other page any."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from psycopg_pool import PoolTimeout

from app.core.api_keys import make_api_key
from app.core.config import Settings
from app.database import Connection, get_connection
from app.main import create_app
from tests.api.conftest import open_client
from tests.factories import make_transcript, make_video
from tests.media.movies import make_movie

ORIGIN = "http://localhost:3005"


def readable(answer: Response) -> bool:
    headers = answer.headers
    return (
        headers["Access-Control-Allow-Origin"] == ORIGIN
        and "Access-Control-Allow-Credentials" not in headers  # no cookie is used
        and "Origin" in headers["Vary"]
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/videos", 200),
        ("GET", "/api/videos/", 307),
        ("POST", "/api/videos/talk/moments", 422),
        ("GET", "/api/videos/nobody", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/api/videos", 405),
        ("HEAD", "/api/videos", 405),
        ("OPTIONS", "/api/videos", 405),
    ],
)
async def test_answers_and_refusals(client: AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path, headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert readable(answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Range": "bytes=0-1"}, 206),
        ({"Range": "bytes=999999999-"}, 416),
        ({"If-None-Match": "*"}, 304),
    ],
)
async def test_videos_in_every_form(
    client: AsyncClient, conn: Connection, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    movie = make_movie(tmp_path / "library" / "talk.mp4")
    await make_video(conn, identifier="talk", cloud_url=movie.as_uri())
    answer = await client.get("/api/videos/talk/stream", headers=headers | {"Origin": ORIGIN})
    assert answer.status_code == status
    assert readable(answer)


async def test_a_transcript_that_did_not_change(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id)
    answer = await client.get("/api/videos/talk/transcript", headers={"Origin": ORIGIN, "If-None-Match": "*"})
    assert answer.status_code == 304
    assert readable(answer)
    assert "Accept-Encoding" in answer.headers["Vary"]


@pytest.mark.parametrize(("error", "status"), [(PoolTimeout("x"), 503), (RuntimeError("x"), 500)])
async def test_what_went_wrong(app: FastAPI, error: Exception, status: int) -> None:
    async def fail() -> AsyncIterator[Connection]:
        raise error
        yield

    app.dependency_overrides[get_connection] = fail
    async with open_client(app) as client:
        answer = await client.get("/api/videos", headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert readable(answer)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


async def test_a_missing_key_and_a_body_that_is_too_large() -> None:
    secret, key = make_api_key()
    async with open_client(create_app(Settings(api_keys=(key,), max_body_bytes=1024))) as client:
        for headers, status in (({}, 401), ({"X-API-Key": secret}, 413)):
            answer = await client.post(
                "/api/videos/x/moments", content=b"x" * 2000, headers=headers | {"Origin": ORIGIN}
            )
            assert answer.status_code == status
            assert readable(answer)


async def test_a_request_with_a_cookie_may_be_read_as_well(client: AsyncClient) -> None:
    answer = await client.get("/api/videos", headers={"Origin": ORIGIN, "Cookie": "a=b"})
    assert readable(answer)


@pytest.mark.parametrize("method", ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"])
@pytest.mark.parametrize("path", ["/api/videos", "/nowhere", "/static/thumbnails/x.jpg"])
async def test_a_preflight_allows_every_method_and_header_everywhere(
    client: AsyncClient, method: str, path: str
) -> None:
    wanted = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type,x-own"}
    answer = await client.options(path, headers={"Origin": ORIGIN} | wanted)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert readable(answer)
    assert answer.headers["Access-Control-Allow-Methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert answer.headers["Access-Control-Allow-Headers"] == "content-type,x-own"
    assert answer.headers["Access-Control-Max-Age"] == "600"


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:8443",
        "http://127.0.0.1:1",
        "https://127.0.0.1",
        "http://[::1]:3005",
        "https://[::1]",
    ],
)
async def test_pages_of_this_machine_may_use_it_on_any_port(client: AsyncClient, origin: str) -> None:
    answer = await client.get("/", headers={"Origin": origin})
    assert answer.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
async def test_a_listed_origin_is_enough_whatever_site_it_is(client: AsyncClient, site: str) -> None:
    headers = {"Origin": ORIGIN, "Sec-Fetch-Site": site}
    assert (await client.post("/nowhere", headers=headers)).status_code == 404


@pytest.mark.parametrize(
    ("listed", "origin", "is_allowed"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://app.example:443", "https://app.example", True),
        ("HTTPS://App.Example", "https://app.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://app.example", "https://sub.app.example", False),
        ("https://app.example", "https://app.example.evil.example", False),
        ("https://app.example:*", "https://app.example:8443", True),
        ("https://app.example:*", "http://app.example:8443", False),
        ("https://app.example", ORIGIN, False),
        ("https://app.example", "null", False),
        ("*", "https://evil.example", True),
        ("*", "null", True),
    ],
)
async def test_origins_are_listed_exactly_or_on_any_port(listed: str, origin: str, is_allowed: bool) -> None:
    async with open_client(create_app(Settings(allow_origins=listed))) as client:
        answer = await client.post("/nowhere", headers={"Origin": origin})
        assert answer.status_code == (404 if is_allowed else 403)
        assert answer.headers.get("Access-Control-Allow-Origin") == (
            ("*" if listed == "*" else origin) if is_allowed else None
        )


async def test_a_preflight_of_a_foreign_page_is_refused(client: AsyncClient) -> None:
    wanted = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Private-Network": "true"}
    answer = await client.options("/api/videos/talk", headers={"Origin": "https://evil.example"} | wanted)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_a_preflight_of_a_listed_page_may_come_to_a_private_network(client: AsyncClient) -> None:
    wanted = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Private-Network": "true"}
    answer = await client.options("/api/videos", headers={"Origin": ORIGIN} | wanted)
    assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
    assert answer.headers["X-Request-ID"]


async def test_without_an_origin_there_is_nothing_to_allow(client: AsyncClient) -> None:
    assert "Access-Control-Allow-Origin" not in (await client.get("/api/videos")).headers
