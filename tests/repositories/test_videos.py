"""What the repository of videos promises, and how many statements each promise costs."""

import psycopg
import pytest

from app.database import Connection
from app.repositories import VideoRepository
from tests.conftest import Statements
from tests.factories import make_video


async def test_create_returns_the_stored_row(conn: Connection, statements: Statements) -> None:
    with statements:
        video = await VideoRepository(conn).create(identifier="talk", cloud_url="file:///talk.mp4", frame_rate=29.97)
    assert statements == 1
    assert (video.identifier, video.cloud_url, video.frame_rate) == ("talk", "file:///talk.mp4", 29.97)
    assert video == await VideoRepository(conn).get(video.id)


async def test_an_identifier_is_taken_once(conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await make_video(conn, identifier="talk")
    assert raised.value.diag.constraint_name == "videos_identifier_key"


async def test_get_by_identifier_finds_the_video(conn: Connection, statements: Statements) -> None:
    video = await make_video(conn)
    with statements:
        found = await VideoRepository(conn).get_by_identifier(video.identifier)
    assert statements == 1
    assert found == video


async def test_a_video_that_is_not_there_is_none(conn: Connection) -> None:
    videos = VideoRepository(conn)
    assert await videos.get(0) is None
    assert await videos.get_by_identifier("nobody") is None
    assert await videos.lock_video("nobody") is None
    assert await videos.update(0, title="x") is None
    assert await videos.delete(0) is False


async def test_update_changes_only_what_is_given(conn: Connection, statements: Statements) -> None:
    video = await make_video(conn, title="Old", source_url="https://a/b.mp4")
    with statements:
        changed = await VideoRepository(conn).update(video.id, title=None)
    assert statements == 1
    assert changed is not None
    assert (changed.title, changed.source_url) == (None, "https://a/b.mp4")
