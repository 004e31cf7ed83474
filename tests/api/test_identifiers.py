"""Identifiers in addresses that no row can have."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.database import Connection
from tests.factories import make_video

BODIES = {"post": {"start_time": 1, "end_time": 2, "title": "A moment"}, "patch": {"title": "A title"}}


def addresses(app: FastAPI, name: str) -> Iterator[tuple[str, str]]:
    """Yield method and address of every route that names a video or a moment and knows 404."""
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            if f"{{{name}}}" in path and "404" in operation["responses"]:
                yield method, path


@pytest.mark.parametrize(
    ("name", "detail"), [("video_id", "Video not found"), ("moment_id", "Moment not found")], ids=["video", "moment"]
)
async def test_one_with_a_character_that_cannot_be_stored_is_404(
    app: FastAPI, client: AsyncClient, conn: Connection, name: str, detail: str
) -> None:
    await make_video(conn, identifier="talk")
    routes = list(addresses(app, name))
    assert len(routes) > 5
    for method, path in routes:
        address = path.replace(f"{{{name}}}", "a%00b").format(video_id="talk", moment_id="x", format="srt")
        answer = await client.request(method, address, json=BODIES.get(method))
        of_runs = f"{detail}: a\0b" if path.startswith("/api/pipeline/") else detail
        assert (answer.status_code, answer.json()) == (404, {"detail": of_runs}), (method, path)
