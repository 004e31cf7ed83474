"""`GET /api/pipeline/{id}/status` while a run waits, is worked on, and when it has ended."""

import time
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from psycopg.types.json import Jsonb
from redis.asyncio import Redis

from app.database import Connection
from app.models.runs import ClaimedRun, RunRequest, RunStatus, StageRecord, StageStatus
from app.models.stages import RunType, Stage
from app.repositories.stages import ClaimedRunRepository
from app.services.live_runs import LiveStatusStore, make_live_status_fields
from tests.api.conftest import open_client, without_redis
from tests.conftest import Statements
from tests.factories import make_generation_config, make_moment, make_video
from tests.runs import begin_run, claim_run, enqueue_run, fail_run, finish_run, save_stage

STAGES = [stage.value for stage in Stage]
PENDING = {
    "status": "pending",
    "started_at": None,
    "completed_at": None,
    "duration_seconds": None,
    "skipped": False,
    "skip_reason": None,
    "reason": None,
    "error": None,
    "progress": None,
}


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def get_status(client: AsyncClient) -> dict[str, Any]:
    answer = await client.get("/api/pipeline/talk/status")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def show(redis: Redis, run: ClaimedRun, stage: Stage, **progress: int) -> None:
    """Tell how far a stage is, as the run's worker does."""
    records = {stage: StageRecord(StageStatus.PROCESSING, time.time())}
    fields = make_live_status_fields(run, records, stage, progress)
    await LiveStatusStore(redis).write_active_status(run.identifier, fields, "talk")


async def test_a_run_that_waits_is_pending_with_all_its_stages(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    await make_video(conn, identifier="talk")
    identifier = await enqueue_run(conn, request=RunRequest(generation_model="minimax"))
    with statements:
        answer = await get_status(client)
    assert statements == 1
    started_at = answer.pop("started_at")
    assert abs(started_at - time.time()) < 60
    assert answer == {
        "request_id": identifier,
        "video_id": "talk",
        "type": "full",
        "moment_id": None,
        "status": "pending",
        "model": "minimax",
        "generation_model": "minimax",
        "refinement_model": "qwen3_vl_fp8",
        "answered_by": {},
        "completed_at": None,
        "total_duration_seconds": None,
        "current_stage": None,
        "stages": dict.fromkeys(STAGES, PENDING),
        "error_stage": None,
        "error_message": None,
        "coarse_moments": [],
        "refined_moments": [],
    }
    assert list(answer["stages"]) == STAGES


async def test_a_run_that_a_worker_has_tells_of_each_stage(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    await save_stage(conn, run, Stage.DOWNLOAD, StageStatus.SKIPPED, skip_reason="Video already exists locally")
    await save_stage(conn, run, Stage.AUDIO, StageStatus.COMPLETED, started_at=100.5, completed_at=102.75)
    result = {"service": "whisper-tiny.en", "reason": "Another transcript was there first and is kept"}
    await save_stage(conn, run, Stage.TRANSCRIPT, StageStatus.COMPLETED, result=result)
    await save_stage(conn, run, Stage.GENERATION, StageStatus.PROCESSING, started_at=200.0)
    with statements:
        answer = await get_status(client)
    assert statements == 1
    assert (answer["status"], answer["current_stage"]) == ("processing", "generation")
    assert answer["answered_by"] == {"transcript": "whisper-tiny.en"}
    stages = answer["stages"]
    assert list(stages) == STAGES
    assert stages["download"] == PENDING | {
        "status": "skipped",
        "skipped": True,
        "skip_reason": "Video already exists locally",
    }
    assert stages["audio"] == PENDING | {
        "status": "completed",
        "started_at": 100.5,
        "completed_at": 102.75,
        "duration_seconds": 2.25,
    }
    assert stages["transcript"]["reason"] == result["reason"]
    assert stages["generation"] == PENDING | {"status": "processing", "started_at": 200.0}
    assert stages["clips"] == PENDING


async def test_progress_is_what_the_worker_tells_of_the_stage_it_does(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    done = {"bytes_downloaded": 9, "total_bytes": 9, "percentage": 100}
    await save_stage(conn, run, Stage.DOWNLOAD, StageStatus.COMPLETED, progress=done)
    await save_stage(conn, run, Stage.REFINEMENT, StageStatus.PROCESSING)
    assert (await get_status(client))["stages"]["refinement"]["progress"] is None
    now = {"total": 4, "processed": 2, "successful": 1, "failed": 1}
    await show(redis, run, Stage.REFINEMENT, **now)
    stages = (await get_status(client))["stages"]
    assert (stages["download"]["progress"], stages["refinement"]["progress"]) == (done, now)


async def test_progress_of_another_run_is_not_reported(client: AsyncClient, conn: Connection, redis: Redis) -> None:
    await make_video(conn, identifier="talk")
    earlier = await begin_run(conn)
    await finish_run(conn, earlier)
    run = await begin_run(conn)
    await save_stage(conn, run, Stage.CLIPS, StageStatus.PROCESSING)
    await show(redis, earlier, Stage.CLIPS, total=4, processed=2)
    assert (await get_status(client))["stages"]["clips"]["progress"] is None


async def test_without_redis_the_status_is_reported_without_progress(app: FastAPI, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    await save_stage(conn, await begin_run(conn), Stage.CLIPS, StageStatus.PROCESSING)
    async with open_client(without_redis(app)) as client:
        stage = (await get_status(client))["stages"]["clips"]
    assert (stage["status"], stage["progress"]) == ("processing", None)


async def test_a_run_that_failed_says_in_which_stage_and_why(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    await save_stage(conn, run, Stage.AUDIO, StageStatus.COMPLETED)
    await fail_run(conn, run, Stage.TRANSCRIPT, "Nothing answers at http://localhost:6106")
    answer = await get_status(client)
    assert (answer["status"], answer["current_stage"], answer["error_stage"], answer["error_message"]) == (
        "failed",
        "transcript",
        "transcript",
        "Nothing answers at http://localhost:6106",
    )
    assert answer["total_duration_seconds"] is None
    reports = {name: (stage["status"], stage["error"]) for name, stage in answer["stages"].items()}
    assert reports == dict.fromkeys(STAGES, ("pending", None)) | {
        "audio": ("completed", None),
        "transcript": ("failed", "Nothing answers at http://localhost:6106"),
    }


async def test_a_run_that_nobody_ended_properly_has_no_stage_that_goes_on(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    for status, stage, reports in (
        (RunStatus.FAILED, "audio", ("failed", "Given up after three tries", None)),
        (RunStatus.CANCELLED, None, ("skipped", None, "Cancelled")),
    ):
        run = await begin_run(conn)
        await save_stage(conn, run, Stage.AUDIO, StageStatus.PROCESSING)
        message = "Given up after three tries" if stage else None
        await finish_run(conn, run, status, error_stage=stage, error_message=message)
        audio = (await get_status(client))["stages"]["audio"]
        assert (audio["status"], audio["error"], audio["skip_reason"]) == reports


@pytest.mark.parametrize(
    "stored",
    [
        {"status": StageStatus.CANCELLED},
        {"status": StageStatus.FAILED, "error": "Cancelled"},  # as earlier versions recorded it
    ],
)
async def test_a_cancelled_stage_is_shown_as_skipped_with_that_reason(
    client: AsyncClient, conn: Connection, stored: dict[str, Any]
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    await save_stage(conn, run, Stage.TRANSCRIPT, started_at=100.0, completed_at=103.0, **stored)
    await finish_run(conn, run, RunStatus.CANCELLED)
    stages = (await get_status(client))["stages"]
    assert stages["transcript"] == PENDING | {"status": "skipped", "skipped": True, "skip_reason": "Cancelled"}
    assert stages["generation"] == PENDING


@pytest.mark.parametrize(
    ("stage", "result", "reason"),
    [
        (Stage.GENERATION, {"moments": 0, "reason": "Nothing is said in the video"}, "Nothing is said in the video"),
        (Stage.GENERATION, {"moments": 0}, "No moments were found"),
        (
            Stage.REFINEMENT,
            {"total": 2, "successful": 2, "unchanged": 2, "reason": "Times were exact already"},
            "Times were exact already",
        ),
        (
            Stage.REFINEMENT,
            {"total": 2, "successful": 1, "unchanged": 1, "kept": 1, "reason": "Nothing is said around the moment"},
            "Nothing is said around the moment",
        ),
    ],
)
async def test_a_stage_that_made_nothing_is_shown_as_skipped_with_its_reason(
    client: AsyncClient, conn: Connection, redis: Redis, stage: Stage, result: dict[str, Any], reason: str
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    await save_stage(conn, run, stage, StageStatus.COMPLETED, result=result)
    await finish_run(conn, run)
    history = (await client.get("/api/pipeline/talk/history")).json()["runs"]
    shown = (await get_status(client))["stages"][stage]
    assert [run["stages"][stage] for run in history] == [shown]
    assert shown == PENDING | {
        "status": "skipped",
        "skipped": True,
        "skip_reason": reason,
        "reason": result.get("reason"),
    }
    fields = make_live_status_fields(
        run, {stage: StageRecord(StageStatus.COMPLETED, 1.0, 2.0, result=result)}, stage, None
    )
    assert [
        fields[f"{stage}_{name}"] for name in ("status", "started_at", "completed_at", "skipped", "skip_reason")
    ] == [*("skipped", "", "", "true", reason)]


async def test_a_stage_that_made_a_part_or_failed_is_shown_as_it_is(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    result = {"total": 2, "successful": 2, "unchanged": 1}
    await save_stage(conn, run, Stage.REFINEMENT, StageStatus.COMPLETED, result=result)
    await save_stage(conn, run, Stage.GENERATION, StageStatus.FAILED, error="No", result={"moments": 0})
    stages = (await get_status(client))["stages"]
    assert [stages[stage]["status"] for stage in ("generation", "refinement")] == ["failed", "completed"]


async def test_a_skipped_stage_has_no_times_whatever_is_stored(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    times = {"started_at": 100.0, "completed_at": 100.0}
    await save_stage(conn, run, Stage.AUDIO, StageStatus.SKIPPED, skip_reason="Audio file already exists", **times)
    stage = (await get_status(client))["stages"]["audio"]
    assert (stage["started_at"], stage["completed_at"], stage["duration_seconds"]) == (None, None, None)


async def test_a_run_that_is_done_tells_what_it_took_and_what_the_video_has_now(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    for stage in Stage:
        await save_stage(conn, run, stage, StageStatus.COMPLETED)
    moment = await make_moment(conn, video_id=video.id, title="One", start_time=1.0, end_time=35.5)
    config = await make_generation_config(conn, model="minimax")
    await ClaimedRunRepository(conn).set_generation_config(run, config.id)
    await finish_run(conn, run, moments=1, clips=1)
    answer = await get_status(client)
    assert (answer["status"], answer["current_stage"], answer["model"]) == ("completed", "refinement", "qwen3_vl_fp8")
    assert answer["total_duration_seconds"] == pytest.approx(answer["completed_at"] - answer["started_at"], abs=0.01)
    assert answer["coarse_moments"] == [{"id": moment.identifier, "title": "One", "start_time": 1.0, "end_time": 35.5}]


async def test_a_run_of_which_a_part_failed_is_completed_and_says_which(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    counted = {"total": 5, "processed": 5, "failed": 1}
    await save_stage(conn, run, Stage.CLIPS, StageStatus.COMPLETED, progress=counted)
    await finish_run(conn, run, RunStatus.PARTIAL, error_stage="clips", error_message="1 of 5 failed")
    answer = await get_status(client)
    assert (answer["status"], answer["error_stage"], answer["error_message"]) == ("completed", "clips", "1 of 5 failed")
    assert (answer["stages"]["clips"]["status"], answer["stages"]["clips"]["progress"]) == ("completed", counted)


@pytest.mark.parametrize(
    ("answers", "config_model", "model"),
    [
        ({Stage.GENERATION: "local (tiny-2)", Stage.REFINEMENT: "chatty-7b"}, None, "local (tiny-2)"),
        ({Stage.GENERATION: "chatty-7b", Stage.REFINEMENT: "local (tiny-2)"}, None, "minimax"),
        ({Stage.REFINEMENT: "local (tiny-2)"}, None, "local (tiny-2)"),
        ({}, "local (tiny-2)", "local (tiny-2)"),
        ({}, "minimax", "minimax"),
        ({}, None, "minimax"),
    ],
)
async def test_the_model_is_the_local_engine_where_that_has_answered(
    client: AsyncClient, conn: Connection, answers: dict[Stage, str], config_model: str | None, model: str
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn, request=RunRequest(generation_model="minimax"))
    for stage, name in answers.items():
        await save_stage(conn, run, stage, StageStatus.COMPLETED, result={"model": name})
    if config_model is not None:
        config = await make_generation_config(conn, model=config_model)
        await ClaimedRunRepository(conn).set_generation_config(run, config.id)
    status = await get_status(client)
    assert (status["model"], status["generation_model"], status["refinement_model"]) == (
        *(model, "minimax", "qwen3_vl_fp8"),
    )


async def test_the_status_is_that_of_full_runs_only(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    job = await begin_run(conn, run_type=RunType.AUDIO)
    assert (await get_status(client))["status"] == "never_run"
    await finish_run(conn, job)
    identifier = await enqueue_run(conn)
    await finish_run(conn, await claim_run(conn, identifier))
    await enqueue_run(conn, run_type=RunType.CLIPS)
    assert (await get_status(client))["request_id"] == identifier


async def test_the_answer_to_the_poll_is_small(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn, request=RunRequest(generation_prompt="x" * 100_000))
    await ClaimedRunRepository(conn).store_unusable_answer(run, "y" * 100_000)
    assert len((await client.get("/api/pipeline/talk/status")).content) < 2500


async def test_what_another_version_has_stored_is_reported_as_far_as_it_is_known(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    await save_stage(conn, run, Stage.DOWNLOAD, StageStatus.COMPLETED)
    newer = {"audio": {"status": "paused"}, "applause": {"status": "completed"}}
    await conn.execute("UPDATE pipeline.runs SET stages = stages || %s", (Jsonb(newer),))
    await conn.execute("UPDATE pipeline.runs SET stages = jsonb_set(stages, '{download,size}', '7')")
    stages = (await get_status(client))["stages"]
    assert [stages[stage]["status"] for stage in STAGES] == ["completed"] + ["pending"] * (len(Stage) - 1)
    await finish_run(conn, run)
    await conn.execute("UPDATE pipeline_history SET pipeline_type = 'applause_only'")
    runs = (await client.get("/api/pipeline/talk/history")).json()["runs"]
    assert [(run["type"], run["stages"]) for run in runs] == [("applause_only", {})]
