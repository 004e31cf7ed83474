import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.models.runs import ClaimedRun, RunRequest, StageRecord, StageStatus
from app.models.stages import RunType, Stage
from app.services.live_runs import (
    LiveStatusStore,
    make_live_status_fields,
    parse_stage_progress,
    read_live_stage_progress,
)

_RUN = "pipeline:talk:1"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushdb()
        yield redis
        await redis.flushdb()


def make_run(run_type: RunType = RunType.FULL) -> ClaimedRun:
    return ClaimedRun(
        1, _RUN, 1, "talk", run_type, "", RunRequest(generation_model="minimax"), {}, Stage.CLIPS, 1, "one", 10.5
    )


async def test_the_live_status_is_the_videos_and_kept_for_a_day_when_the_run_has_ended(redis: Redis) -> None:
    live = LiveStatusStore(redis)
    assert await live.read_status(_RUN, "talk") == {}
    await live.write_active_status(_RUN, {"request_id": _RUN, "status": "processing"}, "talk")
    assert await redis.hget("pipeline:talk:active", "status") == "processing"
    assert (await live.read_status(_RUN, "talk"))["status"] == "processing"
    await live.write_ended_status(_RUN, "talk", {"request_id": _RUN, "status": "completed"})
    assert not await redis.exists("pipeline:talk:active")
    assert (await live.read_status(_RUN, "talk"))["status"] == "completed"
    assert 86_000 < await redis.ttl(f"pipeline:run:{_RUN}") <= 86_400


async def test_the_end_of_a_run_leaves_the_status_of_the_next_one(redis: Redis) -> None:
    live = LiveStatusStore(redis)
    await live.write_active_status("pipeline:talk:2", {"request_id": "pipeline:talk:2"}, "talk")
    await live.write_ended_status(_RUN, "talk", {"request_id": _RUN})
    assert await redis.hget("pipeline:talk:active", "request_id") == "pipeline:talk:2"


async def test_a_run_that_ends_without_a_worker_leaves_no_live_status(redis: Redis) -> None:
    live = LiveStatusStore(redis)
    await live.write_active_status(_RUN, {"request_id": _RUN}, "talk", is_waiting=True)
    assert 86_000 < await redis.ttl("pipeline:talk:active") <= 86_400
    await live.delete_active_status("pipeline:talk:2", "talk")
    assert await redis.exists("pipeline:talk:active")
    await live.delete_active_status(_RUN, "talk")
    assert not await redis.exists("pipeline:talk:active")


async def test_runs_continue_without_redis(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with Redis.from_url("redis://127.0.0.1:1/0", decode_responses=True) as unreachable:
        live = LiveStatusStore(unreachable)
        await live.write_active_status(_RUN, {"request_id": _RUN}, "talk")
        assert await live.read_status(_RUN, "talk") == {}
        await live.delete_active_status(_RUN, "talk")
        await live.write_ended_status(_RUN, "talk", {"request_id": _RUN})
    assert len(caplog.records) == 1


async def test_a_reader_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Redis.from_url("redis://127.0.0.1:1/0", decode_responses=True) as unreachable:
        assert await read_live_stage_progress(unreachable, _RUN, "talk", Stage.CLIPS) is None
    assert caplog.records == []


async def test_a_longer_time_limit_waits_for_a_slow_redis(redis: Redis) -> None:
    await redis.client_pause(60_000, all=False)
    try:
        await LiveStatusStore(redis, answer_seconds=0.1).write_active_status(_RUN, {"request_id": "none"}, "talk")
        write = LiveStatusStore(redis, answer_seconds=60.0).write_active_status(_RUN, {"request_id": _RUN}, "talk")
        showing = asyncio.create_task(write)
        await asyncio.wait({showing}, timeout=0.2)
    finally:
        await redis.client_unpause()
    await showing
    assert await LiveStatusStore(redis).read_status(_RUN, "talk") == {"request_id": _RUN}


async def test_a_hanging_redis_counts_as_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Redis(port=silent.getsockname()[1]) as redis, asyncio.timeout(30):
            assert await LiveStatusStore(redis).read_status(_RUN, "talk") == {}


async def test_a_command_that_is_refused_again_and_again_is_one_line_in_the_log(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await redis.set("pipeline:talk:active", "text")
    live = LiveStatusStore(redis)
    for _ in range(3):
        await live.write_active_status(_RUN, {"status": "processing"}, "talk")
        assert await live.read_status("pipeline:other:1", "other") == {}
    (line,) = (record.getMessage() for record in caplog.records if record.name == "app.services.live_runs")
    assert line.startswith("Redis is unavailable, runs continue without it: WRONGTYPE ")


def test_every_field_of_the_live_status_is_text() -> None:
    records = {
        Stage.DOWNLOAD: StageRecord(StageStatus.SKIPPED, 11.0, 11.0, skip_reason="Video already exists locally"),
        Stage.AUDIO: StageRecord(StageStatus.COMPLETED, 11.5, 12.5),
        Stage.CLIPS: StageRecord(StageStatus.PROCESSING, 13.0),
    }
    fields = make_live_status_fields(make_run(), records, Stage.CLIPS, {"total": 4, "processed": 3, "failed": 1})
    assert all(isinstance(text, str) for text in fields.values())
    assert (fields["request_id"], fields["status"], fields["generation_model"]) == (_RUN, "processing", "minimax")
    assert (fields["started_at"], fields["completed_at"], fields["current_stage"]) == ("10.5", "", "clips")
    assert (fields["download_skipped"], fields["audio_skipped"]) == ("true", "false")
    assert fields["download_skip_reason"] == "Video already exists locally"
    assert (fields["audio_completed_at"], fields["refinement_status"]) == ("12.5", "pending")
    assert (fields["clips_total"], fields["clips_processed"], fields["clips_failed"]) == ("4", "3", "1")
    assert fields["clip_upload_total_clips"] == "0"


def test_counters_are_read_as_they_were_reported_and_are_none_before_there_are_any() -> None:
    records = {Stage.DOWNLOAD: StageRecord(StageStatus.PROCESSING, 13.0)}
    progress = {"bytes_downloaded": 5, "total_bytes": 10, "percentage": 50}
    fields = make_live_status_fields(make_run(), records, Stage.DOWNLOAD, progress)
    assert fields["download_bytes"] == "5"
    assert parse_stage_progress(fields, Stage.DOWNLOAD) == progress
    assert parse_stage_progress(fields, Stage.REFINEMENT) is None
    assert parse_stage_progress({}, Stage.TRANSCRIPT) is None
