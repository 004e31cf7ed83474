"""The files cut out for moments: `…/moments/{mid}/clip` and `/moment_clips/{video}_{moment}_clip.mp4`."""

from pathlib import Path
from urllib.parse import quote

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.models import Clip
from app.repositories import ClipRepository
from tests.conftest import Statements
from tests.factories import make_clip, make_moment, make_video

CONTENT = b"\0\0\0\x18ftypisom, and not really a film"
MOMENT = "7621a017eec7482f"


def write(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


async def make_video_file(
    conn: Connection, folder: Path, video: str, moment: str = MOMENT, name: str = "clip.mp4"
) -> Clip:
    """The clip of a new moment of a new video, and its file."""
    path = write(folder / name)
    row = await make_moment(conn, identifier=moment, video_id=(await make_video(conn, identifier=video)).id)
    return await make_clip(conn, row, cloud_url=path.as_uri())


async def test_a_clip_is_sent_with_ranges(
    client: AsyncClient, conn: Connection, tmp_path: Path, statements: Statements
) -> None:
    await make_video_file(conn, tmp_path / "media", "talk")
    for address in (f"/api/videos/talk/moments/{MOMENT}/clip", f"/moment_clips/talk_{MOMENT}_clip.mp4"):
        with statements:
            whole = await client.get(address)
        assert statements == 1
        assert (whole.status_code, whole.content) == (200, CONTENT)
        assert whole.headers["Content-Type"] == "video/mp4"
        part = await client.get(address, headers={"Range": "bytes=4-9"})
        assert (part.status_code, part.content) == (206, CONTENT[4:10])
        head = await client.head(address)
        assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(CONTENT)))
        copy = await client.get(address, headers={"If-None-Match": whole.headers["ETag"]})
        assert (copy.status_code, copy.content) == (304, b"")


async def test_what_is_missing_on_the_way_to_a_clip_is_named(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    clip = await make_video_file(conn, tmp_path / "media", "talk")
    await make_moment(conn, identifier="without", video_id=clip.video_id)
    await make_moment(conn, identifier="of-another-video")
    for path, detail in (
        (f"nobody/moments/{MOMENT}", "Video not found"),
        ("talk/moments/nothing", "Moment not found"),
        ("talk/moments/a%00b", "Moment not found"),
        ("talk/moments/of-another-video", "Moment not found"),
        ("talk/moments/without", "Clip not found"),
    ):
        answer = await client.get(f"/api/videos/{path}/clip")
        assert (answer.status_code, answer.json()) == (404, {"detail": detail})


@pytest.mark.parametrize("video", ["a_b", "a talk", "What? #1 100%41 – ü", "_", "a__b_clip.mp4", "%_\\"])
async def test_a_clip_is_found_by_the_names_of_its_video_and_its_moment(
    client: AsyncClient, conn: Connection, tmp_path: Path, video: str
) -> None:
    await make_video_file(conn, tmp_path / "media", video, "under_score")
    answer = await client.get(f"/moment_clips/{quote(video, safe='')}_under_score_clip.mp4")
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize("video", ["a_b", "a talk", "ü_%"])
async def test_a_clip_is_found_by_its_file_where_an_import_renamed_its_moment(
    client: AsyncClient, conn: Connection, tmp_path: Path, video: str
) -> None:
    name = f"{video}_0123456789abcdef_clip.mp4"
    await make_video_file(conn, tmp_path / "library" / "moment_clips", video, "another", name)
    answer = await client.get(f"/moment_clips/{quote(name)}")
    assert (answer.status_code, answer.content) == (200, CONTENT)


async def test_a_clip_of_a_bucket_is_found_by_its_file_too(client: AsyncClient, conn: Connection) -> None:
    moment = await make_moment(conn, video_id=(await make_video(conn, identifier="a talk")).id)
    await make_clip(conn, moment, cloud_url="gs://bucket/clips/a talk/a talk_0123456789abcdef_clip.mp4")
    answer = await client.get("/moment_clips/a%20talk_0123456789abcdef_clip.mp4")
    assert answer.json() != {"detail": "Clip not found"}


async def test_the_moment_comes_before_a_file_that_only_has_its_name(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    folder = tmp_path / "media"
    other = await make_video_file(conn, folder / "other", "talk", "other", f"talk_{MOMENT}_clip.mp4")
    write(folder / "other" / f"talk_{MOMENT}_clip.mp4", b"another film")
    moment = await make_moment(conn, identifier=MOMENT, video_id=other.video_id)
    await make_clip(conn, moment, cloud_url=write(folder / "right.mp4").as_uri())
    assert (await client.get(f"/moment_clips/talk_{MOMENT}_clip.mp4")).content == CONTENT


async def test_of_two_files_with_the_name_that_of_the_older_clip_is_sent(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    name = "a_b_0123456789abcdef_clip.mp4"
    newer = await make_moment(conn, video_id=(await make_video(conn, identifier="a")).id)
    older = await make_video_file(conn, tmp_path / "media" / "older", "a_b", "another", name)
    await make_clip(conn, newer, cloud_url=write(tmp_path / "media" / "newer" / name, b"another film").as_uri())
    await ClipRepository(conn).update(older.id, format="mp4")  # it is now the last in the table and in the index
    assert (await client.get(f"/moment_clips/{name}")).content == CONTENT


async def test_a_file_of_a_video_that_the_name_does_not_begin_with_is_not_sent(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    name = "talk_0123456789abcdef_clip.mp4"
    await make_video_file(conn, tmp_path / "media", "secret", name=name)
    await make_video(conn, identifier="talk")
    answer = await client.get(f"/moment_clips/{name}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Clip not found"})


async def test_a_file_is_sent_only_where_its_whole_name_is_asked_for(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    name = "talk_0123456789abcdef_clip.mp4"
    await make_video_file(conn, tmp_path / "media", "talk", name=f"{name}.part")
    assert (await client.get(f"/moment_clips/{name}")).status_code == 404


async def test_the_longest_names_of_a_video_and_a_moment_are_found(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video, moment = "ü" * 255, "m" * 20
    await make_video_file(conn, tmp_path / "media", video, moment)
    assert (await client.get(f"/moment_clips/{video}_{moment}_clip.mp4")).content == CONTENT


async def test_a_name_that_no_clip_can_have_is_not_even_sought(client: AsyncClient, statements: Statements) -> None:
    with statements:
        for name in ("_" * 5000 + "_clip.mp4", "talk.mp4", "a%00_b_clip.mp4"):
            assert (await client.get(f"/moment_clips/{name}")).status_code == 404
    assert statements == 0


async def test_a_clip_of_one_video_is_not_that_of_another(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_video_file(conn, tmp_path / "media", "talk", name=f"talk_{MOMENT}_clip.mp4")
    await make_video(conn, identifier="talk_2")
    for name in (
        f"talk_2_{MOMENT}_clip.mp4",
        f"alk_{MOMENT}_clip.mp4",
        f"{MOMENT}_clip.mp4",
        f"talk_{MOMENT}.mp4",
        f"talk_{MOMENT}_clip.webm",
        "talk_%_clip.mp4",
        "_clip.mp4",
        "clip.mp4",
        "a%00_b_clip.mp4",
        "%2e%2e%2fmedia%2fclip.mp4",
        "_" * 5000 + "_clip.mp4",
    ):
        answer = await client.get(f"/moment_clips/{name}")
        assert answer.status_code == 404, name
        assert isinstance(answer.json()["detail"], str)
    for folder in ("/moment_clips", "/moment_clips/", "/static/moment_clips/x"):
        assert (await client.get(folder, follow_redirects=True)).status_code == 404
