"""Callbacks that report the end of a run, signed."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from app.core.config import Settings
from app.core.errors import AddressRefused, ConfigurationError, StageFailed, TransientFailure
from app.models.runs import RunOutcome, RunStatus
from app.pipeline.context import RunContext
from app.repositories.ended_runs import CallbackRepository
from app.repositories.stages import ClaimedRunRepository
from app.worker import callbacks
from app.worker.callbacks import callback_retry_pause, post_signed_callback, send_due_callbacks
from tests.pipeline.contexts import make_context
from tests.serving import free_port
from tests.sites import Answer, Site, in_turn, redirecting, sending

_SECRET = "whsec_" + b64encode(b"thirty-two bytes, and none of it").decode()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.answers["/callback"] = sending(b"", 204)
        yield site


def _settings(*hosts: str) -> Settings:
    return Settings(callback_secret=_SECRET, allowed_hosts=hosts)


async def _finish(context: RunContext, outcome: RunOutcome) -> None:
    async with context.database.connect() as conn, conn.transaction():
        await ClaimedRunRepository(conn).finish_run(context.run, outcome)


async def _work_row(context: RunContext) -> tuple[Any, ...]:
    """Return status, failed_attempts, whether there is a next try, its delay in seconds, and the error."""
    async with context.database.connect() as conn:
        cursor = await conn.execute(
            """
            SELECT callback_status, callback_attempts, round(extract(epoch FROM callback_due_at
                   - (now() AT TIME ZONE 'utc')))::int, callback_error
            FROM pipeline.runs WHERE run_id = %s
            """,
            [context.run.id],
        )
        return await anext(cursor)


async def _make_due(context: RunContext) -> None:
    async with context.database.connect() as conn:
        await conn.execute("UPDATE pipeline.runs SET callback_due_at = now() AT TIME ZONE 'utc' - interval '1 s'")


async def test_the_end_of_a_run_is_reported_once_and_signed(own_database_url: str, tmp_path: Path, site: Site) -> None:
    settings = {"callback_secret": _SECRET, "allowed_hosts": (site.host,)}
    async with make_context(
        own_database_url,
        tmp_path,
        video={"identifier": "Vortrag über X"},
        settings=settings,
        callback_url=f"{site.url}/callback",
    ) as context:
        assert await send_due_callbacks(context.database, context.settings) == 0
        await _finish(context, RunOutcome(RunStatus.FAILED, "audio", "There is no sound", 3, 2))
        assert await send_due_callbacks(context.database, context.settings) == 1
        assert await send_due_callbacks(context.database, context.settings) == 0
        assert (await _work_row(context))[0] == "delivered"
    (visit,) = site.visits
    reports = Webhook(_SECRET).verify(visit.body, visit.headers)
    assert (visit.method, visit.headers["content-type"]) == ("POST", "application/json")
    assert 0 <= reports.pop("completed_at") - reports.pop("started_at") < 600
    assert reports == {
        "request_id": context.run.identifier,
        "video_id": "Vortrag über X",
        "type": "full",
        "status": "failed",
        "error_stage": "audio",
        "error_message": "There is no sound",
        "total_moments_generated": 3,
        "total_clips_created": 2,
    }


async def test_a_run_that_asks_for_none_has_no_callback(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, settings={"callback_secret": _SECRET}) as context:
        await _finish(context, RunOutcome(RunStatus.COMPLETED))
        assert await send_due_callbacks(context.database, context.settings) == 0


async def test_a_callback_that_fails_is_tried_again_later_with_the_same_id(
    own_database_url: str, tmp_path: Path, site: Site
) -> None:
    site.answers["/callback"] = in_turn(sending(b"", 500), sending(b"", 200))
    settings = {"callback_secret": _SECRET, "allowed_hosts": (site.host,)}
    async with make_context(
        own_database_url, tmp_path, settings=settings, callback_url=f"{site.url}/callback"
    ) as context:
        await _finish(context, RunOutcome(RunStatus.COMPLETED))
        assert await send_due_callbacks(context.database, context.settings) == 1
        status, failed_attempts, delay, error = await _work_row(context)
        assert (status, failed_attempts, "status 500" in error) == ("waiting", 1, True)
        assert delay <= 10
        await _make_due(context)
        assert await send_due_callbacks(context.database, context.settings) == 1
        assert await _work_row(context) == ("delivered", 2, None, None)
    assert len({visit.headers["webhook-id"] for visit in site.visits}) == 1


async def test_a_callback_is_given_up_in_the_end(own_database_url: str, tmp_path: Path, site: Site) -> None:
    settings = {"callback_secret": _SECRET}
    async with make_context(
        own_database_url, tmp_path, settings=settings, callback_url=f"{site.url}/callback"
    ) as context:
        await _finish(context, RunOutcome(RunStatus.COMPLETED))
        while await send_due_callbacks(context.database, context.settings):
            if (await _work_row(context))[0] == "waiting":
                await _make_due(context)
        status, failed_attempts, due, error = await _work_row(context)
        assert (status, failed_attempts, due) == ("failed", 6, None)
        assert "not a public one" in error
    assert site.visits == []


def test_the_pauses_between_tries_grow_to_hours() -> None:
    assert [callback_retry_pause(failed_attempts) for failed_attempts in range(1, 7)] == [10, 60, 300, 1800, 7200, None]


async def test_of_two_workers_one_sends_a_callback(own_database_url: str, tmp_path: Path, site: Site) -> None:
    settings = {"callback_secret": _SECRET, "allowed_hosts": (site.host,)}
    async with make_context(
        own_database_url, tmp_path, settings=settings, callback_url=f"{site.url}/callback"
    ) as context:
        await _finish(context, RunOutcome(RunStatus.COMPLETED))
        sent = await asyncio.gather(*(send_due_callbacks(context.database, context.settings) for _ in range(4)))
    assert sum(sent) == len(site.visits) == 1


async def test_a_callback_that_a_worker_is_taking_is_left_to_it(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, callback_url="http://host/") as context:
        await _finish(context, RunOutcome(RunStatus.COMPLETED))
        async with context.database.connect() as one, context.database.connect() as other, one.transaction():
            assert len(await CallbackRepository(one).claim_due_callbacks(10, 60)) == 1
            assert await CallbackRepository(other).claim_due_callbacks(10, 60) == []


async def test_what_a_worker_tells_too_late_is_not_noted(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, callback_url="http://host/") as context:
        await _finish(context, RunOutcome(RunStatus.COMPLETED))
        async with context.database.connect() as conn:
            callbacks = CallbackRepository(conn)
            (late,) = await callbacks.claim_due_callbacks(10, 0)
            (known,) = await callbacks.claim_due_callbacks(10, 60)
            await callbacks.record_failed_delivery(late, "too late", None)
            await callbacks.record_failed_delivery(known, "in time", 10)
            await callbacks.record_failed_delivery(late, "too late", None)
        status, failed_attempts, _, error = await _work_row(context)
        assert (status, failed_attempts, error) == ("waiting", 2, "in time")


async def test_what_a_worker_took_and_never_sent_is_due_again(
    own_database_url: str, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"callback_secret": _SECRET, "allowed_hosts": (site.host,)}
    async with make_context(
        own_database_url, tmp_path, settings=settings, callback_url=f"{site.url}/callback"
    ) as context:
        await _finish(context, RunOutcome(RunStatus.COMPLETED))
        site.answers["/callback"] = lambda visit: visit.wait_until_gone()
        sending_it = asyncio.ensure_future(send_due_callbacks(context.database, context.settings))
        async with asyncio.timeout(30):
            while not site.visits:  # noqa: ASYNC110 (no event is set)
                await asyncio.sleep(0.01)
            sending_it.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending_it
        status, failed_attempts, delay, _ = await _work_row(context)
        assert (status, failed_attempts) == ("waiting", 1)
        assert delay > 0


@pytest.mark.parametrize(
    ("answer", "patience_seconds", "kind"),
    [
        (sending(b"", 500), 60.0, TransientFailure),
        (sending(b"", 410), 60.0, StageFailed),
        (redirecting("/elsewhere"), 60.0, StageFailed),
        (lambda visit: visit.wait_until_gone(), 1.0, TransientFailure),
    ],
)
async def test_only_a_success_counts_as_reported(
    site: Site, answer: Answer, patience_seconds: float, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_PATIENCE_SECONDS", patience_seconds)
    site.answers |= {"/callback": answer, "/elsewhere": sending(b"")}
    with pytest.raises(kind):
        await post_signed_callback(_settings(site.host), f"{site.url}/callback", {}, "msg_1")
    assert [visit.path for visit in site.visits] == ["/callback"]


async def test_a_callback_goes_to_public_machines_only(site: Site) -> None:
    with pytest.raises(AddressRefused):
        await post_signed_callback(_settings(f"127.0.0.1:{free_port()}"), f"{site.url}/callback", {}, "msg_1")
    assert site.visits == []


async def test_the_body_is_json(site: Site) -> None:
    await post_signed_callback(_settings(site.host), f"{site.url}/callback", {"title": "Grüße"}, "msg_1")
    assert json.loads(site.visits[0].body) == {"title": "Grüße"}


@pytest.mark.parametrize(
    "secret", ["", "short", "whsec_", "whsec_c2hvcnQ=", "whsec_no base64 at all, is it?", "whsec_ü"]
)
def test_a_key_that_cannot_sign_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match="CALLBACK_SECRET"):
        Settings(callback_secret=secret)
