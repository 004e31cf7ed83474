"""What the repository of pipeline runs promises, and how many statements each promise costs."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from app.database import Connection
from app.repositories import RunRepository
from app.repositories.runs import make_run_identifier
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
    assert make_run_identifier("motivation", 1767610697193) == "pipeline:motivation:1767610697193"


def test_a_video_identifier_that_just_fits_is_not_cut() -> None:
    assert make_run_identifier("v" * 77, 1767610697193) == f"pipeline:{'v' * 77}:1767610697193"


@pytest.mark.parametrize("character", ["v", "ü", "𝄞"])
@pytest.mark.parametrize("length", [77, 78, 255])
async def test_a_run_of_a_video_with_a_long_identifier_can_be_stored(
    conn: Connection, character: str, length: int
) -> None:
    video = await make_video(conn, identifier=character * length)
    run = await make_run(conn, video_id=video.id, identifier=make_run_identifier(video.identifier, 1767610697193))
    assert len(run.identifier) == 100
    assert run.identifier.startswith(f"pipeline:{character * 60}")
    assert run.identifier.endswith(":1767610697193")


def test_videos_that_begin_alike_have_different_run_identifiers() -> None:
    made = {make_run_identifier("v" * length + end, 1767610697193) for length in (78, 100, 254) for end in "abc"}
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
        assert await runs.update(0, status="failed") is None
    assert statements == 3


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
