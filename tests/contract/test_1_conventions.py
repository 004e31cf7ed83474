"""Conventions: addresses, cross-origin requests, headers and the bodies of errors."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from psycopg_pool import PoolTimeout

from app.database import Connection, get_connection
from tests.api.conftest import open_client
from tests.contract.browser import ORIGIN, Browser, detail_of
from tests.contract.demo import make_demo
from tests.factories import make_video

MOMENTS = "/api/videos/demo-talk/moments"


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


@pytest.mark.parametrize("identifier", ["How To Become_A_Millionaire", "vidéo – été", "it's (1) & more, 24+7 = a@b;c"])
@pytest.mark.parametrize("path", ["", "/moments", "/transcript", "/stream", "/thumbnail"])
async def test_an_id_is_put_into_an_address_as_it_is(
    browser: Browser, conn: Connection, tmp_path: Path, identifier: str, path: str
) -> None:
    await make_demo(conn, tmp_path / "library", identifier)
    assert (await browser.get(f"/api/videos/{identifier}{path}")).status_code == 200


async def test_a_simple_request_of_another_origin_may_be_read(client: AsyncClient) -> None:
    headers = (await client.get("/api/videos", headers={"Origin": ORIGIN})).headers
    assert headers["Access-Control-Allow-Origin"] in ("*", ORIGIN)
    assert "Access-Control-Allow-Credentials" not in headers  # the frontend sends no cookie


async def test_a_request_with_a_cookie_gets_its_origin_back(client: AsyncClient) -> None:
    headers = (await client.get("/api/videos", headers={"Origin": ORIGIN, "Cookie": "a=b"})).headers
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Origin" in headers["Vary"]


async def test_a_preflight_says_ok(client: AsyncClient) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = await client.options(MOMENTS, headers={"Origin": ORIGIN} | wanted)
    assert (answer.status_code, answer.text) == (200, "OK")
    expected = {
        "Access-Control-Allow-Origin": ORIGIN,
        "Access-Control-Allow-Methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "Access-Control-Allow-Headers": "content-type",
        "Access-Control-Max-Age": "600",
    }
    assert {name: answer.headers[name] for name in expected} == expected
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("error", [RuntimeError("the reason"), PoolTimeout("the reason")])
async def test_what_went_wrong_may_be_read_and_shown(app: FastAPI, browser: Browser, error: Exception) -> None:
    async def fail() -> AsyncIterator[Connection]:
        raise error
        yield

    app.dependency_overrides[get_connection] = fail
    answer = await browser.get("/api/videos")
    assert answer.status_code in (500, 503)
    assert "the reason" not in detail_of(answer)


async def test_an_answer_has_the_id_of_its_request_or_a_new_one(client: AsyncClient) -> None:
    given = await client.get("/api/videos", headers={"X-Request-ID": "mine"})
    assert given.headers["X-Request-ID"] == "mine"
    made = (await client.get("/api/videos/nobody")).headers["X-Request-ID"]
    assert re.fullmatch("req_[0-9a-f]{12}", made)


async def test_a_trailing_slash_leads_to_the_path_without_it(client: AsyncClient) -> None:
    answer = await client.get("/api/videos/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/api/videos")


async def test_a_path_and_a_method_that_are_not_there_are_reported_in_their_words(browser: Browser) -> None:
    nowhere = await browser.get("/api/nowhere")
    assert (nowhere.status_code, nowhere.json()) == (404, {"detail": "Not Found"})
    wrong = await browser.send("PUT", MOMENTS, "{}")
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert wrong.headers["Allow"] == "GET, POST"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_the_documentation_is_there(browser: Browser, path: str) -> None:
    assert (await browser.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"start_time":10,"end_time":12}', "title is missing"),
        ('{"start_time":null,"end_time":12,"title":"x"}', "start_time must be a number"),
        ('{"start_time":NaN,"end_time":12,"title":"x"}', "start_time must be a finite number"),
        ('{"start_time":"","end_time":12,"title":"x"}', "start_time must be a number"),
        ('{"start_time":1,"end_time":12,"title":5}', "title must be text"),
        ("{", "The body is not valid JSON"),
        ("", "The body is missing"),
    ],
)
async def test_what_is_wrong_with_a_body_is_one_text(
    browser: Browser, conn: Connection, body: str, detail: str
) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await browser.send("POST", MOMENTS, body)
    assert answer.status_code == 422
    assert detail_of(answer).startswith(detail)


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/api/videos/nobody", 404, "Video not found"),
        ("/api/videos/nobody/stream", 404, "Video not found"),
        ("/api/videos/nobody/thumbnail", 404, "Video not found"),
        ("/api/videos/nobody/moments", 404, "Video not found"),
        ("/api/videos/nobody/transcript", 404, "Video not found"),
        ("/api/videos/nobody/generation-status", 404, "Video not found"),
        ("/api/videos/demo-talk/transcript", 404, "Transcript not found for this video"),
        ("/api/videos/demo-talk/moments/null/video-availability", 404, "Moment not found"),
        ("/api/videos/demo-talk/refinement-status/null", 404, "Moment not found"),
        ("/api/videos?limit=0", 422, 'limit must be 1 or more, not "0"'),
    ],
)
async def test_an_error_is_one_text(browser: Browser, conn: Connection, path: str, status: int, detail: str) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await browser.get(path)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
