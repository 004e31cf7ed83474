"""Ended runs: their requests and errors, for retries and reports, and the callbacks that report their end."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from app.database.queries import Repository, fetch_all, fetch_one, make_and_conditions
from app.models.runs import RunRequest, StageRecord
from app.models.stages import RunType, Stage
from app.repositories.runs import parse_run_request, parse_stage_records


@dataclass(frozen=True, slots=True)
class EndedRun:
    """An ended run with its request and stage records; `subject` identifies the moment that it refined, or is ''."""

    identifier: str
    video: str
    type: RunType
    subject: str
    status: str
    error_stage: str | None
    request: RunRequest
    stages: Mapping[Stage, StageRecord]


@dataclass(frozen=True, slots=True)
class StoredResults:
    """The results that a video has in the database, for `ExistingResults`, and the URL of its file."""

    video_file_url: str
    has_transcript: bool
    has_moments: bool
    has_all_clips: bool


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed; `raw_answer_length` is the length in characters of a model answer that could not be used."""

    id: int
    identifier: str
    video: str
    type: str
    subject: str
    error_stage: str | None
    error_message: str | None
    attempt: int
    started_at: datetime
    completed_at: datetime | None
    raw_answer_length: int


@dataclass(frozen=True, slots=True)
class FailedRunDetails:
    """A failed run with its request, and the model answer that could not be used."""

    run: FailedRun
    request: dict[str, Any]
    raw_answer: str | None


_FAILED = """history.id, history.identifier, videos.identifier, pipeline_type, subject, error_stage, error_message,
    attempt, history.started_at, history.completed_at, coalesce(length(raw_answer), 0)"""
_FROM_FAILED = """FROM pipeline_history AS history JOIN pipeline.runs ON runs.run_id = history.id
    JOIN videos ON videos.id = history.video_id
    WHERE status = 'failed'"""


class EndedRunRepository(Repository):
    """Ended runs by their identifier and by that of their video, without those of earlier versions."""

    async def find_ended_run(
        self, *, video_identifier: str | None = None, run_identifier: str | None = None
    ) -> EndedRun | None:
        """Return a run by its identifier or, without one, the newest full run of the video that has ended."""
        found = make_and_conditions(
            {"videos.identifier = %(video)s": video_identifier, "history.identifier = %(identifier)s": run_identifier}
        )
        cursor = await self._conn.execute(
            sql.SQL(
                """
                SELECT history.identifier, videos.identifier, pipeline_type, subject, status, error_stage, request,
                       stages
                FROM videos
                JOIN pipeline_history AS history ON history.video_id = videos.id
                JOIN pipeline.runs ON runs.run_id = history.id
                WHERE (%(identifier)s::text IS NOT NULL OR (pipeline_type = 'full' AND status <> 'running')){}
                ORDER BY history.started_at DESC, history.id DESC
                LIMIT 1
                """
            ).format(found),
            {"video": video_identifier, "identifier": run_identifier},
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        name, of_video, run_type, subject, status, error_stage, request, stages = row
        return EndedRun(
            name,
            of_video,
            RunType(run_type),
            subject,
            status,
            error_stage,
            parse_run_request(request),
            parse_stage_records(stages),
        )

    async def get_stored_results(self, video_identifier: str) -> StoredResults | None:
        return await fetch_one(
            self._conn,
            StoredResults,
            """
            SELECT cloud_url, EXISTS (SELECT FROM transcripts WHERE video_id = videos.id),
                   EXISTS (SELECT FROM moments
                           WHERE video_id = videos.id AND NOT is_refined AND generation_config_id IS NOT NULL),
                   coalesce((SELECT bool_and(clips.id IS NOT NULL)
                             FROM moments LEFT JOIN clips ON clips.moment_id = moments.id
                             WHERE moments.video_id = videos.id AND NOT is_refined), false)
            FROM videos
            WHERE identifier = %(video)s
            """,
            {"video": video_identifier},
        )

    async def list_failed_runs(self, limit: int, before_id: int | None = None) -> list[FailedRun]:
        return await fetch_all(
            self._conn,
            FailedRun,
            sql.SQL(
                f"""
                SELECT {_FAILED} {_FROM_FAILED}{{}}
                ORDER BY history.id DESC
                LIMIT %(limit)s
                """
            ).format(make_and_conditions({"history.id < %(before)s": before_id})),
            {"limit": limit, "before": before_id},
        )

    async def get_failed_run(self, run_identifier: str) -> FailedRunDetails | None:
        cursor = await self._conn.execute(
            f"""
            SELECT {_FAILED}, request, raw_answer {_FROM_FAILED} AND history.identifier = %(identifier)s
            """,
            {"identifier": run_identifier},
        )
        row = await cursor.fetchone()
        return None if row is None else FailedRunDetails(FailedRun(*row[:-2]), row[-2], row[-1])


@dataclass(frozen=True, slots=True)
class DueCallback:
    """An ended run and its callback URL. Times are naive UTC; `attempts` includes the claimed one."""

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


class CallbackRepository(Repository):
    """Callbacks of ended runs to webhooks, each leased to one worker."""

    async def claim_due_callbacks(self, limit: int, lease_seconds: float) -> list[DueCallback]:
        return await fetch_all(
            self._conn,
            DueCallback,
            """
            UPDATE pipeline.runs
            SET callback_attempts = callback_attempts + 1,
                callback_due_at = now() AT TIME ZONE 'utc' + make_interval(secs => %(lease_seconds)s)
            FROM pipeline_history AS history JOIN videos ON videos.id = history.video_id
            WHERE history.id = runs.run_id AND runs.run_id = ANY (ARRAY(
                SELECT run_id FROM pipeline.runs
                WHERE callback_due_at <= now() AT TIME ZONE 'utc'
                ORDER BY callback_due_at
                LIMIT %(limit)s
                FOR NO KEY UPDATE SKIP LOCKED
            ))  -- an array is read once, before the rows; a subquery of IN may be read for each
            RETURNING run_id, request ->> 'callback_url', callback_attempts, history.identifier, videos.identifier,
                      pipeline_type, status, error_stage, error_message, started_at, completed_at,
                      total_moments_generated, total_clips_created
            """,
            {"limit": limit, "lease_seconds": lease_seconds},
        )

    async def mark_delivered(self, callback: DueCallback) -> None:
        await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET callback_status = 'delivered', callback_due_at = NULL, callback_error = NULL
            WHERE run_id = %(run_id)s
            """,
            {"run_id": callback.run_id},
        )

    async def record_failed_delivery(self, callback: DueCallback, error: str, retry_seconds: float | None) -> None:
        """Store why a callback was not delivered; it is tried again after `retry_seconds`, or never if that is None."""
        await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET callback_error = %(error)s,
                callback_status = CASE WHEN %(again)s::float8 IS NULL THEN 'failed' ELSE 'waiting' END,
                callback_due_at = now() AT TIME ZONE 'utc' + make_interval(secs => %(again)s)
            WHERE run_id = %(run_id)s AND callback_status = 'waiting' AND callback_attempts = %(attempts)s
            """,
            {"run_id": callback.run_id, "attempts": callback.attempts, "error": error, "again": retry_seconds},
        )
