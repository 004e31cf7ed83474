"""Every address that can be read, asked for by many clients at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Message

from app.core.config import Settings
from app.database import open_async_connection
from app.main import create_app
from app.services.health import SharedHealthCheck
from app.storage.keys import clip_folder_key, video_folder_key
from tests.api.conftest import share_routes
from tests.factories import make_clip, make_generation_config, make_moment, make_run, make_transcript, make_video
from tests.media.movies import make_movie

_CLIENTS = 16
_REQUESTS = 400
_PARTS = 5  # tests, for as many processes
_VIDEO, _MOMENT = "motivation", "7621a017eec7482f"
_PARAMETERS = {
    "video_id": _VIDEO,
    "moment_id": _MOMENT,
    "prompt_id": "1",
    "config_id": "1",
    "key": "minimax",
    "name": f"{_VIDEO}_{_MOMENT}.mp4",
    "request_id": "a-run",
}


async def test_a_check_that_others_share_and_replace_answers_all() -> None:
    numbers = count(1)

    async def check() -> int:
        await asyncio.sleep(0)
        return next(numbers)

    probe = SharedHealthCheck(check)

    async def run() -> list[int | None]:
        return [await probe.run_or_join() for _ in range(50)]

    answers = [answer for answers in await asyncio.gather(*(run() for _ in range(4))) for answer in answers]
    assert len(answers) == 200
    assert None not in answers


@pytest.fixture
async def running_app(
    own_database_url: str, redis_url: str, tmp_path: Path, patient_health: None
) -> AsyncIterator[FastAPI]:
    """An application inside its lifespan, with one of everything."""
    media = tmp_path / "media"
    movie = make_movie(media / video_folder_key(_VIDEO) / f"{_VIDEO}.mp4")
    cut = make_movie(media / clip_folder_key(_VIDEO) / f"{_MOMENT}.mp4")
    settings = Settings(
        log_level="error", database_url=own_database_url, redis_url=redis_url, storage_url=media.as_uri()
    )
    async with open_async_connection(settings) as conn:
        video = await make_video(conn, identifier=_VIDEO, cloud_url=movie.as_uri(), duration_seconds=300.0)
        await make_transcript(conn, video_id=video.id)
        config = await make_generation_config(conn)
        moment = await make_moment(conn, identifier=_MOMENT, video_id=video.id, generation_config_id=config.id)
        await make_clip(conn, moment, cloud_url=cut.as_uri())
        await make_run(conn, identifier="a-run", video_id=video.id, status="failed")
    app = create_app(settings)
    share_routes(app)
    async with app.router.lifespan_context(app):
        yield app


async def _get_status(app: FastAPI, path: str, query: str) -> int:
    """Ask the application itself, which takes half as long as through a client."""
    statuses: list[int] = []
    answered = asyncio.Event()
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        if request := next(requests, None):
            return request
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif not message.get("more_body"):
            answered.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip")],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    assert answered.is_set()
    (status,) = statuses
    return status


async def _ask_often(app: FastAPI, path: str, query: str) -> Counter[int]:
    statuses: Counter[int] = Counter()

    async def run() -> None:
        for _ in range(_REQUESTS // _CLIENTS):
            statuses[await _get_status(app, path, query)] += 1

    await asyncio.gather(*(run() for _ in range(_CLIENTS)))
    return statuses


@pytest.mark.parametrize("part", range(_PARTS))
async def test_sixteen_clients_at_once_get_no_server_error_from_any_address(running_app: FastAPI, part: int) -> None:
    wrong: dict[str, Counter[int]] = {}
    paths = [path for path, methods in running_app.openapi()["paths"].items() if "get" in methods]
    assert len(paths) > _PARTS
    for path in paths[part::_PARTS]:
        query = "q=hello" if path == "/api/search" else ""
        statuses = await _ask_often(running_app, path.format_map(_PARAMETERS), query)
        assert statuses.total() == _REQUESTS
        if max(statuses) >= 500:
            wrong[path] = statuses
    assert wrong == {}
