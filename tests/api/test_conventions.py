"""What holds for every answer: request ids, CORS, error bodies, bad input."""

import asyncio
import json
import logging
import re
from datetime import datetime, timedelta
from urllib.parse import quote

import psycopg
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from psycopg_pool import PoolTimeout, TooManyRequests

from app.core.config import Settings
from app.core.logging import configure_logging
from app.database import get_connection
from app.main import create_app
from tests.api.conftest import open_client


async def test_every_answer_has_a_request_id(client: AsyncClient) -> None:
    for path in ("/", "/api/videos", "/api/videos/nobody", "/nowhere"):
        assert re.fullmatch("req_[0-9a-f]{12}", (await client.get(path)).headers["X-Request-ID"])


async def test_a_request_keeps_its_own_id(client: AsyncClient) -> None:
    answer = await client.get("/", headers={"X-Request-ID": "from-the-proxy"})
    assert answer.headers["X-Request-ID"] == "from-the-proxy"


@pytest.mark.parametrize("given", ["with space", "x" * 129, ""])
async def test_an_id_that_no_log_should_hold_is_replaced(client: AsyncClient, given: str) -> None:
    answer = await client.get("/", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"].startswith("req_")


async def test_the_root_says_what_this_is(client: AsyncClient) -> None:
    assert (await client.get("/")).json().keys() == {"message", "version"}


async def test_an_unknown_path_is_404_and_a_wrong_method_405(client: AsyncClient) -> None:
    unknown, wrong = await client.get("/api/nowhere"), await client.put("/api/videos")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert wrong.headers["Allow"] == "GET, POST"


async def test_a_trailing_slash_leads_to_the_path_without_it(client: AsyncClient) -> None:
    answer = await client.get("/api/videos/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/api/videos")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/api/videos/?limit=5&cursor=%20x", "/api/videos?limit=5&cursor=%20x"),
        ("/api/videos/my%20talk%3F/", "/api/videos/my%20talk%3F"),
        ("/docs//", "/docs"),
        ("//evil.example/", None),
        ("//evil.example/api/videos/", None),
        ("/%5Cevil.example/", None),
    ],
)
async def test_a_redirect_never_names_a_host(client: AsyncClient, path: str, location: str | None) -> None:
    answer = await client.get(f"http://localhost{path}")
    assert answer.headers.get("Location") == location
    assert answer.status_code == (307 if location else 404)


async def test_behind_a_proxy_that_adds_a_folder_a_redirect_keeps_it(app: FastAPI) -> None:
    transport = ASGITransport(app, root_path="/behind")
    async with AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/behind/api/videos/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/behind/api/videos")


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nowhere", 404), ("/api/videos?limit=0", 422)])
async def test_a_browser_of_another_origin_may_read_every_answer(client: AsyncClient, path: str, status: int) -> None:
    answer = await client.get(path, headers={"Origin": "http://localhost:3005"})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "http://localhost:3005")


async def test_a_browser_of_another_origin_may_read_that_something_went_wrong(app: FastAPI) -> None:
    app.dependency_overrides[get_connection] = _broken
    async with open_client(app) as client:
        answer = await client.get("/api/prompts", headers={"Origin": "http://localhost:3005"})
    assert answer.status_code == 500
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "http://localhost:3005")


async def test_a_preflight_allows_the_method_and_the_headers(client: AsyncClient) -> None:
    wanted = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type, x-own"}
    answer = await client.options("/api/videos", headers={"Origin": "http://localhost:3005", **wanted})
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3005"
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "content-type, x-own"
    assert answer.headers["Access-Control-Max-Age"] == "600"


async def test_only_the_origins_of_the_settings_are_allowed() -> None:
    async with open_client(create_app(Settings(allow_origins="http://one, http://two"))) as client:
        allowed = await client.get("/", headers={"Origin": "http://two"})
        refused = await client.get("/", headers={"Origin": "http://three"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "http://two"
    assert "Access-Control-Allow-Origin" not in refused.headers


async def test_an_unexpected_error_tells_the_client_nothing(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    app.dependency_overrides[get_connection] = _broken
    async with open_client(app) as client:
        answer = await client.get("/api/prompts")
    assert answer.status_code == 500
    message = "Internal server error"
    assert answer.json() == {"error": message, "detail": message, "status_code": 500}
    assert "the secret reason" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        PoolTimeout("x"),
        TooManyRequests("x"),
        psycopg.OperationalError("connection to postgres:secret@host lost"),
        psycopg.errors.QueryCanceled("x"),
        psycopg.errors.AdminShutdown("x"),
        psycopg.errors.TooManyConnections("x"),
        psycopg.errors.DeadlockDetected("x"),
        psycopg.errors.UndefinedTable("x"),
    ],
)
async def test_a_database_that_cannot_answer_now_is_503(app: FastAPI, error: psycopg.Error) -> None:
    async def fail() -> None:
        raise error

    app.dependency_overrides[get_connection] = fail
    async with open_client(app) as client:
        answer = await client.get("/api/prompts")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "secret" not in answer.text


@pytest.mark.parametrize("name", ["\0", "a\0b", "x" * 5000, "..", "%2e%2e", "'; DROP TABLE videos; --", "\ufffd", "💩"])
async def test_a_strange_video_id_is_404_or_422(client: AsyncClient, name: str) -> None:
    for path in ("", "/moments", "/transcript"):
        answer = await client.get(f"/api/videos/{quote(name, safe='')}{path}")
        assert answer.status_code in (404, 422)
        assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"start_time": ' + "1" * 5000 + "}"])
async def test_a_body_that_no_parser_takes_is_422(client: AsyncClient, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/api/videos/talk/moments", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (422, {"detail": "The body is not valid JSON"})


async def test_a_path_cannot_forge_a_line_of_the_log(client: AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="text", log_level="info"))
    await client.get("/api/videos/a%0A00:00:00 ERROR forged%1B[31m")
    logging.getLogger().handlers.clear()
    lines = [line for line in capsys.readouterr().err.splitlines() if "forged" in line]
    assert len(lines) == 1
    assert "\x1b" not in lines[0]


async def test_a_request_that_the_server_no_longer_waits_for_is_503(app: FastAPI) -> None:
    has_started = asyncio.Event()

    async def never() -> None:
        has_started.set()
        await asyncio.sleep(3600)

    app.dependency_overrides[get_connection] = never
    async with open_client(app) as client:
        request = asyncio.create_task(client.get("/api/prompts"))
        await has_started.wait()
        request.cancel()
        answer = await request
    assert (answer.status_code, answer.json()) == (503, {"detail": "The server is shutting down"})


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=-1", "limit=99999999999999999999", "limit=x", "limit=1&cursor=%00"]
)
async def test_a_strange_page_is_422(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/videos?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def test_a_cursor_of_nowhere_is_an_ordinary_place_in_the_list(client: AsyncClient) -> None:
    assert (await client.get("/api/videos", params={"limit": 1, "cursor": "zzz %$§ nothing"})).json() == []


async def test_the_documentation_names_every_route_and_its_errors(client: AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert paths.keys() == {
        "/",
        "/health",
        "/health/live",
        "/health/ready",
        "/api/admin/models",
        "/api/admin/models/defaults/all",
        "/api/admin/models/seed",
        "/api/admin/models/{key}",
        "/api/admin/pipeline/failed",
        "/api/admin/pipeline/failed/{request_id}",
        "/api/admin/pipeline/failed/{request_id}/retry",
        "/api/generate_moments",
        "/api/pipeline/active",
        "/api/pipeline/{video_id}/cancel",
        "/api/pipeline/{video_id}/events",
        "/api/pipeline/{video_id}/history",
        "/api/pipeline/{video_id}/retry",
        "/api/pipeline/{video_id}/start",
        "/api/pipeline/{video_id}/status",
        "/api/videos/{video_id}/extract-clips",
        "/api/videos/{video_id}/generate-moments",
        "/api/videos/{video_id}/moments/{moment_id}/refine",
        "/api/videos/{video_id}/process-audio",
        "/api/videos/{video_id}/process-transcript",
        "/api/generation-configs",
        "/api/generation-configs/{config_id}",
        "/api/generation-configs/{config_id}/moments",
        "/api/generation-configs/{config_id}/runs",
        "/api/prompts",
        "/api/prompts/{prompt_id}",
        "/api/prompts/{prompt_id}/moments",
        "/api/prompts/{prompt_id}/runs",
        "/api/search",
        "/api/search/clips",
        "/api/search/status",
        "/api/videos",
        "/api/videos/{video_id}",
        "/api/videos/{video_id}/lineage",
        "/api/videos/{video_id}/moments",
        "/api/videos/{video_id}/moments/{moment_id}",
        "/api/videos/{video_id}/transcript",
        "/api/videos/{video_id}/transcript.srt",
        "/api/videos/{video_id}/transcript.txt",
        "/api/videos/{video_id}/transcript.vtt",
        "/api/videos/{video_id}/audio-extraction-status",
        "/api/videos/{video_id}/clip-extraction-status",
        "/api/videos/{video_id}/generation-status",
        "/api/videos/{video_id}/moments/{moment_id}/video-availability",
        "/api/videos/{video_id}/refinement-status/{moment_id}",
        "/api/videos/{video_id}/transcription-status",
        "/api/videos/{video_id}/thumbnail",
        "/api/videos/{video_id}/moments/{moment_id}/clip/thumbnail",
        "/api/videos/{video_id}/stream",
        "/api/videos/{video_id}/url",
        "/api/videos/{video_id}/moments/{moment_id}/clip",
        "/moment_clips/{name}",
        "/static/audios/{video_id}.wav",
        "/static/thumbnails/{video_id}.jpg",
        "/static/transcripts/{video_id}.json",
    }
    assert (await client.get("/docs")).status_code == 200
    for path, methods in paths.items():
        for method in methods.values():
            assert "404" in method["responses"] or "{video_id}" not in path or path.startswith("/api/pipeline/")


async def test_a_request_is_one_line_in_the_log_with_its_id(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Settings(log_format="json", log_level="info"))
    await client.get("/api/videos/nobody", headers={"X-Request-ID": "mine"})
    logging.getLogger().handlers.clear()
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "/api/videos/nobody" in line)
    assert datetime.fromisoformat(json.loads(line)["time"]).utcoffset() == timedelta(0)
    for part in ('"request_id":"mine"', '"status":404', '"method":"GET"', '"duration_ms":'):
        assert part in line


async def _broken() -> None:
    raise RuntimeError("the secret reason")
