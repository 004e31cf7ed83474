"""Statements that skip locked rows take no more rows than they are asked for, whatever their plan."""

import pytest

from app.database import Connection
from app.models.runs import RunOutcome, RunRequest, RunStatus
from app.models.stages import Stage
from app.repositories.ended_runs import CallbackRepository
from app.repositories.stage_queue import StageQueueRepository
from app.repositories.stages import ClaimedRunRepository
from tests.factories import make_video
from tests.runs import begin_run, enqueue_run

_VIDEOS = ("one", "two", "three")


@pytest.fixture(autouse=True)
async def rescanning_plans(conn: Connection) -> None:
    """Make PostgreSQL run a subquery again for each row of the other table, as it may by its statistics."""
    for kind in ("hashjoin", "mergejoin", "hashagg", "material", "sort", "memoize"):
        await conn.execute(f"SET LOCAL enable_{kind} = off")


@pytest.fixture(autouse=True)
async def videos(conn: Connection) -> None:
    for identifier in _VIDEOS:
        await make_video(conn, identifier=identifier)


async def test_each_waiting_stage_is_taken_once(conn: Connection) -> None:
    runs = {await enqueue_run(conn, video) for video in _VIDEOS}
    await conn.execute("UPDATE pipeline.runs SET notified_at = notified_at - interval '1 s'")
    queue = StageQueueRepository(conn)
    taken = [await queue.take_next_waiting_stage(Stage.DOWNLOAD, 30) for _ in _VIDEOS]
    assert {stage.identifier for stage in taken if stage} == runs


async def test_each_due_callback_is_claimed_once(conn: Connection) -> None:
    for video in _VIDEOS:
        run = await begin_run(conn, video, request=RunRequest(callback_url="http://host/"))
        await ClaimedRunRepository(conn).finish_run(run, RunOutcome(RunStatus.COMPLETED))
    callbacks = CallbackRepository(conn)
    claimed = [await callbacks.claim_due_callbacks(1, 60) for _ in _VIDEOS]
    assert [len(each) for each in claimed] == [1, 1, 1]
