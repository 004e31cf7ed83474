import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from psycopg.types.json import Jsonb

from app.core.config import Settings
from app.core.errors import RunLost
from app.database import Connection, open_async_connection
from app.models.runs import ClaimedRun, RunOutcome, RunRequest, RunStatus, StageRecord, StageStatus
from app.models.stages import RunType, Stage, WorkKind
from app.repositories import RunRepository, VideoRepository
from app.repositories.stage_queue import ClaimedStage, EnqueueResult, StageQueueRepository, WaitingStage
from app.repositories.stages import ClaimedRunRepository

_NOW = datetime(2026, 11, 22, 12)
_REQUEST = RunRequest(generation_prompt="The best jokes", max_moments=4)


async def add_video(conn: Connection, video: str = "talk") -> None:
    await VideoRepository(conn).create(identifier=video, cloud_url="file:///talk.mp4")


async def accept(
    conn: Connection, number: int = 1, run_type: RunType = RunType.FULL, subject: str = "", video: str = "talk"
) -> EnqueueResult:
    accepted = await StageQueueRepository(conn).enqueue_run(
        video, f"pipeline:{video}:{number}", run_type, _NOW, _REQUEST, subject=subject
    )
    assert accepted
    return accepted


async def claim(
    conn: Connection,
    number: int = 1,
    owner: str = "one",
    stalled_after: float = 30,
    stage: Stage = Stage.DOWNLOAD,
) -> ClaimedRun | None:
    return await StageQueueRepository(conn).claim_stage(f"pipeline:talk:{number}", stage, owner, stalled_after)


async def claimed(conn: Connection, owner: str = "one", stage: Stage = Stage.DOWNLOAD) -> ClaimedRun:
    run = await claim(conn, owner=owner, stage=stage)
    assert run
    return run


async def run_status(conn: Connection, number: int = 1) -> str:
    run = await RunRepository(conn).get_by_identifier(f"pipeline:talk:{number}")
    assert run
    return run.status


async def until_it_waits(watcher: Connection, waiting: Connection) -> None:
    """Wait until a connection waits for a lock."""
    async with asyncio.timeout(60):
        while True:
            cursor = await watcher.execute("SELECT cardinality(pg_blocking_pids(%s))", (waiting.info.backend_pid,))
            if await cursor.fetchone() != (0,):
                return
            await asyncio.sleep(0.02)


async def test_an_accepted_run_is_running_and_holds_what_was_asked_for(conn: Connection) -> None:
    await add_video(conn)
    assert (await accept(conn)).run_id
    assert await run_status(conn) == "running"
    run = await claimed(conn)
    assert (run.video, run.type, run.request, run.attempt, run.owner) == ("talk", RunType.FULL, _REQUEST, 1, "one")
    assert datetime.fromtimestamp(run.started_at, UTC).replace(tzinfo=None) == _NOW


async def test_a_run_over_a_video_that_is_not_there_is_not_accepted(conn: Connection) -> None:
    assert await StageQueueRepository(conn).enqueue_run("none", "pipeline:none:1", RunType.FULL, _NOW, _REQUEST) is None


@pytest.mark.parametrize(
    ("first", "second", "is_in_the_way"),
    [
        ((RunType.FULL, ""), (RunType.FULL, ""), True),
        ((RunType.FULL, ""), (RunType.AUDIO, ""), True),
        ((RunType.CLIPS, ""), (RunType.FULL, ""), True),
        ((RunType.CLIPS, ""), (RunType.CLIPS, ""), True),
        ((RunType.CLIPS, ""), (RunType.MOMENTS, ""), False),
        ((RunType.REFINEMENT, "a"), (RunType.REFINEMENT, "a"), True),
        ((RunType.REFINEMENT, "a"), (RunType.REFINEMENT, "b"), False),
    ],
)
async def test_which_runs_are_in_each_others_way(
    conn: Connection, first: tuple[RunType, str], second: tuple[RunType, str], is_in_the_way: bool
) -> None:
    await add_video(conn)
    await accept(conn, 1, *first)
    accepted = await accept(conn, 2, *second)
    assert (accepted.run_id is None) is is_in_the_way
    assert accepted.conflicting_type == (first[0] if is_in_the_way else None)


async def test_a_run_that_has_ended_is_excludes_no_other(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    await ClaimedRunRepository(conn).finish_run(
        await claimed(conn), RunOutcome(RunStatus.COMPLETED, moments=3, clips=2)
    )
    assert (await accept(conn, 2)).run_id
    ended = await RunRepository(conn).get_by_identifier("pipeline:talk:1")
    assert ended
    assert (ended.status, ended.total_moments_generated, ended.total_clips_created) == ("completed", 3, 2)
    assert ended.completed_at


async def test_of_ten_who_start_at_once_one_succeeds(own_database_url: str) -> None:
    settings = Settings(database_url=own_database_url)
    async with open_async_connection(settings) as conn:
        await add_video(conn)

    async def start(number: int) -> bool:
        async with open_async_connection(settings) as conn:
            return (await accept(conn, number)).run_id is not None

    started = await asyncio.gather(*(start(number) for number in range(10)))
    assert started.count(True) == 1


async def test_a_run_is_claimed_once(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    await claimed(conn)
    assert await claim(conn, owner="two") is None


async def test_a_run_whose_owner_is_not_seen_any_more_is_claimed_again(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    lost = await claimed(conn)
    await conn.execute("UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - interval '31 seconds'")
    found = await claimed(conn, "two")
    assert (found.owner, found.attempt) == ("two", 2)
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).lock_claim(lost)
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).start_next_attempt(lost, "Busy")
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).save_stage_record(lost, StageRecord(StageStatus.COMPLETED))
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).advance_run(
            lost, StageRecord(StageStatus.COMPLETED), Stage.AUDIO, keep_claim=False
        )
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).finish_run(lost, RunOutcome(RunStatus.FAILED))
    assert await run_status(conn) == "running"


async def test_a_run_that_is_given_back_waits_and_the_attempt_does_not_count(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    queue = StageQueueRepository(conn)
    await ClaimedRunRepository(conn).release_stage(await claimed(conn))
    assert await queue.take_unnotified_stages(30, 30) == [WaitingStage("pipeline:talk:1", Stage.DOWNLOAD)]
    assert (await claimed(conn, "two")).attempt == 1


async def test_a_run_that_is_given_back_and_was_to_be_cancelled_has_ended(conn: Connection) -> None:
    await add_video(conn)
    run_id = (await accept(conn)).run_id
    assert run_id
    queue = StageQueueRepository(conn)
    run = await claimed(conn)
    assert await queue.list_identifiers_of_running_runs() == {"pipeline:talk:1"}
    await queue.request_cancel(run_id, 30)
    await ClaimedRunRepository(conn).release_stage(run)
    assert await run_status(conn) == "cancelled"
    assert await queue.list_identifiers_of_running_runs() == set()


async def test_what_stages_came_to_is_there_for_whoever_takes_the_run_over(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    run = await claimed(conn)
    record = StageRecord(StageStatus.COMPLETED, 10.0, 12.5, progress={"total": 2}, result={"bytes": 7})
    skipped = StageRecord(StageStatus.SKIPPED, skip_reason="Video already exists locally")
    assert await ClaimedRunRepository(conn).advance_run(run, skipped, Stage.AUDIO, keep_claim=True)
    run = replace(run, stage=Stage.AUDIO)
    await ClaimedRunRepository(conn).save_stage_record(run, record)
    await ClaimedRunRepository(conn).release_stage(run)
    other = await claimed(conn, "two", Stage.AUDIO)
    assert list(other.stages.items()) == [(Stage.DOWNLOAD, skipped), (Stage.AUDIO, record)]


async def test_a_stage_that_is_done_leaves_the_run_at_the_next_one(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    queue, done = StageQueueRepository(conn), StageRecord(StageStatus.COMPLETED, 10.0, 12.5)
    retried = await ClaimedRunRepository(conn).start_next_attempt(await claimed(conn), "Busy")
    assert (retried.attempt, await ClaimedRunRepository(conn).get_error_of_last_attempt(retried)) == (2, "Busy")
    assert await ClaimedRunRepository(conn).advance_run(retried, done, Stage.AUDIO, keep_claim=False)
    assert await claim(conn) is None
    assert await queue.list_waiting_stages([WorkKind.AUDIO], 30, 10) == [WaitingStage("pipeline:talk:1", Stage.AUDIO)]
    assert await queue.list_waiting_stages([WorkKind.DOWNLOAD], 30, 10) == []
    run = await claimed(conn, "two", Stage.AUDIO)
    assert (run.attempt, await ClaimedRunRepository(conn).get_error_of_last_attempt(run)) == (1, None)
    assert run.stages == {Stage.DOWNLOAD: done, Stage.AUDIO: StageRecord(StageStatus.WAITING)}


async def test_stages_at_their_limit_are_left_out_of_those_that_wait(conn: Connection) -> None:
    for number in (1, 2):
        await add_video(conn, f"talk-{number}")
        await accept(conn, number, video=f"talk-{number}")
    queue, first = StageQueueRepository(conn), WaitingStage("pipeline:talk-1:1", Stage.DOWNLOAD)
    second = WaitingStage("pipeline:talk-2:2", Stage.DOWNLOAD)
    assert await queue.list_waiting_stages(list(WorkKind), 30, 10, {Stage.DOWNLOAD: 1}) == [first, second]
    assert await queue.claim_stage(first.identifier, Stage.DOWNLOAD, "one", 30, 1)
    assert await queue.list_waiting_stages(list(WorkKind), 30, 10, {Stage.DOWNLOAD: 1}) == []
    assert await queue.list_waiting_stages(list(WorkKind), 30, 10, {Stage.DOWNLOAD: 2, Stage.AUDIO: 1}) == [second]
    assert await queue.list_waiting_stages(list(WorkKind), 30, 10) == [second]


async def test_a_run_that_is_to_be_cancelled_does_not_get_to_its_next_stage(conn: Connection) -> None:
    await add_video(conn)
    run_id = (await accept(conn)).run_id
    assert run_id
    run, queue = await claimed(conn), StageQueueRepository(conn)
    await queue.request_cancel(run_id, 30)
    assert not await ClaimedRunRepository(conn).advance_run(
        run, StageRecord(StageStatus.COMPLETED), Stage.AUDIO, keep_claim=False
    )
    await ClaimedRunRepository(conn).lock_claim(run)


async def test_a_heartbeat_reaches_the_runs_that_are_named(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    run, queue = await claimed(conn), StageQueueRepository(conn)
    await conn.execute("UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - interval '31 seconds'")
    await queue.store_heartbeat("one", [run.id + 1])
    await queue.store_heartbeat("two", [run.id])
    assert await queue.list_waiting_stages(list(WorkKind), 30, 10) == [WaitingStage("pipeline:talk:1", Stage.DOWNLOAD)]
    await queue.store_heartbeat("one", [run.id])
    assert await queue.list_waiting_stages(list(WorkKind), 30, 10) == []


async def test_of_the_runs_that_wait_at_a_stage_the_next_is_the_one_without_a_message_for_the_longest(
    conn: Connection,
) -> None:
    for number in (1, 2, 3):
        await add_video(conn, f"talk-{number}")
        await accept(conn, number, video=f"talk-{number}")
    await conn.execute("UPDATE pipeline.runs SET notified_at = notified_at - make_interval(secs => 1 + run_id % 3)")
    queue = StageQueueRepository(conn)
    picked = [await queue.take_next_waiting_stage(Stage.DOWNLOAD, 30) for _ in range(3)]
    names = [each.identifier for each in picked if each]
    assert len(set(names)) == 3
    assert await queue.take_next_waiting_stage(Stage.AUDIO, 30) is None


async def test_a_stage_whose_owner_is_stalled_is_the_next_one_as_if_it_waited(conn: Connection) -> None:
    for video in ("talk", "other"):
        await add_video(conn, video)
        await accept(conn, video=video)
    run, queue = await claimed(conn), StageQueueRepository(conn)
    await conn.execute("UPDATE pipeline.runs SET notified_at = notified_at - interval '1 minute' WHERE owner = 'one'")
    await conn.execute("UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - interval '20 seconds'")
    assert await queue.take_next_waiting_stage(Stage.DOWNLOAD, 30) != WaitingStage(run.identifier, Stage.DOWNLOAD)
    await conn.execute("UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - interval '20 seconds'")
    assert await queue.take_next_waiting_stage(Stage.DOWNLOAD, 30) == WaitingStage(run.identifier, Stage.DOWNLOAD)


async def test_a_waiting_run_that_is_cancelled_has_ended(conn: Connection) -> None:
    await add_video(conn)
    accepted = await accept(conn)
    assert accepted.run_id
    assert await StageQueueRepository(conn).request_cancel(accepted.run_id, 30)
    assert await run_status(conn) == "cancelled"
    assert await claim(conn) is None


async def test_a_run_that_ends_while_a_worker_reaches_for_it_is_not_claimed(own_database_url: str) -> None:
    settings = Settings(database_url=own_database_url)
    async with (
        open_async_connection(settings) as conn,
        open_async_connection(settings) as worker,
        open_async_connection(settings) as watcher,
    ):
        await add_video(conn)
        run_id = (await accept(conn)).run_id
        assert run_id
        async with conn.transaction():
            await StageQueueRepository(conn).request_cancel(run_id, 30)
            claiming = asyncio.create_task(claim(worker))
            await until_it_waits(watcher, worker)
        assert await claiming is None
        cursor = await watcher.execute("SELECT owner, heartbeat_at, attempt FROM pipeline.runs")
        assert await cursor.fetchone() == (None, None, 0)
        assert await run_status(watcher) == "cancelled"


async def test_a_run_that_has_ended_has_no_owner(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    run = await claimed(conn)
    await ClaimedRunRepository(conn).finish_run(run, RunOutcome(RunStatus.COMPLETED))
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).lock_claim(run)
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).finish_run(run, RunOutcome(RunStatus.FAILED))
    assert await run_status(conn) == "completed"


async def test_a_worker_sees_that_a_run_it_works_on_is_to_be_cancelled(conn: Connection) -> None:
    await add_video(conn)
    run_id = (await accept(conn)).run_id
    assert run_id
    run = await claimed(conn)
    queue = StageQueueRepository(conn)
    assert await queue.list_claimed_stages("one") == [ClaimedStage(run.id, Stage.DOWNLOAD, cancel_requested=False)]
    assert await queue.request_cancel(run_id, 30) is False
    assert await queue.list_claimed_stages("one") == [ClaimedStage(run.id, Stage.DOWNLOAD, cancel_requested=True)]
    assert await run_status(conn) == "running"


async def test_a_cancelled_run_whose_owner_is_not_seen_any_more_has_ended(conn: Connection) -> None:
    await add_video(conn)
    run_id = (await accept(conn)).run_id
    assert run_id
    run = await claimed(conn)
    await conn.execute("UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - interval '31 seconds'")
    queue = StageQueueRepository(conn)
    assert await queue.request_cancel(run_id, 30)
    assert await run_status(conn) == "cancelled"
    assert await queue.list_claimed_stages("one") == []
    with pytest.raises(RunLost):
        await ClaimedRunRepository(conn).finish_run(run, RunOutcome(RunStatus.COMPLETED))
    assert await run_status(conn) == "cancelled"


async def test_workers_are_notified_of_a_waiting_run_once_in_a_while(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    queue = StageQueueRepository(conn)
    assert await queue.take_unnotified_stages(30, 30) == []  # its message was sent on acceptance
    await conn.execute("UPDATE pipeline.runs SET notified_at = notified_at - interval '31 seconds'")
    waiting = await queue.take_unnotified_stages(30, 30)
    assert waiting == [WaitingStage("pipeline:talk:1", Stage.DOWNLOAD)]
    assert await queue.take_unnotified_stages(30, 30) == []
    await queue.mark_stages_unnotified(waiting)  # the message could not be sent
    assert await queue.take_unnotified_stages(30, 30) == waiting


async def test_a_running_run_without_its_request_is_ended(conn: Connection) -> None:
    await add_video(conn)
    video = await VideoRepository(conn).get_by_identifier("talk")
    assert video
    await RunRepository(conn).create(
        identifier="old", video_id=video.id, pipeline_type="full", status="running", started_at=_NOW
    )
    ended = await StageQueueRepository(conn).fail_orphaned_runs()
    assert [(run.identifier, run.video) for run in ended] == [("old", "talk")]
    assert (await accept(conn)).run_id


@pytest.mark.parametrize("status", [StageStatus.WAITING, StageStatus.PROCESSING])
async def test_what_a_stage_has_noted_stays_until_it_is_done(conn: Connection, status: StageStatus) -> None:
    await add_video(conn)
    await accept(conn)
    run = await claimed(conn)
    await ClaimedRunRepository(conn).save_stage_record(run, StageRecord(StageStatus.PROCESSING, 1.0))
    await ClaimedRunRepository(conn).merge_stage_result(run, Stage.DOWNLOAD, {"ids": {"1": 2}})
    await ClaimedRunRepository(conn).save_stage_record(run, StageRecord(status))
    assert await ClaimedRunRepository(conn).get_stage_result(run, Stage.DOWNLOAD) == {"ids": {"1": 2}}
    await ClaimedRunRepository(conn).save_stage_record(run, StageRecord(StageStatus.COMPLETED, result={"total": 1}))
    assert await ClaimedRunRepository(conn).get_stage_result(run, Stage.DOWNLOAD) == {"total": 1}


async def test_what_another_version_has_stored_of_stages_is_left_out(conn: Connection) -> None:
    await add_video(conn)
    await accept(conn)
    stored = {
        "download": {"status": "completed", "started_at": 1.0, "size": 7},
        "audio": {"status": "paused"},
        "audio_upload": 1,
        "applause": {"status": "completed"},
    }
    await conn.execute("UPDATE pipeline.runs SET stages = %s", (Jsonb(stored),))
    assert (await claimed(conn)).stages == {Stage.DOWNLOAD: StageRecord(StageStatus.COMPLETED, 1.0)}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pipeline_history SET pipeline_type = 'applause_only'",
        "UPDATE pipeline.runs SET request = '[1]'",
    ],
)
async def test_a_run_that_cannot_be_read_ends_when_it_was_claimed_too_often(conn: Connection, change: str) -> None:
    await add_video(conn)
    await accept(conn)
    await conn.execute(change)
    for _ in range(3):
        with pytest.raises((AttributeError, ValueError)):
            await claim(conn, stalled_after=-1)
        assert await run_status(conn) == "running"
    assert await claim(conn, stalled_after=-1) is None
    ended = await RunRepository(conn).get_by_identifier("pipeline:talk:1")
    assert ended
    reason = "The worker died 3 times in stage 'download'"
    assert (ended.status, ended.error_stage, ended.error_message) == ("failed", "download", reason)
