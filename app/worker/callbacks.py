"""Tells those who asked for it that a run has ended: signed, as standardwebhooks.com says, and again where it fails."""

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
from app.database.queries import try_transaction_lock
from app.repositories.ended_runs import CallbackRepository, DueCallback

_log = logging.getLogger(__name__)

_AT_ONCE = 10
_PATIENCE_SECONDS = 10.0
_LEASE_SECONDS = 60.0
_PAUSES_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0)


def retry_pause(tries: int) -> float | None:
    """Return the seconds until the next try after so many that failed, None after the last."""
    return _PAUSES_SECONDS[tries - 1] if tries <= len(_PAUSES_SECONDS) else None


async def send_due_callbacks(database: Database, settings: Settings) -> int:
    """Send the callbacks that are due, some at once, and return how many; those that fail are due again later."""
    if settings.callback_secret is None:
        return 0
    async with database.connect() as conn, conn.transaction():
        if not await try_transaction_lock(conn, "callbacks"):
            return 0
        callbacks = await CallbackRepository(conn).claim_due_callbacks(_AT_ONCE, _LEASE_SECONDS)
    await asyncio.gather(*(_send(database, settings, callback) for callback in callbacks))
    return len(callbacks)


async def deliver_callback(settings: Settings, url: str, payload: Mapping[str, Any], message_id: str) -> None:
    """Send a signed message. Raises `AddressRefused` and `StageFailed` where it does not arrive, also by a redirect."""
    body = orjson.dumps(payload)
    headers = {"Content-Type": "application/json", **_sign(settings, message_id, body)}
    try:
        async with (
            asyncio.timeout(_PATIENCE_SECONDS),
            open_guarded_client(settings.allowed_hosts, _PATIENCE_SECONDS, max_redirects=0) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            raise_for_error_status(response)  # and nobody reads what else it says
    except TimeoutError:
        raise TransientFailure("The server of the URL takes too long to answer") from None


def _sign(settings: Settings, message_id: str, body: bytes) -> dict[str, str]:
    if settings.callback_secret is None:
        raise ConfigurationError("CALLBACK_SECRET is not set")
    now = datetime.now(UTC)
    signature = Webhook(settings.callback_secret.get_secret_value()).sign(message_id, now, body.decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }


async def _send(database: Database, settings: Settings, callback: DueCallback) -> None:
    try:
        await deliver_callback(settings, callback.url, _payload_of(callback), _message_id_of(callback))
    except VideoMomentsError as error:
        await _note_failure(database, callback, escape_controls(mask_secrets(str(error))))
    except Exception:
        _log.exception("The callback of run %s cannot be sent", callback.identifier)
        await _note_failure(database, callback, "The callback cannot be sent")
    else:
        async with database.connect() as conn:
            await CallbackRepository(conn).mark_delivered(callback)


async def _note_failure(database: Database, callback: DueCallback, reason: str) -> None:
    _log.warning(
        "The callback of run %s is not delivered at try %s: %s", callback.identifier, callback.attempts, reason
    )
    async with database.connect() as conn:
        await CallbackRepository(conn).mark_failed(callback, reason, retry_pause(callback.attempts))


def _message_id_of(callback: DueCallback) -> str:
    """Return the same header-safe id for each attempt, so that a receiver can skip repeated ones."""
    return f"msg_{hashlib.sha256(callback.identifier.encode()).hexdigest()[:32]}"


def _payload_of(callback: DueCallback) -> dict[str, Any]:
    return {
        "request_id": callback.identifier,
        "video_id": callback.video,
        "type": callback.type,
        "status": callback.status,
        "error_stage": callback.error_stage,
        "error_message": mask_values(callback.error_message),
        "started_at": _seconds(callback.started_at),
        "completed_at": _seconds(callback.completed_at),
        "total_moments_generated": callback.total_moments_generated,
        "total_clips_created": callback.total_clips_created,
    }


def _seconds(moment: datetime | None) -> float | None:
    """Return a naive time of UTC as seconds since 1970."""
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()
