"""`/api/videos/{id}/thumbnail`, `…/clip/thumbnail` and `/static/thumbnails/{id}.jpg`."""

from pathlib import Path

import pytest
from httpx import AsyncClient

from app.core.config import Settings
from app.database import Connection, get_pool
from app.main import create_app
from tests.api.conftest import open_client
from tests.conftest import Statements
from tests.factories import make_clip, make_moment, make_thumbnail, make_video
from tests.media.movies import make_colour_movie

PICTURE = b"\xff\xd8 not really a picture \xff\xd9"
RED = (255, 0, 0)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    return folder


async def make_picture(conn: Connection, library: Path, identifier: str = "my talk") -> Path:
    """A video with a thumbnail, but no file of its own."""
    path = library / f"{identifier} – ü%41.jpg"
    path.write_bytes(PICTURE)
    video = await make_video(conn, identifier=identifier)
    await make_thumbnail(conn, video_id=video.id, cloud_url=path.as_uri())
    return path


async def make_video_file(conn: Connection, library: Path, identifier: str = "talk") -> int:
    video_file = make_colour_movie(library / f"{identifier}.mp4", 2, [RED])
    return (await make_video(conn, identifier=identifier, cloud_url=video_file.as_uri())).id


async def test_the_address_of_a_thumbnail_leads_to_its_picture(
    client: AsyncClient, conn: Connection, library: Path, statements: Statements
) -> None:
    await make_picture(conn, library, "What? #1 100%41 – ü")
    address = (await client.get("/api/videos")).json()[0]["thumbnail_url"]
    with statements:
        answer = await client.get(address)
    assert statements == 1
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["Content-Type"] == "image/jpeg"


async def test_a_video_without_a_picture_gets_one_and_is_listed_with_it(
    client: AsyncClient, conn: Connection, library: Path
) -> None:
    await make_video_file(conn, library)
    assert (await client.get("/api/videos/talk")).json()["thumbnail_url"] is None
    made = await client.get("/api/videos/talk/thumbnail")
    assert (made.status_code, made.headers["Content-Type"]) == (200, "image/jpeg")
    assert made.content.startswith(b"\xff\xd8\xff")
    address = (await client.get("/api/videos/talk")).json()["thumbnail_url"]
    assert address == "/static/thumbnails/talk.jpg"
    assert (await client.get(address)).content == made.content


async def test_a_picture_is_kept_for_a_while_and_then_asked_about(
    client: AsyncClient, conn: Connection, library: Path
) -> None:
    await make_video_file(conn, library)
    first = await client.get("/api/videos/talk/thumbnail")
    assert "max-age" in first.headers["Cache-Control"]
    assert first.headers["Last-Modified"]
    again = await client.get("/static/thumbnails/talk.jpg", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/api/videos/talk/thumbnail", "/static/thumbnails/talk.jpg"])
async def test_a_part_of_a_picture_and_its_head_can_be_asked_for(
    client: AsyncClient, conn: Connection, library: Path, path: str
) -> None:
    await make_picture(conn, library, "talk")
    part = await client.get(path, headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"\xff\xd8")
    head = await client.head(path)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(PICTURE)))


async def test_a_clip_has_a_picture_too(client: AsyncClient, conn: Connection, library: Path) -> None:
    moment = await make_moment(conn, video_id=await make_video_file(conn, library))
    video_file = make_colour_movie(library / "clip.mp4", 2, [RED])
    await make_clip(conn, moment, cloud_url=video_file.as_uri())
    path = f"/api/videos/talk/moments/{moment.identifier}/clip/thumbnail"
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert (await client.head(path)).headers["ETag"] == answer.headers["ETag"]


async def test_what_is_not_there_is_reported_in_one_sentence(
    client: AsyncClient, conn: Connection, library: Path
) -> None:
    moment = await make_moment(conn, video_id=await make_video_file(conn, library))
    for path, detail in {
        "/api/videos/nobody/thumbnail": "Video not found",
        "/static/thumbnails/nobody.jpg": "Video not found",
        "/api/videos/talk/moments/none/clip/thumbnail": "Moment not found",
        f"/api/videos/talk/moments/{moment.identifier}/clip/thumbnail": "Clip not found",
    }.items():
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": detail})


async def test_a_picture_that_cannot_be_made_is_404(client: AsyncClient, conn: Connection, library: Path) -> None:
    (await make_picture(conn, library, "gone")).unlink()
    folder = await make_video(conn, identifier="folder")
    await make_thumbnail(conn, video_id=folder.id, cloud_url=library.as_uri())
    await make_video(conn, identifier="none")
    await make_video_file(conn, library, "broken")
    (library / "broken.mp4").write_bytes(b"no film")
    for name in ("gone", "folder", "none", "broken"):
        for path in (f"/static/thumbnails/{name}.jpg", f"/api/videos/{name}/thumbnail"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Thumbnail not found"}), name


async def test_a_storage_that_cannot_be_written_is_reported_as_such(
    client: AsyncClient, conn: Connection, library: Path, tmp_path: Path
) -> None:
    await make_video_file(conn, library)
    (tmp_path / "media").mkdir(exist_ok=True)
    (tmp_path / "media" / "thumbnails").write_text("a file where a folder is to be")
    for _ in range(2):
        answer = await client.get("/api/videos/talk/thumbnail")
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"]


async def test_pictures_are_made_in_a_second_lifespan_too(
    own_database_url: str, redis_url: str, settings: Settings, library: Path
) -> None:
    servers = {"database_url": own_database_url, "redis_url": redis_url}
    app = create_app(Settings(**{**settings.model_dump(), **servers}))
    for name in ("talk", "other"):
        async with app.router.lifespan_context(app), open_client(app) as client:
            async with get_pool().connection() as conn:
                await make_video_file(conn, library, name)
            assert (await client.get(f"/api/videos/{name}/thumbnail")).status_code == 200


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%00", "a%00b", "x" * 5000, "%F0%9F%92%A9", "%ED%A0%80"])
async def test_a_strange_name_is_404(client: AsyncClient, name: str) -> None:
    for path in (
        f"/static/thumbnails/{name}.jpg",
        f"/api/videos/{name}/thumbnail",
        f"/api/videos/talk/moments/{name}/clip/thumbnail",
    ):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert isinstance(answer.json()["detail"], str)


async def test_a_picture_that_lies_where_the_server_may_not_look_is_not_shown(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_picture(conn, tmp_path, "outside")
    assert (await client.get("/static/thumbnails/outside.jpg")).status_code == 404
