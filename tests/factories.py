"""Rows for tests, with defaults for whatever a test does not care about."""

from itertools import count
from typing import Any

from app.database import Connection
from app.models import Video
from app.repositories import VideoRepository

_numbers = count(1)


async def make_video(conn: Connection, **values: Any) -> Video:
    identifier = values.pop("identifier", f"video-{next(_numbers)}")
    defaults: dict[str, Any] = {"cloud_url": f"file:///library/videos/{identifier}.mp4", "duration_seconds": 300.0}
    return await VideoRepository(conn).create(identifier=identifier, **(defaults | values))
