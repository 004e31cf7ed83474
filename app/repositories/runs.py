"""Runs of the pipeline with what they were asked for, and the moments that their video has now."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from app.database import Connection
from app.models.run import StageRecord
from app.models.stages import Stage
from app.repositories.statements import and_where
from app.repositories.stored_runs import IS_WAITING, read_stages


@dataclass(frozen=True, slots=True)
class RunDetails:
    """What is known of a run of this version; `subject` is the moment that it refines, or ''.

    `is_waiting` is true until its first stage has begun.
    """

    subject: str
    is_waiting: bool
    generation_model: str
    refinement_model: str
    stages: Mapping[Stage, StageRecord]


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run; times are naive UTC, the moments ready JSON in the order they were added.

    `model` and `operation_type` are those of its config, `details` None for a run of an earlier version.
    """

    details: RunDetails | None
    id: int
    identifier: str
    type: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None
    model: str | None
    operation_type: str | None
    coarse_moments: str
    refined_moments: str


class RunRepository:
    """Runs by the identifier of their video."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def list_runs(
        self, video: str, limit: int, before: tuple[datetime, int] | None = None, run_type: str | None = None
    ) -> list[ShownRun]:
        """Return at most `limit` runs of the video, newest first; `before` is the last one's `(started_at, id)`."""
        started_at, run_id = before or (None, None)
        wanted = and_where(
            {"(started_at, history.id) < (%(started_at)s, %(id)s)": before, "pipeline_type = %(type)s": run_type}
        )
        cursor = await self._conn.execute(
            sql.SQL(
                """
                SELECT page.id, page.identifier, pipeline_type, page.status, page.started_at, page.completed_at,
                       page.duration_seconds, total_moments_generated, total_clips_created, error_stage,
                       error_message, model, operation_type, coarse_moments, refined_moments,
                       subject, {}, request ->> 'generation_model', request ->> 'refinement_model', stages
                FROM videos
                CROSS JOIN LATERAL (
                    SELECT history.id, history.identifier, pipeline_type, status, started_at, completed_at,
                           history.duration_seconds, total_moments_generated, total_clips_created, error_stage,
                           error_message, generation_config_id
                    FROM pipeline_history AS history
                    WHERE video_id = videos.id{}
                    ORDER BY started_at DESC, history.id DESC
                    LIMIT %(limit)s
                ) AS page
                LEFT JOIN pipeline.runs ON runs.run_id = page.id
                LEFT JOIN generation_configs ON generation_configs.id = generation_config_id
                CROSS JOIN (
                    SELECT coalesce(json_agg(moment ORDER BY id) FILTER (WHERE NOT is_refined), '[]')::text,
                           coalesce(json_agg(moment ORDER BY id) FILTER (WHERE is_refined), '[]')::text
                    FROM (
                        SELECT moments.id, is_refined, json_build_object(
                            'id', moments.identifier, 'title', moments.title,
                            'start_time', start_time, 'end_time', end_time
                        ) AS moment
                        FROM videos JOIN moments ON moments.video_id = videos.id
                        WHERE videos.identifier = %(video)s
                    ) AS moments
                ) AS shown (coarse_moments, refined_moments)
                WHERE videos.identifier = %(video)s
                ORDER BY page.started_at DESC, page.id DESC
                """
            ).format(sql.SQL(IS_WAITING), wanted),
            {"video": video, "limit": limit, "started_at": started_at, "id": run_id, "type": run_type},
        )
        return [ShownRun(_read_details(*row[15:]), *row[:15]) for row in await cursor.fetchall()]


def _read_details(
    subject: str | None,
    is_waiting: bool,
    generation_model: str | None,
    refinement_model: str | None,
    stages: dict[str, Any] | None,
) -> RunDetails | None:
    if subject is None or stages is None:
        return None
    return RunDetails(subject, is_waiting, generation_model or "", refinement_model or "", read_stages(stages))
