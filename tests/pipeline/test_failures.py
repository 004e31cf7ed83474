"""Failures of a stage: their descriptions, and results that are saved after an outage."""

import asyncio
import logging
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from app.core.config import Settings
from app.core.errors import StageFailed, VideoDeleted
from app.database import open_async_connection
from app.models.runs import StageRecord, StageStatus
from app.models.stages import Stage
from app.pipeline.failures import describe_stage_failure, mask_secrets_in_record
from app.repositories import MomentRepository, VideoRepository
from tests.factories import make_moment
from tests.pipeline.contexts import make_context

HOSTILE = "answers 404: \x1b]0;title\x07\r\n2026-11-28 INFO forged\x9b31m\u202e\0"
SHOWN = r"answers 404: \x1b]0;title\x07\r\n2026-11-28 INFO forged\x9b31m\u202e\x00"


def test_the_words_of_another_server_are_stored_on_one_line() -> None:
    assert describe_stage_failure(StageFailed(HOSTILE), Stage.GENERATION) == SHOWN


@pytest.mark.parametrize("field", ["error", "skip_reason"])
def test_the_record_of_a_stage_is_one_line(field: str) -> None:
    record = mask_secrets_in_record(StageRecord(StageStatus.FAILED, **{field: HOSTILE}))  # type: ignore[arg-type]
    assert getattr(record, field) == SHOWN


async def _accept_connections(server: str, database: str, accept: bool) -> None:
    """Have a database refuse who connects to it, as one does that is started again."""
    name = str(conninfo_to_dict(database)["dbname"])
    async with open_async_connection(Settings(database_url=server)) as conn:
        await conn.execute(
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(name), sql.Literal(accept))
        )


async def test_what_was_made_is_saved_once_a_database_that_was_away_is_back(
    own_database_url: str, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_context(own_database_url, tmp_path) as context:
        video_id = context.run.video_id
        await _accept_connections(database_url, own_database_url, False)
        with caplog.at_level(logging.WARNING, "app.pipeline.failures"):
            saving = asyncio.create_task(context.save_result(lambda conn: make_moment(conn, video_id=video_id)))
            while not caplog.records:
                assert not saving.done()
                await asyncio.sleep(0.01)
        await _accept_connections(database_url, own_database_url, True)
        await saving
        async with context.database.connect() as conn:
            assert len(await MomentRepository(conn).list_by_video(video_id)) == 1


async def test_what_the_database_refuses_is_not_tried_again(own_database_url: str, tmp_path: Path) -> None:
    tries = 0

    async def write(conn: object) -> None:
        nonlocal tries
        tries += 1
        raise StageFailed("no")

    async with make_context(own_database_url, tmp_path) as context:
        with pytest.raises(StageFailed):
            await context.save_result(write)
    assert tries == 1


async def test_one_who_saves_and_one_who_deletes_the_video_do_not_wait_for_each_other(
    own_database_url: str, tmp_path: Path
) -> None:
    async def add() -> None:
        async with context.claim_transaction() as conn:
            await make_moment(conn, video_id=context.run.video_id)

    async with make_context(own_database_url, tmp_path) as context, context.database.connect() as conn:
        async with conn.transaction():
            await VideoRepository(conn).lock_video_for_deletion(context.run.video)
            adding = asyncio.create_task(add())
            while not await _somebody_waits(own_database_url):
                assert not adding.done()
            await VideoRepository(conn).delete(context.run.video_id)
        with pytest.raises(VideoDeleted, match=r"^The video was deleted$"):
            await adding


async def _somebody_waits(url: str) -> bool:
    async with open_async_connection(Settings(database_url=url)) as conn:
        cursor = await conn.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return await cursor.fetchone() is not None
