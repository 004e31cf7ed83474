"""Runs for tests, moved on as a worker moves them."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count
from typing import Any

from psycopg.types.json import Jsonb

from app.database import Connection
from app.models.runs import ClaimedRun, RunOutcome, RunRequest, RunStatus, StageRecord, StageStatus
from app.models.stages import RunType, Stage
from app.repositories.stage_queue import StageQueueRepository
from app.repositories.stages import ClaimedRunRepository

_numbers = count(1)


async def enqueue_run(
    conn: Connection,
    video: str = "talk",
    run_type: RunType = RunType.FULL,
    *,
    subject: str = "",
    request: RunRequest = RunRequest(),  # noqa: B008  it is frozen
    started_at: datetime | None = None,
    stages: Mapping[Stage, StageRecord] | None = None,
) -> str:
    """Accept a run over a video that is there, and return its identifier."""
    identifier = f"pipeline:{video}:{next(_numbers)}"
    started_at = started_at or datetime.now(UTC).replace(tzinfo=None)
    accepted = await StageQueueRepository(conn).enqueue_run(
        video, identifier, run_type, started_at, request, subject, stages
    )
    assert accepted
    assert accepted.run_id, f"{accepted.conflicting_type} is in the way"
    return identifier


async def claim_run(conn: Connection, identifier: str) -> ClaimedRun:
    cursor = await conn.execute(
        "SELECT stage FROM pipeline.runs JOIN pipeline_history ON id = run_id WHERE identifier = %s", (identifier,)
    )
    row = await cursor.fetchone()
    assert row
    run = await StageQueueRepository(conn).claim_stage(identifier, Stage(row[0]), "worker", 30.0)
    assert run
    return run


async def begin_run(conn: Connection, *args: Any, **options: Any) -> ClaimedRun:
    """Accept a run and have a worker take it."""
    return await claim_run(conn, await enqueue_run(conn, *args, **options))


async def save_stage(conn: Connection, run: ClaimedRun, stage: Stage, status: StageStatus, **values: Any) -> None:
    """Save what a stage has come to; one that has begun did so now, and one that is done took 2.5 seconds."""
    if status in (StageStatus.PROCESSING, StageStatus.COMPLETED, StageStatus.FAILED):
        values.setdefault("started_at", time.time())
    if status in (StageStatus.COMPLETED, StageStatus.FAILED):
        values.setdefault("completed_at", values["started_at"] + 2.5)
    await set_record(conn, run, stage, StageRecord(status, **values))


async def set_record(conn: Connection, run: ClaimedRun, stage: Stage, record: StageRecord) -> None:
    """Write the record of any stage, whichever stage the run is at."""
    await conn.execute(
        "UPDATE pipeline.runs SET stages = stages || jsonb_build_object(%s::text, %s) WHERE run_id = %s",
        (stage.value, Jsonb(asdict(record)), run.id),
    )


async def finish_run(
    conn: Connection, run: ClaimedRun, status: RunStatus = RunStatus.COMPLETED, **outcome: Any
) -> None:
    await ClaimedRunRepository(conn).finish_run(run, RunOutcome(status, **outcome))


async def fail_run(conn: Connection, run: ClaimedRun, stage: Stage, message: str) -> None:
    await save_stage(conn, run, stage, StageStatus.FAILED, error=message)
    await finish_run(conn, run, RunStatus.FAILED, error_stage=stage.value, error_message=message)
