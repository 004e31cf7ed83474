"""`POST /api/videos` with a form: its parts in any order and in any pieces, and what no form may be."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from httpx import AsyncClient

from app.database import Connection
from tests.api.upload_forms import BOUNDARY, FORM_TYPE, count_videos, find_video, form, in_pieces, part, send_form
from tests.factories import make_video
from tests.storage.stores import files_in


async def test_the_fields_of_a_form_may_follow_the_file(client: AsyncClient, conn: Connection, movie: bytes) -> None:
    await make_video(conn, identifier="movie")  # the name of the file is taken, and does not count
    body = form(
        part("title", "Ein Titel – mit Strich".encode()),
        part("file", movie, "movie.mp4"),
        part("id", "Kévin – How To".encode()),
        part("source_url", b"gs://bucket/talk.mp4"),
    )
    answer = await client.post("/api/videos", content=in_pieces(body), headers=FORM_TYPE)
    assert (answer.status_code, answer.json()["id"]) == (201, "Kévin – How To")
    assert answer.json()["title"] == "Ein Titel – mit Strich"
    assert answer.headers["Location"] == "/api/videos/" + quote("Kévin – How To")
    assert (await find_video(conn, "Kévin – How To")).source_url == "gs://bucket/talk.mp4"


@pytest.mark.parametrize("size", [1, 7, 64 * 1024])
async def test_a_form_may_arrive_in_pieces_of_any_size(
    client: AsyncClient, movie: bytes, media: Path, size: int
) -> None:
    body = form(part("file", movie, "talk.mp4"), part("id", b"pieces"))
    answer = await client.post("/api/videos", content=in_pieces(body, size), headers=FORM_TYPE)
    assert (answer.status_code, answer.json()["id"]) == (201, "pieces")
    assert [(media / name).read_bytes() for name in files_in(media)] == [movie]


async def test_a_taken_id_of_a_form_is_refused_when_the_file_begins(
    client: AsyncClient, conn: Connection, media: Path
) -> None:
    await make_video(conn, identifier="talk")

    async def pieces() -> AsyncIterator[bytes]:
        yield part("id", b"talk") + part("file", b"begins", "other.mp4")
        raise AssertionError("More was read")

    answer = await client.post("/api/videos", content=pieces(), headers=FORM_TYPE)
    assert answer.status_code == 409
    assert files_in(media) == []


FILE = part("file", b"x", "talk.mp4")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (form(part("id", b"talk")), "The form has no file"),
        (b"", "The form ended early"),
        (form(end=f"--{BOUNDARY}--".encode()), "The form has no file"),
        (form(FILE, end=b""), "The form ended early"),
        (form(FILE)[:-10], "The form ended early"),
        (form(FILE, FILE), "The form has more than one file"),
        (form(part("id", b"a"), part("id", b"b"), FILE), "The form has more than one id"),
        (form(part("name", b"a"), FILE), "A form has the fields file, id, title and source_url, and no others"),
        (form(part("title", b"\xff"), FILE), "title is not UTF-8"),
        (b"this is no form", "The form does not begin with the boundary that its Content-Type names"),
        (f"--{BOUNDARY}\r\nBroken\r\n\r\n".encode(), "The form is damaged"),
    ],
)
async def test_a_broken_form_is_refused(
    client: AsyncClient, conn: Connection, media: Path, body: bytes, detail: str
) -> None:
    answer = await client.post("/api/videos", content=body, headers=FORM_TYPE)
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})
    assert (await count_videos(conn), files_in(media)) == (0, [])


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/mixed; boundary=a-boundary",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=" + "x" * 500,
    ],
)
async def test_a_form_of_another_kind_is_refused(client: AsyncClient, content_type: str) -> None:
    answer = await client.post("/api/videos", content=form(FILE), headers={"Content-Type": content_type})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("content_type", ["video/mp4", "application/octet-stream", "x", None])
async def test_a_form_that_is_sent_as_the_file_itself_is_called_a_form(
    client: AsyncClient, media: Path, movie: bytes, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = form(part("file", movie, "talk.mp4"))
    answer = await client.post("/api/videos", content=body, headers=headers, params={"filename": "talk.mp4"})
    found = f"not as {content_type}" if content_type else "not without a Content-Type"
    detail = f"The body is a form: send it as multipart/form-data with its boundary, {found}"
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})
    assert files_in(media) == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain; charset=utf-8", "application/xml", "application/vnd.api+json"]
)
async def test_a_type_that_no_video_has_is_named(client: AsyncClient, movie: bytes, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    for body in (b"{}", movie):
        answer = await client.post("/api/videos", content=body, headers=headers, params={"filename": "talk.mp4"})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("Send the video as multipart/form-data with a boundary, or as the")
        assert answer.json()["detail"].endswith(f", not as {content_type}")


async def test_a_form_with_another_boundary_is_reported_so(client: AsyncClient, movie: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=another"}
    answer = await client.post("/api/videos", content=form(part("file", movie, "talk.mp4")), headers=headers)
    detail = "The form does not begin with the boundary that its Content-Type names"
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})


async def test_the_fields_of_a_form_are_bounded(client: AsyncClient, media: Path) -> None:
    answer = await send_form(client, part("title", b"x" * 100_000), FILE)
    assert answer.status_code == 413
    assert files_in(media) == []
