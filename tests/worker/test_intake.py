"""The stream of requests, as workers read it."""

import asyncio
import logging
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from app.embedded import EmbeddedPostgres, EmbeddedValkey
from app.models.runs import RunRequest
from app.models.stages import RunType, Stage
from app.services.intake import REQUEST_GROUP, REQUEST_STREAM, StreamRequestIntake
from app.services.queue import enqueue_run
from app.worker import intake as intake_module
from tests.conftest import Databases, migrate
from tests.intakes import PREVIOUS, IntakeSite
from tests.serving import free_port

RUN = "pipeline:demo-talk:1795346931771"


@pytest.fixture
async def site(own_database_url: str, redis_url: str, tmp_path: Path) -> IntakeSite:
    site = IntakeSite(own_database_url, redis_url, tmp_path)
    await site.prepare("demo-talk")
    return site


def request_of(video: str, number: int = 1) -> dict[str, str]:
    return {"request_id": f"pipeline:{video}:{number}", "video_id": video, "config": "{}"}


async def deliver_to_another(site: IntakeSite, count: int = 1) -> None:
    """Deliver entries to a worker that dies before it does anything with them."""
    async with site.redis() as redis:
        await redis.xreadgroup(REQUEST_GROUP, "dead", {REQUEST_STREAM: ">"}, count=count)


async def test_an_entry_of_the_previous_backend_becomes_a_run(site: IntakeSite) -> None:
    await site.add(PREVIOUS)
    async with site.reading():
        await site.until_settled()
    ((identifier, video, request),) = await site.runs()
    assert (identifier, video) == (RUN, "demo-talk")
    assert (
        request
        | {
            "generation_model": "qwen3_vl_fp8",
            "refinement_model": "minimax",
            "refinement_temperature": 0.4,
            "min_moment_length": 45.0,
            "max_moments": 12,
            "override_existing_moments": True,
            "override_existing_refinement": False,
        }
        == request
    )
    assert site.notified == [(RUN, Stage.DOWNLOAD)]
    assert await site.rejected() == []


async def test_a_request_that_cannot_become_a_run_is_kept_with_the_reason(
    site: IntakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    entry_id = await site.add(request_of("unknown"))
    async with site.reading():
        await site.until_settled()
        await site.add(request_of("demo-talk"))
        await site.until_settled()
    (rejected,) = await site.rejected()
    assert (rejected.entry_id, rejected.reason) == (entry_id, "Video not found: unknown")
    assert rejected.fields == request_of("unknown")
    assert [run for run, _, _ in await site.runs()] == ["pipeline:demo-talk:1"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"Rejected entry {entry_id} of another program and stored it: Video not found: unknown"]


async def test_what_a_dead_worker_has_settled_and_not_acknowledged_is_only_acknowledged(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_IDLE_MS", 1)
    entries = [(await site.add(fields), fields) for fields in (PREVIOUS, {b"video_id": b"unknown", b"config": b"{}"})]
    await deliver_to_another(site, len(entries))
    async with site.requests() as requests:
        for entry_id, fields in entries:
            await requests.enqueue_or_reject(entry_id, fields)
    async with site.reading():
        await site.until_settled()
    assert [run for run, _, _ in await site.runs()] == [RUN]
    assert [rejected.entry_id for rejected in await site.rejected()] == [entries[1][0]]
    assert site.notified == [(RUN, Stage.DOWNLOAD)]


async def test_what_a_dead_worker_has_not_settled_is_settled_by_another(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_IDLE_MS", 1)
    for number in range(15):
        await site.add(request_of("unknown", number))
    await site.add(PREVIOUS)
    await deliver_to_another(site, 100)
    async with site.reading():
        await site.until_settled()
    assert [run for run, _, _ in await site.runs()] == [RUN]
    assert len(await site.rejected()) == 15


async def test_a_worker_that_is_killed_between_commit_and_acknowledgement_has_accepted_once(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_IDLE_MS", 1)
    await site.prepare(*(f"talk-{number}" for number in range(1, 11)))
    for number in range(1, 11):
        await site.add(request_of(f"talk-{number}"))
    command = [sys.executable, "-m", "tests.worker.intake_process"]
    process = await asyncio.create_subprocess_exec(*command, site.database_url, site.redis_url, str(site.folder))
    assert await process.wait() == -signal.SIGKILL
    assert len(await site.runs()) == 5
    async with site.redis() as redis:
        assert (await redis.xpending(REQUEST_STREAM, REQUEST_GROUP))["pending"] == 1
    async with site.reading():
        await site.until_settled()
    assert [run for run, _, _ in await site.runs()] == [f"pipeline:talk-{number}:1" for number in range(1, 11)]
    assert await site.rejected() == []


async def test_what_a_worker_that_lives_has_in_hand_is_left_to_it(site: IntakeSite) -> None:
    await site.add(request_of("unknown"))
    await deliver_to_another(site)
    await site.add(PREVIOUS)
    async with site.reading():
        await site.until(lambda: _are(site, 1), "the run")
    assert await site.rejected() == []


async def test_entries_of_earlier_versions_are_acknowledged_quietly(
    site: IntakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.connect() as conn:
        run = await enqueue_run(conn, "demo-talk", RunType.FULL, RunRequest())
    broker = RedisStreamBroker(site.redis_url, queue_name=REQUEST_STREAM, consumer_group_name=REQUEST_GROUP)
    kicker: AsyncKicker[[str], Any] = AsyncKicker("pipeline.run", broker, {})
    await kicker.kiq(run)
    await broker.shutdown()
    async with site.reading():
        await site.until_settled()
    assert len(await site.runs()) == 1
    assert await site.rejected() == []
    assert site.notified == []
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


async def test_consumers_of_workers_that_died_long_ago_are_deleted_unless_entries_are_pending(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_STALE_CONSUMER_MS", 1)
    await site.add(PREVIOUS)
    await deliver_to_another(site)
    async with site.redis() as redis:
        await redis.xgroup_createconsumer(REQUEST_STREAM, REQUEST_GROUP, "idle")
        await asyncio.sleep(0.01)
        async with site.reading():
            await site.until(lambda: _has_consumers(redis, "dead"), "the idle consumer to go")


async def test_the_example_of_the_readme_becomes_a_run(site: IntakeSite) -> None:
    await site.prepare("talk")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = [line for line in readme.splitlines() if line.startswith("redis-cli ") and " XADD " in line]
    _, _, _, *command = shlex.split(example)
    async with site.reading(), site.redis() as redis:
        await redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no type for it
        await site.until_settled()
    ((identifier, video, request),) = await site.runs()
    assert (identifier, video) == ("pipeline:talk:1795346931771", "talk")
    assert (request["refinement_model"], request["min_moments"]) == ("minimax", 2)


async def test_two_intakes_accept_each_request_once(site: IntakeSite) -> None:
    async with site.connect() as conn:
        await conn.execute(
            """
            INSERT INTO videos (identifier, cloud_url, duration_seconds)
            SELECT 'talk-' || n, 'file:///library/' || n || '.mp4', 60 FROM generate_series(1, 150) AS n
            """
        )
    for number in range(1, 201):
        await site.add(request_of(f"talk-{number}"))
    async with site.reading(), site.reading():
        await site.until_settled()
    assert sorted(run for run, _, _ in await site.runs()) == sorted(f"pipeline:talk-{n}:1" for n in range(1, 151))
    assert len(await site.rejected()) == 50
    assert sorted(run for run, _ in site.notified) == sorted(run for run, _, _ in await site.runs())


async def test_two_intakes_that_have_the_same_entries_accept_each_once(site: IntakeSite) -> None:
    entries = [(f"{number}-0", {b"video_id": b"talk-%d" % number, b"config": b"{}"}) for number in range(1, 31)]
    await site.prepare(*(f"talk-{number}" for number in range(1, 21)))
    async with site.requests() as one, site.requests() as other:
        for entry_id, fields in entries:
            await asyncio.gather(*(each.enqueue_or_reject(entry_id, fields) for each in (one, other, one)))
    assert [run for run, _, _ in await site.runs()] == [f"pipeline:talk-{n}:{n}000" for n in range(1, 21)]
    assert [each.entry_id for each in await site.rejected()] == [f"{n}-0" for n in range(21, 31)]


async def test_a_redis_that_is_flushed_has_its_group_again(site: IntakeSite, caplog: pytest.LogCaptureFixture) -> None:
    async with site.reading(), site.redis() as redis:
        await site.until_settled()
        await redis.flushdb()
        await site.add(PREVIOUS)
        await site.until(lambda: _are(site, 1), "the run")
        await site.until_settled()
        await redis.xgroup_destroy(REQUEST_STREAM, REQUEST_GROUP)
        await site.until(lambda: _has_group(redis), "the group")
        await site.until_settled()
    assert [run for run, _, _ in await site.runs()] == [RUN]
    assert await site.rejected() == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_redis_that_is_away_is_reported_once_and_read_again(
    own_database_url: str, valkey: EmbeddedValkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = IntakeSite(own_database_url, valkey.url, tmp_path)
    await site.prepare("demo-talk")
    caplog.set_level(logging.INFO, "app.worker.intake")
    async with site.reading():
        await site.until_settled()
        valkey.stop()
        await site.until(lambda: _true(len(caplog.messages) > 0), "the log")
        await asyncio.sleep(2)
        valkey.start()
        await site.add(PREVIOUS)
        await site.until(lambda: _are(site, 1), "the run")
        await site.until_settled()
    reported = [message for message in caplog.messages if message.startswith("Requests")]
    assert len(reported) == 2
    assert reported[0].startswith("Requests of other programs wait: Redis is not available (")
    assert reported[1] == "Requests of other programs are read again"


async def test_an_intake_that_is_cancelled_while_redis_is_away_ends_at_once(
    own_database_url: str, tmp_path: Path
) -> None:
    site = IntakeSite(own_database_url, f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    async with asyncio.timeout(60):
        async with site.reading():
            await asyncio.sleep(0.5)


async def test_a_redis_that_refuses_is_reported_once(site: IntakeSite, caplog: pytest.LogCaptureFixture) -> None:
    async with site.redis() as redis:
        await redis.delete(REQUEST_STREAM)
        await redis.set(REQUEST_STREAM, "text")
        async with site.reading():
            await site.until(lambda: _true(len(caplog.messages) > 0), "the log")
            await asyncio.sleep(1)
            await redis.delete(REQUEST_STREAM)
            await site.add(PREVIOUS)
            await site.until(lambda: _are(site, 1), "the run")
            await site.until_settled()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1, warnings
    assert "Redis holds values of another program under the same keys" in warnings[0]


async def test_a_request_waits_for_a_postgresql_that_is_away(
    postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database_url = Databases(postgres.url).create()
    migrate(database_url)
    site = IntakeSite(database_url, redis_url, tmp_path)
    await site.prepare("demo-talk")
    caplog.set_level(logging.INFO, "app.worker.intake")
    async with site.reading(), site.redis() as redis:
        postgres.stop()
        await site.add(PREVIOUS)
        await site.add(request_of("unknown"))
        await site.until(lambda: _true(len(caplog.messages) > 0), "the log")
        await asyncio.sleep(2)
        pending: Any = await redis.xpending(REQUEST_STREAM, REQUEST_GROUP)
        assert pending["pending"] == 1
        postgres.start()
        await site.until_settled()
    assert [run for run, _, _ in await site.runs()] == [RUN]
    assert len(await site.rejected()) == 1
    reported = [message for message in caplog.messages if message.startswith("Requests")]
    assert len(reported) == 2, reported
    assert reported[0].startswith("Requests of other programs wait: ")


async def test_an_entry_that_was_deleted_from_the_stream_is_acknowledged(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake_module, "_IDLE_MS", 1)
    entry_id = await site.add(PREVIOUS)
    await deliver_to_another(site)
    async with site.redis() as redis:
        await redis.xdel(REQUEST_STREAM, entry_id)
        async with site.reading():
            await site.until_settled()
    assert await site.runs() == []


async def test_a_deleted_entry_that_an_intake_has_in_hand_does_not_hold_it_up(site: IntakeSite) -> None:
    async with site.reading() as intake, site.redis() as redis:
        await site.until_settled()
        entry_id = await site.add(request_of("demo-talk"))
        await site.until_settled()
        await redis.xgroup_setid(REQUEST_STREAM, REQUEST_GROUP, "0")
        await redis.xreadgroup(REQUEST_GROUP, intake.name, {REQUEST_STREAM: ">"})
        await redis.xdel(REQUEST_STREAM, entry_id)
        intake._has_pending, intake._pending_after = True, "0"
        await site.until_settled()
        await site.add(PREVIOUS)
        await site.until_settled()
    assert len(await site.rejected()) == 1  # the second one: a run is in its way


async def test_an_entry_that_cannot_be_settled_stays_pending_and_holds_no_other_one_up(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake_module, "_PAUSE_SECONDS", 0.1)
    first, second = await site.add(request_of("unknown", 1)), await site.add(request_of("unknown", 2))
    process = StreamRequestIntake.enqueue_or_reject

    async def fail_at_first(self: StreamRequestIntake, entry_id: str, fields: Mapping[bytes, bytes]) -> None:
        if entry_id == first:
            raise ZeroDivisionError
        await process(self, entry_id, fields)

    monkeypatch.setattr(StreamRequestIntake, "enqueue_or_reject", fail_at_first)
    async with site.reading() as intake, site.redis() as redis:
        intake._has_pending = True
        await site.until(lambda: _are_rejected(site, 1), "the second entry")
        intake._has_pending = True
        await site.add(PREVIOUS)
        await site.until(lambda: _are(site, 1), "the run")
        pending: Any = await redis.xpending_range(REQUEST_STREAM, REQUEST_GROUP, "-", "+", 10)
        assert [entry["message_id"].decode() for entry in pending] == [first]
    assert [each.entry_id for each in await site.rejected()] == [second]
    async with site.redis() as redis:
        assert (await redis.xpending(REQUEST_STREAM, REQUEST_GROUP))["pending"] == 1
    assert caplog.text.count("Traceback") == 1


async def test_an_intake_that_ends_leaves_the_group_at_once(site: IntakeSite) -> None:
    async with site.reading():
        await site.add(PREVIOUS)
        await site.until_settled()
        loop = asyncio.get_running_loop()
        cancelled_at = loop.time()
    assert loop.time() - cancelled_at < 3
    async with site.redis() as redis:
        assert await redis.xinfo_consumers(REQUEST_STREAM, REQUEST_GROUP) == []


async def test_entries_of_a_worker_that_ends_in_an_outage_stay_in_the_group(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/none"
    site = IntakeSite(own_database_url, redis_url, tmp_path)
    await site.prepare("demo-talk")
    await site.add(PREVIOUS)
    async with IntakeSite(away, redis_url, tmp_path).reading(), site.redis() as redis:

        async def is_delivered() -> bool:
            pending: Any = await redis.xpending(REQUEST_STREAM, REQUEST_GROUP)
            return bool(pending["pending"])

        await site.until(is_delivered, "the entry to be delivered")
    async with site.redis() as redis:
        assert (await redis.xpending(REQUEST_STREAM, REQUEST_GROUP))["pending"] == 1


async def test_an_idle_intake_asks_redis_twice_a_second(site: IntakeSite) -> None:
    async with site.reading(), site.redis() as redis:
        await site.until_settled()
        begun, before = time.monotonic(), (await redis.info("stats"))["total_commands_processed"]
        await asyncio.sleep(2)
        after = (await redis.info("stats"))["total_commands_processed"]
    assert after - before <= 4 * (time.monotonic() - begun)


async def test_an_intake_survives_cancelling_at_any_time(site: IntakeSite, own_database_url: str) -> None:
    for number in range(10):
        async with site.reading():
            await site.add(request_of(f"unknown-{number}"))
            await asyncio.sleep(number * 0.004)
    async with site.redis() as redis:
        for consumer in await redis.xinfo_consumers(REQUEST_STREAM, REQUEST_GROUP):
            assert consumer["pending"]
    async with site.reading():
        await site.until(lambda: _are_rejected(site, 10), "the rest")


async def _are(site: IntakeSite, count: int) -> bool:
    return len(await site.runs()) == count


async def _are_rejected(site: IntakeSite, count: int) -> bool:
    return len(await site.rejected()) == count


async def _has_group(redis: Redis) -> bool:
    return bool(await redis.xinfo_groups(REQUEST_STREAM))


async def _has_consumers(redis: Redis, *names: str) -> bool:
    consumers = await redis.xinfo_consumers(REQUEST_STREAM, REQUEST_GROUP)
    return {each["name"].decode() for each in consumers if not each["name"].startswith(b"intake")} == set(names)


async def _true(value: bool) -> bool:
    return value
