"""Callbacks: the end of a run is posted to the URL of its request, signed by standardwebhooks.com, with retries."""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from standardwebhooks import Webhook

from app.core.config import Settings
from app.core.errors import ConfigurationError, TransientFailure, VideoMomentsError
from app.core.guarded_http import open_guarded_client, raise_for_error_status
from app.core.masking import mask_secrets, mask_values
from app.core.text import escape_controls
from app.database import Database
from app.database.queries import try_lock_in_transaction
from app.repositories.ended_runs import CallbackRepository, DueCallback
from app.services.runs import utc_to_unix_seconds

_log = logging.getLogger(__name__)

_AT_ONCE = 10
_PATIENCE_SECONDS = 10.0
_LEASE_SECONDS = 60.0
_PAUSES_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0)


def callback_retry_pause(failed_attempts: int) -> float | None:
    """Return the seconds until a callback is sent again, from 10 to 7200, None after the sixth failure."""
    return _PAUSES_SECONDS[failed_attempts - 1] if failed_attempts <= len(_PAUSES_SECONDS) else None


async def send_due_callbacks(database: Database, settings: Settings) -> int:
    """Send up to ten due callbacks at once and return their number; those that fail become due again later."""
    if settings.callback_secret is None:
        return 0
    async with database.connect() as conn, conn.transaction():
        if not await try_lock_in_transaction(conn, "callbacks"):
            return 0
        callbacks = await CallbackRepository(conn).claim_due_callbacks(_AT_ONCE, _LEASE_SECONDS)
    await asyncio.gather(*(_send_and_record_callback(database, settings, callback) for callback in callbacks))
    return len(callbacks)


async def post_signed_callback(settings: Settings, url: str, payload: Mapping[str, Any], message_id: str) -> None:
    """Post signed JSON to a URL. Raises `AddressRefused`, and `StageFailed` without an answer of 2xx."""
    body = orjson.dumps(payload)
    headers = {"Content-Type": "application/json", **_make_signature_headers(settings, message_id, body)}
    try:
        async with (
            asyncio.timeout(_PATIENCE_SECONDS),
            open_guarded_client(settings.allowed_hosts, _PATIENCE_SECONDS, max_redirects=0) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            raise_for_error_status(response)  # the body is not read
    except TimeoutError:
        raise TransientFailure("The server of the URL takes too long to answer") from None


def _make_signature_headers(settings: Settings, message_id: str, body: bytes) -> dict[str, str]:
    if settings.callback_secret is None:
        raise ConfigurationError("CALLBACK_SECRET is not set")
    now = datetime.now(UTC)
    signature = Webhook(settings.callback_secret.get_secret_value()).sign(message_id, now, body.decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }


async def _send_and_record_callback(database: Database, settings: Settings, callback: DueCallback) -> None:
    try:
        await post_signed_callback(
            settings, callback.url, _make_callback_payload(callback), _make_stable_callback_message_id(callback)
        )
    except VideoMomentsError as error:
        await _record_callback_failure(database, callback, escape_controls(mask_secrets(str(error))))
    except Exception:
        _log.exception("The callback of run %s cannot be sent", callback.identifier)
        await _record_callback_failure(database, callback, "The callback cannot be sent")
    else:
        async with database.connect() as conn:
            await CallbackRepository(conn).mark_delivered(callback)


async def _record_callback_failure(database: Database, callback: DueCallback, reason: str) -> None:
    _log.warning(
        "The callback of run %s is not delivered at try %s: %s", callback.identifier, callback.attempts, reason
    )
    async with database.connect() as conn:
        await CallbackRepository(conn).record_failed_delivery(callback, reason, callback_retry_pause(callback.attempts))


def _make_stable_callback_message_id(callback: DueCallback) -> str:
    return f"msg_{hashlib.sha256(callback.identifier.encode()).hexdigest()[:32]}"  # receivers skip a repeated one


def _make_callback_payload(callback: DueCallback) -> dict[str, Any]:
    return {
        "request_id": callback.identifier,
        "video_id": callback.video,
        "type": callback.type,
        "status": callback.status,
        "error_stage": callback.error_stage,
        "error_message": mask_values(callback.error_message),
        "started_at": utc_to_unix_seconds(callback.started_at),
        "completed_at": callback.completed_at and utc_to_unix_seconds(callback.completed_at),
        "total_moments_generated": callback.total_moments_generated,
        "total_clips_created": callback.total_clips_created,
    }
