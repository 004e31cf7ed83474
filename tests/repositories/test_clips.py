"""What the repository of clips promises, and how many statements each promise costs."""

from typing import Any

import psycopg
import pytest

from app.database import Connection
from app.repositories import ClipRepository, MomentRepository
from tests.conftest import Statements
from tests.factories import make_clip, make_moment


async def test_create_returns_the_stored_row(conn: Connection, statements: Statements) -> None:
    moment, clips = await make_moment(conn), ClipRepository(conn)
    values: dict[str, Any] = {
        "moment_id": moment.id,
        "video_id": moment.video_id,
        "cloud_url": "gs://bucket/clips/a.mp4",
        "start_time": 8.5,
        "end_time": 21.0,
        "padding_left": 1.5,
        "padding_right": 1.0,
        "file_size_kb": 5_000_000_000,
        "format": "mp4",
        "video_codec": "h264",
        "audio_codec": "aac",
        "resolution": "1920x1080",
    }
    with statements:
        clip = await clips.create(**values)
    assert statements == 1
    assert {name: getattr(clip, name) for name in values} == values
    assert await clips.get(clip.id) == clip


async def test_a_clip_has_no_padding_unless_it_says_so(conn: Connection) -> None:
    created, moment, clips = await make_clip(conn), await make_moment(conn), ClipRepository(conn)
    await clips.insert_many([_new(moment.id, moment.video_id)])
    copied = await clips.get_by_moment(moment.id)
    assert copied is not None
    assert (created.padding_left, created.padding_right) == (0.0, 0.0)
    assert (copied.padding_left, copied.padding_right) == (0.0, 0.0)


async def test_a_moment_has_one_clip(conn: Connection) -> None:
    moment = await make_moment(conn)
    await make_clip(conn, moment)
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await make_clip(conn, moment)
    assert raised.value.diag.constraint_name == "clips_moment_id_key"


async def test_a_clip_is_found_by_its_moment_and_by_its_video(conn: Connection, statements: Statements) -> None:
    clip, clips = await make_clip(conn), ClipRepository(conn)
    second = await make_clip(conn, await make_moment(conn, video_id=clip.video_id))
    await make_clip(conn)
    with statements:
        assert await clips.get_by_moment(clip.moment_id) == clip
        assert await clips.list_by_video(clip.video_id) == [clip, second]
    assert statements == 2


async def test_a_clip_that_is_not_there_is_none(conn: Connection, statements: Statements) -> None:
    clips = ClipRepository(conn)
    with statements:
        assert await clips.get(0) is None
        assert await clips.get_by_moment(0) is None
        assert await clips.list_by_video(0) == []
        assert await clips.update(0, cloud_url="file:///x") is None
        assert await clips.delete(0) is False
    assert statements == 5


async def test_update_changes_only_what_is_given(conn: Connection, statements: Statements) -> None:
    clip, clips = await make_clip(conn, format="mp4", file_size_kb=7), ClipRepository(conn)
    with statements:
        changed = await clips.update(clip.id, cloud_url="gs://new", file_size_kb=None)
    assert statements == 1
    assert changed is not None
    assert (changed.cloud_url, changed.file_size_kb, changed.format) == ("gs://new", None, "mp4")
    assert await clips.get(clip.id) == changed
    assert await clips.update(clip.id) == changed


async def test_a_clip_is_deleted_alone_or_with_its_moment(conn: Connection, statements: Statements) -> None:
    alone, with_moment, kept = await make_clip(conn), await make_clip(conn), await make_clip(conn)
    clips = ClipRepository(conn)
    with statements:
        assert await clips.delete(alone.id) is True
    assert statements == 1
    assert await MomentRepository(conn).get(alone.moment_id) is not None
    await MomentRepository(conn).delete(with_moment.moment_id)
    assert [await clips.get(clip.id) for clip in (alone, with_moment, kept)] == [None, None, kept]


async def test_copy_inserts_many_in_one_statement(conn: Connection, statements: Statements) -> None:
    moments = [await make_moment(conn) for _ in range(20)]
    clips = ClipRepository(conn)
    with statements:
        copied = await clips.insert_many(_new(moment.id, moment.video_id, padding_left=0.5) for moment in moments)
    assert statements == 1
    assert copied == 20
    last = await clips.get_by_moment(moments[-1].id)
    assert last is not None
    assert (last.padding_left, last.padding_right, last.format) == (0.5, 0.0, None)


def _new(moment_id: int, video_id: int, **values: Any) -> Any:
    return {
        "moment_id": moment_id,
        "video_id": video_id,
        "cloud_url": "file:///clip.mp4",
        "start_time": 1.0,
        "end_time": 2.0,
        **values,
    }
