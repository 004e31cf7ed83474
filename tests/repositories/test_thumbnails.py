"""What the repository of thumbnails promises, and how many statements each promise costs."""

import psycopg
import pytest

from app.database import Connection
from app.repositories import ThumbnailRepository
from tests.conftest import Statements
from tests.factories import make_clip, make_thumbnail, make_video


async def test_create_returns_the_stored_row(conn: Connection, statements: Statements) -> None:
    video, clip, thumbnails = await make_video(conn), await make_clip(conn), ThumbnailRepository(conn)
    with statements:
        of_video = await thumbnails.create(video_id=video.id, cloud_url="gs://a.jpg", file_size_kb=12)
        of_clip = await thumbnails.create(clip_id=clip.id, cloud_url="gs://b.jpg")
    assert statements == 2
    assert (of_video.video_id, of_video.clip_id) == (video.id, None)
    assert (of_video.cloud_url, of_video.file_size_kb) == ("gs://a.jpg", 12)
    assert (of_clip.video_id, of_clip.clip_id) == (None, clip.id)
    assert (of_clip.cloud_url, of_clip.file_size_kb) == ("gs://b.jpg", None)
    assert await thumbnails.get(of_video.id) == of_video


@pytest.mark.parametrize("owners", [0, 2])
async def test_a_thumbnail_has_one_owner(conn: Connection, owners: int) -> None:
    clip = await make_clip(conn)
    video_id, clip_id = (clip.video_id, clip.id) if owners else (None, None)
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        await make_thumbnail(conn, video_id=video_id, clip_id=clip_id)
    assert raised.value.diag.constraint_name == "thumbnails_owner_check"


async def test_a_video_has_one_thumbnail(conn: Connection) -> None:
    thumbnail = await make_thumbnail(conn)
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await make_thumbnail(conn, video_id=thumbnail.video_id)
    assert raised.value.diag.constraint_name == "idx_thumbnails_video_id"


async def test_a_clip_has_one_thumbnail(conn: Connection) -> None:
    clip = await make_clip(conn)
    await make_thumbnail(conn, clip_id=clip.id)
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await make_thumbnail(conn, clip_id=clip.id)
    assert raised.value.diag.constraint_name == "idx_thumbnails_clip_id"


async def test_a_thumbnail_is_found_by_its_owner(conn: Connection, statements: Statements) -> None:
    video, clip, thumbnails = await make_video(conn), await make_clip(conn), ThumbnailRepository(conn)
    of_video, of_clip = await make_thumbnail(conn, video_id=video.id), await make_thumbnail(conn, clip_id=clip.id)
    with statements:
        assert await thumbnails.get_by_video(video.id) == of_video
        assert await thumbnails.get_by_clip(clip.id) == of_clip
    assert statements == 2


async def test_a_thumbnail_that_is_not_there_is_none(conn: Connection, statements: Statements) -> None:
    thumbnails = ThumbnailRepository(conn)
    with statements:
        assert await thumbnails.get(0) is None
        assert await thumbnails.get_by_video(0) is None
        assert await thumbnails.get_by_clip(0) is None
        assert await thumbnails.update(0, cloud_url="file:///x") is None
        assert await thumbnails.delete(0) is False
    assert statements == 5


async def test_update_changes_only_what_is_given(conn: Connection, statements: Statements) -> None:
    thumbnail, thumbnails = await make_thumbnail(conn, file_size_kb=9), ThumbnailRepository(conn)
    with statements:
        changed = await thumbnails.update(thumbnail.id, cloud_url="gs://new.jpg")
    assert statements == 1
    assert changed is not None
    assert (changed.cloud_url, changed.file_size_kb) == ("gs://new.jpg", 9)
    assert await thumbnails.get(thumbnail.id) == changed
    assert await thumbnails.update(thumbnail.id) == changed


async def test_delete_removes_one_thumbnail(conn: Connection, statements: Statements) -> None:
    thumbnail, other = await make_thumbnail(conn), await make_thumbnail(conn)
    thumbnails = ThumbnailRepository(conn)
    with statements:
        assert await thumbnails.delete(thumbnail.id) is True
    assert statements == 1
    assert await thumbnails.get(thumbnail.id) is None
    assert await thumbnails.get(other.id) == other
