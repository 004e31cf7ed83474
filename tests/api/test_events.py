"""`GET /api/pipeline/{id}/events`: the status of a run, sent whenever it changes."""

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx import AsyncClient

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.models.runs import StageStatus
from app.models.stages import Stage
from tests.conftest import Databases
from tests.factories import make_run, make_video
from tests.runs import claim_run, enqueue_run, finish_run, save_stage
from tests.serving import ServerProcess, serving

EVENTS = "/api/pipeline/talk/events"


def read_event(text: str) -> tuple[str, dict[str, Any]]:
    """Return the id of an event called `status`, and its JSON."""
    fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
    assert fields["event"] == "status"
    data: dict[str, Any] = json.loads(fields["data"])
    return fields["id"], data


async def test_of_what_has_ended_there_is_one_event(live_client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_run(conn, video_id=video.id, status="completed")
    answer = await live_client.get(EVENTS)
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert read_event(answer.text)[1] == (await live_client.get("/api/pipeline/talk/status")).json()


async def test_of_what_never_ran_there_is_one_event(live_client: AsyncClient) -> None:
    assert read_event((await live_client.get(EVENTS)).text)[1]["status"] == "never_run"


async def test_who_has_seen_the_end_is_asked_not_to_return(live_client: AsyncClient) -> None:
    seen, _ = read_event((await live_client.get(EVENTS)).text)
    answer = await live_client.get(EVENTS, headers={"Last-Event-ID": seen})
    assert (answer.status_code, answer.content) == (204, b"")
    for other in (b"x", "ü".encode(), b"5" * 100):
        answer = await live_client.get(EVENTS, headers={b"Last-Event-ID": other})
        assert answer.status_code == 200


@pytest.fixture(scope="module")
def shared_url(databases: Databases, template_url: str) -> str:
    """A database for the tests of this module."""
    return databases.create(template_url)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_url: str, redis_url: str) -> Iterator[ServerProcess]:
    """A server for them."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, database_url=shared_url, redis_url=redis_url, log_level="error") as server:
        yield server


@asynccontextmanager
async def follow(server: ServerProcess, video: str, **headers: str) -> AsyncIterator[AsyncIterator[str]]:
    """Follow the run; yields the pieces between empty lines."""
    async with (
        AsyncClient(base_url=server.url, timeout=60.0) as client,
        client.stream("GET", f"/api/pipeline/{video}/events", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        yield _split(answer)


async def _split(answer: httpx.Response) -> AsyncIterator[str]:
    piece = ""
    async for line in answer.aiter_lines():
        if line:
            piece += f"{line}\n"
        else:
            yield piece
            piece = ""


async def test_a_run_is_followed_to_its_end(server: ServerProcess, shared_url: str) -> None:
    async with open_async_connection(Settings(database_url=shared_url)) as conn:
        await make_video(conn, identifier="one")
        identifier = await enqueue_run(conn, "one")
        async with follow(server, "one") as pieces:
            _, waiting = read_event(await anext(pieces))
            assert (waiting["request_id"], waiting["status"]) == (identifier, "pending")
            run = await claim_run(conn, identifier)
            await save_stage(conn, run, Stage.AUDIO, StageStatus.PROCESSING)
            while (working := read_event(await anext(pieces))[1])["current_stage"] is None:
                assert working["status"] == "processing"
            assert working["stages"]["audio"]["status"] == "processing"
            await finish_run(conn, run)
            last = [read_event(piece)[1]["status"] async for piece in pieces]
    assert last == ["completed"]


async def test_who_knows_the_state_is_notified_of_the_next_one(server: ServerProcess, shared_url: str) -> None:
    async with open_async_connection(Settings(database_url=shared_url)) as conn:
        await make_video(conn, identifier="two")
        run = await claim_run(conn, await enqueue_run(conn, "two"))
        async with follow(server, "two") as pieces:
            seen, _ = read_event(await anext(pieces))
        async with follow(server, "two", **{"Last-Event-ID": seen}) as pieces:
            assert await anext(pieces) == ": ping\n"
            await finish_run(conn, run)
            assert read_event(await anext(pieces))[1]["status"] == "completed"


async def test_a_server_that_is_stopped_ends_its_event_streams(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        await make_video(conn, identifier="three")
        await enqueue_run(conn, "three")
    with serving(tmp_path, database_url=own_database_url, redis_url=redis_url, log_level="error") as server:
        async with follow(server, "three") as pieces:
            await anext(pieces)
            server.process.send_signal(signal.SIGTERM)
            assert [piece async for piece in pieces] == []
        server.process.wait(60)
