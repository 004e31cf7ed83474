"""How large the body of a request may be, announced or not."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from httpx import AsyncClient, Response

from app.core.config import Settings
from app.database import Connection
from tests.factories import make_video
from tests.serving import serving

LIMIT = 2000
PATH = "/api/videos/talk/moments"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_body_bytes": LIMIT})


def body_of(size: int) -> bytes:
    start = b'{"start_time": 0, "end_time": 5, "title": "Intro"'
    return start + b" " * (size - len(start) - 1) + b"}"


async def in_pieces(body: bytes, taken: list[int] | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 500):
        if taken is not None:
            taken.append(start)
        yield body[start : start + 500]


def refused(answer: Response, status: int) -> bool:
    return answer.status_code == status and isinstance(answer.json()["detail"], str)


async def test_a_body_of_just_the_limit_is_taken_announced_or_in_pieces(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert (await client.post(PATH, content=body_of(LIMIT), headers=JSON)).status_code == 201
    again = await client.post(PATH, content=in_pieces(body_of(LIMIT)), headers=JSON)
    assert again.status_code == 400  # it is read, and overlaps the first one


async def test_a_body_that_is_announced_too_large_is_refused_before_any_of_it_is_read(client: AsyncClient) -> None:
    taken: list[int] = []
    headers = JSON | {"Content-Length": str(LIMIT + 1)}
    answer = await client.post(PATH, content=in_pieces(body_of(LIMIT + 1), taken), headers=headers)
    assert refused(answer, 413)
    assert str(LIMIT) in answer.json()["detail"]
    assert taken == []


async def test_a_body_that_is_not_announced_is_refused_while_it_arrives(client: AsyncClient) -> None:
    taken: list[int] = []
    answer = await client.post(PATH, content=in_pieces(body_of(100 * LIMIT), taken), headers=JSON)
    assert refused(answer, 413)
    assert len(taken) == LIMIT / 500 + 1


@pytest.mark.parametrize("length", ["", "x", "-1", "+2", "0_2", " 2", "2.0", "²", "0x2", "2" * 5000, "2, 2"])
async def test_a_length_that_is_no_number_is_refused(client: AsyncClient, length: str) -> None:
    headers = [(b"Content-Length", length.encode("latin-1"))]
    assert refused(await client.post(PATH, content=in_pieces(b"{}"), headers=headers), 400)


async def test_an_enormous_length_is_too_large(client: AsyncClient) -> None:
    headers = JSON | {"Content-Length": "9" * 30}
    assert refused(await client.post(PATH, content=in_pieces(b"{}"), headers=headers), 413)


@pytest.mark.parametrize("announced", [100, 102])
async def test_a_body_of_another_length_than_announced_is_refused(client: AsyncClient, announced: int) -> None:
    headers = JSON | {"Content-Length": str(announced)}
    assert refused(await client.post(PATH, content=in_pieces(body_of(101)), headers=headers), 400)


@pytest.mark.parametrize(("others", "status"), [(("2",), 422), (("3",), 400), (("4", "5", "6", "7"), 400)])
async def test_lengths_that_contradict_each_other_are_refused(
    client: AsyncClient, others: tuple[str, ...], status: int
) -> None:
    headers = [("Content-Length", length) for length in ("2", *others)]
    assert refused(await client.post(PATH, content=in_pieces(b"{}"), headers=headers), status)


async def test_the_upload_of_a_video_has_a_limit_of_its_own(app: FastAPI, client: AsyncClient) -> None:
    received: list[int] = []

    async def receive_all(request: Request) -> None:
        received.append(len(await request.body()))

    app.router.routes.clear()
    app.add_api_route("/api/videos", receive_all, methods=["POST", "PATCH"])
    assert (await client.post("/api/videos", content=b"x" * 10 * LIMIT)).status_code == 200
    assert refused(await client.patch("/api/videos", content=b"x" * 10 * LIMIT), 413)
    assert received == [10 * LIMIT]


async def test_a_browser_of_another_origin_may_read_that_it_was_too_large(client: AsyncClient) -> None:
    headers = JSON | {"Origin": "http://localhost:3005"}
    answer = await client.post(PATH, content=body_of(LIMIT + 1), headers=headers)
    assert answer.status_code == 413
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "http://localhost:3005")
    assert answer.headers["X-Request-ID"]


def test_a_real_server_refuses_a_large_body_before_it_is_sent(
    tmp_path: Path, own_database_url: str, redis_url: str
) -> None:
    with serving(tmp_path, database_url=own_database_url, redis_url=redis_url, max_body_bytes=LIMIT) as server:
        for body in ({"Content-Length": "5000000000", "Expect": "100-continue"}, {"Transfer-Encoding": "chunked"}):
            lines = [f"POST {PATH} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in body.items())]
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as conn:
                conn.sendall("\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode())
                if "Transfer-Encoding" in body:
                    conn.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n")  # and never the end
                assert conn.recv(65536).startswith(b"HTTP/1.1 413 ")
