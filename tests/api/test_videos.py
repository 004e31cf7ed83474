"""`GET /api/videos` and `GET /api/videos/{id}`."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.storage import audio_folder_key
from tests.conftest import Statements
from tests.factories import make_thumbnail, make_transcript, make_video


async def test_a_library_without_videos_is_an_empty_array(client: AsyncClient) -> None:
    assert (await client.get("/api/videos")).json() == []


def extract_audio(folder: Path, identifier: str) -> None:
    """Put a file where the audio of a video lies in the server's own folder."""
    path = folder / "media" / audio_folder_key(identifier) / "sound.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF")


async def test_a_video_has_the_fields_of_the_frontend(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    video = await make_video(conn, identifier="demo-talk", cloud_url="file:///x/demo-talk.mp4")
    extract_audio(tmp_path, "demo-talk")
    await make_thumbnail(conn, video_id=video.id)
    await make_transcript(conn, video_id=video.id)
    expected = {
        "id": "demo-talk",
        "filename": "demo-talk.mp4",
        "title": "Demo Talk",
        "thumbnail_url": "/static/thumbnails/demo-talk.jpg",
        "has_audio": True,
        "has_transcript": True,
    }
    assert (await client.get("/api/videos/demo-talk")).json() == expected
    assert (await client.get("/api/videos")).json() == [expected]


async def test_a_fresh_video_has_nothing_but_itself(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="fresh_one-x", cloud_url="gs://bucket/fresh_one-x.webm")
    assert (await client.get("/api/videos/fresh_one-x")).json() == {
        "id": "fresh_one-x",
        "filename": "fresh_one-x.webm",
        "title": "Fresh One X",
        "thumbnail_url": None,
        "has_audio": False,
        "has_transcript": False,
    }


async def test_audio_that_is_extracted_is_no_transcript(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_video(conn, identifier="My Talk (ü)")
    extract_audio(tmp_path, "My Talk (ü)")
    answer = (await client.get("/api/videos/My Talk (ü)")).json()
    assert (answer["has_audio"], answer["has_transcript"]) == (True, False)


async def test_an_audio_track_and_a_transcript_are_no_extracted_audio(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk", audio_codec="aac")
    await make_transcript(conn, video_id=video.id)
    answer = (await client.get("/api/videos/talk")).json()
    assert (answer["has_audio"], answer["has_transcript"]) == (False, True)


async def test_audio_may_lie_in_an_imported_library(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    (tmp_path / "library" / "audios").mkdir(parents=True)
    (tmp_path / "library" / "audios" / "My Talk.wav").write_bytes(b"RIFF")
    for identifier in ("My Talk", "My", "Talk"):
        await make_video(conn, identifier=identifier)
    videos = (await client.get("/api/videos")).json()
    assert {video["id"]: video["has_audio"] for video in videos} == {"My Talk": True, "My": False, "Talk": False}


async def test_a_stored_title_wins_over_the_derived_one(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", title="How to begin")
    assert (await client.get("/api/videos/talk")).json()["title"] == "How to begin"


async def test_an_identifier_may_hold_spaces_and_any_letters(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="Kévin – How To")
    assert (await client.get("/api/videos/Kévin – How To")).json()["id"] == "Kévin – How To"


async def test_an_unknown_video_is_404(client: AsyncClient) -> None:
    answer = await client.get("/api/videos/nobody")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Video not found"}


async def test_the_list_is_one_statement(client: AsyncClient, conn: Connection, statements: Statements) -> None:
    for _ in range(5):
        await make_video(conn)
    with statements:
        answer = await client.get("/api/videos")
    assert len(answer.json()) == 5
    assert statements == 1


async def test_following_the_links_shows_every_video_once(client: AsyncClient, conn: Connection) -> None:
    names = sorted(f"v {number} & co" for number in range(7))
    for name in names:
        await make_video(conn, identifier=name)
    answer = await client.get("/api/videos", params={"limit": 3})
    seen = [video["id"] for video in answer.json()]
    while "next" in answer.links:
        answer = await client.get(answer.links["next"]["url"])
        seen += [video["id"] for video in answer.json()]
    assert seen == names


async def test_the_last_page_names_no_next_one(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn)
    assert "Link" not in (await client.get("/api/videos", params={"limit": 2})).headers


async def test_a_large_library_is_listed_whole(client: AsyncClient, conn: Connection, statements: Statements) -> None:
    await conn.execute(
        "INSERT INTO videos (identifier, cloud_url) SELECT 'v' || n, 'file:///v.mp4' FROM generate_series(1, 5000) n"
    )
    with statements:
        videos = (await client.get("/api/videos")).json()
    assert len({video["id"] for video in videos}) == 5000
    assert statements == 1


async def test_videos_asked_for_at_once_are_kept_apart(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    for number in range(20):
        await make_video(conn, identifier=f"v{number}", title=f"Title {number}")
    with statements:
        answers = await asyncio.gather(*(client.get(f"/api/videos/v{number}") for number in range(25)))
    assert [answer.status_code for answer in answers] == [200] * 20 + [404] * 5
    assert [answer.json()["title"] for answer in answers[:20]] == [f"Title {number}" for number in range(20)]
    assert statements.count < 20


@pytest.mark.parametrize(
    ("facts", "has_audio"),
    [
        ({"duration_seconds": None}, None),  # imported without its file
        ({"video_codec": "h264"}, False),
        ({"duration_seconds": None, "cloud_url": "gs://bucket/talk.mp4"}, False),
        ({"audio_codec": "mp3"}, False),
        ({"duration_seconds": None, "file_size_kb": 7}, False),  # a file that could not be probed
        ({"duration_seconds": None, "file_size_kb": 7, "source_url": "https://cdn.example/a.mp4"}, None),
        ({"duration_seconds": None, "video_codec": "vp8", "audio_codec": "opus"}, False),
    ],
)
async def test_no_audio_is_offered_for_extraction_where_there_is_none_to_extract(
    client: AsyncClient, conn: Connection, facts: dict[str, Any], has_audio: bool | None
) -> None:
    await make_video(conn, identifier="talk", **facts)
    assert (await client.get("/api/videos/talk")).json()["has_audio"] is has_audio
