"""The forms of an upload as bytes, and what has become of them."""

from collections.abc import AsyncIterator

from httpx import AsyncClient, Response

from app.database import Connection
from app.models import Video
from app.repositories import VideoRepository

BOUNDARY = "a-boundary"
FORM_TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


async def find_video(conn: Connection, identifier: str) -> Video:
    video = await VideoRepository(conn).get_by_identifier(identifier)
    assert video is not None
    return video


async def count_videos(conn: Connection) -> int:
    return await VideoRepository(conn).count()


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes, end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    return b"".join(parts) + end


async def send_form(client: AsyncClient, *parts: bytes) -> Response:
    return await client.post("/api/videos", content=form(*parts), headers=FORM_TYPE)


async def in_pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
