"""Who may: keys, read-only keys, and what stays open."""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx import ASGITransport, AsyncClient
from starlette.routing import BaseRoute, Route

from app.api.mcp import MCP_PATH
from app.core.api_keys import make_api_key
from app.core.config import Settings
from app.core.logging import configure_logging
from app.main import create_app
from tests.api.conftest import open_client

FULL, _FULL_ENTRY = make_api_key("full")
READER, _READER_ENTRY = make_api_key("reader", "read")
ADMIN, _ADMIN_ENTRY = make_api_key("owner", "admin")
WRONG = make_api_key()[0]
KEYS = (_FULL_ENTRY, _READER_ENTRY, _ADMIN_ENTRY)
NO_ADMIN = {"detail": "Changing models needs an API key of the scope admin"}

OPEN = {"/", "/health", "/health/live", "/health/ready", "/openapi.json"}
OPEN |= {"/docs", "/docs/oauth2-redirect", "/redoc"}
OPEN |= {f"/docs/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js", "favicon.png")}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": KEYS})


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def walk(routes: Iterable[BaseRoute]) -> Iterator[APIRoute | Route]:
    for route in routes:
        if isinstance(route, APIRoute | Route):
            yield route
        else:  # a router that was included
            router = getattr(route, "original_router")  # noqa: B009  the type is FastAPI's own
            yield from walk(router.routes)


def closed_paths(app: FastAPI) -> list[str]:
    paths = {route.path.replace(":path", "") for route in walk(app.routes)} - OPEN
    assert "/api/videos/{video_id}/moments" in paths
    return sorted(paths)


async def test_every_route_and_method_wants_a_key(app: FastAPI, client: AsyncClient) -> None:
    for path in [*closed_paths(app), "/api", "/api/", "/api/nowhere", "/static/x", "/moment_clips/x.mp4", "/nowhere"]:
        for method in METHODS:
            for headers in ({}, bearer(WRONG), {"X-API-Key": WRONG}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert method == "HEAD" or isinstance(answer.json()["detail"], str)


async def test_a_read_only_key_changes_nothing_by_any_route(app: FastAPI, client: AsyncClient) -> None:
    for path in closed_paths(app):
        methods = {"POST", "PUT", "PATCH", "DELETE"} - ({"POST"} if path == MCP_PATH else set())
        for method in sorted(methods):
            answer = await client.request(method, path, headers=bearer(READER))
            assert (answer.status_code, answer.json()) == (403, {"detail": "This API key may only read"}), path


async def test_only_a_key_of_the_scope_admin_changes_models_by_any_route(app: FastAPI, client: AsyncClient) -> None:
    paths = [path for path in closed_paths(app) if path.startswith("/api/admin/models")]
    assert len(paths) == 4
    for path in [*paths, "/api/admin/models/", "/api/admin/models/qwen/test"]:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await client.request(method, path, headers=bearer(FULL), content=b"no JSON")
            assert (answer.status_code, answer.json()) == (403, NO_ADMIN), path
            allowed = await client.request(method, path, headers=bearer(ADMIN), content=b"no JSON")
            assert allowed.status_code not in (401, 403), path


@pytest.mark.parametrize(
    "path",
    ["//api/admin/models/qwen", "/api//admin/models/qwen", "/api/admin/%6dodels/qwen", "/api/x/../admin/models/q"],
)
async def test_no_other_spelling_changes_models(client: AsyncClient, path: str) -> None:
    answer = await client.delete(f"http://localhost{path}", headers=bearer(FULL))
    assert answer.status_code in (403, 404, 405)


async def test_a_read_only_key_reads(client: AsyncClient) -> None:
    assert (await client.get("/api/videos", headers=bearer(READER))).json() == []
    assert (await client.head("/static/thumbnails/x.jpg", headers=bearer(READER))).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [bearer(FULL), {"X-API-Key": FULL}, bearer(FULL) | {"X-API-Key": FULL}],
    ids=["Authorization", "X-API-Key", "both"],
)
async def test_a_full_key_reads_and_writes_by_either_header(client: AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.get("/api/videos", headers=headers)).status_code == 200
    body = {"start_time": 0, "end_time": 5, "title": "Intro"}
    assert (await client.post("/api/videos/nobody/moments", json=body, headers=headers)).status_code == 404
    assert (await client.get("/api/nowhere", headers=headers)).status_code == 404
    assert (await client.put("/api/videos", headers=headers)).status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {FULL}"), ("X-API-Key", READER)],
        [("Authorization", f"Bearer {WRONG}"), ("X-API-Key", FULL)],
        [("Authorization", "Basic dTpw"), ("X-API-Key", FULL)],
        [("X-API-Key", FULL), ("X-API-Key", WRONG)],
        [("Authorization", f"Bearer {FULL}"), ("Authorization", f"Bearer {READER}")],
    ],
)
async def test_headers_that_contradict_each_other_are_refused(
    client: AsyncClient, headers: list[tuple[str, str]]
) -> None:
    answer = await client.get("/api/videos", headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (401, "The request carries different API keys")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "KEY", "Basic KEY", "Bearer KEY x", "Bearer ü\x00"])
async def test_an_authorization_that_is_none_is_refused(client: AsyncClient, value: str) -> None:
    sent = value.replace("KEY", FULL).encode("latin-1")
    answer = await client.get("/api/videos", headers=[(b"Authorization", sent)])
    assert answer.status_code == 401


async def test_the_name_of_the_scheme_may_be_written_in_any_case(client: AsyncClient) -> None:
    answer = await client.get("/api/videos", headers={"Authorization": f"bearer  {FULL}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", sorted(OPEN))
async def test_what_tells_nothing_of_the_library_stays_open(client: AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code not in (401, 403, 404)


@pytest.mark.parametrize("path", ["//api/videos", "/%61pi/videos", "/health/../api/videos", "/api/videos/", "/docs/"])
async def test_another_spelling_of_an_address_opens_nothing(client: AsyncClient, path: str) -> None:
    assert (await client.get(f"http://localhost{path}")).status_code in (401, 404)


@pytest.mark.parametrize(("path", "status"), [("/behind/api/videos", 401), ("/behind/health/live", 200)])
async def test_behind_a_proxy_that_adds_a_folder_the_same_is_open(app: FastAPI, path: str, status: int) -> None:
    transport = ASGITransport(app, root_path="/behind")
    async with AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get(path)).status_code == status


async def test_a_preflight_needs_no_key_and_a_refusal_can_be_read_by_the_browser(client: AsyncClient) -> None:
    origin = {"Origin": "http://localhost:3005"}
    wanted = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    preflight = await client.options("/api/videos", headers=origin | wanted)
    assert (preflight.status_code, preflight.headers["Access-Control-Allow-Headers"]) == (200, "authorization")
    for headers, method in (({}, "GET"), (bearer(READER), "POST")):
        answer = await client.request(method, "/api/videos", headers=origin | headers)
        assert answer.status_code in (401, 403)
        assert answer.headers["Access-Control-Allow-Origin"] in ("*", "http://localhost:3005")
        assert answer.headers["X-Request-ID"]


async def test_the_log_names_the_key_and_never_holds_it(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Settings(log_format="json", log_level="debug"))
    await client.get("/api/videos", headers=bearer(FULL))
    await client.get("/api/videos", headers=bearer(WRONG))
    logging.getLogger().handlers.clear()
    written = capsys.readouterr().err
    assert '"api_key":"full"' in written
    for secret in (FULL, WRONG, *(key.digest for key in KEYS)):
        assert secret not in written


@pytest.fixture
async def open_to_all(caplog: pytest.LogCaptureFixture) -> AsyncIterator[FastAPI]:
    with caplog.at_level(logging.WARNING, "app.api.access"):
        yield create_app(Settings())


@pytest.mark.parametrize("host", ["192.0.2.7:7005", "[2001:db8::1]:7005", "10.1.2.3:8080"])
async def test_without_keys_a_request_from_outside_is_reported_once_in_the_log(
    open_to_all: FastAPI, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    transport = ASGITransport(open_to_all)
    async with AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        await client.get("/")
        await client.get("/")
    (record,) = caplog.records
    assert "set API_KEYS" in record.getMessage()


@pytest.mark.parametrize("host", ["127.0.0.1:7005", "127.8.0.1:7005", "[::1]:7005", "[::ffff:127.0.0.1]:7005"])
async def test_on_loopback_nothing_is_reported(
    open_to_all: FastAPI, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    transport = ASGITransport(open_to_all)
    async with AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        await client.get("/")
    assert caplog.records == []


async def test_with_keys_nothing_is_reported(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "app.api.access"):
        async with AsyncClient(transport=ASGITransport(app), base_url="http://192.0.2.7:7005") as client:
            await client.get("/")
    assert caplog.records == []


async def test_without_keys_everybody_may_do_everything() -> None:
    async with open_client(create_app(Settings())) as client:
        assert (await client.get("/api/nowhere")).status_code == 404
