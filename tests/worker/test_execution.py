import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.core.errors import (
    DatabaseUnavailable,
    RunLost,
    StageFailed,
    StorageFull,
    StorageUnavailable,
    TransientFailure,
)
from app.core.thread_pool import SlotSemaphore
from app.models.runs import ClaimedRun, RunOutcome, RunStatus, StageRecord, StageStatus
from app.models.stages import STAGE_TABLE, RetryRule, RunType, Stage, TimeLimit
from app.pipeline.context import LoadedStage, RunContext
from app.repositories.runs import parse_stage_records
from app.repositories.stage_queue import StageQueueRepository
from app.worker.execution import StageExecution
from app.worker.timings import DEFAULT_TIMINGS
from tests.pipeline.contexts import make_context, take_over

_MINUTE = TimeLimit(60.0)


class Script:
    """What the stages of a run do: nothing, unless told otherwise. `done` are those that were begun, in order."""

    def __init__(self) -> None:
        self.done: list[Stage] = []
        self._codes = {stage: self._make(stage) for stage in Stage}

    def tell(
        self,
        stage: Stage,
        work: Callable[[RunContext], Awaitable[Mapping[str, Any]]] | None = None,
        skip: str | Callable[[RunContext], Awaitable[Any]] | None = None,
        **options: Any,
    ) -> None:
        self._codes[stage] = self._make(stage, work, skip, **options)

    def execution(self, context: RunContext) -> StageExecution:
        return StageExecution(context, self._codes[context.run.stage], DEFAULT_TIMINGS)

    def _make(
        self,
        stage: Stage,
        work: Callable[[RunContext], Awaitable[Mapping[str, Any]]] | None = None,
        skip: str | Callable[[RunContext], Awaitable[Any]] | None = None,
        time_limit: TimeLimit = _MINUTE,
        attempts: int = 1,
    ) -> LoadedStage:
        async def skip_reason(context: RunContext) -> str | None:
            return await skip(context) if callable(skip) else skip

        async def do(context: RunContext) -> Mapping[str, Any]:
            self.done.append(stage)
            return await work(context) if work else {}

        retry = RetryRule(max(attempts, 2), retries_failures=attempts > 1, first_pause=0.01)
        definition = replace(STAGE_TABLE[stage], time_limit=time_limit, retry=retry)
        return LoadedStage(definition, skip_reason, do)


class Failing:
    """Work that fails so many times, and then succeeds."""

    def __init__(self, error: BaseException, times: int = 1000) -> None:
        self._error = error
        self._left = times

    async def __call__(self, context: RunContext) -> Mapping[str, Any]:
        if self._left:
            self._left -= 1
            raise self._error
        return {}


@pytest.fixture
async def ready(own_database_url: str, tmp_path: Path) -> AsyncIterator[RunContext]:
    async with make_context(own_database_url, tmp_path) as context:
        yield context


async def run(script: Script, context: RunContext) -> RunOutcome:
    """Execute the claimed stage and those after it, as workers do. Raises `RunLost` where a stage was left."""
    while True:
        executed = await script.execution(context).execute()
        if executed.outcome is not None:
            return executed.outcome
        if executed.next_stage is None:
            raise RunLost
        next_run = executed.kept_claim or await _claim(context, executed.next_stage)
        context = RunContext(
            next_run, context.settings, context.database, context.storage, context.models, context.folder
        )


async def _claim(context: RunContext, stage: Stage) -> ClaimedRun:
    async with context.database.connect() as conn:
        run = await StageQueueRepository(conn).claim_stage(context.run.identifier, stage, context.run.owner, 60.0)
    assert run is not None
    return run


async def read_records(context: RunContext) -> dict[Stage, StageRecord]:
    async with context.database.connect() as conn:
        cursor = await conn.execute("SELECT stages FROM pipeline.runs WHERE run_id = %s", (context.run.id,))
        row = await cursor.fetchone()
    assert row
    return parse_stage_records(row[0])


async def test_the_stages_of_a_run_are_done_in_order_and_recorded(ready: RunContext) -> None:
    script = Script()
    assert await run(script, ready) == RunOutcome(RunStatus.COMPLETED)
    assert script.done == list(Stage)
    records = await read_records(ready)
    assert {record.status for record in records.values()} == {StageStatus.COMPLETED}
    assert all((record.completed_at or 0) >= (record.started_at or 0) > 0 for record in records.values())


async def test_a_run_of_one_button_does_its_own_stages(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, run_type=RunType.CLIPS) as ready:
        script = Script()
        await run(script, ready)
        assert script.done == [Stage.CLIPS, Stage.CLIP_UPLOAD]


async def test_a_stage_that_has_nothing_to_do_is_skipped_for_its_reason(ready: RunContext) -> None:
    script = Script()
    script.tell(Stage.DOWNLOAD, skip="Video already exists locally")
    await run(script, ready)
    assert script.done[0] is Stage.AUDIO
    record = (await read_records(ready))[Stage.DOWNLOAD]
    assert (record.status, record.skip_reason) == (StageStatus.SKIPPED, "Video already exists locally")
    assert (record.started_at, record.completed_at) == (None, None)


async def test_who_takes_a_run_over_does_not_repeat_what_is_done(ready: RunContext) -> None:
    script = Script()
    script.tell(Stage.GENERATION, Failing(RunLost()))
    with pytest.raises(RunLost):
        await run(script, ready)
    other, rest = await take_over(ready), Script()
    assert (await run(rest, other)).status is RunStatus.COMPLETED
    assert rest.done == list(Stage)[list(Stage).index(Stage.GENERATION) :]


async def test_what_a_stage_counted_and_came_to_is_kept(ready: RunContext) -> None:
    async def find(context: RunContext) -> Mapping[str, Any]:
        context.report_progress(percentage=40)
        context.report_progress(percentage=100)
        return {"moments": 3}

    async def cut(context: RunContext) -> Mapping[str, Any]:
        return {"clips": 2}

    script = Script()
    script.tell(Stage.GENERATION, find)
    script.tell(Stage.CLIPS, cut)
    assert await run(script, ready) == RunOutcome(RunStatus.COMPLETED, moments=3, clips=2)
    records = await read_records(ready)
    assert (records[Stage.GENERATION].progress, records[Stage.GENERATION].result) == (
        {"percentage": 100},
        {"moments": 3},
    )
    assert records[Stage.CLIPS].progress is None


async def test_a_stage_that_fails_ends_the_run_with_its_reason(ready: RunContext) -> None:
    script = Script()
    script.tell(Stage.TRANSCRIPT, Failing(StageFailed("Nobody speaks")))
    assert await run(script, ready) == RunOutcome(RunStatus.FAILED, Stage.TRANSCRIPT, "Nobody speaks")
    assert script.done[-1] is Stage.TRANSCRIPT
    records = await read_records(ready)
    assert (records[Stage.TRANSCRIPT].status, records[Stage.TRANSCRIPT].error) == (StageStatus.FAILED, "Nobody speaks")
    assert Stage.GENERATION not in records


async def test_a_run_of_which_a_part_failed_is_partial(ready: RunContext) -> None:
    async def refine(context: RunContext) -> Mapping[str, Any]:
        return {"total": 5, "failed": 2}

    script = Script()
    script.tell(Stage.REFINEMENT, refine)
    expected = RunOutcome(RunStatus.PARTIAL, Stage.REFINEMENT, "Refinement: 2 of 5 failed")
    assert await run(script, ready) == expected


async def test_a_run_with_fewer_moments_than_asked_for_is_completed_and_says_why(ready: RunContext) -> None:
    async def generate(context: RunContext) -> Mapping[str, Any]:
        return {"moments": 2, "reason": "Found 2 of 3", "too_few": True}

    script = Script()
    script.tell(Stage.GENERATION, generate)
    assert await run(script, ready) == RunOutcome(RunStatus.COMPLETED, None, "Found 2 of 3", 2)


def let_time_pass(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the event loop's clock go on by so much at once."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + seconds)


async def test_a_stage_that_waits_for_its_turn_says_so_and_has_its_time_from_then_on(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = SlotSemaphore()

    async def use(context: RunContext) -> Mapping[str, Any]:
        async with turns.hold_slot():
            await asyncio.sleep(0)
        return {}

    script = Script()
    script.tell(Stage.TRANSCRIPT, use, time_limit=TimeLimit(60.0))
    async with make_context(own_database_url, tmp_path, run_type=RunType.TRANSCRIPT) as ready:
        async with turns.hold_slot():
            running = asyncio.create_task(run(script, ready))
            while (shown := await _read_stage(ready, Stage.TRANSCRIPT)) != (StageStatus.WAITING, None):
                assert not running.done(), shown
                await asyncio.sleep(0.01)
            let_time_pass(monkeypatch, 100.0)
            freed_at = time.time()
        assert await running == RunOutcome(RunStatus.COMPLETED)
        status, started_at = await _read_stage(ready, Stage.TRANSCRIPT)
        assert status is StageStatus.COMPLETED
        assert started_at is not None
        assert started_at >= freed_at


async def test_work_that_has_had_its_turn_is_still_limited(ready: RunContext) -> None:
    turns = SlotSemaphore()

    async def use(context: RunContext) -> Mapping[str, Any]:
        for _ in range(2):
            async with turns.hold_slot():
                await asyncio.sleep(0.2)
        return {}

    script = Script()
    script.tell(Stage.TRANSCRIPT, use, time_limit=TimeLimit(0.3))
    async with turns.hold_slot():
        running = asyncio.create_task(run(script, ready))
        await asyncio.sleep(0.4)
    outcome = await running
    assert outcome.error_message == "Transcript timed out after 0.3 seconds"


async def _read_stage(context: RunContext, stage: Stage) -> tuple[StageStatus | None, float | None]:
    async with context.database.connect() as conn:
        cursor = await conn.execute("SELECT stages -> %s FROM pipeline.runs WHERE run_id = %s", (stage, context.run.id))
        row = await cursor.fetchone()
    record = (row and row[0]) or {}
    return StageStatus(record["status"]) if record else None, record.get("started_at")


@pytest.mark.parametrize("error", [TransientFailure("Busy"), StorageUnavailable("Busy")])
async def test_what_may_pass_is_tried_again(ready: RunContext, error: Exception) -> None:
    script = Script()
    script.tell(Stage.AUDIO, Failing(error, 2), attempts=3)
    assert (await run(script, ready)).status is RunStatus.COMPLETED
    assert script.done.count(Stage.AUDIO) == 3


async def test_whether_there_is_something_to_do_is_asked_again_where_storage_was_away(ready: RunContext) -> None:
    async def nothing(context: RunContext) -> None:
        await failing(context)

    failing = Failing(StorageUnavailable("Busy"), 2)
    script = Script()
    script.tell(Stage.AUDIO, skip=nothing, attempts=3)
    assert (await run(script, ready)).status is RunStatus.COMPLETED
    assert script.done.count(Stage.AUDIO) == 1


async def test_what_does_not_pass_fails_after_the_last_attempt(ready: RunContext) -> None:
    script = Script()
    script.tell(Stage.AUDIO, Failing(TransientFailure("Busy")), attempts=2)
    assert await run(script, ready) == RunOutcome(RunStatus.FAILED, Stage.AUDIO, "Busy")
    assert script.done.count(Stage.AUDIO) == 2


async def test_what_cannot_pass_is_not_tried_again(ready: RunContext) -> None:
    script = Script()
    script.tell(Stage.AUDIO, Failing(StorageFull("There is no room")), attempts=3)
    assert await run(script, ready) == RunOutcome(RunStatus.FAILED, Stage.AUDIO, "There is no room")
    assert script.done.count(Stage.AUDIO) == 1


async def test_a_stage_has_a_limit_of_time(ready: RunContext) -> None:
    async def hang(context: RunContext) -> Mapping[str, Any]:
        await asyncio.sleep(3600)
        return {}

    script = Script()
    script.tell(Stage.AUDIO_UPLOAD, hang, time_limit=TimeLimit(0.05))
    outcome = await run(script, ready)
    assert outcome == RunOutcome(RunStatus.FAILED, Stage.AUDIO_UPLOAD, "Audio upload timed out after 0.05 seconds")


@pytest.mark.parametrize(("duration", "expected"), [(1000.0, "0.15"), (None, "0.05")])
async def test_a_stage_has_more_time_for_a_longer_video(
    own_database_url: str, tmp_path: Path, duration: float | None, expected: str
) -> None:
    script = Script()
    script.tell(Stage.AUDIO, lambda context: asyncio.sleep(3600, {}), time_limit=TimeLimit(0.05, 0.0001))
    async with make_context(own_database_url, tmp_path, video={"duration_seconds": duration}) as ready:
        outcome = await run(script, ready)
    assert outcome.error_message == f"Audio timed out after {expected} seconds"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("postgresql://user:secret@host"),
        psycopg.ProgrammingError("SELECT secret"),
        TimeoutError("secret"),
        ExceptionGroup("secret", [KeyError("secret")]),
    ],
)
async def test_what_nobody_foresaw_is_reported_without_its_text(
    ready: RunContext, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    script.tell(Stage.AUDIO, Failing(error))
    outcome = await run(script, ready)
    assert (outcome.status, outcome.error_stage) == (RunStatus.FAILED, Stage.AUDIO)
    assert "secret" not in str(outcome.error_message)
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True]


async def test_a_database_that_is_away_for_a_moment_fails_no_stage(ready: RunContext) -> None:
    script = Script()
    script.tell(Stage.AUDIO, Failing(psycopg.errors.AdminShutdown("restarting"), 1))
    script.tell(Stage.CLIPS, Failing(DatabaseUnavailable("The database is busy"), 1))
    assert (await run(script, ready)).status is RunStatus.COMPLETED


async def test_of_several_errors_at_once_a_lost_run_decides(ready: RunContext) -> None:
    script = Script()
    script.tell(Stage.AUDIO, Failing(ExceptionGroup("both", [StageFailed("No"), RunLost()])))
    with pytest.raises(RunLost):
        await run(script, ready)
