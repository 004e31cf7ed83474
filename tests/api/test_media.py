"""`/api/videos/{id}/stream` and `…/url`: what RFC 9110 says of files, ranges and conditions."""

import os
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from httpx import AsyncClient, Response

from app.database import Connection
from tests.conftest import Statements
from tests.factories import make_video
from tests.media.movies import make_movie

CONTENT = bytes(range(256)) * 4
SIZE = len(CONTENT)
STREAM = "/api/videos/talk/stream"


@pytest.fixture(autouse=True)
async def video(conn: Connection, tmp_path: Path) -> Path:
    """The video `talk`, last changed an hour ago."""
    path = tmp_path / "library" / "talk.mp4"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    changed = datetime.now(UTC) - timedelta(hours=1)
    os.utime(path, (changed.timestamp(), changed.timestamp()))
    await make_video(conn, identifier="talk", cloud_url=path.as_uri())
    return path


def rewrite(path: Path, content: bytes | None) -> None:
    path.unlink() if content is None else path.write_bytes(content)


async def get(client: AsyncClient, **headers: str) -> Response:
    return await client.get(STREAM, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_without_a_range_the_whole_file_is_sent(client: AsyncClient, statements: Statements) -> None:
    with statements:
        answer = await client.get(STREAM)
    assert statements == 1
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert re.fullmatch(r'"[^"]+"', answer.headers["ETag"])
    assert answer.headers["Last-Modified"].endswith("GMT")


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-", 0, SIZE),
        ("bytes=0-99", 0, 100),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=10-999999999", 10, SIZE),
        ("bytes=-500", SIZE - 500, SIZE),
        ("bytes=-99999", 0, SIZE),
        ("bytes=0-9,5-19", 0, 20),
    ],
)
async def test_a_range_is_a_part_of_the_file(client: AsyncClient, header: str, start: int, stop: int) -> None:
    answer = await get(client, range=header)
    assert (answer.status_code, answer.content) == (206, CONTENT[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert "ETag" in answer.headers


async def test_several_ranges_come_as_parts_in_their_order(client: AsyncClient) -> None:
    answer = await get(client, range="bytes=500-509, 0-9, -1")
    assert answer.status_code == 206
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert "Content-Range" not in answer.headers
    match = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]+)", answer.headers["Content-Type"])
    assert match
    before, *parts, after = answer.content.split(b"\r\n--" + match[1].encode())
    assert (before, after) == (b"", b"--\r\n")
    for part, (start, stop) in zip(parts, [(500, 510), (0, 10), (SIZE - 1, SIZE)], strict=True):
        head = f"\r\nContent-Type: video/mp4\r\nContent-Range: bytes {start}-{stop - 1}/{SIZE}\r\n\r\n"
        assert part == head.encode() + CONTENT[start:stop]


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=99999-100000", "bytes=-0"])
async def test_a_range_that_is_not_there_is_416_with_the_size(client: AsyncClient, header: str) -> None:
    answer = await get(client, range=header)
    assert (answer.status_code, answer.json()) == (416, {"detail": "Range not satisfiable"})
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("header", ["bytes=abc", "bytes=100-50", "seconds=0-9", "bytes=" + "0-1," * 5000])
async def test_a_range_that_nobody_understands_is_ignored(client: AsyncClient, header: str) -> None:
    answer = await get(client, range=header)
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


async def test_head_is_get_without_the_body(client: AsyncClient) -> None:
    answer, whole = await client.head(STREAM, headers={"Range": "bytes=0-9"}), await client.get(STREAM)
    assert (answer.status_code, answer.content) == (200, b"")
    assert dict(answer.headers) | {"x-request-id": ""} == dict(whole.headers) | {"x-request-id": ""}


@pytest.mark.parametrize("header", [None, "bytes=0-", "bytes=-5"])
async def test_an_empty_file_is_sent_as_what_it_is(client: AsyncClient, video: Path, header: str | None) -> None:
    rewrite(video, b"")
    answer = await client.get(STREAM, headers={"Range": header} if header else {})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == "0"


async def test_a_file_that_the_client_has_is_not_sent_again(client: AsyncClient) -> None:
    headers = (await client.get(STREAM)).headers
    etag, modified = headers["ETag"], headers["Last-Modified"]
    for answer in (
        await get(client, if_none_match=etag),
        await get(client, if_none_match=f'"other", W/{etag}'),
        await get(client, if_none_match="*"),
        await get(client, if_modified_since=modified),
        await get(client, if_modified_since=modified, range="bytes=0-9"),
    ):
        assert (answer.status_code, answer.content) == (304, b"")
        assert (answer.headers["ETag"], answer.headers["Cache-Control"]) == (etag, headers["Cache-Control"])


async def test_a_changed_file_is_sent_again(client: AsyncClient, video: Path) -> None:
    headers = (await client.get(STREAM)).headers
    rewrite(video, CONTENT[::-1])
    assert (await get(client, if_none_match=headers["ETag"])).content == CONTENT[::-1]
    assert (await get(client, if_modified_since=headers["Last-Modified"])).content == CONTENT[::-1]


async def test_the_tag_decides_where_there_is_one(client: AsyncClient) -> None:
    modified = (await client.get(STREAM)).headers["Last-Modified"]
    assert (await get(client, if_none_match='"other"', if_modified_since=modified)).status_code == 200


@pytest.mark.parametrize("date", ["yesterday", "Sun, 99 Nov 2026 99:99:99 GMT", "", "1e999", "0001-01-01"])
async def test_what_is_no_date_is_no_condition(client: AsyncClient, date: str) -> None:
    for name in ("If-Modified-Since", "If-Unmodified-Since"):
        assert (await client.get(STREAM, headers={name: date})).status_code == 200


@pytest.mark.parametrize("form", ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"])
async def test_dates_may_have_their_old_forms(client: AsyncClient, form: str) -> None:
    date = datetime.now(UTC).strftime(form)
    assert (await get(client, if_modified_since=date)).status_code == 304


async def test_a_request_for_another_state_of_the_file_is_412(client: AsyncClient) -> None:
    etag = (await client.get(STREAM)).headers["ETag"]
    long_ago = "Sun, 06 Nov 1994 08:49:37 GMT"
    for answer in (
        await get(client, if_match='"other"'),
        await get(client, if_match=f"W/{etag}"),
        await get(client, if_unmodified_since=long_ago),
    ):
        assert (answer.status_code, answer.json()) == (412, {"detail": "The file has changed"})


async def test_a_request_for_this_state_of_the_file_is_answered(client: AsyncClient) -> None:
    headers = (await client.get(STREAM)).headers
    assert (await get(client, if_match=f'"other", {headers["ETag"]}')).status_code == 200
    assert (await get(client, if_match="*")).status_code == 200
    assert (await get(client, if_unmodified_since=headers["Last-Modified"])).status_code == 200


async def test_a_range_of_the_same_file_goes_on_where_it_was(client: AsyncClient) -> None:
    headers = (await client.get(STREAM)).headers
    for validator in (headers["ETag"], headers["Last-Modified"]):
        assert (await get(client, range="bytes=5-", if_range=validator)).status_code == 206


async def test_a_range_of_another_file_begins_again(client: AsyncClient) -> None:
    etag = (await client.get(STREAM)).headers["ETag"]
    for validator in ('"other"', f"W/{etag}", "Sun, 06 Nov 1994 08:49:37 GMT", "nonsense", "*"):
        answer = await get(client, range="bytes=5-", if_range=validator)
        assert (answer.status_code, len(answer.content)) == (200, SIZE)


async def test_a_date_does_not_tell_what_happened_within_its_second(client: AsyncClient, video: Path) -> None:
    soon = datetime.now(UTC).timestamp() + 3600  # so that it counts as changed in this very second
    os.utime(video, (soon, soon))
    modified = (await client.get(STREAM)).headers["Last-Modified"]
    assert (await get(client, range="bytes=5-", if_range=modified)).status_code == 200


async def test_a_file_is_never_from_the_future(client: AsyncClient, video: Path) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    os.utime(video, (tomorrow.timestamp(), tomorrow.timestamp()))
    modified = (await client.get(STREAM)).headers["Last-Modified"]
    assert modified != format_datetime(tomorrow, usegmt=True)


async def test_a_video_file_is_what_it_is_and_not_what_it_is_called(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    path = make_movie(tmp_path / "library" / "film.mp4", 0.5, "libvpx", None, "webm")
    await make_video(conn, identifier="film", cloud_url=path.as_uri())
    for answer in (
        await client.get("/api/videos/film/stream"),
        await client.get("/api/videos/film/stream", headers={"Range": "bytes=100-"}),
        await client.head("/api/videos/film/stream"),
    ):
        assert answer.headers["Content-Type"] == "video/webm"


async def test_an_unknown_video_and_one_whose_file_is_gone_are_404(client: AsyncClient, video: Path) -> None:
    unknown = await client.get("/api/videos/nobody/stream")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Video not found"})
    rewrite(video, None)
    gone = await client.get(STREAM)
    assert (gone.status_code, gone.json()) == (404, {"detail": "File not found"})
    assert (await client.get("/api/videos/talk/url")).status_code == 404


async def test_a_file_outside_of_every_folder_is_not_sent(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    outside = tmp_path / "secret.mp4"
    outside.write_bytes(CONTENT)
    for number, url in enumerate((outside.as_uri(), f"{(tmp_path / 'library').as_uri()}/../secret.mp4", "https://x/y")):
        await make_video(conn, identifier=f"outside-{number}", cloud_url=url)
        answer = await client.get(f"/api/videos/outside-{number}/stream")
        assert (answer.status_code, answer.json()) == (404, {"detail": "File not found"})


@pytest.mark.parametrize("identifier", ["What? #1 100%41 – ü", "a talk", "..", "%2e%2e", "x" * 255])
async def test_any_identifier_has_a_stream_and_an_address(
    client: AsyncClient, conn: Connection, video: Path, identifier: str
) -> None:
    await make_video(conn, identifier=identifier, cloud_url=video.as_uri())
    address = (await client.get(f"/api/videos/{quote(identifier, safe='').replace('.', '%2e')}/url")).json()
    assert address["expires_in_seconds"] is None
    assert address["url"].startswith("http://localhost/api/videos/")
    assert (await client.get(address["url"].replace(".", "%2e"))).content == CONTENT


@pytest.mark.parametrize("identifier", ["\0", "a\0b", "x" * 5000, "'; DROP TABLE videos; --", "💩"])
async def test_an_identifier_that_nothing_can_have_is_404(client: AsyncClient, identifier: str) -> None:
    for path in ("stream", "url", "moments/x/clip"):
        answer = await client.get(f"/api/videos/{quote(identifier, safe='')}/{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Video not found"})


async def add_copy(conn: Connection, path: Path, source: Path, status: str = "ready") -> None:
    rewrite(path, b"a copy that browsers play")
    await conn.execute(
        """
        INSERT INTO library.video_files (video_id, source_url, status, playable_url, reason)
        SELECT id, %(source)s, %(status)s, %(url)s, %(reason)s FROM videos WHERE identifier = 'talk'
        """,
        {
            "source": source.as_uri(),
            "status": status,
            "url": path.as_uri() if status == "ready" else None,
            "reason": "It is damaged" if status == "failed" else None,
        },
    )


async def test_a_copy_that_browsers_play_is_sent_in_the_place_of_the_file(
    client: AsyncClient, conn: Connection, video: Path
) -> None:
    await add_copy(conn, video.with_name("copy.mp4"), video)
    assert (await client.get(STREAM)).content == b"a copy that browsers play"
    assert (await get(client, range="bytes=2-5")).content == b"copy"
    assert (await client.get("/api/videos/talk")).json()["playable_copy"] == {"status": "ready", "reason": None}
    video.with_name("copy.mp4").unlink()
    assert (await client.get(STREAM)).content == CONTENT
    assert (await client.get("/api/videos/talk/url")).status_code == 200


async def test_the_copy_of_another_file_is_not_sent(client: AsyncClient, conn: Connection, video: Path) -> None:
    await add_copy(conn, video.with_name("copy.mp4"), video.with_name("before.avi"))
    assert (await client.get(STREAM)).content == CONTENT
    assert "playable_copy" not in (await client.get("/api/videos/talk")).json()


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("waiting", None),
        ("unneeded", None),
        ("making", {"status": "making", "reason": None}),
        ("failed", {"status": "failed", "reason": "It is damaged"}),
    ],
)
async def test_the_file_itself_is_sent_until_there_is_a_copy(
    client: AsyncClient, conn: Connection, video: Path, status: str, shown: dict[str, str | None] | None
) -> None:
    await add_copy(conn, video.with_name("copy.mp4"), video, status)
    assert (await client.get(STREAM)).content == CONTENT
    assert (await client.get("/api/videos/talk")).json().get("playable_copy") == shown
