"""SQL over the callbacks of runs: who wants to be told of an end, and is to be told now."""

from dataclasses import dataclass
from datetime import datetime

from app.database import Connection
from app.database.queries import fetch_all


@dataclass(frozen=True, slots=True)
class DueCallback:
    """A run that has ended, and the URL to notify. Times are naive UTC; `attempts` counts this one."""

    run_id: int
    url: str
    attempts: int
    identifier: str
    video: str
    type: str
    status: str
    error_stage: str | None
    error_message: str | None
    started_at: datetime
    completed_at: datetime | None
    total_moments_generated: int | None
    total_clips_created: int | None


class CallbackRepository:
    """Callbacks, each in the hands of one worker for a while."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def take_due(self, limit: int, lease_seconds: float) -> list[DueCallback]:
        """Return callbacks that are due; those that nothing is noted of are due again after `lease_seconds`."""
        return await fetch_all(
            self._conn,
            DueCallback,
            """
            UPDATE pipeline.runs
            SET callback_attempts = callback_attempts + 1,
                callback_due_at = now() AT TIME ZONE 'utc' + make_interval(secs => %(lease_seconds)s)
            FROM pipeline_history AS history JOIN videos ON videos.id = history.video_id
            WHERE history.id = runs.run_id AND runs.run_id IN (
                SELECT run_id FROM pipeline.runs
                WHERE callback_due_at <= now() AT TIME ZONE 'utc'
                ORDER BY callback_due_at
                LIMIT %(limit)s
                FOR NO KEY UPDATE SKIP LOCKED
            )
            RETURNING run_id, request ->> 'callback_url', callback_attempts, history.identifier, videos.identifier,
                      pipeline_type, status, error_stage, error_message, started_at, completed_at,
                      total_moments_generated, total_clips_created
            """,
            {"limit": limit, "lease_seconds": lease_seconds},
        )

    async def note_delivered(self, callback: DueCallback) -> None:
        await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET callback_status = 'delivered', callback_due_at = NULL, callback_error = NULL
            WHERE run_id = %(run_id)s
            """,
            {"run_id": callback.run_id},
        )

    async def note_failure(self, callback: DueCallback, error: str, again_seconds: float | None) -> None:
        """Say why a callback was not delivered, and when it is tried again; None: never."""
        await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET callback_error = %(error)s,
                callback_status = CASE WHEN %(again)s::float8 IS NULL THEN 'failed' ELSE 'waiting' END,
                callback_due_at = now() AT TIME ZONE 'utc' + make_interval(secs => %(again)s)
            WHERE run_id = %(run_id)s AND callback_status = 'waiting' AND callback_attempts = %(attempts)s
            """,
            {"run_id": callback.run_id, "attempts": callback.attempts, "error": error, "again": again_seconds},
        )
