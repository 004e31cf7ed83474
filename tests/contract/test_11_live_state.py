"""What Redis is for: it rings and tells how far runs are, and nothing is lost with it."""

from redis.asyncio import Redis

from app.database import Connection
from app.models.runs import StageStatus
from app.models.stages import RunType, Stage
from tests.contract.browser import Browser
from tests.factories import make_video
from tests.runs import begin_run, enqueue_run, finish_run, save_stage

RUN = "/api/pipeline/demo-talk/status"


async def test_a_flushed_redis_loses_no_run_and_no_end(browser: Browser, conn: Connection, redis: Redis) -> None:
    await make_video(conn, identifier="demo-talk")
    await finish_run(conn, await begin_run(conn, "demo-talk", RunType.AUDIO))
    run = await begin_run(conn, "demo-talk")
    await save_stage(conn, run, Stage.AUDIO, StageStatus.PROCESSING)
    before = await browser.get_json(RUN), await browser.get_json("/api/videos/demo-talk/audio-extraction-status")
    await redis.flushdb()
    after = await browser.get_json(RUN), await browser.get_json("/api/videos/demo-talk/audio-extraction-status")
    assert after == before
    assert [answer["status"] for answer in after] == ["processing", "completed"]


async def test_what_an_earlier_backend_has_left_there_is_no_run(
    browser: Browser, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="demo-talk")
    left = {"status": "processing", "started_at": "1795346910.7", "request_id": "pipeline:demo-talk:1"}
    for key in ("pipeline:demo-talk:active", "job:audio_extraction:demo-talk", "job:transcription:demo-talk"):
        await redis.hset(key, mapping=left)  # type: ignore[arg-type]  # texts
    await redis.set("pipeline:demo-talk:lock", '{"request_id":"pipeline:demo-talk:1"}')
    assert (await browser.get_json(RUN))["status"] == "never_run"
    for status in ("audio-extraction-status", "transcription-status"):
        assert (await browser.get_json(f"/api/videos/demo-talk/{status}"))["status"] == "not_started"
    assert (await browser.send("POST", "/api/pipeline/demo-talk/start", "{}")).status_code == 200


async def test_a_cancellation_from_before_ends_no_run_that_is_started_after_it(
    browser: Browser, conn: Connection
) -> None:
    await make_video(conn, identifier="demo-talk")
    await enqueue_run(conn, "demo-talk")
    assert (await browser.send("POST", "/api/pipeline/demo-talk/cancel")).status_code == 200
    assert (await browser.send("POST", "/api/pipeline/demo-talk/start", "{}")).status_code == 200
    assert (await browser.get_json(RUN))["status"] == "pending"
