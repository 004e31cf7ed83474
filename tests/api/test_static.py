"""`/static/thumbnails/{id}.jpg`, the address that `thumbnail_url` gives out."""

from pathlib import Path

from httpx import AsyncClient

from app.database import Connection
from tests.conftest import Statements
from tests.factories import make_thumbnail, make_video

PICTURE = b"\xff\xd8 not really a picture \xff\xd9"


async def make_picture(conn: Connection, folder: Path, identifier: str = "my talk") -> Path:
    path = folder / f"{identifier} – ü%41.jpg"
    path.write_bytes(PICTURE)
    video = await make_video(conn, identifier=identifier)
    await make_thumbnail(conn, video_id=video.id, cloud_url=path.as_uri())
    return path


async def test_the_address_of_a_thumbnail_leads_to_its_picture(
    client: AsyncClient, conn: Connection, tmp_path: Path, statements: Statements
) -> None:
    await make_picture(conn, tmp_path, "What? #1 100%41 – ü")
    address = (await client.get("/api/videos")).json()[0]["thumbnail_url"]
    with statements:
        answer = await client.get(address)
    assert statements == 1
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["Content-Type"] == "image/jpeg"


async def test_a_part_of_a_picture_and_its_head_can_be_asked_for(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_picture(conn, tmp_path, "talk")
    part = await client.get("/static/thumbnails/talk.jpg", headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"\xff\xd8")
    head = await client.head("/static/thumbnails/talk.jpg")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(PICTURE)))


async def test_a_picture_that_is_gone_or_is_none_is_404(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    (await make_picture(conn, tmp_path, "gone")).unlink()
    folder = await make_video(conn, identifier="folder")
    await make_thumbnail(conn, video_id=folder.id, cloud_url=tmp_path.as_uri())
    remote = await make_video(conn, identifier="remote")
    await make_thumbnail(conn, video_id=remote.id, cloud_url="gs://bucket/remote.jpg")
    await make_video(conn, identifier="none")
    for name in ("gone", "folder", "remote", "none", "nobody", "..%2f..%2fetc%2fpasswd"):
        answer = await client.get(f"/static/thumbnails/{name}.jpg")
        assert answer.status_code == 404, name
        assert isinstance(answer.json()["detail"], str)
