"""What the repository of pipeline runs promises, and how many statements each promise costs."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from app.database import Connection
from app.repositories import RunRepository
from app.repositories.runs import new_run_identifier
from tests.conftest import Statements
from tests.factories import make_generation_config, make_run, make_video

_NOON = datetime(2026, 2, 8, 12)


async def test_create_returns_the_stored_row(conn: Connection, statements: Statements) -> None:
    video, config, runs = await make_video(conn), await make_generation_config(conn), RunRepository(conn)
    values: dict[str, Any] = {
        "identifier": "pipeline:talk:1767610697193",
        "video_id": video.id,
        "generation_config_id": config.id,
        "pipeline_type": "moments_only",
        "status": "failed",
        "started_at": _NOON,
        "completed_at": _NOON + timedelta(seconds=90.5),
        "duration_seconds": 90.5,
        "total_moments_generated": 4,
        "total_clips_created": 0,
        "error_stage": "clips",
        "error_message": "ffmpeg ended with 1",
    }
    with statements:
        run = await runs.create(**values)
    assert statements == 1
    assert {name: getattr(run, name) for name in values} == values
    assert await runs.get(run.id) == run


async def test_an_identifier_is_taken_once(conn: Connection) -> None:
    run = await make_run(conn)
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await make_run(conn, identifier=run.identifier)
    assert raised.value.diag.constraint_name == "pipeline_history_identifier_key"


def test_a_run_identifier_names_the_video_and_the_millisecond() -> None:
    assert new_run_identifier("motivation", 1767610697193) == "pipeline:motivation:1767610697193"


def test_a_video_identifier_that_just_fits_is_not_cut() -> None:
    assert new_run_identifier("v" * 77, 1767610697193) == f"pipeline:{'v' * 77}:1767610697193"


@pytest.mark.parametrize("character", ["v", "ü", "𝄞"])
@pytest.mark.parametrize("length", [77, 78, 255])
async def test_a_run_of_a_video_with_a_long_identifier_can_be_stored(
    conn: Connection, character: str, length: int
) -> None:
    video = await make_video(conn, identifier=character * length)
    run = await make_run(conn, video_id=video.id, identifier=new_run_identifier(video.identifier, 1767610697193))
    assert len(run.identifier) == 100
    assert run.identifier.startswith(f"pipeline:{character * 60}")
    assert run.identifier.endswith(":1767610697193")


def test_videos_that_begin_alike_have_different_run_identifiers() -> None:
    made = {new_run_identifier("v" * length + end, 1767610697193) for length in (78, 100, 254) for end in "abc"}
    assert len(made) == 9


async def test_get_by_identifier_finds_the_run(conn: Connection, statements: Statements) -> None:
    run = await make_run(conn)
    with statements:
        found = await RunRepository(conn).get_by_identifier(run.identifier)
    assert statements == 1
    assert found == run


async def test_a_run_that_is_not_there_is_none(conn: Connection, statements: Statements) -> None:
    runs = RunRepository(conn)
    with statements:
        assert await runs.get(0) is None
        assert await runs.get_by_identifier("nobody") is None
        assert await runs.get_latest(0) is None
        assert await runs.update(0, status="failed") is None
        assert await runs.delete(0) is False
    assert statements == 5


async def test_the_latest_run_is_the_one_that_began_last(conn: Connection, statements: Statements) -> None:
    video = await make_video(conn)
    latest = await make_run(conn, video_id=video.id, started_at=_NOON + timedelta(hours=1))
    await make_run(conn, video_id=video.id, started_at=_NOON)
    await make_run(conn, started_at=_NOON + timedelta(hours=2))
    with statements:
        assert await RunRepository(conn).get_latest(video.id) == latest
    assert statements == 1


async def test_of_two_runs_that_began_together_the_latest_is_the_one_added_last(conn: Connection) -> None:
    video, runs = await make_video(conn), RunRepository(conn)
    first, second = await make_run(conn, video_id=video.id), await make_run(conn, video_id=video.id)
    await runs.update(first.id, status="completed")  # the first is now the last in the table and in the index
    assert await runs.get_latest(video.id) == second


async def test_pages_cover_the_runs_of_a_video_once_newest_first(conn: Connection, statements: Statements) -> None:
    video, runs = await make_video(conn), RunRepository(conn)
    hours = [3, 1, 2, 1, 1]
    made = [await make_run(conn, video_id=video.id, started_at=_NOON + timedelta(hours=hour)) for hour in hours]
    await make_run(conn)
    with statements:
        seen = await runs.list_by_video(video.id, 2)
        for _ in range(3):
            seen += await runs.list_by_video(video.id, 2, before=(seen[-1].started_at, seen[-1].id))
    assert statements == 4
    assert seen == [made[0], made[2], made[4], made[3], made[1]]


async def test_runs_are_listed_by_status(conn: Connection, statements: Statements) -> None:
    waiting = [await make_run(conn, status="running") for _ in range(3)]
    await make_run(conn, status="completed")
    runs = RunRepository(conn)
    with statements:
        first = await runs.list_by_status("running", 2)
        second = await runs.list_by_status("running", 2, after=first[-1].id)
    assert statements == 2
    assert (first, second) == (waiting[:2], waiting[2:])


async def test_update_changes_only_what_is_given(conn: Connection, statements: Statements) -> None:
    run, runs = await make_run(conn, error_stage="audio"), RunRepository(conn)
    with statements:
        changed = await runs.update(run.id, status="completed", completed_at=_NOON, error_stage=None)
    assert statements == 1
    assert changed is not None
    assert (changed.status, changed.completed_at, changed.error_stage) == ("completed", _NOON, None)
    assert (changed.identifier, changed.started_at) == (run.identifier, run.started_at)
    assert await runs.get(run.id) == changed
    assert await runs.update(run.id) == changed


async def test_delete_removes_one_run(conn: Connection, statements: Statements) -> None:
    run, other, runs = await make_run(conn), await make_run(conn), RunRepository(conn)
    with statements:
        assert await runs.delete(run.id) is True
    assert statements == 1
    assert await runs.list_by_status("running", 10) == [other]


async def test_copy_inserts_many_in_one_statement(conn: Connection, statements: Statements) -> None:
    video, runs = await make_video(conn), RunRepository(conn)
    with statements:
        copied = await runs.copy(
            {
                "identifier": f"pipeline:talk:{number}",
                "video_id": video.id,
                "pipeline_type": "full",
                "status": "completed",
                "started_at": _NOON,
                "total_clips_created": number,
            }
            for number in range(20)
        )
        assert await runs.count() == 20
    assert statements == 2
    assert copied == 20
    run = await runs.get_by_identifier("pipeline:talk:7")
    assert run is not None
    assert (run.total_clips_created, run.started_at, run.completed_at) == (7, _NOON, None)
