"""SQL over `pipeline_history` and `pipeline.runs`: runs, their stage records and their requests."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, LiteralString, TypedDict, Unpack

from psycopg import sql

from app.database.queries import Repository, fetch_one, insert_row, list_columns, make_and_conditions, update_row
from app.models import PipelineRun
from app.models.runs import ClaimedRun, RunRequest, StageRecord, StageStatus, find_last_reached_stage
from app.models.stages import RunType, Stage

_SELECT = f"SELECT {list_columns(PipelineRun)} FROM pipeline_history"


_IDENTIFIER_LENGTH = 100
_DIGEST_LENGTH = 16


class _OptionalRunColumns(TypedDict, total=False):
    generation_config_id: int | None
    completed_at: datetime | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None


class RunChanges(_OptionalRunColumns, total=False):
    """The columns of a run that may change."""

    status: str


class NewRun(_OptionalRunColumns):
    """The columns of a new run; `started_at` is naive UTC."""

    identifier: str
    video_id: int
    pipeline_type: str
    status: str
    started_at: datetime


def make_run_identifier(video_identifier: str, started_at_ms: int) -> str:
    """Return `pipeline:{video}:{unix ms}`, at most 100 characters.

    A longer video identifier is cut and gets part of its SHA-256, so that two with the same beginning differ.
    """
    frame = f"pipeline::{started_at_ms}"
    space = _IDENTIFIER_LENGTH - len(frame)
    if len(video_identifier) > space:
        digest = hashlib.sha256(video_identifier.encode()).hexdigest()[:_DIGEST_LENGTH]
        video_identifier = f"{video_identifier[: space - _DIGEST_LENGTH - 1]}-{digest}"
    return f"pipeline:{video_identifier}:{started_at_ms}"


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run's models and stage records, whether it waits for a worker, and the moment that it refines: `subject`."""

    subject: str
    is_waiting: bool
    generation_model: str
    refinement_model: str
    stages: Mapping[Stage, StageRecord]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run with its config and its video's moments as JSON text; `details` is None for one of an earlier version."""

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


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that has not ended: the last stage that has started, and the moment that it refines, or ''."""

    current_stage: Stage | None
    id: int
    identifier: str
    video: str
    type: str
    subject: str
    is_waiting: bool
    attempt: int
    started_at: datetime


# Whether no stage of an active run has started; for queries over pipeline.runs.
IS_WAITING: LiteralString = """
    (owner IS NULL AND NOT jsonb_path_exists(stages, '$.* ? (@.status != "pending" && @.status != "skipped")'))"""


class RunRepository(Repository):
    """Runs of the pipeline by id, by identifier, by video and by status."""

    async def create(self, **run: Unpack[NewRun]) -> PipelineRun:
        return await insert_row(self._conn, PipelineRun, "pipeline_history", run)

    async def get(self, run_id: int) -> PipelineRun | None:
        return await fetch_one(self._conn, PipelineRun, _SELECT + " WHERE id = %(id)s", {"id": run_id})

    async def get_by_identifier(self, identifier: str) -> PipelineRun | None:
        return await fetch_one(self._conn, PipelineRun, _SELECT + " WHERE identifier = %(key)s", {"key": identifier})

    async def update(self, run_id: int, **changes: Unpack[RunChanges]) -> PipelineRun | None:
        return await update_row(self._conn, PipelineRun, "pipeline_history", run_id, changes)

    async def list_run_summaries(
        self, video_identifier: str, limit: int, before: tuple[datetime, int] | None = None, run_type: str | None = None
    ) -> list[RunSummary]:
        """Return runs of a video, newest first; `before` is the last one's `(started_at, id)`."""
        started_at, run_id = before or (None, None)
        wanted = make_and_conditions(
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
            {"video": video_identifier, "limit": limit, "started_at": started_at, "id": run_id, "type": run_type},
        )
        return [RunSummary(_parse_run_details(row[15:]), *row[:15]) for row in await cursor.fetchall()]

    async def list_active_runs(self, limit: int, after_id: int = 0) -> list[ActiveRun]:
        cursor = await self._conn.execute(
            f"""
            SELECT history.id, history.identifier, videos.identifier, pipeline_type, subject, {IS_WAITING}, attempt,
                   history.started_at, stages
            FROM pipeline_history AS history
            JOIN pipeline.runs ON runs.run_id = history.id
            JOIN videos ON videos.id = history.video_id
            WHERE history.status = 'running' AND history.id > %(after)s
            ORDER BY history.id
            LIMIT %(limit)s
            """,
            {"limit": limit, "after": after_id},
        )
        return [
            ActiveRun(find_last_reached_stage(parse_stage_records(stages)), *run)
            for *run, stages in await cursor.fetchall()
        ]

    async def list_ids_and_identifiers_of_active_runs(self, video_identifier: str) -> list[tuple[int, str]]:
        cursor = await self._conn.execute(
            """
            SELECT run_id, history.identifier
            FROM videos
            JOIN pipeline_history AS history ON history.video_id = videos.id
            JOIN pipeline.runs ON runs.run_id = history.id
            WHERE videos.identifier = %(video)s AND history.status = 'running'
            ORDER BY run_id
            """,
            {"video": video_identifier},
        )
        return await cursor.fetchall()


def _parse_run_details(row: Sequence[Any]) -> RunDetails | None:
    subject, is_waiting, generation_model, refinement_model, stages = row
    if subject is None or stages is None:
        return None
    return RunDetails(subject, is_waiting, generation_model or "", refinement_model or "", parse_stage_records(stages))


def parse_claimed_run(row: Sequence[Any]) -> ClaimedRun:
    """Return the run of a row of `pipeline.claim_stage`.

    Raises ValueError, LookupError, TypeError or AttributeError for one written by another version.
    """
    run_id, identifier, video_id, video, run_type, subject, request, stages, stage, *claim = row
    parsed = RunType(run_type), subject, parse_run_request(request), parse_stage_records(stages), Stage(stage)
    return ClaimedRun(run_id, identifier, video_id, video, *parsed, *claim)


def parse_run_request(stored_json: Mapping[str, Any]) -> RunRequest:
    known = {field.name for field in fields(RunRequest)}
    return RunRequest(**{name: value for name, value in stored_json.items() if name in known})


def parse_stage_records(stored_json: Mapping[str, Any]) -> dict[Stage, StageRecord]:
    records = {stage: _parse_stage_record(stored_json[stage]) for stage in Stage if stage in stored_json}
    return {stage: record for stage, record in records.items() if record}


def _parse_stage_record(stored_json: Any) -> StageRecord | None:
    if not isinstance(stored_json, Mapping) or stored_json.get("status") not in set(StageStatus):
        return None
    known = {field.name for field in fields(StageRecord)} - {"status"}
    return StageRecord(
        StageStatus(stored_json["status"]), **{name: value for name, value in stored_json.items() if name in known}
    )
