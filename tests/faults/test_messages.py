"""What is in the stream and what is not, and what workers make of it."""

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from taskiq.kicker import AsyncKicker

from app.models.stages import RunType, Stage, WorkKind
from app.services.intake import REQUEST_GROUP, REQUEST_STREAM
from app.services.queue import CONSUMER_GROUP, make_queue_broker
from tests.factories import make_run, make_video
from tests.faults.site import COMPLETED, Site
from tests.faults.stages import STEADY, hold, let_go
from tests.intakes import PREVIOUS


async def test_a_run_without_a_message_is_found(site: Site) -> None:
    async with site.worker():
        run = await site.accept()
        assert await site.ended(run) == COMPLETED
    assert site.stages(run) == list(Stage)


async def test_entries_of_another_program_do_not_stop_a_worker(site: Site) -> None:
    async with site.redis() as redis:
        for number in range(3):
            await redis.xadd(
                REQUEST_STREAM, {"request_id": f"pipeline:old:{number}", "video_id": "old", "config": "{}"}
            )
        await redis.xadd(REQUEST_STREAM, {"data": "not a message"})
        async with site.worker():
            assert await site.ended(await site.start()) == COMPLETED
            await redis.xadd(REQUEST_STREAM, {"request_id": "pipeline:old:4"})
            assert await site.ended(await site.start()) == COMPLETED

            async def nothing_is_left() -> bool:
                return bool((await redis.xpending(REQUEST_STREAM, REQUEST_GROUP))["pending"] == 0)

            await site.until(nothing_is_left, "every entry to be acknowledged")


async def test_an_entry_of_the_previous_backend_becomes_a_run_that_completes(site: Site) -> None:
    async with site.connect() as conn:
        await make_video(conn, identifier="demo-talk")
    async with site.redis() as redis:
        entry: dict[Any, Any] = dict(PREVIOUS)
        await redis.xadd(REQUEST_STREAM, entry)
    run = PREVIOUS[b"request_id"].decode()
    async with site.worker():
        await site.begun(run, Stage.DOWNLOAD)
        assert await site.ended(run) == COMPLETED
    assert site.stages(run) == await site.results(run) == list(Stage)


async def test_a_run_at_a_stage_of_a_newer_version_is_left_to_that(site: Site) -> None:
    run = await site.accept()
    async with site.connect() as conn:
        await conn.execute("UPDATE pipeline.runs SET stage = 'summary', notified_at = NULL")
    async with site.worker():
        assert await site.ended(await site.start()) == COMPLETED
        await asyncio.sleep(1.5)  # longer than the worker takes to look for runs that wait
    async with site.connect() as conn:
        cursor = await conn.execute(
            "SELECT status, stage, owner, notified_at FROM pipeline.runs JOIN pipeline_history ON id = run_id"
            " WHERE identifier = %s",
            (run,),
        )
        assert await cursor.fetchone() == ("running", "summary", None, None)


async def test_a_message_that_names_no_stage_is_one_line_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker = make_queue_broker(site.settings)
    await AsyncKicker(WorkKind.DOWNLOAD.task_name, broker, {}).kiq()
    await broker.shutdown()
    async with site.worker():
        assert await site.ended(await site.start()) == COMPLETED
    assert "Skipped a message that names no stage of this version" in caplog.messages
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_message_of_a_run_under_way_does_not_begin_it_again(site: Site) -> None:
    hold(site.folder, Stage.AUDIO)
    async with site.worker(pipeline_concurrency=2):
        run = await site.start(RunType.AUDIO)
        await site.begun(run, Stage.AUDIO)
        await site.notify(run, run, "pipeline:unknown:1")
        assert await site.ended(await site.start(RunType.TRANSCRIPT)) == COMPLETED  # which is heard of later
        let_go(site.folder, Stage.AUDIO)
        assert await site.ended(run) == COMPLETED
    assert site.stages(run) == [Stage.AUDIO, Stage.AUDIO_UPLOAD]


async def test_a_run_of_which_nothing_is_known_does_not_run_for_ever(site: Site) -> None:
    async with site.connect() as conn:
        orphan = await make_run(conn)
    async with site.worker():
        ended = await site.ended(orphan.identifier)
    assert ended.status == "failed"
    assert ended.error_message == "The run was left by an earlier version of this server"


async def test_the_run_of_a_video_that_is_deleted_stops(site: Site) -> None:
    hold(site.folder, Stage.AUDIO)
    async with site.worker(pipeline_concurrency=1):
        run = await site.start()
        await site.begun(run, Stage.AUDIO)
        async with site.connect() as conn:
            await conn.execute("DELETE FROM videos")
        await site.until(lambda: _is_empty(site.folder / "data" / "work"), "the folder of the run to go")
        let_go(site.folder, Stage.AUDIO)
        assert await site.ended(await site.start()) == COMPLETED  # with the only place there is
    assert await site.results(run) == ["download"]


async def test_folders_of_ended_runs_go_and_those_of_others_stay(site: Site) -> None:
    work = site.folder / "data" / "work"
    (work / "left").mkdir(parents=True)
    hold(site.folder, Stage.AUDIO)
    async with site.worker():
        run = await site.start()
        await site.begun(run, Stage.AUDIO)
        (mine,) = (folder for folder in work.iterdir() if folder.name != "left")

        async def is_tidy() -> bool:
            return list(work.iterdir()) == [mine]

        async with site.worker():
            await site.until(is_tidy, "what is left to go")
        let_go(site.folder, Stage.AUDIO)
        assert await site.ended(run) == COMPLETED
        await site.until(lambda: _is_empty(work), "the folder to go")


async def test_what_is_left_later_goes_too_and_what_is_at_work_stays(site: Site) -> None:
    work = site.folder / "data" / "work"
    hold(site.folder, Stage.AUDIO)
    async with site.worker(timings=replace(STEADY, cleaning_interval=1.0)):
        run = await site.start()
        await site.begun(run, Stage.AUDIO)
        (work / "left").mkdir()
        await site.until(lambda: _are(work, 1), "what is left to go")
        assert not (work / "left").exists()
        let_go(site.folder, Stage.AUDIO)
        assert await site.ended(run) == COMPLETED


async def test_a_worker_that_ends_gives_back_what_it_has_and_leaves_the_group(site: Site) -> None:
    hold(site.folder, Stage.AUDIO)
    async with site.worker():
        run = await site.start()
        await site.begun(run, Stage.AUDIO)
    records = await site.records(run)
    assert {stage: record["status"] for stage, record in records.items()} == {
        "download": "completed",
        "audio": "processing",
    }
    assert await site.attempts(run) == 0
    async with site.redis() as redis:
        assert await redis.xinfo_consumers(REQUEST_STREAM, REQUEST_GROUP) == []
        for kind in WorkKind:
            assert await redis.xinfo_consumers(kind.stream_name, CONSUMER_GROUP) == []
    let_go(site.folder, Stage.AUDIO)
    async with site.worker():
        assert await site.ended(run) == COMPLETED
    assert site.stages(run) == [Stage.DOWNLOAD, Stage.AUDIO, *list(Stage)[1:]]


async def _is_empty(folder: Path) -> bool:
    return await _are(folder, 0)


async def _are(folder: Path, count: int) -> bool:
    return len(await asyncio.to_thread(os.listdir, folder)) == count
